"""Is anybody speaking? What stands between the microphone and everything that costs more.

Two stages: the energy of a block against that of the room (costs next to nothing), and only when
that is exceeded a small neural voice detector (pymicro-vad, about a hundredth of a core). When
speech ends is decided in endpoint.py.
"""

from collections import deque
from time import process_time
from typing import Any, Final

import numpy as np

from clients.i18n import _
from clients.voice.errors import MissingPart
from clients.voice.sound import BLOCK, RATE_HZ, Samples

ABOVE_FLOOR_DB: Final = 4.0
"""Speech 10 dB above the noise is some 4 dB above it in all but its pauses."""
SPEECH: Final = 0.5
"""The detector's probability from which a block is speech."""
HANGOVER_S: Final = 0.4
PREROLL_S: Final = 1.0
ENERGY_HANGOVER_S: Final = 0.3

_VAD_FRAME: Final = 160  # 10 ms
_VAD_WARM_UP_FRAMES: Final = 80  # before which it answers -1
_BLOCK_S: Final = BLOCK / RATE_HZ
_FULL_SCALE: Final = 32768.0


class NoiseFloor:
    """The level of the room by itself: the least there was in the last few seconds.

    Source: minimum statistics, R. Martin, "Noise power spectral density estimation based on optimal
    smoothing and minimum statistics" (2001), for one band.
    """

    WINDOWS: Final = 4
    WINDOW_BLOCKS: Final = 16  # 0.5 s
    SMOOTHING: Final = 0.6
    BIAS_DB: Final = 1.0
    """The minimum of a power that varies is less than its mean."""
    LOWEST_DBFS: Final = -80.0
    """Quieter than any room; digital silence would make the first hiss look loud."""

    def __init__(self) -> None:
        self._smooth: float | None = None
        self._minima: deque[float] = deque(maxlen=self.WINDOWS)
        self._minimum = float("inf")
        self._blocks = 0
        self.dbfs = self.LOWEST_DBFS

    def hear(self, power: float) -> None:
        """The mean square of one block, of full scale 1."""
        smooth = power if self._smooth is None else self._smooth
        self._smooth = self.SMOOTHING * smooth + (1 - self.SMOOTHING) * power
        self._minimum = min(self._minimum, self._smooth)
        self._blocks += 1
        # until the first window is over, somebody may have spoken in all of it
        if self._blocks >= self.WINDOW_BLOCKS:
            self._minima.append(self._minimum)
            self._minimum, self._blocks = float("inf"), 0
        if self._minima:
            least = min(*self._minima, self._minimum)
            self.dbfs = max(self.LOWEST_DBFS, _db(least) + self.BIAS_DB)


class Gate:
    """Open while somebody speaks.

        if gate.hear(block):
            feed(gate.preroll() if gate.just_opened else block)

    Args:
        speech: the detector's probability from which a block is speech.
        hangover_s: how long it stays open after the last speech.
        preroll_s: how much from before it opened is kept.

    Attributes:
        open: what hear() returned last.
        just_opened: whether the last block opened it.
        probability: of speech in the last block, 0 to 1; 0 if the detector was not asked.
        quiet_s: for how long no block was louder than the room.
        heard_s, open_s, detector_s: seconds of sound heard, let through, looked at by the detector.
        cpu_s: processor time that all this took.

    Raises MissingPart if pymicro-vad is not installed.
    """

    def __init__(
        self,
        *,
        speech: float = SPEECH,
        hangover_s: float = HANGOVER_S,
        preroll_s: float = PREROLL_S,
    ) -> None:
        self.open = self.just_opened = False
        self.probability = 0.0
        self.quiet_s = 0.0
        self.heard_s = self.open_s = self.detector_s = self.cpu_s = 0.0
        self._speech = speech
        self._hangover_s = hangover_s
        self._floor = NoiseFloor()
        self._before = 0  # the last sample of the block before
        self._energy_left_s = 0.0
        self._left_s = 0.0
        self._kept: deque[Samples] = deque(maxlen=max(1, round(preroll_s / _BLOCK_S)))
        self._detector = Detector()

    @property
    def floor_dbfs(self) -> float:
        """The level of the room, high frequencies emphasised."""
        return self._floor.dbfs

    @property
    def share_open(self) -> float:
        """Of the time that was heard."""
        return self.open_s / self.heard_s if self.heard_s else 0.0

    def hear(self, block: Samples, *, cleaned: bool = False) -> bool:
        """Whether speech is going on, or ended less than the hangover ago.

        Args:
            block: (BLOCK,) int16.
            cleaned: an echo was taken out of it, and with it some of the room's noise: it says
                nothing about the level of the room.
        """
        before_s = process_time()
        self._kept.append(block)
        self.probability = self._detect(block, learn=not cleaned)
        if self.probability >= self._speech:
            self._left_s = self._hangover_s
        else:
            self._left_s = max(0.0, self._left_s - _BLOCK_S)
        now_open = self._left_s > 0
        self.just_opened = now_open and not self.open
        self.open = now_open
        self.heard_s += _BLOCK_S
        self.open_s += now_open * _BLOCK_S
        self.cpu_s += process_time() - before_s
        return now_open

    def preroll(self) -> Samples:
        """(n,) int16: the last preroll_s up to and with the last block."""
        return np.concatenate(self._kept) if self._kept else np.zeros(0, np.int16)

    def _detect(self, block: Samples, *, learn: bool) -> float:
        power = self._power(block)
        if learn:
            self._floor.hear(power)
        was_loud = self._energy_left_s > 0
        if _db(power) > self._floor.dbfs + ABOVE_FLOOR_DB:
            self._energy_left_s = ENERGY_HANGOVER_S
            self.quiet_s = 0.0
        else:
            self.quiet_s += _BLOCK_S
            self._energy_left_s = max(0.0, self._energy_left_s - _BLOCK_S)
        # while it is open, the detector alone says when speech ends
        if not (self._energy_left_s or self.open):
            return 0.0
        if not was_loud and not self.open:
            # what came just before: the beginning of a word may be quiet
            for earlier in list(self._kept)[-8:-1]:
                self.detector_s += _BLOCK_S
                self._detector.probability(earlier)
        self.detector_s += _BLOCK_S
        return self._detector.probability(block)

    def _power(self, block: Samples) -> float:
        """With the low frequencies, hum and rumble, made 6 dB an octave quieter."""
        emphasised = np.diff(block.astype(np.float32), prepend=np.float32(self._before))
        self._before = int(block[-1])
        return float(emphasised @ emphasised) / block.size / _FULL_SCALE**2


class Detector:
    """pymicro-vad for blocks of any length. Raises MissingPart if it is not installed."""

    def __init__(self) -> None:
        try:
            from pymicro_vad import MicroVad
        except ImportError as error:
            raise MissingPart(
                _(
                    "the Python package {name} is not installed; pip install 'assistantd[voice]'"
                ).format(name="pymicro-vad")
            ) from error
        self._vad: Any = MicroVad()
        self._rest = np.zeros(0, np.int16)
        self._last = 0.0
        for _frame in range(_VAD_WARM_UP_FRAMES):
            self._vad.process_10ms(bytes(2 * _VAD_FRAME))

    def probability(self, samples: Samples) -> float:
        """The highest probability of speech, 0 to 1, of the 10 ms frames that end in it."""
        pending = np.concatenate([self._rest, samples])
        full = pending.size // _VAD_FRAME * _VAD_FRAME
        self._rest = pending[full:]
        found = [
            self._vad.process_10ms(pending[start : start + _VAD_FRAME].tobytes())
            for start in range(0, full, _VAD_FRAME)
        ]
        self._last = max(0.0, *found) if found else self._last
        return self._last


def _db(power: float) -> float:
    return 10 * float(np.log10(power)) if power > 0 else -200.0
