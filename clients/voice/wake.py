"""Wake words, whatever hears them: a network that was trained for one, or the recogniser.

A trained network misses less and takes less for its word, and there are few of them; the
recogniser's grammar takes any word that its model knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from clients.voice.sound import Samples


@dataclass(frozen=True)
class Wake:
    """The wake word was heard.

    Attributes:
        word: which.
        after: (n,) int16: what has been heard since its end.
        distance: how far it sounded from the word; its scale is that of who heard it.
    """

    word: str
    after: Samples
    distance: float


class WakeWord(Protocol):
    """Listens for one or more words."""

    def reset(self) -> None:
        """Silence: what comes next is another utterance."""

    @property
    def heard_anything(self) -> bool:
        """Whether there is anything to reset."""

    def hear(self, samples: Samples) -> Wake | None:
        """Listen to more, (n,) int16 at RATE_HZ, of one utterance."""


class AnyWakeWord:
    """Several listeners as one; the first that hears its word wakes."""

    def __init__(self, listeners: Sequence[WakeWord]) -> None:
        self._listeners = listeners

    def reset(self) -> None:
        """As in WakeWord."""
        for listener in self._listeners:
            listener.reset()

    @property
    def heard_anything(self) -> bool:
        """As in WakeWord."""
        return any(listener.heard_anything for listener in self._listeners)

    def hear(self, samples: Samples) -> Wake | None:
        """As in WakeWord."""
        # all of them, as each must hear everything
        found = [listener.hear(samples) for listener in self._listeners]
        return next((wake for wake in found if wake is not None), None)
