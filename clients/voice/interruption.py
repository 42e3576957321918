"""Does somebody speak while the assistant does? What is left of its own voice is speech, too.

The voice detector hears speech in an echo however faint, so it alone will not do: a block counts
only if most of it is left after the echo was cancelled.
"""

from typing import Final

from clients.voice.echo import EchoCanceller
from clients.voice.gate import SPEECH, Detector
from clients.voice.sound import Samples

LEFT_DB: Final = -10.0
"""More of the last 0.32 s is left than of echo alone, which is -15 dB or less; so somebody who
speaks some 10 dB less loud than the echo at the microphone is not noticed."""
BLOCKS: Final = 5
"""0.16 s in a row: longer than what the canceller misses when the echo sets in."""


class Interruption:
    """Watches over an answer while it is spoken.

        interruption = Interruption(EchoCanceller())    # one for good: it learns the room
        if interruption.hear(block, speaker.reference(block.size, microphone.heard_s)):
            speaker.stop()

    Attributes:
        cleaned: the last block without its echo, (n,) int16, for the recogniser.

    Raises MissingPart if pymicro-vad is not installed.
    """

    def __init__(self, canceller: EchoCanceller, *, speech: float = SPEECH) -> None:
        self.cleaned: Samples | None = None
        self._canceller = canceller
        self._detector = Detector()
        self._speech = speech
        self._in_a_row = 0
        self._fresh = True

    def silence(self) -> None:
        """Nothing is being played: what was heard over the last answer says nothing of the next."""
        if not self._fresh:
            self._fresh = True
            self._in_a_row = 0
            self._detector = Detector()
            self._canceller.forget_recent()

    def hear(self, heard: Samples, reference: Samples) -> bool:
        """Whether somebody has been speaking over it for BLOCKS. Arguments: EchoCanceller.clean."""
        self._fresh = False
        self.cleaned = self._canceller.clean(heard, reference)
        probability = self._detector.probability(self.cleaned)
        theirs = (
            self._canceller.learned
            and probability >= self._speech
            and self._canceller.left_db > LEFT_DB
        )
        self._in_a_row = self._in_a_row + 1 if theirs else 0
        return self._in_a_row >= BLOCKS
