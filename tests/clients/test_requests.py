"""clients.requests: no order of replies and no garbage confuses the table of requests."""

from hypothesis import given
from hypothesis import strategies as st

from assistantd.protocol import Chat, Delta, Done, Ping, Status, encode_reply
from clients.errors import ConnectionLost, InternalError
from clients.requests import Exchanges, is_repeatable, lost


@given(st.lists(st.lists(st.binary(max_size=40), max_size=4), max_size=5))
def test_garbage_from_the_daemon_never_raises(messages: list[list[bytes]]) -> None:
    exchanges = Exchanges()
    exchange, _ = exchanges.begin(Chat(text="hi"))
    for frames in messages:
        exchanges.received(frames)
    if not exchange.ended:
        exchanges.received(encode_reply(exchange.request_id, Done(text="x")))
        assert exchange.take() == Done(text="x", done=True)


@given(st.binary(max_size=60))
def test_a_garbled_body_fails_the_request_it_names(body: bytes) -> None:
    exchanges = Exchanges()
    exchange, _ = exchanges.begin(Ping())
    exchanges.received([b"assistant/1", exchange.request_id, b"\xff" + body])
    assert exchange.ended
    assert isinstance(exchange.inbox[0], InternalError)


@given(st.lists(st.integers(0, 3), max_size=30))
def test_replies_reach_their_own_request_in_order(order: list[int]) -> None:
    exchanges = Exchanges()
    opened = [exchanges.begin(Chat(text="hi"))[0] for _ in range(4)]
    sent: dict[int, list[str]] = {number: [] for number in range(4)}
    for step, number in enumerate(order):
        sent[number].append(f"{step}")
        delta = encode_reply(opened[number].request_id, Delta(text=f"{step}"))
        exchanges.received(delta)
    for number, exchange in enumerate(opened):
        assert [reply.text for reply in exchange.inbox] == sent[number]


def test_nothing_is_delivered_after_the_end() -> None:
    exchanges = Exchanges()
    exchange, _ = exchanges.begin(Chat(text="hi"))
    exchanges.received(encode_reply(exchange.request_id, Done(text="x")))
    exchanges.received(encode_reply(exchange.request_id, Delta(text="late")))
    assert len(exchange.inbox) == 1
    assert exchanges.cancel(exchange) is None
    assert exchanges.abandon(exchange) is None


def test_each_lost_request_gets_an_error_of_its_own() -> None:
    exchanges = Exchanges()
    first, second = exchanges.begin(Ping())[0], exchanges.begin(Status())[0]
    exchanges.fail(lambda: lost("ipc://x"))
    assert isinstance(first.inbox[0], ConnectionLost)
    assert first.inbox[0] is not second.inbox[0]


def test_only_long_requests_are_cancelled_when_abandoned() -> None:
    exchanges = Exchanges()
    ping, chat = exchanges.begin(Ping())[0], exchanges.begin(Chat(text="hi"))[0]
    assert exchanges.abandon(ping) is None
    frames = exchanges.abandon(chat)
    assert frames is not None
    assert f'"target":"{chat.request_id.decode()}"'.encode() in frames[2]


def test_what_may_be_asked_twice() -> None:
    assert is_repeatable(Ping())
    assert not is_repeatable(Chat(text="hi"))
