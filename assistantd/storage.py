"""One thread for the disk, so that an fsync never holds up a token.

Calls are made with the SessionStore on that thread, in the order in which they were handed in.
"""

import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from assistantd.database import is_damage, suspect
from assistantd.i18n import _
from assistantd.log import fields
from assistantd.sessions import SessionStore

log = logging.getLogger(__name__)

T = TypeVar("T")


class DamagedError(Exception):
    """The database has shown damage while it was in use; the message says what to do."""


class Storage:
    """The storage thread and its database."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damage = ""
        """What is damaged, once that has shown."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="storage")
        try:
            self._store = self._thread.submit(SessionStore, path).result()
        except BaseException:
            self._thread.shutdown()
            raise

    @property
    def set_aside(self) -> Path | None:
        """Where a damaged database was moved to at start, if there was one."""
        return self._store.set_aside

    def call(self, function: Callable[[SessionStore], T]) -> Future[T]:
        """Run function(store) on the storage thread.

        What it raises is raised by the future; DamagedError for what comes of a damaged file.
        """
        return self._thread.submit(self._run, function)

    def _run(self, function: Callable[[SessionStore], T]) -> T:
        try:
            return function(self._store)
        except sqlite3.Error as problem:
            if not is_damage(problem):
                raise
            if not self.damage:
                log.error("the sessions are damaged", extra=fields(path=self._path, error=problem))
                suspect(self._path)
            self.damage = _(
                "the session database is damaged ({problem}); start the daemon again: "
                "it will set the file aside and begin a new one"
            ).format(problem=problem)
            raise DamagedError(self.damage) from problem

    def close(self) -> None:
        """Finish what was handed in, then close the database."""
        self._thread.submit(self._store.close)
        self._thread.shutdown()
