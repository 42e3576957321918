"""What a service says of itself: structured logs, and its state to systemd.

    log.info("answered", extra=fields(request="a1b2", tokens=42))

An event and its fields, to the journal (log_journal.py) or to standard error as text or as JSON
lines. Request ids are logged; what people write or read is not, unless `log_text` was asked for:
then it is in fields made by `text_fields`, and nowhere else.
"""

import json
import logging
import os
import socket
import sys
import time
import traceback
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)


def fields(**values: Any) -> dict[str, Any]:
    """`extra` for a log call: the fields of an event."""
    return {"fields": values}


TEXT_FIELDS = ("question", "answer")
"""What people wrote and read; see `text_fields`."""
_with_text = False
_QUOTES_NOTHING = ("Expected `", "Object missing required field `", "JSON is malformed")
"""Of msgspec's messages: these name types, fields of ours and places, and no values."""
_SAFE_MESSAGES = (
    ZeroDivisionError,
    IndexError,
    AttributeError,
    TypeError,
    RecursionError,
    MemoryError,
    OverflowError,
    NameError,
    ImportError,
    ModuleNotFoundError,
)
"""What these say names types and names of the program, and no data."""


def text_fields(**texts: str) -> dict[str, str]:
    """Fields of an event that are what people wrote or read; none unless `log_text` is on."""
    assert set(texts) <= set(TEXT_FIELDS)
    return texts if _with_text else {}


def unquoted(problem: str) -> str:
    """What is wrong with a message, without what that quotes of the sender's words."""
    if problem.partition(": ")[2].startswith(_QUOTES_NOTHING):
        return problem
    places = [at for mark in "`'\"" if (at := problem.find(mark)) >= 0]
    return f"{problem[: min(places)]}…" if places else problem


def describe(problem: BaseException) -> str:
    """An exception for the log: its type, and what it says if that cannot quote anybody."""
    name = type(problem).__qualname__
    if isinstance(problem, OSError) and problem.errno is not None:
        return f"{name}: [Errno {problem.errno}] {os.strerror(problem.errno)}"
    text = str(problem)
    if not text or _with_text or type(problem) in _SAFE_MESSAGES:
        return f"{name}: {text}" if text else name
    return f"{name} (says something of {len(text)} characters; `log_text = true` shows it)"


def trace(problem: BaseException) -> str:
    """A traceback in which nothing is quoted but the program; see `describe`."""
    parts: list[str] = []
    seen: set[int] = set()
    link = ""
    current: BaseException | None = problem
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{describe(current)}{link}")
        if current.__cause__ is not None:
            current, link = current.__cause__, "\n\nThis was the cause of:\n"
        elif current.__context__ is not None and not current.__suppress_context__:
            current, link = current.__context__, "\n\nWhile this was handled, there was:\n"
        else:
            current = None
    return "\n".join(reversed(parts))


class _Formatter(logging.Formatter):
    """Lines of the log.

    Args:
        head: time and level in front, as text.
        multiline: a traceback as lines of its own, for who takes several of an event.
        without: fields that are left out.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        head: bool = True,
        multiline: bool = False,
        without: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self._as_json, self._head, self._multiline = as_json, head, multiline
        self._without = without

    def formatException(  # noqa: N802
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        return "" if ei[1] is None else trace(ei[1])

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = dict(getattr(record, "fields", {}))
        for name in self._without:
            values.pop(name, None)
        after = ""
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
            if self._multiline:
                after = "\n" + str(values.pop("traceback"))
        if self._as_json:
            start = {
                "time": round(record.created, 3),
                "level": record.levelname.lower(),
                "event": record.getMessage(),
            }
            return json.dumps({**start, **values}, default=str, ensure_ascii=False)
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        text = " ".join(f"{key}={_quote(value)}" for key, value in values.items())
        head = f"{stamp} {record.levelname.lower():7} " if self._head else ""
        return f"{head}{_plain(record.getMessage())} {text}".rstrip() + after


def _quote(value: Any) -> str:
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    plain = text and not any(c.isspace() or c in '"=' for c in text)
    if not plain:
        text = json.dumps(text, ensure_ascii=False)
    return _plain(text)


def _plain(text: str) -> str:
    if text.isprintable():
        return text
    # what a stranger sent must not steer the terminal of whoever reads the log
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _Threshold(logging.Filter):
    """Lets through what is as grave as this; the recorder of crashes sees more."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self._level


def set_up(
    level: str, format_name: str, *, with_text: bool = False, program: str = "assistantd"
) -> None:
    """Send the log to the journal if standard error leads there, else to standard error.

    May be called again, with other settings.

    Args:
        level: from which on: debug, info, warning or error.
        format_name: of standard error: text or json.
        with_text: log what people write and read, too.
        program: what `journalctl -t` knows it by.
    """
    global _with_text
    from assistantd.log_journal import JournalHandler, is_journal

    handler: logging.Handler
    if is_journal(2):
        handler = JournalHandler(program)
        handler.setFormatter(_Formatter(head=False, multiline=True))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Formatter(as_json=format_name == "json"))
    handler.addFilter(_Threshold(logging.getLevelNamesMapping()[level.upper()]))
    root = logging.getLogger()
    kept = [each for each in root.handlers if getattr(each, "stays", False)]
    for each in root.handlers:
        if each not in kept:
            each.close()
    root.handlers[:] = [handler, *kept]
    # events of the usual kind are made in any case: a report of a crash tells the last ones
    root.setLevel(min(logging.INFO, logging.getLevelNamesMapping()[level.upper()]))
    for noisy in ("numba", "llvmlite", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if with_text and not _with_text:
        log.warning("what people write and read IS LOGGED, as log_text = true asks for")
    _with_text = with_text


def notify_systemd(*lines: str) -> None:
    """Tell systemd, if it started us and wants to know (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.sendall("\n".join(lines).encode())
        except OSError as problem:
            log.warning("cannot notify systemd", extra=fields(problem=problem))
