"""Imports go one way: engine ← assistantd; clients know assistantd.protocol and nothing else."""

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
    for path in sorted(ROOT.glob("engine/**/*.py")):
        assert not [n for n in imports(path) if n.split(".")[0] in ("assistantd", "clients")], path
    for path in sorted(ROOT.glob("assistantd/**/*.py")):
        assert not [n for n in imports(path) if n.split(".")[0] == "clients"], path
    for path in sorted(ROOT.glob("clients/**/*.py")):
        for name in imports(path):
            root = name.split(".")[0]
            assert root not in ("engine", "numba", "numpy"), (path, name)
            assert root != "assistantd" or name.startswith("assistantd.protocol"), (path, name)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("clients", ("numpy", "numba", "engine", "rich", "prompt_toolkit", "asyncio")),
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
