"""What systemd is told while the daemon runs: that it works, how it is, and that it needs time.

    WATCHDOG=1            while the serving thread answers and the engine moves (pulse.py)
    EXTEND_TIMEOUT_USEC=  the same, before the model has answered for the first time: loading and
                          compiling take as long as they take
    STATUS=               model, requests, tokens and memory, when they have changed

A thread of its own says it, but only what the others have shown since it last looked: a loop that
hangs is not covered for.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, MutableMapping

from assistantd.log import fields, notify_systemd
from assistantd.pulse import Pulse

log = logging.getLogger(__name__)

LOOKS = 4
"""In the time after which systemd would act."""
STATUS_EVERY_S = 30.0
"""Without a watchdog."""
START_S = 120.0
"""What a start is given from each sign of life on; TimeoutStartSec= of the unit is the same."""


def interval_s(environ: MutableMapping[str, str] = os.environ) -> float | None:
    """Seconds of systemd's watchdog; None if it is off, or meant for another process.

    Removes the variables, so that no child believes that it is meant.
    """
    usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if not usec.isdecimal() or usec == "0" or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6


class Watchdog:
    """The thread that tells systemd.

    Args:
        pulse: whether the engine moves.
        ask_server: has a function called by the serving thread.
        wake_engine: has the engine thread make a turn if it is idle.
        status: what to say of the daemon.
    Attributes:
        is_ready: READY=1 has been said; set by whoever did.
    """

    def __init__(
        self,
        pulse: Pulse,
        ask_server: Callable[[Callable[[], None]], None],
        wake_engine: Callable[[], None],
        status: Callable[[], str],
    ) -> None:
        self.is_ready = False
        self._pulse, self._ask_server, self._wake_engine = pulse, ask_server, wake_engine
        self._status, self._said = status, ""
        self._limit_s = interval_s()
        self._served = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin, if systemd has started this process."""
        if os.environ.get("NOTIFY_SOCKET"):
            self._thread.start()

    def close(self) -> None:
        """Say nothing more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        limit_s = self._limit_s or LOOKS * STATUS_EVERY_S
        alive_at, warned = time.monotonic(), False
        self._ask()
        # the first looks are quick: a start may have a short limit
        while not self._stop.wait(min(limit_s, START_S) / LOOKS):
            serves, moves = self._served.is_set(), self._pulse.moves()
            if serves:
                self._served.clear()
            self._ask(server=serves)
            now = time.monotonic()
            if serves and moves:
                alive_at, warned = now, False
                self._feed()
            elif not warned and now - alive_at > limit_s / 2:
                warned = True
                what = {"serving": serves, "engine": moves, "seconds": now - alive_at}
                log.warning("does not move", extra=fields(**what))
            self._tell_status()

    def _ask(self, *, server: bool = True) -> None:
        """Have both loops show themselves until the next look."""
        if server:  # or the questions would pile up before one that hangs
            self._ask_server(self._served.set)
        self._wake_engine()

    def _feed(self) -> None:
        if not self.is_ready:
            notify_systemd(f"EXTEND_TIMEOUT_USEC={int(START_S * 1e6)}")
        elif self._limit_s is not None:
            notify_systemd("WATCHDOG=1")

    def _tell_status(self) -> None:
        status = self._status()
        if status != self._said:
            notify_systemd(f"STATUS={status}")
            self._said = status
