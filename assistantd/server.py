"""The daemon's side of assistant/1, and a bell that other threads ring.

    frames in    [identity, (b"" from a REQ), b"assistant/1", request_id, json]
    frames out   the same envelope; replies of a request end with done or an error

One thread runs `serve`. Replies come from any thread; requests go to `handle`. A client that is
gone, or that reads so slowly that its queue is full, is dropped: its requests are over, and nobody
else notices.

Clients come in by doors: the local one, and that of the network while it is on (doors.py). Each
has its turns, so that a flood at one of them does not keep the other waiting.
"""

import contextlib
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import zmq

from assistantd.doors import SEND_QUEUE, Arrival, Door
from assistantd.i18n import _
from assistantd.log import fields, unquoted
from assistantd.metrics import RequestCounts, kind_of
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

MAX_IN_FLIGHT = 64
"""Requests that one connection may have under way."""


@dataclass(frozen=True)
class Peer:
    """Whom a reply goes to."""

    door: Door
    identity: bytes
    request_id: bytes
    is_req: bool
    """A REQ takes exactly one message: only the last is sent to it."""
    device: str | None = None
    """Id of the device whose request it is; None: the local user's, who may do everything."""
    kind: str = field(default="", compare=False)
    """The request's type, for those who count."""

    @property
    def connection(self) -> bytes:
        """The connection's name, unique over all doors."""
        return self.door.mark + self.identity

    @property
    def client(self) -> bytes:
        """Whose turn it is when it is this request's: a device, over whichever connection, or
        else a connection."""
        return self.connection if self.device is None else client_of(self.device)


def client_of(device: str) -> bytes:
    """`Peer.client` of a device; no connection is called so."""
    return b"d" + device.encode()


Handler = Callable[[Peer, Request, Callable[[Reply], None]], None]
Identify = Callable[[str | None, Request], "str | Error | None"]


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
    """The doors, and the requests under way.

    Args:
        handle: called for every sound request, with a function that sends replies to it.
        on_gone: called with the name of a connection that was dropped with requests under way.
        identify: who makes a request, by the key that its sender has (None at the local door): the
            id of a device, None for the local user, or an error that says why he may not.
        chores: called before each wait; returns the seconds after which it must be called again.

    Methods are for the serving thread, but for `soon`.
    """

    def __init__(
        self,
        handle: Handler,
        on_gone: Callable[[bytes], None],
        identify: Identify,
        chores: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.handle, self.on_gone = handle, on_gone
        self.identify, self.chores = identify, chores
        self.bell = Bell()
        self._doors: list[Door] = []
        self._poller = zmq.Poller()
        self._poller.register(self.bell.reader, zmq.POLLIN)
        self._to_do: deque[Callable[[], None]] = deque()
        self._under_way: dict[bytes, dict[bytes, Peer]] = {}  # connection → request id → whose
        self.requests = RequestCounts()
        self.bad_frames = 0
        self.dropped_clients = 0

    def open(self, door: Door) -> None:
        """Let clients in by a door, which is bound."""
        self._doors.append(door)
        for each in door.sockets:
            self._poller.register(each, zmq.POLLIN)

    def shut(self, door: Door) -> bool:
        """Let nobody in by a door any more, and drop who is; the door itself is not closed.

        False if it was shut before.
        """
        if door not in self._doors:
            return False
        self._doors.remove(door)
        for each in door.sockets:
            self._poller.unregister(each)
        for under_way in list(self._under_way.values()):
            peer = next(iter(under_way.values()))
            if peer.door is door:
                self._drop(door, peer.identity, "the network was turned off")
        return True

    def serve(self, stopped: Callable[[], bool]) -> None:
        """Handle requests and send replies until `stopped` (asked whenever the bell rings)."""
        while True:
            patience = self.chores()
            ready = dict(self._poller.poll(None if patience is None else int(1000 * patience) + 1))
            if self.bell.reader in ready:
                self.bell.silence()
            self._do_all()
            if stopped():
                self._do_all()
                return
            for door in list(self._doors):
                if door in self._doors:  # it may be shut by what came in at the one before
                    self._attend(door, ready)

    def close(self) -> None:
        """Send what is to be sent, and close all doors."""
        self._do_all()
        for door in self._doors:
            door.close()
        self.bell.close()

    def soon(self, action: Callable[[], None]) -> None:
        """Do something on the serving thread, after what was asked for before; from any thread."""
        self._to_do.append(action)
        self.bell.ring()

    def relieve(self) -> None:
        """Memory is short: give back what can be spared here."""
        for door in self._doors:
            door.relieve()

    def end_all(self, device: str, error: Error) -> None:
        """End all requests of a device with an error; nothing more is sent to any of them."""
        for under_way in list(self._under_way.values()):
            for peer in list(under_way.values()):
                if peer.device == device:
                    self._send(peer, error)

    # --- in ----------------------------------------------------------------------------------

    def _attend(self, door: Door, ready: Mapping[Any, int]) -> None:
        for identity in door.tend(ready):
            self._drop(door, identity, "it is gone")
        if door.router in ready:
            self._receive_all(door)

    def _receive_all(self, door: Door) -> None:
        # at most so many in a row, so that replies are sent in between
        for _turn in range(door.turns):
            arrival = door.receive()
            if arrival is None:
                return
            self._receive(door, arrival)
            self._do_all()
            if door not in self._doors:
                return  # it was shut by what it was asked

    def _receive(self, door: Door, arrival: Arrival) -> None:
        identity, rest = arrival.frames[0], arrival.frames[1:]
        is_req = len(rest) > 0 and rest[0] == b""
        try:
            request_id, request = decode_request(rest[1:] if is_req else rest)
        except ProtocolError as problem:
            self.bad_frames += 1
            door.complain("bad request", client=identity.hex(), problem=unquoted(str(problem)))
            if problem.request_id is not None or is_req:
                peer = Peer(door, identity, problem.request_id or b"", is_req)
                self._transmit(peer, Error(ErrorInfo(problem.code, str(problem))))
            return
        device, kind = self.identify(arrival.key, request), kind_of(request)
        if isinstance(device, Error):
            self.requests.ended(kind, device)
            self._transmit(Peer(door, identity, request_id, is_req), device)
            return
        peer = Peer(door, identity, request_id, is_req, device, kind)
        refusal = self._refusal(peer, request)
        if refusal is not None:
            self.requests.ended(kind, Error(refusal))
            self._transmit(peer, Error(refusal))
            return
        self._under_way.setdefault(peer.connection, {})[request_id] = peer
        if is_req and isinstance(request, Chat | Complete):
            request.stream = False
        try:
            self.handle(peer, request, lambda reply: self._post(peer, reply))
        except Exception:
            # no memory, no descriptor, or a mistake of ours: others are to be served all the same
            log.exception("a request failed", extra=fields(client=identity.hex()))
            text = _("the daemon failed on this request; see its log")
            self._send(peer, Error(ErrorInfo("internal", text)))

    def _refusal(self, peer: Peer, request: Request) -> ErrorInfo | None:
        """Why a request cannot be handled beside those that are under way."""
        objection = peer.door.objection(peer.identity)
        if objection is not None:
            return ErrorInfo("bad_request", objection)
        under_way = self._under_way.get(peer.connection, {})
        if peer.request_id in under_way:
            # a device may ask the same twice: it gets the one answer that there is (mailbox.py)
            is_answer = isinstance(request, Chat | Complete)
            if is_answer and peer.device is not None and under_way[peer.request_id] == peer:
                return None
            text = _("a request with this id is under way; choose another id for each request")
            return ErrorInfo("bad_request", text)
        if len(under_way) >= MAX_IN_FLIGHT:
            text = _("{n} requests of this connection are under way; wait for one to end")
            return ErrorInfo("busy", text.format(n=MAX_IN_FLIGHT), 1000)
        return None

    # --- out ---------------------------------------------------------------------------------

    def _post(self, peer: Peer, reply: Reply) -> None:
        """Send a reply soon; from any thread."""
        if peer.is_req and isinstance(reply, Delta | Progress):
            return
        self.soon(partial(self._send, peer, reply))

    def _do_all(self) -> None:
        while self._to_do:
            action = self._to_do.popleft()
            try:
                action()
            except zmq.ZMQError:
                raise  # the sockets themselves are broken
            except Exception:
                log.exception("a reply could not be sent")

    def _send(self, peer: Peer, reply: Reply) -> None:
        """Send now, if the request is still under way."""
        under_way = self._under_way.get(peer.connection, {})
        if under_way.get(peer.request_id) != peer:
            return  # the client was dropped, or the request ended; this was still on its way
        if isinstance(reply, Done | Error):
            del under_way[peer.request_id]
            if not under_way:
                del self._under_way[peer.connection]
            self.requests.ended(peer.kind, reply)
        self._transmit(peer, reply)

    def _transmit(self, peer: Peer, reply: Reply) -> None:
        envelope = [peer.identity, b""] if peer.is_req else [peer.identity]
        frames = [*envelope, *encode_reply(peer.request_id, reply)]
        try:
            peer.door.router.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            reason = f"it does not read: {SEND_QUEUE} messages wait for it"
            self._drop(peer.door, peer.identity, reason)
            peer.door.cut(peer.identity)
        except zmq.ZMQError as problem:
            if problem.errno != zmq.EHOSTUNREACH:
                raise
            self._drop(peer.door, peer.identity, "it is gone")

    def _drop(self, door: Door, identity: bytes, reason: str) -> None:
        connection = door.mark + identity
        lost = self._under_way.pop(connection, None)
        if lost is not None:
            self.dropped_clients += 1
            for peer in lost.values():
                self.requests.gone(peer.kind)
            log.info("client dropped", extra=fields(client=identity.hex(), reason=reason))
            self.on_gone(connection)
