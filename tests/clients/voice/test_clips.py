"""clients.voice.clips: WAV files in and out; with real voices in tests/e2e/web/gateway/."""

import io
import wave
from collections.abc import Iterator

import numpy as np
import pytest

from clients.voice.clips import BadSound, NotWanted, samples_of, speak
from clients.voice.sound import RATE_HZ, Samples
from clients.voice.speech import Voice


def wav(seconds: float, rate_hz: int = RATE_HZ, channels: int = 1, width: int = 2) -> bytes:
    """A file with a tone."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    tone = (8000 * np.sin(2 * np.pi * 440 * t)).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(tone.tobytes() * channels)
    return out.getvalue()


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
def test_any_rate_becomes_the_recognisers(rate_hz: int) -> None:
    samples = samples_of(wav(0.5, rate_hz))
    assert samples.dtype == np.int16 and abs(len(samples) - RATE_HZ / 2) <= 2
    spectrum = np.abs(np.fft.rfft(samples))
    assert abs(int(spectrum.argmax()) * RATE_HZ / len(samples) - 440) < 3


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"RIFF",
        b"no sound at all",
        wav(0.1)[:40],
        wav(0.1, channels=2),
        wav(0.1, width=1),
        wav(0.1, rate_hz=4_000),
        wav(0.1, rate_hz=200_000),
        wav(121.0, rate_hz=8_000),
    ],
    ids=lambda broken: f"{len(broken)} bytes",
)
def test_what_is_no_sound(broken: bytes) -> None:
    with pytest.raises(BadSound):
        samples_of(broken)


def test_a_file_that_is_cut_off_is_heard_as_far_as_it_goes() -> None:
    assert 0 < len(samples_of(wav(0.5)[:-4001])) < RATE_HZ / 2


class Tones(Voice):
    """A voice that says each text as so many samples."""

    name, language, rate_hz = "tones", "en", 22_050

    def __init__(self) -> None:
        self.said: list[str] = []

    def warm(self) -> None:
        pass

    def speak(self, text: str) -> Iterator[Samples]:
        self.said.append(text)
        yield np.full(len(text), 7, np.int16)

    def close(self) -> None:
        pass


def test_a_text_is_said_without_its_markup() -> None:
    voice = Tones()
    sound = speak(voice, "**Hello** there. It has `2` parts.\n\n- one", "en", lambda: True)
    assert "".join(voice.said).count("*") == 0 and len(voice.said) >= 2
    with wave.open(io.BytesIO(sound), "rb") as file:
        assert file.getframerate() == 22_050 and file.getnchannels() == 1
        assert file.getnframes() == sum(map(len, voice.said))


def test_nothing_to_say() -> None:
    with wave.open(io.BytesIO(speak(Tones(), " \n", "en", lambda: True)), "rb") as file:
        assert file.getnframes() == 0


def test_nobody_waits() -> None:
    voice = Tones()
    with pytest.raises(NotWanted):
        speak(voice, "One. Two. Three.", "en", lambda: len(voice.said) < 2)
    assert len(voice.said) == 2
