"""node/ask.mjs against a scripted daemon: its errors, which the real daemon does not show."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from assistantd.protocol import Chat, Delta, Done, Progress, Request
from tests.clients import node_client
from tests.clients.scripted_daemon import ScriptedDaemon, Send, fail, say, timings

pytestmark = pytest.mark.timeout(node_client.INSTALL_TIMEOUT_S + node_client.RUN_TIMEOUT_S)


@pytest.fixture(scope="module")
def script(pytestconfig: pytest.Config) -> Path:
    cache = pytestconfig.cache
    assert cache is not None
    return node_client.install(cache.mkdir("node-client"))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ScriptedDaemon]:
    with ScriptedDaemon(tmp_path) as daemon:
        yield daemon


def test_it_prints_the_stream(script: Path, daemon: ScriptedDaemon) -> None:
    def handler(request: Request, send: Send) -> None:
        send(Progress(stage="queued", message="1 before you"))
        say("Par", "is ", "✓")(request, send)

    daemon.on("chat", handler)
    run = node_client.ask(script, daemon.endpoint, "Où?")
    assert (run.returncode, run.stdout) == (0, "Paris ✓\n"), run.stderr
    assert run.stderr == "queued: 1 before you\nstop, 4 tokens\n"
    assert daemon.requests == [Chat(text="Où?", temperature=0.0, max_tokens=48)]


def test_it_reports_an_error(script: Path, daemon: ScriptedDaemon) -> None:
    daemon.on("chat", fail("busy", "the queue is full; try again"))
    run = node_client.ask(script, daemon.endpoint, "hi")
    assert (run.returncode, run.stderr) == (1, "busy: the queue is full; try again\n")


def test_it_notices_a_missing_piece(script: Path, daemon: ScriptedDaemon) -> None:
    def handler(request: Request, send: Send) -> None:
        send(Delta(text="half"))
        send(Done(text="half and half", finish_reason="stop", timings=timings()))

    daemon.on("chat", handler)
    run = node_client.ask(script, daemon.endpoint, "hi")
    assert run.returncode == 1
    assert "do not add up" in run.stderr
