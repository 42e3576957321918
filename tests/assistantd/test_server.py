"""The daemon's server and queue, between two steps of the engine (stepped.py)."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from assistantd import doors, protocol
from assistantd.config import LimitsConfig
from clients import Client
from clients.errors import (
    Busy,
    DeadlineExceeded,
    InternalError,
    NotFound,
    OverBudget,
    ShuttingDown,
    TooLarge,
)
from engine.kv_disk import DATA_NAME, INDEX_NAME
from tests.assistantd.stepped import WAIT_S, Running


@pytest.fixture
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="as-"))


@pytest.fixture
def running(folder: Path) -> Iterator[Running]:
    with Running(folder, LimitsConfig(max_active=2, max_queue=3)) as daemon:
        yield daemon


def test_the_socket_is_for_user_and_group(running: Running, folder: Path) -> None:
    assert (folder / "s").stat().st_mode & 0o777 == 0o660


def test_cancel_takes_effect_within_one_step(running: Running) -> None:
    with running.client() as client:
        answer = client.ask("abc", max_tokens=100)
        running.engine.allow.release(2)
        assert [next(answer), next(answer)] == ["a", "a"]
        answer.cancel()
        answer.wait()
        assert answer.finish_reason == "cancelled"
        assert answer.done is not None and answer.done.timings is not None
        assert answer.done.timings.completion_tokens == 2


def test_a_full_queue_says_busy_and_when_to_come_again(running: Running) -> None:
    with running.client() as client:
        answers = [client.ask(f"{i}", max_tokens=1) for i in range(2)]
        _until(client, active=2, waiting=0)
        answers += [client.ask(f"{i}", max_tokens=1) for i in range(2, 5)]
        _until(client, active=2, waiting=3)
        with pytest.raises(Busy) as caught:
            client.ask("too many").wait()
        assert caught.value.retry_after_ms is not None and caught.value.retry_after_ms > 0
        running.engine.free_running = True
        running.engine.allow.release(10)
        assert [a.wait().text for a in answers] == list("01234")


@pytest.mark.parametrize("kind", ["complete", "text", "messages", "system"])
def test_megabytes_are_refused_before_they_are_encoded(
    running: Running, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    running.engine.free_running = True
    text = "word " * 500_000
    with running.client() as client:
        with monkeypatch.context() as endless:
            for owner in (running.engine.tokenizer, running.engine.chat):
                endless.setattr(owner, "encode", None)
            with pytest.raises(TooLarge, match=r"more than (2499999|25000\d\d) tokens") as caught:
                if kind == "complete":
                    client.complete(text).wait()
                elif kind == "text":
                    client.ask(text).wait()
                elif kind == "system":
                    client.ask(system=text, messages=[{"role": "user", "content": ""}]).wait()
                else:
                    client.ask(messages=[{"role": "user", "content": text}]).wait()
            assert ("at most 750 fit" if kind == "text" else "at most 999 fit") in str(caught.value)
        assert client.ask("a", max_tokens=1).wait().text == "a"


def _until(client: Client, *, active: int, waiting: int) -> None:
    for _ in range(100_000):
        queue = client.status().queue
        if (queue.active, queue.waiting) == (active, waiting):
            return
    raise AssertionError("the queue never came to that")


def test_clients_are_served_in_turn(running: Running) -> None:
    with running.client() as greedy, running.client() as modest:
        first = [greedy.ask(f"g{i}", max_tokens=1) for i in range(2)]
        _until(greedy, active=2, waiting=0)
        rest = [greedy.ask(f"g{i}", max_tokens=1) for i in range(2, 4)]
        _until(greedy, active=2, waiting=2)
        late = modest.ask("m", max_tokens=1)
        _until(modest, active=2, waiting=3)
        running.engine.free_running = True
        running.engine.allow.release(10)
        for answer in (*first, *rest, late):
            answer.wait()
    assert running.engine.started[:2] == ["g0", "g1"]
    assert running.engine.started[2] == "m"


def test_a_deadline_in_the_queue(running: Running) -> None:
    with running.client() as client:
        busy = [client.ask("x", max_tokens=2) for _ in range(2)]
        _until(client, active=2, waiting=0)
        late = client.ask("late", deadline_ms=1)
        with pytest.raises(DeadlineExceeded):
            late.wait()
        running.engine.allow.release(10)
        for answer in busy:
            answer.wait()


def test_an_id_may_not_be_used_twice_at_once(running: Running) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(running.endpoint)
        request = protocol.encode_request(b"same", protocol.Chat(text="a", max_tokens=1))
        dealer.send_multipart(request)
        dealer.send_multipart(request)
        _, reply = protocol.decode_reply(dealer.recv_multipart())
        assert isinstance(reply, protocol.Error) and reply.error.code == "bad_request"
        running.engine.allow.release(1)
        replies = [protocol.decode_reply(dealer.recv_multipart())[1] for _ in range(2)]
        assert isinstance(replies[1], protocol.Done)


def test_an_engine_that_fails_costs_its_requests_and_no_more(running: Running) -> None:
    with running.client() as client:
        running.engine.fail = True
        answer = client.ask("a")
        running.engine.allow.release(1)
        with pytest.raises(InternalError, match="see the daemon's log"):
            answer.wait()
        running.engine.fail = False
        assert running.engine.sequences == []
        again = client.ask("b", max_tokens=1)
        running.engine.allow.release(1)
        assert again.wait().text == "b"


def test_a_client_that_does_not_read_is_dropped(
    running: Running,
) -> None:
    running.engine.free_running = True
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer, running.client() as client:
        dealer.linger = 0
        dealer.rcvhwm = 10
        dealer.connect(running.endpoint)
        request = protocol.Chat(text="a", max_tokens=1_000_000)
        dealer.send_multipart(protocol.encode_request(b"1", request))
        # others are served all the while
        for _ in range(100_000):
            assert client.ask("b", max_tokens=1).wait().text == "b"
            if client.status().queue.active == 0:
                break
        else:
            raise AssertionError("it was never dropped")


def test_what_is_deleted_is_forgotten_by_the_engine(running: Running, folder: Path) -> None:
    kv = folder / "d" / "kv"
    kv.mkdir()
    engine = running.engine
    engine.free_running = True
    with running.client() as client:
        for session in ("a", "b"):
            client.ask("x", session=session, max_tokens=1).wait()
        with pytest.raises(NotFound):
            client.delete_session("c")
        assert engine.forgotten == 0
        client.delete_session("a")
        client.ask("y", max_tokens=1).wait()  # comes after it
        assert engine.forgotten == 1
        client.unload()
        for name in (DATA_NAME, INDEX_NAME):  # as the engine leaves them when it is closed
            (kv / name).write_text("secret")
        client.delete_session("b")
        client.shutdown()
    running.thread.join(WAIT_S)
    assert list(kv.iterdir()) == []


def test_stopping(folder: Path) -> None:
    with Running(folder, LimitsConfig(max_active=1, shutdown_grace_s=60)) as daemon:
        with daemon.client() as client:
            answer = client.ask("a", max_tokens=3, session="s")
            _until(client, active=1, waiting=0)
            waiting = client.ask("b", max_tokens=3)
            _until(client, active=1, waiting=1)
            client.shutdown()
            with pytest.raises(ShuttingDown):
                waiting.wait()
            with pytest.raises(ShuttingDown):
                client.ask("c").wait()
            daemon.engine.allow.release(3)
            assert answer.wait().text == "aaa"
        daemon.thread.join(WAIT_S)
        assert daemon.engine.closed
    assert not (folder / "s").exists()


def test_limits_are_what_the_docs_say() -> None:
    assert doors.HARD_MESSAGE_BYTES > protocol.MAX_BODY_BYTES


def test_memory_is_given_back_in_steps_and_taken_again(running: Running) -> None:
    scheduler, engine = running.daemon._scheduler, running.engine
    with running.client() as client:
        client.set_budget(1000)
        scheduler.engine_memory.excess = lambda: 100
        for _ in range(3):
            scheduler.relieve()
            # answered by the engine's thread after it; and a budget too small changes nothing
            with pytest.raises(OverBudget):
                client.set_budget(5)
        assert engine.memory_calls == [1000, "drop", 900, 800]
        scheduler.engine_memory.excess = lambda: 0
        scheduler.relieve()
        scheduler.relax()
        plan = client.set_budget(2000)
        assert plan is not None and plan.budget == 2000
        assert engine.memory_calls == [1000, "drop", 900, 800, 1000, 2000]
        assert client.status().budget == 2000
