"""What the command line says of memory: budget, plans, the bar, and `assistant top`."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistantd.protocol import (
    Budget,
    Done,
    ModelInfo,
    Models,
    PlanInfo,
    Status,
    StatusInfo,
)
from clients.cli.ledger import bar, cells, shares
from tests.clients.scripted_daemon import (
    WAIT_S,
    ScriptedDaemon,
    fail,
    plan_info,
    status_info,
)
from tests.clients.terminal import CTRL_C, Terminal
from tests.clients.test_cli import COMMAND, REPOSITORY, assistant, start

MIB = 1 << 20
LABELS = ("libraries", "weights", "stream buffers", "conversation", "activations", "margin")
COLOUR = "\x1b[3"
BLOCK = "\u2588"


def busy_status(**changes: object) -> StatusInfo:
    values: dict[str, object] = {
        "model": ModelInfo(name="smollm2", size_bytes=98_000_000, loaded=True),
        "budget": 300 * MIB,
        "plan": plan_info(),
        "memory": {"rss": 192 * MIB, "peak_rss": 210 * MIB, "kv_used": 10 * MIB},
    }
    return status_info(**{**values, **changes})


def set_status(daemon: ScriptedDaemon, info: StatusInfo) -> None:
    daemon.on("status", lambda request, send: send(Done(status=info)))


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
    with ScriptedDaemon(tmp_path) as daemon:
        monkeypatch.setenv("ASSISTANTD_ENDPOINT", daemon.endpoint)
        monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.delenv("COLUMNS", raising=False)
        set_status(daemon, busy_status())
        yield daemon


def terminal(*args: str, columns: int = 80, term: str = "xterm", **env: str) -> Terminal:
    return Terminal([*COMMAND, *args], {**os.environ, **env}, columns=columns, term=term)


# --- the bar ---------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=12), st.integers(1, 300))
def test_cells_fill_the_width(sizes: list[int], width: int) -> None:
    found = cells(sizes, width)
    assert sum(found) == (width if sum(sizes) else 0)
    assert all(n >= 0 for n in found)
    assert all(n == 0 for n, size in zip(found, sizes, strict=True) if not size)
    owners = sum(1 for size in sizes if size)
    if owners <= width:
        assert all(n for n, size in zip(found, sizes, strict=True) if size)


def test_cells_are_in_proportion() -> None:
    assert cells([30, 50, 20], 10) == [3, 5, 2]
    assert cells([1, 10_000], 10) == [1, 9]


@pytest.mark.parametrize("width", [1, 10, 27, 80, 200])
def test_a_bar_keeps_to_its_width(width: int) -> None:
    first, *legend = bar(plan_info(), {"kv_used": 10 * MIB}, width, blocks=False)
    assert sum(len(text) for text, _ in first) == width
    assert all(sum(len(text) for text, _ in line) <= max(2, width) for line in legend)


def test_the_bar_is_against_the_budget_and_without_one_against_the_plan() -> None:
    plan = plan_info(budget=600 * MIB)
    assert "".join(text for text, _ in bar(plan, {}, 60, blocks=False)[0]) == (
        "LLLLLLWWWWWWWWWWWSSCCCCAA" + "M" * 5 + "." * 30
    )
    plan = plan_info(budget=None)
    line = "".join(text for text, _ in bar(plan, {"kv_used": 10 * MIB}, 60, blocks=False)[0])
    assert line == "L" * 12 + "W" * 22 + "SSSS" + "CC" + "cccccc" + "AAA" + "M" * 11


def test_an_owner_that_is_not_known_yet() -> None:
    plan = plan_info(owners={"new_thing": MIB}, budget=None)
    assert bar(plan, {}, 20, blocks=True) == [
        [(BLOCK * 20, "white")],
        [(BLOCK, "white"), (" new thing 1.0M", "")],
    ]


def test_owners_can_be_told_apart() -> None:
    names = ("libraries", "sessions", "weights", "stream", "kv_cache", "activations", "margin")
    parts = shares(plan_info(owners={name: MIB for name in names}, budget=8 * MIB), {})
    assert len({part.letter for part in parts}) == len({part.text for part in parts}) == 8
    assert len({(part.block, part.style) for part in parts}) == 8


# --- status ----------------------------------------------------------------------------------


def test_status_in_a_pipe_is_plain(daemon: ScriptedDaemon) -> None:
    text = assistant("status").stdout
    assert "budget        300M\n" in text
    assert (
        "memory        192M in use now of the budget of 300M (64 %), peak 210M\n"
        "planned       300M: libraries 60M, weights 110M, stream buffers 20M, "
        "conversation 10M of 40M, activations 15M, margin 55M\n"
        "stays         100M of 150M of weights stay in memory\n"
        "streamed      50M of weights are read from the disk for every token\n"
        "conversation  2,048 tokens fit in memory, kept with 8 bits\n"
        "expected      about 12.5 tokens/s\n"
    ) in text
    assert text.isascii()


def test_status_over_the_budget_and_in_a_cgroup(daemon: ScriptedDaemon) -> None:
    memory = {"rss": 330 * MIB, "cgroup_usage": 250 * MIB, "cgroup_limit": 512 * MIB}
    set_status(daemon, busy_status(memory=memory))
    assert (
        "330M in use now of the budget of 300M (110 %, 30M too much), cgroup 250M of 512M\n"
    ) in assistant("status").stdout


@pytest.mark.parametrize("columns", [30, 80])
def test_status_on_a_terminal(daemon: ScriptedDaemon, columns: int) -> None:
    with terminal("status", columns=columns) as screen:
        assert screen.wait() == 0
        lines = screen.seen.splitlines()
        assert any(line.startswith(BLOCK * 2) and len(line) == columns for line in lines)
        for label in LABELS:
            assert f"{BLOCK} {label} " in screen.seen
        assert "conversation 10M of 40M" in screen.seen
        assert COLOUR in screen.raw
        # the words of long values go below each other
        endpoint = [line for line in lines if daemon.endpoint in line]
        assert all(len(line) <= columns for line in lines if line not in endpoint)


@pytest.mark.parametrize(("no_color", "term"), [("1", "xterm"), ("", "dumb")])
@pytest.mark.parametrize("command", [("status",), ("top", "--count", "1")])
def test_without_colour(
    daemon: ScriptedDaemon, command: tuple[str, ...], no_color: str, term: str
) -> None:
    with terminal(*command, columns=60, term=term, NO_COLOR=no_color) as screen:
        assert screen.wait() == 0
        assert "LLLLLLLLLLLLWWWWWWWWWWWWWWWWWWWWWWSSSSCCccccccAAAMMMMMMMMMMM" in screen.seen
        assert "W weights 110M" in screen.seen
        assert BLOCK not in screen.seen
        assert COLOUR not in screen.raw
        if term == "dumb":
            assert "\x1b" not in screen.raw


def test_status_without_a_model_has_no_bar(daemon: ScriptedDaemon) -> None:
    set_status(daemon, busy_status(model=None, plan=None, budget=None, state="no_model"))
    with terminal("status") as screen:
        assert screen.wait() == 0
        assert "none: as much as it takes" in screen.seen
        assert BLOCK not in screen.seen
        assert "planned" not in screen.seen


# --- budget ----------------------------------------------------------------------------------


def test_budget_is_shown(daemon: ScriptedDaemon) -> None:
    text = assistant("budget").stdout
    assert text.startswith("budget        300M\nplanned       300M: libraries 60M, ")
    shown = json.loads(assistant("budget", "--json").stdout)
    assert (shown["budget"], shown["plan"]["kv_tokens"]) == (300 * MIB, 2048)
    assert not [request for request in daemon.requests if isinstance(request, Budget)]


def test_budget_is_changed(daemon: ScriptedDaemon) -> None:
    daemon.on("budget", lambda request, send: send(Done(plan=plan_info())))
    done = assistant("budget", "300M")
    assert done.returncode == 0
    assert done.stdout.startswith("the budget is 300M, until the daemon restarts\nplanned ")
    assert "expected      about 12.5 tokens/s\n" in done.stdout
    shown = json.loads(assistant("budget", "1.5G", "--json").stdout)
    assert (shown["budget"], shown["plan"]["resident_bytes"]) == (1536 * MIB, 100 * MIB)
    with terminal("budget", "300M") as screen:
        assert screen.wait() == 0
        assert f"{BLOCK} weights 110M" in screen.seen
    assert daemon.wait_for(Budget, 3) == [
        Budget(bytes=300 * MIB),
        Budget(bytes=1536 * MIB),
        Budget(bytes=300 * MIB),
    ]


def test_budget_is_lifted_and_there_is_no_model(daemon: ScriptedDaemon) -> None:
    daemon.on("budget", lambda request, send: send(Done(message="done")))
    assert assistant("budget", "none").stdout == (
        "the budget is lifted, until the daemon restarts\n"
        "model  none in memory; the next one will keep to the budget\n"
    )
    assert json.loads(assistant("budget", "none", "--json").stdout) == {
        "budget": None,
        "plan": None,
    }
    assert daemon.wait_for(Budget, 2) == [Budget(bytes=0), Budget(bytes=0)]


def test_a_budget_that_is_too_small(daemon: ScriptedDaemon) -> None:
    daemon.on("budget", fail("over_budget", "the running model cannot shrink so far"))
    done = assistant("budget", "10M")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "assistant: the running model cannot shrink so far\n"
    done = assistant("budget", "10M", "--json")
    assert json.loads(done.stdout)["error"]["code"] == "over_budget"


@pytest.mark.parametrize("command", [("budget",), ("models", "show", "x", "--budget")])
def test_a_budget_that_is_no_size(daemon: ScriptedDaemon, command: tuple[str, ...]) -> None:
    done = assistant(*command, "3 apples")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'3 apples' is not a size; write for example 400M, 1.5G or none" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert daemon.requests == []


# --- models show -----------------------------------------------------------------------------


def show(daemon: ScriptedDaemon, plan: PlanInfo) -> None:
    model = ModelInfo(name="smollm2", size_bytes=98_000_000, plan=plan)
    daemon.on("models", lambda request, send: send(Done(model=model)))


def test_a_plan_is_shown(daemon: ScriptedDaemon) -> None:
    show(daemon, plan_info())
    done = assistant("models", "show", "smollm2", "--budget", "300M")
    assert done.returncode == 0
    assert "stays         100M of 150M of weights stay in memory\n" in done.stdout
    assert "streamed      50M of weights are read from the disk for every token\n" in done.stdout
    assert "conversation  2,048 tokens fit in memory, kept with 8 bits\n" in done.stdout
    assert "expected      about 12.5 tokens/s\n" in done.stdout
    whole = plan_info(
        budget=None, streamed_bytes=0, resident_bytes=150 * MIB, tokens_per_second=None
    )
    show(daemon, whole)
    done = assistant("models", "show", "smollm2", "--budget", "none")
    assert "budget        none: as much as it takes\n" in done.stdout
    assert "stays         all weights stay in memory, 150M\n" in done.stdout
    assert "expected" not in done.stdout
    assert assistant("models", "show", "smollm2").returncode == 0
    assert daemon.wait_for(Models, 3) == [
        Models(op="show", name="smollm2", budget=300 * MIB),
        Models(op="show", name="smollm2", budget=0),
        Models(op="show", name="smollm2"),
    ]


def test_a_model_that_does_not_fit(daemon: ScriptedDaemon) -> None:
    show(daemon, PlanInfo(20 * MIB, {}, 0, 0, 0, "f16", smallest=100 * MIB + 1))
    done = assistant("models", "show", "smollm2", "--budget", "20M")
    assert done.returncode == 1
    assert done.stdout.endswith(
        "budget        20M\nfits          no; 101M is the smallest budget that would do\n"
    )
    done = assistant("models", "show", "smollm2", "--budget", "20M", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["plan"]["smallest"] == 100 * MIB + 1
    # nothing was asked of the budget here, so the question is answered
    assert assistant("models", "show", "smollm2").returncode == 0
    with terminal("models", "show", "smollm2", "--budget", "20M") as screen:
        assert screen.wait() == 1
        assert BLOCK not in screen.seen


# --- top -------------------------------------------------------------------------------------


def test_top_in_a_pipe_is_one_status(daemon: ScriptedDaemon) -> None:
    done = assistant("top")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == assistant("status").stdout
    assert done.stdout.isascii()


def test_top_counts(daemon: ScriptedDaemon) -> None:
    done = assistant("top", "--count", "2", "--interval", "0.1")
    assert done.stdout.count("state         ready\n") == 2
    assert "speed now     nothing is written\n" in done.stdout
    lines = assistant("top", "--count", "3", "--interval", "0.1", "--json").stdout.splitlines()
    assert [json.loads(line)["budget"] for line in lines] == [300 * MIB] * 3
    assert len(daemon.wait_for(Status, 5)) == 5


def next_state(process: "subprocess.Popen[str]", wanted: bool) -> dict[str, object]:
    """The next line that tells of a daemon that is there, or is not."""
    assert process.stdout is not None
    while True:
        line = json.loads(process.stdout.readline())
        assert isinstance(line, dict)
        if ("state" in line) == wanted:
            return line


def test_top_as_json_outlives_the_daemon_and_leaves_with_its_reader(
    daemon: ScriptedDaemon,
) -> None:
    with start("top", "--json", "--interval", "0.1") as process:
        next_state(process, True)
        daemon.stop()
        error = next_state(process, False)["error"]
        assert isinstance(error, dict) and error["code"] == "away"
        daemon.restart()
        next_state(process, True)
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(WAIT_S) == 141
        assert process.stderr.read() == ""


def test_top_on_a_terminal(daemon: ScriptedDaemon) -> None:
    with terminal("top", "--interval", "0.1", columns=60) as screen:
        screen.read_until(f"{BLOCK} conversation 10M of 40M")
        screen.read_until("q leaves")
        set_status(daemon, busy_status(state="loading", message="reading big.gguf"))
        screen.read_until("loading its model: reading big.gguf")
        assert daemon.requests
        screen.press("x")
        daemon.stop()
        screen.read_until("away: ")
        screen.read_until("waiting for it to come back")
        set_status(daemon, busy_status(budget=None))
        daemon.restart()
        screen.read_until("as much as it takes")
        screen.press("q")
        assert screen.wait() == 0
        assert screen.raw.count("\x1b[?1049h") == screen.raw.count("\x1b[?1049l") == 1


def test_top_writes_the_speed_between_two_looks(daemon: ScriptedDaemon) -> None:
    n_tokens = iter(range(0, 1_000_000, 1000))
    daemon.on(
        "status",
        lambda request, send: send(Done(status=busy_status(tokens_generated=next(n_tokens)))),
    )
    with terminal("top", "--interval", "0.1", "--count", "2") as screen:
        assert screen.wait() == 0
        _, _, after = screen.seen.partition("speed now")
        assert float(after.split()[0]) > 100


def test_ctrl_c_leaves_top(daemon: ScriptedDaemon) -> None:
    with terminal("top", NO_COLOR="1", columns=60) as screen:
        screen.read_until("LLLLLLLLLLLLWWWW")
        screen.read_until("q leaves")
        screen.press(CTRL_C)
        assert screen.wait() == 0
        assert "Traceback" not in screen.seen
        assert BLOCK not in screen.seen


@pytest.mark.parametrize("args", [("--interval", "0"), ("--count", "0")])
def test_top_wrong_usage(daemon: ScriptedDaemon, args: tuple[str, ...]) -> None:
    assert assistant("top", *args).returncode == 2


@pytest.mark.parametrize("command", ["status", "budget"])
def test_no_rich_in_a_pipe(daemon: ScriptedDaemon, command: str) -> None:
    script = (
        f"import sys; from clients.cli.app import run; run([{command!r}]); "
        "print('rich' in sys.modules)"
    )
    done = subprocess.run(
        [COMMAND[0], "-c", script], capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.stdout.endswith("\nFalse\n")
