"""assistantd.scheduler: what those are told who ask while a model is loaded."""

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from assistantd.config import Config
from assistantd.jobs import Job
from assistantd.models import ModelStore
from assistantd.protocol import Chat, Error, Progress, Reply
from assistantd.scheduler import Scheduler
from assistantd.storage import Storage
from engine.errors import EngineError

WAIT_S = 30.0


def test_who_asks_while_a_model_is_loaded_is_told_so(tmp_path: Path) -> None:
    """The first start compiles for a minute, and the scheduler's thread does nothing else."""
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    loading, go_on = threading.Event(), threading.Event()

    def load(path: Path, config: Config, progress: Callable[[str, int, int], None]) -> Any:
        loading.set()
        assert go_on.wait(WAIT_S)
        progress("compiling", 0, 3)
        raise EngineError("it is no model")

    replies: queue.Queue[Reply] = queue.Queue()
    storage = Storage(tmp_path / "sessions.db")
    scheduler = Scheduler(
        Config(model=str(model)), ModelStore(tmp_path / "models"), storage, load=load
    )
    scheduler.start()
    try:
        assert loading.wait(WAIT_S)
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
    finally:
        go_on.set()
        scheduler.shut_down(0.0)
        scheduler.join()
        storage.close()
