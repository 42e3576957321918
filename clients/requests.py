"""Requests under way, and what the daemon said about them: the part without sockets or waiting.

`Client` and `AsyncClient` are two ways to wait for the same thing. Here is what they share: which
reply belongs to which request (Exchanges), how replies become an answer (BaseAnswer), what each
verb asks for, and what is in its reply. Bytes are moved by clients.link, answers that outlive
their connection are clients.resuming's, and only assistantd.protocol knows how a message is
written.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, TypeVar

import assistantd.protocol as protocol
from assistantd.protocol import (
    Cancel,
    Chat,
    Complete,
    Delta,
    Done,
    Forget,
    Message,
    Models,
    Ping,
    Progress,
    Request,
    Sessions,
    Status,
    Timings,
)
from clients.errors import (
    AssistantError,
    BadRequest,
    ConnectionLost,
    InternalError,
    NoAnswer,
    TooLarge,
    Unauthorized,
    request_error,
)
from clients.i18n import _

OnProgress = Callable[[Progress], None]
Messages = Sequence[Message | Mapping[str, str]]
Reply = Delta | Progress | Done
T = TypeVar("T")

_PREFIX_BYTES = 4
_log = logging.getLogger(__name__)


class Exchange:
    """One request and the replies to it that nobody has read yet.

    Attributes:
        request_id: what the daemon knows it by on this connection.
        request: what was asked.
        began_at: when, by the monotonic clock.
        ended: the last message is in `inbox` or was read; nothing more will come.
        on_arrival: called whenever `inbox` gets something; for clients that do not poll.
    """

    def __init__(self, request_id: bytes, request: Request) -> None:
        self.request_id = request_id
        self.request = request
        self.began_at = monotonic()
        self.inbox: deque[Reply | AssistantError] = deque()
        self.ended = False
        self.on_arrival: Callable[[], None] = lambda: None

    def put(self, item: Reply | AssistantError) -> None:
        """Add what arrived, and remember whether it was the last."""
        self.ended = isinstance(item, Done | AssistantError)
        self.inbox.append(item)
        self.on_arrival()

    def take(self) -> Reply:
        """The next reply; `inbox` must not be empty.

        Raises:
            AssistantError: the request failed.
        """
        item = self.inbox.popleft()
        if isinstance(item, AssistantError):
            raise item
        return item


class Exchanges:
    """The requests under way on one connection, by request id.

    Args:
        prefix: of every request id; by default a random one, so that an id means one request in
            the log of a daemon with many clients.

    Attributes:
        outbox: messages to send, as a consequence of what was received.
        wake_at: when `wake` wants to be called, by the monotonic clock.
    """

    def __init__(self, prefix: str = "") -> None:
        self.outbox: deque[list[bytes]] = deque()
        self.wake_at: float | None = None
        self._prefix = prefix or f"{os.urandom(_PREFIX_BYTES).hex()}-"
        self._count = 0
        self._open: dict[bytes, Exchange] = {}
        self._cancels: dict[bytes, Exchange] = {}  # id of a cancel → what it cancels

    def begin(self, request: Request) -> tuple[Exchange, list[bytes]]:
        """Start a request. Returns it, and the frames to send.

        Raises:
            BadRequest: it cannot be written as JSON.
            TooLarge: the daemon would refuse it for its size.
        """
        request_id = self._next_id()
        try:
            frames = protocol.encode_request(request_id, request)
        except UnicodeEncodeError as error:
            raise BadRequest(
                _("the text is not valid Unicode ({problem}); re-encode it as UTF-8").format(
                    problem=error
                )
            ) from error
        except (TypeError, ValueError, RecursionError) as error:
            raise BadRequest(
                _("the request cannot be written as JSON: {problem}").format(problem=error)
            ) from error
        if len(frames[2]) > protocol.MAX_BODY_BYTES:
            raise TooLarge(
                _(
                    "the request has {n:,} bytes and the daemon takes {limit:,}; send less text"
                ).format(n=len(frames[2]), limit=protocol.MAX_BODY_BYTES)
            )
        exchange = Exchange(request_id, request)
        self._open[request_id] = exchange
        return exchange, frames

    def cancel(self, exchange: Exchange) -> list[bytes] | None:
        """Frames that end `exchange` early; None if it has ended already."""
        if exchange.ended or exchange.request_id not in self._open:
            return None
        cancel_id = self._next_id()
        self._cancels[cancel_id] = exchange
        target, device = exchange.request_id.decode(), exchange.request.device
        return protocol.encode_request(cancel_id, Cancel(target=target, device=device))

    def abandon(self, exchange: Exchange) -> list[bytes] | None:
        """Forget `exchange`: replies to it are dropped from now on.

        Returns frames that tell the daemon to stop working on it, if it may take long.
        """
        takes_long = isinstance(exchange.request, Chat | Complete | Models)
        frames = self.cancel(exchange) if takes_long else None
        self._open.pop(exchange.request_id, None)
        return frames

    def close(self) -> list[list[bytes]]:
        """End all requests under way; their client is closing. Returns messages to send."""
        farewell = []
        for exchange in list(self._open.values()):
            frames = self.abandon(exchange)
            if frames is not None:
                farewell.append(frames)
            exchange.put(closed())
        return farewell

    def received(self, frames: list[bytes]) -> None:
        """Hand one message of the daemon to the request it belongs to."""
        try:
            request_id, reply = protocol.decode_reply(frames)
        except protocol.ProtocolError as error:
            if error.request_id is None or not self._is_awaited(error.request_id):
                _log.warning("dropped an unreadable message of the daemon: %s", error)
                return
            problem = _("{problem}; are the daemon and this client of the same version?")
            self._deliver(error.request_id, InternalError(problem.format(problem=error)))
            return
        item: Reply | AssistantError
        if isinstance(reply, protocol.Error):
            info = reply.error
            item = request_error(info.code, info.message, info.retry_after_ms)
        else:
            item = reply
        if request_id in self._cancels:
            self._cancel_answered(request_id, item)
        else:
            self._deliver(request_id, item)

    def sent(self, request_id: bytes) -> None:
        """The message of this id was handed to the connection."""

    def interrupt(self, error: Callable[[], AssistantError]) -> None:
        """The connection is lost: end all requests under way, each with an error of its own."""
        self.fail(error)

    def again(self) -> list[list[bytes]]:
        """What to send first on the next connection."""
        return []

    def wake(self) -> None:
        """Put into `outbox` what it is time for."""

    def _is_awaited(self, request_id: bytes) -> bool:
        return request_id in self._open

    def _deliver(self, request_id: bytes, item: Reply | AssistantError) -> None:
        exchange = self._open.get(request_id)
        if exchange is None:
            return  # a late reply to something its caller no longer waits for
        if isinstance(item, Done | AssistantError):
            del self._open[request_id]
        exchange.put(item)

    def fail(self, error: Callable[[], AssistantError]) -> None:
        """End all requests under way, each with an error of its own."""
        exchanges = list(self._open.values())
        self._open.clear()
        self._cancels.clear()
        for exchange in exchanges:
            exchange.put(error())

    def _cancel_answered(self, cancel_id: bytes, item: Reply | AssistantError) -> None:
        target = self._cancels.pop(cancel_id)
        if not isinstance(item, AssistantError):
            return  # the target's own last message says how it ended
        if getattr(item, "code", None) != "not_found":
            _log.warning("the daemon did not cancel %s: %s", target.request_id.decode(), item)
        elif self._open.pop(target.request_id, None) is not None:
            # the daemon knows no such request, so no last message will ever come
            target.put(Done(finish_reason="cancelled"))

    def _next_id(self) -> bytes:
        self._count += 1
        return f"{self._prefix}{self._count}".encode()


class BaseAnswer:
    """What has arrived of an answer. Sync and async answers differ only in how they wait."""

    def __init__(self, exchange: Exchange, on_progress: OnProgress | None) -> None:
        self._exchange = exchange
        self._on_progress = on_progress
        self._pieces: list[str] = []
        self._done: Done | None = None
        self._over = False  # nothing more will be read: done, failed, or closed early

    @property
    def request_id(self) -> str:
        """What the daemon knows it by, and its log."""
        return self._exchange.request_id.decode()

    @property
    def text(self) -> str:
        """What has been read so far; the whole answer once `done` is set."""
        if self._done is not None and self._done.text is not None:
            return self._done.text
        if len(self._pieces) > 1:  # keeps `text` linear if read after every piece
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def done(self) -> Done | None:
        """The daemon's last message, once it has been read."""
        return self._done

    @property
    def timings(self) -> Timings | None:
        """What the answer took, once it is done."""
        return self._done.timings if self._done is not None else None

    @property
    def finish_reason(self) -> str | None:
        """ "stop", "length", "cancelled" or "deadline", once it is done."""
        return self._done.finish_reason if self._done is not None else None

    def __str__(self) -> str:
        return self.text

    def _take(self) -> str | None:
        """Read one reply from the inbox; the text it adds, if any.

        Raises:
            AssistantError: the answer failed; what came before is still in `text`.
        """
        try:
            reply = self._exchange.take()
        except AssistantError:
            self._over = True
            raise
        piece: str | None = None
        if isinstance(reply, Delta):
            piece = reply.text
        elif isinstance(reply, Progress):
            if self._on_progress is not None:
                self._on_progress(reply)
        else:
            streamed = self.text
            self._done, self._over = reply, True
            # with stream=False, or if a piece was lost, the rest is in the last message
            if reply.text is not None and reply.text.startswith(streamed):
                piece = reply.text[len(streamed) :]
        if piece:
            self._pieces.append(piece)
        return piece or None


# --- verbs: what to ask ----------------------------------------------------------------------


def chat(
    text: str | None,
    session: str | None,
    system: str | None,
    messages: Messages | None,
    sampling: dict[str, Any],
) -> Chat:
    """A `chat` request; unknown sampling fields raise BadRequest."""
    given = None
    if messages is not None:
        given = [m if isinstance(m, Message) else Message(**_strings(m)) for m in messages]
    return _make(
        Chat, text=text, session=session, system=system, messages=given, **_sampling(sampling)
    )


def complete(prompt: str, sampling: dict[str, Any]) -> Complete:
    """A `complete` request; unknown sampling fields raise BadRequest."""
    return _make(Complete, prompt=prompt, **_sampling(sampling))


def _strings(message: Mapping[str, str]) -> dict[str, Any]:
    if set(message) != {"role", "content"}:
        raise BadRequest(
            _("a message has `role` and `content`, got {names}").format(names=sorted(message))
        )
    return dict(message)


def _sampling(fields: dict[str, Any]) -> dict[str, Any]:
    """One stop string may be given without a list."""
    stop = fields.get("stop")
    if stop is None:
        return {name: value for name, value in fields.items() if name != "stop"}
    return {**fields, "stop": [stop] if isinstance(stop, str) else list(stop)}


def _make(kind: type[T], **fields: Any) -> T:
    try:
        return kind(**fields)
    except TypeError as error:  # an argument that the protocol does not have
        raise BadRequest(
            _("{problem}; see docs/protocol.md for the fields of a request").format(problem=error)
        ) from error


def is_repeatable(request: Request) -> bool:
    """Whether asking twice does no harm, so that a lost connection may be hidden."""
    if isinstance(request, Sessions | Models):
        return request.op in ("list", "show")
    if isinstance(request, Forget):
        return request.preview
    return isinstance(request, Ping | Status)


def present(value: T | None, what: str) -> T:
    """`value`, which the protocol says this reply has.

    Raises:
        InternalError: the daemon left it out.
    """
    if value is None:
        raise InternalError(
            _(
                "the daemon's reply has no {what}; "
                "are the daemon and this client of the same version?"
            ).format(what=what)
        )
    return value


# --- what to say when nothing comes ----------------------------------------------------------


def _is_elsewhere(endpoint: str) -> bool:
    return endpoint.startswith("tcp://")


def lost(endpoint: str) -> ConnectionLost:
    """For requests under way when the daemon went away."""
    if _is_elsewhere(endpoint):
        text = _("the connection to {endpoint} was lost before the daemon had answered; ask again")
    else:
        text = _(
            "the daemon at {endpoint} went away before it had answered; "
            "start it again if it does not by itself, then ask again"
        )
    return ConnectionLost(text.format(endpoint=endpoint))


def unreachable(endpoint: str, waited_s: float, broken_off: int) -> ConnectionLost:
    """For requests that wait for a connection which does not come (back).

    Args:
        broken_off: handshakes that the other end ended without a word.
    """
    text = _("no connection to {endpoint} for {n:g} s; {advice}")
    advice = _advice_elsewhere(broken_off)
    return ConnectionLost(text.format(endpoint=endpoint, n=waited_s, advice=advice))


def _advice_elsewhere(broken_off: int) -> str:
    if broken_off:
        return _(
            "connections are accepted there and ended at once: the daemon is not running, or it is "
            "another one now; then run `assistant pair` over there and `assistant connect` here"
        )
    return _(
        "is that machine on and in the same network, and does `assistant network status` "
        "over there show this address?"
    )


def refused(endpoint: str) -> Unauthorized:
    """For requests when the daemon elsewhere does not let this device in."""
    return Unauthorized(
        _(
            "the daemon at {endpoint} refuses this device's key: it was revoked there. "
            "Pair again: run `assistant pair` over there and `assistant connect` here"
        ).format(endpoint=endpoint)
    )


def stranger(endpoint: str) -> Unauthorized:
    """For requests when something else listens where the daemon was."""
    return Unauthorized(
        _(
            "what answers at {endpoint} is not the daemon that this device was paired with. If it "
            "was set up anew, run `assistant pair` over there and `assistant connect` here; if "
            "not, somebody else has its address"
        ).format(endpoint=endpoint)
    )


def closed() -> ConnectionLost:
    """For requests under way when their client was closed."""
    return ConnectionLost(_("this client was closed before the answer had come; open a new Client"))


def process_ended(endpoint: str) -> ConnectionLost:
    """For wait_ready, when the caller sees that the daemon's process is gone."""
    return ConnectionLost(
        _("the daemon's process ended before it answered at {endpoint}; its log says why").format(
            endpoint=endpoint
        )
    )


def no_answer(endpoint: str, timeout_s: float, broken_off: int = 0) -> NoAnswer:
    """For a request whose daemon said nothing for `timeout_s` seconds.

    Args:
        broken_off: handshakes that the other end ended without a word.
    """
    text = _("no word from the daemon at {endpoint} for {n:g} s; {advice}")
    if _is_elsewhere(endpoint):
        advice = _advice_elsewhere(broken_off)
    else:
        advice = _(
            "is it running there? "
            "Start `assistantd`, or set ASSISTANTD_ENDPOINT to where it listens"
        )
    return NoAnswer(text.format(endpoint=endpoint, n=timeout_s, advice=advice))
