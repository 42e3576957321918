"""Forgetting as the daemon does it, with an engine that the test steps."""

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from assistantd.config import LimitsConfig
from assistantd.database import ScrubError
from assistantd.forgetting import Choice
from assistantd.privacy import NOTE_NAME
from assistantd.protocol import Chat, Devices, Forget, Resume, Sessions
from assistantd.sessions import SessionStore
from clients import AssistantError, BadRequest, Client, NotFound
from tests.assistantd.stepped import Running
from tests.assistantd.test_server import _until


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ad-") as name:
        yield Path(name)


@pytest.fixture
def running(folder: Path) -> Iterator[Running]:
    with Running(folder, LimitsConfig(max_active=1)) as running:
        yield running


def say(client: Client, session: str, text: str = "SECRETWORD") -> None:
    client.ask(text, session=session, max_tokens=1).wait()


def add_device(client: Client) -> str:
    device = client.request(Devices(op="add", name="phone")).device
    assert device is not None
    return device.id


def test_all(running: Running, folder: Path) -> None:
    running.engine.free_running = True
    data = folder / "d"
    damaged = data / "sessions.db.damaged-20260101-000000"
    damaged.write_bytes(b"SECRETWORD")
    with running.client() as client:
        for session in ("a", "b"):
            say(client, session)
        assert occurrences_in(data)
        told = client.forget(session="a", preview=True)
        assert told.conversations is not None
        assert [(c.id, c.title, c.n_messages) for c in told.conversations] == [
            ("a", "SECRETWORD", 2)
        ]
        assert len(client.sessions()) == 2  # it was only asked about
        told = client.forget(session="a")
        assert (told.sessions, told.messages, told.conversations) == (1, 2, None)
        assert told.copies == [str(damaged)] and damaged.exists()
        with pytest.raises(NotFound):
            client.forget(session="a")
        assert client.forget(since=1.0, before=2.0).messages == 0
        told = client.forget(all=True)
        assert (told.sessions, told.messages, told.copies) == (1, 2, [])
        assert client.sessions() == [] and running.engine.forgotten == 2
        assert occurrences_in(data) == {}
        assert not (data / NOTE_NAME).exists()
        for request in (Forget(), Forget(all=True, session="a"), Forget(owner="abcdefg2")):
            with pytest.raises(BadRequest):
                client.request(request)


def occurrences_in(data: Path) -> dict[str, int]:
    found = [path for path in data.rglob("*") if path.is_file()]
    assert data / "sessions.db" in found
    return {str(p): 1 for p in found if b"SECRETWORD" in p.read_bytes()}


def test_an_answer_under_way_ends_and_leaves_nothing(running: Running) -> None:
    with running.client() as client, running.client() as other:
        running.engine.allow.release(2)
        answer = client.ask("a", session="s", max_tokens=100)
        assert next(answer) == "a"
        waiting = client.ask("also", session="t", max_tokens=100)
        _until(client, active=1, waiting=1)
        assert other.forget(session="s").messages == 1
        assert answer.wait().finish_reason == "cancelled"
        running.engine.free_running = True
        assert waiting.wait().finish_reason == "length"  # of another session, so it went on
        assert [session.id for session in other.sessions()] == ["t"]


def test_a_question_that_comes_afterwards_is_kept(running: Running) -> None:
    with running.client() as client:
        running.engine.allow.release(1)
        answer = client.ask("a", session="s", max_tokens=100)
        assert next(answer) == "a"
        later = client.ask("b", session="s", max_tokens=1)
        _until(client, active=1, waiting=1)
        client.forget(all=True)
        assert answer.wait().finish_reason == "cancelled"
        running.engine.free_running = True
        assert later.wait().text == "b"
        shown = client.session("s")
        assert shown.title == "b" and shown.messages is not None
        assert [message.content for message in shown.messages] == ["b", "b"]


def test_a_device_forgets_its_own_only(running: Running) -> None:
    running.engine.free_running = True
    with running.client() as client:
        phone, other = add_device(client), add_device(client)
        say(client, "mine")
        for device in (phone, other):
            client.request(Chat(text="x", session="s", max_tokens=1, device=device))
            client.request(Chat(text="x", session="t", max_tokens=1, device=device))
        told = client.request(Forget(all=True, preview=True, device=phone)).forgotten
        assert told is not None and told.conversations is not None
        assert sorted(c.id for c in told.conversations) == ["s", "t"]
        # whatever it says
        request = Forget(session="s", owner=other, device=phone)
        assert client.request(request).forgotten.sessions == 1  # type: ignore[union-attr]
        with pytest.raises(NotFound):
            client.request(Forget(session="mine", device=phone))
        client.request(Sessions(op="delete", session="t", device=phone))
        told = client.request(Forget(all=True, device=phone)).forgotten
        assert told is not None and told.messages == 0
        left = {session.id for session in client.sessions()}
        assert left == {f"{other}.s", f"{other}.t", "mine"}
        # the local user may forget what a device said, also when it was revoked
        client.request(Devices(op="revoke", id=other))
        assert client.forget(owner=other, all=True).sessions == 2


def test_no_answer_can_be_resumed(running: Running) -> None:
    with running.client() as client:
        running.engine.free_running = True
        phone = add_device(client)

        def asked(request: Chat) -> str:
            exchange = client._begin(request)
            while not exchange.ended:
                client._pump(None)
            return exchange.request_id.decode()

        kept = asked(Chat(text="x", session="s", max_tokens=1, device=phone))
        alone = asked(Chat(text="y", max_tokens=1, device=phone))
        assert client.request(Resume(target=kept, device=phone)).text == "x"
        client.forget(session=f"{phone}.s")
        with pytest.raises(NotFound):
            client.request(Resume(target=kept, device=phone))
        assert client.request(Resume(target=alone, device=phone)).text == "y"
        client.forget(before=1.0)  # long before it
        assert client.request(Resume(target=alone, device=phone)).text == "y"
        client.forget(since=1.0)
        with pytest.raises(NotFound):
            client.request(Resume(target=alone, device=phone))


def test_what_a_killed_daemon_had_begun_is_finished(folder: Path) -> None:
    data = folder / "d"
    store = SessionStore(data / "sessions.db")
    store._db.execute("PRAGMA secure_delete = OFF")
    turn = store.begin_turn("a", "SECRETWORD " * 1000, None)
    store.finish_turn(turn, "SECRETWORD", "stop")
    store.forget(Choice())
    store.close()
    (data / NOTE_NAME).touch()
    assert occurrences_in(data)
    with Running(folder, LimitsConfig()) as running, running.client() as client:
        running.engine.free_running = True
        with pytest.raises(NotFound):
            client.forget(session="none")  # is told after it, and does nothing itself
        assert occurrences_in(data) == {}
        client.complete("a", max_tokens=1).wait()
        assert running.engine.forgotten == 1
    assert not (data / NOTE_NAME).exists()


def test_what_the_disk_refused_is_owed_until_it_is_done(
    running: Running, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another forgetting that finds nothing has not done it."""
    running.engine.free_running = True
    note = folder / "d" / NOTE_NAME

    def refuse(store: SessionStore) -> None:
        raise ScrubError("the disk is full")

    with running.client() as client:
        say(client, "a")
        with monkeypatch.context() as full:
            full.setattr(SessionStore, "scrub", refuse)
            for choice in ({"session": "a"}, {"since": 1.0, "before": 2.0}):
                with pytest.raises(AssistantError, match="full"):
                    client.forget(**choice)  # type: ignore[arg-type]
                assert note.exists()
        assert client.forget(since=1.0, before=2.0).messages == 0
        running.daemon._storage.call(lambda store: None).result()
        assert not note.exists() and occurrences_in(folder / "d") == {}


def test_what_the_engine_could_not_delete_is_owed_too(running: Running, folder: Path) -> None:
    running.engine.free_running = True
    running.engine.disk_refuses = OSError(errno.EIO, os.strerror(errno.EIO))
    with running.client() as client:
        say(client, "a")
        with pytest.raises(AssistantError, match="Input/output error"):
            client.forget(session="a")
        assert (folder / "d" / NOTE_NAME).exists()
        running.engine.disk_refuses = None
        assert client.forget(since=1.0, before=2.0).messages == 0
        running.daemon._storage.call(lambda store: None).result()
        assert not (folder / "d" / NOTE_NAME).exists()
