"""`assistant pair` and `assistant connect` as processes and on terminals."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from assistantd.network.announce import Announcement, Announcer
from assistantd.protocol import (
    DeviceInfo,
    Devices,
    Done,
    Limits,
    Pair,
    PairingInfo,
    Progress,
    Request,
)
from clients import servers
from tests.assistantd.network.parts import Parts, parts
from tests.clients.scripted_daemon import WAIT_S, ScriptedDaemon, Send, fail
from tests.clients.terminal import CTRL_C, ENTER, Terminal
from tests.clients.test_servers import server

COMMAND = [sys.executable, "-m", "clients.cli"]
REPOSITORY = Path(__file__).resolve().parents[2]
SECRET = "abcdefghijklmnopqrstuvwx23"
WORDS = "one two three four"
PHONE = DeviceInfo("abcdefgh", "My phone", "web", "chat", Limits(), 1.0, words=WORDS)


@pytest.fixture(autouse=True)
def sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


def assistant(*args: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *args], input=stdin, capture_output=True, text=True, timeout=4 * WAIT_S
    )


# --- pair ------------------------------------------------------------------------------------


class Owner:
    """Answers `pair` as a daemon does."""

    def __init__(self, daemon: ScriptedDaemon, *, port: int | None = 5772) -> None:
        self.daemon, self.port = daemon, port
        self.device: DeviceInfo | None = PHONE
        daemon.on("pair", self.pair)
        daemon.on("devices", lambda request, send: send(Done(message="revoked")))

    def pair(self, request: Request, send: Send) -> None:
        assert isinstance(request, Pair)
        if request.op == "open":
            info = PairingInfo(
                code="012345",
                secret=SECRET,
                expires_at=time.time() + 300,
                hosts=["192.0.2.7", "box.local"],
                port=self.port,
                fingerprint=WORDS,
            )
            send(Done(pairing=info))
        elif request.op == "close":
            send(Done(message="void"))
        else:
            send(Progress("devices", "a wrong code was tried", 4, 5))
            if self.device is None:
                assert send.cancelled.wait(WAIT_S)
                send(Done(message="cancelled"))
            else:
                send(Done(device=self.device))

    def ops(self) -> list[str]:
        """What was asked of it."""
        return [request.op for request in self.daemon.requests if isinstance(request, Pair)]


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
    with ScriptedDaemon(tmp_path) as daemon:
        monkeypatch.setenv("ASSISTANTD_ENDPOINT", daemon.endpoint)
        yield daemon


def test_pair_in_a_pipe(daemon: ScriptedDaemon) -> None:
    owner = Owner(daemon)
    done = assistant("pair")
    assert done.returncode == 0, done.stderr
    assert "012 345" in done.stdout
    assert "https://192.0.2.7:8443/pair " in done.stdout
    assert SECRET not in done.stdout  # it would only be in the QR code, of which there is none
    assert "assistant connect 192.0.2.7 012345" in done.stdout
    assert "My phone is paired, as device abcdefgh" in done.stdout and WORDS in done.stdout
    assert "a wrong code was tried" in done.stderr
    assert owner.ops() == ["open", "wait"]


def test_pair_for_programs(daemon: ScriptedDaemon) -> None:
    Owner(daemon)
    options = ("--admin", "--max-tokens", "9", "--requests-per-minute", "3")
    done = assistant("pair", "--json", *options, "--url", "https://box.example/pair")
    assert done.returncode == 0, done.stderr
    code, device = map(json.loads, done.stdout.splitlines())
    assert code["pairing"]["code"] == "012345"
    assert code["url"] == f"https://box.example/pair#{SECRET}"
    assert device["id"] == "abcdefgh"
    request = daemon.wait_for(Pair)[0]
    assert request == Pair(
        op="open", rights="admin", limits=Limits(max_tokens=9, requests_per_minute=3)
    )


def test_pair_while_the_network_is_off(daemon: ScriptedDaemon) -> None:
    owner = Owner(daemon, port=None)
    done = assistant("pair")
    assert done.returncode == 1 and "assistant network on" in done.stderr
    assert owner.ops() == ["open", "close"]
    # but a browser on this machine can come
    done = assistant("pair", "--url", "http://localhost:8080/pair")
    assert done.returncode == 0 and "http://localhost:8080/pair " in done.stdout
    assert "assistant connect" not in done.stdout


def test_pair_shows_a_qr_code_and_counts_down(daemon: ScriptedDaemon) -> None:
    owner = Owner(daemon)
    owner.device = None
    with Terminal([*COMMAND, "pair"], dict(os.environ)) as terminal:
        terminal.read_until("012 345")
        terminal.read_until("4:5")
        terminal.press(CTRL_C)
        terminal.read_until("the code is void")
        assert terminal.wait() == 130
    rows = [line for line in terminal.seen.splitlines() if set(line) & set("▀▄█")]
    assert len(rows) >= 16 and len({len(row) for row in rows}) == 1
    assert owner.ops() == ["open", "wait", "close"]


def test_pair_is_interrupted_in_a_pipe(daemon: ScriptedDaemon) -> None:
    owner = Owner(daemon)
    owner.device = None
    process = subprocess.Popen([*COMMAND, "pair"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    daemon.wait_for(Pair, 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert owner.ops() == ["open", "wait", "close"]


@pytest.mark.parametrize("same", [True, False])
def test_the_words_are_compared(daemon: ScriptedDaemon, same: bool) -> None:
    Owner(daemon)
    with Terminal([*COMMAND, "pair"], dict(os.environ), columns=200) as terminal:
        terminal.read_until(WORDS)
        terminal.read_until("same words? [y/n]")
        terminal.press(ENTER)  # has to be answered
        terminal.read_until("same words? [y/n]")
        terminal.press(("y" if same else "n") + ENTER)
        assert terminal.wait() == (0 if same else 1)
        assert ("sent away" in terminal.seen) == (not same)
    revoked = [request for request in daemon.requests if isinstance(request, Devices)]
    assert revoked == ([] if same else [Devices(op="revoke", id="abcdefgh")])


def test_the_code_ends_unused(daemon: ScriptedDaemon) -> None:
    owner = Owner(daemon)

    def pair(request: Request, send: Send) -> None:
        assert isinstance(request, Pair)
        if request.op == "wait":
            fail("deadline", "the code has expired")(request, send)
        else:
            owner.pair(request, send)

    daemon.on("pair", pair)
    done = assistant("pair")
    assert done.returncode == 1 and "the code has expired" in done.stderr
    assert owner.ops() == ["open", "wait"]  # nothing to make void, and perhaps another's by now


# --- connect ---------------------------------------------------------------------------------


@pytest.fixture
def box() -> Iterator[Parts]:
    with parts() as made:
        yield made


def opened(box: Parts) -> PairingInfo:
    done = box.ask(op="open")
    assert isinstance(done, Done) and done.pairing is not None
    return done.pairing


def place(box: Parts) -> str:
    return f"127.0.0.1:{box.port}"


def test_connect(box: Parts) -> None:
    info = opened(box)
    done = assistant("connect", place(box), info.code, "--device-name", "laptop")
    assert done.returncode == 0, done.stderr
    (device,) = box.store.devices
    assert device.name == "laptop" and device.words in done.stdout
    assert "assistant --endpoint box" in done.stdout
    (kept,) = servers.load()
    assert kept.name == "box" and kept.endpoint == f"tcp://{place(box)}"
    assert kept.server_key == box.public_key and kept.public_key == device.public_key
    assert (kept.device, kept.words) == (device.id, device.words)
    assert servers.path().stat().st_mode & 0o777 == 0o600
    # once more: of the same daemon the newer keys hold
    info = opened(box)
    done = assistant("connect", place(box), "--json", stdin=f"{info.code}\n")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["device"] == box.store.devices[1].id and "secret_key" not in said
    assert [known.device for known in servers.load()] == [said["device"]]
    assert socket.gethostname()[:64] == box.store.devices[1].name


def test_connect_with_what_a_qr_code_says(box: Parts) -> None:
    """Which names no port but the gateway's."""
    info = opened(box)
    scanned = f"https://127.0.0.1:8443/pair#{info.secret}"
    done = assistant("connect", scanned)
    assert done.returncode == 1 and "port 5772" in done.stderr
    done = assistant("connect", place(box), info.secret.upper())
    assert done.returncode == 0, done.stderr


def test_connect_with_a_wrong_code(box: Parts) -> None:
    info = opened(box)
    wrong = f"{(int(info.code) + 1) % 1_000_000:06}"
    done = assistant("connect", place(box), wrong)
    assert done.returncode == 1 and "tries left: 4" in done.stderr
    assert servers.load() == []
    done = assistant("connect", place(box), "12", "--json")
    assert done.returncode == 1 and "six digits" in json.loads(done.stdout)["error"]["message"]


def test_connect_to_nobody(box: Parts) -> None:
    done = assistant("connect", place(box), "123456")
    assert done.returncode == 1 and "assistant pair" in done.stderr
    assert assistant("connect", "a:b:c:", "123456").returncode == 1
    assert assistant("connect", "host:99999", "123456").returncode == 2
    assert assistant("connect", "x", "123456", "--name", "a b").returncode == 2
    assert assistant("connect", "--list", "host").returncode == 2


@pytest.mark.parametrize("same", [True, False])
def test_connect_on_a_terminal(box: Parts, same: bool) -> None:
    info = opened(box)
    with Terminal([*COMMAND, "connect", place(box)], dict(os.environ), columns=200) as terminal:
        terminal.read_until("shows over there")
        terminal.press(info.code[:3] + " " + info.code[3:] + ENTER)
        terminal.read_until("The four words:")
        terminal.read_until("[y/n]")
        terminal.press(("y" if same else "n") + ENTER)
        assert terminal.wait() == (0 if same else 1)
    (device,) = box.store.devices
    assert device.words in terminal.seen
    assert len(servers.load()) == same
    if not same:
        assert f"devices revoke {device.id}" in terminal.seen


def test_a_name_that_is_taken(box: Parts) -> None:
    servers.save([server("box")])
    info = opened(box)
    done = assistant("connect", place(box), info.code, "--name", "box")
    assert done.returncode == 1 and "--forget box" in done.stderr
    assert box.store.devices == []  # and the code is still good
    assert assistant("connect", place(box), info.code).returncode == 0
    assert [known.name for known in servers.load()] == ["box", "box-2"]


def test_known_daemons() -> None:
    assert json.loads(assistant("connect", "--list", "--json").stdout) == []
    servers.save([server("home"), server("work")])
    listed = assistant("connect", "--list")
    assert listed.stdout.splitlines()[0].split("\t") == [
        "home",
        "tcp://192.0.2.7:5771",
        "abcdefgh",
        WORDS,
    ]
    gone = assistant("connect", "--forget", "home")
    assert gone.returncode == 0 and "devices revoke abcdefgh" in gone.stdout
    assert [known.name for known in servers.load()] == ["work"]
    assert assistant("connect", "--forget", "home").returncode == 1
    everything = assistant("connect", "--list", "--json").stdout
    assert "k" * 40 not in everything + listed.stdout + gone.stdout


# --- being found -----------------------------------------------------------------------------


def test_connect_finds_it(box: Parts) -> None:
    """Real mDNS, on the interfaces that the machine has."""
    info = opened(box)
    with closing(Announcer()) as announcer:
        announcer.announce(Announcement(box.port, "a b c d", "0.1", lambda: ["127.0.0.1"]))
        done = assistant("connect", info.code, "--wait", "15")
    assert done.returncode == 0, done.stderr
    assert f"127.0.0.1:{box.port}" in done.stdout and "a b c d" in done.stdout
    assert len(box.store.devices) == 1


def test_connect_finds_nobody() -> None:
    done = assistant("connect", "123456", "--wait", "0.2")
    assert done.returncode == 1
    assert "found no daemon" in done.stderr or "cannot look around" in done.stderr
