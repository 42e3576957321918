"""Both clients and a daemon elsewhere: CURVE, and a cable that is cut, over real sockets."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assistantd.protocol import Cancel, Chat, Done, Ping, Progress, Request, Resume, Sessions
from clients import (
    AsyncClient,
    BadEndpoint,
    Client,
    ConnectionLost,
    NoAnswer,
    NotPaired,
    Unauthorized,
    link,
    servers,
)
from tests.clients.scripted_daemon import WAIT_S, ScriptedDaemon, say, say_until_cancelled
from tests.clients.scripted_network import NetworkDaemon, Teller

PIECES = ("Köln liegt ", "am Rhein, ", "서울은 ", "한강", " 🌊.")
TEXT = "".join(PIECES)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[NetworkDaemon]:
    with NetworkDaemon(tmp_path) as daemon:
        yield daemon


@pytest.fixture
def client(daemon: NetworkDaemon) -> Iterator[Client]:
    daemon.pair("home")
    with Client("home", timeout=WAIT_S) as client:
        yield client


# --- finding it ------------------------------------------------------------------------------


def test_by_name_and_by_address(daemon: NetworkDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = daemon.pair("home")
    daemon.on("chat", say("Hello"))
    for given in ("home", stored.endpoint):
        with Client(given, timeout=WAIT_S) as client:
            assert client.endpoint == stored.endpoint
            assert str(client.ask("hi").wait()) == "Hello"
    monkeypatch.setenv("ASSISTANTD_ENDPOINT", "home")
    with Client(timeout=WAIT_S) as client:
        assert client.ping().version


def test_an_address_without_keys(daemon: NetworkDaemon) -> None:
    with pytest.raises(NotPaired, match="assistant connect"):
        Client(f"tcp://127.0.0.1:{daemon.cable.port}")
    assert issubclass(NotPaired, BadEndpoint)


def test_a_name_that_is_not_stored(daemon: NetworkDaemon) -> None:
    daemon.pair("home")
    with pytest.raises(BadEndpoint, match="names that are stored: home"):
        Client("hone")


def test_damaged_keys(daemon: NetworkDaemon) -> None:
    daemon.pair("home")
    (server,) = servers.load()
    server.secret_key = "short"
    servers.save([server])
    with pytest.raises(BadEndpoint, match="damaged"):
        Client("home")


def test_the_last_keys_count(daemon: NetworkDaemon) -> None:
    daemon.refused.add(daemon.pair("home").public_key)
    daemon.pair("home")
    with Client("home", timeout=WAIT_S) as client:
        assert client.ping().version


# --- being refused ---------------------------------------------------------------------------


def test_a_revoked_key(daemon: NetworkDaemon, client: Client) -> None:
    (server,) = servers.load()
    daemon.refused.add(server.public_key)
    for _turn in range(2):  # and it stays usable: each request is refused for itself
        with pytest.raises(Unauthorized, match="revoked"):
            client.ask("hi").wait()
    with pytest.raises(Unauthorized):
        client.ping()
    daemon.refused.clear()
    assert client.ping().version
    assert [type(request) for request in daemon.requests] == [Ping]


def test_a_key_that_is_revoked_in_mid_answer(daemon: NetworkDaemon, client: Client) -> None:
    daemon.on("chat", say_until_cancelled("half"))
    answer = client.ask("hi")
    assert next(answer) == "half"
    daemon.refused.add(servers.load()[0].public_key)
    daemon.cable.cut()
    daemon.cable.mend()
    with pytest.raises(Unauthorized):
        answer.wait()
    assert answer.text == "half"


def test_a_daemon_with_another_key(daemon: NetworkDaemon) -> None:
    daemon.pair("home")
    (server,) = servers.load()
    server.server_key = server.public_key
    servers.save([server])
    with Client("home", timeout=1.0) as client, pytest.raises(NoAnswer, match="another one now"):
        client.ping()


def test_something_else_at_the_address(tmp_path: Path, daemon: NetworkDaemon) -> None:
    """A ROUTER without keys."""
    folder = tmp_path / "other"
    folder.mkdir()
    other = ScriptedDaemon(folder)
    other.endpoint = "tcp://127.0.0.1:*"
    daemon.pair("home")
    (server,) = servers.load()
    with other:
        server.endpoint = other.bound
        servers.save([server])
        with Client("home", timeout=WAIT_S) as client, pytest.raises(Unauthorized, match="not the"):
            client.ping()
        assert other.requests == []


def test_asyncio_is_refused_as_well(daemon: NetworkDaemon) -> None:
    daemon.refused.add(daemon.pair("home").public_key)

    async def ask() -> None:
        async with AsyncClient("home", timeout=WAIT_S) as client:
            with pytest.raises(Unauthorized):
                await client.ask("hi").wait()
            daemon.refused.clear()
            assert (await client.ping()).version

    asyncio.run(ask())


# --- a cable that is cut ---------------------------------------------------------------------


def cut_and_mend(daemon: NetworkDaemon, teller: Teller) -> threading.Thread:
    """In the middle of an answer; what is said meanwhile is lost."""

    def act() -> None:
        assert teller.paused.wait(WAIT_S)
        daemon.cable.cut()
        teller.go_on.set()
        daemon.cable.mend()

    thread = threading.Thread(target=act)
    thread.start()
    return thread


@pytest.mark.parametrize("pause_after", range(len(PIECES)))
def test_an_answer_goes_on(daemon: NetworkDaemon, client: Client, pause_after: int) -> None:
    teller = Teller(*PIECES, pause_after=pause_after).install(daemon)
    thread = cut_and_mend(daemon, teller)
    seen: list[Progress] = []
    answer = client.ask("hi", on_progress=seen.append)
    assert "".join(answer) == answer.text == TEXT
    assert answer.finish_reason == "stop"
    thread.join()
    assert [progress.stage for progress in seen] == ["connection"]
    assert len(teller.asked) == 1
    assert len(daemon.wait_for(Chat)) == 1 and len(daemon.wait_for(Resume)) == 1


def test_an_answer_goes_on_in_asyncio(daemon: NetworkDaemon) -> None:
    daemon.pair("home")
    teller = Teller(*PIECES, pause_after=2).install(daemon)
    thread = cut_and_mend(daemon, teller)

    async def ask() -> tuple[str, str, list[Progress]]:
        seen: list[Progress] = []
        async with AsyncClient("home", timeout=WAIT_S) as client:
            one, other = client.ask("one", on_progress=seen.append), client.complete("other")
            return "".join([piece async for piece in one]), (await other.wait()).text, seen

    one, other, seen = asyncio.run(ask())
    thread.join()
    assert one == other == TEXT
    assert len(seen) == 1
    assert len(teller.asked) == 2


def test_a_daemon_that_restarted_is_asked_again(daemon: NetworkDaemon, client: Client) -> None:
    teller = Teller(*PIECES, pause_after=2).install(daemon)
    answer = client.ask("hi")
    first = next(answer)
    assert teller.paused.wait(WAIT_S)
    daemon.stop()
    teller.forget()
    teller.go_on.set()
    daemon.restart()
    assert first + "".join(answer) == TEXT
    assert len(teller.asked) == 2 and len(set(teller.asked)) == 1
    first_question, second_question = daemon.wait_for(Chat, 2)
    assert first_question == second_question


def test_it_is_cut_again_and_again(daemon: NetworkDaemon, client: Client) -> None:
    teller = Teller(*PIECES, pause_after=1).install(daemon)
    answer = client.ask("hi")
    assert next(answer) == PIECES[0]
    for turn in range(1, 4):

        def act(turn: int = turn) -> None:
            daemon.cable.cut()
            daemon.cable.mend()
            daemon.wait_for(Resume, turn)

        thread = threading.Thread(target=act)
        thread.start()
        while thread.is_alive():
            client.ping()
    teller.go_on.set()
    assert PIECES[0] + "".join(answer) == TEXT
    assert len(teller.asked) == 1


def test_a_question_asked_while_the_cable_is_cut(daemon: NetworkDaemon, client: Client) -> None:
    Teller(*PIECES).install(daemon)
    client.ping()
    daemon.cable.cut()
    answer = client.ask("hi")
    daemon.cable.mend()
    assert str(answer.wait()) == TEXT
    assert len(daemon.wait_for(Chat)) == 1


def test_everything_else_fails_as_ever(daemon: NetworkDaemon, client: Client) -> None:
    caught: list[Exception] = []

    def cut() -> None:
        daemon.wait_for(Sessions)
        daemon.cable.cut()

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        client.delete_session("trip")
    except ConnectionLost as error:
        caught.append(error)
    thread.join()
    assert "ask again" in str(caught[0])


def test_cancelling_while_it_is_cut(daemon: NetworkDaemon, client: Client) -> None:
    def resume(request: Request, send: Callable[[object], None]) -> None:
        daemon.wait_for(Cancel)
        send(Done(text="half", finish_reason="cancelled"))

    daemon.on("chat", say_until_cancelled("half"))
    daemon.on("resume", resume)
    answer = client.ask("hi")
    assert next(answer) == "half"
    daemon.cable.cut()
    answer.cancel()
    daemon.cable.mend()
    assert list(answer) == []
    assert answer.finish_reason == "cancelled"
    under_way = [send for send in list(daemon._under_way.values())]
    for send in under_way:
        send.cancelled.set()


# --- giving up -------------------------------------------------------------------------------


def test_the_callers_timeout_counts(daemon: NetworkDaemon, client: Client) -> None:
    Teller(*PIECES, pause_after=1).install(daemon)
    answer = client.ask("hi")
    assert next(answer) == PIECES[0]
    daemon.cable.cut()
    client.timeout = 0.05
    with pytest.raises(NoAnswer, match="network status"):
        answer.wait()
    assert answer.text == PIECES[0]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_patience_ends(daemon: NetworkDaemon, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(link, "PATIENCE_S", 0.05)
    daemon.pair("home")
    daemon.cable.cut()

    async def ask() -> None:
        async with AsyncClient("home") as client:
            with pytest.raises(ConnectionLost, match="no connection"):
                await client.ask("hi").wait()

    if kind == "async":
        asyncio.run(ask())
    else:
        with Client("home") as client, pytest.raises(ConnectionLost, match="no connection"):
            client.ask("hi").wait()
