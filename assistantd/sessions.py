"""Conversations in SQLite: what was said is on disk before anybody is told that it was.

A user's message is stored when its request is accepted and marked unanswered; the answer and the
mark change in one commit (database.py: it survives a power cut).

A SessionStore belongs to the thread that opened it (see storage.py).
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from assistantd import forgetting
from assistantd.database import open_database, scrub, transaction
from assistantd.forgetting import Choice, Found, title_of
from assistantd.protocol import SessionInfo, StoredMessage

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
    """
    ALTER TABLE messages ADD COLUMN model TEXT;  -- that wrote an assistant's message, if known
    """,
)

ROLES = ("system", "user", "assistant")
"""Another one is damage, which the model's template would not take."""


@dataclass(frozen=True)
class Turn:
    """A user's message that was stored, with what was said before it."""

    session: str
    user_message: int | None
    """Row id of the user's message; None if it could not be stored, as on a full disk."""
    system: str | None
    history: list[dict[str, str]]
    """Answered messages, oldest first, without the new one: role and content."""
    text: str = ""
    """The user's message."""


class SessionStore:
    """The database.

    Attributes:
        set_aside: where a damaged database was moved to, if there was one.
    """

    def __init__(self, path: Path) -> None:
        opened = open_database(path, MIGRATIONS)
        self._db, self.set_aside = opened.db, opened.set_aside

    def begin_turn(self, session: str, text: str, system: str | None) -> Turn:
        """Store a user's message (and the session, at its first use).

        Args:
            system: the session's system prompt from now on; None leaves it as it is.
        """
        now = time.time()
        with transaction(self._db):
            turn = self._turn(session, text, system)
            user_message = self._ask(turn, now, answered=False)
        return replace(turn, user_message=user_message)

    def unstored_turn(self, session: str, text: str, system: str | None) -> Turn:
        """What `begin_turn` would give, when it cannot write. Raises sqlite3.Error."""
        return self._turn(session, text, system)

    def _turn(self, session: str, text: str, system: str | None) -> Turn:
        history = self._db.execute(
            "SELECT role, content FROM messages WHERE session = ? AND answered ORDER BY id",
            (session,),
        ).fetchall()
        known = self._db.execute("SELECT system FROM sessions WHERE id = ?", (session,)).fetchone()
        kept = known[0] if known is not None and system is None else system
        messages = [
            {"role": role, "content": content} for role, content in history if role in ROLES
        ]
        return Turn(session, None, kept, messages, text)

    def _ask(self, turn: Turn, now: float, *, answered: bool) -> int:
        """Within a transaction: store the session, if it is new, and the user's message."""
        title = title_of(turn.text, turn.session)
        self._db.execute(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "updated_at = excluded.updated_at, system = excluded.system",
            (turn.session, title, turn.system, now, now),
        )
        row = self._db.execute(
            "INSERT INTO messages (session, role, content, created_at, answered) "
            "VALUES (?, 'user', ?, ?, ?)",
            (turn.session, turn.text, now, answered),
        ).lastrowid
        assert row is not None
        return row

    def finish_turn(
        self, turn: Turn, answer: str, finish_reason: str, model: str | None = None
    ) -> SessionInfo | None:
        """Store the answer. Returns the session, or None if it was deleted meanwhile."""
        now = time.time()
        with transaction(self._db):
            if turn.user_message is None:
                self._ask(turn, now, answered=True)
            elif not self._db.execute(
                "UPDATE messages SET answered = 1 WHERE id = ?", (turn.user_message,)
            ).rowcount:
                return None
            self._db.execute(
                "INSERT INTO messages (session, role, content, created_at, finish_reason, model) "
                "VALUES (?, 'assistant', ?, ?, ?, ?)",
                (turn.session, answer, now, finish_reason, model),
            )
            self._db.execute("UPDATE sessions SET updated_at = ? WHERE id = ?", (now, turn.session))
        return self.show(turn.session, messages=False)

    def list(self) -> list[SessionInfo]:
        """All sessions, the one that was spoken in last first, whatever the clock said then."""
        rows = self._db.execute(
            "SELECT id, title, created_at, updated_at, "
            "(SELECT count(*) FROM messages WHERE session = sessions.id) "
            "FROM sessions ORDER BY "
            "(SELECT max(id) FROM messages WHERE session = sessions.id) DESC, id"
        )
        return [SessionInfo(*row) for row in rows]

    def show(self, session: str, *, messages: bool = True) -> SessionInfo | None:
        """One session with its messages, or None if there is no such session."""
        row = self._db.execute(
            "SELECT id, title, created_at, updated_at, "
            "(SELECT count(*) FROM messages WHERE session = sessions.id), system "
            "FROM sessions WHERE id = ?",
            (session,),
        ).fetchone()
        if row is None:
            return None
        info = SessionInfo(*row[:5])
        if messages:
            info.system = row[5]
            stored = self._db.execute(
                "SELECT role, content, created_at, finish_reason, answered, id, model "
                "FROM messages WHERE session = ? ORDER BY id",
                (session,),
            )
            info.messages = [
                StoredMessage(role, content, at, reason, bool(answered), number, model)
                for role, content, at, reason, answered, number, model in stored
                if role in ROLES
            ]
        return info

    def rename(self, session: str, title: str) -> SessionInfo | None:
        """Give a session another title."""
        with transaction(self._db):
            self._db.execute("UPDATE sessions SET title = ? WHERE id = ?", (title, session))
        return self.show(session, messages=False)

    def find(self, choice: Choice) -> Found:
        """What would be forgotten."""
        return forgetting.find(self._db, choice)

    def forget(self, choice: Choice) -> Found:
        """Delete messages, and sessions that become empty, in one transaction.

        Their bytes may be in the file until `scrub`.
        """
        with transaction(self._db):
            found = forgetting.find(self._db, choice)
            forgetting.delete(self._db, found)
        return found

    def scrub(self) -> None:
        """Leave nothing of what was deleted in the file.

        Raises:
            ScrubError: that could not be done now.
        """
        scrub(self._db)

    def newest(self) -> float | None:
        """When the latest message was stored, in Unix time."""
        (newest,) = self._db.execute("SELECT max(created_at) FROM messages").fetchone()
        return newest  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close the database; the write-ahead log is folded into it."""
        self._db.close()
