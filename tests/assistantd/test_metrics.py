"""What the daemon counts, over real sockets and between two steps of the engine (stepped.py)."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from assistantd.config import LimitsConfig
from assistantd.metrics import KINDS, OUTCOMES, Histogram, RequestCounts, outcome_of
from assistantd.protocol import (
    PROTOCOL,
    Counters,
    Devices,
    Done,
    Error,
    ErrorInfo,
    Models,
    Status,
)
from clients import Client
from clients.errors import AssistantError, Busy
from tests.assistantd.stepped import WAIT_S, Running


@pytest.fixture
def running() -> Iterator[Running]:
    folder = Path(tempfile.mkdtemp(prefix="as-"))
    with Running(folder, LimitsConfig(max_active=2, max_queue=1)) as daemon:
        yield daemon


def counted(client: Client) -> Counters:
    counters = client.status().counters
    assert counters is not None
    return counters


def _until(client: Client, *, active: int, waiting: int) -> None:
    while (client.status().queue.active, client.status().queue.waiting) != (active, waiting):
        pass


def test_a_bucket_holds_its_upper_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.0, 0.1, 0.11, 1.0, 1.01):
        histogram.observe(seconds)
    histogram.observe(0.5, times=3)
    info = histogram.info()
    assert info.bounds == [0.1, 1.0]
    assert info.counts == [2, 5, 1]
    assert info.sum == pytest.approx(0.0 + 0.1 + 0.11 + 1.0 + 1.01 + 1.5)


def test_outcomes() -> None:
    assert outcome_of(Done()) == "done"
    assert outcome_of(Done(finish_reason="length")) == "done"
    assert outcome_of(Done(finish_reason="cancelled")) == "cancelled"
    assert outcome_of(Done(finish_reason="deadline")) == "deadline"
    assert outcome_of(Error(ErrorInfo("not_found", ""))) == "not_found"
    counts = RequestCounts()
    for kind in KINDS:
        for code in OUTCOMES[3:]:
            counts.ended(kind, Error(ErrorInfo(code, "")))  # type: ignore[arg-type]
        counts.ended(kind, Done())
        counts.gone(kind)
    assert all(sum(one.values()) == len(OUTCOMES) - 1 for one in counts.table().values())
    assert counts.of("gone") == len(KINDS)


def test_answers_tokens_and_durations(running: Running) -> None:
    running.engine.free_running = True
    with running.client() as client:
        client.ask("abc", max_tokens=3).wait()
        client.complete("de", max_tokens=2).wait()
        found = counted(client)
    assert found.requests["chat"] == {"done": 1}
    assert found.requests["complete"] == {"done": 1}
    assert (found.prompt_tokens, found.completion_tokens) == (3 + 2, 3 + 2)
    assert sum(found.queueing_s.counts) == 2
    assert sum(found.first_token_s.counts) == 2
    assert sum(found.token_s.counts) == 2 + 1  # the first of each is counted by itself
    assert found.model_loads == 1
    assert found.streamed_bytes == 0


def test_cancelled_refused_and_gone(running: Running) -> None:
    with running.client() as client, running.client() as other:
        answers = [client.ask("a", max_tokens=2)]
        _until(client, active=1, waiting=0)
        answers.append(client.ask("b", max_tokens=2))
        _until(client, active=2, waiting=0)
        answers.append(client.ask("c", max_tokens=2))
        _until(client, active=2, waiting=1)
        with pytest.raises(Busy):
            other.ask("d").wait()
        answers[1].cancel()
        answers[1].wait()
        running.engine.free_running = True
        answers[0].wait()
        answers[2].wait()
        found = counted(client)
        assert found.requests["chat"] == {"done": 2, "cancelled": 1, "busy": 1}
        assert found.requests["cancel"] == {"done": 1}
        assert found.refused == 1
        with pytest.raises(AssistantError):
            client.request(Models(op="load", name="nothing"))
        assert counted(client).requests["models"] == {"not_found": 1}


def test_a_client_that_left(running: Running) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 1000)
        dealer.connect(running.endpoint)
        dealer.send_multipart([PROTOCOL, b"1", b'{"type":"chat","text":"long"}'])
        with running.client() as client:
            while not running.engine.started:
                client.ping()
            dealer.close()
            running.engine.free_running = True
            while not (found := counted(client)).dropped_clients:
                pass
    assert found.requests["chat"] == {"gone": 1}


def test_labels_are_not_made_by_clients(running: Running) -> None:
    bodies = [b'{"type":"kind-%d"}' % n for n in range(50)]
    bodies += [b'{"type":"ping","x-%d":1}' % n for n in range(50)]
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.RCVTIMEO, 1000 * WAIT_S)
        dealer.connect(running.endpoint)
        for body in bodies:
            dealer.send_multipart([PROTOCOL, b"1", body])
            assert b"bad_request" in dealer.recv_multipart()[2]
    with running.client() as client:
        found = counted(client)
    assert found.bad_frames == len(bodies)
    assert set(found.requests) <= set(KINDS)


def test_devices_do_not_see_what_others_do(running: Running) -> None:
    with running.client() as client:
        for rights, sees in (("chat", False), ("admin", True)):
            added = client.request(Devices(op="add", name=rights, rights=rights))  # type: ignore[arg-type]
            assert added.device is not None
            status = client.request(Status(device=added.device.id)).status
            assert status is not None
            assert (status.counters is not None) == sees


def test_relief_is_counted(running: Running) -> None:
    scheduler = running.daemon._scheduler
    with running.client() as client:
        scheduler.engine_memory.excess = lambda: 1
        scheduler.relieve()
        while not counted(client).relief_steps:
            pass
        scheduler.engine_memory.excess = lambda: 0
    assert running.engine.memory_calls == ["drop"]
