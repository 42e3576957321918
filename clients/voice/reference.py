"""What a speaker has played, by time, at the rate that microphones are listened to.

The echo canceller compares what is heard with it.
"""

import threading
from collections import deque
from typing import Any, Final

import numpy as np
import soxr

from clients.voice.sound import RATE_HZ, Samples

KEPT_S: Final = 4.0
DELAY_S: Final = 0.02
"""What was played is shown so much later. The resampler may still hold the last of it back, and no
echo comes earlier than that: a device takes longer from the callback to the air."""
LONGEST_DELAY_S: Final = 0.08
"""A device that asks for sound in large pieces shows it later, and by the size of a piece, for its
echo comes later by as much."""
_QUIET_S: Final = 0.1
_GAP_S: Final = 0.1


class Reference:
    """A timeline of what was played; written by a callback, read by the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: deque[tuple[Samples, int, float]] = deque()
        self._resampler: Any = None
        self._rate_hz = 0
        self._last = np.zeros(int(KEPT_S * RATE_HZ), np.int16)
        self._end_s = 0.0  # when the last sample of _last was played
        self._length = 0
        self._delay_s = DELAY_S
        # of the stream that is being resampled: its beginning, and samples in and out since then
        self._start_s = 0.0
        self._given_in = self._given_out = 0

    def add(self, samples: Samples, rate_hz: int, end_s: float) -> None:
        """(n,) int16 were given to the device by `end_s`; only noted, for it is in a callback."""
        self._given.append((samples, rate_hz, end_s))
        while len(self._given) > 1 and self._given[0][2] < end_s - KEPT_S:
            self._given.popleft()  # nobody reads it

    def read(self, n: int, until_s: float) -> Samples:
        """(n,) int16 at RATE_HZ, up to some DELAY_S before `until_s`; silence where nothing was."""
        with self._lock:
            while self._given:
                self._add(*self._given.popleft())
            self._wait_longer(until_s - self._delay_s - self._end_s)
            end = round((until_s - self._delay_s - self._end_s) * RATE_HZ)
            return self._cut(end - n, end)

    def _wait_longer(self, missing_s: float) -> None:
        """Sound is being played, but that of the last few ms is not known yet."""
        if 0 < missing_s < LONGEST_DELAY_S and self._last[-round(_QUIET_S * RATE_HZ) :].any():
            self._delay_s = min(LONGEST_DELAY_S, self._delay_s + missing_s)

    def _cut(self, start: int, end: int) -> Samples:
        """From `start` to `end`, both counted from the end of what there is: negative, or later."""
        out = np.zeros(end - start, np.int16)
        first, last = max(start, -self._length), min(end, 0)
        if first < last:
            kept = self._last
            out[first - start : last - start] = kept[kept.size + first : kept.size + last]
        return out

    def _add(self, samples: Samples, rate_hz: int, end_s: float) -> None:
        start_s = end_s - samples.size / rate_hz
        gap_s = start_s - self._start_s - self._given_in / rate_hz
        if rate_hz != self._rate_hz or abs(gap_s) > _GAP_S:
            self._start(rate_hz, start_s)  # another stream, or one that was interrupted
        else:
            self._start_s += gap_s  # the clock knows better now
        self._given_in += samples.size
        played = samples if self._resampler is None else self._resampler.resample_chunk(samples)
        self._given_out += played.size
        self._append(played)
        self._end_s = self._start_s + self._given_out / RATE_HZ

    def _start(self, rate_hz: int, start_s: float) -> None:
        silence_s = start_s - self._end_s
        if 0 <= silence_s < KEPT_S:
            self._append(np.zeros(round(silence_s * RATE_HZ), np.int16))
        else:
            self._length = 0
        self._rate_hz, self._start_s = rate_hz, start_s
        self._given_in = self._given_out = 0
        self._resampler = None
        if rate_hz != RATE_HZ:
            self._resampler = soxr.ResampleStream(rate_hz, RATE_HZ, 1, "int16", "LQ")

    def _append(self, played: Samples) -> None:
        n = min(played.size, self._last.size)
        if n:
            self._last[:-n] = self._last[n:]
            self._last[-n:] = played[-n:]
            self._length = min(self._length + n, self._last.size)
