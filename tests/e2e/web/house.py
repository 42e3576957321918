"""What the browser talks to, with the switches that tests need: a stand-in or the real thing."""

import shutil
from pathlib import Path
from typing import Protocol

from assistantd.protocol import Devices
from tests.e2e.web.gateway.process import RunningGateway
from tests.running import RunningDaemon, short_folder


class House(Protocol):
    """A gateway with a daemon behind it."""

    url: str

    def open_pairing(self) -> str:
        """A code that works once, for a while."""

    def revoke_all(self) -> None:
        """No device is one any more."""

    def start(self) -> object:
        """Let the gateway listen (again), at the same port."""

    def stop(self) -> object:
        """Let the gateway vanish."""

    def daemon_away(self) -> None:
        """Let the daemon vanish."""

    def daemon_back(self) -> None:
        """Start it again."""


class RealHouse:
    """The real gateway before the real daemon with the real model, as processes of their own."""

    def __init__(self, model: Path, *options: str) -> None:
        self._folder = short_folder()
        self.daemon = RunningDaemon(self._folder, model).start()
        self.gateway = RunningGateway(self.daemon, self._folder, *options)
        self.start()
        self.gateway.options = (*options, "--port", str(self.gateway.port))
        self.url = self.gateway.plain

    def open_pairing(self) -> str:
        """As `assistant pair` does."""
        return self.gateway.open_code().code

    def revoke_all(self) -> None:
        """As `assistant devices revoke` does."""
        with self.daemon.client() as client:
            for device in client.request(Devices(op="list")).devices or []:
                client.request(Devices(op="revoke", id=device.id))

    def start(self) -> None:
        """Start the gateway."""
        self.gateway.start()

    def stop(self) -> None:
        """Stop it as systemd would."""
        assert self.gateway.stop() == 0, self.gateway.log.read_text()

    def daemon_away(self) -> None:
        """kill -9."""
        self.daemon.kill()

    def daemon_back(self) -> None:
        """Start it again; returns when it answers."""
        self.daemon.start()

    def close(self) -> None:
        """Stop both; neither may have failed."""
        codes = [self.gateway.stop(), self.daemon.stop()]
        logs = self.gateway.log.read_text() + self.daemon.log.read_text()
        shutil.rmtree(self._folder)
        assert codes == [0, 0], logs
        assert "Traceback" not in logs and "traceback" not in logs, logs
