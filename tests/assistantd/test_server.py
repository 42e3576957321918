"""The real daemon parts over real sockets, with an engine whose every step the test allows.

The stand-in computes nothing: it says one letter a step for each sequence. It is here so that a
test can stop the world between two steps; the real engine is under tests/e2e.
"""

import dataclasses
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from assistantd import protocol, server
from assistantd.config import Config, LimitsConfig
from assistantd.daemon import Daemon
from clients import Client
from clients.errors import Busy, DeadlineExceeded, InternalError, NotFound, OverBudget, ShuttingDown
from engine.errors import OverBudgetError
from engine.kv_disk import DATA_NAME, INDEX_NAME
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
        self.memory_calls: list[str | int | None] = []
        self.closed = False
        self.info = SimpleNamespace(
            architecture="llama", parameters=1, quantization="F32", n_layers=1, vocab_size=256
        )
        self.context_length = 1000
        self.base_bytes = 1
        self.plan = MemoryPlan(None, None, {"weights": 1}, 16, 16, "f16", 1, 1, 1)
        self.tokenizer = SimpleNamespace(
            encode=lambda text, add_bos: list(text.encode()), add_bos=False, bos_id=None
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

    def forget_cached(self) -> None:
        assert threading.current_thread().name == "engine"
        self.forgotten += 1

    def close(self) -> None:
        self.closed = True


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
        self.daemon = Daemon(config, load=lambda path, config, progress: self.engine)
        self.thread = threading.Thread(
            target=lambda: self.daemon.run(install_signals=False), name="daemon"
        )

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
    assert server.HARD_MESSAGE_BYTES > protocol.MAX_BODY_BYTES


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
