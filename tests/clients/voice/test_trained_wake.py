"""clients.voice.trained_wake, with the real networks and espeak-ng's English voices."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from clients.voice import trained_wake
from clients.voice.app import default_wake_words
from clients.voice.errors import ModelBroken
from clients.voice.sound import BLOCK, RATE_HZ, Samples, resample
from clients.voice.trained_wake import (
    HEY_JARVIS,
    TrainedWakeWord,
    is_trained,
    least_probability,
)
from clients.voice.wake import AnyWakeWord, Wake, WakeWord

pytest.importorskip("pyopen_wakeword")

JABISEU = "자비스"


def said(text: str, voice: str = "en-us+m3") -> Samples:
    """(n,) int16 at RATE_HZ: without the silence around it."""
    wav = subprocess.run(
        ["espeak-ng", "-v", voice, "-s", "150", "--stdout", text], capture_output=True, check=True
    ).stdout
    rate_hz = int.from_bytes(wav[24:28], "little")
    sound = resample(np.frombuffer(wav[44:], np.int16), rate_hz, RATE_HZ)
    loud = np.flatnonzero(np.abs(sound.astype(np.int32)) > 300)
    return sound[loud[0] : loud[-1] + 1]


def noise(seconds: float) -> Samples:
    """A quiet room."""
    rng = np.random.default_rng(3)
    return (rng.normal(size=round(seconds * RATE_HZ)) * 12).astype(np.int16)


def hear(listener: WakeWord, *sounds: Samples) -> tuple[Wake | None, int]:
    """The first wake, and after how many samples it came."""
    whole = np.concatenate(sounds)
    for first in range(0, whole.size - BLOCK + 1, BLOCK):
        found = listener.hear(whole[first : first + BLOCK])
        if found is not None:
            return found, first + BLOCK
    return None, whole.size


@pytest.mark.voice
@pytest.mark.parametrize("voice", ["en-us+m3", "en-gb+f2", "en-gb-scotland+m1", "ko+m3", "ko+f2"])
def test_the_word_and_what_follows_it(voice: str) -> None:
    """Both words are listened for, and the one that was said is told."""
    listener = TrainedWakeWord([HEY_JARVIS, JABISEU])
    korean = voice.startswith("ko")
    word = said("자비스" if korean else "Hey Jarvis", voice)
    question = said(
        "프랑스의 수도는 어디예요" if korean else "what is the capital of France", voice
    )
    pause = noise(0.2)
    before = noise(1.5)
    found, heard = hear(listener, before, word, pause, question, noise(1.0))
    assert found is not None
    assert found.word == (JABISEU if korean else HEY_JARVIS)
    assert found.distance <= 0.5
    end = before.size + word.size
    assert end - 0.2 * RATE_HZ < heard < end + 0.8 * RATE_HZ
    # the question is all there, and of the word not more than its last sound
    after_began = heard - found.after.size
    assert end - 0.15 * RATE_HZ < after_began <= end + pause.size


@pytest.mark.voice
def test_other_words_do_not_wake() -> None:
    listener = TrainedWakeWord([HEY_JARVIS, JABISEU])
    for text, voice in (
        ("hey Martin", "en-us+m3"),
        ("the service is closed", "en-us+m3"),
        ("what is the capital of France", "en-us+m3"),
        ("서비스 센터에 전화했어요", "ko+m3"),
        ("자동차 수리비가 많이 나왔어요", "ko+f2"),
    ):
        found, _ = hear(listener, noise(1.5), said(text, voice), noise(1.0))
        assert found is None, text
        listener.reset()
    assert not listener.heard_anything


@pytest.mark.voice
def test_it_wakes_again_and_once_for_each() -> None:
    """What was heard before reset() does not wake a second time."""
    listener = TrainedWakeWord([HEY_JARVIS])
    word = said("Hey Jarvis")
    for _turn in range(3):
        found, _ = hear(listener, noise(1.5), word, noise(1.0))
        assert found is not None
        listener.reset()
        found, _ = hear(listener, noise(2.0))
        assert found is None
        listener.reset()


@pytest.mark.voice
def test_sensitivity() -> None:
    assert least_probability(0.9) < least_probability(0.5) < least_probability(0.1)
    assert least_probability(1.0) > 0
    assert least_probability(0.0) < 1
    sound = (noise(1.5), said("Hey Jarvis"), noise(1.0))
    assert hear(TrainedWakeWord([HEY_JARVIS], 0.9), *sound)[0] is not None


def test_which_words() -> None:
    assert is_trained("Hey Jarvis")
    assert is_trained("~/words/computer.tflite")
    assert not is_trained("jarvis")
    assert is_trained(JABISEU)


def test_what_a_recogniser_knows_is_left_to_it_without_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert default_wake_words("ko", grammar=False) == [HEY_JARVIS, JABISEU]
    assert default_wake_words("en", grammar=False) == [HEY_JARVIS]
    assert default_wake_words("en", grammar=True) == [HEY_JARVIS, "jarvis"]
    monkeypatch.setattr(trained_wake, "find_spec", lambda name: None)
    assert not is_trained(JABISEU)
    assert is_trained(HEY_JARVIS)  # who asks for it is told what is missing
    assert default_wake_words("ko", grammar=True) == [JABISEU]


def test_any_openwakeword_file(tmp_path: Path) -> None:
    import pyopen_wakeword

    source = Path(pyopen_wakeword.__file__).parent / "models" / "alexa.tflite"
    path = tmp_path / "our_house.tflite"
    path.write_bytes(source.read_bytes())
    listener = TrainedWakeWord([str(path)])
    assert listener.hear(noise(1.0)) is None


def test_files_that_are_none(tmp_path: Path) -> None:
    """TensorFlow Lite would end the process."""
    path = tmp_path / "broken.tflite"
    with pytest.raises(ModelBroken, match="cannot read the wake word"):
        TrainedWakeWord([str(path)])
    for content in (b"", b"RIFF", b"\0" * 1000):
        path.write_bytes(content)
        with pytest.raises(ModelBroken, match="no TensorFlow Lite file"):
            TrainedWakeWord([str(path)])


class Scripted:
    """Wakes at the n-th block."""

    def __init__(self, word: str, at: int) -> None:
        self.word, self.at, self.n = word, at, 0

    def reset(self) -> None:
        self.n = 0

    @property
    def heard_anything(self) -> bool:
        return self.n > 0

    def hear(self, samples: Samples) -> Wake | None:
        self.n += 1
        return Wake(self.word, samples, 0.0) if self.n == self.at else None


def test_any_of_several() -> None:
    slow, quick = Scripted("slow", 3), Scripted("quick", 2)
    listener = AnyWakeWord([slow, quick])
    assert not listener.heard_anything
    assert listener.hear(noise(0.1)) is None
    found = listener.hear(noise(0.1))
    assert found is not None
    assert found.word == "quick"
    assert slow.n == 2  # it hears all of it, too
    listener.reset()
    assert not listener.heard_anything
