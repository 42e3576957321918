"""What a daemon has acknowledged, and whether it is still so after it was killed."""

import hashlib
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

Key = tuple[str, str]
"""A kind of thing, and which one: ("title", session)."""


@dataclass
class Session:
    """A conversation as its client knows it."""

    asked: set[str] = field(default_factory=set)
    answers: list[tuple[str, str]] = field(default_factory=list)
    """Question and answer of each `done`."""


class Ledger:
    """Thread-safe.

    A fact has one value that is sure, or several that may be: a request was sent that changes it,
    and the daemon was killed before it answered.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._facts: dict[Key, set[str | None]] = {}
        self._sessions: dict[str, Session] = {}
        self.n_acknowledged = 0

    # --- what happens ------------------------------------------------------------------------

    def asking(self, session: str, question: str) -> None:
        """A question is about to be sent."""
        with self._lock:
            self._sessions.setdefault(session, Session()).asked.add(question)

    def answered(self, session: str, question: str, answer: str) -> None:
        """Its `done` has come."""
        with self._lock:
            self._sessions[session].answers.append((question, answer))
            self.n_acknowledged += 1

    def changing(self, key: Key, value: str | None) -> None:
        """A request is about to be sent that gives something this value; None: it is gone."""
        with self._lock:
            self._facts.setdefault(key, {None}).add(value)

    def changed(self, key: Key, value: str | None) -> None:
        """Its `done` has come."""
        with self._lock:
            self._facts[key] = {value}
            self.n_acknowledged += 1

    # --- what should be ----------------------------------------------------------------------

    def sessions(self) -> list[str]:
        """All that were used."""
        with self._lock:
            return list(self._sessions)

    def keys(self, kind: str) -> list[str]:
        """Of which there are facts."""
        with self._lock:
            return [name for what, name in self._facts if what == kind]

    def is_sure(self, key: Key) -> bool:
        """Whether it has one value."""
        with self._lock:
            return len(self._facts.get(key, ())) == 1

    def check_fact(self, key: Key, value: str | None) -> Iterator[str]:
        """Compare with what the daemon says now, which is sure from here on."""
        with self._lock:
            allowed = self._facts.get(key, {None})
            if value not in allowed:
                yield f"{key} is {value!r}, not one of {sorted(map(str, allowed))}"
            self._facts[key] = {value}

    def check_session(
        self, name: str, messages: list[tuple[str, str, bool]] | None
    ) -> Iterator[str]:
        """Compare a session with its messages (role, text, answered); None: it is not there."""
        with self._lock:
            session = self._sessions[name]
            if messages is None:
                deletable = self._facts.get(("session", name), set())
                if session.answers and "deleted" not in deletable:
                    yield f"{name} is gone with {len(session.answers)} answers"
                del self._sessions[name]
                return
            said = [(role, text) for role, text, _ in messages]
            for question, answer in session.answers:
                if said.count(("user", question)) != 1:
                    yield f"{name} holds {question!r} {said.count(('user', question))} times"
                    continue
                at = said.index(("user", question))
                if not messages[at][2] or said[at + 1 : at + 2] != [("assistant", answer)]:
                    yield f"{name}: the answer to {question!r} is {said[at + 1 : at + 2]}"
            for role, text in said:
                if role == "user" and (text not in session.asked or said.count((role, text)) > 1):
                    yield f"{name} holds {text!r}, asked {text in session.asked}"


def unreadable(data: Path) -> Iterator[str]:
    """What is wrong with the databases in a folder, as they are; they are not touched."""
    for database in (data / "sessions.db", data / "network" / "devices.db"):
        if not database.exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            for suffix in ("", "-wal"):
                file = database.with_name(database.name + suffix)
                if file.exists():
                    shutil.copy(file, folder)
            try:
                with closing(sqlite3.connect(Path(folder) / database.name)) as db:
                    (found,) = db.execute("PRAGMA integrity_check").fetchone()
            except sqlite3.Error as problem:
                found = repr(problem)
        if found != "ok":
            yield f"{database.name}: {found}"
    for aside in data.glob("**/*damaged*"):
        yield f"{aside.name} was set aside"


def half_models(data: Path, sha256: str) -> Iterator[str]:
    """Model files that are not whole."""
    for path in (data / "models").glob("*.gguf"):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                yield f"{path.name} is not what was pulled ({path.stat().st_size} bytes)"
