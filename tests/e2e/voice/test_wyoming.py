"""The Wyoming server with a real recogniser and a real voice: it understands what it says."""

import asyncio
import io
import shutil
import subprocess
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient as Wyoming
from wyoming.info import Describe, Info
from wyoming.tts import Synthesize

from clients import AsyncClient
from clients.voice import models
from clients.voice.recogniser import Recogniser
from clients.voice.sound import Samples
from clients.voice.wyoming_server import serve

pytestmark = pytest.mark.voice

WORD = "아버지"  # of what espeak says in Korean, the model understands little else
RATE_HZ = 22_050
PART = 1024  # samples in an event
WAIT_S = 60.0


class Espeak:
    """espeak-ng in Korean."""

    name, language, rate_hz = "espeak-ng", "ko", RATE_HZ

    def speak(self, text: str) -> Iterator[Samples]:
        command = ["espeak-ng", "-v", "ko", "-s", "140", "--stdout", "--", text]
        done = subprocess.run(command, capture_output=True, check=True)
        with wave.open(io.BytesIO(done.stdout)) as file:
            assert file.getframerate() == RATE_HZ
            # of a stream, the header does not tell the length
            yield np.frombuffer(done.stdout[44:], "<i2")


async def spoken(uri: str, text: str) -> Samples:
    """What the server's voice makes of a text."""
    audio = b""
    async with Wyoming.from_uri(uri, read_timeout=WAIT_S) as client:
        await client.write_event(Synthesize(text).event())
        while (event := await client.read_event()) is not None:
            audio += event.payload or b""
            if AudioStop.is_type(event.type):
                return np.frombuffer(audio, "<i2")
    raise AssertionError("the server ended the connection")


async def understood(uri: str, sound: Samples) -> str:
    """What the server's recogniser makes of a sound."""
    async with Wyoming.from_uri(uri, read_timeout=WAIT_S) as client:
        await client.write_event(Transcribe(language="ko").event())
        await client.write_event(AudioStart(RATE_HZ, 2, 1).event())
        for first in range(0, len(sound), PART):
            part = sound[first : first + PART].tobytes()
            await client.write_event(AudioChunk(RATE_HZ, 2, 1, part).event())
        await client.write_event(AudioStop().event())
        while (event := await client.read_event()) is not None:
            if Transcript.is_type(event.type):
                return Transcript.from_event(event).text
    raise AssertionError("the server ended the connection")


def test_it_understands_what_it_says(tmp_path: Path) -> None:
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    recogniser = Recogniser(models.find(language="ko"))
    uri = f"unix://{tmp_path}/w.sock"

    async def main() -> None:
        ready = asyncio.Event()
        server = asyncio.create_task(
            serve(
                uri,
                recogniser=recogniser,
                voice=Espeak(),
                make_client=lambda: AsyncClient(f"ipc://{tmp_path}/nobody.sock"),
                on_ready=ready.set,
            )
        )
        async with asyncio.timeout(WAIT_S):
            await ready.wait()
        async with Wyoming.from_uri(uri, read_timeout=WAIT_S) as client:
            await client.write_event(Describe().event())
            event = await client.read_event()
            assert event is not None
            info = Info.from_event(event)
            assert info.asr[0].models[0].languages == ["ko"]
        word = await spoken(uri, WORD)
        silence = np.zeros(RATE_HZ // 2, np.int16)
        sound = np.concatenate([silence, word, silence])
        # at once, as each has a listener of its own on the one model
        assert await asyncio.gather(*(understood(uri, sound) for _ in range(3))) == [WORD] * 3
        assert await understood(uri, np.zeros(RATE_HZ, np.int16)) == ""
        server.cancel()
        with pytest.raises(asyncio.CancelledError):
            await server

    asyncio.run(main())
