"""clients.voice.ears: what is taken down, with a recogniser that hears what the test says."""

from typing import Any

import numpy as np
import pytest

from clients.voice.commands import parse
from clients.voice.ears import Ears, Partly, Said
from clients.voice.endpoint import End
from clients.voice.recogniser import Heard
from clients.voice.sound import BLOCK, RATE_HZ
from tests.clients.voice.signals import blocks, noise, silence

pytest.importorskip("pymicro_vad")
SILENCE_S, PATIENCE_S = 0.5, 4.0
BEFORE = silence(0.6)


class OneText:
    """A Recogniser, and what listens, that understands `text` as soon as it hears anything."""

    def __init__(self, text: str) -> None:
        self.text = text

    def listen(self) -> "OneText":
        return self

    def hear(self, samples: Any) -> Heard:
        return Heard(self.text, [], False)

    def finish(self) -> Heard:
        return Heard(self.text, [], True)


def dictation(text: str) -> tuple[list[Partly | Said], float]:
    """What a dictation gives of which `text` was said before it began, and after which seconds."""
    recogniser: Any = OneText(text)
    ears = Ears(
        recogniser,
        None,
        None,
        silence_s=SILENCE_S,
        is_command=lambda text: parse(text, "en") is not None,
    )
    ears.dictate(PATIENCE_S, BEFORE)
    found: list[Any] = []
    for n, block in enumerate(blocks(noise(PATIENCE_S + 1, -70)), 1):
        found += ears.hear(block, None)
        if found and isinstance(found[-1], Said):
            return found, n * BLOCK / RATE_HZ
    raise AssertionError(found)


def test_a_command_in_one_breath_with_the_wake_word() -> None:
    """It is over before the wake word is understood; no speech comes after it."""
    (partly, said), after_s = dictation("stop")
    assert partly == Partly("stop")
    assert isinstance(said, Said)
    assert (said.text, said.end) == ("stop", End.FINISHED)
    assert after_s == pytest.approx(SILENCE_S, abs=0.05)


def test_the_end_of_the_wake_word_is_no_question() -> None:
    """Other words wait for more, as somebody may be thinking."""
    (_, said), after_s = dictation("is")
    assert isinstance(said, Said)
    assert (said.text, said.end) == ("", End.NO_SPEECH)
    assert after_s == pytest.approx(PATIENCE_S, abs=0.05)
    assert np.isclose(said.silent_s, PATIENCE_S, atol=0.05)
