"""One thread for the disk, so that an fsync never holds up a token.

Calls are made with the SessionStore on that thread, in the order in which they were handed in.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from assistantd.sessions import SessionStore

T = TypeVar("T")


class Storage:
    """The storage thread and its database."""

    def __init__(self, path: Path) -> None:
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
        """Run function(store) on the storage thread."""
        return self._thread.submit(function, self._store)

    def close(self) -> None:
        """Finish what was handed in, then close the database."""
        self._thread.submit(self._store.close)
        self._thread.shutdown()
