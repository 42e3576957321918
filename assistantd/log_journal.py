"""The log as the journal wants it: one datagram an event, with its fields (systemd.io,
"Native Journal Protocol").

    MESSAGE=answered request=a1b2 tokens=42
    PRIORITY=6
    REQUEST=a1b2
    TOKENS=42

So that `journalctl REQUEST=a1b2` finds all that was said of a request, by whichever service.
"""

import errno
import fcntl
import logging
import os
import re
import socket
import struct
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

SOCKET = "/run/systemd/journal/socket"
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_NOT_A_NAME = re.compile(r"[^A-Z0-9_]")
_OURS = frozenset(
    (
        "MESSAGE",
        "MESSAGE_ID",
        "PRIORITY",
        "CODE_FILE",
        "CODE_LINE",
        "CODE_FUNC",
        "ERRNO",
        "LOGGER",
        "THREAD_NAME",
        "SYSLOG_IDENTIFIER",
        "SYSLOG_PID",
        "SYSLOG_FACILITY",
        "SYSLOG_TIMESTAMP",
        "UNIT",
        "USER_UNIT",
    )
)
"""Names that mean something to the journal, and those that we give to every event."""
_MAX_NAME = 64
_TOO_LARGE = (errno.EMSGSIZE, errno.ENOBUFS)


def is_journal(fd: int = 2) -> bool:
    """Whether a file descriptor leads to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    device, _colon, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        stat = os.fstat(fd)
        return (int(device), int(inode)) == (stat.st_dev, stat.st_ino)
    except (ValueError, OSError):
        return False


def priority(level: int) -> int:
    """syslog's number for a level of `logging`."""
    return next((number for least, number in _PRIORITIES if level >= least), 7)


def field_name(key: str) -> str:
    """What the journal calls a field: capitals, digits and underscores, a letter first."""
    name = _NOT_A_NAME.sub("_", key.upper())
    if name in _OURS or not name[:1].isalpha():
        name = f"ASSISTANT_{name}"
    return name[:_MAX_NAME]


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """An event as a datagram: KEY=value, or KEY, length (64 bits, little endian) and value."""
    parts = []
    for name, text in fields:
        value = text.encode("utf-8", "backslashreplace")
        if b"\n" in value:
            parts += [name.encode(), b"\n", struct.pack("<Q", len(value)), value, b"\n"]
        else:
            parts += [name.encode(), b"=", value, b"\n"]
    return b"".join(parts)


class JournalHandler(logging.Handler):
    """Sends events to the journal; where its socket cannot be reached, to standard error with the
    priority in front, which the journal reads as well (sd-daemon(3)).

    Args:
        identifier: what `journalctl -t` knows the program by.
    """

    def __init__(self, identifier: str, address: str = SOCKET) -> None:
        super().__init__()
        self._identifier, self._address = identifier, address
        self._socket: socket.socket | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Send one event. Never raises, as a log must not end what it tells of."""
        try:
            message = self.format(record)
            try:
                self._send(encode(self._fields(record, message)))
            except OSError:  # no journal there, or no longer
                self._print(priority(record.levelno), message)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        super().close()

    def _fields(self, record: logging.LogRecord, message: str) -> list[tuple[str, str]]:
        values: dict[str, Any] = getattr(record, "fields", {})
        found = [
            ("MESSAGE", message),
            ("PRIORITY", str(priority(record.levelno))),
            ("SYSLOG_IDENTIFIER", self._identifier),
            ("LOGGER", record.name),
            ("THREAD_NAME", record.threadName or ""),
            ("CODE_FILE", record.pathname),
            ("CODE_LINE", str(record.lineno)),
            ("CODE_FUNC", record.funcName or ""),
        ]
        if "request" in values:
            found.append(("ASSISTANT_REQUEST", str(values["request"])))
        found += [(field_name(key), str(value)) for key, value in values.items()]
        return found

    def _send(self, datagram: bytes) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.sendto(datagram, self._address)
        except OSError as problem:
            if problem.errno not in _TOO_LARGE:
                raise
            self._send_file(self._socket, datagram)

    def _send_file(self, channel: socket.socket, datagram: bytes) -> None:
        """What is too large for a datagram goes as a file that nobody can change any more."""
        fd = _sealed(datagram)
        try:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
            channel.sendmsg([], ancillary, 0, self._address)
        finally:
            os.close(fd)

    def _print(self, number: int, message: str) -> None:
        lines = message.splitlines() or [""]
        sys.stderr.write("".join(f"<{number}>{line}\n" for line in lines))
        sys.stderr.flush()


def _sealed(data: bytes) -> int:
    """A file in memory; without such files, one without a name."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile(dir="/dev/shm") as file:
            file.write(data)
            file.flush()
            return os.dup(file.fileno())
    fd = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(
            fd,
            fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL,
        )
    except BaseException:
        os.close(fd)
        raise
    return fd
