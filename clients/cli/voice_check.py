"""Helps to set the voice client up: the level meter, the walk through all parts, pulling models."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

from assistantd.localisation.width import columns
from assistantd.protocol import Progress
from clients.cli.output import note, print_json
from clients.cli.progress import Reporter
from clients.i18n import _

if TYPE_CHECKING:
    from clients.voice.ears import Ears
    from clients.voice.meter import Level
    from clients.voice.settings import VoiceSettings
    from clients.voice.sound import Samples

_BAR_WIDTH: Final = 40
_LISTEN_S: Final = 6.0
_WAKE_S: Final = 15.0
_TOO_QUIET_DBFS: Final = -50.0
_LINES_PER_S: Final = 2


async def show_meter(settings: "VoiceSettings", *, json: bool) -> None:
    """Show the microphone's level until Ctrl-C. Raises VoiceError."""
    from clients.voice import app
    from clients.voice.microphone import Microphone

    live = sys.stdout.isatty() and not json
    async with Microphone(settings.microphone or None) as microphone:
        if live:
            note(
                _("speak; the bar should reach two thirds without turning to CLIPPED; Ctrl-C ends")
            )
        next_s = monotonic()
        async for level, _block in app.levels(microphone):
            if json:
                print_json({"rms_dbfs": level.rms_dbfs, "peak_dbfs": level.peak_dbfs})
            elif live:
                print(f"\r{_line(level)}", end="", flush=True)
            elif monotonic() >= next_s:
                print(f"{level.rms_dbfs:.1f}\t{level.peak_dbfs:.1f}", flush=True)
                next_s = monotonic() + 1 / _LINES_PER_S


async def walk_through(settings: "VoiceSettings", endpoint: str | None) -> None:
    """Try every part in turn, and say what is wrong. Raises VoiceError at the first that fails."""
    from clients.voice import app
    from clients.voice.microphone import Microphone
    from clients.voice.mouth import Mouth
    from clients.voice.phrases import Phrase, phrase
    from clients.voice.speaker import Speaker

    print(_("1. Recogniser and voice: loading …"), flush=True)
    parts = app.prepare(settings)
    print(
        _("   ok: {model} ({language}), voice {voice}").format(
            model=parts.recogniser.folder.name, language=parts.language, voice=parts.voice.name
        )
    )

    print(_("2. Speaker: you should hear two tones and a sentence …"), flush=True)
    async with Speaker(settings.speaker or None) as speaker:
        mouth = Mouth(parts.voice, speaker)
        try:
            mouth.tone("heard")
            await mouth.speak(phrase(Phrase.READY, parts.answer_language))
            await mouth.finished()
        finally:
            mouth.close()
        print(_("   ok: played; if you heard nothing, choose another with --speaker"))

    async with Microphone(settings.microphone or None) as microphone:
        microphone.on_lost = _give_up
        print(_("3. Microphone: say something …"), flush=True)
        loudest = await _loudest(app.levels(microphone), parts.ears)
        if loudest < _TOO_QUIET_DBFS:
            print(
                _(
                    "   too quiet: {level:.0f} dBFS at most. Is it muted? Turn its gain up, or "
                    "choose another with --microphone; see `assistant voice devices`"
                ).format(level=loudest)
            )
            raise SystemExit(1)
        print(_("   ok: {level:.0f} dBFS").format(level=loudest))
        words = " / ".join(parts.wake_words)
        print(_("4. Wake word: say {words} …").format(words=words), flush=True)
        if not await _woken(app.levels(microphone), parts.ears):
            print(
                _(
                    "   not heard. Speak nearer, or raise the sensitivity (--sensitivity 0.8), or "
                    "choose another word with --wake-word"
                )
            )
            raise SystemExit(1)
        print(_("   ok: heard"))

    print(_("5. The daemon: asking …"), flush=True)
    await _ask(endpoint)
    print(_("   ok: all is well; start it with `assistant voice`"))


def _give_up(reason: str) -> None:
    from clients.voice.errors import DeviceLost

    raise DeviceLost(reason)


async def _ask(endpoint: str | None) -> None:
    from clients import AsyncClient

    async with AsyncClient(endpoint) as client:
        await client.ping(timeout=5)


async def _loudest(levels: "AsyncIterator[tuple[Level, Samples]]", ears: "Ears") -> float:
    """The level of the loudest block of speech, or of anything if there was no speech."""
    speech = anything = -96.0
    started_s = monotonic()
    async with aclosing(levels):  # type: ignore[type-var]  # all of them are generators
        async for level, block in levels:
            anything = max(anything, level.rms_dbfs)
            if ears.gate.hear(block):
                speech = max(speech, level.rms_dbfs)
            if sys.stdout.isatty():
                print(f"\r   {_line(level)}", end="", flush=True)
            if monotonic() - started_s > _LISTEN_S:
                break
    if sys.stdout.isatty():
        print("\r\x1b[K", end="")
    return speech if speech > _TOO_QUIET_DBFS else anything


async def _woken(levels: "AsyncIterator[tuple[Level, Samples]]", ears: "Ears") -> bool:
    from clients.voice.ears import Woke

    ears.wait()
    started_s = monotonic()
    async with aclosing(levels):  # type: ignore[type-var]
        async for _level, block in levels:
            heard = await asyncio.to_thread(ears.hear, block, None)
            if any(isinstance(event, Woke) for event in heard):
                return True
            if monotonic() - started_s > _WAKE_S:
                return False
    return False


def _line(level: "Level") -> str:
    from clients.voice.meter import bar

    clipped = _("CLIPPED") if level.clipped else " " * columns(_("CLIPPED"))
    return f"{bar(level.rms_dbfs, _BAR_WIDTH)} {level.rms_dbfs:6.1f} dBFS {clipped}"


def pull_with_progress(name: str) -> Path:
    """Download a recogniser's model. Raises VoiceError."""
    from clients.voice import models

    with Reporter() as report:

        def show(done: int, total: int) -> None:
            report(Progress(stage="download", message=name, completed=done, total=total))

        return models.pull(name, progress=show).folder
