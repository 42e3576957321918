"""Databases damaged everywhere: set aside at the start, or an error to the request that meets it."""

import random
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest

from assistantd.database import open_database, transaction
from assistantd.forgetting import Choice
from assistantd.network.devices import DeviceStore
from assistantd.protocol import Limits, SessionInfo, to_json
from assistantd.sessions import MIGRATIONS, SessionStore
from assistantd.storage import DamagedError, Storage

PAGE = 4096


def fill(store: SessionStore) -> None:
    for number in range(30):
        turn = store.begin_turn(f"s{number % 7}", f"question {number} " + "x" * 700, None)
        store.finish_turn(turn, "answer " * 120, "stop")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("db") / "sessions.db"
    store = SessionStore(path)
    fill(store)
    store.close()
    return path.read_bytes()


def damaged(sound: bytes) -> Iterator[tuple[str, bytes]]:
    """Each of them another file, by what is wrong with it."""
    rng = random.Random(1)
    n_pages = len(sound) // PAGE
    yield "empty", b""
    yield "one byte", b"S"
    yield "no database", b"SQLite format 4\0" + sound[16:]
    yield "text", b"once upon a time\n" * 999
    yield "zeros", bytes(len(sound))
    yield "twice", sound + sound
    for at in range(100):  # the header
        changed = bytearray(sound)
        changed[at] ^= 0xFF
        yield f"header byte {at}", bytes(changed)
    for page in range(n_pages):
        start = page * PAGE
        zeros, noise = bytearray(sound), bytearray(sound)
        zeros[start : start + PAGE] = bytes(PAGE)
        noise[start : start + PAGE] = rng.randbytes(PAGE)
        yield f"page {page} of zeros", bytes(zeros)
        yield f"page {page} of noise", bytes(noise)
        yield f"cut off in page {page}", sound[: start + 1000]
        yield f"cut off at page {page}", sound[:start]
        for _flip in range(4):
            flipped = bytearray(sound)
            at = start + rng.choice((rng.randrange(16), rng.randrange(PAGE)))
            flipped[at] ^= 1 << rng.randrange(8)
            yield f"byte {at} flipped", bytes(flipped)


def use(store: SessionStore) -> None:
    """All that is done with it; what is not sound is an sqlite3.Error."""
    steps = (
        lambda: to_json(store.list()),
        lambda: [to_json(store.show(f"s{n}")) for n in range(7)],
        lambda: store.finish_turn(store.begin_turn("s1", "more", None), "a", "stop"),
        lambda: store.rename("s2", "title"),
        lambda: store.forget(Choice("s3")),
    )
    for step in steps:
        try:
            step()
        except sqlite3.Error:
            assert not store._db.in_transaction


def test_sessions(tmp_path: Path, sound: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    aside, used = 0, 0
    for number, (name, raw) in enumerate(damaged(sound)):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "sessions.db"
        path.write_bytes(raw)
        try:
            store = SessionStore(path)
        except Exception as error:
            raise AssertionError(name) from error
        if store.set_aside is None:
            used += 1
        else:
            aside += 1
            assert store.set_aside.read_bytes()[200:] == raw[200:], "what was there is kept"
            assert store.list() == []
        try:
            use(store)
        except Exception as error:
            raise AssertionError(name) from error
        store.close()
    with capsys.disabled():
        print(f"\nsessions: {aside + used} damaged databases, {aside} set aside, {used} in use")
    assert aside > 100


def test_a_damaged_log(tmp_path: Path) -> None:
    """The write-ahead log that a kill leaves: what of it is sound is used, the rest is not."""
    path, rng = tmp_path / "sessions.db", random.Random(2)
    store = SessionStore(path)
    fill(store)
    base, wal = path.read_bytes(), path.with_name("sessions.db-wal").read_bytes()
    store.close()
    assert len(wal) > 10 * PAGE
    for number in range(60):
        folder = tmp_path / str(number)
        folder.mkdir()
        log = bytearray(wal)
        if number % 3 == 0:
            del log[rng.randrange(len(log)) :]
        elif number % 3 == 1:
            log[rng.randrange(len(log))] ^= 0xFF
        else:
            at = rng.randrange(len(log))
            log[at : at + 300] = rng.randbytes(300)
        (folder / "sessions.db").write_bytes(base)
        (folder / "sessions.db-wal").write_bytes(log)
        store = SessionStore(folder / "sessions.db")
        use(store)
        store.close()


def test_another_schema_of_the_same_number(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE sessions (id TEXT)")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    store = SessionStore(path)
    assert store.set_aside is not None and store.list() == []
    store.close()


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    path.mkdir()
    with pytest.raises(sqlite3.Error, match="unable to open"):
        SessionStore(path)
    assert path.is_dir()


def test_damage_that_shows_while_it_is_used(tmp_path: Path, sound: bytes) -> None:
    """The request gets an error that says what to do, and the next start mends it."""
    path = tmp_path / "sessions.db"
    path.write_bytes(sound)
    storage = Storage(path)
    storage.call(lambda store: store.list()).result()
    with path.open("r+b") as file:  # as a bad disk does it: under the daemon
        for page in range(1, len(sound) // PAGE):
            file.seek(page * PAGE)
            file.write(b"\xa5" * PAGE)

    def read() -> "Future[list[SessionInfo]]":
        def again(store: SessionStore) -> list[SessionInfo]:
            store._db.execute("PRAGMA shrink_memory")
            return [info for n in range(7) if (info := store.show(f"s{n}"))]

        return storage.call(again)

    with pytest.raises(DamagedError, match="start the daemon again"):
        read().result()
    with pytest.raises(DamagedError):
        read().result()
    assert "malformed" in storage.damage
    storage.close()
    storage = Storage(path)
    assert storage.set_aside is not None and storage.set_aside.exists()
    assert storage.call(lambda store: store.list()).result() == []
    assert not storage.damage
    storage.close()


def test_a_suspect_that_is_sound_is_kept(tmp_path: Path, sound: bytes) -> None:
    path = tmp_path / "sessions.db"
    path.write_bytes(sound)
    note = tmp_path / "sessions.db.suspect"
    note.touch()
    store = SessionStore(path)
    assert store.set_aside is None and len(store.list()) == 7 and not note.exists()
    store.close()


def test_letters_that_are_no_utf8_cost_only_themselves(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    store = SessionStore(path)
    store.finish_turn(store.begin_turn("s", "question", None), "answer", "stop")
    store._db.execute("UPDATE messages SET content = CAST(x'61ff62' AS TEXT) WHERE role = 'user'")
    shown = store.show("s")
    assert shown is not None and shown.messages is not None
    assert [m.content for m in shown.messages] == ["a\ufffdb", "answer"]
    store.close()


def test_a_commit_that_fails_leaves_no_transaction_open(tmp_path: Path) -> None:
    db = open_database(tmp_path / "x.db", ("CREATE TABLE t (a TEXT) STRICT;",)).db
    (size,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {size}")
    for _try in range(3):
        with pytest.raises(sqlite3.Error, match="full"), transaction(db):
            db.execute("INSERT INTO t VALUES (?)", ("x" * 100_000,))
    db.execute("PRAGMA max_page_count = 1000000")
    with transaction(db):
        db.execute("INSERT INTO t VALUES ('y')")
    assert db.execute("SELECT a FROM t").fetchall() == [("y",)]
    db.close()


def test_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "devices.db"
    store = DeviceStore(path)
    for number in range(40):
        store.add(
            name=f"device {number}",
            kind="api",
            rights="chat",
            limits=Limits(),
            token_sha256=bytes([number]) * 32,
        )
    store.close()
    sound, n, aside = path.read_bytes(), 0, 0
    for number, (name, raw) in enumerate(damaged(sound)):
        other = tmp_path / str(number) / "devices.db"
        other.parent.mkdir()
        other.write_bytes(raw)
        try:
            store = DeviceStore(other)
            for device in store.list():
                assert device.rights in ("chat", "admin")
                to_json(device)
            store.by_token("x")
        except Exception as error:
            raise AssertionError(name) from error
        n, aside = n + 1, aside + (store.set_aside is not None)
        store.close()
    with capsys.disabled():
        print(f"\ndevices: {n} damaged databases, {aside} set aside, {n - aside} in use")


def test_a_damaged_row_keeps_one_device_out(tmp_path: Path) -> None:
    path = tmp_path / "devices.db"
    store = DeviceStore(path)
    ids = [
        store.add(
            name=f"n{n}", kind="api", rights="chat", limits=Limits(), token_sha256=bytes([n]) * 32
        ).id
        for n in range(6)
    ]
    for device, change in zip(
        ids,
        (
            "limits = '{\"concurrent\": 0}'",
            "limits = '{'",
            "rights = 'root'",
            "kind = ''",
            "name = ''",
        ),
        strict=False,
    ):
        store._db.execute(f"UPDATE devices SET {change} WHERE id = ?", (device,))
    store.close()
    again = DeviceStore(path)
    assert [device.id for device in again.list()] == ids[4:]
    assert again._db.execute("SELECT count(*) FROM devices").fetchone() == (6,)  # nothing is lost
    again.close()
