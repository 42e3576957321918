"""When somebody has finished speaking: from the probability of speech, block by block."""

from enum import Enum
from typing import Final

from clients.voice.sound import BLOCK, RATE_HZ

TRAILING_S: Final = 0.6
NO_SPEECH_S: Final = 5.0
LONGEST_S: Final = 15.0
SPEECH: Final = 0.5
SHORTEST_SPEECH_S: Final = 0.1
"""Less is a click, or a door."""

_BLOCK_S: Final = BLOCK / RATE_HZ


class End(Enum):
    """Why listening ends."""

    FINISHED = "finished"
    """They spoke, and then were silent."""
    NO_SPEECH = "no speech"
    """They said nothing."""
    TOO_LONG = "too long"
    """They are still speaking, or it is noisy."""


class Endpointer:
    """For one utterance: give it every block's probability of speech until it returns an End.

    Args:
        trailing_s: silence after speech that ends it.
        no_speech_s: silence from the start that ends it.
        longest_s: what ends it in any case.
        speech: the probability from which a block is speech.

    Attributes:
        spoken: whether there was any speech yet.
        silent_s: for how long there has been none.
    """

    def __init__(
        self,
        *,
        trailing_s: float = TRAILING_S,
        no_speech_s: float = NO_SPEECH_S,
        longest_s: float = LONGEST_S,
        speech: float = SPEECH,
    ) -> None:
        self.spoken = False
        self.silent_s = 0.0
        self._trailing_s = trailing_s
        self._no_speech_s = no_speech_s
        self._longest_s = longest_s
        self._speech = speech
        self._heard_s = 0.0
        self._speech_s = 0.0

    def hear(
        self, probability: float, span_s: float = _BLOCK_S, quiet_s: float = 0.0
    ) -> End | None:
        """The next `span_s` seconds; None as long as one should go on listening.

        Args:
            quiet_s: how long it has been no louder than the room: where that is what tells that
                nobody speaks, it began then, and not when it was long enough to tell.
        """
        self._heard_s += span_s
        if probability >= self._speech:
            self._speech_s += span_s
            self.silent_s = 0.0
            self.spoken = self.spoken or self._speech_s >= SHORTEST_SPEECH_S
        else:
            self._speech_s = 0.0
            self.silent_s = max(self.silent_s + span_s, quiet_s)
        if self.spoken and self.silent_s >= self._trailing_s:
            return End.FINISHED
        if not self.spoken and self._heard_s >= self._no_speech_s:
            return End.NO_SPEECH
        return End.TOO_LONG if self._heard_s >= self._longest_s else None
