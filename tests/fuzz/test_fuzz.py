"""The fuzzers run for a while, from fixed seeds; `make fuzz` runs them for hours."""

import argparse
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.fuzz.__main__ import TARGETS, run_one
from tests.fuzz.target import Target


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_sound_is_taken(name: str) -> None:
    """All seeds pass: the fuzzers begin with what the readers know."""
    target = import_module(TARGETS[name][0]).TARGET
    assert isinstance(target, Target)
    seeds = target.seeds()
    few = list(seeds.items())[: 40 if name == "templates" else None]
    outcomes = {run_one(target, seed) for _seed, seed in few}
    assert len(outcomes) >= 2


def test_a_crash_is_found_and_kept(tmp_path: Path) -> None:
    """A reader that fails on a letter: the fuzzer must see it."""
    from tests.fuzz.__main__ import run_own

    def fails(data: bytes) -> str:
        assert b"\xff" not in data
        return str(len(data))

    asked = argparse.Namespace(seconds=5, corpus=None, artifacts=tmp_path, seed=1)
    assert run_own(Target("broken", fails, lambda: {"a": b"abc"}), asked) == 1
    found = list(tmp_path.glob("broken-crash-*"))
    assert found and all(b"\xff" in file.read_bytes() for file in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_for_a_while(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz", name, "--seconds", "20", "--seed", "7"),
            *("--corpus", tmp_path / "corpus", "--artifacts", tmp_path / "crashes"),
        ],
        capture_output=True,
        text=True,
    )
    crashes = [
        file.name for file in (tmp_path / "crashes").iterdir() if "slow-unit" not in file.name
    ]
    assert done.returncode == 0 and not crashes, done.stdout[-1000:] + done.stderr[-3000:]
