"""Short tones that tell what the assistant does, made when they are needed.

Two notes that rise: it listens. Two that fall: it failed. One that repeats: it thinks.
"""

from functools import lru_cache
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from clients.voice.sound import Samples

Cue = Literal["heard", "thinking", "done", "error", "not_connected"]
CUES: Final[tuple[str, ...]] = get_args(Cue)
PEAK_DBFS: Final = -18.0
_EDGE_S: Final = 0.012
"""Rise and fall of a note, as half a cosine: no click is heard."""

# (frequency in Hz, 0 for silence; seconds), of a scale in C major
_C5, _D5, _E5, _G5 = 523.25, 587.33, 659.26, 783.99
_NOTES: Final[dict[str, tuple[tuple[float, float], ...]]] = {
    "heard": ((_C5, 0.08), (_G5, 0.12)),
    "thinking": ((_E5, 0.07), (0, 0.09), (_E5, 0.07)),
    "done": ((_G5, 0.09), (_E5, 0.12)),
    "error": ((_E5, 0.1), (_C5 / 2, 0.14)),
    "not_connected": ((_D5 / 2, 0.09), (0, 0.04), (_D5 / 2, 0.11)),
}
_SOFT: Final = {"thinking": -8.0}
"""Decibels less than the others: what is heard again and again must not annoy."""


@lru_cache(maxsize=32)
def cue(name: Cue, rate_hz: int) -> Samples:
    """The tone of that name, shorter than 250 ms, PEAK_DBFS at most; read-only.

    Raises:
        KeyError: there is no such cue.
    """
    notes = [_note(frequency, seconds, rate_hz) for frequency, seconds in _NOTES[name]]
    sound = np.concatenate(notes)
    peak = 10 ** ((PEAK_DBFS + _SOFT.get(name, 0.0)) / 20) * 32767
    samples: Samples = np.rint(sound * (peak / np.max(np.abs(sound)))).astype(np.int16)
    samples.setflags(write=False)
    return samples


def _note(frequency: float, seconds: float, rate_hz: int) -> npt.NDArray[np.float64]:
    """A sine with a little of its octave, softly begun and ended."""
    n = round(seconds * rate_hz)
    if not frequency:
        return np.zeros(n)
    t = np.arange(n) / rate_hz
    wave = np.sin(2 * np.pi * frequency * t) + 0.2 * np.sin(4 * np.pi * frequency * t)
    edge = min(round(_EDGE_S * rate_hz), n // 2)
    ramp = (1 - np.cos(np.pi * np.arange(edge) / edge)) / 2
    wave[:edge] *= ramp
    wave[n - edge :] *= ramp[::-1]
    return wave * np.exp(-2.0 * t / seconds)
