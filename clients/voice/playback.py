"""What is to be played: a queue at one rate, joined without seams, with a volume and a quick end.

Shared by real speakers, whose callback takes from it in another thread, and those made of files.
"""

import threading
from collections import deque
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soxr

from clients.voice.sound import Samples, resample

FADE_S: Final = 0.008
"""How long sound takes to fall silent when it is stopped; at once would click."""
_NOTHING: Final = np.zeros(0, np.int16)


class Playback:
    """A queue of samples at `rate_hz`. All of it may be called from any thread."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._lock = threading.Lock()
        self._queue: deque[Samples] = deque()
        self._queued = 0
        self._fade = 0  # samples at the head of the queue that are the end of what was stopped
        self._taken = 0
        self._played = 0  # of those, at the rate of now
        self._played_before_s = 0.0
        self._resampler: Any = None
        self._from_hz: int | None = None
        self._volume = 1.0
        self._gain = 1.0  # of the sample that was taken last

    @property
    def volume(self) -> float:
        """0 to 1. The gain is its cube, as in PulseAudio: 1/2 is -18 dB, 1/4 is -36 dB."""
        return self._volume

    @volume.setter
    def volume(self, volume: float) -> None:
        if not 0 <= volume <= 1:
            raise ValueError(f"volume is {volume}; it must be 0 to 1")
        self._volume = volume

    @property
    def queued(self) -> int:
        """Samples that nobody has taken yet, but for a few that are still being resampled."""
        return self._queued

    @property
    def played_s(self) -> float:
        """Seconds of queued sound that were taken, since it was made."""
        return self._played_before_s + self._played / self.rate_hz

    @property
    def taken(self) -> int:
        """Queued samples that were taken, since it was made."""
        return self._taken

    def nothing_after(self, taken: int) -> bool:
        """Whether no sound was taken after the first `taken` samples, and none is queued."""
        with self._lock:
            return not self._queued and self._taken == taken

    def set_rate(self, rate_hz: int) -> None:
        """The device has another rate than the one before, at which sound may be queued."""
        if rate_hz == self.rate_hz:
            return
        with self._lock:
            self._finish()
            queued = resample(self._take(self._queued), self.rate_hz, rate_hz)
            self._fade = self._fade * rate_hz // self.rate_hz
            self._played_before_s, self._played = self.played_s, 0
            self.rate_hz = rate_hz
            self._append(queued)

    def push(self, samples: Samples, rate_hz: int) -> None:
        """Queue (n,) int16; pieces at the same rate join as if they were one."""
        with self._lock:
            if self._from_hz not in (None, rate_hz):
                self._finish()
            if self._from_hz is None:
                self._from_hz = rate_hz
                if rate_hz != self.rate_hz:
                    self._resampler = soxr.ResampleStream(rate_hz, self.rate_hz, 1, "int16", "HQ")
            self._append(
                samples.copy()
                if self._resampler is None
                else self._resampler.resample_chunk(np.ascontiguousarray(samples))
            )

    def finish(self) -> None:
        """Nothing joins what was queued: let all of it come out of the resampler."""
        with self._lock:
            self._finish()

    def stop(self) -> None:
        """Drop what is queued, but for a short fade."""
        with self._lock:
            if self._fade:  # of an earlier stop; what was queued after it was not begun
                fading = self._take(self._fade)
            else:
                keep = min(self._queued, int(FADE_S * self.rate_hz))
                faded = self._take(keep) * np.linspace(1, 0, keep, dtype=np.float32)
                fading = faded.astype(np.int16)
            self._clear()
            self._append(fading)
            self._fade = fading.size

    def clear(self) -> None:
        """Drop what is queued, all of it."""
        with self._lock:
            self._clear()

    def take(self, n: int) -> tuple[Samples, int]:
        """(n,) int16 to be played now, silence at the end if there is less; how much was queued."""
        with self._lock:
            had = self._take(n)
            self._played += had.size
            self._taken += had.size
            self._fade = max(0, self._fade - had.size)
        out = np.zeros(n, np.int16)
        if had.size:
            out[: had.size] = self._amplify(had)
        return out, had.size

    def _amplify(self, samples: Samples) -> Samples:
        before, gain = self._gain, self._volume**3
        self._gain = gain
        if before == gain == 1:
            return samples
        # a jump from one volume to another would click
        gains: npt.NDArray[np.float32] = np.linspace(before, gain, samples.size, dtype=np.float32)
        return (samples * gains).astype(np.int16)

    def _take(self, n: int) -> Samples:
        parts: list[Samples] = []
        while n and self._queue:
            first = self._queue[0]
            if first.size <= n:
                parts.append(self._queue.popleft())
            else:
                parts.append(first[:n])
                self._queue[0] = first[n:]
            n -= parts[-1].size
            self._queued -= parts[-1].size
        return np.concatenate(parts) if parts else _NOTHING

    def _append(self, samples: Samples) -> None:
        if samples.size:
            self._queue.append(samples)
            self._queued += samples.size

    def _finish(self) -> None:
        if self._resampler is not None:
            self._append(self._resampler.resample_chunk(_NOTHING, last=True))
        self._resampler = self._from_hz = None

    def _clear(self) -> None:
        self._queue.clear()
        self._queued = self._fade = 0
        self._resampler = self._from_hz = None
