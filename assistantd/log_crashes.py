"""Reports of crashes, kept on this machine: nothing is sent anywhere.

    crashes/assistantd-20261125-182011-123.txt   a report, readable for its owner only
    crashes/.assistantd.running                  what was going on: there while it runs
    crashes/.assistantd.fatal                    what faulthandler writes when a signal kills
    crashes/.assistantd.last                     name of the report of the last run

A report has version, platform, time, the requests under way (ids and types), the traceback and the
last events of the log. It never has text of users: what exceptions say is left out where it could
quote them (log.trace), and so are the fields that `log_text` adds.

What was going on is written into a small file as it goes on, and never synced: the system keeps it
when the process dies, so that it is known even where no code of ours runs any more. The next start
makes a report of it.
"""

import contextlib
import faulthandler
import fcntl
import logging
import os
import platform
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import IO

from assistantd.log import TEXT_FIELDS, _Formatter, fields, trace

log = logging.getLogger(__name__)

EXIT_CRASHED = 70  # EX_SOFTWARE
EVENTS = 40
"""Of the log, that a report has."""
_LINE_BYTES = 400
_REQUESTS_BYTES = 4096
_HEAD_BYTES = 2048
_FILE_BYTES = _HEAD_BYTES + _REQUESTS_BYTES + EVENTS * _LINE_BYTES
_OWN = ("assistantd", "engine", "clients")
"""Loggers whose events are remembered: others may log what they like."""
_BEGINS, _ENDS = ("asked",), ("answered", "failed")


def default_folder() -> Path:
    """Where clients keep their reports: beside the daemon's, by default."""
    state = os.environ.get("STATE_DIRECTORY")  # set by systemd
    if state:
        return Path(state.split(":")[0]) / "crashes"
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(home).expanduser() / "assistantd" / "crashes"


class Recorder(logging.Handler):
    """Remembers the last events and the requests under way, and notes them in a file.

    Not mapped into memory: where the disk is full, that would kill the process.
    """

    stays = True  # when the log is set up anew

    def __init__(self, file: IO[bytes] | None) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(_Formatter(without=TEXT_FIELDS))
        self._file = file
        self._count = 0
        self._lines: deque[str] = deque(maxlen=EVENTS)
        self._requests: dict[str, list[str]] = {}  # id → types: clients may choose the same id

    def filter(self, record: logging.LogRecord) -> bool:
        """Only our own events."""
        return record.name.partition(".")[0] in _OWN

    def emit(self, record: logging.LogRecord) -> None:
        """Remember an event."""
        try:
            line = self.format(record)
            self._lines.append(line)
            values = getattr(record, "fields", {})
            event = record.getMessage()
            if "request" in values and event in _BEGINS:
                kinds = self._requests.setdefault(str(values["request"]), [])
                kinds.append(str(values.get("kind", "")))
            elif "request" in values and event in _ENDS:
                self._ended(str(values["request"]))
            self._note(line)
        except Exception:
            self.handleError(record)

    def head(self, text: str) -> None:
        """Remember what is known from the start."""
        self._put(0, text, _HEAD_BYTES)

    @property
    def events(self) -> list[str]:
        """The last ones, oldest first."""
        return list(self._lines)

    @property
    def requests(self) -> list[str]:
        """Id and type of each that is under way."""
        found = list(self._requests.items())
        return [f"{name} {kind}" for name, kinds in found for kind in kinds]

    def close(self) -> None:
        """Note no more; the file is whoever's who opened it."""
        self._file = None
        super().close()

    def _ended(self, name: str) -> None:
        kinds = self._requests.get(name, [])
        if len(kinds) > 1:
            kinds.pop(0)
        else:
            self._requests.pop(name, None)

    def _note(self, line: str) -> None:
        self._put(_HEAD_BYTES, "\n".join(self.requests), _REQUESTS_BYTES)
        at = _HEAD_BYTES + _REQUESTS_BYTES + self._count % EVENTS * _LINE_BYTES
        self._put(at, f"{self._count} {line}", _LINE_BYTES)
        self._count += 1

    def _put(self, at: int, text: str, n_bytes: int) -> None:
        if self._file is None:
            return
        try:
            os.pwrite(self._file.fileno(), _padded(text, n_bytes), at)
        except OSError:  # the disk is full or gone: the log says so, from where it matters more
            self._file = None


def _padded(text: str, n_bytes: int) -> bytes:
    return text.encode("utf-8", "backslashreplace")[:n_bytes].ljust(n_bytes, b"\0")


def _unpadded(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")


def read_running(raw: bytes) -> tuple[str, list[str], list[str]]:
    """Head, requests and events of a recorder's file, whatever has become of it."""
    head = _unpadded(raw[:_HEAD_BYTES])
    requests = _unpadded(raw[_HEAD_BYTES : _HEAD_BYTES + _REQUESTS_BYTES])
    found: list[tuple[int, str]] = []
    for at in range(_HEAD_BYTES + _REQUESTS_BYTES, len(raw), _LINE_BYTES):
        number, _space, line = _unpadded(raw[at : at + _LINE_BYTES]).partition(" ")
        if number.isdecimal():
            found.append((int(number), line))
    return head, requests.splitlines(), [line for _number, line in sorted(found)]


class Crashes:
    """The reports of one program.

    Args:
        folder: of the reports; made when it is needed.
        program: whose they are.
        keep: how many are kept; 0 for none, and then nothing is recorded either.
        settings: what the report says of them; no secrets, no texts.
        expected: exceptions that end the program and are no crash.

    Attributes:
        keep: may be changed at any time.
        last: the report of the run before, if that crashed.
    """

    def __init__(
        self,
        folder: Path,
        program: str,
        keep: int,
        settings: Mapping[str, str] | None = None,
        expected: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._folder, self._program, self.keep = folder, program, keep
        self._settings, self._expected = dict(settings or {}), expected
        self._started = time.time()
        self._recorder: Recorder | None = None
        self._files: list[IO[bytes]] = []
        self._hooks: tuple[Callable[..., object], Callable[..., object]] | None = None
        self._writing = threading.Lock()
        self.last: Path | None = None

    # --- begin and end -----------------------------------------------------------------------

    def start(self) -> None:
        """Look after the last run, then watch over this one. Trouble with it is only logged."""
        self._hooks = (sys.excepthook, threading.excepthook)
        sys.excepthook = self._uncaught
        threading.excepthook = self._uncaught_in_thread
        running = None
        if self.keep:
            try:
                running = self._open()
            except OSError as problem:
                log.warning("cannot keep reports of crashes", extra=fields(problem=problem))
        self._recorder = Recorder(running)
        self._recorder.head(self._head())
        logging.getLogger().addHandler(self._recorder)

    def _open(self) -> IO[bytes] | None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        running = self._open_private(self._hidden("running"))
        try:
            fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            running.close()
            return None  # another one runs: the files are that one's
        self._files.append(running)
        self._look_after_last_run(running)
        running.truncate(0)
        fatal = self._open_private(self._hidden("fatal"))
        fatal.truncate(0)
        self._files.append(fatal)
        faulthandler.enable(fatal)
        return running

    def _open_private(self, path: Path) -> IO[bytes]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)

    def close(self) -> None:
        """The program ends well."""
        if self._hooks is not None:
            sys.excepthook, threading.excepthook = self._hooks
            self._hooks = None
        if self._recorder is not None:
            logging.getLogger().removeHandler(self._recorder)
            self._recorder.close()
            self._recorder = None
        if self._files:
            faulthandler.disable()
            for name in ("running", "fatal"):
                try:
                    self._hidden(name).unlink(missing_ok=True)
                except OSError as problem:  # the disk fails; the next start may take it for a crash
                    log.warning("cannot delete", extra=fields(problem=problem))
            for file in self._files:
                file.close()
            self._files.clear()

    def __enter__(self) -> "Crashes":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        crashed = problem is not None and self._is_crash(problem)
        if problem is not None and crashed:
            self.crashed(problem, "the program ended by an exception")
        self.close()
        if crashed:
            raise SystemExit(EXIT_CRASHED)

    # --- the last run ------------------------------------------------------------------------

    def _look_after_last_run(self, running: IO[bytes]) -> None:
        raw = running.read(_FILE_BYTES)
        fatal_path = self._hidden("fatal")
        fatal = fatal_path.read_bytes() if fatal_path.exists() else b""
        head, requests, events = read_running(raw)
        if fatal.strip():
            what = "it was killed by a fatal signal"
            text = fatal.decode("utf-8", "replace")
            self._write(what, text, requests, events, head or self._head())
        elif head:
            log.info("the last run was killed", extra=fields(requests=len(requests)))
        last = self._hidden("last")
        if last.exists():
            name = Path(last.read_text(encoding="utf-8").strip()).name
            if (self._folder / name).is_file():
                self.last = self._folder / name
                log.error("the last run crashed", extra=fields(report=self.last))
            last.unlink()

    # --- reports -----------------------------------------------------------------------------

    def report(self, problem: BaseException, what: str) -> Path | None:
        """Write a report of an exception; None if none is kept, or the disk refuses."""
        recorder = self._recorder
        requests = recorder.requests if recorder else []
        events = recorder.events if recorder else []
        return self._write_safely(what, trace(problem), requests, events)

    def report_failed_start(self, message: str) -> Path | None:
        """Write down why the program cannot start; one report, however often it is tried."""
        name = f"{self._program}-start-failed.txt"
        return self._write_safely("it could not start", message, [], [], name)

    def _write_safely(
        self, what: str, trouble: str, requests: list[str], events: list[str], name: str = ""
    ) -> Path | None:
        if not self.keep:
            return None
        try:
            return self._write(what, trouble, requests, events, self._head(), name)
        except OSError as problem:
            log.error("cannot write the report of a crash", extra=fields(problem=problem))
            return None

    def _write(
        self,
        what: str,
        trouble: str,
        requests: list[str],
        events: list[str],
        head: str,
        name: str = "",
    ) -> Path:
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
        parts = [
            f"{self._program}: {what}",
            "",
            f"written   {when}",
            head,
            "",
            "Requests under way (id, type):",
            *(_indented(requests) or ["  none that is known"]),
            "",
            "What happened:",
            *_indented(trouble.splitlines()),
            "",
            "Last events of the log:",
            *(_indented(events) or ["  none"]),
            "",
            "This report stays on this machine; nobody is sent it. It has no text of users.",
        ]
        path = self._folder / (name or f"{self._program}-{stamp}-{os.getpid()}.txt")
        with self._writing:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(path, "\n".join(parts) + "\n")
            if not name:
                _replace(self._hidden("last"), path.name)
            self._prune()
        return path

    def _prune(self) -> None:
        found = sorted(self._folder.glob(f"{self._program}-[0-9]*.txt"))
        for old in found[: max(0, len(found) - self.keep)]:
            old.unlink(missing_ok=True)

    def _head(self) -> str:
        try:
            own = version("assistantd")
        except PackageNotFoundError:
            own = "unknown"
        started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self._started))
        lines = [
            f"version   {own}",
            f"process   {os.getpid()}, started {started}",
            f"platform  {platform.platform()}, {platform.machine()}",
            f"python    {platform.python_version()}",
            "settings",
            *(f"  {key} = {value}" for key, value in self._settings.items()),
        ]
        return "\n".join(lines)

    def _hidden(self, name: str) -> Path:
        return self._folder / f".{self._program}.{name}"

    # --- what nobody has caught --------------------------------------------------------------

    def _uncaught(
        self,
        kind: type[BaseException],
        problem: BaseException,
        where: TracebackType | None,
    ) -> None:
        if not self._is_crash(problem):
            sys.__excepthook__(kind, problem, where)
            return
        self.crashed(problem, "an exception that nobody caught")

    def _uncaught_in_thread(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_value is None or not self._is_crash(args.exc_value):
            return
        name = args.thread.name if args.thread is not None else "unknown"
        self.crashed(args.exc_value, f"an exception that nobody caught in the thread {name}")

    def crashed(self, problem: BaseException, what: str) -> None:
        """Write a report of an exception, and log it."""
        path = self.report(problem, what)
        log.critical("crashed", extra=fields(what=what, report=path or "none"), exc_info=problem)

    def _is_crash(self, problem: BaseException) -> bool:
        return not isinstance(problem, (KeyboardInterrupt, SystemExit, *self._expected))


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all, for its owner only."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
