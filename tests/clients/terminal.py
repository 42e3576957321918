"""A program on a pseudo-terminal: types to it, and reads until expected text has come."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from types import TracebackType
from typing import Self

from tests.clients.scripted_daemon import WAIT_S

# makes the pty the controlling terminal, so that Ctrl-C becomes a signal
_LAUNCH = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
_SEQUENCES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>]|\][^\x07]*\x07)")

CTRL_C, CTRL_D, ENTER, ESCAPE = "\x03", "\x04", "\r", "\x1b"


class Terminal:
    """Runs `command` with stdin, stdout and stderr on a terminal of its own.

    Attributes:
        seen: everything printed, without escape sequences.
        raw: the same with them.
    """

    def __init__(
        self, command: list[str], env: dict[str, str], *, columns: int = 80, term: str = "xterm"
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.seen = self.raw = ""
        self._unread = ""
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, *command],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
                env={**env, "TERM": term, "PROMPT_TOOLKIT_NO_CPR": "1"},
            )
        finally:
            os.close(slave)

    def press(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def read_until(self, expected: str) -> str:
        """Everything up to and including `expected`, without escape sequences."""
        while expected not in self._unread:
            self._unread += self._read(expected)
        before, _, self._unread = self._unread.partition(expected)
        return before + expected

    def wait(self) -> int:
        """Read to the end; returns the exit code."""
        while piece := self._read("the end", at_end=""):
            self._unread += piece
        return self.process.wait(WAIT_S)

    def _read(self, expected: str, at_end: str | None = None) -> str:
        ready, _, _ = select.select([self._master], [], [], WAIT_S)
        assert ready, f"waited for {expected!r}, saw:\n{self.seen}"
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            data = b""
        if not data:
            assert at_end is not None, f"it ended before {expected!r}, saw:\n{self.seen}"
            return at_end
        raw = data.decode("utf-8", "replace")
        self.raw += raw
        text = _SEQUENCES.sub("", raw)
        self.seen += text
        return text or " "

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_S)
        os.close(self._master)
