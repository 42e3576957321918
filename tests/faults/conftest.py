"""Fixtures for the tests of faults: a daemon of one's own, and places where things go wrong."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.device import NoDeviceError, loop_disk
from tests.running import RunningDaemon, short_folder


@pytest.fixture
def own_daemon(smollm2_path: Path) -> Iterator[RunningDaemon]:
    """A daemon for one test; not started yet."""
    folder = short_folder()
    running = RunningDaemon(folder, smollm2_path)
    yield running
    if running.process is not None and running.process.poll() is None:
        running.kill()
    shutil.rmtree(folder)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 24 MB in memory."""
    if os.geteuid():
        pytest.skip("mounting needs root")
    folder = Path(tempfile.mkdtemp(prefix="sd-"))
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24M", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        folder.rmdir()
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture
def real_disk() -> Iterator[Path]:
    """An ext4 file system of its own, whose power can be cut."""
    try:
        with loop_disk(300 << 20, "commit=600") as (_device, folder):
            yield folder
    except NoDeviceError as problem:
        pytest.skip(str(problem))
