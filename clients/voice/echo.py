"""Take what the speaker plays out of what the microphone hears, so that people can interrupt.

Speex's echo canceller, by the package pyaec. What was played when is in reference.py; whether what
is left is somebody speaking is for interruption.py to say.
"""

import ctypes
from collections import deque
from typing import Any, Final

import numpy as np

from clients.i18n import _
from clients.voice.errors import MissingPart
from clients.voice.sound import RATE_HZ, Samples

FRAME: Final = 256
"""Samples at a time, 16 ms: half a BLOCK. Speex advises 10 to 20 ms."""
TAIL_S: Final = 0.256
"""How late an echo may come: the devices' own delays, and the room's."""
LEARNING_S: Final = 1.5
"""Until that much was played, what is left of the echo is not to be told from speech."""
_RECENT_FRAMES: Final = 20  # 0.32 s
_AUDIBLE: Final = 10.0**2  # mean square; -70 dBFS


class EchoCanceller:
    """Learns how the room echoes, within seconds of the speaker's first sounds, and while it plays.

    Args:
        tail_s: how late an echo may come, from when the reference says that it was played.
        suppress: also turn down what is left of the echo, and steady noise.

    Attributes:
        learned_s: seconds of audible reference so far.

    Raises MissingPart if pyaec is not installed.
    """

    def __init__(self, *, tail_s: float = TAIL_S, suppress: bool = True) -> None:
        try:
            import pyaec
        except (ImportError, AttributeError) as error:  # its library does not load: it has none
            raise MissingPart(
                _(
                    "the Python package pyaec is not installed, or does not work on this machine; "
                    "pip install 'assistantd[voice]', or use headphones and switch echo handling "
                    "off"
                )
            ) from error
        self.learned_s = 0.0
        # mean squares of what was heard, and of what was left of it
        self._recent: deque[tuple[float, float]] = deque(maxlen=_RECENT_FRAMES)
        self._cancel: Any = pyaec.lib.AecCancelEcho
        self._aec: Any = pyaec.Aec(FRAME, round(tail_s * RATE_HZ), RATE_HZ, suppress)

    @property
    def learned(self) -> bool:
        """Whether it has had sound enough to learn the room."""
        return self.learned_s >= LEARNING_S

    @property
    def left_db(self) -> float:
        """How much of the last 0.32 s is left: 0 if it held no echo, -20 and less if only echo."""
        heard = sum(before for before, _ in self._recent)
        left = sum(after for _, after in self._recent)
        return _ratio_db(left, heard)

    def forget_recent(self) -> None:
        """What left_db is about begins anew; what was learned of the room stays."""
        self._recent.clear()

    def clean(self, heard: Samples, reference: Samples) -> Samples:
        """What is heard without the echo of the reference.

        Args:
            heard: (n,) int16 at RATE_HZ, n a multiple of FRAME, as BLOCK is.
            reference: (n,) int16: what was played at that time; SpeakerLike.reference gives it.

        Returns:
            (n,) int16.
        """
        if heard.shape != reference.shape or heard.size % FRAME:
            raise ValueError(
                f"{heard.size} samples with a reference of {reference.size}; both must be the same "
                f"multiple of {FRAME}"
            )
        out = np.empty_like(heard)
        for start in range(0, heard.size, FRAME):
            part = slice(start, start + FRAME)
            # Aec.cancel_echo does the same by way of Python lists
            self._cancel(
                self._aec._aec,
                _pointer(heard[part]),
                _pointer(reference[part]),
                _pointer(out[part]),
                FRAME,
            )
            if _mean_square(out[part]) > _mean_square(heard[part]):
                # it has learned an echo that is not there, as with headphones, and adds its reverse
                out[part] = heard[part]
            self.learned_s += (_mean_square(reference[part]) > _AUDIBLE) * FRAME / RATE_HZ
            self._recent.append((_mean_square(heard[part]), _mean_square(out[part])))
        return out


def _pointer(samples: Samples) -> Any:
    return samples.ctypes.data_as(ctypes.POINTER(ctypes.c_int16))


def erle_db(heard: Samples, cleaned: Samples) -> float:
    """Echo return loss enhancement: how much quieter it became. Of sound that is echo only."""
    return -_ratio_db(_mean_square(cleaned), _mean_square(heard))


def _mean_square(samples: Samples) -> float:
    values = samples.astype(np.float32)
    return float(values @ values) / samples.size


def _ratio_db(part: float, whole: float) -> float:
    # 1 is a mean square of one step of 16 bits: no sound at all, for either
    return 10 * float(np.log10((part + 1) / (whole + 1)))
