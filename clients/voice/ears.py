"""Ears: blocks of sound in, what was meant out. Waits for the wake word, or takes dictation.

Owns the order in which a block is heard: echo canceller, gate, then wake word or dictation. It
computes, and knows nothing of devices, of the daemon or of the event loop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Final

import numpy as np

from clients.voice.echo import EchoCanceller
from clients.voice.endpoint import End, Endpointer
from clients.voice.gate import Gate
from clients.voice.interruption import Interruption
from clients.voice.recogniser import Listening, Recogniser
from clients.voice.sound import Samples
from clients.voice.wake import WakeWord

_GATE_HANGOVER_S: Final = 0.8
"""People pause within "Jarvis, … what time is it?"; the wake word's recogniser hears it as one."""

_QUIET_S: Final = 0.15
"""After so long no louder than the room it is silence, of which the voice detector is sure only
0.6 s after the last word."""


@dataclass(frozen=True)
class Woke:
    """Somebody said the wake word."""

    word: str
    distance: float


@dataclass(frozen=True)
class SpokeOver:
    """Somebody speaks while the assistant does."""


@dataclass(frozen=True)
class Partly:
    """What has been understood so far of an utterance that goes on."""

    text: str


@dataclass(frozen=True)
class Said:
    """An utterance has ended.

    Attributes:
        text: what was understood; empty if nothing was.
        end: why it ended.
        silent_s: for how long there had been no speech then.
        recognition_s: how long the recogniser took to finish after that.
    """

    text: str
    end: End
    silent_s: float
    recognition_s: float


Event = Woke | SpokeOver | Partly | Said


class Ears:
    """What hears, for one room.

    Args:
        recogniser: shared by wake word and dictation.
        wake: None if only a button starts a dictation.
        canceller: None where no echo is cancelled; then nobody can speak over an answer.
        use_gate: False lets the recogniser hear everything, to measure what the gate saves.
        is_command: whether a text is all of a command; silence then ends it, though it was said
            before the dictation began.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        wake: WakeWord | None,
        canceller: EchoCanceller | None,
        *,
        silence_s: float,
        use_gate: bool = True,
        is_command: Callable[[str], bool] = lambda text: False,
    ) -> None:
        self.gate = Gate(hangover_s=_GATE_HANGOVER_S)
        self._recogniser = recogniser
        self._wake = wake
        self._interruption = Interruption(canceller) if canceller is not None else None
        self._silence_s = silence_s
        self._use_gate = use_gate
        self._is_command = is_command
        self._was_open = False
        self._wake_is_fresh = True
        self._dictation: _Dictation | None = None
        self._after: Samples = np.zeros(0, np.int16)

    @property
    def dictating(self) -> bool:
        """Whether an utterance is being taken down; else the wake word is waited for."""
        return self._dictation is not None

    @property
    def silent_s(self) -> float:
        """While dictating: for how long there has been no speech."""
        return self._dictation.silent_s if self._dictation is not None else 0.0

    def dictate(self, patience_s: float, before: Samples | None = None) -> None:
        """Take down what is said next.

        Args:
            patience_s: how long to wait for speech.
            before: (n,) int16: what was heard of it already.
        """
        self._dictation = _Dictation(
            self._recogniser, self._silence_s, patience_s, before, self._is_command
        )

    def wait(self) -> None:
        """Stop dictating, and wait for the wake word."""
        self._dictation = None
        self._wake_is_fresh = False  # hear(), which may be under way in its thread, sees to it

    def hear(self, block: Samples, reference: Samples | None) -> list[Event]:
        """Hear (BLOCK,) int16 at RATE_HZ.

        Args:
            reference: what the assistant played meanwhile, same shape; None while it is silent.
        """
        spoken_over = False
        cleaned = False
        if reference is not None and self._interruption is not None:
            spoken_over = self._interruption.hear(block, reference)
            assert self._interruption.cleaned is not None
            block, cleaned = self._interruption.cleaned, True
        elif self._interruption is not None:
            self._interruption.silence()
        self.gate.hear(block, cleaned=cleaned)
        dictation = self._dictation  # the event loop may end it at any time
        if dictation is not None:
            quiet_s = self.gate.quiet_s
            return dictation.hear(
                block, 0.0 if quiet_s > _QUIET_S else self.gate.probability, quiet_s
            )
        woke = self._listen_for_wake_word(block)
        if woke is not None:
            return [woke]
        return [SpokeOver()] if spoken_over else []

    def recent(self) -> Samples:
        """(n,) int16: the last second."""
        return self.gate.preroll()

    def _listen_for_wake_word(self, block: Samples) -> Woke | None:
        if self._wake is None:
            return None
        if not self._wake_is_fresh:
            self._wake_is_fresh = True
            self._wake.reset()
            self._was_open = False
        is_open = self.gate.open or not self._use_gate
        opened, self._was_open = is_open and not self._was_open, is_open
        if not is_open:
            if self._wake.heard_anything:
                self._wake.reset()
            return None
        found = self._wake.hear(self.gate.preroll() if opened and self._use_gate else block)
        if found is None:
            return None
        self._after = found.after
        return Woke(found.word, found.distance)

    @property
    def after_wake_word(self) -> Samples:
        """(n,) int16: what had been heard since the wake word when Woke was returned."""
        return self._after


class _Dictation:
    """One utterance."""

    def __init__(
        self,
        recogniser: Recogniser,
        silence_s: float,
        patience_s: float,
        before: Samples | None,
        is_command: Callable[[str], bool],
    ) -> None:
        self._silence_s, self._is_command = silence_s, is_command
        self._recogniser = recogniser
        self._before = before  # heard with the first block: it takes a while, and others wait now
        self._endpointer = Endpointer(trailing_s=silence_s, no_speech_s=patience_s)
        self._sentences: list[str] = []
        self._shown = ""

    @property
    def silent_s(self) -> float:
        return self._endpointer.silent_s

    @cached_property
    def _listening(self) -> Listening:
        """Made with the first block, too: Vosk takes some 50 ms for it."""
        return self._recogniser.listen()

    def hear(self, block: Samples, probability: float, quiet_s: float) -> list[Event]:
        if self._before is not None:
            block, self._before = np.concatenate([self._before, block]), None
        heard = self._listening.hear(block)
        if heard.final and heard.text:
            self._sentences.append(heard.text)
        so_far = " ".join([*self._sentences, *([] if heard.final else [heard.text])]).strip()
        end = self._endpointer.hear(probability, quiet_s=quiet_s)
        if end is not None:
            return [self._end(end)]
        if so_far != self._shown:
            self._shown = so_far
            return [Partly(so_far)]
        # "Jarvis, stop" in one breath is over before the wake word was understood
        if self._endpointer.silent_s >= self._silence_s and self._is_command(so_far):
            return [self._end(End.FINISHED)]
        return []

    def _end(self, end: End) -> Said:
        started = perf_counter()
        text = ""
        if end is not End.NO_SPEECH:
            text = " ".join([*self._sentences, self._listening.finish().text]).strip()
        return Said(text, end, self._endpointer.silent_s, perf_counter() - started)
