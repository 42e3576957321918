"""Connections that have not said what they want yet: how many there may be, and for how long.

uvicorn waits for a request's head as long as somebody keeps the connection open, and closes none
for want of another's. So whoever opens thousands, or sends a byte a minute (slow-loris), would use
up the descriptors. Here a head must come in time, and where too many wait, the oldest of whoever
has most is closed: a new one always gets in, and one that asks stays.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from assistantd.log import fields
from clients.web.limits import household

log = logging.getLogger(__name__)

HEAD_S: Final = 10.0
"""The head of a request must have come so many seconds after the connection, or its first byte."""
HANDSHAKE_S: Final = 10.0
KEEP_ALIVE_S: Final = 20
"""So long a connection may be silent between two requests."""
CLOSING_S: Final = 10.0
WRITE_S: Final = 60.0
"""Whoever reads nothing of an answer for so long is gone."""
MOST_WAITING: Final = 128
MOST_OPEN: Final = 512
"""Connections in all: those that wait, with a request under way, and WebSockets."""


class Waiting(Protocol):
    """A connection that can be sent away."""

    def send_away(self, reason: str) -> None:
        """Close it at once."""
        ...


class Lobby:
    """Who is connected and has not asked for anything.

    Args:
        most: how many there may be.

    Attributes:
        n_open: connections in all.
    """

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._most = most
        self._by_place: dict[str, dict[Waiting, None]] = {}
        self._places: dict[Waiting, str] = {}
        self.n_open = 0

    def __len__(self) -> int:
        return len(self._places)

    def enter(self, connection: Waiting, address: str) -> None:
        """One more; the oldest of whoever has most goes, if they are too many."""
        self.leave(connection)
        place = household(address)
        self._places[connection] = place
        self._by_place.setdefault(place, {})[connection] = None
        while len(self._places) > self._most:
            crowd = max(self._by_place.values(), key=lambda guests: len(guests))
            oldest = next(iter(crowd))
            self.leave(oldest)
            oldest.send_away("too many connections wait")

    def leave(self, connection: Waiting) -> None:
        """It asks for something, or is gone. May be repeated."""
        place = self._places.pop(connection, None)
        if place is not None:
            crowd = self._by_place[place]
            del crowd[connection]
            if not crowd:
                del self._by_place[place]


class GuardedHttp(H11Protocol):
    """uvicorn's HTTP/1.1, with a lobby that a subclass names."""

    lobby: Lobby

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._deadline: asyncio.TimerHandle | None = None
        self._unread_since: asyncio.TimerHandle | None = None
        self._early: list[bytes] = []  # what TLS had decrypted before we were told of it
        self._ended_early = False
        self._upgraded = False

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.lobby.n_open += 1
        if self._ended_early:
            self.connection_lost(None)
            return
        self._wait(HEAD_S)
        if self.lobby.n_open > MOST_OPEN:
            self.send_away("too many connections are open")
            return
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.transport is None:
            self._early.append(data)
            return
        if self._idle and self.timeout_keep_alive_task is not None:
            self._wait(HEAD_S)  # the first byte of another request
        super().data_received(data)
        if not self._idle:
            self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is None:
            self._ended_early = True
            return
        self._settle()
        self.resume_writing()
        self.lobby.n_open -= 1
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_since = self.loop.call_later(WRITE_S, self.send_away, "it reads nothing")

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread_since is not None:
            self._unread_since.cancel()
            self._unread_since = None

    # --- what uvicorn calls ---

    def on_response_complete(self) -> None:
        unread = self.conn.their_state is h11.SEND_BODY
        super().on_response_complete()
        if unread and not self.transport.is_closing():
            self.transport.close()  # what comes of that body is nobody's
        if self._idle:  # else the next request was there already
            self._wait(CLOSING_S if self.transport.is_closing() else KEEP_ALIVE_S + CLOSING_S)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._settle()
        self._upgraded = True
        self.lobby.n_open -= 1  # the protocol that takes over counts itself
        super().handle_websocket_upgrade(event)

    # --- waiting ---

    def send_away(self, reason: str) -> None:
        """Close at once, whatever is still to be written."""
        self._settle()
        log.info("connection closed", extra=fields(address=self._address, reason=reason))
        self.transport.abort()

    @property
    def _idle(self) -> bool:
        """Whether a request is waited for."""
        return not self._upgraded and (self.cycle is None or self.cycle.response_complete)

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _wait(self, for_s: float) -> None:
        self._settle()
        self.lobby.enter(self, self._address)
        self._deadline = self.loop.call_later(for_s, self.send_away, "no request came in time")

    def _settle(self) -> None:
        self.lobby.leave(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, counted, and closed if nobody reads."""

    lobby: Lobby

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._unread_since: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.lobby.n_open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.resume_writing()
        self.lobby.n_open -= 1
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_since = self.loop.call_later(WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread_since is not None:
            self._unread_since.cancel()
            self._unread_since = None


class TlsDoor(asyncio.Protocol):
    """A connection whose TLS handshake is under way; in the lobby, too.

    Args:
        make: makes the protocol that follows.
        under_way: keeps the handshakes that are under way from being collected.
    """

    def __init__(
        self,
        make: Callable[[], GuardedHttp],
        context: ssl.SSLContext,
        lobby: Lobby,
        under_way: set[asyncio.Task[None]],
    ) -> None:
        self._make, self._context, self._lobby = make, context, lobby
        self._under_way = under_way
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.pause_reading()  # what comes is for the handshake
        peer = transport.get_extra_info("peername")
        self._lobby.enter(self, peer[0] if peer else "")
        task = asyncio.get_running_loop().create_task(self._shake_hands(self._transport))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def send_away(self, reason: str) -> None:
        """Close at once."""
        assert self._transport is not None
        log.info("connection closed", extra=fields(reason=reason))
        self._transport.abort()

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        protocol = self._make()
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                protocol,
                self._context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=CLOSING_S,
            )
            self._lobby.leave(self)
            if secured is not None:  # None: it ended meanwhile
                protocol.connection_made(secured)
        except OSError as problem:  # ssl.SSLError is one: no TLS, or a certificate not trusted
            log.info("no TLS connection", extra=fields(problem=problem))
        finally:
            self._lobby.leave(self)
