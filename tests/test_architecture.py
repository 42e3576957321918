"""Imports go one way: engine ← assistantd; clients know assistantd.protocol and nothing else.

But for assistantd.localisation and assistantd.log, which know languages and lines of a log and
nothing of the daemon, and import none of it.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_direction() -> None:
    for path in sorted(ROOT.glob("assistantd/localisation/**/*.py")):
        for name in imports(path):
            assert name.split(".")[0] not in ("engine", "clients", "numpy", "numba"), (path, name)
            own = name.startswith("assistantd.localisation.")
            assert own or name.split(".")[0] != "assistantd", (path, name)
    for path in ROOT.glob("assistantd/log*.py"):
        for name in imports(path):
            assert not name.startswith("assistantd") or name.startswith("assistantd.log"), path
    for path in sorted(ROOT.glob("engine/**/*.py")):
        assert not [n for n in imports(path) if n.split(".")[0] in ("assistantd", "clients")], path
    for path in sorted(ROOT.glob("assistantd/**/*.py")):
        assert not [n for n in imports(path) if n.split(".")[0] == "clients"], path
    for path in sorted(ROOT.glob("clients/**/*.py")):
        for name in imports(path):
            root = name.split(".")[0]
            assert root not in ("engine", "numba"), (path, name)
            assert root != "numpy" or "voice" in path.parts, (path, name)
            allowed = ("assistantd.protocol", "assistantd.localisation.", "assistantd.log")
            assert root != "assistantd" or name.startswith(allowed), (path, name)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("clients", ("numpy", "numba", "engine", "rich", "prompt_toolkit", "asyncio")),
        ("clients.cli.gateway", ("asyncio", "starlette", "uvicorn", "cryptography", "zmq")),
        ("clients.cli.doctor", ("asyncio", "rich", "zmq", "sqlite3", "clients.doctor.checks")),
        ("clients.doctor.checks", ("numpy", "numba", "engine", "vosk", "cryptography", "asyncio")),
        ("assistantd.examine", ("numpy", "numba", "engine", "zmq")),
        ("clients.web.gateway", ("numpy", "numba", "engine", "cryptography", "vosk", "ifaddr")),
        ("assistantd.__main__", ("numpy", "numba", "engine")),
        ("engine.info", ("numba",)),
        ("engine.generate", ("numba",)),
        ("engine.bench", ("numba",)),
        ("assistantd.daemon", ("numba",)),
    ],
)
def test_light_imports(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
