"""A daemon and a gateway that the tests of a module share, or of one's own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.web.gateway.process import RunningGateway
from tests.running import RunningDaemon, short_folder


@pytest.fixture(scope="module")
def gateway(smollm2_path: Path) -> Iterator[RunningGateway]:
    """Both, shared."""
    yield from _both(smollm2_path)


@pytest.fixture
def own_gateway(smollm2_path: Path) -> Iterator[RunningGateway]:
    """Both, for one test, which may kill them."""
    yield from _both(smollm2_path)


def _both(model: Path) -> Iterator[RunningGateway]:
    folder = short_folder()
    daemon = RunningDaemon(folder, model).start()
    running = RunningGateway(daemon, folder)
    try:
        yield running.start()
    finally:
        codes = [running.stop(), daemon.stop()]
        logs = running.log.read_text() + daemon.log.read_text()
        shutil.rmtree(folder)
    assert codes == [0, 0], logs
    assert "Traceback" not in logs and "traceback" not in logs, logs
