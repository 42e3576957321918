import os
import stat
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from clients.voice import espeak, piper_voice
from clients.voice.errors import MissingPart, ModelBroken, VoiceError
from clients.voice.espeak import EspeakVoice
from clients.voice.piper_voice import PiperVoice
from clients.voice.sound import Samples
from clients.voice.speech import PAUSE_S, SHORT_PAUSE_S, sayable, tidy
from clients.voice.voices import find_voices, open_voice, voices_folder

RATE_HZ = 22_050


def tone(seconds: float, level: int = 8000) -> Samples:
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (level * np.cos(2 * np.pi * 200 * t)).astype(np.int16)


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE_HZ), np.int16)


def seconds_of(pieces: list[Samples]) -> float:
    return sum(map(len, pieces)) / RATE_HZ


# how the sound follows on


@pytest.mark.parametrize("size", [100, 4096, 10**6])
@pytest.mark.parametrize(("text", "pause"), [("So.", PAUSE_S), ("So,", SHORT_PAUSE_S)])
def test_silence_around_becomes_a_short_lead_and_a_pause(
    size: int, text: str, pause: float
) -> None:
    sound = np.concatenate([silence(0.5), tone(0.3), silence(0.3), tone(0.2), silence(0.7)])
    pieces = [sound[i : i + size] for i in range(0, len(sound), size)]
    tidied = list(tidy(pieces, RATE_HZ, text))
    assert seconds_of(tidied) == pytest.approx(0.02 + 0.8 + pause, abs=0.002)
    assert not np.concatenate(tidied)[-100:].any()


def test_sound_that_begins_or_ends_at_once_does_not_click() -> None:
    tidied = np.concatenate(list(tidy([tone(0.3)], RATE_HZ, "So.")))
    assert abs(tidied[0]) < 100


def test_nothing_but_silence_is_nothing() -> None:
    assert list(tidy([silence(1)], RATE_HZ, "So.")) == []
    assert list(tidy([], RATE_HZ, "So.")) == []


def test_sound_is_passed_on_at_once() -> None:
    sound = tidy(iter([tone(0.1), tone(0.1)]), RATE_HZ, "So.")
    assert len(next(sound)) > 0.09 * RATE_HZ


def test_orders_to_espeak_are_text() -> None:
    assert sayable(" [[h@l'oU]]\x00\n") == "[ [h@l'oU]]"


# espeak-ng, played by a script


@pytest.fixture
def fake_espeak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def install(script: str) -> None:
        program = tmp_path / "bin" / "espeak-ng"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}/usr/bin{os.pathsep}/bin")

    return install


def test_espeak_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert espeak.languages() == []
    with pytest.raises(MissingPart, match=r"apt install espeak-ng.*brew install"):
        list(EspeakVoice("en").speak("Hello."))
    with pytest.raises(MissingPart, match="apt install"):
        EspeakVoice("en").warm()
    with pytest.raises(MissingPart, match="apt install"):
        open_voice(None, "ko")


def test_espeak_failing_tells_its_reason(fake_espeak: Callable[[str], None]) -> None:
    fake_espeak('echo "Error: no such voice." >&2; exit 1')
    with pytest.raises(VoiceError, match=r"'xx': no such voice; `espeak-ng --voices`"):
        list(EspeakVoice("xx").speak("Hello."))
    with pytest.raises(VoiceError, match="cannot list its voices: no such voice"):
        espeak.languages()


def test_espeak_sending_something_else_is_an_error(fake_espeak: Callable[[str], None]) -> None:
    fake_espeak("cat >/dev/null; head -c 1000 /dev/zero")
    with pytest.raises(VoiceError, match="no 16-bit WAV"):
        list(EspeakVoice("en").speak("Hello."))


def test_nothing_to_say_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert list(EspeakVoice("en").speak(" \n ")) == []


# Piper's files


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    path = tmp_path / "en_US-test-medium.onnx"
    path.write_bytes(b"no network")
    return path


def configure(onnx: Path, text: str) -> None:
    Path(f"{onnx}.json").write_text(text)


CONFIG = '{"audio": {"sample_rate": 22050}, "espeak": {"voice": "en-us"}%s}'


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (None, "No such file"),
        ("{", "damaged"),
        ("[]", "no configuration"),
        ("{}", "lacks 'audio'"),
        (CONFIG.replace("22050", '"x"') % "", "sample_rate 'x'"),
    ],
)
def test_a_damaged_configuration(
    onnx: Path, config: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piper_voice, "is_installed", lambda: True)
    if config is not None:
        configure(onnx, config)
    with pytest.raises(ModelBroken, match=says):
        PiperVoice(onnx)


def test_piper_missing_says_how_to_install_it(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piper_voice, "is_installed", lambda: False)
    with pytest.raises(MissingPart, match=r"pip install 'assistantd\[piper\]'"):
        PiperVoice(onnx)


def test_voices_of_the_folder_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piper_voice, "is_installed", lambda: True)
    monkeypatch.setenv("PATH", "/nowhere")
    voices_folder().mkdir(parents=True)
    for name, extra in (
        ("ko_KR-low", ', "language": {"code": "ko_KR"}'),
        ("ko_KR-high", ', "language": {"code": "ko_KR"}'),
    ):
        (voices_folder() / f"{name}.onnx").touch()
        configure(voices_folder() / f"{name}.onnx", CONFIG % extra)
    (voices_folder() / "broken.onnx").touch()
    korean = [voice for voice in find_voices() if voice.language == "ko"]
    assert [voice.name for voice in korean] == ["ko_KR-high", "ko_KR-low"]
    assert open_voice(None, "ko-KR").name == "ko_KR-high"
    assert open_voice("KO_kr-low", "ko").name == "ko_KR-low"
    with pytest.raises(VoiceError, match=r"no voice 'ko_KR-hihg'; did you mean ko_KR-high"):
        open_voice("ko_KR-hihg", "ko")


# the real ones

real = pytest.mark.voice


@real
@pytest.mark.parametrize(
    "text",
    ["Hello.", "-v is no option", "<b>no</b> markup & more", "[[h]]", "é 한 \ud800", "x" * 5],
)
def test_espeak_speaks(text: str) -> None:
    pieces = list(EspeakVoice("en").speak(text))
    assert all(piece.dtype == np.int16 and piece.ndim == 1 for piece in pieces)
    assert 0.3 < seconds_of(pieces) < 8


@real
def test_espeak_speaks_korean_and_faster() -> None:
    voice = EspeakVoice("ko", "f3")
    slow = seconds_of(list(voice.speak("안녕하세요. 만나서 반가워요.")))
    voice.speed = 2.0
    assert seconds_of(list(voice.speak("안녕하세요. 만나서 반가워요."))) < 0.75 * slow


@real
def test_espeak_stops_when_its_iterator_is_closed() -> None:
    voice = EspeakVoice("en")
    sound = voice.speak("A very long text. " * 2000)
    next(sound)
    process = voice._process
    assert process is not None and process.poll() is None
    sound.close()  # type: ignore[attr-defined]
    assert process.returncode is not None and voice._process is None


@real
def test_espeak_stops_when_closed_from_another_thread() -> None:
    voice = EspeakVoice("en")
    sound = voice.speak("A very long text. " * 2000)
    next(sound)
    closer = threading.Thread(target=voice.close)
    closer.start()
    rest = list(sound)
    closer.join()
    assert seconds_of(rest) < 2000


@real
def test_a_voice_is_found_for_each_language() -> None:
    assert open_voice(None, "ko").name == "espeak-ng:ko"
    assert open_voice("espeak-ng", "en").name == "espeak-ng:en-us"
    assert open_voice("espeak-ng:ko+f3", "en").name == "espeak-ng:ko+f3"
    assert open_voice(None, "fr-CA").language.startswith("fr")
    with pytest.raises(VoiceError, match="no voice is installed that speaks 'xx'"):
        open_voice(None, "xx")
    with pytest.raises(VoiceError, match=r"did you mean .*espeak-ng:"):
        open_voice("espeak-ng:kr", "ko")
    with pytest.raises(VoiceError, match="en_US-joe-medium"):
        open_voice("joe", "en")


@real
def test_piper_speaks() -> None:
    voice = open_voice(None, "en")
    assert isinstance(voice, PiperVoice)
    pieces = list(voice.speak("Hello there. How are you?"))
    assert len(pieces) >= 3  # a sentence each, and the pause
    assert 1 < seconds_of(pieces) < 5
    assert max(int(np.max(np.abs(a.astype(int)))) for a in pieces) < 32767
    joints = [abs(int(b[0]) - int(a[-1])) for a, b in pairwise(pieces)]
    assert max(joints) < 1000
    sound = voice.speak("One. Two. Three. Four. Five.")
    next(sound)
    voice.close()
    assert len(list(sound)) <= 2


@real
def test_a_damaged_network_is_told(onnx: Path) -> None:
    whole = next(voice for voice in find_voices() if voice.path is not None)
    assert whole.path is not None
    configure(onnx, Path(f"{whole.path}.json").read_text())
    with pytest.raises(ModelBroken, match="cannot be loaded"):
        PiperVoice(onnx).warm()
