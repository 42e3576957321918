"""Structured logs on standard error: an event and its fields, as text or as JSON lines.

    log.info("answered", extra=fields(request="a1b2", tokens=42))

Request ids are logged; what people write or read never is.
"""

import json
import logging
import sys
import time
from typing import Any


def fields(**values: Any) -> dict[str, Any]:
    """`extra` for a log call: the fields of an event."""
    return {"fields": values}


class _Formatter(logging.Formatter):
    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = dict(getattr(record, "fields", {}))
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        if self.as_json:
            head = {
                "time": round(record.created, 3),
                "level": record.levelname.lower(),
                "event": record.getMessage(),
            }
            return json.dumps({**head, **values}, default=str, ensure_ascii=False)
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        text = " ".join(f"{key}={_quote(value)}" for key, value in values.items())
        return f"{stamp} {record.levelname.lower():7} {record.getMessage()} {text}".rstrip()


def _quote(value: Any) -> str:
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    plain = text and not any(c.isspace() or c in '"=' for c in text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def set_up(level: str, format_name: str) -> None:
    """Send the log to standard error, from `level` up, as `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(as_json=format_name == "json"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("numba", "llvmlite", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
