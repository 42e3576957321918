"""Conversations in SQLite: what was said is on disk before anybody is told that it was.

Write-ahead log with synchronous=FULL: a commit survives a power cut. A user's message is stored
when its request is accepted and marked unanswered; the answer and the mark change in one commit.

A SessionStore belongs to the thread that opened it (see storage.py).
"""

import contextlib
import logging
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from assistantd.log import fields
from assistantd.protocol import SessionInfo, StoredMessage

log = logging.getLogger(__name__)

# One entry per schema version: what brings a database from the one before.
MIGRATIONS = (
    """
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        title TEXT NOT NULL,
        system TEXT,                 -- system prompt, NULL for the model's own
        created_at REAL NOT NULL,    -- Unix time, seconds
        updated_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        session TEXT NOT NULL REFERENCES sessions(id) ON DELETE CASCADE,
        role TEXT NOT NULL,
        content TEXT NOT NULL,
        created_at REAL NOT NULL,
        finish_reason TEXT,          -- of an assistant's message
        answered INTEGER NOT NULL DEFAULT 1
    ) STRICT;
    CREATE INDEX messages_by_session ON messages(session, id);
    """,
)

TITLE_CHARS = 60


class NewerSchemaError(Exception):
    """The database was written by a later version, which knows what this one does not."""


@dataclass(frozen=True)
class Turn:
    """A user's message that was stored, with what was said before it."""

    session: str
    user_message: int
    """Row id of the user's message."""
    system: str | None
    history: list[dict[str, str]]
    """Answered messages, oldest first, without the new one: role and content."""


class SessionStore:
    """The database.

    Attributes:
        set_aside: where a damaged database was moved to, if there was one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set_aside: Path | None = None
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
                raise  # locked, disk full, no permission: the data itself may be fine
            self.set_aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
            log.error(
                "the session database is damaged; a new one is started",
                extra=fields(error=error, moved_to=self.set_aside),
            )
            for suffix in ("", "-wal", "-shm"):
                damaged = path.with_name(path.name + suffix)
                if damaged.exists():
                    damaged.rename(self.set_aside.with_name(self.set_aside.name + suffix))
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        db = sqlite3.connect(self.path, isolation_level=None, timeout=10)
        try:
            self.path.chmod(0o600)
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise NewerSchemaError(
                    f"{self.path} was written by a newer assistantd (schema {version}, "
                    f"this one knows {len(MIGRATIONS)}); install that version again"
                )
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            (check,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if check != "ok":
                raise sqlite3.DatabaseError(check)
            for number in range(version, len(MIGRATIONS)):
                db.executescript(
                    f"BEGIN;{MIGRATIONS[number]}PRAGMA user_version = {number + 1};COMMIT;"
                )
        except BaseException:
            db.close()
            raise
        return db

    @contextlib.contextmanager
    def _transaction(self):  # type: ignore[no-untyped-def]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def begin_turn(self, session: str, text: str, system: str | None) -> Turn:
        """Store a user's message (and the session, at its first use).

        Args:
            system: the session's system prompt from now on; None leaves it as it is.
        """
        now = time.time()
        with self._transaction():
            title = " ".join(text.split())[:TITLE_CHARS] or session
            self._db.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "updated_at = excluded.updated_at, system = coalesce(excluded.system, system)",
                (session, title, system, now, now),
            )
            history = self._db.execute(
                "SELECT role, content FROM messages WHERE session = ? AND answered ORDER BY id",
                (session,),
            ).fetchall()
            (kept,) = self._db.execute(
                "SELECT system FROM sessions WHERE id = ?", (session,)
            ).fetchone()
            cursor = self._db.execute(
                "INSERT INTO messages (session, role, content, created_at, answered) "
                "VALUES (?, 'user', ?, ?, 0)",
                (session, text, now),
            )
            user_message = cursor.lastrowid
            assert user_message is not None
        messages = [{"role": role, "content": content} for role, content in history]
        return Turn(session, user_message, kept, messages)

    def finish_turn(self, turn: Turn, answer: str, finish_reason: str) -> SessionInfo | None:
        """Store the answer. Returns the session, or None if it was deleted meanwhile."""
        now = time.time()
        with self._transaction():
            changed = self._db.execute(
                "UPDATE messages SET answered = 1 WHERE id = ?", (turn.user_message,)
            ).rowcount
            if not changed:
                return None
            self._db.execute(
                "INSERT INTO messages (session, role, content, created_at, finish_reason) "
                "VALUES (?, 'assistant', ?, ?, ?)",
                (turn.session, answer, now, finish_reason),
            )
            self._db.execute("UPDATE sessions SET updated_at = ? WHERE id = ?", (now, turn.session))
        return self.show(turn.session, messages=False)

    def list(self) -> list[SessionInfo]:
        """All sessions, the latest first."""
        rows = self._db.execute(
            "SELECT id, title, created_at, updated_at, "
            "(SELECT count(*) FROM messages WHERE session = sessions.id) "
            "FROM sessions ORDER BY updated_at DESC, id"
        )
        return [SessionInfo(*row) for row in rows]

    def show(self, session: str, *, messages: bool = True) -> SessionInfo | None:
        """One session with its messages, or None if there is no such session."""
        row = self._db.execute(
            "SELECT id, title, created_at, updated_at, "
            "(SELECT count(*) FROM messages WHERE session = sessions.id) "
            "FROM sessions WHERE id = ?",
            (session,),
        ).fetchone()
        if row is None:
            return None
        info = SessionInfo(*row)
        if messages:
            stored = self._db.execute(
                "SELECT role, content, created_at, finish_reason, answered FROM messages "
                "WHERE session = ? ORDER BY id",
                (session,),
            )
            info.messages = [
                StoredMessage(role, content, at, reason, bool(answered))
                for role, content, at, reason, answered in stored
            ]
        return info

    def rename(self, session: str, title: str) -> SessionInfo | None:
        """Give a session another title."""
        with self._transaction():
            self._db.execute("UPDATE sessions SET title = ? WHERE id = ?", (title, session))
        return self.show(session, messages=False)

    def delete(self, session: str) -> bool:
        """Delete a session and its messages; False if there is no such session."""
        with self._transaction():
            cursor = self._db.execute("DELETE FROM sessions WHERE id = ?", (session,))
        return cursor.rowcount > 0

    def close(self) -> None:
        """Close the database; the write-ahead log is folded into it."""
        self._db.close()


def _is_damage(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
