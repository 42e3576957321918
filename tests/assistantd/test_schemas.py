"""Databases as every released schema wrote them, opened by today's code.

tests/data/schemas/ has them, made by the code of the time; make.py there tells how.
"""

import json
import lzma
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from assistantd import sessions
from assistantd.database import NewerSchemaError, open_database
from assistantd.forgetting import Choice
from assistantd.network import devices
from assistantd.network.devices import DeviceStore
from assistantd.sessions import SessionStore
from tests.data.schemas import make

MIGRATIONS = {"sessions": sessions.MIGRATIONS, "devices": devices.MIGRATIONS}
RELEASED = sorted(
    (kind, int(version))
    for path in make.HERE.glob("*.db.xz")
    for kind, version in re.findall(r"^(\w+)-(\d+)\.db", path.name)
)
each = pytest.mark.parametrize(("kind", "version"), RELEASED)
STORES = {"sessions": SessionStore, "devices": DeviceStore}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "private"
    folder.mkdir(0o700)
    return folder / "old.db"


def unpack(kind: str, version: int, path: Path) -> dict[str, Any]:
    """Put the old file there; returns what the code that wrote it read in it."""
    name = f"{kind}-{version}"
    path.write_bytes(lzma.decompress((make.HERE / f"{name}.db.xz").read_bytes()))
    found = json.loads(lzma.decompress((make.HERE / f"{name}.json.xz").read_bytes()))
    assert isinstance(found, dict)
    return found


def schema(path: Path) -> dict[str, str]:
    """Every table's and index's columns, as SQLite sees them, and their definitions."""
    db = sqlite3.connect(path)
    names = [name for (name,) in db.execute("SELECT name FROM sqlite_master ORDER BY name")]
    found = {name: str(db.execute(f"PRAGMA table_xinfo('{name}')").fetchall()) for name in names}
    for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_master"):
        found[f"{kind} {name}"] = " ".join((sql or "").split())
    found["version"] = str(db.execute("PRAGMA user_version").fetchone())
    db.close()
    return found


def test_every_schema_has_a_database_of_its_time() -> None:
    wanted = [(kind, n + 1) for kind, steps in MIGRATIONS.items() for n in range(len(steps))]
    assert sorted(wanted) == RELEASED, "make one with `python -m tests.data.schemas.make`"


@each
def test_a_released_migration_is_never_changed(kind: str, version: int, path: Path) -> None:
    unpack(kind, version, path)
    fresh = path.with_name("fresh.db")
    open_database(fresh, MIGRATIONS[kind][:version]).db.close()
    assert schema(path) == schema(fresh)


@each
def test_it_becomes_as_a_fresh_one(kind: str, version: int, path: Path) -> None:
    unpack(kind, version, path)
    fresh = path.with_name("fresh.db")
    for place in (path, fresh):
        STORES[kind](place).close()  # type: ignore[operator]
    assert schema(path) == schema(fresh)
    assert path.stat().st_mode & 0o777 == 0o600
    # and no copy of it is left anywhere
    assert sorted(file.name for file in path.parent.iterdir()) == ["fresh.db", "old.db"]


@pytest.mark.parametrize("version", [n for kind, n in RELEASED if kind == "sessions"])
def test_every_message_is_there(version: int, path: Path) -> None:
    before = unpack("sessions", version, path)
    assert len(before["sessions"]) > 7
    store = SessionStore(path)
    assert store.set_aside is None
    assert [session.id for session in store.list()] == [s["id"] for s in before["sessions"]]
    for session in before["sessions"]:
        shown = msgspec.to_builtins(store.show(session["id"]))
        assert shown["system"] if before["systems"][session["id"]] else "system" not in shown
        assert shown.get("system") == before["systems"][session["id"]]
        for old, new in zip(session["messages"], shown["messages"], strict=True):
            assert {**new, **old} == new  # it has at least what it had
        assert {**shown, **session, "messages": shown["messages"]} == shown
    # and it can be used
    turn = store.begin_turn("trip", "And now?", None)
    assert turn.history[0] == {"role": "user", "content": "Where to in Busan?"}
    assert store.finish_turn(turn, "Home.", "stop", "some-model") is not None
    shown = store.show("trip")
    assert shown is not None and shown.messages is not None
    assert shown.messages[-1].model == "some-model"
    assert store.forget(Choice("long")).messages == 2
    store.scrub()
    store.close()


@pytest.mark.parametrize("version", [n for kind, n in RELEASED if kind == "devices"])
def test_every_device_is_there(version: int, path: Path) -> None:
    before = unpack("devices", version, path)
    store = DeviceStore(path)
    assert store.set_aside is None
    assert msgspec.to_builtins(store.list()) == before["devices"]
    phone, watch, editor = before["devices"]
    by_key, by_token = store.by_key("k" * 40), store.by_token("token of the watch")
    assert by_key is not None and by_key.id == phone["id"]
    assert by_token is not None and by_token.id == watch["id"]
    assert store.by_token("token of the editor").id == editor["id"]  # type: ignore[union-attr]
    assert store.get(before["revoked"]) is None and store.by_key("g" * 40) is None
    store.close()


def test_a_file_that_was_only_begun(path: Path) -> None:
    path.touch(0o600)
    store = SessionStore(path)
    assert store.list() == [] and store.set_aside is None
    store.close()


def test_a_log_without_its_index(path: Path) -> None:
    """As after a power cut: the index of the log is never synced, and made anew."""
    code = (
        "import os, sys; from pathlib import Path; from assistantd.sessions import SessionStore\n"
        "store = SessionStore(Path(sys.argv[1])); turn = store.begin_turn('s', 'q', None)\n"
        "store.finish_turn(turn, 'a', 'stop'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    path.with_name("old.db-shm").unlink()
    assert path.with_name("old.db-wal").stat().st_size > 0
    store = SessionStore(path)
    assert [session.n_messages for session in store.list()] == [2] and store.set_aside is None
    store.close()


# --- when it goes wrong ----------------------------------------------------------------------

MIGRATE = """
import os, signal, sqlite3, sys
from pathlib import Path
from assistantd import database

connect = sqlite3.connect
def with_an_end(*given, **named):
    db = connect(*given, **named)
    db.create_function("power_cut", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    return db
sqlite3.connect = with_an_end
steps = ["SELECT 1;"] * int(sys.argv[2])
# far more than SQLite holds in memory: a part of it is in the log by then
steps.append('''
    CREATE TABLE half (words TEXT) STRICT;
    UPDATE {table} SET {column} = {column} || 'changed';
    INSERT INTO half WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000)
        SELECT printf('%0500d', i) FROM n;
    SELECT power_cut();
''')
database.open_database(Path(sys.argv[1]), steps)
"""


@each
def test_a_power_cut_in_the_middle_of_a_migration(kind: str, version: int, path: Path) -> None:
    before = unpack(kind, version, path)
    table, column = {"sessions": ("messages", "content"), "devices": ("devices", "name")}[kind]
    code = MIGRATE.replace("{table}", table).replace("{column}", column)
    done = subprocess.run([sys.executable, "-c", code, str(path), str(version)], check=False)
    assert done.returncode == -signal.SIGKILL
    log = path.with_name("old.db-wal")
    assert log.stat().st_size > 1_000_000  # so something was under way
    expected = schema(path)
    assert "half" not in expected and expected["version"] == f"({version},)"
    again = path.with_name("again.db")
    unpack(kind, version, again)
    assert rows(path, table) == rows(again, table) and before
    STORES[kind](path).close()  # type: ignore[operator]


def rows(path: Path, table: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path)
    found = db.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()
    db.close()
    return found


@pytest.mark.parametrize("kind", sorted(MIGRATIONS))
def test_a_later_schema_is_refused_and_not_touched(kind: str, path: Path) -> None:
    latest = len(MIGRATIONS[kind])
    unpack(kind, latest, path)
    # a later version that was killed: what it did last is in the log only
    later = f"""
import os, sqlite3
db = sqlite3.connect({str(path)!r}, isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.executescript("BEGIN; CREATE TABLE later (x); PRAGMA user_version = {latest + 1}; COMMIT;")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", later], check=True)
    log = path.with_name("old.db-wal")
    before = path.read_bytes(), log.read_bytes(), os.stat(path).st_mtime_ns
    assert len(before[1]) > 0
    with pytest.raises(NewerSchemaError, match="newer"):
        STORES[kind](path)
    assert (path.read_bytes(), log.read_bytes(), os.stat(path).st_mtime_ns) == before
