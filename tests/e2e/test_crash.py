"""kill -9 in the middle of answers: what a client saw finished is in its session afterwards."""

import os
import queue
import random
import sqlite3
import threading
from pathlib import Path

import pytest

from clients import Client
from clients.errors import AssistantError
from tests.running import RunningDaemon


class Talker(threading.Thread):
    """A client that asks and asks, and notes every answer that it saw finished."""

    def __init__(self, endpoint: str, session: str) -> None:
        super().__init__(name=session)
        self.session = session
        self.finished: list[tuple[str, str]] = []
        self.pieces: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._client = Client(endpoint, timeout=30)

    def run(self) -> None:
        number = 0
        try:
            with self._client as client:
                while True:
                    question = f"{self.session}-{number}: count to twenty."
                    number += 1
                    answer = client.ask(question, session=self.session, max_tokens=12)
                    for _ in answer:
                        self.pieces.put(None)
                    self.finished.append((question, answer.text))
        except AssistantError:
            return  # the daemon was killed, as planned


def check_database(path: Path) -> None:
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def crash_and_check(daemon: RunningDaemon, rounds: int) -> int:
    """Returns how many finished answers were checked."""
    rng = random.Random(0)
    seen: dict[str, list[tuple[str, str]]] = {}
    for number in range(rounds):
        daemon.start()
        talkers = [Talker(daemon.endpoint, f"r{number}-{i}") for i in range(2)]
        for talker in talkers:
            talker.start()
        for _ in range(rng.randint(1, 25)):  # pieces, not seconds: as far on a slow machine
            for talker in talkers:
                talker.pieces.get(timeout=60)
        daemon.kill()
        for talker in talkers:
            talker.join(60)
            assert not talker.is_alive()
            seen[talker.session] = talker.finished
    check_database(daemon.folder / "data" / "sessions.db")
    daemon.start()
    with daemon.client() as client:
        for session, finished in seen.items():
            messages = client.session(session).messages
            assert messages is not None
            stored = [(m.role, m.content) for m in messages]
            for question, text in finished:
                at = stored.index(("user", question))
                assert messages[at].answered
                assert stored[at + 1] == ("assistant", text)
    assert daemon.stop() == 0
    return sum(len(finished) for finished in seen.values())


def test_five_kills(own_daemon: RunningDaemon) -> None:
    assert crash_and_check(own_daemon, 5) > 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_kills(own_daemon: RunningDaemon) -> None:
    n_answers = crash_and_check(own_daemon, 50)
    print(f"50 kills, {n_answers} finished answers, all in their sessions")
    assert n_answers > 50


def test_a_damaged_database_is_set_aside(own_daemon: RunningDaemon) -> None:
    database = own_daemon.folder / "data" / "sessions.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    own_daemon.start()
    with own_daemon.client() as client:
        assert "damaged" in client.status().message
        assert client.ask("Hi", session="s", max_tokens=2).wait().text
    assert len(list(database.parent.glob("sessions.db.damaged-*"))) >= 1
    assert own_daemon.stop() == 0


def test_stop_finishes_what_is_being_said(own_daemon: RunningDaemon) -> None:
    own_daemon.start()
    with own_daemon.client() as client:
        answer = client.ask("Count.", session="s", max_tokens=30, logit_bias={"2": -100})
        next(iter(answer))
        assert own_daemon.process is not None
        own_daemon.process.terminate()
        answer.wait()
        assert answer.finish_reason == "length"
    assert own_daemon.stop() == 0


def test_a_second_daemon_leaves_the_first_alone(own_daemon: RunningDaemon) -> None:
    own_daemon.start()
    second = RunningDaemon(own_daemon.folder, own_daemon.model)
    second.start()  # which is answered by the first
    assert second.process is not None and second.process.wait(30) == 75
    assert "runs already" in own_daemon.log.read_text()
    with own_daemon.client() as client:
        assert client.ping()
