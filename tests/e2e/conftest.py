"""A real daemon with the real model, as a process of its own, for the end-to-end tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import RunningDaemon, running_daemon, short_folder


@pytest.fixture(scope="module")
def daemon(smollm2_path: Path) -> Iterator[RunningDaemon]:
    """A daemon that the tests of a module share."""
    with running_daemon(smollm2_path) as running:
        yield running


@pytest.fixture
def own_daemon(smollm2_path: Path) -> Iterator[RunningDaemon]:
    """A daemon for one test, which may kill it; not started yet."""
    folder = short_folder()
    running = RunningDaemon(folder, smollm2_path)
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()
    shutil.rmtree(folder)
