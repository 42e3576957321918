"""clients.voice.grammar_wake: two looks, with a recogniser that hears what the test says."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from clients.voice.errors import UnknownWord
from clients.voice.grammar_wake import GrammarWakeWord
from clients.voice.recogniser import Heard
from clients.voice.sound import RATE_HZ, Samples

HALF = RATE_HZ // 2
KNOWN = {"jarvis", "jarred", "service", "the", "and", "[unk]", "자비스", "자", "비", "스", "가"}


class FakeListening:
    """Hears each of `script` in turn, whatever the sound is; then nothing."""

    def __init__(self, script: list[Heard], second: str) -> None:
        self.script, self.second = script, second
        self.heard: list[Samples] = []

    def hear(self, samples: Samples) -> Heard:
        self.heard.append(samples)
        return self.script.pop(0) if self.script else Heard("", [], False)

    def finish(self) -> Heard:
        return Heard(self.second, [], True)


class FakeVocabulary:
    def near(self, word: str, n: int = 5) -> list[str]:
        return ["service", "jarred"][:n] if word.startswith("j") else []


class FakeRecogniser:
    """A Recogniser whose second look writes down `second`."""

    language = "en"
    vocabulary = FakeVocabulary()

    def __init__(self, script: list[Heard], second: str = "") -> None:
        self.script, self.second = script, second
        self.grammars: list[Sequence[str]] = []
        self.made: list[FakeListening] = []

    def knows(self, word: str) -> bool:
        return word in KNOWN

    def listen(self, grammar: Sequence[str] | None = None) -> FakeListening:
        assert grammar is not None
        assert all(map(self.knows, grammar))
        self.grammars.append(grammar)
        self.made.append(FakeListening(self.script, self.second))
        return self.made[-1]


def block(n: int) -> Samples:
    """Half a second that can be told from others."""
    return np.full(HALF, n, np.int16)


def partial(word: str, start_s: float, end_s: float, *, final: bool = False) -> Heard:
    return Heard(word, [(word, start_s, end_s)], final)


def wake(recogniser: Any, *words: str, sensitivity: float = 0.5) -> GrammarWakeWord:
    return GrammarWakeWord(recogniser, words or ("jarvis",), sensitivity)


NOTHING = Heard("", [], False)


def test_the_word_and_what_follows_it() -> None:
    recogniser = FakeRecogniser([NOTHING, partial("jarvis", 0.5, 0.75)], "the jarvis")
    listener = wake(recogniser)
    assert listener.hear(block(1)) is None
    found = listener.hear(block(2))
    assert found is not None
    assert (found.word, found.distance) == ("jarvis", 0.0)
    assert found.after.size == RATE_HZ // 4  # from its end on
    assert (found.after == 2).all()
    (looked_at,) = recogniser.made[0].heard
    assert looked_at.size == pytest.approx((0.3 + 0.25 + 0.2) * RATE_HZ, abs=2)


def test_the_second_look_disagrees() -> None:
    listener = wake(FakeRecogniser([partial("jarvis", 0.0, 0.25)], "service"))
    assert listener.hear(block(1)) is None


def test_looked_at_once_only() -> None:
    again = [partial("jarvis", 0.1 + 0.05 * n, 0.25) for n in range(4)]
    recogniser = FakeRecogniser(again, "service")
    listener = wake(recogniser)
    for n in range(4):
        assert listener.hear(block(n)) is None
    assert len(recogniser.made[0].heard) == 1


def test_a_partial_word_waits_for_its_end() -> None:
    """What ends with the sound may go on; unless the recogniser says that it is final."""
    recogniser = FakeRecogniser([partial("jarvis", 0.2, 0.45)], "jarvis")
    assert wake(recogniser).hear(block(1)) is None
    final = FakeRecogniser([partial("jarvis", 0.2, 0.45, final=True)], "jarvis")
    assert wake(final).hear(block(1)) is not None


def test_korean_is_judged_by_its_sounds() -> None:
    said = [partial("자비스", 0.0, 0.25)]
    for second, sensitivity, wakes in [
        ("자 비 스", 0.0, True),
        ("차 비 스", 0.0, True),
        ("가 가", 0.5, False),
        ("자 비", 0.0, False),
        ("자 비", 0.5, False),
        ("차 비 시", 0.5, True),
        ("차 비 시", 0.0, False),
    ]:
        listener = wake(FakeRecogniser(said[:], second), "자비스", sensitivity=sensitivity)
        assert (listener.hear(block(1)) is not None) == wakes, (second, sensitivity)


def test_grammars() -> None:
    recogniser = FakeRecogniser([])
    wake(recogniser, "자비스", "jarvis")
    second, first = recogniser.grammars
    assert first.count("자비스") == first.count("jarvis") > 100
    assert "자비스" not in second  # it would be favoured
    assert "jarvis" in second
    assert {"service", "[unk]"} <= set(second)


def test_silence_begins_anew() -> None:
    recogniser = FakeRecogniser([NOTHING, partial("jarvis", 0.0, 0.25)], "jarvis")
    listener = wake(recogniser)
    assert not listener.heard_anything
    listener.hear(block(1))
    assert listener.heard_anything
    listener.reset()
    assert not listener.heard_anything
    found = listener.hear(block(2))  # times count from here
    assert found is not None
    assert (found.after == 2).all()


def test_sound_is_forgotten_in_the_end() -> None:
    recogniser = FakeRecogniser([NOTHING] * 20 + [partial("jarvis", 10.0, 10.25)], "jarvis")
    listener = wake(recogniser)
    for n in range(20):
        listener.hear(block(n))
    found = listener.hear(block(20))
    assert found is not None
    assert (found.after == 20).all()
    assert sum(piece.size for piece in listener._kept) <= 5 * RATE_HZ


def test_candidates_are_forgotten_in_the_end() -> None:
    """It may be noisy for days; and what is not kept cannot be looked at again."""
    said = [partial("jarvis", 0.5 * n, 0.5 * n + 0.25) for n in range(100)]
    all_of_them = Heard("", [word for heard in said for word in heard.words], False)
    script = [one for heard in said for one in (heard, NOTHING)]  # the second look hears, too
    recogniser = FakeRecogniser([*script, all_of_them])
    listener = wake(recogniser)
    for n in range(101):
        assert listener.hear(block(n)) is None
    assert len(listener._looked_at) < 20
    assert len(recogniser.made[0].heard) == 100


def test_unknown_words() -> None:
    with pytest.raises(UnknownWord, match=r"\(en\) does not know the word 'jarvix'") as raised:
        wake(FakeRecogniser([]), "jarvix")
    assert "near words that it knows: service, jarred" in str(raised.value)
    with pytest.raises(UnknownWord, match="choose a word of its language"):
        wake(FakeRecogniser([]), "xyzzy")
