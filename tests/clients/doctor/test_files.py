"""Models and databases that were cut off, changed, of another version, or not ours to read."""

import contextlib
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest

from assistantd.daemon import take_lock
from assistantd.network.devices import DeviceStore
from assistantd.sessions import MIGRATIONS, SessionStore
from tests.clients.doctor.parts import Place, fine, one


def test_a_model_that_is_whole(place: Place, tiny: Path) -> None:
    fine(place.find("model"))
    said: list[str] = []
    finding = fine(place.find("model", thorough=True, say=said.append))
    assert "read whole" in finding.found and str(tiny) in said[-1]


def test_a_model_that_was_cut_off(place: Place, tiny: Path) -> None:
    os.truncate(tiny, tiny.stat().st_size - 1000)
    finding = one(place.find("model"), "model.size", "problem")
    assert finding.mend == "assistant models remove tiny && assistant models pull tiny"
    tiny.with_suffix(".json").unlink()  # put here by hand: the header tells
    one(place.find("model"), "model.damaged", "problem")
    tiny.write_bytes(b"GGUF and no more")
    one(place.find("model"), "model.damaged", "problem")


def test_a_bit_that_fell_over(place: Place, tiny: Path) -> None:
    with tiny.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        (byte,) = file.read(1)
        file.seek(-101, os.SEEK_END)
        file.seek(-100, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    fine(place.find("model"))  # nothing that is cheap to see
    finding = one(place.find("model", thorough=True), "model.hash", "problem")
    assert "pull tiny" in finding.mend


def test_no_model(place: Place, tiny: Path) -> None:
    tiny.unlink()
    (tiny.parent / "tiny.part").write_bytes(b"half")
    found = place.find("model")
    finding = one(found, "model.missing", "problem")
    assert "assistant models pull" in finding.mend
    assert one(found, "model.part", "warning").mend == "assistant models pull tiny"


# --- databases ---------------------------------------------------------------------------------


@pytest.fixture
def databases(place: Place) -> Path:
    """Both, with something in them; returns that of the sessions."""
    place.data.mkdir(mode=0o700)
    path = place.data / "sessions.db"
    store = SessionStore(path)
    for number in range(10):  # a page and more each
        turn = store.begin_turn(f"s{number}", "question " * 500, None)
        store.finish_turn(turn, "answer " * 2000, "stop")
    store.close()
    (place.data / "network").mkdir(mode=0o700)
    DeviceStore(place.data / "network/devices.db").close()
    return path


def _names(place: Place) -> set[str]:
    return {str(path.relative_to(place.data)) for path in place.data.rglob("*")}


def test_no_conversations_yet(place: Place) -> None:
    assert place.find("database")[0].severity == "skipped"


def test_databases_that_are_whole(place: Place, databases: Path) -> None:
    before = _names(place)
    found = place.find("database")
    assert [finding.id for finding in found] == ["database"] * 2
    assert {finding.severity for finding in found} == {"ok"}
    assert _names(place) == before  # SQLite left no files beside them


def test_a_database_in_use(place: Place, databases: Path) -> None:
    with (
        take_lock(place.data / "assistantd.lock"),
        contextlib.closing(sqlite3.connect(databases)) as db,
    ):
        db.execute("PRAGMA wal_autocheckpoint = 0")
        with db:
            db.execute("DELETE FROM messages WHERE id % 2 = 0")
        found = [finding for finding in place.find("database") if finding.severity != "ok"]
        assert found == []


def test_a_write_ahead_log_that_a_power_cut_left(place: Place, databases: Path) -> None:
    copy = place.folder / "copy.db"
    with contextlib.closing(sqlite3.connect(databases)) as db:
        with db:
            db.execute("UPDATE sessions SET title = 'new'")
        for suffix in ("", "-wal"):
            data = databases.with_name(databases.name + suffix).read_bytes()
            copy.with_name(copy.name + suffix).write_bytes(data)
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).replace(databases.with_name(databases.name + suffix))
    for index in (b"of before", None):
        shm = databases.with_name("sessions.db-shm")
        if index is None:
            shm.unlink()
        else:
            shm.write_bytes(index)
        before = _names(place)
        assert {finding.severity for finding in place.find("database")} == {"ok"}
        assert _names(place) == before
        assert index is None or shm.read_bytes() == index


def test_a_damaged_page(place: Place, databases: Path) -> None:
    size = databases.stat().st_size
    with databases.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(os.urandom(3 * 4096))
    finding = one(place.find("database"), "database.damaged", "problem")
    assert ".recover" in finding.mend
    databases.write_bytes(b"no database at all, though as long as one" * 200)
    one(place.find("database"), "database.damaged", "problem")
    databases.unlink()
    subprocess.run(["truncate", "-s", "100", str(databases)], check=True)
    one(place.find("database"), "database.damaged", "problem")


def test_a_database_of_a_newer_version(place: Place, databases: Path) -> None:
    with contextlib.closing(sqlite3.connect(databases)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    finding = one(place.find("database"), "database.newer", "problem")
    assert "upgrade" in finding.mend


def test_a_database_that_is_mostly_empty(place: Place, databases: Path) -> None:
    with contextlib.closing(sqlite3.connect(databases)) as db:
        with db:
            db.execute("CREATE TABLE big (x)")
            db.execute("INSERT INTO big VALUES (zeroblob(40000000))")
        with db:
            db.execute("DROP TABLE big")
    finding = one(place.find("database"), "database.free", "warning")
    subprocess.run(finding.mend.rpartition("; ")[2], shell=True, check=True)
    assert {finding.severity for finding in place.find("database")} == {"ok"}


def test_a_database_that_is_not_ours_to_read(place: Place, databases: Path) -> None:
    place.folder.chmod(0o755)
    for folder in (place.data, place.data / "network"):
        folder.chmod(0o755)
    if os.geteuid() != 0:
        databases.chmod(0o000)
        (place.data / "network/devices.db").chmod(0o000)
    found = place.find_as_stranger("database")
    assert len(found) == 2
    finding = one(found[:1], "database.unreadable", "problem")
    assert finding.mend == "assistant doctor permissions"


def test_databases_that_were_set_aside(place: Place, databases: Path) -> None:
    fine(place.find("set-aside"))
    databases.write_bytes(b"broken" * 1000)
    store = SessionStore(databases)  # as the daemon starts
    store.close()
    assert store.set_aside is not None
    finding = one(place.find("set-aside"), "set-aside.database", "warning")
    assert str(store.set_aside) in finding.found and ".recover" in finding.mend
