"""Any word of the recogniser's vocabulary as wake word: Vosk in grammar mode, in two looks.

The first look runs all the time that somebody speaks. Its grammar is the wake word, many times
over, among competing words, so it misses little and takes much else for the wake word. The second
look is at that short stretch alone, with a grammar that does not favour the wake word: in Korean it
does not even contain it, but writes down the syllables that were said, which are compared with it.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from clients.i18n import _
from clients.voice import hangul
from clients.voice.errors import UnknownWord
from clients.voice.recogniser import Listening, Recogniser
from clients.voice.sound import RATE_HZ, Samples
from clients.voice.wake import Wake

UNKNOWN: Final = "[unk]"
"""What most Vosk models call a word they do not know: everything else, in a grammar."""
_FAVOUR: Final = 500
"""How often the wake word is in the first grammar; found on benchmarks/wake_word.py's dev set."""
_BEFORE_S: Final = 0.3
_AFTER_S: Final = 0.2
"""What the second look hears around the word."""
_SAME_S: Final = 0.4
"""A word that began within so much of another's beginning is the same, estimated again."""
_KEPT_S: Final = 4.0
_STRICT, _LENIENT = 0.4, 1.6
"""Distances that are still the wake word, at sensitivities 0 and 1."""
_COMMON: Final = {
    "en": "a an and are as at be but by for from have he i in is it its me my no not of on or she "
    "so that the they this to was we were what when who will with yes you your",
}
_N_NEAR: Final = 30


class GrammarWakeWord:
    """Listens for one or more words; a WakeWord.

    Args:
        sensitivity: 0 to 1; more of it misses less and wakes more often without cause.

    Raises UnknownWord, with near words, if the model lacks one of them.
    """

    def __init__(
        self, recogniser: Recogniser, words: Sequence[str], sensitivity: float = 0.5
    ) -> None:
        for word in words:
            _require(recogniser, word)
        self._recogniser = recogniser
        self._words = list(words)
        self._furthest = furthest(sensitivity)
        others = _competitors(recogniser, words)
        self._first = [*self._words * _FAVOUR, *others]
        self._second = [*others, *(word for word in words if not hangul.is_hangul(word))]
        self._checking = recogniser.listen(self._second)
        self._kept: deque[Samples] = deque()
        self.reset()

    def reset(self) -> None:
        """Silence: what comes next is another utterance."""
        self._listening: Listening = self._recogniser.listen(self._first)
        self._kept.clear()
        self._kept_from = 0  # sample number of the first that is kept
        self._heard = 0
        self._looked_at: list[float] = []

    @property
    def heard_anything(self) -> bool:
        """Whether there is anything to reset."""
        return self._heard > 0

    def hear(self, samples: Samples) -> Wake | None:
        """Listen to more, (n,) int16 at RATE_HZ, of one utterance."""
        self._keep(samples)
        heard = self._listening.hear(samples)
        now_s = self._heard / RATE_HZ
        oldest_s = self._kept_from / RATE_HZ
        self._looked_at = [start_s for start_s in self._looked_at if start_s >= oldest_s - _SAME_S]
        for word, start_s, end_s in heard.words:
            if word not in self._words or (not heard.final and now_s < end_s + _AFTER_S):
                continue
            if start_s < oldest_s:
                continue
            if any(abs(start_s - other_s) < _SAME_S for other_s in self._looked_at):
                continue
            self._looked_at.append(start_s)
            distance = self._look_again(word, start_s, end_s)
            if distance <= self._furthest:
                return Wake(word, self._between(end_s, now_s), distance)
        return None

    def _look_again(self, word: str, start_s: float, end_s: float) -> float:
        """How far what was said sounds from `word`."""
        self._checking.hear(self._between(start_s - _BEFORE_S, end_s + _AFTER_S))
        text = self._checking.finish().text
        if hangul.is_hangul(word):
            return hangul.distance(word, text)
        return 0.0 if word in text.split() else float("inf")

    def _keep(self, samples: Samples) -> None:
        self._kept.append(samples)
        self._heard += samples.size
        while self._heard - self._kept_from - self._kept[0].size > _KEPT_S * RATE_HZ:
            self._kept_from += self._kept.popleft().size

    def _between(self, from_s: float, to_s: float) -> Samples:
        kept = np.concatenate(self._kept)
        first = max(0, round(from_s * RATE_HZ) - self._kept_from)
        return kept[first : max(first, round(to_s * RATE_HZ) - self._kept_from)]


def furthest(sensitivity: float) -> float:
    """The distance up to which something is the wake word."""
    return _STRICT + sensitivity * (_LENIENT - _STRICT)


def _require(recogniser: Recogniser, word: str) -> None:
    if recogniser.knows(word):
        return
    near = recogniser.vocabulary.near(word)
    language = f" ({recogniser.language})" if recogniser.language else ""
    hint = (
        _("near words that it knows: {words}").format(words=", ".join(near))
        if near
        else _("choose a word of its language, as it is written there")
    )
    told = _("the recogniser's model{language} does not know the word {word!r}; {hint}")
    raise UnknownWord(told.format(language=language, word=word, hint=hint))


def _competitors(recogniser: Recogniser, words: Sequence[str]) -> list[str]:
    """What else may have been said: short, common or near words that the model knows."""
    if all(hangul.is_hangul(word) for word in words):
        others = hangul.open_syllables()
    else:
        others = _COMMON.get(recogniser.language, "").split()
        for word in words:
            others += recogniser.vocabulary.near(word, _N_NEAR)
        others.append(UNKNOWN)
    return [
        other for other in dict.fromkeys(others) if other not in words and recogniser.knows(other)
    ]
