"""Answers that outlive their connection: how a client of a daemon elsewhere goes on with them.

The daemon keeps the answers of devices for a while. When the connection is back, each one under
way is resumed from the first character that is missing. A daemon that does not know it (it never
got the question, or has forgotten it) is asked again, under the same request id, so that it is
never asked twice; what comes of it then must begin with what has been read already.
"""

import os
from collections.abc import Callable
from time import monotonic

import msgspec

import assistantd.protocol as protocol
from assistantd.protocol import Cancel, Chat, Complete, Delta, Done, Progress, Request, Resume
from clients.errors import AssistantError, Busy, ConnectionLost, NotFound
from clients.i18n import _
from clients.requests import Exchange, Exchanges, Reply

_PREFIX_BYTES = 6
"""Of randomness: the ids of a device's answers must differ, whichever connection they are from."""
_BUSY_MS = 1000
"""When to resume again if the daemon has no time for it, and does not say when it will."""


class Differs(Exception):  # noqa: N818  the name says what happened
    """An answer that was asked again does not begin as the first one did."""


class Received:
    """The text of an answer that has come, over however many connections.

    Attributes:
        position: of the next piece, in characters; before the end while it comes again.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self.position = 0

    def __str__(self) -> str:
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def begin_again(self) -> None:
        """The next piece is the first one of the answer."""
        self.position = 0

    def add(self, piece: str) -> str:
        """Take the next piece; returns what of it is new.

        Raises:
            Differs: it is not what came at this place before.
        """
        n_known = min(len(piece), self._length - self.position)
        if n_known and not str(self).startswith(piece[:n_known], self.position):
            raise Differs
        self.position += len(piece)
        new = piece[n_known:]
        if new:
            self._pieces.append(new)
            self._length += len(new)
        return new

    def end(self, done: Done) -> Done:
        """Take the last message; returns it with the whole text.

        Raises:
            Differs: its text is not what came before.
        """
        text = str(self)
        if done.text is None or done.text.startswith(text):
            return done
        if done.finish_reason in ("cancelled", "deadline") and text.startswith(done.text):
            # it was stopped before it was where the first one had been
            return msgspec.structs.replace(done, text=text)
        raise Differs


class ResumableExchanges(Exchanges):
    """Exchanges whose answers go on when the connection is back.

    Args:
        endpoint: for messages.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(prefix=f"{os.urandom(_PREFIX_BYTES).hex()}-")
        self._endpoint = endpoint
        self._received: dict[bytes, Received] = {}  # request id of an answer under way → its text
        self._sent: set[bytes] = set()  # of those, which the daemon may have got
        self._resumes: dict[bytes, bytes] = {}  # id of a resume → of its answer
        self._later: dict[bytes, float] = {}  # id of an answer → when to resume it

    def begin(self, request: Request) -> tuple[Exchange, list[bytes]]:
        """Start a request, as Exchanges does."""
        if isinstance(request, Chat | Complete) and request.seed is None:
            # a daemon that restarts meanwhile is asked again, and must write the same
            seed = int.from_bytes(os.urandom(4))
            request = msgspec.structs.replace(request, seed=seed)
        exchange, frames = super().begin(request)
        if isinstance(request, Chat | Complete):
            self._received[exchange.request_id] = Received()
        return exchange, frames

    def sent(self, request_id: bytes) -> None:
        """The message of this id was handed to the connection."""
        if request_id in self._received:
            self._sent.add(request_id)

    def abandon(self, exchange: Exchange) -> list[bytes] | None:
        """Forget `exchange`, as Exchanges does."""
        frames = super().abandon(exchange)
        self._forget(exchange.request_id)
        return frames

    def fail(self, error: Callable[[], AssistantError]) -> None:
        """End all requests under way, each with an error of its own."""
        self._received.clear()
        self._sent.clear()
        self._resumes.clear()
        self._postpone({})
        super().fail(error)

    def interrupt(self, error: Callable[[], AssistantError]) -> None:
        """The connection is lost: answers wait for the next one, everything else fails."""
        self._resumes.clear()
        self._postpone({})
        for request_id, exchange in list(self._open.items()):
            if request_id in self._received:
                text = _("the connection to {endpoint} is lost; trying again")
                message = text.format(endpoint=self._endpoint)
                exchange.put(Progress(stage="connection", message=message))
            else:
                del self._open[request_id]
                exchange.put(error())

    def again(self) -> list[list[bytes]]:
        """What to send first on the next connection: resumes, then what the user cancelled."""
        messages = [
            self._resume(request_id) for request_id in self._open if request_id in self._sent
        ]
        for cancel_id, exchange in self._cancels.items():
            cancel = Cancel(target=exchange.request_id.decode())
            messages.append(protocol.encode_request(cancel_id, cancel))
        return messages

    def wake(self) -> None:
        """Put into `outbox` what it is time for."""
        now = monotonic()
        self.outbox.extend(self._resume(answer) for answer, at in self._later.items() if at <= now)
        self._postpone({answer: at for answer, at in self._later.items() if at > now})

    def _postpone(self, later: dict[bytes, float]) -> None:
        self._later = later
        self.wake_at = min(later.values(), default=None)

    def _resume(self, request_id: bytes) -> list[bytes]:
        resume_id = self._next_id()
        self._resumes[resume_id] = request_id
        offset = self._received[request_id].position
        resume = Resume(target=request_id.decode(), offset=offset)
        return protocol.encode_request(resume_id, resume)

    def _is_awaited(self, request_id: bytes) -> bool:
        return super()._is_awaited(self._resumes.get(request_id, request_id))

    def _deliver(self, request_id: bytes, item: Reply | AssistantError) -> None:
        answer_id = self._resumes.get(request_id)
        if answer_id is not None:
            if isinstance(item, NotFound | Busy):
                del self._resumes[request_id]
                if isinstance(item, NotFound):
                    self._ask_again(answer_id)
                else:
                    at = monotonic() + (item.retry_after_ms or _BUSY_MS) / 1000
                    self._postpone({**self._later, answer_id: at})
                return
            request_id = answer_id
        received = self._received.get(request_id)
        try:
            if received is not None and isinstance(item, Delta):
                item = Delta(received.add(item.text))
            elif received is not None and isinstance(item, Done):
                item = received.end(item)
        except Differs:
            self._give_up(request_id)
            return
        if isinstance(item, Done | AssistantError):
            self._forget(request_id)
        if not (isinstance(item, Delta) and not item.text):
            super()._deliver(request_id, item)

    def _ask_again(self, request_id: bytes) -> None:
        exchange = self._open.get(request_id)
        if exchange is None:
            return  # nobody waits for it any more
        received = self._received[request_id]
        if exchange in self._cancels.values():
            self._forget(request_id)
            super()._deliver(request_id, Done(finish_reason="cancelled", text=str(received)))
            return
        received.begin_again()
        self.outbox.append(protocol.encode_request(request_id, exchange.request))

    def _give_up(self, request_id: bytes) -> None:
        """The second answer is another one, and of the first one there is no more."""
        exchange = self._open[request_id]
        frames = self.abandon(exchange)
        if frames is not None:
            self.outbox.append(frames)
        text = _(
            "the daemon at {endpoint} lost this answer while the connection was down, "
            "and began a different one; ask again"
        )
        exchange.put(ConnectionLost(text.format(endpoint=self._endpoint)))

    def _forget(self, request_id: bytes) -> None:
        self._received.pop(request_id, None)
        self._sent.discard(request_id)
        for resume_id in [r for r, answer in self._resumes.items() if answer == request_id]:
            del self._resumes[resume_id]
        if request_id in self._later:
            self._postpone({a: at for a, at in self._later.items() if a != request_id})
