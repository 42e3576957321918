"""A log that the network cannot flood: the first few of each event a minute, then their number."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from assistantd.log import fields

AT_ONCE = 10
EVERY_S = 60.0


@dataclass
class _Window:
    ends: float
    logged: int = 0
    left_out: int = 0


class SparingLog:
    """Warnings about what came over the network. Thread-safe.

    Args:
        clock: seconds that only go forward; replaced in unit tests.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._lock = threading.Lock()
        self._windows: dict[str, _Window] = {}

    def warning(self, event: str, **values: Any) -> None:
        """Log an event with its fields, or only count it. There must be few different ones."""
        self.flush()
        with self._lock:
            window = self._windows.setdefault(event, _Window(self._clock() + EVERY_S))
            if window.logged >= AT_ONCE:
                window.left_out += 1
                return
            window.logged += 1
        self._log.warning(event, extra=fields(**values))

    def flush(self) -> float | None:
        """Log how often something was left out, when its minute is over.

        Returns the seconds after which there will be more to log, or None.
        """
        now = self._clock()
        with self._lock:
            over = {event: w for event, w in self._windows.items() if w.ends <= now}
            for event in over:
                del self._windows[event]
            waiting = [window.ends - now for window in self._windows.values() if window.left_out]
        for event, window in over.items():
            if window.left_out:
                self._log.warning(event, extra=fields(more=window.left_out, seconds=EVERY_S))
        return min(waiting, default=None)
