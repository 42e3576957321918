"""clients.voice.files: a microphone and a speaker on one clock of blocks."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from clients.voice.errors import DeviceLost
from clients.voice.files import FileMicrophone, FileSpeaker
from clients.voice.playback import FADE_S
from clients.voice.sound import BLOCK, RATE_HZ, Samples, write_wav
from tests.clients.voice.signals import noise, tone

Devices = Callable[[FileMicrophone, FileSpeaker], Awaitable[None]]


def together(test: Devices, heard: Samples, **options: float) -> FileSpeaker:
    async def run() -> FileSpeaker:
        async with (
            FileSpeaker() as speaker,
            FileMicrophone(heard, speaker, **options) as microphone,
        ):
            await asyncio.wait_for(test(microphone, speaker), 10)
        return speaker

    return asyncio.run(run())


def test_what_is_heard_and_silence_after_it(tmp_path: Path) -> None:
    sound = tone(440, 0.1)
    write_wav(path := tmp_path / "said.wav", sound, RATE_HZ)

    async def run() -> None:
        microphone = FileMicrophone(path)
        heard = []
        async for block in microphone.blocks():
            heard.append(block)
            assert microphone.at_end == (len(heard) * BLOCK >= sound.size)
            if len(heard) == 10:
                break
        whole = np.concatenate(heard)
        assert np.array_equal(whole[: sound.size], sound)
        assert not whole[sound.size :].any()
        assert microphone.heard_s == pytest.approx(10 * BLOCK / RATE_HZ)

    asyncio.run(run())


def test_a_block_is_played_for_each_that_is_heard() -> None:
    sound = noise(0.2, -20)

    async def test(microphone: FileMicrophone, speaker: FileSpeaker) -> None:
        taken = 0
        async for _ in microphone.blocks():
            taken += 1
            if taken == 3:
                speaker.play(sound, RATE_HZ)
                assert speaker.playing
            if taken > 3 and not speaker.playing:
                break
        assert speaker.played_s == pytest.approx(0.2)

    recording = together(test, noise(1, -20)).recording()
    start = 3 * BLOCK
    assert not recording[:start].any()
    assert np.array_equal(recording[start : start + sound.size], sound)


def test_stop() -> None:
    async def test(microphone: FileMicrophone, speaker: FileSpeaker) -> None:
        speaker.play(tone(200, 5), RATE_HZ)
        taken = 0
        async for _ in microphone.blocks():
            taken += 1
            if taken == 10:
                speaker.stop()
            if not speaker.playing:
                break
        assert taken == 11
        assert speaker.played_s == pytest.approx(10 * BLOCK / RATE_HZ + FADE_S)

    together(test, noise(1, -20))


def test_drained_waits_for_the_clock() -> None:
    async def test(microphone: FileMicrophone, speaker: FileSpeaker) -> None:
        speaker.play(tone(200, 0.5, rate_hz=22_050), 22_050)
        drained = asyncio.create_task(speaker.drained())
        async for _ in microphone.blocks():
            if drained.done():
                break
        await drained
        assert microphone.heard_s == pytest.approx(0.5, abs=3 * BLOCK / RATE_HZ)
        assert speaker.played_s == pytest.approx(0.5, abs=0.001)

    together(test, noise(1, -20))


def test_another_rate() -> None:
    async def run() -> Samples:
        async with FileSpeaker(22_050) as speaker, FileMicrophone(noise(1, -20), speaker) as heard:
            speaker.play(sound, 22_050)
            async for _ in heard.blocks():
                if heard.at_end:
                    break
        assert speaker.recording(RATE_HZ).size == pytest.approx(32 * BLOCK, abs=2)
        return speaker.recording()

    sound = tone(440, 0.5, rate_hz=22_050)
    assert np.array_equal(asyncio.run(run())[: sound.size], sound)


def test_an_echo_of_what_is_played() -> None:
    sound, delay = tone(440, 0.2), round(0.05 * RATE_HZ)

    async def test(microphone: FileMicrophone, speaker: FileSpeaker) -> None:
        speaker.play(sound, RATE_HZ)
        heard = []
        async for block in microphone.blocks():
            heard.append(block)
            if len(heard) == 12:
                break
        whole = np.concatenate(heard)
        assert not whole[:delay].any()
        assert np.abs(whole[delay : delay + sound.size] - 0.5 * sound).max() <= 1

    together(test, np.zeros(0, np.int16), echo_gain=0.5, echo_delay_ms=50)


def test_devices_that_go_away() -> None:
    async def test(microphone: FileMicrophone, speaker: FileSpeaker) -> None:
        told: list[str] = []
        for device in (microphone, speaker):
            device.on_lost = told.append
            device.on_back = lambda: told.append("back")
        speaker.play(tone(200, 5), RATE_HZ)
        blocks = microphone.blocks()
        await anext(blocks)
        speaker.lose("no speaker")
        with pytest.raises(DeviceLost, match="no speaker"):
            await speaker.drained()
        with pytest.raises(DeviceLost):
            speaker.play(tone(200, 5), RATE_HZ)
        microphone.lose("no microphone")
        waiting = asyncio.ensure_future(anext(blocks))
        await asyncio.sleep(0)
        assert not waiting.done()
        microphone.bring_back()
        speaker.bring_back()
        await waiting
        speaker.play(tone(200, 0.01), RATE_HZ)
        assert told == ["no speaker", "no microphone", "back", "back"]

    together(test, noise(1, -20))
