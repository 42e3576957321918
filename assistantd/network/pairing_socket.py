"""Where devices pair over the network: a ROUTER without encryption, only while a code is open.

Whoever can reach the port may talk to it, so everything is bounded: the size of a message, the
conversations of one code, the connections, and how long each may take. SPAKE2 is computed in plain
Python, which is not constant-time; so one message is read at each tick of a clock and answered at
the next, and nobody can measure how long his or another's took to compute.
"""

import contextlib
import itertools
import logging
import math
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import zmq

from assistantd.doors import make_router
from assistantd.i18n import _
from assistantd.log import fields, unquoted
from assistantd.network.codes import Code, Codes, RefusedError, too_much_sent
from assistantd.network.conversation import Conversation, Finish
from assistantd.protocol_pairing import (
    FromDaemon,
    PairingMessageError,
    Refused,
    decode_from_device,
    encode,
)
from assistantd.server import Bell

log = logging.getLogger(__name__)

MAX_FRAME_BYTES = 4096
"""ZeroMQ drops a connection that sends a larger one."""
MAX_CONNECTIONS = 64
"""Connections take file descriptors, which the rest of the daemon needs, too."""
CONVERSATION_S = 30.0
"""How long the device has from one message to the next."""
TICK_S = 0.1
"""Computing an answer takes 5 ms on a PC, and less than this on a Raspberry Pi 4."""
HANDSHAKE_MS = 5000
HEARTBEAT_MS = 5000
LINGER_MS = 2000

_MONITOR_IDS = itertools.count(1)


@dataclass
class _Talk:
    """A conversation that is under way."""

    conversation: Conversation
    until: float


class PairingSocket:
    """Serves one code, in a thread of its own, until the code is used or void, or until `close`.

    Args:
        public_key: the daemon's, Z85.
        bind: binds the socket it is given.
        finish: adds the device that took the code.

    Raises:
        zmq.ZMQError: the address cannot be bound.
    """

    def __init__(
        self,
        code: Code,
        codes: Codes,
        public_key: str,
        bind: "Callable[[zmq.Socket[bytes]], None]",
        finish: Finish,
    ) -> None:
        self._code, self._codes = code, codes
        self._public_key, self._finish = public_key, finish
        self._talks: dict[bytes, _Talk] = {}
        self._outbox: deque[tuple[float, bytes, FromDaemon]] = deque()
        self._read_at: float | None = None  # there is something to read, at this tick
        self._connections = 0
        self._closed = False
        self._context = zmq.Context()
        self._router = make_router(self._context)
        self._router.set(zmq.LINGER, LINGER_MS)
        self._router.set(zmq.ROUTER_MANDATORY, 1)
        self._router.set(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        # makes libzmq refuse ZMTP 1 and 2, which take any bytes for a message: those of a browser
        # that a malicious page sends here, say. Nobody is asked about the domain.
        self._router.set(zmq.ZAP_DOMAIN, b"pairing")
        self._router.set(zmq.SNDHWM, 10)
        self._router.set(zmq.RCVHWM, 10)
        self._router.set(zmq.BACKLOG, MAX_CONNECTIONS)
        self._router.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        self._router.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        self._router.set(zmq.HEARTBEAT_TIMEOUT, 2 * HEARTBEAT_MS)
        self._monitor = self._router.get_monitor_socket(
            zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED, f"inproc://pairing.{next(_MONITOR_IDS)}"
        )
        try:
            bind(self._router)
        except BaseException:
            self._close_sockets()
            raise
        self._bell = Bell()
        self._thread = threading.Thread(target=self._run, name="pairing", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """The code's state has changed; from any thread."""
        self._bell.ring()

    def close(self) -> None:
        """Stop listening, and wait until the port is free. Not from `finish`."""
        self._closed = True
        self._bell.ring()
        self._thread.join()

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as problem:
            log.exception("the pairing socket failed")
            text = _("the daemon failed: {problem}; see its log").format(problem=problem)
            self._codes.void(self._code, text)
        finally:
            for identity in list(self._talks):
                self._forget(identity)
            self._close_sockets()
            self._bell.close()

    def _serve(self) -> None:
        watching, reading = zmq.Poller(), zmq.Poller()
        for poller in (watching, reading):
            poller.register(self._monitor, zmq.POLLIN)
            poller.register(self._bell.reader, zmq.POLLIN)
        reading.register(self._router, zmq.POLLIN)
        while not self._closed and (self._is_live() or self._outbox):
            poller = reading if self._is_live() and self._read_at is None else watching
            events = dict(poller.poll(self._milliseconds()))
            if self._bell.reader in events:
                self._bell.silence()
            if self._monitor in events:
                self._count_connections()
            if self._router in events:
                self._read_at = _next_tick()
            self._drop_slow()
            self._send_due()
            if self._read_at is not None and self._read_at <= monotonic():
                self._read_at = None
                self._receive()
            if not self._is_live():
                self._refuse_all()

    def _is_live(self) -> bool:
        return self._code.is_live

    def _milliseconds(self) -> int | None:
        """Until something is to be done without a message."""
        times = [talk.until for talk in self._talks.values()]
        times += [due for due, *_rest in list(self._outbox)[:1]]
        times += [] if self._read_at is None else [self._read_at]
        return int(max(0.0, 1000 * (min(times) - monotonic()))) + 1 if times else None

    def _count_connections(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                event, _address = self._monitor.recv_multipart(zmq.NOBLOCK)
                (kind,) = struct.unpack_from("=H", event)
                self._connections += 1 if kind == zmq.EVENT_ACCEPTED else -1
        if self._connections > MAX_CONNECTIONS:
            log.warning("too many pairing connections", extra=fields(n=self._connections))
            self._codes.void(self._code, too_much_sent())

    def _receive(self) -> None:
        try:
            identity, *frames = self._router.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        answer = self._answer(identity, frames)
        self._outbox.append((_next_tick(), identity, answer))

    def _answer(self, identity: bytes, frames: list[bytes]) -> FromDaemon:
        talk = self._talks.get(identity)
        try:
            message = decode_from_device(frames)
            if talk is None:
                code = self._codes.begin()
                conversation = Conversation(code, self._codes, self._public_key, self._finish)
                talk = self._talks[identity] = _Talk(conversation, 0.0)
            talk.until = monotonic() + CONVERSATION_S
            answer = talk.conversation.receive(message)
            if talk.conversation.is_over:
                del self._talks[identity]
            return answer
        except RefusedError as refusal:
            self._forget(identity)
            return Refused(
                reason=refusal.reason, message=str(refusal), tries_left=refusal.tries_left
            )
        except PairingMessageError as problem:
            what = unquoted(str(problem))
            log.warning("bad pairing message", extra=fields(client=identity.hex(), problem=what))
            if talk is None:  # or what is no message would be free
                with contextlib.suppress(RefusedError):
                    self._codes.begin()
            self._forget(identity)
            return Refused(reason="bad_message", message=_misunderstood())

    def _drop_slow(self) -> None:
        now = monotonic()
        for identity, talk in list(self._talks.items()):
            if talk.until <= now:
                log.info("pairing conversation timed out", extra=fields(client=identity.hex()))
                self._forget(identity)

    def _forget(self, identity: bytes) -> None:
        talk = self._talks.pop(identity, None)
        if talk is not None:
            talk.conversation.abandon()

    def _refuse_all(self) -> None:
        """Tell whoever is still in the middle of it that the code's time is over."""
        text = str(self._code.end) if self._code.end else _("the code was used by another device")
        for identity in list(self._talks):
            self._forget(identity)
            self._outbox.append((_next_tick(), identity, Refused(reason="void", message=text)))

    def _send_due(self) -> None:
        while self._outbox and self._outbox[0][0] <= monotonic():
            _due, identity, answer = self._outbox.popleft()
            try:
                self._router.send_multipart([identity, *encode(answer)], zmq.NOBLOCK)
            except zmq.ZMQError as problem:  # it is gone, or does not read
                log.info(
                    "pairing answer not sent",
                    extra=fields(client=identity.hex(), problem=problem),
                )
                self._forget(identity)

    def _close_sockets(self) -> None:
        self._router.disable_monitor()
        self._monitor.close(linger=0)
        self._router.close()
        self._context.term()


def _next_tick() -> float:
    return (math.floor(monotonic() / TICK_S) + 1) * TICK_S


def _misunderstood() -> str:
    return _("the message does not follow assistant-pair/1; are both of the same version?")
