"""Answers of devices, which outlive their connections.

What the engine says of such an answer goes into it, and from it to whoever listens: the request
that asked for it, and others of the same device that resume it. When nobody listens it goes on.
For a while after its end it can still be had; so a client that lost its connection before it heard
the end asks for the rest, and one that does not know whether its question arrived asks it again.
"""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from assistantd.i18n import _, ngettext
from assistantd.protocol import (
    Chat,
    Complete,
    Delta,
    DeviceInfo,
    Done,
    Error,
    ErrorCode,
    ErrorInfo,
    Reply,
    Resume,
)
from assistantd.server import Peer

KEEP_S = 180.0
"""An answer is kept for so long after its end: clients wait for a connection for two minutes, and
need a part of another one to notice that they have none."""
KEPT_ANSWERS = 32
"""Of one device, that have ended."""
KEPT_BYTES = 1 << 20
"""Of text, in the answers of one device that have ended."""
KEPT_BYTES_IN_ALL = 16 << 20
LISTENERS = 8
"""Requests that may listen to one answer at a time."""

ReplyTo = Callable[[Reply], None]


@dataclass(eq=False)
class _Answer:
    device: str
    request_id: bytes
    question: bytes
    """Digest of what was asked."""
    streams: bool
    session: str | None = None
    """As it is stored; None for an answer in no session."""
    listeners: dict[tuple[bytes, bytes], ReplyTo] = field(default_factory=dict)
    """By connection and request id."""
    parts: list[str] = field(default_factory=list)
    n_chars: int = 0
    n_bytes: int = 0
    """Of the text; known once it has ended."""
    last: Done | Error | None = None
    ended_at: float = 0.0


class Mailbox:
    """The answers of all devices, under way and ended. Thread-safe.

    Args:
        on_end: called, from any thread, when an answer has ended, so that `expire` is called soon.
        clock: seconds that only go forward; replaced in unit tests.
    """

    def __init__(
        self, on_end: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._on_end, self._clock = on_end, clock
        self._lock = threading.Lock()
        # also held while replies are handed on, so that they keep their order
        self._answers: dict[tuple[str, bytes], _Answer] = {}
        self._ended: list[_Answer] = []  # of those, who ended first comes first

    # --- from the serving thread -------------------------------------------------------------

    def open(
        self, peer: Peer, device: DeviceInfo, request: Chat | Complete, reply: ReplyTo
    ) -> ReplyTo | None:
        """Begin an answer, to which `reply` listens.

        Returns where its replies go, or None if it must not be computed: it is under way already
        or was given (then `reply` gets that one from its beginning), or something is wrong.
        """
        self.expire()
        question = _digest(request)
        with self._lock:
            known = self._answers.get((device.id, peer.request_id))
            if known is not None and isinstance(known.last, Error):
                self._remove(known)  # what failed may be tried again
                known = None
            if known is not None and known.question != question:
                text = _("another question had this id; choose another id for each request")
                reply(_error("bad_request", text))
                return None
            if known is not None:
                _listen(known, peer, reply, 0)
                return None
            n_under_way = sum(
                answer.device == device.id and answer.last is None
                for answer in self._answers.values()
            )
            if n_under_way >= device.limits.concurrent:
                reply(_too_many(device.limits.concurrent))
                return None
            session = request.session if isinstance(request, Chat) else None
            answer = _Answer(device.id, peer.request_id, question, request.stream, session)
            answer.listeners[peer.connection, peer.request_id] = reply
            self._answers[device.id, peer.request_id] = answer
        return lambda reply: self._put(answer, reply)

    def resume(self, peer: Peer, request: Resume, reply: ReplyTo) -> None:
        """Let `reply` listen to an answer of the peer's device, from an offset on."""
        self.expire()
        with self._lock:
            answer = None
            if peer.device is not None:
                answer = self._answers.get((peer.device, request.target.encode()))
            if answer is None:
                text = _("there is no such answer, or it is forgotten; ask again")
                reply(_error("not_found", text))
            elif answer.streams and request.offset > answer.n_chars:
                text = _("the answer has {n} characters so far, fewer than `offset`")
                reply(_error("bad_request", text.format(n=answer.n_chars)))
            else:
                _listen(answer, peer, reply, request.offset)

    def detach(self, connection: bytes) -> None:
        """A connection is gone: nobody there listens any more."""
        with self._lock:
            for answer in self._answers.values():
                for key in [key for key in answer.listeners if key[0] == connection]:
                    del answer.listeners[key]

    def forget(self, device: str) -> None:
        """A device was revoked: nobody hears its answers any more."""
        with self._lock:
            for answer in [a for a in self._answers.values() if a.device == device]:
                answer.listeners.clear()
                self._remove(answer)

    def forget_sessions(self, sessions: set[str], *, others: bool, device: str | None) -> None:
        """Keep no answers in these sessions; who listens to one hears it to its end.

        Args:
            others: nor those that are in no session, of `device` or (None) of all.
        """
        with self._lock:
            for answer in list(self._answers.values()):
                in_none = others and answer.session is None and device in (None, answer.device)
                if answer.session in sessions or in_none:
                    self._remove(answer)

    def expire(self) -> float | None:
        """Forget what has been kept for long enough.

        Returns the seconds until there is more to forget, or None.
        """
        now = self._clock()
        with self._lock:
            while self._ended and self._ended[0].ended_at + KEEP_S <= now:
                self._remove(self._ended[0])
            return self._ended[0].ended_at + KEEP_S - now if self._ended else None

    # --- from the engine's and others --------------------------------------------------------

    def _put(self, answer: _Answer, reply: Reply) -> None:
        with self._lock:
            if isinstance(reply, Delta):
                answer.parts.append(reply.text)
                answer.n_chars += len(reply.text)
            if isinstance(reply, Done | Error):
                self._end(answer, reply)
            for listener in list(answer.listeners.values()):
                listener(reply)
            if answer.last is not None:
                answer.listeners.clear()
        if answer.last is not None:
            self._on_end()

    def _end(self, answer: _Answer, last: Done | Error) -> None:
        answer.last, answer.ended_at = last, self._clock()
        text = "".join(answer.parts)
        if isinstance(last, Done) and last.text is not None:
            text = last.text  # the same, and held only once
        answer.parts = [text] if answer.streams else []
        answer.n_bytes = len(text.encode("utf-8", "surrogatepass"))
        if self._answers.get((answer.device, answer.request_id)) is not answer:
            return  # its device was revoked, or its session forgotten
        if isinstance(last, Error) and last.error.code == "busy" and not text:
            # it was never begun; or who resumes it would be told so for as long as it is kept
            del self._answers[answer.device, answer.request_id]
            return
        self._ended.append(answer)
        own = [each for each in self._ended if each.device == answer.device]
        while len(own) > KEPT_ANSWERS or sum(each.n_bytes for each in own) > KEPT_BYTES:
            self._remove(own.pop(0))
        while sum(each.n_bytes for each in self._ended) > KEPT_BYTES_IN_ALL:
            self._remove(self._ended[0])

    def _remove(self, answer: _Answer) -> None:
        del self._answers[answer.device, answer.request_id]
        if answer.last is not None:
            self._ended.remove(answer)


def _listen(answer: _Answer, peer: Peer, reply: ReplyTo, offset: int) -> None:
    """Hand on what there is from an offset on, and then what comes."""
    rest = "".join(answer.parts)[offset:]
    if rest:
        reply(Delta(rest))
    if answer.last is not None:
        reply(answer.last)
        return
    answer.listeners.pop((peer.connection, peer.request_id), None)  # who asks twice hears once
    if len(answer.listeners) >= LISTENERS:
        longest = next(iter(answer.listeners))
        text = _("this answer goes on elsewhere: it was resumed too often")
        answer.listeners.pop(longest)(_error("busy", text))
    answer.listeners[peer.connection, peer.request_id] = reply


def _digest(request: Chat | Complete) -> bytes:
    """What was asked; how long the asker waits for it, and in how many pieces, is no part of it."""
    asked = msgspec.structs.replace(request, deadline_ms=None, stream=True, device=None)
    return hashlib.sha256(msgspec.json.encode(asked)).digest()


def _error(code: ErrorCode, message: str) -> Error:
    return Error(ErrorInfo(code, message))


def _too_many(n: int) -> Error:
    text = ngettext(
        "this device may have {n} answer under way; wait for it to end",
        "this device may have {n} answers under way; wait for one to end",
        n,
    )
    return Error(ErrorInfo("busy", text.format(n=n), 1000))
