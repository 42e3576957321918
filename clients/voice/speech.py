"""What a voice is, and how its sound is made to follow on: no long silence, no clicks, a pause."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from clients.voice.sound import Samples

PAUSE_S: Final = 0.2
"""Silence after a sentence."""
SHORT_PAUSE_S: Final = 0.1
"""Silence after a clause, where a long sentence was cut."""
_LEAD_S: Final = 0.02
"""Silence that may remain before the first sound."""
_EDGE_S: Final = 0.005
_QUIET: Final = 150
"""Samples of no more than this, of 32767, are silence: -47 dBFS."""


class Voice(ABC):
    """Speaks one language; the sound comes while it is made."""

    name: str
    language: str
    rate_hz: int
    speed: float = 1.0
    """2.0 speaks in half the time; counts from the next speak() on."""

    @abstractmethod
    def warm(self) -> None:
        """Load what is needed, so that the first sentence does not wait for it.

        Raises:
            VoiceError: as for speak().
        """

    @abstractmethod
    def speak(self, text: str) -> Iterator[Samples]:
        """The sound of `text`, plain text of a sentence or more, with a pause at its end.

        Closing the iterator stops the voice.

        Returns:
            Pieces of (n,) int16 at rate_hz; none if there is nothing to say.

        Raises:
            MissingPart: the program or package is not installed.
            ModelBroken: the voice cannot be loaded.
            VoiceError: it failed while speaking.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop and free everything, from any thread; speak() then ends early."""


def sayable(text: str) -> str:
    """`text` without what espeak-ng, alone or inside Piper, takes as orders: [[phonemes]]."""
    text = "".join(character if character.isprintable() else " " for character in text)
    return text.replace("[[", "[ [").strip()


def tidy(pieces: Iterable[Samples], rate_hz: int, text: str) -> Iterator[Samples]:
    """The sound of `text` without long silence around it, faded in, and with a pause at its end.

    Passes sound on at once, but holds silence back until it is known not to be the end.
    """
    lead, edge = round(_LEAD_S * rate_hz), round(_EDGE_S * rate_hz)
    silence = np.zeros(0, np.int16)  # what came since the last sound
    started = False
    for piece in pieces:
        held = np.concatenate([silence, piece])
        loud = np.flatnonzero(np.abs(held.astype(np.int32)) > _QUIET)
        if not loud.size:
            silence = held if started else held[-lead:]
            continue
        end = int(loud[-1]) + 1
        sound, silence = held[:end], held[end:]
        if not started:
            started = True
            sound = _faded_in(sound[max(0, int(loud[0]) - lead) :], edge)
        yield sound
    if started:
        pause = SHORT_PAUSE_S if text.rstrip().endswith((",", ";", ":", "、", "，")) else PAUSE_S
        yield _fading_out(silence, edge, round(pause * rate_hz))


def _faded_in(sound: Samples, edge: int) -> Samples:
    n = min(edge, len(sound))
    faded = sound.copy()
    faded[:n] = (sound[:n] * np.linspace(0, 1, n, endpoint=False)).astype(np.int16)
    return faded


def _fading_out(silence: Samples, edge: int, length: int) -> Samples:
    """The pause: what is left of the voice's own silence, fading, and nothing after it."""
    out = np.zeros(length, np.int16)
    n = min(2 * edge, len(silence), length)
    if n:
        out[:n] = (silence[:n] * np.linspace(1, 0, n)).astype(np.int16)
    return out
