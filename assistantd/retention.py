"""Removing what is older than [privacy] retention_days, unless the clock cannot be believed.

A small computer without a battery starts with the clock of yesterday, or of 1970, or of a year that
is yet to come; what it thinks is old may be new. So after a leap nothing is removed until the clock
has gone on evenly for a quarter of what it leapt, a week at most. A leap is

- while the daemon runs: more than five minutes that the time did not take, forward or back;
- between two runs: backward, or more than a day forward.

What was noted last is in a file, so that this also works for a computer that is on for an hour a
day. A clock that is wrong and stays so for a week is believed.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import msgspec
from msgspec import Struct

from assistantd.durable import write_durable
from assistantd.forgetting import Choice
from assistantd.log import fields
from assistantd.privacy import Forgetter
from assistantd.protocol import Done, Error, Reply, RetentionInfo
from assistantd.sessions import SessionStore
from assistantd.storage import Storage

log = logging.getLogger(__name__)

FILE_NAME = "retention.json"
DAY_S = 86_400.0
LOOK_EVERY_S = 3_600.0
TOLERANCE_S = 300.0
"""NTP moves a clock by less while it keeps it right."""
GAP_S = DAY_S
"""A daemon may have been off for so long, and its clock is believed at once."""
SHARE, MOST_S = 0.25, 7 * DAY_S
"""How long a clock that has leapt is watched."""


def even_clock() -> float:
    """Seconds that pass as time does, while the machine sleeps as well where that can be had."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class _Noted(Struct, forbid_unknown_fields=True):
    noted: float
    """The clock at the last look, Unix time."""
    believe_at: float
    """What it must show until it is believed."""


class ClockWatch:
    """Whether the clock can be believed.

    Args:
        path: where it is noted from one run to the next.
        wall, even: the clock in Unix time, and seconds that pass evenly; replaced in unit tests.
    """

    def __init__(
        self,
        path: Path,
        wall: Callable[[], float] = time.time,
        even: Callable[[], float] = even_clock,
    ) -> None:
        self._path, self._wall, self._even = path, wall, even
        self._last: _Noted | None = None
        self._last_even = 0.0

    def look(self, newest: float | None) -> tuple[float, float | None]:
        """Look at the clock, and note it.

        Args:
            newest: Unix time of what was stored last, for want of a note.

        Returns:
            What it shows, and until when it is not believed; None if it is.

        Raises:
            OSError: it cannot be noted.
        """
        wall, even = self._wall(), self._even()
        if self._last is not None:
            last, leap = self._last, wall - self._last.noted - (even - self._last_even)
            leapt = abs(leap) > TOLERANCE_S
        else:
            last = self._read() or _Noted(wall if newest is None else newest, 0.0)
            leap = wall - last.noted
            leapt = not -TOLERANCE_S <= leap <= GAP_S
        believe_at = last.believe_at
        if leapt:
            believe_at = wall + min(MOST_S, SHARE * abs(leap))
            if last.believe_at > last.noted:  # of a leap before: that much must still pass
                believe_at = max(believe_at, min(wall + MOST_S, last.believe_at + leap))
            log.warning(
                "the clock has leapt; nothing is removed for now",
                extra=fields(
                    seconds=leap, until=time.strftime("%F %T", time.localtime(believe_at))
                ),
            )
        self._last, self._last_even = _Noted(wall, believe_at), even
        self._write(self._last)
        return wall, believe_at if wall < believe_at else None

    def _read(self) -> _Noted | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Noted)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as problem:  # as if it were not there
            log.warning("a file is damaged", extra=fields(path=self._path, problem=problem))
            return None

    def _write(self, noted: _Noted) -> None:
        write_durable(self._path, msgspec.json.encode(noted))


class Retention:
    """Removes old messages. `chores` is for the serving thread, `info` for any.

    Attributes:
        days: how old messages may become; 0 for any age.
    """

    def __init__(
        self,
        days: int,
        folder: Path,
        storage: Storage,
        forgetter: Forgetter,
        clock: ClockWatch | None = None,
    ) -> None:
        self.days = days
        self._storage, self._forgetter = storage, forgetter
        self._clock = clock or ClockWatch(folder / FILE_NAME)
        self._look_at = 0.0
        self._done_at: float | None = None  # by the even clock
        self._removed_at: float | None = None
        self._waits_until: float | None = None

    def set_days(self, days: int) -> None:
        """Let another age hold, and look at the next `chores`; from any thread."""
        if days != self.days:
            self.days, self._done_at, self._look_at = days, None, 0.0

    def info(self) -> RetentionInfo | None:
        """What status says of it."""
        if not self.days:
            return None
        return RetentionInfo(self.days, self._removed_at, self._waits_until)

    def chores(self) -> float | None:
        """Look whether something is due; returns the seconds until the next look, or None."""
        if not self.days:
            return None
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            self._storage.call(self._look).add_done_callback(_note)
        return self._look_at - now

    def _look(self, store: SessionStore) -> None:
        """On the storage thread."""
        wall, self._waits_until = self._clock.look(store.newest())
        now = even_clock()
        if self._waits_until is not None or not self.days:
            return
        if self._done_at is not None and now - self._done_at < DAY_S - LOOK_EVERY_S / 2:
            return
        self._done_at = now
        choice = Choice(before=wall - self.days * DAY_S)
        if not store.find(choice).parts:
            self._removed_at = wall
            return
        self._forgetter.forget(choice, lambda reply: self._removed(wall, reply))

    def _removed(self, wall: float, reply: Reply) -> None:
        if isinstance(reply, Error):
            self._done_at = None  # at the next look again
            log.error("old messages are not removed", extra=fields(problem=reply.error.message))
        elif isinstance(reply, Done):
            self._removed_at = wall


def _note(done: "Future[None]") -> None:
    if (problem := done.exception()) is not None:
        log.error("cannot look for old messages", exc_info=problem)
