"""The real daemon parts over real sockets, with an engine whose every step the test allows.

The stand-in computes nothing: it says one letter a step for each sequence. It is here so that a
test can stop the world between two steps; the real engine is under tests/e2e.
"""

import dataclasses
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from assistantd.config import Config, LimitsConfig
from assistantd.daemon import Daemon
from clients import Client
from engine.errors import OverBudgetError
from engine.plan import MemoryPlan

WAIT_S = 20


@dataclass
class Sequence:
    prompt_ids: list[int]
    params: Any
    n_cached: int = 0
    completion_ids: list[int] = field(default_factory=list)


class SteppedEngine:
    """Says the letters of the prompt's first token; one step for each release of `allow`."""

    def __init__(self) -> None:
        self.allow = threading.Semaphore(0)
        self.free_running = False
        self.fail = False
        self.sequences: list[Sequence] = []
        self.started: list[str] = []
        self.forgotten = 0
        self.disk_refuses: OSError | None = None
        self.memory_calls: list[str | int | None] = []
        self.closed = False
        self.closes = 0
        self.info = SimpleNamespace(
            architecture="llama", parameters=1, quantization="F32", n_layers=1, vocab_size=256
        )
        self.context_length = 1000
        self.base_bytes = 1
        self.streamed_bytes = 0
        self.plan = MemoryPlan(None, None, {"weights": 1}, 16, 16, "f16", 1, 1, 1)
        self.tokenizer = SimpleNamespace(
            encode=lambda text, add_bos: list(text.encode()),
            least_tokens=lambda text: len(text.encode()),
            add_bos=False,
            bos_id=None,
        )
        self.chat = SimpleNamespace(
            encode=lambda messages: list(messages[-1]["content"].encode()), stop_strings=()
        )

    def has_room(self, n_prompt: int, max_tokens: int | None) -> bool:
        return True

    def start(self, prompt_ids: list[int], params: Any) -> Sequence:
        sequence = Sequence(prompt_ids, params)
        self.sequences.append(sequence)
        self.started.append(bytes(prompt_ids).decode())
        return sequence

    def step(self) -> list[Any]:
        # not allowed: nothing happens in this pass, and commands are looked at before the next
        if not self.free_running and not self.allow.acquire(timeout=0.005):
            return []
        if self.fail:
            raise ZeroDivisionError("a bug")
        outputs = []
        for sequence in list(self.sequences):
            sequence.completion_ids.append(0)
            over = len(sequence.completion_ids) >= sequence.params.max_tokens
            if over:
                self.sequences.remove(sequence)
            outputs.append(
                SimpleNamespace(
                    sequence=sequence,
                    text=chr(sequence.prompt_ids[0]),
                    token_ids=(0,),
                    finish_reason="length" if over else None,
                    prefilled=1,
                    prefill_total=1,
                )
            )
        return outputs

    def finish(self, sequence: Sequence, reason: str) -> str:
        if sequence in self.sequences:
            self.sequences.remove(sequence)
        return ""

    def memory(self) -> dict[str, int]:
        return {}

    def drop_caches(self) -> None:
        self.memory_calls.append("drop")

    def set_budget(self, budget: int | None) -> None:
        if budget is not None and budget < 10:
            raise OverBudgetError(budget, 10)
        self.plan = dataclasses.replace(self.plan, budget=budget)
        self.memory_calls.append(budget)

    def forget_cached(self) -> OSError | None:
        assert threading.current_thread().name == "engine"
        self.forgotten += 1
        return self.disk_refuses

    def close(self) -> None:
        self.closed = True
        self.closes += 1


class Running:
    """A daemon in a thread of this process."""

    def __init__(self, folder: Path, limits: LimitsConfig) -> None:
        self.engine = SteppedEngine()
        model = folder / "m.gguf"
        model.write_bytes(b"")
        self.endpoint = f"ipc://{folder}/s"
        config = Config(
            memory_budget="none",
            model=str(model),
            endpoint=self.endpoint,
            data_dir=str(folder / "d"),
            limits=limits,
        )
        self.loads = 0
        self.daemon = Daemon(config, load=lambda path, config, progress: self._load())
        self.thread = threading.Thread(
            target=lambda: self.daemon.run(install_signals=False), name="daemon"
        )

    def _load(self) -> SteppedEngine:
        self.loads += 1
        return self.engine

    @property
    def closes(self) -> int:
        """How often what was loaded was closed."""
        return self.engine.closes

    def __enter__(self) -> "Running":
        self.thread.start()
        with self.client() as client:
            client.wait_ready(WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.free_running = True
        self.engine.allow.release(1000)
        if self.thread.is_alive():
            self.daemon.stop()
            self.daemon.stop()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()

    def client(self) -> Client:
        return Client(self.endpoint, timeout=WAIT_S)
