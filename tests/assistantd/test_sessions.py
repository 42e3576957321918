"""The session database."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from assistantd.database import NewerSchemaError
from assistantd.forgetting import Choice
from assistantd.sessions import MIGRATIONS, SessionStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


def test_turns(path: Path) -> None:
    store = SessionStore(path)
    first = store.begin_turn("s", "  Hello\nthere ", "be kind")
    assert (first.history, first.system) == ([], "be kind")
    info = store.finish_turn(first, "Hi", "stop")
    assert info is not None and (info.title, info.n_messages) == ("Hello there", 2)
    second = store.begin_turn("s", "Again", None)
    assert second.system == "be kind"
    assert second.history == [
        {"role": "user", "content": "  Hello\nthere "},
        {"role": "assistant", "content": "Hi"},
    ]
    # the second was never answered: it is shown as such, and the model does not see it
    third = store.begin_turn("s", "Third", None)
    assert len(third.history) == 2
    shown = store.show("s")
    assert shown is not None and shown.messages is not None
    assert [m.answered for m in shown.messages] == [True, True, False, False]
    store.close()


def test_listing_renaming_deleting(path: Path) -> None:
    store = SessionStore(path)
    for name in ("a", "b"):
        turn = store.begin_turn(name, "x", None)
        store.finish_turn(turn, "y", "stop")
    assert [s.id for s in store.list()] == ["b", "a"]
    renamed = store.rename("a", "New")
    assert renamed is not None and renamed.title == "New"
    assert store.forget(Choice("a")).messages == 2 and not store.forget(Choice("a")).parts
    assert store.show("a") is None and store.rename("a", "x") is None
    pending = store.begin_turn("b", "z", None)
    store.forget(Choice("b"))
    assert store.finish_turn(pending, "late", "stop") is None
    store.close()


def test_the_file_is_private(path: Path) -> None:
    SessionStore(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_damaged_file_is_set_aside(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + os.urandom(4000))
    store = SessionStore(path)
    assert store.set_aside is not None and store.set_aside.exists()
    assert store.list() == []
    store.close()


def test_a_newer_schema_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(NewerSchemaError, match="newer"):
        SessionStore(path)
    assert path.read_bytes() == before


WRITER = """
import sys
from pathlib import Path
from assistantd.forgetting import Choice
from assistantd.sessions import SessionStore
store = SessionStore(Path(sys.argv[1]))
n = 0
while True:
    turn = store.begin_turn("s", f"q{n}", None)
    store.finish_turn(turn, f"a{n}", "stop")
    print(n, flush=True)
    n += 1
"""


def test_kill_loses_nothing_that_was_acknowledged(path: Path) -> None:
    for round_ in range(1, 4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        acknowledged = -1
        while acknowledged < 20 * round_:
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        acknowledged = max(acknowledged, *(int(line) for line in process.stdout), 0)
        process.stdout.close()
        process.wait()
        store = SessionStore(path)
        assert store.set_aside is None
        shown = store.show("s")
        assert shown is not None and shown.messages is not None
        answers = [m.content for m in shown.messages if m.role == "assistant"]
        assert f"a{acknowledged}" in answers[-2:]
        store.forget(Choice("s"))
        store.close()
