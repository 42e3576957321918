"""A process that hears and speaks with real devices, for test_devices.py: one JSON line an event.

It is a process of its own because PortAudio looks at its environment once, when it is imported.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import numpy as np

from clients.voice.devices import devices
from clients.voice.echo import EchoCanceller, erle_db
from clients.voice.errors import DeviceLost, VoiceError
from clients.voice.microphone import Microphone
from clients.voice.sound import BLOCK, RATE_HZ, Samples, level_dbfs, read_wav, write_wav
from clients.voice.speaker import Speaker
from tests.e2e.voice.sound_server import VIRTUAL_MICROPHONE, VIRTUAL_SPEAKER


def tell(event: str, **more: object) -> None:
    """To the test."""
    print(json.dumps({"event": event, **more}), flush=True)


async def told() -> str:
    """The next line of the test's."""
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


def watch(device: Microphone | Speaker, name: str) -> None:
    """Tell of its coming and going."""
    device.on_lost = lambda reason: tell(f"{name} lost", reason=reason)
    device.on_back = lambda: tell(f"{name} back")


async def list_devices() -> None:
    """What there is."""
    found = await asyncio.to_thread(devices)
    tell("devices", names=[device.name for device in found])


async def hear(out: str) -> None:
    """Listen until told to end; write what was heard."""
    heard: list[Samples] = []

    async def listen(microphone: Microphone) -> None:
        async for block in microphone.blocks():
            assert block.shape == (BLOCK,) and block.dtype == np.int16
            heard.append(block)
            if len(heard) % 10 == 0:
                peak = int(np.abs(np.concatenate(heard[-10:]).astype(np.int32)).max())
                tell("heard", peak=peak, blocks=len(heard))

    async with Microphone(VIRTUAL_MICROPHONE) as microphone:
        watch(microphone, "microphone")
        listening = asyncio.create_task(listen(microphone))
        tell("ready")
        await told()
    await listening  # closing ended it
    write_wav(Path(out), np.concatenate(heard), RATE_HZ)
    tell("ended", dropped=microphone.dropped, overflows=microphone.overflows)


async def play(wav: str) -> None:
    """Play a file in pieces, to its end."""
    samples, rate_hz = read_wav(Path(wav))
    async with Speaker(VIRTUAL_SPEAKER) as speaker:
        for start in range(0, samples.size, 3000):
            speaker.play(samples[start : start + 3000], rate_hz)
        await speaker.drained()
        tell("drained", played_s=speaker.played_s, underflows=speaker.underflows)


async def stop(wav: str, times: str) -> None:
    """Play a file and stop in the middle of it, some times."""
    samples, rate_hz = read_wav(Path(wav))
    async with Microphone(VIRTUAL_MICROPHONE) as microphone, Speaker(VIRTUAL_SPEAKER) as speaker:
        blocks = microphone.blocks()
        for n in range(int(times)):
            before_s = speaker.played_s
            speaker.play(samples, rate_hz)
            # the microphone is the clock
            while speaker.played_s - before_s < 0.5 + 0.007 * n:
                await anext(blocks)
            speaker.stop()
            played_s = speaker.played_s - before_s
            await speaker.drained()
            for _ in range(10):
                await anext(blocks)
            tell("stopped", played_s=played_s, in_all_s=speaker.played_s - before_s)


async def echo(wav: str, out: str) -> None:
    """Play a file while the microphone hears the speaker; how much of it is taken out."""
    samples, rate_hz = read_wav(Path(wav))
    canceller = EchoCanceller()
    heard, cleaned, played = [], [], []
    async with Microphone(VIRTUAL_MICROPHONE) as microphone, Speaker(VIRTUAL_SPEAKER) as speaker:
        speaker.play(samples, rate_hz)
        stopped_s, last_s = float("inf"), 0.0
        async for block in microphone.blocks():
            reference = speaker.reference(block.size, microphone.heard_s)
            heard.append(block)
            played.append(reference)
            cleaned.append(canceller.clean(block, reference))
            if np.abs(block).max() > 500:
                last_s = microphone.heard_s
            if speaker.played_s > 0.9 * samples.size / rate_hz and stopped_s == float("inf"):
                speaker.stop()
                stopped_s = monotonic()
            if monotonic() - stopped_s > 1:
                break
    before, after = np.concatenate(heard), np.concatenate(cleaned)
    write_wav(Path(out), np.concatenate(played), RATE_HZ)
    write_wav(Path(out).with_name("heard.wav"), before, RATE_HZ)
    tell(
        "echo",
        erle_db=[
            round(erle_db(before[start : start + RATE_HZ], after[start : start + RATE_HZ]), 1)
            for start in range(3 * RATE_HZ, int(0.8 * samples.size * RATE_HZ / rate_hz), RATE_HZ)
        ],
        heard_dbfs=level_dbfs(before[3 * RATE_HZ :]),
        silent_after_stop_ms=1000 * (last_s - stopped_s),
    )


async def speak_again_and_again(wav: str) -> None:
    """Play a file whenever told to, and say how it went, while a microphone is open, too."""
    samples, rate_hz = read_wav(Path(wav))
    blocks, sounding_s = 0, float("inf")

    async def listen(microphone: Microphone, speaker: Speaker) -> None:
        nonlocal blocks, sounding_s
        async for _ in microphone.blocks():
            blocks += 1
            if speaker.played_s >= sounding_s:
                tell("sounding")
                sounding_s = float("inf")

    async with Microphone(VIRTUAL_MICROPHONE) as microphone, Speaker(VIRTUAL_SPEAKER) as speaker:
        watch(microphone, "microphone")
        watch(speaker, "speaker")
        listening = asyncio.create_task(listen(microphone, speaker))
        tell("ready")
        while await told():
            try:
                speaker.play(samples, rate_hz)
                sounding_s = speaker.played_s + 0.1
                await speaker.drained()
                tell("drained", blocks=blocks)
            except DeviceLost as error:
                tell("device lost", reason=str(error))
    await listening
    tell("ended")


PROGRAMS: dict[str, Callable[..., object]] = {
    "devices": list_devices,
    "hear": hear,
    "play": play,
    "stop": stop,
    "echo": echo,
    "speak": speak_again_and_again,
}

if __name__ == "__main__":
    try:
        asyncio.run(PROGRAMS[sys.argv[1]](*sys.argv[2:]))  # type: ignore[arg-type]
    except VoiceError as problem:
        tell("error", reason=str(problem))
        sys.exit(1)
