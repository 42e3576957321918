"""Clips for the training, as embeddings: calls of each kind, and long stretches of anything else.

A clip follows from its kind and number alone.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import sounds
from benchmarks.sounds import Sound
from benchmarks.wake_features import STEP_S, WINDOW_S, Features
from benchmarks.wake_training import rooms, texts
from benchmarks.wake_training.voices import (
    FLITE_VOICES,
    Espeak,
    Hibari,
    Kokoro,
    Said,
    as_said_by_another,
    flite,
    phonemes,
)
from clients.voice.small_network import Embeddings
from clients.voice.sound import RATE_HZ

CALLS = ("자비스", "hey jarvis", "jarvis")
"""Kinds of clips that hold one call."""
OTHERS = (
    "Korean",
    "English",
    "any language",
    "neural English",
    "Jarvis",
    "sounds",
    "near Korean",
    "near English",
)
"""Kinds of clips that hold none; "Jarvis" is the name in sentences, without "hey"."""
SURE_S = 0.45
"""So long after the end of a call it should have been noticed."""


@dataclass(frozen=True)
class Clip:
    """One clip.

    Attributes:
        embeddings: (n, 96), float16.
        call: the first and last embedding with which a call should be noticed; None without one.
        before: embeddings up to this one hold nothing of the call.
    """

    embeddings: Embeddings
    call: tuple[int, int] | None = None
    before: int = 0


class Studio:
    """Makes clips; one for each process.

    Args:
        folder: the unpacked wheels of the neural voices.
        kept: where Kokoro's sentences are kept, which are dear; each is in several clips.
    """

    def __init__(self, folder: Path, kept: Path) -> None:
        self._kept_in = kept
        self._espeak = Espeak()
        self._kokoro = Kokoro(folder)
        self._hibari = Hibari(folder)
        self._features = Features()

    def make(self, kind: str, number: int) -> Clip:
        """A clip of a kind."""
        r = random.Random(f"{kind} {number}")
        return self._call(kind, r) if kind in CALLS else self._other(kind, r)

    # calls

    def _call(self, kind: str, r: random.Random) -> Clip:
        said, end_s = self._said_call(kind, r)
        if r.random() < 0.4:
            factor = r.uniform(0.87, 1.15)
            said, end_s = as_said_by_another(said, factor), end_s / factor
        said = Said(sounds.at_level(said.sound, 0))
        lead = self._lead(kind, r)
        tail = np.zeros(round(r.uniform(0.7, 1.2) * RATE_HZ), np.float32)
        sound = rooms.heard(np.concatenate([lead, said.sound, tail]), r)
        begin_s = lead.size / RATE_HZ
        first = int(np.ceil((begin_s + end_s - WINDOW_S) / STEP_S))
        last = int((begin_s + end_s + SURE_S - WINDOW_S) / STEP_S)
        embeddings = self._embeddings(sound)
        return Clip(
            embeddings,
            (first, min(last, len(embeddings) - 1)),
            max(0, int((begin_s - WINDOW_S) / STEP_S)),
        )

    def _lead(self, kind: str, r: random.Random) -> Sound:
        """What is before a call: 1.3 s at least, so that it fills a window's beginning."""
        if r.random() < 0.6:
            return np.zeros(round(r.uniform(1.3, 2.0) * RATE_HZ), np.float32)
        speak = texts.korean if kind == "자비스" else texts.english
        language = "ko" if kind == "자비스" else r.choice(texts.ENGLISH_ACCENTS)
        before = self._espeak.say(speak(r), language, r).sound
        before = sounds.at_level(before[-round(r.uniform(0.4, 2.0) * RATE_HZ) :], r.uniform(-9, 0))
        gap = np.zeros(round(r.uniform(0.1, 0.9) * RATE_HZ), np.float32)
        whole = np.concatenate([before, gap])
        missing = max(0, round(1.3 * RATE_HZ) - whole.size)
        return np.concatenate([np.zeros(missing, np.float32), whole])

    def _said_call(self, kind: str, r: random.Random) -> tuple[Said, float]:
        """A call with or without a question, and where it ends."""
        korean = kind == "자비스"
        question = r.choice(texts.KOREAN_QUESTIONS if korean else texts.ENGLISH_QUESTIONS)
        if r.random() < 0.35:
            question = ""
        which = r.random()
        if which < 0.62:
            text = {"자비스": texts.KOREAN_CALLS, "hey jarvis": texts.HEY_CALLS}
            call = r.choice(text.get(kind, texts.JARVIS_CALLS))
            language = "ko" if korean else r.choice(texts.ENGLISH_ACCENTS)
            between = r.choice([", ", " "])
            said = self._espeak.say(f"{call}{between}{question}".strip(", "), language, r)
            if not question:
                return said, said.seconds
            return said, _end_before(said, said.words_s[len(call.split())])
        if which < 0.72 and kind != "jarvis":
            spelt = texts.IN_OTHER_LETTERS if korean else texts.HEY_IN_OTHER_LETTERS
            language = r.choice(list(spelt))
            call_said = self._espeak.say(spelt[language], language, r)
            asked = self._espeak.say(question, language, r).sound if question else None
        elif which < 0.90 or korean:
            ipa = {"자비스": texts.KOREAN_IPA, "hey jarvis": texts.HEY_IPA}
            one = ipa.get(kind, texts.JARVIS_IPA)
            call_said = self._neural(kind, r.randrange(45), lambda s: s.choice(one))
            asked = None
            if question and r.random() < 0.7:  # whoever says it: it comes after the call
                language = "ko" if korean else r.choice(texts.ENGLISH_ACCENTS)
                asked = self._espeak.say(question, language, r).sound
        else:
            call = "hey jarvis" if kind == "hey jarvis" else "jarvis"
            stretch, hz = r.uniform(0.75, 1.5), r.uniform(70, 240)
            if r.random() < 0.5:
                voice = r.choice(FLITE_VOICES)
                call_said = flite(call, voice, stretch, hz)
                asked = flite(question, voice, stretch, hz).sound if question else None
            else:
                call_said = self._hibari.say(call, 1 / stretch)
                asked = self._hibari.say(question, 1 / stretch).sound if question else None
        end_s = call_said.seconds
        if asked is None:
            return call_said, end_s
        gap = np.zeros(round(r.choice([0, r.uniform(0, 0.3)]) * RATE_HZ), np.float32)
        parts = [sounds.at_level(call_said.sound, 0), gap, sounds.at_level(asked, 0)]
        return Said(np.concatenate(parts)), end_s

    # anything else

    def _other(self, kind: str, r: random.Random) -> Clip:
        """About a minute."""
        parts: list[Sound] = []
        if kind == "sounds":
            n = 40 * RATE_HZ
            sound = rooms.noise(n, r.uniform(-45, -18), r)
            return Clip(self._embeddings(sound))
        while sum(part.size for part in parts) < 50 * RATE_HZ:
            said = self._said_other(kind, r)
            if r.random() < 0.4:
                said = as_said_by_another(said, r.uniform(0.87, 1.15))
            gap = np.zeros(round(r.uniform(0.05, 1.2) * RATE_HZ), np.float32)
            parts += [sounds.at_level(said.sound, r.choice([0, 0, r.uniform(-10, 6)])), gap]
        third = len(parts) // 3
        whole = [
            rooms.heard(np.concatenate(some), r)
            for some in (parts[:third], parts[third : 2 * third], parts[2 * third :])
        ]
        return Clip(self._embeddings(np.concatenate(whole)))

    def _said_other(self, kind: str, r: random.Random) -> Said:
        if kind == "Korean":
            return self._espeak.say(texts.korean(r), "ko", r)
        if kind == "English":
            return self._espeak.say(texts.english(r), r.choice(texts.ENGLISH_ACCENTS), r)
        if kind == "near Korean":
            return self._espeak.say(texts.near_korean(r), "ko", r)
        if kind == "near English":
            return self._espeak.say(texts.near_english(r), r.choice(texts.ENGLISH_ACCENTS), r)
        if kind == "any language":
            language = r.choice(list(texts.IN_OTHER_LETTERS))
            return self._espeak.say(texts.english(r), language, r)
        text = texts.as_a_name(r) if kind == "Jarvis" else texts.english(r)
        which = r.random()
        if kind == "Jarvis" and which < 0.6:
            return self._espeak.say(text, r.choice(texts.ENGLISH_ACCENTS), r)
        if which < 0.6:
            return self._hibari.say(text, r.uniform(0.7, 1.4))
        if which < 0.8 and kind != "Jarvis":
            return self._neural(
                kind, r.randrange(20), lambda s: phonemes(texts.english(s), "en-us")
            )
        return flite(text, r.choice(FLITE_VOICES), r.uniform(0.75, 1.3), r.uniform(70, 240))

    def _neural(self, kind: str, number: int, ipa: Callable[[random.Random], str]) -> Said:
        """The sentence of this number, by Kokoro."""
        path = self._kept_in / f"{kind.replace(' ', '-')}-{number}.npy"
        if not path.exists():
            r = random.Random(f"Kokoro {kind} {number}")
            said = self._kokoro.say(ipa(r), self._kokoro.mixed(r), r.uniform(0.7, 1.4))
            part = path.with_suffix(f".{os.getpid()}")
            with part.open("wb") as file:
                np.save(file, said.sound.astype(np.float16))
            part.replace(path)
        return Said(np.load(path).astype(np.float32))

    def _embeddings(self, sound: Sound) -> Embeddings:
        # pieces of half a second, so that the networks need not be laid out anew each time
        whole = sound.size // 8000 * 8000
        return self._features.of(sounds.as_samples(sound[:whole])).astype(np.float16)


def _end_before(said: Said, next_word_s: float) -> float:
    """Where a word ends that another follows: before the pause between, if there is one."""
    before = np.abs(said.sound[: round(next_word_s * RATE_HZ)])
    return (np.flatnonzero(before > 0.03 * before.max())[-1] + 1) / RATE_HZ
