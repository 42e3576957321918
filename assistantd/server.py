"""The sockets: a ROUTER that speaks assistant/1, and a bell that other threads ring.

    frames in    [identity, (b"" from a REQ), b"assistant/1", request_id, json]
    frames out   the same envelope; replies of a request end with done or an error

One thread runs `serve`. Replies come from any thread through `Outbox`; requests go to `handle`.
A client that is gone, or that reads so slowly that its queue is full, is dropped: its requests
are cancelled and nobody else notices.
"""

import contextlib
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zmq

from assistantd.log import fields
from assistantd.protocol import (
    Chat,
    Complete,
    Delta,
    Done,
    Error,
    ErrorInfo,
    Progress,
    ProtocolError,
    Reply,
    Request,
    decode_request,
    encode_reply,
)

log = logging.getLogger(__name__)

SEND_QUEUE = 1000
"""Messages kept for a client that does not read them; then it is dropped."""
HARD_MESSAGE_BYTES = 64 * 1024 * 1024
"""ZeroMQ drops a connection that sends a larger frame. Up to it, `too_large` is answered."""
MAX_IN_FLIGHT = 64
"""Requests that one connection may have under way."""
CLOSE_LINGER_MS = 1000


@dataclass(frozen=True)
class Peer:
    """Whom a reply goes to."""

    identity: bytes
    request_id: bytes
    is_req: bool
    """A REQ takes exactly one message: only the last is sent to it."""


Handler = Callable[[Peer, Request, Callable[[Reply], None]], None]


class Bell:
    """Wakes the serving thread: from other threads, and from signals by `fileno_to_ring`."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._closing = threading.Lock()

    def ring(self) -> None:
        """Wake the serving thread, while it serves. Never blocks: a full pipe has rung already."""
        with self._closing, contextlib.suppress(BlockingIOError):
            if self._writer.fileno() >= 0:
                self._writer.send(b"\0")

    def silence(self) -> None:
        """Forget that it rang."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass

    @property
    def reader(self) -> int:
        """File descriptor to poll."""
        return self._reader.fileno()

    @property
    def writer(self) -> int:
        """File descriptor for signal.set_wakeup_fd."""
        return self._writer.fileno()

    def close(self) -> None:
        """Close both ends."""
        with self._closing:
            self._reader.close()
            self._writer.close()


class Server:
    """The ROUTER.

    Args:
        endpoint: ipc://PATH; its folder is made (0700) if there is none, the socket is 0660.
        handle: called for every sound request, with a function that sends replies to it.
        on_client_gone: called with the identity of a client that was dropped.
    """

    def __init__(
        self,
        endpoint: str,
        handle: Handler,
        on_client_gone: Callable[[bytes], None],
    ) -> None:
        self.endpoint, self.handle, self.on_client_gone = endpoint, handle, on_client_gone
        self.bell = Bell()
        self._outbox: deque[tuple[Peer, Reply]] = deque()
        self._in_flight: dict[bytes, set[bytes]] = {}  # identity → request ids
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.set(zmq.LINGER, CLOSE_LINGER_MS)
        self._router.set(zmq.ROUTER_MANDATORY, 1)
        self._router.set(zmq.SNDHWM, SEND_QUEUE)
        self._router.set(zmq.MAXMSGSIZE, HARD_MESSAGE_BYTES)
        self.bad_frames = 0
        self.dropped_clients = 0

    def bind(self) -> None:
        """Bind the socket; from here on clients can connect."""
        path = Path(self.endpoint.removeprefix("ipc://"))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # made unreachable for others from the start, then opened to the group
        before = os.umask(0o177)
        try:
            self._router.bind(self.endpoint)
        finally:
            os.umask(before)
        path.chmod(0o660)

    def serve(self, stopped: Callable[[], bool]) -> None:
        """Handle requests and send replies until `stopped` (asked whenever the bell rings)."""
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self.bell.reader, zmq.POLLIN)
        while True:
            events = dict(poller.poll())
            if self.bell.reader in events:
                self.bell.silence()
            self._send_all()
            if stopped():
                self._send_all()
                return
            if self._router in events:
                self._receive_all()

    def close(self) -> None:
        """Close the socket and remove its file."""
        self._send_all()
        self._router.close()
        self._context.term()
        self.bell.close()
        Path(self.endpoint.removeprefix("ipc://")).unlink(missing_ok=True)

    # --- in ----------------------------------------------------------------------------------

    def _receive_all(self) -> None:
        # at most so many in a row, so that replies are sent in between
        for _ in range(100):
            try:
                frames = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._receive(frames)
            self._send_all()

    def _receive(self, frames: list[bytes]) -> None:
        identity, rest = frames[0], frames[1:]
        is_req = len(rest) > 0 and rest[0] == b""
        try:
            request_id, request = decode_request(rest[1:] if is_req else rest)
        except ProtocolError as problem:
            self.bad_frames += 1
            log.warning("bad request", extra=fields(client=identity.hex(), problem=problem))
            if problem.request_id is not None or is_req:
                peer = Peer(identity, problem.request_id or b"", is_req)
                self._send(peer, Error(ErrorInfo(problem.code, str(problem))))
            return
        peer = Peer(identity, request_id, is_req)
        in_flight = self._in_flight.setdefault(identity, set())
        if request_id in in_flight:
            text = "a request with this id is under way; choose another id for each request"
            self._send(peer, Error(ErrorInfo("bad_request", text)), keep=True)
            return
        if len(in_flight) >= MAX_IN_FLIGHT:
            text = f"{MAX_IN_FLIGHT} requests of this connection are under way; wait for one to end"
            self._send(peer, Error(ErrorInfo("busy", text, 1000)), keep=True)
            return
        in_flight.add(request_id)
        if is_req and isinstance(request, Chat | Complete):
            request.stream = False
        self.handle(peer, request, lambda reply: self._post(peer, reply))

    # --- out ---------------------------------------------------------------------------------

    def _post(self, peer: Peer, reply: Reply) -> None:
        """Queue a reply; from any thread."""
        if peer.is_req and isinstance(reply, Delta | Progress):
            return
        self._outbox.append((peer, reply))
        self.bell.ring()

    def _send_all(self) -> None:
        while self._outbox:
            self._send(*self._outbox.popleft())

    def _send(self, peer: Peer, reply: Reply, *, keep: bool = False) -> None:
        """Send now. `keep`: the reply does not end the request of this id that is under way."""
        if isinstance(reply, Done | Error) and not keep:
            in_flight = self._in_flight.get(peer.identity)
            if in_flight is not None:
                in_flight.discard(peer.request_id)
                if not in_flight:
                    del self._in_flight[peer.identity]
        elif not keep and peer.request_id not in self._in_flight.get(peer.identity, ()):
            return  # the client was dropped; this was still on its way
        envelope = [peer.identity, b""] if peer.is_req else [peer.identity]
        try:
            self._router.send_multipart(
                [*envelope, *encode_reply(peer.request_id, reply)], zmq.NOBLOCK
            )
        except zmq.Again:
            self._drop(peer.identity, f"it does not read: {SEND_QUEUE} messages wait for it")
        except zmq.ZMQError as problem:
            if problem.errno != zmq.EHOSTUNREACH:
                raise
            self._drop(peer.identity, "it is gone")

    def _drop(self, identity: bytes, reason: str) -> None:
        if self._in_flight.pop(identity, None) is not None:
            self.dropped_clients += 1
            log.info("client dropped", extra=fields(client=identity.hex(), reason=reason))
            self.on_client_gone(identity)
