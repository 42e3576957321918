"""clients.resuming: wherever the connection is cut, an answer comes whole, once, asked once."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistantd.protocol import (
    Cancel,
    Chat,
    Delta,
    Done,
    Error,
    ErrorInfo,
    Ping,
    Progress,
    Reply,
    Request,
    Resume,
    decode_request,
    encode_reply,
)
from clients.errors import ConnectionLost, InternalError, NotFound, Unauthorized
from clients.requests import BaseAnswer, lost, refused
from clients.resuming import Differs, Received, ResumableExchanges

ENDPOINT = "tcp://192.0.2.1:5771"

texts = st.text(max_size=40) | st.sampled_from(
    ["Köln 🇰🇷 👩‍👩‍👧‍👦 e\u0301 한국어 ✓", "\u0000\uffff𝄞", "aaaa aaaa aaaa"]
)


@dataclass
class Mailbox:
    """A daemon that writes `text`, in pieces, and keeps it for who resumes."""

    text: str
    size: int
    asked: int = 0
    kept: set[str] = field(default_factory=set)

    def replies(self, request_id: bytes, request: Request, written: int) -> list[Reply]:
        """All that it would send. `written`: characters that were ready when the request came."""
        if isinstance(request, Resume):
            if request.target not in self.kept:
                return [Error(ErrorInfo("not_found", "there is no such answer"))]
            first = self.text[request.offset : max(written, request.offset)]
            return [Delta(first), *self._rest(max(written, request.offset))]
        assert isinstance(request, Chat)
        if request_id.decode() not in self.kept:
            self.asked += 1
            self.kept.add(request_id.decode())
        return self._rest(0)

    def _rest(self, first: int) -> list[Reply]:
        starts = range(first, len(self.text), self.size)
        pieces: list[Reply] = [Delta(self.text[i : i + self.size]) for i in starts]
        return [*pieces, Done(text=self.text, finish_reason="stop")]


@dataclass
class Cut:
    """One connection: how it goes until it is lost."""

    delivered: int
    """Replies that come through; -1: not even the requests arrived."""
    written: int
    forgets: bool
    """The daemon restarts afterwards."""


cuts = st.builds(Cut, st.integers(-1, 12), st.integers(0, 40), st.booleans())


@given(texts, st.integers(1, 9), st.lists(cuts, max_size=6), st.booleans())
def test_wherever_it_is_cut(text: str, size: int, cuts: list[Cut], read_late: bool) -> None:
    daemon = Mailbox(text, size)
    exchanges = ResumableExchanges(ENDPOINT)
    exchange, frames = exchanges.begin(Chat(text="hi"))
    exchanges.sent(frames[1])
    answer = BaseAnswer(exchange, None)
    pieces: list[str] = []
    sending, forgotten = [frames], 0
    for cut in [*cuts, Cut(10_000, 0, False)]:
        left = cut.delivered
        while sending and left >= 0 and not exchange.ended:
            request_id, request = decode_request(sending.pop(0))
            for reply in daemon.replies(request_id, request, cut.written)[:left]:
                exchanges.received(encode_reply(request_id, reply))
                left -= 1
            while exchanges.outbox:
                sending.append(exchanges.outbox.popleft())
            if not read_late:
                pieces += read(answer)
        if exchange.ended:
            break
        exchanges.outbox.clear()
        exchanges.interrupt(lambda: lost(ENDPOINT))
        sending = exchanges.again()
        if cut.forgets and daemon.kept:
            daemon.kept.clear()
            forgotten += 1
    pieces += read(answer)
    assert "".join(pieces) == answer.text == text
    assert answer.done is not None and answer.done.text == text
    assert daemon.asked <= 1 + forgotten
    assert "" not in pieces


def read(answer: BaseAnswer) -> list[str]:
    pieces = []
    while answer._exchange.inbox:
        piece = answer._take()
        if piece is not None:
            pieces.append(piece)
    return pieces


@given(st.text(max_size=30), st.data())
def test_a_text_that_comes_again(text: str, data: st.DataObject) -> None:
    received = Received()
    first = data.draw(st.integers(0, len(text)))
    assert received.add(text[:first]) == text[:first]
    received.begin_again()
    new = ""
    while received.position < len(text):
        size = data.draw(st.integers(1, 7))
        new += received.add(text[received.position : received.position + size])
    assert text[:first] + new == text == str(received)


def test_another_text_is_noticed() -> None:
    received = Received()
    received.add("The capital")
    received.begin_again()
    assert received.add("The ") == ""
    with pytest.raises(Differs):
        received.add("city")
    with pytest.raises(Differs):
        received.end(Done(text="The city", finish_reason="stop"))


# --- one step after the other ----------------------------------------------------------------


def begun(text: str = "") -> tuple[ResumableExchanges, BaseAnswer]:
    """An answer under way of which `text` has come, whose connection is lost."""
    exchanges = ResumableExchanges(ENDPOINT)
    exchange, frames = exchanges.begin(Chat(text="hi"))
    exchanges.sent(frames[1])
    if text:
        exchanges.received(encode_reply(frames[1], Delta(text)))
    exchanges.interrupt(lambda: lost(ENDPOINT))
    return exchanges, BaseAnswer(exchange, None)


def test_a_lost_connection_is_a_progress_and_no_error() -> None:
    exchanges, answer = begun("Köln ")
    ping, _ = exchanges.begin(Ping())
    assert answer._take() == "Köln "
    (progress,) = answer._exchange.inbox
    assert isinstance(progress, Progress) and progress.stage == "connection"
    assert ENDPOINT in progress.message
    ((_version, request_id, _body),) = messages = exchanges.again()
    target = answer._exchange.request_id.decode()
    assert decode_request(messages[0]) == (request_id, Resume(target=target, offset=5))
    exchanges.interrupt(lambda: lost(ENDPOINT))
    assert isinstance(ping.inbox[0], ConnectionLost)


def test_a_question_that_was_never_sent_is_not_resumed() -> None:
    exchanges = ResumableExchanges(ENDPOINT)
    exchanges.begin(Chat(text="hi"))  # it still waits to be handed to the connection
    exchanges.interrupt(lambda: lost(ENDPOINT))
    assert exchanges.again() == []


def test_what_is_asked_again_is_the_same() -> None:
    exchanges = ResumableExchanges(ENDPOINT)
    exchange, frames = exchanges.begin(Chat(text="hi", temperature=0.7))
    exchanges.sent(frames[1])
    asked = decode_request(frames)[1]
    assert isinstance(asked, Chat) and asked.seed is not None  # or it would be another answer
    exchanges.interrupt(lambda: lost(ENDPOINT))
    (resume,) = exchanges.again()
    not_found = Error(ErrorInfo("not_found", "no such answer"))
    exchanges.received(encode_reply(resume[1], not_found))
    assert exchanges.outbox.pop() == frames
    # and if that finds no model, say, it is what the caller is told
    exchanges.received(encode_reply(exchange.request_id, not_found))
    assert isinstance(exchange.inbox[-1], NotFound)


def test_a_seed_of_the_callers_stays() -> None:
    _exchange, frames = ResumableExchanges(ENDPOINT).begin(Chat(text="hi", seed=0))
    assert decode_request(frames)[1] == Chat(text="hi", seed=0)


def test_ids_differ_between_connections() -> None:
    first, second = (ResumableExchanges(ENDPOINT).begin(Ping())[0] for _ in range(2))
    assert first.request_id != second.request_id


def test_a_different_second_answer_ends_it() -> None:
    exchanges, answer = begun("The capital")
    (resume,) = exchanges.again()
    exchanges.received(encode_reply(resume[1], Error(ErrorInfo("not_found", "?"))))
    exchanges.outbox.clear()
    request_id = answer._exchange.request_id
    exchanges.received(encode_reply(request_id, Delta("A city")))
    assert answer._take() == "The capital"
    assert answer._take() is None  # the progress
    with pytest.raises(ConnectionLost, match="different"):
        answer._take()
    assert answer.text == "The capital"
    cancel = decode_request(exchanges.outbox.pop())[1]
    assert cancel == Cancel(target=request_id.decode())
    exchanges.received(encode_reply(request_id, Delta("late")))
    assert not answer._exchange.inbox


def test_what_was_cancelled_meanwhile_is_cancelled_then() -> None:
    exchanges, answer = begun("half")
    exchanges.cancel(answer._exchange)
    resume, cancel = exchanges.again()
    target = answer._exchange.request_id.decode()
    assert decode_request(cancel)[1] == Cancel(target=target)
    exchanges.received(encode_reply(resume[1], Error(ErrorInfo("not_found", "?"))))
    assert read(answer) == ["half"]
    assert answer.finish_reason == "cancelled" and answer.text == "half"
    assert not exchanges.outbox  # it is not asked again


def test_a_second_answer_that_is_stopped_early_takes_nothing_away() -> None:
    exchanges, answer = begun("a long answer")
    (resume,) = exchanges.again()
    exchanges.received(encode_reply(resume[1], Error(ErrorInfo("not_found", "?"))))
    stopped = Done(text="a lo", finish_reason="deadline")
    exchanges.received(encode_reply(answer._exchange.request_id, stopped))
    assert read(answer) == ["a long answer"]
    assert answer.text == "a long answer" and answer.finish_reason == "deadline"


def test_a_daemon_that_has_no_time_is_asked_for_the_rest_later() -> None:
    exchanges, answer = begun("half")
    (resume,) = exchanges.again()
    busy = Error(ErrorInfo("busy", "too often", retry_after_ms=60_000))
    exchanges.received(encode_reply(resume[1], busy))
    assert read(answer) == ["half"]
    assert exchanges.wake_at is not None
    exchanges.wake()
    assert not exchanges.outbox  # it is not time yet
    exchanges._later = dict.fromkeys(exchanges._later, 0.0)
    exchanges.wake()
    assert exchanges.wake_at is None
    later = exchanges.outbox.pop()
    target = answer._exchange.request_id.decode()
    assert decode_request(later)[1] == Resume(target=target, offset=4)
    exchanges.received(encode_reply(resume[1], Delta("nobody waits for this")))
    exchanges.received(encode_reply(later[1], Done(text="half.", finish_reason="stop")))
    assert read(answer) == ["."]


def test_an_abandoned_answer_is_not_resumed() -> None:
    exchanges, answer = begun("half")
    (resume,) = exchanges.again()
    frames = exchanges.abandon(answer._exchange)
    assert frames is not None
    exchanges.received(encode_reply(resume[1], Delta("rest")))
    exchanges.received(encode_reply(resume[1], Error(ErrorInfo("not_found", "?"))))
    exchanges.interrupt(lambda: lost(ENDPOINT))
    (message,) = exchanges.again()  # the cancel, whose reply has not come
    assert isinstance(decode_request(message)[1], Cancel)


def test_an_unreadable_reply_to_a_resume_fails_its_answer() -> None:
    exchanges, answer = begun()
    (resume,) = exchanges.again()
    exchanges.received([b"assistant/1", resume[1], b"{"])
    assert isinstance(answer._exchange.inbox[-1], InternalError)


def test_a_revoked_device_fails_everything() -> None:
    exchanges, answer = begun("half")
    exchanges.fail(lambda: refused(ENDPOINT))
    assert exchanges.again() == []
    assert isinstance(answer._exchange.inbox[-1], Unauthorized)


@given(st.lists(st.lists(st.binary(max_size=40), max_size=4), max_size=5))
def test_garbage_never_raises(messages: list[list[bytes]]) -> None:
    exchanges, answer = begun("half")
    (resume,) = exchanges.again()
    for frames in messages:
        exchanges.received(frames)
    exchanges.received(encode_reply(resume[1], Done(text="half.", finish_reason="stop")))
    read(answer)
    assert answer.text == "half."
