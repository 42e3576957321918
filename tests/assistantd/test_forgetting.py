"""What goes when something is forgotten, and that nothing of it is left in the file."""

import random
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assistantd.database import ScrubError, set_aside
from assistantd.forgetting import Choice, Found
from assistantd.sessions import SessionStore

NOON = 1_795_000_000.0
DAY = 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    store = SessionStore(tmp_path / "sessions.db")
    yield store
    store.close()


def say(
    store: SessionStore,
    session: str,
    question: str,
    answer: str | None,
    at: float,
    answered_at: float | None = None,
) -> None:
    """A turn at a time of one's choice."""
    turn = store.begin_turn(session, question, None)
    if answer is not None:
        store.finish_turn(turn, answer, "stop")
    db = store._db
    db.execute("UPDATE messages SET created_at = ? WHERE id >= ?", (at, turn.user_message))
    if answered_at is not None:
        db.execute(
            "UPDATE messages SET created_at = ? WHERE id > ?", (answered_at, turn.user_message)
        )
    db.execute(
        "UPDATE sessions SET updated_at = ?, created_at = min(created_at, ?) WHERE id = ?",
        (answered_at or at, at, session),
    )


def left(store: SessionStore, session: str) -> list[str]:
    shown = store.show(session)
    return [] if shown is None else [message.content for message in shown.messages or ()]


def parts(found: Found) -> list[tuple[str, int, bool]]:
    return [(part.session, len(part.messages), part.whole) for part in found.parts]


def test_a_day(store: SessionStore) -> None:
    say(store, "a", "Monday?", "yes", NOON - DAY)
    say(store, "a", "Tuesday?", "yes, too", NOON)
    say(store, "a", "Wednesday?", None, NOON + DAY)
    say(store, "b", "only Tuesday", "gone", NOON)
    say(store, "c", "late on Tuesday", "answered on Wednesday", NOON + DAY / 2 - 1, NOON + DAY / 2)
    tuesday = Choice(since=NOON - DAY / 2, before=NOON + DAY / 2)
    wanted = [("c", 2, True), ("b", 2, True), ("a", 2, False)]
    assert sorted(parts(store.find(tuesday))) == sorted(wanted)
    found = store.forget(tuesday)
    assert sorted(parts(found)) == sorted(wanted)
    assert (found.sessions, found.messages) == (2, 6)
    assert [session.id for session in store.list()] == ["a"]
    assert left(store, "a") == ["Monday?", "yes", "Wednesday?"]
    turn = store.begin_turn("a", "next", None)
    assert [message["content"] for message in turn.history] == ["Monday?", "yes"]
    assert store.forget(tuesday).parts == ()


def test_what_was_made_of_words_that_go(store: SessionStore) -> None:
    for session in ("a", "b", "c"):
        say(store, session, "secret   words", "x", NOON)
        say(store, session, "plain", "y", NOON + DAY)
    store.rename("b", "by hand")
    say(store, "c", "", None, NOON - DAY)
    store.forget(Choice(before=NOON + 1))
    titles = {session.id: session.title for session in store.list()}
    assert titles == {"a": "plain", "b": "by hand", "c": "plain"}
    shown = store.show("a")
    assert shown is not None
    assert shown.created_at == shown.updated_at == NOON + DAY  # nor that there was such a day


def test_by_session_and_owner(store: SessionStore) -> None:
    for session in ("abcdefg2.a", "abcdefg2.b", "abcdefg2", "abcdefg27.x", "mine"):
        say(store, session, "q", "a", NOON)
    own = Choice(owner="abcdefg2")
    assert sorted(parts(store.find(own))) == [("abcdefg2.a", 2, True), ("abcdefg2.b", 2, True)]
    assert store.find(Choice("mine", owner="abcdefg2")).parts == ()
    assert parts(store.forget(Choice("abcdefg2.a", owner="abcdefg2"))) == [("abcdefg2.a", 2, True)]
    assert store.forget(own).sessions == 1
    assert store.forget(Choice()).sessions == 3 and store.list() == []


def test_a_message_number_is_never_given_again(store: SessionStore) -> None:
    say(store, "a", "q", "a", NOON)
    last = store.forget(Choice()).last_message
    store.scrub()
    assert last == 2 and store.begin_turn("a", "q", None).user_message == 3


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 9)), max_size=25),
    st.integers(0, 9),
    st.integers(0, 10),
)
def test_what_stays_is_sound(
    tmp_path_factory: pytest.TempPathFactory,
    turns: list[tuple[str, bool, int]],
    since: int,
    before: int,
) -> None:
    """Whatever the clock did: what stays is as if the rest had never been said."""
    folder = tmp_path_factory.mktemp("sound")
    forgotten, never = (SessionStore(folder / name) for name in ("a.db", "b.db"))
    for store in (forgotten, never):
        store._db.execute("PRAGMA synchronous = OFF")
    for number, (session, answered, at) in enumerate(turns):
        answer = f"a{number}" if answered else None
        say(forgotten, session, f"q{number}", answer, at)
        if not since <= at < before:
            say(never, session, f"q{number}", answer, at)
    forgotten.forget(Choice(since=float(since), before=float(before)))
    assert {s.id: s.title for s in forgotten.list()} == {s.id: s.title for s in never.list()}
    for session in "abc":
        assert left(forgotten, session) == left(never, session)
    forgotten.close()
    never.close()


# --- the file --------------------------------------------------------------------------------


def occurrences(folder: Path, word: str) -> dict[str, int]:
    """Files that have a word in their bytes, and how often."""
    found = {file.name: file.read_bytes().count(word.encode()) for file in folder.iterdir()}
    return {name: n for name, n in found.items() if n}


def fill(store: SessionStore) -> None:
    """Sessions of all sizes in turns, so that pages are split and shared."""
    store._db.execute("PRAGMA synchronous = OFF")
    draw = random.Random(7)
    for number in range(400):
        for word in ("SECRETWORD", "ordinary"):
            text = f"{word} " * draw.choice((1, 3, 30, 400))
            say(store, f"{word}-{number % 7}", f"{text}{number}", text, NOON)


def test_nothing_is_left_in_the_file(tmp_path: Path) -> None:
    store = SessionStore(tmp_path / "sessions.db")
    fill(store)
    assert occurrences(tmp_path, "SECRETWORD")
    for number in range(7):
        store.forget(Choice(f"SECRETWORD-{number}"))
    # the reason for all the trouble
    assert occurrences(tmp_path, "SECRETWORD")
    store.scrub()
    assert occurrences(tmp_path, "SECRETWORD") == {}
    assert len(left(store, "ordinary-0")) > 100
    store.close()
    assert occurrences(tmp_path, "SECRETWORD") == {}
    db = sqlite3.connect(tmp_path / "sessions.db")
    assert db.execute("PRAGMA freelist_count").fetchone() == (0,)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_what_an_older_version_left_there_goes_too(tmp_path: Path) -> None:
    store = SessionStore(tmp_path / "sessions.db")
    store._db.execute("PRAGMA secure_delete = OFF")
    fill(store)
    store.forget(Choice())
    store.close()
    assert occurrences(tmp_path, "SECRETWORD")
    store = SessionStore(tmp_path / "sessions.db")
    store.forget(Choice())
    store.scrub()
    assert occurrences(tmp_path, "SECRETWORD") == {} == occurrences(tmp_path, "ordinary")
    store.close()


def test_temporary_files_are_made_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "one's own"
    folder.mkdir()
    store = SessionStore(folder / "sessions.db")
    store.scrub()
    (used,) = store._db.execute("PRAGMA temp_store_directory").fetchone()
    assert used == str(folder)
    store.close()


def test_another_program_that_reads_it(tmp_path: Path) -> None:
    store = SessionStore(tmp_path / "sessions.db")
    fill(store)
    store._db.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM messages").fetchone()
    store.forget(Choice())
    with pytest.raises(ScrubError, match="another program"):
        store.scrub()
    other.close()
    store.scrub()
    assert occurrences(tmp_path, "SECRETWORD") == {}
    store.close()


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    store = SessionStore(tmp_path / "sessions.db")
    fill(store)
    store.forget(Choice("ordinary-0"))
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, most[1]))
    try:
        with pytest.raises(ScrubError, match="make room"):
            store.scrub()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert len(left(store, "ordinary-1")) > 100
    store.scrub()
    store.close()


def test_copies_that_were_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    path.write_bytes(b"SQLite format 3\0" + b"SECRETWORD" * 500)
    store = SessionStore(path)
    assert [store.set_aside] == set_aside(path)
    assert set_aside(tmp_path / "other.db") == []
    store.close()
