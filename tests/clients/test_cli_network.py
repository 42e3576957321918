"""`assistant network`, `assistant devices`, and every command with a daemon elsewhere."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from assistantd.protocol import (
    Chat,
    DeviceInfo,
    Devices,
    Done,
    Limits,
    Network,
    NetworkInfo,
    Request,
    Resume,
)
from clients import servers
from tests.clients.scripted_daemon import WAIT_S, ScriptedDaemon, Send, fail
from tests.clients.scripted_network import NetworkDaemon, Teller
from tests.clients.terminal import Terminal
from tests.clients.test_cli import COMMAND, REPOSITORY, assistant, start

LIMITS = Limits(requests_per_minute=30, max_tokens=500, concurrent=2)
PHONE = DeviceInfo(
    id="abcdefgh",
    name="phone",
    kind="web",
    rights="chat",
    limits=LIMITS,
    created_at=1.0,
    words="one two three four",
)
WATCH = DeviceInfo(
    id="abzzzzzz",
    name="watch",
    kind="curve",
    rights="admin",
    limits=Limits(),
    created_at=1.0,
    last_seen_at=2.0,
    public_key="k" * 40,
)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
    def devices(request: Request, send: Send) -> None:
        assert isinstance(request, Devices)
        if request.op == "list":
            send(Done(devices=[PHONE, WATCH]))
        elif request.op == "add":
            send(Done(device=PHONE, token="secret-key"))
        else:
            send(Done(device=PHONE, message="done"))

    with ScriptedDaemon(tmp_path) as daemon:
        monkeypatch.setenv("ASSISTANTD_ENDPOINT", daemon.endpoint)
        monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
        daemon.on("devices", devices)
        yield daemon


def last(daemon: ScriptedDaemon) -> Request:
    return daemon.requests[-1]


# --- assistant devices -----------------------------------------------------------------------


def test_list(daemon: ScriptedDaemon) -> None:
    rows = [line.split("\t") for line in assistant("devices", "list").stdout.splitlines()]
    assert rows[0] == ["abcdefgh", "phone", "browser", "chat", "never"]
    assert rows[1][:4] == ["abzzzzzz", "watch", "computer or watch", "admin"]
    listed = json.loads(assistant("devices", "list", "--json").stdout)
    assert [device["id"] for device in listed] == ["abcdefgh", "abzzzzzz"]


def test_list_on_a_terminal(daemon: ScriptedDaemon) -> None:
    with Terminal([*COMMAND, "devices", "list"], dict(os.environ)) as terminal:
        assert terminal.wait() == 0
        assert "last seen" in terminal.seen and "phone" in terminal.seen


@pytest.mark.parametrize("written", ["phone", "abcdefgh", "abc"])
def test_show(daemon: ScriptedDaemon, written: str) -> None:
    text = assistant("devices", "show", written).stdout
    assert "one two three four" in text and "500" in text
    shown = json.loads(assistant("devices", "show", written, "--json").stdout)
    assert shown["name"] == "phone"


@pytest.mark.parametrize(
    ("written", "told"), [("ab", "abcdefgh (phone), abzzzzzz (watch)"), ("fridge", "fridge")]
)
def test_who_is_meant_must_be_clear(daemon: ScriptedDaemon, written: str, told: str) -> None:
    done = assistant("devices", "revoke", "phone", written)
    assert done.returncode == 1 and told in done.stderr
    assert [request.op for request in daemon.requests if isinstance(request, Devices)] == [
        "list",
        "list",
    ]


def test_revoke(daemon: ScriptedDaemon) -> None:
    assert assistant("devices", "revoke", "phone").stdout == "phone is shut out\n"
    assert last(daemon) == Devices(op="revoke", id="abcdefgh")
    assert json.loads(assistant("devices", "revoke", "phone", "--json").stdout)["done"]


def test_revoke_asks_first(daemon: ScriptedDaemon) -> None:
    with Terminal([*COMMAND, "devices", "revoke", "phone"], dict(os.environ)) as terminal:
        terminal.read_until("phone (abcdefgh)")
        terminal.press("n\r")
        assert terminal.wait() == 130
    assert last(daemon) == Devices(op="list")


def test_rename(daemon: ScriptedDaemon) -> None:
    text = assistant("devices", "rename", "abc", "my phone").stdout
    assert text == "abcdefgh is now called 'my phone'\n"
    assert last(daemon) == Devices(op="rename", id="abcdefgh", name="my phone")
    assert assistant("devices", "rename", "abc", "").returncode == 2


def test_limit_keeps_what_is_not_given(daemon: ScriptedDaemon) -> None:
    assert assistant("devices", "limit", "phone", "--max-tokens", "200").returncode == 0
    changed = Limits(requests_per_minute=30, max_tokens=200, concurrent=2)
    assert last(daemon) == Devices(op="limit", id="abcdefgh", limits=changed)
    assistant("devices", "limit", "phone", "--rights", "admin", "--concurrent", "8", "--json")
    changed = Limits(requests_per_minute=30, max_tokens=500, concurrent=8)
    assert last(daemon) == Devices(op="limit", id="abcdefgh", rights="admin", limits=changed)
    assert assistant("devices", "limit", "phone").returncode == 2


def test_add_key_prints_the_key_and_nothing_else(daemon: ScriptedDaemon) -> None:
    done = assistant("devices", "add-key", "editor", "--per-minute", "5")
    assert (done.returncode, done.stdout) == (0, "secret-key\n")
    assert "not shown again" in done.stderr
    limits = Limits(requests_per_minute=5)
    assert last(daemon) == Devices(op="add", name="editor", rights="chat", limits=limits)
    assert json.loads(assistant("devices", "add-key", "x", "--json").stdout)["token"] == (
        "secret-key"
    )


# --- assistant network -----------------------------------------------------------------------


def test_network(daemon: ScriptedDaemon) -> None:
    info = NetworkInfo(
        on=True,
        endpoint="tcp://192.0.2.7:5771",
        public_key="k" * 40,
        fingerprint="five six seven eight",
        hosts=["box.local", "192.0.2.7"],
    )
    daemon.on("network", lambda request, send: send(Done(network=info)))
    done = assistant("network", "on", "--address", "192.0.2.7", "--port", "5771")
    assert last(daemon) == Network(op="on", address="192.0.2.7", port=5771)
    assert "tcp://192.0.2.7:5771" in done.stdout and "five six seven eight" in done.stdout
    assert "assistant pair" in done.stderr
    assert json.loads(assistant("network", "status", "--json").stdout)["hosts"][0] == "box.local"
    assert last(daemon) == Network(op="status")


def test_network_off(daemon: ScriptedDaemon) -> None:
    daemon.on("network", lambda request, send: send(Done(network=NetworkInfo(on=False))))
    assert assistant("network", "off").stdout == "network  off\n"
    assert last(daemon) == Network(op="off")


def test_network_that_cannot_be_turned_on(daemon: ScriptedDaemon) -> None:
    daemon.on("network", fail("bad_request", "another program listens there"))
    done = assistant("network", "on")
    assert (done.returncode, done.stderr) == (1, "assistant: another program listens there\n")


# --- a daemon elsewhere ----------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NetworkDaemon]:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    with NetworkDaemon(tmp_path) as daemon:
        daemon.pair("home")
        yield daemon


def test_by_name(elsewhere: NetworkDaemon) -> None:
    Teller("Hello", " there").install(elsewhere)
    assert assistant("--endpoint", "home", "hi").stdout == "Hello there\n"
    endpoint = servers.load()[0].endpoint
    assert endpoint in assistant("status", "--endpoint", "home").stdout


def test_the_connection_is_lost_and_comes_back(elsewhere: NetworkDaemon) -> None:
    teller = Teller("The capital of France ", "is Paris.", pause_after=1).install(elsewhere)
    process = start("--endpoint", "home", "Capital of France?")
    assert teller.paused.wait(WAIT_S)
    elsewhere.cable.cut()
    teller.go_on.set()
    elsewhere.cable.mend()
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out) == (0, "The capital of France is Paris.\n")
    assert err.startswith("assistant: the connection to tcp://127.0.0.1:")
    assert err.endswith("is lost; trying again\n") and err.count("\n") == 1
    assert len(elsewhere.wait_for(Chat)) == len(elsewhere.wait_for(Resume)) == 1


def test_on_a_terminal_the_text_stays(elsewhere: NetworkDaemon) -> None:
    teller = Teller("The capital of France ", "is Paris.", pause_after=1).install(elsewhere)
    command = [*COMMAND, "--endpoint", "home", "Capital of France?"]
    with Terminal(command, dict(os.environ), columns=200) as terminal:
        terminal.read_until("The capital of France ")

        def cut() -> None:
            assert teller.paused.wait(WAIT_S)
            elsewhere.cable.cut()
            elsewhere.wait_for(Chat)
            teller.go_on.set()
            elsewhere.cable.mend()

        thread = threading.Thread(target=cut)
        thread.start()
        terminal.read_until("trying again")
        thread.join()
        terminal.read_until("is Paris.")
        assert terminal.wait() == 0
    lines = terminal.raw.replace("\r", "").split("\n")
    assert "The capital of France " in lines  # nothing was written over it
    assert "is Paris." in lines


@pytest.mark.parametrize("command", [("hi",), ("status",), ("ping",)])
def test_a_revoked_key(elsewhere: NetworkDaemon, command: tuple[str, ...]) -> None:
    elsewhere.refused.add(servers.load()[0].public_key)
    done = assistant("--endpoint", "home", *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert "revoked" in done.stderr and "assistant connect" in done.stderr


def test_nobody_answers(elsewhere: NetworkDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere.cable.cut()
    script = (
        "import sys; from clients.cli import app, connection; "
        "connection._NETWORK_TIMEOUT_S, connection._SILENT_S = 0.5, 0.0; "
        "sys.exit(app.run(sys.argv[1:]))"
    )
    done = subprocess.run(
        [COMMAND[0], "-c", script, "--endpoint", "home", "ping", "--json"],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 3
    waiting, problem = done.stderr.splitlines()
    assert "waiting for the daemon at tcp://" in waiting
    assert "no word from the daemon at tcp://" in problem
    assert json.loads(done.stdout)["error"]["code"] == "no_answer"


@pytest.mark.parametrize("group", ["network", "devices", "models", "sessions"])
def test_a_group_alone_shows_its_help(group: str) -> None:
    done = assistant(group)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Usage: assistant {group} ")


def test_not_paired(elsewhere: NetworkDaemon) -> None:
    done = assistant("--endpoint", "tcp://127.0.0.1:5771", "hi", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "not_paired"
    assert "assistant connect" in done.stderr


def test_no_model_over_there(elsewhere: NetworkDaemon) -> None:
    elsewhere.on("chat", fail("not_found", "no model is loaded"))
    done = assistant("--endpoint", "home", "-y", "hi")
    assert (done.returncode, done.stderr) == (1, "assistant: no model is loaded\n")
