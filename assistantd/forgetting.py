"""Which messages go when something is forgotten, and what becomes of the rest.

A question goes with its answer, by the moment at which it was asked: so what stays is a sound
conversation, and an answer that was finished after midnight belongs to the day of its question. A
conversation of which nothing is left goes, too. Of one that stays, the title is made anew if it was
made of words that go; a title that was given by hand stays, and so does the system prompt.

All of it is SQL on the tables of sessions.py, within a transaction of the caller's.
"""

import sqlite3
from dataclasses import dataclass

TITLE_CHARS = 60


def title_of(text: str, session: str) -> str:
    """The title of a session that begins with this message."""
    return " ".join(text.split())[:TITLE_CHARS] or session


@dataclass(frozen=True)
class Choice:
    """What is to be forgotten: all of it, or what meets every condition that is given."""

    session: str | None = None
    owner: str | None = None
    """A device: only sessions of its own."""
    since: float | None = None
    before: float | None = None
    """Questions asked from `since` on, and before `before`; Unix time."""

    @property
    def everything(self) -> bool:
        """Whether nothing is left of anybody's conversations."""
        return self == Choice()

    @property
    def timed(self) -> bool:
        """Whether it goes by time, so that parts of sessions may stay."""
        return self.since is not None or self.before is not None

    def covers(self, moment: float) -> bool:
        """Whether what was asked at a moment is meant."""
        after = self.since is None or moment >= self.since
        return after and (self.before is None or moment < self.before)


@dataclass(frozen=True)
class Part:
    """What goes of one session."""

    session: str
    title: str
    messages: tuple[int, ...]
    """Row ids, ascending."""
    whole: bool


@dataclass(frozen=True)
class Found:
    """What goes.

    Attributes:
        last_message: row ids up to this one had been given by then.
    """

    parts: tuple[Part, ...]
    last_message: int

    @property
    def sessions(self) -> int:
        """How many go as a whole."""
        return sum(part.whole for part in self.parts)

    @property
    def messages(self) -> int:
        """How many messages go."""
        return sum(len(part.messages) for part in self.parts)


def find(db: sqlite3.Connection, choice: Choice) -> Found:
    """What a choice means now; nothing is changed."""
    conditions, values = ["1"], list[str | float]()
    if choice.session is not None:
        conditions.append("{} = ?")
        values.append(choice.session)
    if choice.owner is not None:
        conditions.append("substr({}, 1, ?) = ?")
        values += [len(choice.owner) + 1, f"{choice.owner}."]
    of_meant = " AND ".join(conditions)
    rows = db.execute(
        f"""
        WITH turns AS (
            SELECT id, session, coalesce(
                max(CASE role WHEN 'user' THEN id END) OVER (PARTITION BY session ORDER BY id),
                id
            ) AS turn FROM messages WHERE {of_meant.replace("{}", "session")}
        )
        SELECT s.id, s.title, s.updated_at, m.id, q.created_at
        FROM sessions s
        LEFT JOIN turns m ON m.session = s.id
        LEFT JOIN messages q ON q.id = m.turn
        WHERE {of_meant.replace("{}", "s.id")}
        ORDER BY s.updated_at DESC, s.id, m.id
        """,
        [*values, *values],
    )
    going: dict[str, list[int]] = {}
    titles: dict[str, str] = {}
    staying: set[str] = set()
    for session, title, updated_at, message, asked_at in rows:
        if choice.covers(updated_at if message is None else asked_at):
            titles[session] = title
            going.setdefault(session, [])
            if message is not None:
                going[session].append(message)
        else:
            staying.add(session)
    parts = (
        Part(session, titles[session], tuple(messages), session not in staying)
        for session, messages in going.items()
    )
    (last,) = db.execute(
        "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0)"
    ).fetchone()
    return Found(tuple(parts), last)


def delete(db: sqlite3.Connection, found: Found) -> None:
    """Delete what was found, within the same transaction."""
    for part in found.parts:
        if part.whole:
            db.execute("DELETE FROM sessions WHERE id = ?", (part.session,))  # and its messages
            continue
        words = {title_of(text, part.session) for text in _questions(db, part)}
        db.executemany("DELETE FROM messages WHERE id = ?", ((one,) for one in part.messages))
        left = db.execute(
            "SELECT min(created_at), max(created_at) FROM messages WHERE session = ?",
            (part.session,),
        ).fetchone()
        db.execute(
            "UPDATE sessions SET created_at = ?, updated_at = ? WHERE id = ?",
            (*left, part.session),
        )
        if part.title in words:
            first = db.execute(
                "SELECT content FROM messages WHERE session = ? AND role = 'user' "
                "ORDER BY id LIMIT 1",
                (part.session,),
            ).fetchone()
            title = title_of(first[0] if first else "", part.session)
            db.execute("UPDATE sessions SET title = ? WHERE id = ?", (title, part.session))


def _questions(db: sqlite3.Connection, part: Part) -> list[str]:
    """The user's words among the messages that go."""
    going = set(part.messages)
    rows = db.execute(
        "SELECT id, content FROM messages WHERE session = ? AND role = 'user'", (part.session,)
    )
    return [content for number, content in rows if number in going]
