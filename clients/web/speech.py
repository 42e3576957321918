"""Hearing and speaking for pages: one recogniser, one voice a language, each made when first used.

Everything that needs numpy is in clients.voice.clips and imported in a thread when it is needed.
One thing is heard and one spoken at a time, and few wait: a small machine can do no more, and a
page that is told so tries again or leaves it.
"""

import asyncio
import logging
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from assistantd.log import fields
from clients.errors import AssistantError
from clients.i18n import _
from clients.web.errors import Refusal

if TYPE_CHECKING:
    from clients.voice.recogniser import Recogniser
    from clients.voice.speech import Voice

log = logging.getLogger(__name__)
T = TypeVar("T")

MOST_WAITING: Final = 4
"""Of each, besides the one that is being worked on."""
MOST_CHARACTERS: Final = 4000
IDLE_S: Final = 900.0
"""What nobody used for so long is taken out of memory: a recogniser takes 150 MB and more."""
_MOST_VOICES: Final = 2
_PROBE_S: Final = 300.0
_PROBE_TIMEOUT_S: Final = 60.0
_HANGUL: Final = re.compile("[\uac00-\ud7a3]")


class Abilities(msgspec.Struct):
    """Languages that can be heard, and spoken; and why not more."""

    hear: list[str] = []
    speak: list[str] = []
    problems: list[str] = []


class _Worker:
    """One thread, and few who wait for it."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._n_waiting = 0
        self._used_at = monotonic()

    @property
    def idle_s(self) -> float:
        """Since when nothing was to be done, in seconds."""
        return 0.0 if self._n_waiting else monotonic() - self._used_at

    async def run(self, work: Callable[[Callable[[], bool]], T]) -> T:
        """Do it in the thread; given up where the caller is cancelled.

        Args:
            work: is given a function that tells whether the result is still wanted.

        Raises:
            Refusal: too many wait.
        """
        if self._n_waiting > MOST_WAITING:
            raise too_many_wait()
        given_up = threading.Event()
        self._n_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._pool, work, lambda: not given_up.is_set()
            )
        finally:
            given_up.set()
            self._n_waiting -= 1
            self._used_at = monotonic()

    async def close(self) -> None:
        """Wait for what is being done."""
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)


class Speech:
    """What hears and speaks. Call from the event loop."""

    def __init__(self) -> None:
        self._ears, self._mouth = _Worker("hear"), _Worker("speak")
        self._recogniser: Recogniser | None = None
        self._voices: OrderedDict[str, Voice] = OrderedDict()
        self._abilities = Abilities()
        self._probed_at: float | None = None
        self._probing = asyncio.Lock()

    async def abilities(self) -> Abilities:
        """What is installed; looked for again after five minutes."""
        async with self._probing:
            if self._probed_at is None or monotonic() - self._probed_at > _PROBE_S:
                self._abilities = await _probe()
                self._probed_at = monotonic()
        return self._abilities

    async def hear(self, wav: bytes) -> str:
        """What is said in a WAV file.

        Raises:
            Refusal: nothing hears here, it is no sound, or too many wait.
        """
        if not (await self.abilities()).hear:
            raise _absent(
                _(
                    "nothing can hear on this machine; `pip install 'assistantd[voice]'` and "
                    "`assistant voice models pull` there"
                )
            )

        def work(wanted: Callable[[], bool]) -> str:
            from clients.voice import clips

            return clips.hear(self._loaded_recogniser(), wav, wanted)

        return await _told("hear", self._ears.run(work))

    async def speak(self, text: str, language: str | None) -> bytes:
        """A WAV file that says a text.

        Args:
            language: as "en" or "ko"; None goes by the letters.

        Raises:
            Refusal: nothing speaks here, not this language, the text is long, or too many wait.
        """
        if len(text) > MOST_CHARACTERS:
            raise Refusal(
                413,
                "too_large",
                _("at most {n:,} characters are spoken at once; send less").format(
                    n=MOST_CHARACTERS
                ),
            )
        known = (await self.abilities()).speak
        if not known:
            raise _absent(
                _("nothing can speak on this machine; install espeak-ng there (see docs/voice.md)")
            )
        chosen = (language or _guess(text, known)).replace("_", "-").casefold()

        def work(wanted: Callable[[], bool]) -> bytes:
            from clients.voice import clips

            return clips.speak(self._voice(chosen), text, chosen, wanted)

        return await _told("speak", self._mouth.run(work))

    def release_idle(self) -> None:
        """Free what nobody has used for a while; to be called now and then."""
        if self._recogniser is not None and self._ears.idle_s > IDLE_S:
            self._recogniser = None
            log.info("recogniser unloaded")
        if self._voices and self._mouth.idle_s > IDLE_S:
            for voice in self._voices.values():
                voice.close()
            self._voices.clear()
            log.info("voices unloaded")

    async def close(self) -> None:
        """Wait for what is being done."""
        await self._ears.close()
        await self._mouth.close()

    # --- in the threads ---

    def _loaded_recogniser(self) -> "Recogniser":
        if self._recogniser is None:
            from clients.voice import models, settings
            from clients.voice.recogniser import Recogniser

            wanted = settings.load({})
            folder = models.find(wanted.recogniser or None, wanted.language)
            self._recogniser = Recogniser(folder, wanted.language)
            log.info("recogniser loaded", extra=fields(model=folder.name))
        return self._recogniser

    def _voice(self, language: str) -> "Voice":
        from clients.voice import settings
        from clients.voice.voices import open_voice

        voice = self._voices.pop(language, None)
        if voice is None:
            name: str | None = settings.load({}).voice or None
            own = open_voice(name, language) if name is not None else None
            if own is None or own.language.partition("-")[0] != language.partition("-")[0]:
                # the voice that was chosen for the room speaks another language than this text
                own = open_voice(None, language)
            voice = own
            log.info("voice opened", extra=fields(voice=voice.name, language=language))
        self._voices[language] = voice
        while len(self._voices) > _MOST_VOICES:
            self._voices.popitem(last=False)[1].close()
        return voice


async def _told(what: str, work: Awaitable[T]) -> T:
    """The work's result; its errors as refusals."""
    try:
        return await work
    except AssistantError as problem:
        # which of them it is can be asked only where numpy is in memory, as it is by now
        from clients.voice.clips import BadSound

        if isinstance(problem, BadSound):
            raise Refusal(400, "bad_request", str(problem)) from problem
        log.error(f"cannot {what}", extra=fields(problem=problem))
        raise Refusal(503, "internal", str(problem)) from problem
    except ImportError as problem:
        log.error(f"cannot {what}", extra=fields(problem=problem))
        raise _absent(
            _("a package is missing ({problem}); pip install 'assistantd[voice]'").format(
                problem=problem.name
            )
        ) from problem


def too_many_wait() -> Refusal:
    """For those who are one too many."""
    return Refusal(
        503, "busy", _("others are heard or spoken to; try again in a moment"), retry_s=3
    )


def _absent(message: str) -> Refusal:
    return Refusal(501, "not_found", message)


def _guess(text: str, known: list[str]) -> str:
    """The language of a text by its letters, as far as a voice depends on it."""
    guessed = "ko" if _HANGUL.search(text) else "en"
    return guessed if guessed in known else known[0]


async def _probe() -> Abilities:
    """Look in a process of its own (speech_probe.py)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "clients.web.speech_probe",
        cwd="/",  # nothing of a folder that happens to be current is imported
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            out, err = await process.communicate()
        found = msgspec.json.decode(out, type=Abilities)
    except (TimeoutError, msgspec.DecodeError) as problem:
        if process.returncode is None:
            process.kill()
            await process.wait()
            err = b""
        last = err.decode("utf-8", "replace").strip().splitlines()[-1:]
        log.error("cannot look for speech", extra=fields(problem=problem, said=" ".join(last)))
        return Abilities()
    log.info("speech", extra=fields(hear=found.hear, speak=found.speak, problems=found.problems))
    return found
