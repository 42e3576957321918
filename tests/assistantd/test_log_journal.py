"""The log in the journal: the native protocol byte for byte, and a real journald where one runs."""

import array
import fcntl
import json
import logging
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from assistantd import log_journal
from assistantd.log import fields, set_up
from assistantd.log_journal import JournalHandler, encode, field_name, is_journal, priority

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def journal() -> Iterator[tuple[str, socket.socket]]:
    """A socket that records datagrams, and its path."""
    folder = tempfile.mkdtemp(prefix="aj-")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"{folder}/socket")
        channel.settimeout(20)
        yield f"{folder}/socket", channel
    shutil.rmtree(folder)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger("assistantd.test_log_journal")
    found.setLevel(logging.DEBUG)
    found.propagate = False
    yield found
    found.handlers.clear()


def test_an_event_byte_for_byte(journal: tuple[str, socket.socket], logger: logging.Logger) -> None:
    handler = JournalHandler("assistantd", journal[0])
    logger.addHandler(handler)
    logger.warning("answered", extra=fields(request="a1", tokens=3, message="x", note="b\nc"))
    line = str(sys._getframe().f_lineno - 1)
    own = os.path.abspath(__file__)
    expected = [
        b"MESSAGE=answered\n",
        b"PRIORITY=4\n",
        b"SYSLOG_IDENTIFIER=assistantd\n",
        b"LOGGER=assistantd.test_log_journal\n",
        b"THREAD_NAME=MainThread\n",
        f"CODE_FILE={own}\n".encode(),
        f"CODE_LINE={line}\n".encode(),
        b"CODE_FUNC=test_an_event_byte_for_byte\n",
        b"ASSISTANT_REQUEST=a1\n",
        b"REQUEST=a1\n",
        b"TOKENS=3\n",
        b"ASSISTANT_MESSAGE=x\n",
        b"NOTE\n" + struct.pack("<Q", 3) + b"b\nc\n",
    ]
    assert journal[1].recv(1 << 16) == b"".join(expected)
    handler.close()


def test_what_is_too_large_is_sent_as_a_sealed_file(
    journal: tuple[str, socket.socket], logger: logging.Logger
) -> None:
    handler = JournalHandler("assistantd", journal[0])
    logger.addHandler(handler)
    logger.error("large", extra=fields(much="y" * 4_000_000))
    data, ancillary, _flags, _sender = journal[1].recvmsg(100, socket.CMSG_SPACE(4))
    assert data == b""
    ((level, kind, raw),) = ancillary
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    (fd,) = array.array("i", raw)
    with os.fdopen(fd, "rb") as file:
        seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
        wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        assert seals == wanted
        file.seek(0)
        content = file.read()
    assert content.startswith(b"MESSAGE=large\nPRIORITY=3\n")
    assert content.endswith(b"MUCH=" + b"y" * 4_000_000 + b"\n")
    logger.error("small again")
    assert journal[1].recv(1 << 16).startswith(b"MESSAGE=small again\n")
    handler.close()


def test_without_the_socket_the_priority_is_in_front(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = JournalHandler("assistantd", "/nowhere/at/all")
    logger.addHandler(handler)
    logger.info("two\nlines")
    assert capsys.readouterr().err == "<6>two\n<6>lines\n"
    handler.close()


def test_names_and_values_that_come_from_elsewhere() -> None:
    assert field_name("first_token_ms") == "FIRST_TOKEN_MS"
    assert field_name("priority") == "ASSISTANT_PRIORITY"
    assert field_name("_pid") == "ASSISTANT__PID"  # the journal keeps what begins so for itself
    assert field_name("1st-é") == "ASSISTANT_1ST__"
    assert len(field_name("x" * 100)) == 64
    assert encode([("A", "\udc80=\x00")]) == b"A=\\udc80=\x00\n"
    assert [priority(level) for level in (10, 20, 30, 40, 50)] == [7, 6, 4, 3, 2]


def test_whether_standard_error_is_the_journal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "file").open("w") as file:
        stat = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")
        assert is_journal(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino + 1}")
        assert not is_journal(file.fileno())  # it was, and was redirected since
        for nonsense in ("", "x", "1:y"):
            monkeypatch.setenv("JOURNAL_STREAM", nonsense)
            assert not is_journal(file.fileno())


def test_a_service_logs_to_the_journal(
    journal: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(log_journal, "is_journal", lambda fd: True)
    monkeypatch.setattr(JournalHandler.__init__, "__defaults__", (journal[0],))
    try:
        root.handlers.clear()
        set_up("warning", "text", program="assistantd")
        log = logging.getLogger("assistantd.test")
        log.info("not grave enough")
        try:
            raise TypeError("of the program")
        except TypeError:
            log.exception("failed", extra=fields(request="r"))
        heard = journal[1].recv(1 << 16)
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
    message = heard[len(b"MESSAGE\n") + 8 :]
    assert message.startswith(b"failed request=r\nTraceback (most recent call last):\n  File ")
    assert b"\nTypeError: of the program\nPRIORITY=3\n" in message


SCRIPT = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal
/lib/systemd/systemd-journald >/dev/null 2>&1 &
journald=$!
trap "kill $journald" EXIT
{python} - <<'PY'
import logging, os, time
from assistantd.log import fields, set_up
from assistantd import log_journal
deadline = time.monotonic() + 60
while not os.path.exists(log_journal.SOCKET):
    assert time.monotonic() < deadline
log_journal.is_journal = lambda fd: True
set_up("info", "text", program="assistantd-test")
log = logging.getLogger("assistantd.test")
log.info("answered", extra=fields(request="abc", tokens=3))
log.warning("failed", extra=fields(request="def", much="x" * 1_000_000))
PY
journalctl --sync
journalctl --no-pager --all -o json REQUEST=abc
journalctl --no-pager --all -o json ASSISTANT_REQUEST=def
"""


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/lib/systemd/systemd-journald").exists(),
    reason="needs root and systemd-journald",
)
def test_a_real_journald() -> None:
    """In a mount namespace of its own, with a /run of its own."""
    script = SCRIPT.format(python=sys.executable)
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "bash", "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    small, large = (json.loads(line) for line in done.stdout.splitlines())
    assert small["MESSAGE"] == "answered request=abc tokens=3"
    assert (small["TOKENS"], small["PRIORITY"]) == ("3", "6")
    assert (small["SYSLOG_IDENTIFIER"], small["_TRANSPORT"]) == ("assistantd-test", "journal")
    assert (large["PRIORITY"], large["MUCH"]) == ("4", "x" * 1_000_000)
