"""Interrupting an answer: by the button, by the wake word, by speech; and never by its own echo.

How long sound goes on is measured in a recording of the speaker, not asked of the program. Run with
`-s` to see the figures.
"""

import re
import statistics
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from time import monotonic

import pytest

from clients.voice.sound import RATE_HZ
from tests.e2e.voice.sound_server import SoundServer
from tests.e2e.voice.talking import Recording, Room, Talking, said, talking
from tests.running import RunningDaemon, running_daemon

pytestmark = pytest.mark.voice
pytest.importorskip("sounddevice")

TRIES = [
    pytest.param(5, id="5"),
    pytest.param(50, id="50", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
]
LIMIT_S = 0.2
"""From the decision to silence."""
QUESTION = "어디예요"
ECHO_DB = -12.0
STORIES = {
    "ASSISTANT_VOICE_CUES": "false",  # a tone would follow at once, and is sound, too
    "ASSISTANT_VOICE_SYSTEM": "You tell long stories. Whatever you are asked, you answer with a "
    "story of many sentences.",
}


@pytest.fixture(scope="module")
def slow_daemon(smollm2_path: Path) -> Iterator[RunningDaemon]:
    """One whose budget lets it keep few weights: the others come from the disk for every token.

    The default model is done with most answers before a tenth of a second of them was heard.
    """
    with running_daemon(smollm2_path, ASSISTANTD_MEMORY_BUDGET="100M") as running:
        yield running


@pytest.fixture
def room(sound_server: SoundServer, tmp_path: Path) -> Iterator[Room]:
    yield Room(sound_server, tmp_path)


def ask(room: Room, client: Talking, speaker: Recording) -> float:
    """Put a question to a client that listens; when its answer began to sound."""
    room.say(QUESTION)
    client.until("state", "answering")
    sentence = client.until("sentence")
    return speaker.wait_for_sound(sentence["at"])


def report(what: str, spans_s: list[float]) -> None:
    print(
        f"\n{what}: median {1000 * statistics.median(spans_s):.0f} ms, "
        f"max {1000 * max(spans_s):.0f} ms, {len(spans_s)} tries"
    )


def cancelled(daemon: RunningDaemon) -> int:
    """How many answers the daemon says that it gave up."""
    return len(re.findall(r"answered.*finish=cancelled", daemon.log.read_text()))


def options(session: str, interrupt: str = "speech") -> list[str]:
    return ["--session", session, "--max-tokens", "160", "--interrupt", interrupt]


@pytest.mark.parametrize("tries", TRIES)
def test_the_button(room: Room, slow_daemon: RunningDaemon, tries: int) -> None:
    before = cancelled(slow_daemon)
    after_s = []
    with (
        room.recording() as speaker,
        talking(room, slow_daemon.endpoint, *options("button"), **STORIES) as client,
        slow_daemon.client() as owner,
    ):
        client.press()
        client.until("state", "listening")
        for n in range(tries):
            begun_s = ask(room, client, speaker)
            speaker.until(begun_s + 0.05 + 0.013 * (n % 20))
            pressed_s = client.press()
            client.until("interrupted")  # and listens
            after_s.append(speaker.silent_after(pressed_s) - pressed_s)
            owner.delete_session("button")  # the model learns from short answers to give such
    report("sound after the button", after_s)
    assert max(after_s) <= LIMIT_S
    n_cancelled = cancelled(slow_daemon) - before
    print(f"{n_cancelled} of {tries} answers were still being computed, and were given up")
    assert n_cancelled > tries // 2  # the model takes some questions for short ones


@pytest.mark.slow
@pytest.mark.parametrize("tries", TRIES)
def test_the_wake_word(room: Room, slow_daemon: RunningDaemon, tries: int) -> None:
    """Said over an answer; there is no echo of it, and speech alone must not interrupt."""
    before = cancelled(slow_daemon)
    word = said("Hey Jarvis", "en-us+m3")
    after_s, reaction_s, unheard = [], [], 0
    with (
        room.recording() as speaker,
        room.recording("room.monitor") as microphone,
        talking(room, slow_daemon.endpoint, *options("wake", "wake word"), **STORIES) as client,
        slow_daemon.client() as owner,
    ):
        client.press()
        client.until("state", "listening")
        for n in range(tries):
            begun_s = ask(room, client, speaker)
            speaker.until(begun_s + 0.3 + 0.013 * n)
            mark_s = monotonic()
            process = room.say(word, wait=False)
            woke = client.until("woke", None, "answered")
            process.wait(20)
            if woke["event"] == "answered":
                unheard += 1
                client.until("state", "listening")
                owner.delete_session("wake")
                continue
            client.until("interrupted")  # and listens
            after_s.append(speaker.silent_after(woke["at"]) - woke["at"])
            onset_s = microphone.onset(word, mark_s, woke["at"] + 0.5)
            reaction_s.append(woke["at"] + after_s[-1] - onset_s)
            owner.delete_session("wake")
    report("sound after the wake word was understood", after_s)
    report(
        f"sound after its first sample (it takes {word.size / RATE_HZ:.1f} s to say)", reaction_s
    )
    print(f"not noticed: {unheard} of {tries}")
    assert max(after_s) <= LIMIT_S
    assert unheard <= 0.1 * tries
    n_cancelled = cancelled(slow_daemon) - before
    print(f"{n_cancelled} of {tries} answers were still being computed, and were given up")
    assert n_cancelled > tries // 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "echo",
    [
        pytest.param(False, id="no echo"),
        pytest.param(
            True,
            id="echo",
            marks=pytest.mark.xfail(
                strict=False,
                reason="the virtual room's delay jumps by tens of milliseconds, and Speex takes "
                "seconds to follow; so speech is not what interrupts by default",
            ),
        ),
    ],
)
@pytest.mark.parametrize("tries", TRIES)
def test_speech(room: Room, daemon: RunningDaemon, tries: int, echo: bool) -> None:
    """Any speech interrupts; with an echo, once the room is known."""
    speech = said("잠깐만 기다려 주세요")
    after_s, reaction_s = [], []
    with (
        room.recording() as speaker,
        room.recording("room.monitor") as microphone,
        room.echo(ECHO_DB) if echo else nullcontext(),
        talking(room, daemon.endpoint, *options(f"speech-{echo}")) as client,
    ):
        client.press()
        client.until("state", "listening")
        ask(room, client, speaker)  # to its end, so that the canceller learns the room
        client.until("answered")
        client.until("state", "listening")
        unheard = 0
        for n in range(tries):
            mark = client.mark()
            begun_s = ask(room, client, speaker)
            speaker.until(begun_s + 0.5 + 0.013 * n)
            said_s = monotonic()
            process = room.say(speech, wait=False)
            event = client.until("interrupted", None, "answered")
            process.wait(20)
            if event["event"] == "answered":
                unheard += 1
                client.until("state", "listening")
                continue
            over = next(e for e in client.events[mark:] if e["event"] in ("spoke over", "woke"))
            decided_s = over["at"]
            onset_s = microphone.onset(speech, said_s, decided_s + 0.5)
            after_s.append(speaker.silent_after(decided_s, 0.6) - decided_s)
            reaction_s.append(decided_s + after_s[-1] - onset_s)
            assert decided_s > onset_s, f"it interrupted itself:\n{client}"
            # what was said becomes a question; its answer is of no interest
            client.until("state", "answering")
            client.press()
            client.until("interrupted")
    report("sound after it was decided", after_s)
    report("sound after the first sample of speech", reaction_s)
    print(f"not noticed: {unheard} of {tries}")
    assert max(after_s) <= LIMIT_S
    assert unheard <= 0.2 * tries


@pytest.mark.slow
def test_its_own_echo_does_not_interrupt(room: Room, daemon: RunningDaemon) -> None:
    """Nor is it taken for a question, once an answer has ended, nor for the wake word."""
    with (
        room.recording() as speaker,
        room.echo(ECHO_DB),
        talking(
            room, daemon.endpoint, *options("echo", "wake word"), "--max-tokens", "60"
        ) as client,
    ):
        for _ in range(3):
            client.press()
            client.until("state", "listening")
            mark = client.mark()
            ask(room, client, speaker)
            turn = client.until("answered")
            assert not turn["interrupted"]
            client.until("state", "listening")
            client.until("nothing")
            client.until("state", "waiting")
            assert not client.since(mark, "woke")
            assert not client.since(mark, "spoke over")
            assert len(client.since(mark, "said")) == 1
