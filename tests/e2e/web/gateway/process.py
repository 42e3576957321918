"""A real gateway as a process of its own, before a real daemon."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2

from assistantd.protocol import DeviceInfo, Devices, Pair, PairingInfo
from tests.clients.scripted_daemon import WAIT_S
from tests.running import RunningDaemon


class RunningGateway:
    """A gateway in a folder of its own.

    Attributes:
        plain: http://localhost:PORT, without a slash.
        secure: addresses by TLS, without a slash.
    """

    def __init__(self, daemon: RunningDaemon, folder: Path, *options: str) -> None:
        self.daemon, self.folder, self.options = daemon, folder, options
        self.log = folder / "gateway.log"
        self.data = folder / "gateway-data"
        self.environment: dict[str, str] = {}
        self.within: list[str] = []  # a command that starts the command that follows it
        self.plain = ""
        self.secure: list[str] = []

    def start(self) -> "RunningGateway":
        """Start it, and wait until it listens."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.within,
                    *(sys.executable, "-m", "clients.cli", "--endpoint", self.daemon.endpoint),
                    *("gateway", "--json", "--port", "0", "--tls-port", "0"),
                    *self.options,
                ],
                env={
                    **os.environ,
                    "XDG_DATA_HOME": str(self.data),
                    "ASSISTANTD_AUTOSTART": "0",
                    **self.environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.read_addresses()
        return self

    def read_addresses(self) -> None:
        """Wait until it tells its addresses, again or for the first time."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        told = json.loads(line)
        self.plain = told["plain"][0].rstrip("/")
        self.secure = [address.rstrip("/") for address in told["secure"]]

    @property
    def port(self) -> int:
        """Of plain HTTP."""
        return int(self.plain.rpartition(":")[2])

    @property
    def tls_port(self) -> int:
        """Of TLS."""
        return int(self.secure[0].rpartition(":")[2])

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(WAIT_S)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of its log of this event."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{"]
        return [line for line in lines if line["event"] == name]

    def rss_bytes(self) -> int:
        """What it takes in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    # --- as whoever sits at the computer ---

    def open_code(self, **more: Any) -> PairingInfo:
        """`assistant pair`."""
        with self.daemon.client() as client:
            info = client.request(Pair(op="open", **more)).pairing
        assert info is not None
        return info

    def revoke(self, device_id: str) -> None:
        """`assistant devices revoke`."""
        with self.daemon.client() as client:
            client.request(Devices(op="revoke", id=device_id))

    def revoke_all(self) -> None:
        """No device is one any more."""
        with self.daemon.client() as client:
            for device in client.request(Devices(op="list")).devices or []:
                client.request(Devices(op="revoke", id=device.id))

    def new_key(self, name: str, **more: Any) -> tuple[DeviceInfo, str]:
        """`assistant devices add`."""
        with self.daemon.client() as client:
            done = client.request(Devices(op="add", name=name, **more))
        assert done.device is not None and done.token is not None
        return done.device, done.token

    # --- as a browser ---

    def browser(self, **more: Any) -> httpx2.AsyncClient:
        """One that is not paired yet."""
        headers = {"origin": self.plain, **more.pop("headers", {})}
        more = {"timeout": WAIT_S, **more}
        return httpx2.AsyncClient(base_url=self.plain, headers=headers, **more)

    async def pair(self, browser: httpx2.AsyncClient, name: str = "phone", **more: Any) -> str:
        """Pair a browser by a code; returns the device's id."""
        code = (await asyncio.to_thread(self.open_code, **more)).code
        answer = await browser.post("/api/pair", json={"code": code, "name": name})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["device"]["id"])
