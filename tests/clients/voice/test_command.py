"""`assistant voice`: what becomes of its flags, and of a walk through its parts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clients.cli import app, voice_check
from clients.cli.voice import _Show
from clients.voice import app as voice_app
from clients.voice import microphone, speaker
from clients.voice.errors import DeviceLost, VoiceError
from clients.voice.files import FileMicrophone, FileSpeaker
from clients.voice.settings import VoiceSettings
from clients.voice.sound import Samples
from tests.clients.voice.signals import silence


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, private_home: None) -> list[VoiceSettings]:
    """The settings that the level meter was shown with."""
    found: list[VoiceSettings] = []

    async def show(settings: VoiceSettings, **more: Any) -> None:
        found.append(settings)

    monkeypatch.setattr(voice_check, "show_meter", show)
    return found


def test_a_flag_counts_whatever_its_value(
    loaded: list[VoiceSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSISTANT_VOICE_SENSITIVITY", "0.7")
    monkeypatch.setenv("ASSISTANT_VOICE_MICROPHONE", "USB")
    assert app.run(["voice", "--meter"]) == 0
    assert app.run(["voice", "--sensitivity", "0", "--microphone", "", "--meter"]) == 0
    assert [(one.sensitivity, one.microphone) for one in loaded] == [(0.7, "USB"), (0.0, "")]
    assert loaded[0].wake_words == [] and loaded[0].gate


def test_words_and_the_gate(loaded: list[VoiceSettings]) -> None:
    flags = ["--wake-word", "computer", "--wake-word", "alexa", "--no-gate"]
    assert app.run(["voice", *flags, "--meter"]) == 0
    assert loaded == [VoiceSettings(wake_words=["computer", "alexa"], gate=False)]


def test_no_folder_for_what_is_said(tmp_path: Path) -> None:
    """Told before the conversation, not after it."""
    parts: Any = None  # it does not come to that
    (file := tmp_path / "file").touch()
    for out, problem in ((tmp_path / "no" / "out.wav", "No such file"), (file / "out", "Not a")):
        run = voice_app.run_files(parts, None, file, out, lambda what, text, turn: None)
        with pytest.raises(VoiceError, match=f"cannot write {out}: {problem}"):
            asyncio.run(run)


def test_a_loss_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """It also ends what was being said, with the same error."""
    show = _Show(json=False)
    for what in ("lost", "error", "error"):
        show(what, "the speaker went away", None)
    show("error", "other", None)
    told = [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()]
    assert told == ["the speaker went away"] * 2 + ["other"]


class GoneMicrophone(FileMicrophone):
    """Goes away before it gave any sound, and never comes back."""

    async def blocks(self) -> AsyncIterator[Samples]:
        self.on_lost("the microphone gives no sound")
        await asyncio.Event().wait()
        yield silence(0.1)


class QuickSpeaker(FileSpeaker):
    """Has played all as soon as it is asked."""

    async def drained(self) -> None:
        self.stop()


def test_the_walk_ends_where_a_microphone_gives_no_sound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`assistant voice` waits for it to come back; who tries it out is to be told."""
    parts = SimpleNamespace(
        recogniser=SimpleNamespace(folder=Path("model")),
        language="en",
        answer_language="en",
        voice=SimpleNamespace(
            name="none", rate_hz=16_000, speak=lambda text: iter(()), close=lambda: None
        ),
        ears=SimpleNamespace(),
    )
    monkeypatch.setattr(voice_app, "prepare", lambda settings: parts)
    monkeypatch.setattr(speaker, "Speaker", lambda name: QuickSpeaker())
    monkeypatch.setattr(microphone, "Microphone", lambda name: GoneMicrophone(silence(1)))
    walk = voice_check.walk_through(VoiceSettings(), None)
    with pytest.raises(DeviceLost, match="gives no sound"):
        asyncio.run(asyncio.wait_for(walk, 5))
    assert "3. Microphone" in capsys.readouterr().out
