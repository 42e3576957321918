"""Failures that are not the clients': no memory, a broken loop, a disk that takes nothing."""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from assistantd.config import LimitsConfig
from assistantd.daemon import CrashedError
from assistantd.protocol import Status
from clients import Client
from clients.errors import InternalError
from tests.assistantd.stepped import Running


@pytest.fixture
def running() -> Iterator[Running]:
    with Running(Path(tempfile.mkdtemp(prefix="af-")), LimitsConfig()) as daemon:
        daemon.engine.free_running = True
        yield daemon


def still_works(client: Client) -> bool:
    return client.ask("b", max_tokens=1).wait().text == "b"


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """No memory for the next call of a method, and enough for those after it."""
    whole = getattr(owner, name)

    def fail(*args: object) -> None:
        monkeypatch.setattr(owner, name, whole)
        raise MemoryError

    monkeypatch.setattr(owner, name, fail)


def test_no_memory_in_a_pass(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_once(monkeypatch, running.engine, "step")
    with running.client() as client:
        with pytest.raises(InternalError):
            client.ask("a").wait()
        assert still_works(client)


def test_no_memory_around_a_pass(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_once(monkeypatch, running.daemon._scheduler.engine_memory, "active")
    with running.client() as client:
        with pytest.raises(InternalError):
            client.ask("a").wait()
        assert still_works(client)


def test_no_memory_for_a_reply(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_once(monkeypatch, running.daemon._server, "handle")
    with running.client() as client:
        with pytest.raises(InternalError):
            client.request(Status())
        assert still_works(client)


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        ("_changes", "_unload"),
        ("_changes", "_use"),
        ("engine_memory", "loaded"),
        ("_changes", "_say_loaded"),
    ],
)
def test_no_memory_for_another_model(
    running: Running, monkeypatch: pytest.MonkeyPatch, owner: str, step: str
) -> None:
    scheduler = running.daemon._scheduler
    running.engine.closed = False
    fail_once(monkeypatch, getattr(scheduler, owner), step)
    with running.client() as client:
        with pytest.raises(InternalError):
            client.load(str(running.daemon._config.model))
        is_in_use = scheduler.model is not None
        assert client.status().state == ("ready" if is_in_use else "no_model")
        assert is_in_use == (step in ("_unload", "_say_loaded"))
        assert running.engine.closed == (step != "_unload")  # the old one, or the new one, too
        assert running.loads - running.closes == is_in_use
        assert still_works(client)


def test_who_asks_when_there_is_no_model_waits_for_it_and_no_longer(running: Running) -> None:
    """The question makes it load; no other message comes that would wake the loop after that."""
    with running.client() as client:
        client.unload()
        assert still_works(client)


def test_a_loop_that_always_fails_ends_the_daemon_and_answers_everybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        Running(Path(tempfile.mkdtemp(prefix="af-")), LimitsConfig(max_active=1)) as running,
        running.client() as client,
    ):
        ended: list[BaseException] = []
        monkeypatch.setattr(threading, "excepthook", lambda args: ended.append(args.exc_value))

        def fail() -> None:
            raise MemoryError

        answers = [client.ask(text) for text in "abc"]
        monkeypatch.setattr(running.daemon._scheduler.engine_memory, "active", fail)
        running.engine.free_running = True
        for answer in answers:
            with pytest.raises(InternalError):
                answer.wait()
        running.thread.join(20)
        assert not running.thread.is_alive()
    assert [type(problem) for problem in ended] == [MemoryError, CrashedError]
    assert running.engine.closed
