"""`assistant bench` on a small model: the figures are there and of a sensible kind."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.engine.tiny_models import Spec, Type, write_model


def bench(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clients.cli", "bench", *args]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environ}, check=False
    )


def test_every_phase_is_measured(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", Spec(type=Type.Q4_0))
    done = bench(str(path), "-p8", "-n4", "-b2", "-d0,32", "-r2", "-t1", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["quantization"] == "Q4_0"
    assert result["memory_gigabytes_per_second"] > 0
    assert [f["test"] for f in result["figures"]] == [
        "pp8", "tg4", "tg4 x2", "pp8 @ d32", "tg4 @ d32", "tg4 x2 @ d32",
    ]  # fmt: skip
    assert all(f["tokens_per_second"] > 0 for f in result["figures"])


def test_the_profile_adds_up(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", Spec(type=Type.Q4_0))
    done = bench(str(path), "--profile", "-t1", "--json")
    assert done.returncode == 0, done.stderr
    for shares in json.loads(done.stdout).values():
        shares.pop("milliseconds")
        assert abs(sum(shares.values()) - 1) < 0.02


def test_what_cannot_be_measured_is_told_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    for args, environ in (
        ([str(broken)], {}),
        (["no-such-model"], {}),
        (["--depth", "far"], {}),
        ([], {"ASSISTANTD_ENGINE_THREADS": "many"}),
    ):
        done = bench(*args, **environ)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        assert done.stderr.strip()
