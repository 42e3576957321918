"""Who was paired: a small SQLite file, and all of it in memory for whoever asks.

    data/network/devices.db     mode 0600

A device proves itself with a CURVE key, or with a token of which only the SHA-256 is here. One
that was revoked keeps its row, so that its id is not given to another, but loses both.
"""

import hashlib
import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from assistantd.database import open_database, transaction
from assistantd.i18n import _
from assistantd.log import fields
from assistantd.network.files import private_folder
from assistantd.protocol import DeviceInfo, DeviceKind, Limits, Rights

log = logging.getLogger(__name__)

FILE_NAME = "devices.db"
MAX_DEVICES = 1000
SEEN_EVERY_S = 60.0
"""`last_seen_at` is not written more often."""
ID_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
ID_LENGTH = 8

MIGRATIONS = (
    """
    CREATE TABLE devices (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        rights TEXT NOT NULL,
        limits TEXT NOT NULL,        -- JSON
        created_at REAL NOT NULL,    -- Unix time, seconds
        last_seen_at REAL,
        words TEXT NOT NULL,
        public_key TEXT UNIQUE,      -- Z85
        token_sha256 BLOB UNIQUE,
        revoked_at REAL              -- NULL while it may come in
    ) STRICT;
    """,
)

OnChange = Callable[[str], None]


class DeviceError(Exception):
    """A device that cannot be added; the message says what to do."""


class DeviceStore:
    """The devices that may come in. All methods may be called from any thread.

    Reading never touches the disk. A DeviceInfo that was handed out does not change any more.

    Attributes:
        on_change: called with the id of a device after it was added, revoked or changed (not after
            `touch`), in the thread that did it, without any lock held.
        set_aside: where a damaged database was moved to, if there was one.

    Raises:
        OSError, sqlite3.Error: the file cannot be opened.
        NewerSchemaError: a later version wrote it.
    """

    def __init__(self, path: Path) -> None:
        private_folder(path.parent)
        opened = open_database(path, MIGRATIONS, any_thread=True)
        self._db, self.set_aside = opened.db, opened.set_aside
        self._lock = threading.Lock()  # of the database and of changes
        self.on_change: list[OnChange] = []
        # replaced as wholes, so that readers need no lock
        self._devices: dict[str, DeviceInfo] = {}
        self._tokens: dict[str, bytes] = {}  # id → SHA-256
        self._by_key: dict[str, str] = {}  # Z85 → id
        self._kept_out: set[str] = set()  # revoked since the start, stored or not
        self._read()

    # --- reading -----------------------------------------------------------------------------

    def list(self) -> list[DeviceInfo]:
        """All of them, who was paired first comes first."""
        return list(self._devices.values())

    def get(self, device_id: str) -> DeviceInfo | None:
        """One of them; None if there is none of that id, or it was revoked."""
        return self._devices.get(device_id)

    def by_key(self, public_key: str) -> DeviceInfo | None:
        """The device whose CURVE key (Z85) this is."""
        return self._devices.get(self._by_key.get(public_key, ""))

    def by_token(self, token: str) -> DeviceInfo | None:
        """The device whose token this is; takes as long for a wrong one as for a right one."""
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        found = ""
        for device_id, known in self._tokens.items():
            if hmac.compare_digest(known, digest):
                found = device_id
        return self._devices.get(found)

    # --- changing ----------------------------------------------------------------------------

    def add(
        self,
        *,
        name: str,
        kind: DeviceKind,
        rights: Rights,
        limits: Limits,
        public_key: str | None = None,
        token_sha256: bytes | None = None,
        words: str = "",
    ) -> DeviceInfo:
        """Let a device in, with a key or a token, and give it an id.

        Raises:
            DeviceError: its key is known already, or there are too many devices.
            sqlite3.Error: it cannot be stored.
        """
        if (public_key is None) == (token_sha256 is None):
            raise ValueError("a device has either a key or a token")
        name = _printable(name)
        with self._lock:
            if len(self._devices) >= MAX_DEVICES:
                text = _("{n} devices are paired, which is as many as may be; revoke some first")
                raise DeviceError(text.format(n=MAX_DEVICES))
            if public_key in self._by_key:
                known = self._devices[self._by_key[public_key]]
                text = _("this key is paired already, as {name} ({id}); revoke that one first")
                raise DeviceError(text.format(name=known.name, id=known.id))
            device = DeviceInfo(
                id=self._new_id(),
                name=name,
                kind=kind,
                rights=rights,
                limits=limits,
                created_at=time.time(),
                words=words,
                public_key=public_key,
            )
            with transaction(self._db):
                self._db.execute(
                    "INSERT INTO devices VALUES (?, ?, ?, ?, ?, ?, NULL, ?, ?, ?, NULL)",
                    (
                        device.id,
                        name,
                        kind,
                        rights,
                        msgspec.json.encode(limits).decode(),
                        device.created_at,
                        words,
                        public_key,
                        token_sha256,
                    ),
                )
            self._read()
        self._changed(device.id)
        return device

    def revoke(self, device_id: str) -> bool:
        """Let a device in no longer; False if there is none of that id.

        Raises:
            sqlite3.Error: it cannot be stored. The device is kept out all the same, until the
                daemon restarts.
        """
        with self._lock:
            if device_id not in self._devices:
                return False
            # first here, so that nothing that fails can leave the door open
            self._kept_out.add(device_id)
            self._devices = {i: d for i, d in self._devices.items() if i != device_id}
            self._by_key = {key: i for key, i in self._by_key.items() if i != device_id}
            self._tokens = {i: token for i, token in self._tokens.items() if i != device_id}
        try:
            with self._lock, transaction(self._db):
                self._db.execute(
                    "UPDATE devices SET revoked_at = ?, public_key = NULL, token_sha256 = NULL "
                    "WHERE id = ?",
                    (time.time(), device_id),
                )
        finally:
            self._changed(device_id)
        return True

    def rename(self, device_id: str, name: str) -> DeviceInfo | None:
        """Give a device another name; None if there is none of that id.

        Raises:
            sqlite3.Error: it cannot be stored.
        """
        return self._update(device_id, "name = ?", (_printable(name),))

    def limit(
        self, device_id: str, rights: Rights | None, limits: Limits | None
    ) -> DeviceInfo | None:
        """Give a device other rights, or other limits; None leaves them as they are.

        Returns None if there is none of that id.

        Raises:
            sqlite3.Error: it cannot be stored.
        """
        as_json = None if limits is None else msgspec.json.encode(limits).decode()
        change = "rights = coalesce(?, rights), limits = coalesce(?, limits)"
        return self._update(device_id, change, (rights, as_json))

    def touch(self, device_id: str) -> None:
        """The device was here now.

        Raises:
            sqlite3.Error: it cannot be stored.
        """
        now = time.time()
        with self._lock:
            device = self._devices.get(device_id)
            if device is None or not is_long_ago(device.last_seen_at, now):
                return
            with transaction(self._db):
                self._db.execute(
                    "UPDATE devices SET last_seen_at = ? WHERE id = ?", (now, device_id)
                )
            seen = msgspec.structs.replace(device, last_seen_at=now)
            self._devices = {**self._devices, device_id: seen}

    def close(self) -> None:
        """Close the file. Reading goes on to work."""
        with self._lock:
            self._db.close()

    # --- within ------------------------------------------------------------------------------

    def _update(
        self, device_id: str, change: str, values: tuple[str | None, ...]
    ) -> DeviceInfo | None:
        with self._lock:
            if device_id not in self._devices:
                return None
            with transaction(self._db):
                self._db.execute(
                    f"UPDATE devices SET {change} WHERE id = ?",
                    (*values, device_id),
                )
            self._read()
            device = self._devices[device_id]
        self._changed(device_id)
        return device

    def _read(self) -> None:
        stored = self._db.execute(
            "SELECT id, name, kind, rights, limits, created_at, last_seen_at, words, public_key, "
            "token_sha256 FROM devices WHERE revoked_at IS NULL ORDER BY created_at, id"
        )
        devices: dict[str, DeviceInfo] = {}
        rows = []
        for row in stored:
            if row[0] in self._kept_out:
                continue
            try:
                devices[row[0]] = _device(row)
            except msgspec.MsgspecError as problem:  # it stays out; the others do not suffer
                log.error("a device is damaged", extra=fields(device=row[0], problem=problem))
            else:
                rows.append(row)
        self._devices = devices
        self._by_key = {row[8]: row[0] for row in rows if row[8] is not None}
        self._tokens = {row[0]: row[9] for row in rows if row[9] is not None}

    def _new_id(self) -> str:
        while True:
            new = "".join(secrets.choice(ID_LETTERS) for _letter in range(ID_LENGTH))
            used = self._db.execute("SELECT 1 FROM devices WHERE id = ?", (new,)).fetchone()
            if used is None:
                return new

    def _changed(self, device_id: str) -> None:
        for callback in list(self.on_change):
            callback(device_id)


def _device(row: tuple[Any, ...]) -> DeviceInfo:
    device_id, name, kind, rights, limits, created_at, last_seen_at, words, public_key = row[:9]
    device = DeviceInfo(
        id=device_id,
        name=name,
        kind=kind,
        rights=rights,
        limits=msgspec.json.decode(limits, type=Limits),
        created_at=created_at,
        last_seen_at=last_seen_at,
        words=words,
        public_key=public_key,
    )
    # checked: what the file says of rights is not to be believed blindly
    return msgspec.convert(msgspec.to_builtins(device), DeviceInfo)


def _printable(name: str) -> str:
    """A name without what would control the terminal of whoever reads it."""
    return "".join(letter if letter.isprintable() else " " for letter in name).strip() or "?"


def is_long_ago(seen_at: float | None, now: float) -> bool:
    """Whether it is time to write down that a device is here; a clock set back counts as well."""
    return seen_at is None or not 0 <= now - seen_at < SEEN_EVERY_S
