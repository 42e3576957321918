"""When to kill: at random, at the n-th reply, or at the n-th change of a file."""

import ctypes
import os
import random
import select
import signal
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_CLOSE_WRITE = 0x2, 0x80, 0x100, 0x200, 0x8
EVENTS = IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_CLOSE_WRITE
PATIENCE_S = 4.0
"""When what was waited for does not happen, it is killed all the same."""


class Trigger:
    """Kills one process, once. `with Trigger(…) as trigger`; it is done when the block ends.

    Args:
        kind: "random", "reply" or "file".
        folders: watched for `file`; those that are not there are left out.
        spread_s, spread: the moment is drawn from so many seconds, or replies or changes.
    """

    def __init__(
        self,
        kind: str,
        pid: int,
        folders: Sequence[Path],
        rng: random.Random,
        spread_s: float,
        spread: int,
    ) -> None:
        self.kind, self._pid = kind, pid
        self.gone = threading.Event()
        self.void = threading.Event()
        """From now on nothing counts that the daemon says: it would be dead by now."""
        self._after_s = rng.uniform(0, spread_s)
        self._left = rng.randint(1, spread)
        self._replies = threading.Semaphore(0)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._watch = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if kind == "file":
            for folder in folders:
                if folder.is_dir():
                    self._libc.inotify_add_watch(self._watch, bytes(folder), EVENTS)
        self._thread = threading.Thread(target=self._run, name="trigger")

    def __enter__(self) -> "Trigger":
        self._thread.start()
        return self

    def reply(self) -> None:
        """A reply of the daemon's has come."""
        self._replies.release()

    def _run(self) -> None:
        if self.kind == "random":
            self.gone.wait(self._after_s)
        elif self.kind == "reply":
            for _reply in range(self._left):
                if not self._replies.acquire(timeout=PATIENCE_S):
                    break
        else:
            self._wait_for_files()
        self.fire()

    def _wait_for_files(self) -> None:
        while self._left > 0:
            ready, _, _ = select.select([self._watch], [], [], PATIENCE_S)
            if not ready:
                return
            data, at = os.read(self._watch, 65536), 0
            while at < len(data):
                self._left -= 1
                at += struct.calcsize("iIII") + struct.unpack_from("iIII", data, at)[3]

    def fire(self) -> None:
        """Now."""
        if not self.gone.is_set():
            self.gone.set()
            try:
                os.kill(self._pid, signal.SIGKILL)
            except ProcessLookupError:
                return  # it ended by itself; the nursery knows how

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        os.close(self._watch)
