"""engine.host: asking LLVM once, and what is kept of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from engine import host, native

FOUND = """
import json, sys
from engine.host import host
found = host()
print(json.dumps([found.name, sorted(found.features), "llvmlite" in sys.modules]))
"""


def ask(cache: Path) -> tuple[str, list[str], bool]:
    """In a process of its own: what it is, and whether LLVM was loaded for it."""
    done = subprocess.run(
        [sys.executable, "-c", FOUND],
        env={**os.environ, "ASSISTANTD_KERNEL_CACHE": str(cache)},
        check=True,
        capture_output=True,
        text=True,
    )
    name, features, loaded = json.loads(done.stdout)
    return name, features, loaded


def test_llvm_is_asked_once(tmp_path: Path) -> None:
    features = sorted(name for name, on in llvm.get_host_cpu_features().items() if on)
    assert ask(tmp_path) == (llvm.get_host_cpu_name(), features, True)
    (kept,) = (tmp_path / "kernels").iterdir()
    assert ask(tmp_path) == (llvm.get_host_cpu_name(), features, False)
    for damaged in (b"", b"[1]", b'{"name": 1, "features": []}', kept.read_bytes()[:-9]):
        kept.write_bytes(damaged)
        assert ask(tmp_path) == (llvm.get_host_cpu_name(), features, True)
        assert ask(tmp_path) == (llvm.get_host_cpu_name(), features, False)  # it was mended


def test_another_processor_or_llvm_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    before = host._path()
    assert before is not None
    monkeypatch.setattr(host, "version", lambda package: "0.0")
    assert host._path() != before


def test_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "kernels").touch()
    assert ask(tmp_path) == ask(tmp_path)


def test_loading_kernels_needs_no_llvm() -> None:
    native.warm()
    script = "import sys; from engine import native; native.function('forward_pass'); "
    script += "sys.exit('llvmlite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == (sys.platform != "linux")
