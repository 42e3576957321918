"""The store of devices."""

import hashlib
import os
import re
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from assistantd.network import devices
from assistantd.network.devices import FILE_NAME, DeviceError, DeviceStore, is_long_ago
from assistantd.protocol import DeviceInfo, Limits

KEY = "k" * 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "network" / FILE_NAME


@pytest.fixture
def store(path: Path) -> Iterator[DeviceStore]:
    store = DeviceStore(path)
    yield store
    store.close()


def add(store: DeviceStore, key: str = KEY, **other: object) -> DeviceInfo:
    given = {"name": "phone", "kind": "curve", "rights": "chat", "limits": Limits(), **other}
    return store.add(public_key=key, **given)  # type: ignore[arg-type]


def test_what_is_added_is_found(store: DeviceStore) -> None:
    limits = Limits(requests_per_minute=7, max_tokens=8, concurrent=2)
    phone = add(store, rights="admin", limits=limits, words="a b c d")
    digest = hashlib.sha256(b"geheim").digest()
    program = store.add(
        name="script", kind="api", rights="chat", limits=Limits(), token_sha256=digest
    )
    assert re.fullmatch("[a-z2-7]{8}", phone.id) and phone.id != program.id
    assert (phone.name, phone.kind, phone.rights) == ("phone", "curve", "admin")
    assert (phone.limits, phone.words, phone.public_key) == (limits, "a b c d", KEY)
    assert store.list() == [phone, program]
    assert store.get(phone.id) == phone == store.by_key(KEY)
    assert store.by_token("geheim") == program
    assert store.get("nothere7") is store.by_key("x" * 40) is store.by_token("") is None
    assert store.by_token("\ud800") is None


def test_it_is_there_after_a_restart(path: Path) -> None:
    store = DeviceStore(path)
    phone = add(store)
    gone = add(store, "g" * 40)
    store.touch(phone.id)
    store.revoke(gone.id)
    before = store.list()
    store.close()
    again = DeviceStore(path)
    assert again.list() == before and again.by_key(KEY) is not None
    assert again.get(gone.id) is None and again.by_key("g" * 40) is None
    again.close()


def test_no_token_and_no_secret_is_in_the_file(path: Path, store: DeviceStore) -> None:
    digest = hashlib.sha256(b"geheim").digest()
    store.add(name="x", kind="api", rights="chat", limits=Limits(), token_sha256=digest)
    assert all(b"geheim" not in file.read_bytes() for file in path.parent.iterdir())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_revoked_one_is_out_and_its_key_may_come_again(store: DeviceStore) -> None:
    first = add(store)
    assert store.revoke(first.id) and not store.revoke(first.id)
    assert store.get(first.id) is None and store.by_key(KEY) is None and store.list() == []
    assert store.rename(first.id, "x") is None and store.limit(first.id, "admin", None) is None
    store.touch(first.id)
    assert store.get(first.id) is None
    second = add(store)
    assert second.id != first.id and store.by_key(KEY) == second


def test_it_is_out_even_if_that_cannot_be_stored(path: Path, store: DeviceStore) -> None:
    phone, other = add(store), add(store, "o" * 40)
    changed: list[str] = []
    store.on_change.append(changed.append)
    store._db.execute("PRAGMA query_only = ON")  # as a disk that does not take anything more
    with pytest.raises(sqlite3.OperationalError):
        store.revoke(phone.id)
    assert store.get(phone.id) is None and store.by_key(KEY) is None
    assert changed == [phone.id]
    store._db.execute("PRAGMA query_only = OFF")
    store.rename(other.id, "other")  # which reads the file again
    assert [device.id for device in store.list()] == [other.id]


def test_changes(store: DeviceStore) -> None:
    phone = add(store)
    renamed = store.rename(phone.id, "Phone of the hall")
    assert renamed is not None and renamed.name == "Phone of the hall"
    assert phone.name == "phone"  # what was handed out does not change
    limits = Limits(concurrent=1)
    assert store.limit(phone.id, "admin", None).rights == "admin"  # type: ignore[union-attr]
    limited = store.limit(phone.id, None, limits)
    assert limited is not None and (limited.rights, limited.limits) == ("admin", limits)
    assert store.list() == [limited]


def test_no_name_controls_a_terminal(store: DeviceStore) -> None:
    phone = add(store, name="\x1b[31mphone\r\n\u202e 전화")
    assert phone.name == "[31mphone    전화" and store.get(phone.id) == phone
    renamed = store.rename(phone.id, "\0\n")
    assert renamed is not None and renamed.name == "?"


def test_everybody_is_told_of_changes(store: DeviceStore) -> None:
    heard: list[str] = []
    # a listener may look at the store
    store.on_change.append(lambda device_id: heard.append(f"{device_id} {len(store.list())}"))
    phone = add(store)
    store.rename(phone.id, "x")
    store.limit(phone.id, None, Limits())
    store.touch(phone.id)
    store.revoke(phone.id)
    store.revoke(phone.id)
    assert heard == [f"{phone.id} {n}" for n in (1, 1, 1, 0)]


def test_seen_at_most_once_a_minute(store: DeviceStore) -> None:
    phone = add(store)
    assert phone.last_seen_at is None
    store.touch(phone.id)
    first = store.get(phone.id)
    assert first is not None and first.last_seen_at is not None
    store.touch(phone.id)
    assert store.get(phone.id) is first
    assert is_long_ago(None, 0.0) and is_long_ago(100.0, 161.0) and is_long_ago(100.0, 50.0)
    assert not is_long_ago(100.0, 100.0) and not is_long_ago(100.0, 159.0)


def test_a_key_is_one_device(store: DeviceStore) -> None:
    phone = add(store)
    with pytest.raises(DeviceError, match=phone.id):
        add(store)
    with pytest.raises(ValueError, match="either"):
        store.add(name="x", kind="web", rights="chat", limits=Limits())


def test_there_are_not_endlessly_many(store: DeviceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "MAX_DEVICES", 1)
    add(store)
    with pytest.raises(DeviceError, match="revoke some first"):
        add(store, "o" * 40)


def test_threads(store: DeviceStore) -> None:
    def work(number: int) -> None:
        for turn in range(5):
            device = add(store, f"{number}{turn}".ljust(40, "x"))
            store.touch(device.id)
            store.rename(device.id, f"{number}")
            if turn % 2:
                store.revoke(device.id)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(device.name for device in store.list()) == sorted("0123" * 3)


def test_a_damaged_file_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"SQLite format 3\0" + os.urandom(4000))
    store = DeviceStore(path)
    assert store.set_aside is not None and store.set_aside.exists() and store.list() == []
    store.close()
