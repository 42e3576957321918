"""assistantd.scheduler: what those are told who ask while a model is loaded."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from assistantd.config import Config, LimitsConfig
from assistantd.jobs import Job
from assistantd.models import ModelStore
from assistantd.protocol import Chat, Error, Progress, Reply
from assistantd.scheduler import ARRIVING, Scheduler
from assistantd.storage import Storage
from engine.errors import EngineError

WAIT_S = 30.0


@contextmanager
def loading(folder: Path, limits: LimitsConfig) -> Iterator[tuple[Scheduler, threading.Event]]:
    """A scheduler that loads what is no model, and says so when the event is set."""
    model = folder / "model.gguf"
    model.write_bytes(b"GGUF")
    has_begun, go_on = threading.Event(), threading.Event()

    def load(path: Path, config: Config, progress: Callable[[str, int, int], None]) -> Any:
        has_begun.set()
        assert go_on.wait(WAIT_S)
        progress("compiling", 0, 3)
        raise EngineError("it is no model")

    storage = Storage(folder / "sessions.db")
    config = Config(model=str(model), limits=limits)
    scheduler = Scheduler(config, ModelStore(folder / "models"), storage, load=load)
    scheduler.start()
    try:
        assert has_begun.wait(WAIT_S)
        yield scheduler, go_on
    finally:
        go_on.set()
        scheduler.shut_down(0.0)
        scheduler.join()
        storage.close()


def test_who_asks_while_a_model_is_loaded_is_told_so(tmp_path: Path) -> None:
    """The first start compiles for a minute, and the scheduler's thread does nothing else."""
    model = tmp_path / "model.gguf"
    replies: queue.Queue[Reply] = queue.Queue()
    with loading(tmp_path, LimitsConfig()) as (scheduler, go_on):
        scheduler.submit(Job(b"client", b"1", Chat(text="Hello"), replies.put))
        told = replies.get(timeout=WAIT_S)
        assert isinstance(told, Progress) and told.message == f"loading {model}"
        go_on.set()
        told = replies.get(timeout=WAIT_S)
        assert isinstance(told, Progress) and told.message == f"{model}: compiling"
        last = told
        while isinstance(last, Progress):
            last = replies.get(timeout=WAIT_S)
        assert isinstance(last, Error) and "it is no model" in last.error.message


def test_a_crowd_that_comes_while_a_model_is_loaded(tmp_path: Path) -> None:
    """Who is over the limit is told at once, not when the model is there."""
    most = 3 * ARRIVING
    last: queue.Queue[tuple[int, Error]] = queue.Queue()

    def reply_to(number: int) -> Callable[[Reply], None]:
        return lambda reply: last.put((number, reply)) if isinstance(reply, Error) else None

    with loading(tmp_path, LimitsConfig(max_queue=3)) as (scheduler, go_on):
        for number in range(most + 2):
            client = b"client %d" % number
            scheduler.submit(Job(client, b"1", Chat(text="Hello"), reply_to(number)))
        turned_away = [last.get(timeout=WAIT_S) for _ in range(2)]
        assert [number for number, _ in turned_away] == [most, most + 1]
        assert {reply.error.code for _, reply in turned_away} == {"busy"}
        assert all(reply.error.retry_after_ms for _, reply in turned_away)
        assert last.empty()
        go_on.set()
        assert {last.get(timeout=WAIT_S)[0] for _ in range(most)} == set(range(most))


def test_one_client_alone_while_a_model_is_loaded(tmp_path: Path) -> None:
    """It takes nobody's place, and when it is gone its own is free."""
    replies: queue.Queue[Reply] = queue.Queue()

    def ask(client: bytes, number: int) -> Reply:
        scheduler.submit(Job(client, b"%d" % number, Chat(text="Hello"), replies.put))
        return replies.get(timeout=WAIT_S)

    with loading(tmp_path, LimitsConfig(max_queue=3)) as (scheduler, _go_on):
        for number in range(3):
            assert isinstance(ask(b"greedy", number), Progress)
        told = ask(b"greedy", 3)
        assert isinstance(told, Error) and told.error.code == "busy"
        assert isinstance(ask(b"modest", 1), Progress)
        scheduler.drop_client(b"greedy")
        assert isinstance(ask(b"greedy", 4), Progress)


def test_the_budget_is_known_without_a_model(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "sessions.db")
    config = Config(memory_budget="300M")
    scheduler = Scheduler(config, ModelStore(tmp_path / "models"), storage)
    assert scheduler.engine_memory.budget == 300 << 20
    storage.close()
