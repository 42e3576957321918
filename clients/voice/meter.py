"""How loud a sound is, and a bar that shows it in a terminal."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from clients.voice.sound import SILENCE_DBFS, Samples, level_dbfs

_QUIETEST_DBFS: Final = -60.0  # the left end of the bar
_FULL_SCALE: Final = 32768.0
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True)
class Level:
    """Of one block: the root mean square, and the largest sample, in dB below full scale."""

    rms_dbfs: float
    peak_dbfs: float

    @property
    def clipped(self) -> bool:
        """Whether it reached full scale: the microphone's gain is too high."""
        return self.peak_dbfs > -0.01


def measure(samples: Samples) -> Level:
    """The level of (n,) int16 samples; SILENCE_DBFS at least."""
    # -32768 has no positive int16
    peak = int(np.abs(samples.astype(np.int32)).max()) if samples.size else 0
    peak_dbfs = 20 * float(np.log10(peak / _FULL_SCALE)) if peak else SILENCE_DBFS
    return Level(level_dbfs(samples), max(SILENCE_DBFS, peak_dbfs))


def bar(level_dbfs: float, width: int) -> str:
    """A bar of `width` columns: empty at -60 dBFS and below, full at 0."""
    share = min(1.0, max(0.0, 1 - level_dbfs / _QUIETEST_DBFS))
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    drawn = "█" * full + (_EIGHTHS[rest] if rest else "")
    return drawn.ljust(width)
