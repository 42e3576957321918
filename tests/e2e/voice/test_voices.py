"""Real voices say written answers; another recogniser must understand them.

Run with `-s` to see what was heard and the figures.
"""

import statistics
import subprocess
import sys
import time

import numpy as np
import pytest

from clients.voice.espeak import EspeakVoice
from clients.voice.speech import Voice
from clients.voice.spoken import SpokenText
from clients.voice.voices import open_voice
from tests.e2e.voice.judge import edits, transcribe, word_error_rate, words_of

pytestmark = pytest.mark.voice

WRITTEN = [
    "The capital of South Korea is Seoul, and about 9.4 million people live there.",
    "It is **7:30 PM** now, so the shop closes in 30 minutes.",
    "The tickets cost $5.20 each, or $18 for four people.",
    "Dr. Smith will see you on 2026-11-25 at 10 a.m.",
    "The road is 12 km long, and the speed limit is 60 km/h.",
    "Water boils at 100°C and freezes at 0°C.",
    "About 3-5 people can sit at this table.",
    "She finished in 2nd place, and her brother came in 21st.",
    "You can find more at [the museum's page](https://www.example.com/visit).",
    "Use fresh fruit, e.g. apples, pears, or plums.",
    "The war lasted from 1939 to 1945.",
    "Add 1/2 cup of sugar and 3/4 cup of milk.",
    "- Wash the vegetables.\n- Cut them into small pieces.",
    "1. Open the window\n2. Let the fresh air in",
    "My phone has 128 GB of storage and 8 GB of memory.",
    "Only 5% of the students failed the test.",
    "The tower is 324 meters tall and was built in 1889.",
    "Please call me tomorrow at 555-1234.",
    "Mr. Brown and Mrs. Green live next door.",
    "The temperature will drop to -5 degrees tonight.",
    "## Weather\nIt will rain in the afternoon, so take an umbrella.",
    "That is a great idea! 🎉 Let us start tomorrow.",
    "He bought 2.5 kg of potatoes, 6 eggs, and a loaf of bread.",
    "The *quick* brown fox jumps over the lazy dog.",
    "In 2008, the company had 1,200 workers.",
    "A day has 24 hours, or 1,440 minutes.",
    "Light travels about 300,000 kilometers in one second.",
    "To stop the program, press `control` and `C` at the same time.",
    "The meeting is on November 3rd, i.e. next Tuesday.",
    "Shakespeare wrote 37 plays, 154 sonnets, etc.",
]
KOREAN = [
    "지금은 오후 3시 30분입니다.",
    "오늘 서울의 기온은 20°C이고 오후에 비가 오겠습니다.",
    "사과 3개와 우유 2병을 사 주세요.",
    "회의는 11월 25일 수요일에 있습니다.",
]


def said_and_heard(voice: Voice, text: str) -> tuple[list[str], list[str]]:
    """The words that the voice was given for a written text, and those that were heard."""
    stream = SpokenText(voice.language)
    pieces = stream.feed(text) + stream.finish()
    sound = np.concatenate([samples for piece in pieces for samples in voice.speak(piece)])
    heard = transcribe(sound, voice.rate_hz, voice.language)
    said = " ".join(pieces)
    result = words_of(said, voice.language), words_of(heard, voice.language)
    print(f"{word_error_rate(*result):5.0%}  {said}  |  {heard}")
    return result


def error_rate_of(voice: Voice, texts: list[str]) -> float:
    pairs = [said_and_heard(voice, text) for text in texts]
    rate = sum(edits(*pair) for pair in pairs) / sum(len(said) for said, _ in pairs)
    print(f"{voice.name}: word error rate {rate:.1%}")
    return rate


def test_piper_is_understood() -> None:
    voice = open_voice(None, "en")
    assert not isinstance(voice, EspeakVoice)
    assert error_rate_of(voice, WRITTEN) <= 0.20


def test_espeak_is_understood_somewhat() -> None:
    # a recogniser trained on people understands a formant synthesizer less well than people do
    assert error_rate_of(EspeakVoice("en"), WRITTEN) <= 0.50


def test_korean_is_spoken() -> None:
    # espeak-ng's Korean is poor: what is measured is that it is Korean at all
    assert error_rate_of(EspeakVoice("ko"), KOREAN) < 0.9


@pytest.mark.parametrize(("name", "limit_ms"), [(None, 500), ("espeak-ng", 200)])
def test_first_sound_comes_soon(name: str | None, limit_ms: float) -> None:
    voice = open_voice(name, "en")
    voice.warm()
    times_ms = []
    for _ in range(20):
        begun = time.perf_counter()
        sound = voice.speak("It is half past seven.")
        next(sound)
        times_ms.append(1000 * (time.perf_counter() - begun))
        for _ in sound:
            pass
    median = statistics.median(times_ms)
    print(
        f"{voice.name}: first sound after {median:.0f} ms (median of 20; max {max(times_ms):.0f})"
    )
    assert median < limit_ms


def test_piper_memory() -> None:
    # in a process of its own: the recogniser's memory is not the voice's
    code = """
from clients.voice.voices import open_voice
def rss_mib():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
voice = open_voice(None, "en")
before = rss_mib()
voice.warm()
for _ in range(3):
    for n in range(1, 5):
        list(voice.speak("the long way home that everyone takes when it rains, " * n))
print(rss_mib() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    added_mib = float(done.stdout)
    print(f"Piper adds {added_mib:.0f} MiB")
    assert added_mib < 300
