"""The listeners, and uvicorn between them and the application.

Plain HTTP is for this machine only; TLS comes and goes. uvicorn's own server has one listener for
as long as it lives and looks ten times a second whether it should stop; this one waits.
"""

import asyncio
import contextlib
import errno
import logging
import resource
import signal
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from assistantd.log import fields
from clients.i18n import _
from clients.web.connections import (
    KEEP_ALIVE_S,
    WRITE_S,
    GuardedHttp,
    GuardedWebSocket,
    Lobby,
    TlsDoor,
)
from clients.web.errors import GatewayError
from clients.web.security import MAX_BODY_BYTES

log = logging.getLogger(__name__)

LOOPBACK: Final = ("127.0.0.1", "::1")
EVERYWHERE: Final = ("0.0.0.0", "::")
_BACKLOG: Final = 256
_DESCRIPTORS: Final = 4096
_HEAD_BYTES: Final = 32 * 1024
_GOODBYE_S: Final = 5


def bind(addresses: Sequence[str], port: int, option: str) -> list[socket.socket]:
    """Listening sockets, all at one port; 0 takes any that is free.

    Args:
        addresses: the first must be there, others may be missing: not every machine has IPv6.
        option: of the command line, that the message names.

    Raises:
        GatewayError: the port is taken, or not ours to use.
    """
    sockets: list[socket.socket] = []
    for address in addresses:
        try:
            sockets.append(_bind_one(address, port or _port_of(sockets)))
        except OSError as problem:
            if sockets and problem.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue
            if sockets and not port and problem.errno == errno.EADDRINUSE:
                continue  # free by IPv4 only, which is enough where any would do
            for opened in sockets:
                opened.close()
            raise GatewayError(_cannot_listen(problem, address, port, option)) from problem
    return sockets


def _bind_one(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # by its name: asyncio sets TCP_NODELAY only where it sees that it is TCP, and without it each
    # answer waits 40 ms for an acknowledgement
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # these go over to the connections: one whose other end is gone must not stay for ever
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = round(1000 * WRITE_S)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _port_of(sockets: list[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1]) if sockets else 0


def _cannot_listen(problem: OSError, address: str, port: int, option: str) -> str:
    if problem.errno == errno.EADDRINUSE:
        return _(
            "port {port} is taken, perhaps by another gateway; stop what uses it, "
            "or choose another one with {option}"
        ).format(port=port, option=option)
    return _(
        "cannot listen at {address}, port {port}: {problem}; choose another one with {option}"
    ).format(address=address, port=port, problem=problem.strerror or problem, option=option)


class Server(uvicorn.Server):
    """Serves an application at listeners that may come and go.

    Args:
        app: the application.
        plain: sockets that HTTP without TLS is spoken at.

    Attributes:
        lobby: the connections.
    """

    def __init__(self, app: ASGIApp, plain: list[socket.socket]) -> None:
        self.lobby = lobby = Lobby()

        class Http(GuardedHttp):
            pass

        class WebSocket(GuardedWebSocket):
            pass

        Http.lobby = WebSocket.lobby = lobby
        config = uvicorn.Config(
            app,
            http=Http,
            ws=WebSocket,
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            workers=1,
            ws_max_size=MAX_BODY_BYTES,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GOODBYE_S,
            h11_max_incomplete_event_size=_HEAD_BYTES,
        )
        super().__init__(config)
        self.servers = []
        self._plain = plain
        self._secure: list[asyncio.Server] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()

    async def run_until_stopped(self) -> None:
        """Serve until SIGTERM, SIGINT or `stop`; then let go of everybody, in a few seconds."""
        try:
            await self.serve()
            # what took too long was cancelled, and must end before others close what it uses
            await asyncio.gather(*self.server_state.tasks, return_exceptions=True)
        finally:  # also if it is cancelled
            for server in self.servers:
                server.close()
            for listener in self._plain:
                listener.close()

    def stop(self) -> None:
        """End serving. May be repeated."""
        self.should_exit = True
        self._stop.set()

    async def open_tls(self, sockets: list[socket.socket], context: ssl.SSLContext) -> None:
        """Speak TLS at these sockets."""
        loop = asyncio.get_running_loop()

        def door() -> TlsDoor:
            return TlsDoor(self._protocol, context, self.lobby, self._handshakes)

        for listener in sockets:
            self._secure.append(await loop.create_server(door, sock=listener, backlog=_BACKLOG))
        self.servers += self._secure

    async def close_tls(self) -> None:
        """Speak TLS no longer, and end the connections that came by it."""
        for server in self._secure:
            server.close()
        self.servers = [one for one in self.servers if one not in self._secure]
        self._secure.clear()
        for task in list(self._handshakes):
            task.cancel()
        for connection in list(self.server_state.connections):
            guarded: Any = connection  # uvicorn's type has more kinds than there are here
            if guarded.scheme in ("https", "wss"):
                guarded.transport.abort()

    # --- what uvicorn's server does in its own way ---

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve plain HTTP."""
        loop = asyncio.get_running_loop()
        for listener in self._plain:
            self.servers.append(
                await loop.create_server(self._protocol, sock=listener, backlog=_BACKLOG)
            )
        self.started = True

    async def main_loop(self) -> None:
        """Until `stop`."""
        await self._stop.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end it well, with exit status 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _protocol(self) -> GuardedHttp:
        protocol: Any = self.config.http_protocol_class(
            config=self.config,  # type: ignore[call-arg]
            server_state=self.server_state,
            app_state={},
        )
        assert isinstance(protocol, GuardedHttp)
        return protocol


def allow_descriptors() -> None:
    """Let this process have enough open sockets; many systems begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        log.debug("descriptors", extra=fields(before=soft, now=wanted))
