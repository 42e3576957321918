"""A gateway in the test's own event loop, over real sockets, and a scripted daemon behind it.

async def test(house: House) -> None:
    async with house.browser() as browser:
        assert (await browser.get("/api/me")).status_code == 200

visit(tmp_path, test)
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import websockets

from assistantd.protocol import (
    DeviceInfo,
    DeviceKind,
    Devices,
    Done,
    Error,
    ErrorInfo,
    Limits,
    ModelInfo,
    Network,
    NetworkInfo,
    Pair,
    Progress,
    Request,
)
from clients.web.gateway import Addresses, Gateway, Options
from tests.clients.scripted_daemon import WAIT_S, ScriptedDaemon, Send, status_info

CODE = "123456"


def device(name: str, kind: DeviceKind = "web") -> DeviceInfo:
    """A device; its id is made of its name."""
    device_id = (name + "aaaaaaaa")[:8]
    return DeviceInfo(
        id=device_id, name=name, kind=kind, rights="chat", limits=Limits(), created_at=1.0
    )


class DaemonWithDevices(ScriptedDaemon):
    """Knows devices by tokens; a revoked one is told to whoever watches."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(tmp_path)
        self.devices: dict[str, DeviceInfo] = {
            "phone-token": device("phone"),
            "watch-token": device("watch"),
            "key-token": device("editor", "api"),
        }
        self.network_on = False
        self._watching: list[Send] = []
        self.on("devices", self._devices)
        self.on("pair", self._pair)
        self.on("network", self._network)
        model = ModelInfo(name="tiny", size_bytes=1, loaded=True, default=True)
        self.on("status", lambda r, send: send(Done(status=status_info(model=model))))
        self.on("models", lambda r, send: send(Done(models=[model])))

    def revoke(self, token: str) -> None:
        """As `assistant devices revoke` does."""
        gone = self.devices.pop(token)
        for send in self._watching:
            send(Progress("devices", gone.id))

    def changed(self) -> None:
        """Something about devices or the network has changed."""
        for send in self._watching:
            send(Progress("devices", ""))

    def _devices(self, request: Request, send: Send) -> None:
        assert isinstance(request, Devices)
        if request.op == "authenticate":
            found = self.devices.get(request.token or "")
            unknown = ErrorInfo("unauthorized", "no such device")
            send(Done(device=found) if found is not None else Error(unknown))
        elif request.op == "watch":
            self._watching = [*self._watching, send]
            send(Progress("devices", ""))
            send.cancelled.wait()
            self._watching = [one for one in self._watching if one is not send]
        elif request.op == "revoke":
            (token,) = [t for t, one in self.devices.items() if one.id == request.id]
            send(Done(device=self.devices[token]))
            self.revoke(token)
        else:
            send(Done(device=next(d for d in self.devices.values() if d.id == request.device)))

    def _pair(self, request: Request, send: Send) -> None:
        assert isinstance(request, Pair) and request.name is not None
        if request.code != CODE:
            send(Error(ErrorInfo("unauthorized", "that is not the code")))
            return
        self.devices["new-token"] = device("new")
        send(Done(device=self.devices["new-token"], token="new-token"))

    def _network(self, request: Request, send: Send) -> None:
        assert isinstance(request, Network)
        send(Done(network=NetworkInfo(on=self.network_on)))


class House:
    """What a test visits.

    Attributes:
        daemon: scripted.
        plain: http://localhost:PORT, without a slash.
    """

    def __init__(self, daemon: DaemonWithDevices) -> None:
        self.daemon = daemon
        self.told: asyncio.Queue[Addresses] = asyncio.Queue()
        self.plain = ""
        self.addresses = Addresses()

    async def next_addresses(self) -> Addresses:
        """Where the gateway can be reached, once that has changed."""
        async with asyncio.timeout(WAIT_S):
            self.addresses = await self.told.get()
        self.plain = self.addresses.plain[0].rstrip("/")
        return self.addresses

    @property
    def port(self) -> int:
        """Of plain HTTP."""
        return int(self.plain.rpartition(":")[2])

    def browser(self, token: str | None = "phone-token", **more: Any) -> httpx2.AsyncClient:
        """A client with a paired device's cookie that says where its page is from."""
        cookies = {"assistant": token} if token is not None else {}
        headers = {"origin": self.plain, **more.pop("headers", {})}
        return httpx2.AsyncClient(
            base_url=self.plain, cookies=cookies, headers=headers, timeout=WAIT_S, **more
        )

    @asynccontextmanager
    async def page(
        self, token: str | None = "phone-token", origin: str | None = None, **more: Any
    ) -> AsyncIterator["PageSocket"]:
        """The WebSocket of a page."""
        headers = {"cookie": f"assistant={token}"} if token is not None else {}
        async with websockets.connect(
            f"ws://localhost:{self.port}/ws",
            origin=websockets.Origin(origin or self.plain),
            additional_headers=headers,
            proxy=None,
            **more,
        ) as socket:
            yield PageSocket(socket)


class PageSocket:
    """Frames as objects."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket

    async def send(self, **frame: Any) -> None:
        """A request."""
        await self.socket.send(json.dumps(frame))

    async def read(self) -> dict[str, Any]:
        """The next frame."""
        async with asyncio.timeout(WAIT_S):
            frame = json.loads(await self.socket.recv())
        assert isinstance(frame, dict)
        return frame

    async def end_of(self, request_id: str) -> list[dict[str, Any]]:
        """All frames up to the last of a request."""
        frames = [await self.read()]
        while frames[-1].get("id") != request_id or frames[-1]["type"] not in ("done", "error"):
            frames.append(await self.read())
        return frames

    async def closed(self) -> int | None:
        """The code it is closed with, once it is."""
        async with asyncio.timeout(WAIT_S):
            await self.socket.wait_closed()
        return self.socket.close_code


Test = Callable[[House], Awaitable[None]]


def visit(tmp_path: Path, test: Test, **options: Any) -> None:
    """Run a test with a house that is ready."""
    with DaemonWithDevices(tmp_path) as daemon:
        asyncio.run(_visit(daemon, test, options))


async def _visit(daemon: DaemonWithDevices, test: Test, options: dict[str, Any]) -> None:
    house = House(daemon)
    given = {"endpoint": daemon.endpoint, "port": 0, "tls_port": 0, **options}
    gateway = Gateway(Options(**given), house.told.put_nowait)
    serving = asyncio.create_task(gateway.run())
    try:
        ready = asyncio.create_task(house.next_addresses())
        await asyncio.wait((ready, serving), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            ready.cancel()
            serving.result()
        await test(house)
    finally:
        gateway.stop()
        await serving


def trusting(authority: bytes) -> ssl.SSLContext:
    """TLS of a client that trusts an authority, and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.decode())
    return context
