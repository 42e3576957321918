"""clients.voice.loop: the loop's own decisions, with files for devices, and scripted ears."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assistantd.protocol import Cancel, Chat, Delta, Done
from clients import AsyncClient
from clients.voice import loop as voice_loop
from clients.voice.ears import Event, Partly, Said, SpokeOver, Woke
from clients.voice.endpoint import End
from clients.voice.errors import VoiceError
from clients.voice.files import FileMicrophone, FileSpeaker
from clients.voice.loop import Assistant, State, Turn
from clients.voice.mouth import Mouth
from clients.voice.phrases import Phrase, phrase
from clients.voice.settings import VoiceSettings
from clients.voice.sound import BLOCK, RATE_HZ, Samples
from clients.voice.speech import Voice
from tests.clients.scripted_daemon import ScriptedDaemon, fail, say, say_until_cancelled, timings
from tests.clients.voice.signals import silence, tone

WAIT_S = 20.0
BEFORE = np.full(100, 7, np.int16)
"""What the ears give for what they had heard of a question already."""

WOKE = Woke("jarvis", 0.0)


def question(text: str, end: End = End.FINISHED) -> Said:
    return Said(text, end, 0.5, 0.1)


class ScriptedEars:
    """Hears what the script says: at each block the function gives what happens."""

    def __init__(self) -> None:
        self.script: dict[int, list[Event]] = {}
        self.block = 0
        self.dictations: list[tuple[float, Samples | None]] = []
        self.dictating = False
        self.silent_s = 0.0
        self.references: list[Samples | None] = []
        self.after_wake_word = BEFORE

    def at(self, block: int, *events: Event) -> None:
        """At that block from now on; the next one may be in the thread that hears it already."""
        self.script.setdefault(self.block + 1 + block, []).extend(events)

    def recent(self) -> Samples:
        return BEFORE * 2

    def dictate(self, patience_s: float, before: Samples | None = None) -> None:
        self.dictating = True
        self.dictations.append((patience_s, before))

    def wait(self) -> None:
        self.dictating = False

    def hear(self, block: Samples, reference: Samples | None) -> list[Event]:
        self.block += 1
        self.references.append(reference)
        return self.script.pop(self.block, [])


class ToneVoice(Voice):
    """A tenth of a second for each word."""

    name, language, rate_hz = "tone", "en", RATE_HZ

    def __init__(self) -> None:
        self.spoken: list[str] = []
        self.closed = False
        self.problem: VoiceError | None = None

    def warm(self) -> None:
        pass

    def speak(self, text: str) -> Iterator[Samples]:
        self.spoken.append(text)
        if self.problem is not None:
            raise self.problem
        for _ in text.split():
            yield tone(440, 0.1)

    def close(self) -> None:
        self.closed = True


class Scene:
    """An Assistant that runs, and all that happens to it."""

    def __init__(self, endpoint: str, **settings: Any) -> None:
        self.settings = VoiceSettings(**settings)
        self.endpoint = endpoint
        self.happened: list[tuple[str, str]] = []
        self.turns: list[Turn] = []
        self.ears, self.voice = ScriptedEars(), ToneVoice()
        self.speaker = FileSpeaker()
        self.microphone = FileMicrophone(silence(0.1), self.speaker)
        self._changed = asyncio.Event()

    def report(self, what: str, text: str, turn: Turn | None) -> None:
        self.happened.append((what, text))
        if turn is not None:
            self.turns.append(turn)
        self._changed.set()

    async def until(self, what: str, text: str | None = None, times: int = 1) -> None:
        """Until it has happened so often."""

        def found() -> int:
            return sum(w == what and text in (None, t) for w, t in self.happened)

        async def come() -> None:
            while found() < times:
                self._changed.clear()
                await self._changed.wait()

        try:
            await asyncio.wait_for(come(), WAIT_S)
        except TimeoutError:
            raise AssertionError(f"no {what} {text} in {self.happened}") from None

    async def blocks(self, n: int) -> None:
        """Until so many more blocks were heard."""
        until = self.ears.block + n
        while self.ears.block < until:
            await asyncio.sleep(0)

    async def ask(self, text: str = "where is it") -> None:
        """Wake word and question."""
        self.ears.at(1, WOKE)
        self.ears.at(2, question(text))
        await self.until("said", text)

    def texts(self, what: str) -> list[str]:
        return [text for event, text in self.happened if event == what]


Play = Callable[[Scene, Assistant], Awaitable[None]]


def play(endpoint: str | ScriptedDaemon, story: Play, step: bool = True, **settings: Any) -> Scene:
    """Run an assistant, and let `story` happen to it; True as `step` lets its clock stand still."""

    async def run() -> Scene:
        address = endpoint if isinstance(endpoint, str) else endpoint.endpoint
        scene = Scene(address, **settings)
        scene.microphone = FileMicrophone(silence(60), scene.speaker)
        mouth = Mouth(scene.voice, scene.speaker)
        async with scene.microphone, scene.speaker, AsyncClient(address) as client:
            assistant = Assistant(
                scene.settings,
                "en",
                "en",
                scene.microphone,
                scene.speaker,
                scene.ears,  # type: ignore[arg-type]
                mouth,
                client,
                step=step,
                report=scene.report,
            )
            running = asyncio.create_task(assistant.run())
            try:
                await asyncio.wait_for(story(scene, assistant), WAIT_S)
            except TimeoutError:
                raise AssertionError(f"{scene.happened}, {scene.ears.script}") from None
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                mouth.close()
        return scene

    return asyncio.run(run())


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ScriptedDaemon]:
    with ScriptedDaemon(tmp_path) as daemon:
        daemon.on("chat", say("It is here. ", "Look around."))
        yield daemon


def test_question_and_answer(daemon: ScriptedDaemon) -> None:
    async def story(scene: Scene, assistant: Assistant) -> None:
        scene.ears.at(1, WOKE)
        scene.ears.at(2, Partly("where"))
        scene.ears.at(3, question("where is it"))
        await scene.until("answered")
        await scene.until("state", "listening", 2)
        assert assistant.turns == 1

    scene = play(daemon, story, session="room", max_tokens=50)
    assert scene.happened == [
        ("state", "waiting"),
        ("woke", "jarvis"),
        ("state", "listening"),
        ("partly", "where"),
        ("said", "where is it"),
        ("state", "answering"),
        ("sentence", "It is here."),
        ("sentence", "Look around."),
        ("answered", "It is here. Look around."),
        ("state", "listening"),
    ]
    (turn,) = scene.turns
    assert turn.heard == scene.voice.spoken == ["It is here.", "Look around."]
    assert not turn.interrupted and not turn.error
    stages = turn.stages()
    assert (stages["endpoint"], stages["recognition"]) == (0.5, 0.1)
    assert stages["total"] == pytest.approx(sum(s for n, s in stages.items() if n != "total"))
    (request,) = daemon.wait_for(Chat)
    assert (request.session, request.max_tokens) == ("room", 50)
    # the wake word's question begins with what was heard since; the follow-up with nothing
    (_, before), (patience_s, nothing) = scene.ears.dictations
    assert before is BEFORE
    assert (patience_s, nothing) == (scene.settings.follow_up_s, None)


@pytest.mark.parametrize("answer", ["", "\n\n", "---\n"])
def test_an_answer_without_sound(daemon: ScriptedDaemon, answer: str) -> None:
    daemon.on("chat", say(answer))

    async def story(scene: Scene, assistant: Assistant) -> None:
        await scene.ask()
        await scene.until("answered")

    scene = play(daemon, story)
    assert scene.voice.spoken == [phrase(Phrase.NOTHING_TO_SAY, "en")]


def test_follow_up_and_back_to_waiting(daemon: ScriptedDaemon) -> None:
    async def story(scene: Scene, assistant: Assistant) -> None:
        await scene.ask()
        await scene.until("answered")
        await scene.until("state", "listening", 2)
        scene.ears.at(1, question("and then"))  # without the wake word
        await scene.until("answered", times=2)
        await scene.until("state", "listening", 3)
        scene.ears.at(1, question("", End.NO_SPEECH))
        await scene.until("state", "waiting", 2)

    scene = play(daemon, story)
    assert scene.texts("nothing") == ["nothing was said"]
    assert scene.texts("woke") == ["jarvis"]
    assert len(scene.voice.spoken) == 4  # silence is no reason to speak


def test_no_follow_up_if_not_wanted(daemon: ScriptedDaemon) -> None:
    async def story(scene: Scene, assistant: Assistant) -> None:
        await scene.ask()
        await scene.until("answered")
        await scene.until("state", "waiting", 2)

    assert len(play(daemon, story, follow_up_s=0).ears.dictations) == 1


def test_what_is_not_understood(daemon: ScriptedDaemon) -> None:
    async def story(scene: Scene, assistant: Assistant) -> None:
        scene.ears.at(1, WOKE)
        scene.ears.at(2, question(""))
        await scene.until("state", "listening", 2)

    scene = play(daemon, story)
    assert scene.voice.spoken == [phrase(Phrase.NOT_UNDERSTOOD, "en")]


@pytest.mark.parametrize("over", [False, True])
def test_what_was_not_said_to_it_is_no_reason_to_speak(daemon: ScriptedDaemon, over: bool) -> None:
    """Noise in a follow-up, or over an answer: it would hear its own excuse, and go on so."""
    if over:
        daemon.on("chat", say_until_cancelled("One two three four five. " * 40))

    async def story(scene: Scene, assistant: Assistant) -> None:
        await scene.ask()
        await scene.until("sentence")
        if over:
            scene.ears.at(3, SpokeOver())
        await scene.until("state", "listening", 2)
        scene.ears.at(1, question(""))
        await scene.until("state", "waiting", 2)
        await scene.blocks(20)

    scene = play(daemon, story, interrupt="speech")
    assert phrase(Phrase.NOT_UNDERSTOOD, "en") not in scene.voice.spoken


@pytest.mark.parametrize(
    ("interrupt", "event", "stops"),
    [
        ("speech", SpokeOver(), True),
        ("speech", WOKE, True),
        ("wake word", SpokeOver(), False),
        ("wake word", WOKE, True),
        ("off", SpokeOver(), False),
        ("off", WOKE, False),
    ],
)
def test_interrupting(daemon: ScriptedDaemon, interrupt: str, event: Event, stops: bool) -> None:
    long = "One two three four five. " * 40
    daemon.on("chat", say_until_cancelled(long) if stops else say(long))

    async def story(scene: Scene, assistant: Assistant) -> None:
        await scene.ask()
        await scene.until("sentence")
        while not scene.speaker.playing:
            await asyncio.sleep(0)
        scene.ears.at(3, event)
        if not stops:
            await scene.until("answered")
            return
        await scene.until("interrupted")
        await scene.blocks(3)
        await scene.blocks(3)  # the fade is played to its end
        assert not scene.speaker.playing
        assert assistant.state is State.LISTENING
        await asyncio.to_thread(daemon.wait_for, Cancel)

    scene = play(daemon, story, interrupt=interrupt)
    (turn,) = scene.turns
    assert turn.interrupted is stops
    if stops:
        before = scene.ears.dictations[-1][1]
        assert before is not None and before[0] == (14 if event == SpokeOver() else 7)


def test_the_button_interrupts_and_sounds(daemon: ScriptedDaemon) -> None:
    daemon.on("chat", say_until_cancelled("One two three four five. " * 4))

    async def story(scene: Scene, assistant: Assistant) -> None:
        assistant.trigger()
        assert assistant.state is State.LISTENING
        assert scene.speaker.playing  # the tone that says so
        scene.ears.at(1, question("where"))
        await scene.until("sentence")
        assistant.trigger()
        await scene.until("interrupted")
        assert assistant.state is State.LISTENING

    scene = play(daemon, story, interrupt="off")
    assert [before for _, before in scene.ears.dictations] == [None, None]


@pytest.mark.parametrize(
    ("handler", "what"),
    [
        (fail("busy", "busy", 100), Phrase.BUSY),
        (fail("over_budget", "too long"), Phrase.OVER_BUDGET),
        (fail("model_error", "no"), Phrase.FAILED),
        (fail("shutting_down", "no"), Phrase.AWAY),
    ],
)
def test_errors_are_said(daemon: ScriptedDaemon, handler: Any, what: Phrase) -> None:
    daemon.on("chat", handler)

    async def story(scene: Scene, assistant: Assistant) -> None:
        await scene.ask()
        await scene.until("error")
        await scene.until("state", "listening", 2)  # and it goes on
        daemon.on("chat", say("Here."))
        scene.ears.at(1, question("and who"))
        await scene.until("answered")

    scene = play(daemon, story)
    assert scene.voice.spoken == [phrase(what, "en"), "Here."]
    assert scene.turns[0].error


def test_nobody_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_loop, "_PING_S", 0.2)

    async def story(scene: Scene, assistant: Assistant) -> None:
        await scene.ask()
        await scene.until("sentence")
        await scene.until("state", "listening", 2)

    scene = play(f"ipc://{tmp_path}/nobody.sock", story)
    assert scene.voice.spoken == [phrase(Phrase.AWAY, "en")]


def test_the_daemon_dies_in_mid_answer_and_returns(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.on("chat", say_until_cancelled("It is here. ", "Look"))

    async def story(scene: Scene, assistant: Assistant) -> None:
        await scene.ask()
        await scene.until("sentence")
        await asyncio.to_thread(daemon.stop)
        daemon.on("chat", say("Here."))
        await asyncio.to_thread(daemon.restart)
        await scene.until("error")
        await scene.until("state", "listening", 2)
        scene.ears.at(1, question("and who"))
        await scene.until("answered")

    scene = play(daemon, story)
    assert scene.voice.spoken[-2:] == [phrase(Phrase.LOST, "en"), "Here."]


def test_the_voice_fails(daemon: ScriptedDaemon) -> None:
    async def story(scene: Scene, assistant: Assistant) -> None:
        scene.voice.problem = VoiceError("no breath")
        await scene.ask()
        await scene.until("error", "no breath")
        await scene.until("state", "listening", 2)
        scene.voice.problem = None
        scene.ears.at(1, question("and who"))
        await scene.until("answered")

    play(daemon, story)


def test_commands(daemon: ScriptedDaemon) -> None:
    volumes: list[float] = []

    async def story(scene: Scene, assistant: Assistant) -> None:
        async def command(text: str) -> str:
            listened = len(scene.ears.dictations)
            n = len(scene.voice.spoken)
            assistant.trigger()
            scene.ears.at(1, question(text))
            while len(scene.ears.dictations) < listened + 2:  # by the button, and for a follow-up
                await scene.blocks(1)
            volumes.append(round(scene.speaker.volume, 2))
            return " ".join(scene.voice.spoken[n:])

        assert await command("repeat that") == phrase(Phrase.NOTHING_TO_REPEAT, "en")
        assert await command("louder") == phrase(Phrase.DONE, "en")
        await command("volume to thirty percent")
        await command("quieter")
        await command("mute")
        await command("unmute")
        await command("mute")
        await command("louder please jarvis")  # is no command to be obeyed in silence
        assert scene.voice.speed == 1.0
        await command("faster")
        assert scene.voice.speed > 1.1
        await command("slow down")
        assert scene.voice.speed == pytest.approx(1.0)
        assert "It is" in await command("what time is it")
        assert not daemon.requests  # none of this is the model's
        await command("where is it")
        assert await command("say that again") == "It is here. Look around."

    scene = play(daemon, story, volume=0.8)
    assert volumes[:8] == [0.8, 0.95, 0.3, 0.15, 0.0, 0.15, 0.0, 0.3]
    assert "repeat" in scene.texts("command")


def test_stop(daemon: ScriptedDaemon) -> None:
    daemon.on("chat", say_until_cancelled("One two three four five. " * 4))

    async def story(scene: Scene, assistant: Assistant) -> None:
        await scene.ask()
        await scene.until("sentence")
        scene.ears.at(2, WOKE)
        scene.ears.at(3, question("stop"))
        await scene.until("command", "stop")
        await scene.until("state", "waiting", 2)  # and no follow-up
        assert not scene.ears.dictating

    play(daemon, story)


def test_quiet_hours(daemon: ScriptedDaemon) -> None:
    async def story(scene: Scene, assistant: Assistant) -> None:
        assistant.trigger()
        await scene.blocks(3)  # the fade is played to its end
        assert not scene.speaker.playing  # no tone
        scene.ears.at(1, question("where"))
        await scene.until("answered")
        assert scene.speaker.volume == pytest.approx(0.35)

    play(daemon, story, quiet_hours="00:00-23:59", volume=0.8)


def test_devices_go_and_return(daemon: ScriptedDaemon) -> None:
    async def story(scene: Scene, assistant: Assistant) -> None:
        scene.ears.at(1, WOKE)
        await scene.until("state", "listening")
        scene.microphone.lose("no microphone")
        await scene.until("lost", "no microphone")
        scene.microphone.bring_back()
        await scene.until("back", "microphone")
        await scene.until("state", "waiting", 3)
        scene.speaker.lose("no speaker")
        await scene.until("lost", "no speaker")
        scene.ears.at(1, question("where is it"))
        await scene.until("error")
        scene.speaker.bring_back()
        await scene.until("back", "speaker")
        scene.ears.at(40, WOKE)
        scene.ears.at(41, question("where is it"))
        await scene.until("answered")

    scene = play(daemon, story)
    assert phrase(Phrase.MICROPHONE_LOST, "en") in scene.voice.spoken


@pytest.mark.parametrize("device", ["microphone", "speaker"])
def test_a_device_that_returns_does_not_speak_into_a_question(
    daemon: ScriptedDaemon, device: str
) -> None:
    """A speaker is found again when a tone is played to say that it listens."""

    async def story(scene: Scene, assistant: Assistant) -> None:
        assistant.trigger()
        getattr(scene, device).on_back()
        assert assistant.state is State.LISTENING
        await scene.blocks(100)
        assert scene.ears.dictating
        scene.ears.at(1, question("where is it"))
        await scene.until("answered")

    scene = play(daemon, story)
    assert scene.texts("back") == [device]
    assert scene.voice.spoken == ["It is here.", "Look around."]


def test_the_button_while_there_is_no_microphone(daemon: ScriptedDaemon) -> None:
    async def story(scene: Scene, assistant: Assistant) -> None:
        await scene.blocks(1)
        scene.microphone.on_lost("no microphone")
        await scene.until("state", "waiting", 2)
        assistant.trigger()
        assert assistant.state is State.ANSWERING  # nothing would ever end the listening
        await scene.until("state", "waiting", 3)
        scene.microphone.on_back()
        await scene.until("state", "waiting", 4)
        assistant.trigger()
        assert assistant.state is State.LISTENING

    scene = play(daemon, story)
    lost, back = phrase(Phrase.MICROPHONE_LOST, "en"), phrase(Phrase.MICROPHONE_BACK, "en")
    assert scene.voice.spoken == [lost, lost, back]


@pytest.mark.parametrize("said", [question("old words"), question("", End.NO_SPEECH)])
def test_the_button_while_the_last_words_are_being_recognised(
    daemon: ScriptedDaemon, said: Said
) -> None:
    """What was being heard then is not what the button asked for."""

    async def story(scene: Scene, assistant: Assistant) -> None:
        hear, pressed = scene.ears.hear, asyncio.Event()
        loop = asyncio.get_running_loop()

        async def press() -> None:
            assistant.trigger()
            pressed.set()

        def press_and_hear(block: Samples, reference: Samples | None) -> list[Event]:
            heard = hear(block, reference)
            if heard and not pressed.is_set():
                asyncio.run_coroutine_threadsafe(press(), loop).result(WAIT_S)
            return heard

        assistant.trigger()
        scene.ears.hear = press_and_hear  # type: ignore[method-assign]
        scene.ears.at(1, said)
        await pressed.wait()
        await scene.blocks(20)
        assert scene.ears.dictating
        assert assistant.state is State.LISTENING

    scene = play(daemon, story)
    assert not scene.texts("said") and not scene.texts("nothing")


def test_an_answer_that_cannot_be_heard_is_given_up(daemon: ScriptedDaemon) -> None:
    """The voice fails at the first sentence: the daemon need not write the others."""
    more = threading.Event()

    def handler(request: Any, send: Any) -> None:
        send(Delta(text="One two three. Four "))
        more.wait(WAIT_S)
        send(Delta(text="five six. "))
        assert send.cancelled.wait(WAIT_S)
        send(Done(text="", finish_reason="cancelled", timings=timings()))

    daemon.on("chat", handler)

    async def story(scene: Scene, assistant: Assistant) -> None:
        scene.voice.problem = VoiceError("no breath")
        await scene.ask()
        while not scene.voice.spoken:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        more.set()
        await scene.until("error", "no breath")
        await asyncio.to_thread(daemon.wait_for, Cancel)

    play(daemon, story)


def test_a_wake_word_that_does_not_interrupt_is_not_reported(daemon: ScriptedDaemon) -> None:
    daemon.on("chat", say("One two three four five. " * 10))

    async def story(scene: Scene, assistant: Assistant) -> None:
        await scene.ask()
        await scene.until("sentence")
        scene.ears.at(3, WOKE)
        scene.ears.at(4, WOKE)
        await scene.until("answered")

    assert play(daemon, story, interrupt="off").texts("woke") == ["jarvis"]


def test_the_clock_of_a_file_stands_still_while_an_answer_is_made(daemon: ScriptedDaemon) -> None:
    blocks: list[int] = []

    async def story(scene: Scene, assistant: Assistant) -> None:
        def handler(request: Any, send: Any) -> None:
            blocks.append(scene.ears.block)
            # as many turns of the event loop as there like to be
            answered.wait(0.3)
            blocks.append(scene.ears.block)
            say("Here.")(request, send)

        answered = threading.Event()
        daemon.on("chat", handler)
        await scene.ask()
        await scene.until("answered")

    scene = play(daemon, story)
    assert blocks[0] == blocks[1]
    assert scene.ears.block > blocks[1]


def test_what_is_played_is_known_to_the_ears(daemon: ScriptedDaemon) -> None:
    async def story(scene: Scene, assistant: Assistant) -> None:
        await scene.blocks(5)
        assert scene.ears.references == [None] * scene.ears.block
        await scene.ask()
        await scene.until("answered")
        played = [r for r in scene.ears.references if r is not None]
        assert all(r.shape == (BLOCK,) for r in played)
        assert any(r.any() for r in played)
        await scene.blocks(60)  # longer than any echo
        assert scene.ears.references[-1] is None

    play(daemon, story)
