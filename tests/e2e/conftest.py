"""A real daemon with the real model, as a process of its own, for the end-to-end tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import RunningDaemon, short_folder


@pytest.fixture(scope="module")
def daemon(smollm2_path: Path) -> Iterator[RunningDaemon]:
    """A daemon that the tests of a module share."""
    folder = short_folder()
    running = RunningDaemon(folder, smollm2_path).start()
    yield running
    code = running.stop()
    log = running.log.read_text()
    shutil.rmtree(folder)
    assert code == 0, log
    assert "Traceback" not in log, log


@pytest.fixture
def own_daemon(smollm2_path: Path) -> Iterator[RunningDaemon]:
    """A daemon for one test, which may kill it; not started yet."""
    folder = short_folder()
    running = RunningDaemon(folder, smollm2_path)
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()
    shutil.rmtree(folder)
