"""Settings that are read again while the daemon runs, between two steps of the engine."""

import dataclasses
import os
import queue
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from assistantd import config as configuration
from assistantd.config import Config, LimitsConfig
from assistantd.daemon import Daemon
from assistantd.forgetting import Choice
from assistantd.model_change import LoadRequest
from assistantd.privacy import NOTE_NAME
from assistantd.protocol import Done, Error, Models, PlanInfo, Progress, Reload
from assistantd.reload import changes, is_applied
from clients import Client
from clients.errors import (
    AssistantError,
    BadRequest,
    ModelFailed,
    NotFound,
    OverBudget,
    ShuttingDown,
)
from engine.errors import EngineError
from tests.assistantd.stepped import WAIT_S, SteppedEngine


@dataclass
class House:
    """A daemon in this process whose settings are a file, and whose models are stepped engines."""

    folder: Path
    engines: dict[str, SteppedEngine] = field(default_factory=dict)
    """By the file's name; the last of that name."""
    loads: list[tuple[str, str, bool]] = field(default_factory=list)
    """File, memory budget, and whether beside another."""
    attached: list[str] = field(default_factory=list)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    """Loading such a file waits for this."""
    broken: set[str] = field(default_factory=set)
    loading: "queue.Queue[str]" = field(default_factory=queue.Queue)
    vocabulary: dict[str, list[int]] = field(default_factory=dict)
    """What such a model makes of any text."""
    plan_bytes: int = 100
    smallest: int | None = None

    def __post_init__(self) -> None:
        self.file = self.folder / "config.toml"
        for name in "abc":
            (self.folder / f"{name}.gguf").write_bytes(name.encode())
        self.write(model="a")
        self.daemon = Daemon(
            self.read().config, self.read, load=self.load, attach=self.attach, plan=self.plan
        )
        self.thread = threading.Thread(target=lambda: self.daemon.run(install_signals=False))

    def write(self, model: str = "a", more: str = "", budget: str = "none") -> None:
        path = model if model.startswith("/") else f"{self.folder}/{model}.gguf"
        self.file.write_text(
            f'model = "{path}"\nmemory_budget = "{budget}"\n'
            f'endpoint = "ipc://{self.folder}/s"\ndata_dir = "{self.folder}/d"\n{more}\n'
        )

    def read(self) -> configuration.LoadedConfig:
        return configuration.load(self.file, {}, {})

    def load(self, path: Path, config: Config, progress: Any, beside: int | None = None) -> Any:
        self.loading.put(path.name)
        self.loads.append((path.name, config.memory_budget, beside is not None))
        if path.name in self.gates:
            assert self.gates[path.name].wait(WAIT_S)
        progress("reading", 1, 3)
        if path.name in self.broken:
            raise EngineError("it is broken")
        engine = self.engines[path.name] = SteppedEngine()
        if path.name in self.vocabulary:
            tokens = self.vocabulary[path.name]
            engine.chat.encode = lambda messages: tokens
        engine.plan = dataclasses.replace(engine.plan, owners={"weights": self.plan_bytes})
        return engine

    def attach(self, engine: SteppedEngine, config: Config) -> None:
        assert threading.current_thread().name == "engine"
        self.attached += [name for name, each in self.engines.items() if each is engine]

    def plan(self, path: Path, config: Config, budget: int | None, **machine: Any) -> PlanInfo:
        owners = {"weights": self.plan_bytes}
        return PlanInfo(budget, owners, 0, 0, 0, "f16", smallest=self.smallest)

    def __enter__(self) -> "House":
        self.thread.start()
        with self.client() as client:
            client.wait_ready(WAIT_S)
        self.loading.get(timeout=WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        for gate in self.gates.values():
            gate.set()
        for engine in self.engines.values():
            engine.free_running = True
            engine.allow.release(1000)
        if self.thread.is_alive():
            self.daemon.stop()
            self.daemon.stop()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        assert all(engine.closed for engine in self.engines.values())

    def stop(self) -> None:
        """Tell it to stop; returns once it knows."""
        self.daemon.stop()
        assert self.daemon._scheduler._changes.stop.wait(WAIT_S)

    def client(self) -> Client:
        return Client(f"ipc://{self.folder}/s", timeout=WAIT_S)


@pytest.fixture
def house() -> Iterator[House]:
    with House(Path(tempfile.mkdtemp(prefix="ar-"))) as running:
        yield running


class Asked:
    """A reload that goes on while the test does other things."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.said: queue.Queue[Progress] = queue.Queue()
        self.result: Done | AssistantError | None = None
        self.thread = threading.Thread(target=self._ask)
        self.thread.start()

    def _ask(self) -> None:
        with self.house.client() as client:
            try:
                self.result = client.request(Reload(), self.said.put)
            except AssistantError as problem:
                self.result = problem

    def end(self) -> Any:
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        return self.result


def ask(house: House) -> Done:
    with house.client() as client:
        return client.request(Reload())


def test_what_changed_is_applied_and_told(house: House) -> None:
    house.write(more="[limits]\nmax_active = 1\nmax_queue = 7\n[sampling]\nmax_tokens = 3")
    done = ask(house)
    assert done.settings is not None
    told = {change.key: (change.before, change.after) for change in done.settings}
    assert told == {
        "limits.max_active": ("4", "1"),
        "limits.max_queue": ("32", "7"),
        "sampling.max_tokens": ("1024", "3"),
    }
    assert not any(change.needs_restart for change in done.settings)
    house.engines["a.gguf"].free_running = True
    with house.client() as client:
        assert client.status().queue.capacity == 7
        assert client.ask("hello").wait().text == "hhh"
    assert house.loads == [("a.gguf", "none", False)]  # the model was left in peace
    assert ask(house).settings == []


def test_what_needs_a_restart_is_said_each_time_and_not_done(house: House) -> None:
    text = house.file.read_text().replace(f"{house.folder}/d", f"{house.folder}/elsewhere")
    house.file.write_text(text + "idle_unload_s = 7\n")
    for n_changed in (2, 1):
        done = ask(house)
        assert done.settings is not None and len(done.settings) == n_changed
        left = done.settings[0] if n_changed == 1 else done.settings[-1]
        assert (left.key, left.needs_restart) == ("data_dir", True)
        assert done.message is not None and "data_dir" in done.message
    assert not (house.folder / "elsewhere").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[limits]\nmax_active = 99", ("config.toml", "limits.max_active", "99")),
        ("max_active = 2", ("config.toml", "max_active", "limits.max_active")),
        ("[limits", ("config.toml", "TOML")),
    ],
)
def test_a_wrong_setting_changes_nothing(house: House, more: str, said: tuple[str, ...]) -> None:
    house.write("b", more)
    with pytest.raises(BadRequest) as caught:
        ask(house)
    assert all(word in str(caught.value) for word in said)
    with house.client() as client:
        assert client.status().queue.capacity == 32
    assert len(house.loads) == 1
    house.write(more="[limits]\nmax_queue = 8")  # and the next one works
    ask(house)
    with house.client() as client:
        assert client.status().queue.capacity == 8


def test_a_model_that_is_not_there_or_does_not_fit_changes_nothing(house: House) -> None:
    house.write("missing", "[limits]\nmax_queue = 5")
    with pytest.raises(NotFound, match="missing"):
        ask(house)
    house.write("b", "[limits]\nmax_queue = 5", budget="1M")
    house.smallest = 5 << 20
    with pytest.raises(OverBudget, match="5M"):
        ask(house)
    with house.client() as client:
        status = client.status()
    assert (status.queue.capacity, status.budget, len(house.loads)) == (32, None, 1)


def test_the_old_model_answers_until_the_new_one_is_ready(house: House) -> None:
    gate = house.gates["b.gguf"] = threading.Event()
    old = house.engines["a.gguf"]
    with house.client() as client:
        long = client.ask("x", max_tokens=6)
        old.allow.release(2)
        assert [next(long), next(long)] == ["x", "x"]
        house.write("b", "[limits]\nmax_queue = 9")
        reload = Asked(house)
        assert house.loading.get(timeout=WAIT_S) == "b.gguf"
        # while it loads, the old one goes on, also with what comes now
        other = client.ask("y", max_tokens=1)
        while client.status().queue.active < 2:
            pass
        old.allow.release(1)
        assert next(long) == "x"
        assert other.wait().text == "y"
        assert client.status().queue.capacity == 32  # nothing holds yet
        gate.set()
        done = reload.end()
        assert isinstance(done, Done) and done.model is not None
        assert done.model.name.endswith("b.gguf")
        # now what is under way goes on with the old one, and what comes has the new one
        new = house.engines["b.gguf"]
        late = client.ask("z", max_tokens=2)
        new.allow.release(2)
        late.wait()
        assert late.done is not None and late.done.model is not None
        assert late.text == "zz" and late.done.model.name.endswith("b.gguf")
        assert not old.closed and house.attached == []
        old.allow.release(10)
        long.wait()
        assert long.text == "xxxxxx" and long.finish_reason == "length"
        assert long.done is not None and long.done.model is not None
        assert long.done.model.name.endswith("a.gguf")
        client.set_budget(0)  # once that is done, the thread has done what came before
        status = client.status()
    assert (old.started, new.started[:1]) == (["x", "y"], ["z"])
    assert old.closed and house.attached == ["b.gguf"]
    assert old.forgotten == 1  # what it remembers is of no use to another model
    assert status.queue.capacity == 9
    assert house.loads[1:] == [("b.gguf", "none", True)]


def test_no_room_for_both(house: House) -> None:
    """The old one ends what it has begun, those who come meanwhile wait, and all are answered."""
    house.write("b")
    house.plan_bytes = 1 << 60
    gate = house.gates["b.gguf"] = threading.Event()
    old = house.engines["a.gguf"]
    said: queue.Queue[Progress] = queue.Queue()
    with house.client() as client:
        long = client.ask("x", max_tokens=3)
        old.allow.release(1)
        assert next(long) == "x"
        reload = Asked(house)
        assert "finished first" in reload.said.get(timeout=WAIT_S).message
        waits = client.ask("y", max_tokens=1, on_progress=said.put)
        while client.status().queue.waiting < 1:
            pass
        old.allow.release(2)
        assert long.wait().text == "xxx"
        assert house.loading.get(timeout=WAIT_S) == "b.gguf"
        assert old.closed
        gate.set()
        assert isinstance(reload.end(), Done)
        house.engines["b.gguf"].allow.release(1)
        assert waits.wait().text == "y"  # without anything else that wakes the thread
    assert said.get_nowait().stage in ("queued", "load")
    assert house.loads[1:] == [("b.gguf", "none", False)]


def test_who_needs_too_long_ends_with_what_he_has(house: House) -> None:
    house.write("b", "[limits]\nreload_grace_s = 0", budget="150")
    old = house.engines["a.gguf"]
    with house.client() as client:
        long = client.ask("x", max_tokens=50)
        old.allow.release(1)
        assert next(long) == "x"
        reload = Asked(house)
        long.wait()
        assert (long.text, long.finish_reason) == ("x", "cancelled")
        assert isinstance(reload.end(), Done)


@pytest.mark.parametrize("budget", ["none", "150"])
def test_a_model_that_cannot_be_loaded(house: House, budget: str) -> None:
    """Beside the old one, which goes on, or after it, which is loaded again."""
    house.broken.add("b.gguf")
    house.write("b", "[limits]\nmax_queue = 5", budget=budget)
    with pytest.raises(ModelFailed, match=r"it is broken.*nothing was changed"):
        ask(house)
    house.engines["a.gguf"].free_running = True
    with house.client() as client:
        answer = client.ask("x", max_tokens=1).wait()
        assert answer.text == "x"
        status = client.status()
    assert status.state == "ready" and status.queue.capacity == 32 and status.budget is None
    assert status.model is not None and status.model.name.endswith("a.gguf")
    expected = [("b.gguf", "none", True)]
    if budget != "none":
        expected = [("b.gguf", "150", False), ("a.gguf", "none", False)]
    assert house.loads[1:] == expected


def test_neither_can_be_loaded(house: House) -> None:
    house.broken |= {"a.gguf", "b.gguf"}
    house.write("b", budget="150")
    with pytest.raises(ModelFailed, match=r"b\.gguf.*a.gguf"):
        ask(house)
    with house.client() as client:
        while (state := client.status().state) == "loading":
            pass
        assert state == "no_model"
    house.broken.clear()
    ask(house)  # the settings are as before, and now it works
    with house.client() as client:
        model = client.status().model
    assert model is not None and model.name.endswith("b.gguf")


def test_waiting_requests_are_read_by_the_new_model(house: House) -> None:
    """Tokens of one model mean nothing to another."""
    old = house.engines["a.gguf"]
    old.has_room = lambda n_prompt, max_tokens: not old.sequences  # type: ignore[method-assign]
    with house.client() as client:
        first, second = client.ask("x", max_tokens=2), client.ask("y", max_tokens=1)
        old.allow.release(1)
        assert next(first) == "x"
        while client.status().queue.waiting < 1:
            pass
        client.set_budget(0)  # the thread has been through the queue since
        house.vocabulary["b.gguf"] = [ord("B")]
        house.write("b")
        ask(house)
        house.engines["b.gguf"].free_running = True
        old.allow.release(5)
        assert first.wait().text == "xx"
        assert second.wait().text == "B"
        assert old.started == ["x"]


def test_reloads_during_a_reload_are_one_more(house: House) -> None:
    gate = house.gates["b.gguf"] = threading.Event()
    house.write("b")
    first = Asked(house)
    assert house.loading.get(timeout=WAIT_S) == "b.gguf"
    house.write("c")
    others = [Asked(house) for _ in range(5)]
    for other in others:
        assert other.said.get(timeout=WAIT_S).stage == "queued"
    gate.set()
    assert first.end().model.name.endswith("b.gguf")
    for other in others:
        done = other.end()
        assert isinstance(done, Done) and done.model is not None
        assert done.model.name.endswith("c.gguf")
    assert [name for name, _, _ in house.loads] == ["a.gguf", "b.gguf", "c.gguf"]


def test_a_budget_during_a_reload_waits_for_it(house: House) -> None:
    gate = house.gates["b.gguf"] = threading.Event()
    house.write("b")
    reload = Asked(house)
    assert house.loading.get(timeout=WAIT_S) == "b.gguf"
    plans: queue.Queue[PlanInfo | None] = queue.Queue()

    def set_budget() -> None:
        with house.client() as client:
            plans.put(client.set_budget(77))

    thread = threading.Thread(target=set_budget)
    thread.start()
    gate.set()
    assert isinstance(reload.end(), Done)
    thread.join(WAIT_S)
    assert house.engines["b.gguf"].memory_calls == [77] or house.engines["a.gguf"].memory_calls == [
        77
    ]
    # a budget set by hand holds on, unless the settings have another one now
    house.write("b", "idle_unload_s = 9")
    ask(house)
    with house.client() as client:
        assert client.status().budget == 77
    house.write("b", budget="88")
    done = ask(house)
    assert [change.key for change in done.settings or []] == ["memory_budget", "idle_unload_s"]
    with house.client() as client:
        assert client.status().budget == 88
    assert house.engines["b.gguf"].memory_calls[-1] == 88
    assert len(house.loads) == 2


def test_a_budget_that_is_too_small_for_what_runs_loads_it_anew(house: House) -> None:
    house.write("a", budget="5")  # the stand-in refuses less than 10 while it runs
    ask(house)
    assert house.loads[1:] == [("a.gguf", "5", False)]
    with house.client() as client:
        assert client.status().budget == 5


def test_engine_settings_load_the_model_anew(house: House) -> None:
    first = house.engines["a.gguf"]
    house.write(more="[engine]\nthreads = 2")
    assert ask(house).model is not None
    assert house.loads[1:] == [("a.gguf", "none", True)]
    with house.client() as client:
        client.set_budget(0)
    assert first.closed and first.forgotten == 0  # it is the same model: conversations are saved
    with house.client() as client:  # another one, by hand: it stays the one that answers
        client.load(f"{house.folder}/c.gguf")
    house.write(more="[engine]\nthreads = 3")
    done = ask(house)
    assert done.model is not None and done.model.name.endswith("c.gguf")
    (house.folder / "c.gguf").write_bytes(b"another file at the same path")
    done = ask(house)
    assert done.settings == [] and done.model is not None


def test_a_reload_while_the_first_model_is_loaded() -> None:
    """It waits for that, and the model is not loaded twice."""
    house = House(Path(tempfile.mkdtemp(prefix="ar-")))
    gate = house.gates["a.gguf"] = threading.Event()
    with house:
        house.write(more="[limits]\nmax_queue = 3")
        reload = Asked(house)
        gate.set()
        done = reload.end()
        assert isinstance(done, Done) and done.model is None
        with house.client() as client:
            assert client.status().queue.capacity == 3
    assert len(house.loads) == 1


def test_an_engine_thread_that_dies_in_a_reload(house: House) -> None:
    """Whoever asked is told, and the daemon ends."""
    gate = house.gates["b.gguf"] = threading.Event()
    house.write("b")
    house.plan_bytes = 1 << 60
    reload = Asked(house)
    assert house.loading.get(timeout=WAIT_S) == "b.gguf"

    def die(config: Config) -> None:
        raise ZeroDivisionError("a bug")

    house.daemon._scheduler.adopt = die  # type: ignore[method-assign]
    errors: list[threading.ExceptHookArgs] = []
    before, threading.excepthook = threading.excepthook, errors.append
    try:
        gate.set()
        assert isinstance(reload.end(), AssistantError)
        house.thread.join(WAIT_S)
    finally:
        threading.excepthook = before
    assert not house.thread.is_alive()
    kinds = {each.exc_type.__name__ for each in errors}
    assert kinds == {"ZeroDivisionError", "CrashedError"}


def test_stopping_during_a_reload(house: House) -> None:
    gate = house.gates["b.gguf"] = threading.Event()
    house.write("b")
    reload = Asked(house)
    assert house.loading.get(timeout=WAIT_S) == "b.gguf"
    later = Asked(house)
    assert later.said.get(timeout=WAIT_S).stage == "queued"
    house.stop()
    gate.set()
    assert isinstance(reload.end(), ShuttingDown)
    assert isinstance(later.end(), ShuttingDown)
    house.thread.join(WAIT_S)
    assert not house.thread.is_alive()


def test_stopping_while_the_only_model_is_being_loaded(house: House) -> None:
    gate = house.gates["b.gguf"] = threading.Event()
    house.write("b", budget="150")
    reload = Asked(house)
    assert house.loading.get(timeout=WAIT_S) == "b.gguf"
    with house.client() as client:
        waits = client.ask("x", max_tokens=1)
        while client.status().state != "loading":
            pass
        house.stop()
        gate.set()
        with pytest.raises(ShuttingDown):
            waits.wait()
    assert isinstance(reload.end(), ShuttingDown)


def test_the_service_manager_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        path = f"{house.folder}/notify"
        channel.bind(path)
        channel.settimeout(WAIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        house.broken.add("c.gguf")
        for model, ok in (("b", True), ("c", False)):
            house.write(model)
            with house.client() as client:
                try:
                    client.request(Reload())
                    assert ok
                except ModelFailed:
                    assert not ok
            first = channel.recv(4096).decode().split("\n")
            assert first[0] == "RELOADING=1" and first[1].startswith("MONOTONIC_USEC=")
            assert first[1].removeprefix("MONOTONIC_USEC=").isdecimal()
            heard = [channel.recv(4096).decode()]
            while not heard[-1].startswith("READY=1"):
                heard.append(channel.recv(4096).decode())
            assert all(text.startswith("STATUS=") for text in heard[:-1]), heard
            # or systemd gives the reload up after TimeoutStartSec=
            assert any("\nEXTEND_TIMEOUT_USEC=120000000" in text for text in heard), heard
        channel.setblocking(False)
        with pytest.raises(BlockingIOError):
            channel.recv(4096)


def test_a_storm_of_signals_is_few_reloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the main thread, where signals are handled."""
    house = House(Path(tempfile.mkdtemp(prefix="ar-")))
    n_read = 0
    read = house.daemon._read

    def counted() -> configuration.LoadedConfig:
        nonlocal n_read
        n_read += 1
        return read()

    house.daemon._read = counted
    before = {number: signal.getsignal(number) for number in (1, 2, 15)}

    def storm() -> None:
        with house.client() as client:
            client.wait_ready(WAIT_S)
            house.write(more="[limits]\nmax_queue = 3")
            for _ in range(200):
                os.kill(os.getpid(), signal.SIGHUP)
            while client.status().queue.capacity != 3:
                pass
            client.shutdown()

    thread = threading.Thread(target=storm)
    try:
        thread.start()
        house.daemon.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert 1 <= n_read <= 200


def test_every_setting_is_applied_or_known_to_need_a_restart() -> None:
    left = {
        key
        for key in configuration.keys()  # noqa: SIM118
        if not is_applied(key)
    }
    assert left == {"endpoint", "data_dir"}
    other = Config(limits=LimitsConfig(max_active=2), endpoint="ipc:///x")
    assert [(c.key, c.needs_restart) for c in changes(Config(), other)] == [
        ("endpoint", True),
        ("limits.max_active", False),
    ]


@pytest.mark.parametrize("beside", [True, False])
def test_a_model_that_is_removed_while_it_is_loaded(house: House, beside: bool) -> None:
    """It is mapped, and answers all the same."""
    house.gates["b.gguf"] = threading.Event()
    if not beside:
        with house.client() as client:
            client.request(Models(op="unload"))
    house.write("b")
    asked = Asked(house)
    assert house.loading.get(timeout=WAIT_S) == "b.gguf"
    (house.folder / "b.gguf").unlink()
    house.gates["b.gguf"].set()
    assert isinstance(asked.end(), Done)
    house.engines["b.gguf"].free_running = True
    with house.client() as client:
        assert client.ask("hello", max_tokens=1).wait().text == "h"


def test_a_model_that_is_removed_while_the_one_before_is_closed(house: House) -> None:
    """Closing saves conversations, which takes seconds."""
    before = house.engines["a.gguf"]
    close = before.close
    before.close = lambda: ((house.folder / "b.gguf").unlink(), close())  # type: ignore[method-assign,func-returns-value,assignment]
    load = house.load

    def look(path: Path, *args: Any, **more: Any) -> Any:
        if not path.exists():
            raise EngineError("it is not there")
        return load(path, *args, **more)

    house.daemon._scheduler._changes._load = look
    with house.client() as client:
        with pytest.raises(ModelFailed, match="not there"):
            client.request(Models(op="load", name=f"{house.folder}/b.gguf"))
        while (state := client.status().state) == "loading":
            pass
        assert state == "no_model"


def test_another_model_is_asked_for_while_one_is_loaded_beside(house: House) -> None:
    """The one before is closed first: both would have the same folder, and memory for three."""
    house.gates["b.gguf"] = threading.Event()
    before = house.engines["a.gguf"]
    open_then: list[bool] = []
    load = house.load
    house.write("b")
    asked = Asked(house)
    assert house.loading.get(timeout=WAIT_S) == "b.gguf"

    def look(path: Path, *args: Any, **more: Any) -> Any:
        open_then.append(before.closed)
        return load(path, *args, **more)

    house.daemon._scheduler._changes._load = look
    said: queue.Queue[Any] = queue.Queue()
    house.daemon._scheduler.load(LoadRequest(f"{house.folder}/c.gguf", said.put))
    house.gates["b.gguf"].set()
    assert isinstance(asked.end(), Done)
    last = said.get(timeout=WAIT_S)
    while isinstance(last, Progress):
        last = said.get(timeout=WAIT_S)
    assert isinstance(last, Done)
    assert open_then == [True]
    assert house.attached == ["b.gguf"]


def test_who_asks_while_the_last_model_is_closed_is_told_that_it_stops(house: House) -> None:
    """That takes seconds, as conversations are saved; clients come meanwhile."""
    engine = house.engines["a.gguf"]
    closing, gate = threading.Event(), threading.Event()
    close = engine.close

    def wait() -> None:
        closing.set()
        assert gate.wait(WAIT_S)
        close()

    engine.close = wait  # type: ignore[method-assign]
    with house.client() as client:
        engine.free_running = True
        client.ask("SECRET", session="s", max_tokens=1).wait()
        house.daemon.stop()
        assert closing.wait(WAIT_S)
        said: queue.Queue[Any] = queue.Queue()
        scheduler = house.daemon._scheduler
        scheduler.load(LoadRequest(None, said.put))
        scheduler.set_budget(None, said.put)
        scheduler.cancel(b"", b"", said.put)
        answer = client.ask("hello")
        house.daemon._forgetter.forget(Choice(session="s"), said.put)
        house.daemon._storage.call(lambda store: None).result()
        client.status()  # the others have arrived
        gate.set()
        told = [said.get(timeout=WAIT_S) for _ in range(4)]
        kinds = sorted(type(each).__name__ for each in told)
        assert kinds == ["Done", "Done", "Error", "Error"], told
        with pytest.raises(ShuttingDown):
            answer.wait()
    house.thread.join(WAIT_S)
    assert not (house.folder / "d" / NOTE_NAME).exists()
    late: queue.Queue[Any] = queue.Queue()
    scheduler.cancel(b"", b"", late.put)
    scheduler.load(LoadRequest(None, late.put))
    assert isinstance(late.get(timeout=WAIT_S), Done)
    assert isinstance(late.get(timeout=WAIT_S), Error)


def test_a_reload_during_the_start_does_not_say_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the model's answer that says so; whether the settings were sound or not."""
    house = House(Path(tempfile.mkdtemp(prefix="ar-")))
    house.gates["a.gguf"] = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"{house.folder}/notify")
        monkeypatch.setenv("NOTIFY_SOCKET", f"{house.folder}/notify")
        house.thread.start()
        try:
            assert house.loading.get(timeout=WAIT_S) == "a.gguf"
            house.write(more="[limits]\nmax_active = 99")
            assert isinstance(Asked(house).end(), BadRequest)
            heard = said_until_now(channel)
            assert any(text.startswith("RELOADING=1") for text in heard)
            assert not any(text.startswith("READY=1") for text in heard), heard
            house.write(more="[limits]\nmax_queue = 3")
            reload = Asked(house)
            house.gates["a.gguf"].set()
            assert isinstance(reload.end(), Done)
            assert any(text.startswith("READY=1") for text in said_until_now(channel))
        finally:
            house.__exit__()


def said_until_now(channel: socket.socket) -> list[str]:
    """To the service manager."""
    channel.setblocking(False)
    heard = []
    while True:
        try:
            heard.append(channel.recv(4096).decode())
        except BlockingIOError:
            return heard


def test_a_disk_that_refuses_the_folder_of_the_model_before(house: House) -> None:
    """The new model answers, without it."""
    attached = threading.Event()

    def refuse(engine: SteppedEngine, config: Config) -> None:
        attached.set()
        raise OSError(5, "Input/output error")

    house.daemon._scheduler._changes._attach = refuse  # type: ignore[assignment]
    house.write("b")
    ask(house)
    assert attached.wait(WAIT_S)
    house.engines["b.gguf"].free_running = True
    with house.client() as client:
        assert client.ask("hello", max_tokens=1).wait().text == "h"
