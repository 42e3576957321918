"""The voice loop: waits for the wake word, takes down the question, speaks the answer, and again.

    waiting ──wake word, button──► listening ──silence──► answering ──heard to its end──► listening
       ▲                            │ nothing said                    │ (follow-up)
       └────────────────────────────┘   wake word, speech, button: ───┘
                                        playback and generation stop

Everything happens in one event loop; hearing (ears.py) and making sound (mouth.py) in threads.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from time import monotonic
from typing import Any, Final

from clients import AsyncClient
from clients.errors import (
    AssistantError,
    Busy,
    ConnectionLost,
    NoAnswer,
    OverBudget,
    ShuttingDown,
)
from clients.voice import skills
from clients.voice.audio import MicrophoneLike, SpeakerLike
from clients.voice.commands import Command, Kind, parse
from clients.voice.cues import Cue
from clients.voice.ears import Ears, Partly, Said, SpokeOver, Woke
from clients.voice.endpoint import End
from clients.voice.errors import DeviceLost, VoiceError
from clients.voice.mouth import Mouth
from clients.voice.phrases import Phrase, phrase
from clients.voice.quiet import QuietHours
from clients.voice.settings import VoiceSettings
from clients.voice.sound import Samples
from clients.voice.spoken import SpokenText

_PING_S: Final = 3.0
"""A daemon that is there answers sooner, whatever it is computing."""
_HESITATION_S: Final = 0.4
"""Silence after the wake word until a tone says that it was heard: in one breath it would disturb.
"""
_THINKING_S: Final = 2.5
"""After so long without an answer a tone tells that it is being thought about, and again."""
_ECHO_S: Final = 0.5
"""So long after the last sound its echo may still be heard."""
_STEP: Final = 0.15
_QUIET_VOLUME: Final = 0.35
_NAMES: Final = ("jarvis", "hey jarvis", "자비스", "헤이 자비스", "헤이자비스")
"""What it may be called before a command, besides its wake words."""
_SLOWEST, _FASTEST, _TEMPO = 0.6, 1.8, 1.2

_log = logging.getLogger(__name__)


class State(Enum):
    """What the assistant does."""

    WAITING = "waiting"
    LISTENING = "listening"
    ANSWERING = "answering"


@dataclass
class Turn:
    """One question and its answer; times are seconds of the monotonic clock, None if not reached.

    Attributes:
        endpoint_s, recognition_s: how long silence was waited for, and the recogniser took after.
        ended_s: when the question was known.
    """

    question: str
    endpoint_s: float
    recognition_s: float
    ended_s: float
    answer: str = ""
    first_token_s: float | None = None
    first_sentence_s: float | None = None
    first_sound_s: float | None = None
    interrupted: bool = False
    error: str = ""
    heard: list[str] = field(default_factory=list)

    def stages(self) -> dict[str, float]:
        """Seconds of each stage from the end of speech to the first sound."""
        if self.first_token_s is None or self.first_sentence_s is None:
            return {}
        if self.first_sound_s is None:
            return {}
        return {
            "endpoint": self.endpoint_s,
            "recognition": self.recognition_s,
            "first token": self.first_token_s - self.ended_s,
            "first sentence": self.first_sentence_s - self.first_token_s,
            "synthesis": self.first_sound_s - self.first_sentence_s,
            "total": self.endpoint_s + self.recognition_s + self.first_sound_s - self.ended_s,
        }


Report = Callable[[str, str, Turn | None], None]
"""What happened, in a word or two: state (first when all is loaded), woke, spoke over, partly,
said, sentence, answered, interrupted, error, lost, back, nothing, command; a text; and the turn,
where it has ended."""


class Assistant:
    """Ears, mouth and the connection to the daemon, brought together for one room.

    Args:
        language: what is heard, two letters.
        answer_language: what is spoken.
        system: instructions for the model; empty leaves them to the daemon.
        step: True lets the clock of files stand still while an answer is being made.
        report: told of everything that happens.
    """

    def __init__(
        self,
        settings: VoiceSettings,
        language: str,
        answer_language: str,
        microphone: MicrophoneLike,
        speaker: SpeakerLike,
        ears: Ears,
        mouth: Mouth,
        client: AsyncClient,
        *,
        system: str = "",
        step: bool = False,
        report: Report = lambda what, text, turn: None,
    ) -> None:
        self.settings, self.language, self.answer_language = settings, language, answer_language
        self._system = system
        self.state = State.WAITING
        self.turns = 0
        self._microphone, self._speaker = microphone, speaker
        self._ears, self._mouth, self._client = ears, mouth, client
        self._step, self._report = step, report
        self._quiet = QuietHours.parse(settings.quiet_hours)
        self._volume = settings.volume
        self._muted = False
        self._asked = False  # whether the wake word or the button began the dictation
        self._dictations = 0
        self._deaf = False  # while the microphone is lost
        self._last_answer: list[str] = []
        self._tone_owed = False
        self._follow_up_s = 0.0
        self._turn: asyncio.Task[None] | None = None
        self._progress = asyncio.Event()
        self._sounded_s = float("-inf")  # when sound was last being played
        self._hearing = ThreadPoolExecutor(1, thread_name_prefix="ears")
        self._mouth.on_sound = self._progress.set
        microphone.on_lost = lambda reason: self._device_lost("microphone", reason)
        microphone.on_back = lambda: self._device_back("microphone")
        speaker.on_lost = lambda reason: self._device_lost("speaker", reason)
        speaker.on_back = lambda: self._device_back("speaker")

    # --- the loop ---

    async def run(self) -> None:
        """Until it is cancelled, or a file has been heard and answered to its end."""
        loop = asyncio.get_running_loop()
        await self._mouth.warm()
        self._report("state", self.state.value, None)
        try:
            async for block in self._microphone.blocks():
                reference = self._reference(block)
                heard, dictations = self._ears.hear, self._dictations
                for event in await loop.run_in_executor(self._hearing, heard, block, reference):
                    # the button may have begun another dictation meanwhile, which goes on
                    if dictations == self._dictations or not isinstance(event, Partly | Said):
                        self._on(event)
                if self._tone_owed and self._ears.silent_s >= _HESITATION_S:
                    self._tone_owed = False
                    self._tone("heard")
                if self._step:
                    await self._hold_clock()
                    if self._microphone.at_end and self._idle:
                        return
        finally:
            await self._end_turn()
            self._hearing.shutdown(wait=True)

    def trigger(self) -> None:
        """The button: interrupt, and listen."""
        if self._deaf:
            self._say_the_microphone_is_gone()
            return
        self._stop_answer()
        self._listen(self.settings.patience_s, None)

    @property
    def _idle(self) -> bool:
        return self._turn is None and not self._ears.dictating and not self._speaker.playing

    def _reference(self, block: Samples) -> Samples | None:
        """What was played while `block` was heard; None if nothing has been for a while."""
        if self._speaker.playing:
            self._sounded_s = self._microphone.heard_s
        if self._microphone.heard_s - self._sounded_s > _ECHO_S:
            return None
        return self._speaker.reference(block.size, self._microphone.heard_s)

    async def _hold_clock(self) -> None:
        """While an answer is being made and nothing is played, no time passes in a file."""
        while self._turn is not None and not self._speaker.playing:
            self._progress.clear()
            if self._turn.done():
                return
            await self._progress.wait()

    # --- what is heard ---

    def _on(self, event: Woke | SpokeOver | Partly | Said) -> None:
        match event:
            case Woke(word=word):
                if self.settings.interrupt == "off" and self.state is State.ANSWERING:
                    return
                self._report("woke", word, None)
                after = self._ears.after_wake_word
                self._stop_answer()
                self._listen(self.settings.patience_s, after)
                self._tone_owed = True
            case SpokeOver():
                if self.state is State.ANSWERING and self.settings.interrupt == "speech":
                    self._report("spoke over", "", None)
                    before = self._ears.recent()
                    self._stop_answer()
                    self._listen(self.settings.patience_s, before, asked=False)
            case Partly(text=text):
                self._tone_owed = False
                self._report("partly", text, None)
            case Said():
                self._said(event)

    def _said(self, said: Said) -> None:
        self._tone_owed = False
        self._ears.wait()
        if not said.text:
            why = "nothing was said" if said.end is End.NO_SPEECH else "nothing was understood"
            self._report("nothing", why, None)
            self._become(State.WAITING)
            # what was not said to it, another's voice or a noise, needs no answer
            if said.end is not End.NO_SPEECH and self._asked:
                self._begin(self._speak_text([phrase(Phrase.NOT_UNDERSTOOD, self.answer_language)]))
            return
        self._report("said", said.text, None)
        command = parse(said.text, self.language, (*self.settings.wake_words, *_NAMES))
        if command is not None:
            self._report("command", command.kind.name.lower(), None)
            self._obey(command)
            return
        turn = Turn(said.text, said.silent_s, said.recognition_s, monotonic())
        self._begin(self._answer(turn))

    def _obey(self, command: Command) -> None:
        volume = {
            Kind.LOUDER: self._volume + _STEP,
            Kind.QUIETER: self._volume - _STEP,
            Kind.VOLUME: (command.percent or 0) / 100,
        }.get(command.kind)
        if volume is not None:
            self._volume, self._muted = min(1.0, max(0.05, volume)), False
        reply: list[str] = []
        match command.kind:
            case Kind.STOP:
                self._become(State.WAITING)
                self._tone("done")
                return
            case Kind.REPEAT:
                reply = self._last_answer or [
                    phrase(Phrase.NOTHING_TO_REPEAT, self.answer_language)
                ]
            case Kind.MUTE | Kind.UNMUTE:
                self._muted = command.kind is Kind.MUTE
            case Kind.SLOWER | Kind.FASTER:
                by = _TEMPO if command.kind is Kind.FASTER else 1 / _TEMPO
                self._mouth.voice.speed = min(_FASTEST, max(_SLOWEST, self._mouth.voice.speed * by))
            case Kind.TIME | Kind.DATE:
                told = skills.answer(command.kind, datetime.now(), self.answer_language)
                reply = [told] if told else []
        self._begin(self._speak_text(reply or [phrase(Phrase.DONE, self.answer_language)]))

    def _listen(self, patience_s: float, before: Samples | None, *, asked: bool = True) -> None:
        self._asked = asked
        self._dictations += 1
        if asked and before is None:
            self._tone("heard")  # after the wake word it would fall into the question
        self._ears.dictate(patience_s, before)
        self._become(State.LISTENING)

    # --- what is said ---

    async def _answer(self, turn: Turn) -> None:
        """Ask the daemon, and speak the answer while it comes."""
        self._mouth.start()
        self._last_answer = []
        thinking = asyncio.create_task(self._think(), name="thinking")
        answer = None
        try:
            await self._client.ping(timeout=_PING_S)
            answer = self._client.ask(
                turn.question,
                session=self.settings.session_id,
                system=self._system or None,
                max_tokens=self.settings.max_tokens,
            )
            sentences: asyncio.Queue[str | None] = asyncio.Queue()
            speaking = asyncio.create_task(self._speak_queue(sentences, thinking), name="speaking")
            try:
                text = SpokenText(self.answer_language)
                async for piece in answer:
                    if speaking.done():  # it failed; nobody would hear the rest
                        await answer.aclose()
                        break
                    turn.first_token_s = turn.first_token_s or monotonic()
                    turn.answer += piece
                    self._add(text.feed(piece), sentences, turn)
                self._add(text.finish(), sentences, turn)
                if turn.first_sentence_s is None:  # empty, or but marks that have no sound
                    nothing = phrase(Phrase.NOTHING_TO_SAY, self.answer_language)
                    self._add([nothing], sentences, turn)
                sentences.put_nowait(None)
                await speaking
            finally:
                speaking.cancel()
            turn.first_sound_s = self._mouth.first_sound_s
            await self._mouth.finished()
            turn.heard = self._mouth.heard()
            self._report("answered", turn.answer, turn)
        except asyncio.CancelledError:
            turn.interrupted, turn.heard = True, self._mouth.heard()
            turn.first_sound_s = self._mouth.first_sound_s
            if answer is not None:
                answer.cancel()
            self._report("interrupted", turn.answer, turn)
            raise
        except AssistantError as error:
            turn.error = str(error)
            self._report("error", turn.error, turn)
            await self._apologise(error)
        finally:
            thinking.cancel()
            self.turns += 1

    def _add(self, found: list[str], queue: asyncio.Queue[str | None], turn: Turn) -> None:
        for sentence in found:
            turn.first_sentence_s = turn.first_sentence_s or monotonic()
            self._last_answer.append(sentence)
            self._report("sentence", sentence, None)
            queue.put_nowait(sentence)

    async def _speak_queue(
        self, sentences: asyncio.Queue[str | None], thinking: asyncio.Task[None]
    ) -> None:
        while (sentence := await sentences.get()) is not None:
            thinking.cancel()
            await self._mouth.speak(sentence)

    async def _speak_text(self, sentences: list[str]) -> None:
        self._mouth.start()
        try:
            for sentence in sentences:
                self._report("sentence", sentence, None)
                await self._mouth.speak(sentence)
            await self._mouth.finished()
        except VoiceError as error:
            self._report("error", str(error), None)

    async def _apologise(self, error: AssistantError) -> None:
        """Say what went wrong, where there is still a voice and a speaker to say it with."""
        if isinstance(error, DeviceLost):
            return
        what, tone = _EXCUSES.get(type(error), (Phrase.FAILED, "error"))
        self._tone(tone)
        if not isinstance(error, VoiceError):
            await self._speak_text([phrase(what, self.answer_language)])

    async def _think(self) -> None:
        while True:
            await asyncio.sleep(_THINKING_S)
            self._tone("thinking")

    # --- turns ---

    def _begin(self, what: Coroutine[Any, Any, None], *, follow_up: bool = True) -> None:
        """Do it as the turn; `follow_up` listens after it, without the wake word."""
        self._stop_answer()
        self._follow_up_s = self.settings.follow_up_s if follow_up else 0.0
        self._apply_volume()
        self._become(State.ANSWERING)
        self._turn = asyncio.create_task(what, name="turn")
        self._turn.add_done_callback(self._turn_ended)

    def _turn_ended(self, task: asyncio.Task[None]) -> None:
        self._progress.set()
        if task is not self._turn:
            return
        self._turn = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            _log.error("a turn failed", exc_info=error)
            self._report("error", str(error), None)
        if self.state is State.ANSWERING:
            if self._follow_up_s and error is None:
                self._listen(self._follow_up_s, None, asked=False)
            else:
                self._ears.wait()
                self._become(State.WAITING)

    def _stop_answer(self) -> None:
        """Silence and cancellation, at once."""
        if self._turn is not None:
            self._mouth.hush()
            self._turn.cancel()
            self._turn = None
        elif self._speaker.playing:
            self._mouth.hush()

    async def _end_turn(self) -> None:
        turn = self._turn
        self._stop_answer()
        if turn is not None:
            await asyncio.wait([turn])

    def _become(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._report("state", state.value, None)

    # --- sound and devices ---

    def _apply_volume(self) -> None:
        quiet = self._quiet.is_quiet(datetime.now())
        self._mouth.cues = self.settings.cues and not quiet
        volume = min(self._volume, _QUIET_VOLUME) if quiet else self._volume
        self._speaker.volume = 0.0 if self._muted else volume

    def _tone(self, name: Cue) -> None:
        self._apply_volume()
        try:
            self._mouth.tone(name)
        except DeviceLost as error:
            _log.info("no tone: %s", error)  # on_lost has said so already

    def _device_lost(self, what: str, reason: str) -> None:
        self._report("lost", reason, None)
        if what == "microphone":
            self._deaf = True
            self._ears.wait()
            if self.state is State.LISTENING:
                self._become(State.WAITING)
            self._say_the_microphone_is_gone()

    def _say_the_microphone_is_gone(self) -> None:
        lost = phrase(Phrase.MICROPHONE_LOST, self.answer_language)
        self._begin(self._speak_text([lost]), follow_up=False)

    def _device_back(self, what: str) -> None:
        self._report("back", what, None)
        back = Phrase.SPEAKER_BACK
        if what == "microphone":
            self._deaf, back = False, Phrase.MICROPHONE_BACK
        # a speaker is found when there is something to play, often that it listens: no time to talk
        if self.state is State.WAITING:
            self._begin(self._speak_text([phrase(back, self.answer_language)]), follow_up=False)


_EXCUSES: Final[dict[type[AssistantError], tuple[Phrase, Cue]]] = {
    NoAnswer: (Phrase.AWAY, "not_connected"),
    ConnectionLost: (Phrase.LOST, "not_connected"),
    Busy: (Phrase.BUSY, "error"),
    OverBudget: (Phrase.OVER_BUDGET, "error"),
    ShuttingDown: (Phrase.AWAY, "not_connected"),
}
