"""`assistant voice`, put together: from settings to parts, and the ways to run them.

What each part does is in the others; what is printed is in clients/cli/voice.py.
"""

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clients import AsyncClient
from clients.i18n import _
from clients.voice import models, trigger
from clients.voice.audio import MicrophoneLike, SpeakerLike
from clients.voice.commands import parse
from clients.voice.ears import Ears
from clients.voice.echo import EchoCanceller
from clients.voice.errors import VoiceError
from clients.voice.files import FileMicrophone, FileSpeaker
from clients.voice.grammar_wake import GrammarWakeWord
from clients.voice.loop import Assistant, Report
from clients.voice.meter import Level, measure
from clients.voice.microphone import Microphone
from clients.voice.mouth import Mouth
from clients.voice.recogniser import Recogniser, takes_grammar
from clients.voice.settings import SYSTEM, WAKE_WORDS, VoiceSettings
from clients.voice.sound import Samples, write_wav
from clients.voice.speaker import Speaker
from clients.voice.speech import Voice
from clients.voice.trained_wake import HEY_JARVIS, TrainedWakeWord, is_installed, is_trained
from clients.voice.voices import open_voice
from clients.voice.wake import AnyWakeWord, WakeWord

_SILENCE_S: Final = 120.0
"""So long may the daemon say nothing, not even that it is loading, before it is given up."""
_FALLBACK_LANGUAGE: Final = "en"


@dataclass
class Parts:
    """What hears and speaks; loaded once."""

    settings: VoiceSettings
    language: str
    """What is heard."""
    answer_language: str
    """What is spoken."""
    recogniser: Recogniser
    wake_words: list[str]
    ears: Ears
    voice: Voice


def prepare(settings: VoiceSettings, *, echo: bool = True) -> Parts:
    """Load the recogniser's model and choose the voice; takes seconds.

    Raises VoiceError: something is missing, broken, or not known.
    """
    folder = models.find(settings.recogniser or None, settings.language)
    recogniser = Recogniser(folder, settings.language)
    language = recogniser.language or _FALLBACK_LANGUAGE
    words = settings.wake_words or default_wake_words(language, takes_grammar(folder))
    ears = Ears(
        recogniser,
        wake_word(recogniser, words, settings.sensitivity),
        EchoCanceller() if echo and settings.interrupt != "off" else None,
        silence_s=settings.silence_s,
        use_gate=settings.gate,
        is_command=lambda text: parse(text, language, words) is not None,
    )
    voice = open_voice(settings.voice or None, settings.answer_language or language)
    answer_language = settings.answer_language or (voice.language if settings.voice else language)
    return Parts(settings, language, answer_language[:2], recogniser, words, ears, voice)


def default_wake_words(language: str, grammar: bool) -> list[str]:
    """Where none is chosen. grammar: whether the recogniser's model can listen for words."""
    word = WAKE_WORDS.get(language, "jarvis")
    if not is_installed():
        return [word]
    return [HEY_JARVIS, word] if grammar or is_trained(word) else [HEY_JARVIS]


def wake_word(recogniser: Recogniser, words: list[str], sensitivity: float) -> WakeWord:
    """What listens for these words. Raises UnknownWord, MissingPart, ModelBroken, VoiceError."""
    trained = [word for word in words if is_trained(word)]
    others = [word for word in words if not is_trained(word)]
    if others and not takes_grammar(recogniser.folder):
        raise VoiceError(
            _(
                "{name} cannot listen for a wake word, because its graph is fixed; take a small "
                "model, which `assistant voice models available` shows, or the wake word {word}"
            ).format(name=recogniser.folder.name, word=HEY_JARVIS)
        )
    listeners: list[WakeWord] = []
    if trained:
        listeners.append(TrainedWakeWord(trained, sensitivity))
    if others:
        listeners.append(GrammarWakeWord(recogniser, others, sensitivity))
    return listeners[0] if len(listeners) == 1 else AnyWakeWord(listeners)


async def run(
    parts: Parts,
    endpoint: str | None,
    report: Report,
    ready: Callable[[Assistant], None] = lambda assistant: None,
) -> None:
    """With the real microphone and speaker, until SIGINT or SIGTERM.

    Raises VoiceError, and AssistantError where the endpoint is no address.
    """
    settings = parts.settings
    microphone = Microphone(settings.microphone or None)
    speaker = Speaker(settings.speaker or None)
    async with (
        microphone,
        speaker,
        _assistant(parts, microphone, speaker, endpoint, report) as assistant,
    ):
        ready(assistant)
        await until_signal(
            trigger.run_with_button(assistant.trigger, trigger.endpoint(), assistant.run())
        )


async def run_files(
    parts: Parts, endpoint: str | None, source: Path, out: Path | None, report: Report
) -> None:
    """The whole loop with a WAV file for a microphone, and one for what is said.

    Raises VoiceError, also if `out` cannot be written.
    """
    if out is not None and not out.parent.is_dir():
        raise _cannot_write(
            out, os.strerror(errno.ENOTDIR if out.parent.exists() else errno.ENOENT)
        )
    speaker = FileSpeaker()
    async with (
        FileMicrophone(source, speaker) as microphone,
        speaker,
        _assistant(parts, microphone, speaker, endpoint, report, step=True) as assistant,
    ):
        await assistant.run()
        if out is not None:
            try:
                write_wav(out, speaker.recording(), speaker.rate_hz)
            except OSError as error:
                raise _cannot_write(out, error.strerror or str(error)) from error


def _cannot_write(path: Path, problem: str) -> VoiceError:
    return VoiceError(_("cannot write {path}: {problem}").format(path=path, problem=problem))


async def until_signal(what: Coroutine[Any, Any, None]) -> None:
    """Run it until it ends by itself, or SIGINT or SIGTERM comes, which cancels it."""
    task = asyncio.create_task(what, name="main")
    loop = asyncio.get_running_loop()
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopped:
            raise


def system_prompt(settings: VoiceSettings, answer_language: str) -> str:
    """The instructions that go with every question."""
    return settings.system or SYSTEM.get(answer_language, SYSTEM["en"])


async def levels(microphone: MicrophoneLike) -> AsyncIterator[tuple[Level, Samples]]:
    """The level of each block."""
    async for block in microphone.blocks():
        yield measure(block), block


@asynccontextmanager
async def _assistant(
    parts: Parts,
    microphone: MicrophoneLike,
    speaker: SpeakerLike,
    endpoint: str | None,
    report: Report,
    *,
    step: bool = False,
) -> AsyncIterator[Assistant]:
    mouth = Mouth(parts.voice, speaker, cues=parts.settings.cues)
    try:
        async with AsyncClient(endpoint, timeout=_SILENCE_S) as client:
            yield Assistant(
                parts.settings,
                parts.language,
                parts.answer_language,
                microphone,
                speaker,
                parts.ears,
                mouth,
                client,
                system=system_prompt(parts.settings, parts.answer_language),
                step=step,
                report=report,
            )
    finally:
        mouth.close()
