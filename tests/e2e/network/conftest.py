"""A real daemon with its network on, and devices that are paired with it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from assistantd.protocol import Done, Limits, Network, StatusInfo
from clients import Client
from tests.remote import Paired, free_port, line_to, pair
from tests.running import RunningDaemon, short_folder

FREE = Limits(requests_per_minute=100_000, concurrent=8)


@dataclass
class Home:
    """The daemon, and who knows it."""

    daemon: RunningDaemon
    port: int
    phone: Paired
    watch: Paired
    laptop: Paired
    """May do everything."""
    limited: Paired
    lost: Paired
    """For a test that revokes it."""

    @property
    def endpoint(self) -> str:
        """Of the network's door."""
        return f"tcp://127.0.0.1:{self.port}"

    def status(self, client: Client) -> StatusInfo:
        """The daemon's, once nothing is under way."""
        for _ in range(100_000):
            status = client.status()
            if status.queue.active == status.queue.waiting == 0:
                return status
        raise AssertionError("the daemon is still busy")


def switch_on(daemon: RunningDaemon, port: int) -> None:
    """Let a daemon listen on the network."""
    with line_to(daemon.endpoint) as local:
        done = local.ask(Network(op="on", address="127.0.0.1", port=port))
        assert isinstance(done, Done) and done.network is not None and done.network.on, done


@pytest.fixture(scope="module")
def home(smollm2_path: Path) -> Iterator[Home]:
    """A daemon that the tests of a module share."""
    folder = short_folder()
    data = folder / "data"
    limits = Limits(requests_per_minute=4, max_tokens=5, concurrent=1)
    devices = {
        "phone": pair(data, name="phone", limits=FREE),
        "watch": pair(data, name="watch", limits=FREE),
        "laptop": pair(data, name="laptop", rights="admin", limits=FREE),
        "limited": pair(data, name="limited", limits=limits),
        "lost": pair(data, name="lost", limits=FREE),
    }
    running = RunningDaemon(folder, smollm2_path).start()
    found = Home(running, free_port(), **devices)
    switch_on(running, found.port)
    yield found
    code = running.stop()
    log = running.log.read_text()
    shutil.rmtree(folder)
    assert code == 0, log
    assert "Traceback" not in log, log
