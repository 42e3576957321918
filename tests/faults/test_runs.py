"""Short runs of the benchmarks of load, kills and power cuts: what they check is checked here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kills import kill_many
from benchmarks.load import Run, run_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_load(smollm2_path: Path) -> None:
    planned = [
        Run("all alike", 20, 300),
        Run("greedy beside modest", 12, 96, greedy=2, think_s=0.1),
    ]
    for result in run_all(smollm2_path, planned):
        assert not result.problems, result.problems
        assert result.answered + result.cancelled + result.vanished == result.requests
        assert result.queue_peak <= 32


def test_kills(smollm2_path: Path) -> None:
    result = kill_many(smollm2_path, 25)
    assert result["problems"] == []
    assert result["kills"] == 25


def test_power_cuts(smollm2_path: Path, tmp_path: Path) -> None:
    """A process of its own, as it wants mounts of its own."""
    if os.geteuid() or shutil.which("mkfs.ext4") is None or not Path("/dev/loop-control").exists():
        pytest.skip("a disk of its own needs root, mkfs.ext4 and loop devices")
    out = tmp_path / "out.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.power_cuts", str(smollm2_path)),
            *("--cuts", "15", "--json", str(out)),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert result["kills"] == 15 and result["lost"] == result["unreadable"] == 0
