"""The client library, the command line and the watch, with a real daemon behind a cable."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from assistantd.protocol import Devices, Progress
from clients import AsyncClient, Client, NotFound, Unauthorized, servers
from tests.cable import Cable
from tests.e2e.network.elsewhere import listen, move
from tests.running import RunningDaemon

QUESTION = "Write about the sea, the wind and the light in five sentences."
FIXED = {"temperature": 0.0, "max_tokens": 96}
TIMEOUT_S = 120


@pytest.fixture
def cable(own_daemon: RunningDaemon) -> Iterator[Cable]:
    """To a daemon that knows this user as the device of `servers.load()[0]`, called home."""
    port = listen(own_daemon)
    with Cable(port) as cable:
        move("home", cable.port)
        yield cable


@pytest.fixture
def undisturbed(own_daemon: RunningDaemon, cable: Cable) -> str:
    """The answer, asked locally."""
    with own_daemon.client() as client:
        return client.ask(QUESTION, **FIXED).wait().text


def served(daemon: RunningDaemon) -> int:
    with daemon.client() as client:
        return client.status().requests_served


def cut(cable: Cable) -> None:
    cable.cut()
    cable.mend()


# --- the library -----------------------------------------------------------------------------


def test_an_answer_whose_connection_is_cut_again_and_again(
    own_daemon: RunningDaemon, cable: Cable, undisturbed: str
) -> None:
    before = served(own_daemon)
    seen: list[Progress] = []
    with Client("home", timeout=TIMEOUT_S) as client:
        pieces = []
        for piece in client.ask(QUESTION, on_progress=seen.append, **FIXED):
            pieces.append(piece)
            if len(pieces) in (1, 5, 9):
                cut(cable)
    assert "".join(pieces) == undisturbed
    assert cable.connections > 1 and "connection" in {progress.stage for progress in seen}
    assert served(own_daemon) == before + 1


def test_asyncio_with_several_answers_at_once(
    own_daemon: RunningDaemon, cable: Cable, undisturbed: str
) -> None:
    before = served(own_daemon)

    async def read(client: AsyncClient, cut_after: int) -> str:
        text = ""
        async for piece in client.ask(QUESTION, **FIXED):
            text += piece
            cut_after -= 1
            if cut_after == 0:
                await asyncio.to_thread(cut, cable)
        return text

    async def ask() -> list[str]:
        async with AsyncClient("home", timeout=TIMEOUT_S) as client:
            return await asyncio.gather(*(read(client, after) for after in (1, 4, 8)))

    assert asyncio.run(ask()) == [undisturbed] * 3
    assert cable.connections > 1
    assert served(own_daemon) == before + 3


def test_a_daemon_that_is_killed_in_mid_answer(
    own_daemon: RunningDaemon, cable: Cable, undisturbed: str
) -> None:
    """It is asked again, and the text goes on where it stopped."""
    with Client("home", timeout=TIMEOUT_S) as client:
        answer = client.ask(QUESTION, session="sea", **FIXED)
        text = next(answer) + next(answer)
        own_daemon.kill()
        own_daemon.start()
        assert text + "".join(answer) == undisturbed
        (asked, said) = [
            message
            for message in client.session("sea").messages or []
            if message.answered or message.role == "assistant"
        ]
        assert (asked.content, said.content) == (QUESTION, undisturbed)


def test_cancelling_from_the_next_connection(own_daemon: RunningDaemon, cable: Cable) -> None:
    with Client("home", timeout=TIMEOUT_S) as client:
        answer = client.ask(QUESTION, temperature=0.0, max_tokens=2000)
        text = next(answer)
        cable.cut()
        answer.cancel()
        cable.mend()
        text += "".join(answer)
        assert answer.finish_reason == "cancelled"
        assert text == answer.text


def test_revoked_in_mid_answer(own_daemon: RunningDaemon, cable: Cable) -> None:
    device = servers.load()[0].device
    with Client("home", timeout=TIMEOUT_S) as client, own_daemon.client() as local:
        answer = client.ask(QUESTION, temperature=0.0, max_tokens=2000)
        next(answer)
        local.request(Devices(op="revoke", id=device))
        with pytest.raises(Unauthorized):
            answer.wait()
        with pytest.raises(Unauthorized):
            client.ping()
    with Client("home", timeout=TIMEOUT_S) as client, pytest.raises(Unauthorized, match="revoked"):
        client.ping()


def test_a_devices_sessions_are_its_own(own_daemon: RunningDaemon, cable: Cable) -> None:
    with Client("home", timeout=TIMEOUT_S) as client, own_daemon.client() as local:
        local.ask("Hello", session="mine", max_tokens=1).wait()
        client.ask("Hello", session="yours", max_tokens=1).wait()
        assert [session.id for session in client.sessions()] == ["yours"]
        with pytest.raises(NotFound):
            client.session("mine")
        with pytest.raises(Unauthorized):
            client.set_budget(0)


# --- the programs ----------------------------------------------------------------------------


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def test_the_command_line(own_daemon: RunningDaemon, cable: Cable) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "clients.cli", "--endpoint", "home", "ask"),
            *("--temperature", "0", "--max-tokens", "96", QUESTION),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    text = os.read(process.stdout.fileno(), 1)
    cut(cable)
    text += process.stdout.read()
    with process, own_daemon.client() as client:
        assert text.decode().rstrip() == client.ask(QUESTION, **FIXED).wait().text.rstrip()
        told = process.stderr.read().decode()
    assert process.returncode == 0
    assert "is lost; trying again" in told


def test_the_daemons_own_commands(own_daemon: RunningDaemon, cable: Cable) -> None:
    (server,) = servers.load()
    os_command = ("clients.cli", "--endpoint", own_daemon.endpoint)
    listed = json.loads(run(*os_command, "devices", "list", "--json").stdout)
    assert [device["id"] for device in listed] == [server.device]
    assert run(*os_command, "devices", "rename", server.device[:5], "laptop").returncode == 0
    assert run(*os_command, "devices", "limit", "laptop", "--max-tokens", "3").returncode == 0
    done = json.loads(run("clients.cli", "--endpoint", "home", "ask", "--json", "Hello").stdout)
    assert done["timings"]["completion_tokens"] == 3
    refused = run("clients.cli", "--endpoint", "home", "network", "off")
    assert refused.returncode == 1 and "assistant devices" in refused.stderr
    key = run(*os_command, "devices", "add-key", "editor")
    assert key.returncode == 0 and len(key.stdout.split()) == 1
    network = json.loads(run(*os_command, "network", "status", "--json").stdout)
    assert network["on"] and network["public_key"] == server.server_key
    assert run(*os_command, "devices", "revoke", "laptop").returncode == 0
    refused = run("clients.cli", "--endpoint", "home", "ask", "Hello")
    assert refused.returncode == 1 and "assistant connect" in refused.stderr
    assert run(*os_command, "network", "off").returncode == 0
    assert not json.loads(run(*os_command, "network", "status", "--json").stdout)["on"]


def test_the_watch(own_daemon: RunningDaemon, cable: Cable) -> None:
    before = served(own_daemon)
    first = run("clients.watch", "--stats", "What is the capital of France?")
    assert first.returncode == 0 and "Paris" in first.stdout, first.stderr
    assert len(first.stdout.rstrip("\n")) <= 140
    cable.cut()
    kept = run("clients.watch", "--wait", "0", "What is the capital of Italy?")
    assert (kept.returncode, kept.stdout) == (3, "")
    cable.mend()
    assert "Rome" in run("clients.watch").stdout
    assert served(own_daemon) == before + 2


def test_the_watch_is_killed_in_mid_answer(own_daemon: RunningDaemon, cable: Cable) -> None:
    before = served(own_daemon)
    process = subprocess.Popen(
        [sys.executable, "-m", "clients.watch", "--stream", "Tell me about the sea."],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    begun = os.read(process.stdout.fileno(), 1000).decode()
    process.kill()
    process.communicate()
    again = run("clients.watch", "--stream")
    assert again.stdout.startswith(begun) and len(again.stdout) > len(begun)
    assert served(own_daemon) == before + 1
