"""clients.voice.microphone and speaker on a PortAudio of the tests, which they drive."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clients.voice import microphone as microphone_module
from clients.voice import portaudio
from clients.voice.errors import DeviceLost, NoDevice
from clients.voice.microphone import QUEUE_S, Microphone
from clients.voice.sound import BLOCK, RATE_HZ, Samples
from clients.voice.speaker import Speaker
from tests.clients.voice.signals import tone

RATE = 48_000


class Stream:
    """The test calls back in PortAudio's place."""

    latency = 0.02

    def __init__(self, library: "Library", **options: Any) -> None:
        self.library, self.options = library, options
        if options["device"] not in library.present:
            raise library.PortAudioError("Unanticipated host error")
        if options["channels"] < library.fewest_channels:
            raise library.PortAudioError("Invalid number of channels")

    def start(self) -> None:
        self.library.open.append(self)
        self.library.opened.set()

    def abort(self, ignore_errors: bool) -> None:
        self.close(ignore_errors)

    def close(self, ignore_errors: bool) -> None:
        if self in self.library.open:
            self.library.open.remove(self)
            self.options["finished_callback"]()

    def heard(self, samples: Samples, overflow: bool = False) -> None:
        """One callback of a microphone's: (frames, channels)."""
        status = SimpleNamespace(input_overflow=overflow)
        self.options["callback"](samples, len(samples), None, status if overflow else None)

    def asked(self) -> Samples:
        """One callback of a speaker's: (frames, channels)."""
        out = np.zeros((self.options["blocksize"], self.options["channels"]), np.int16)
        self.options["callback"](out, len(out), None, None)
        return out


class Library:
    """As much of sounddevice as is used."""

    class PortAudioError(Exception):
        pass

    def __init__(self) -> None:
        self.present = {0, 1}
        self.fewest_channels = 1
        self.open: list[Stream] = []
        self.opened = asyncio.Event()
        self.started = 0
        self._initialized = 1
        self.default = SimpleNamespace(device=(0, 1))

    def query_hostapis(self) -> list[dict[str, Any]]:
        return [{"name": "none"}]

    def query_devices(self) -> list[dict[str, Any]]:
        both = (("mic", 2, 0), ("box", 0, 2))
        return [
            {
                "name": name,
                "hostapi": 0,
                "max_input_channels": inputs,
                "max_output_channels": outputs,
                "default_samplerate": float(RATE),
            }
            for name, inputs, outputs in both
        ]

    def InputStream(self, **options: Any) -> Stream:  # noqa: N802
        return Stream(self, **options)

    OutputStream = InputStream

    def _terminate(self) -> None:
        assert not self.open
        self._initialized = 0

    def _initialize(self) -> None:
        self._initialized = 1
        self.started += 1


def in_loop(body: Callable[[Library], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        library = Library()
        monkeypatch.setattr(portaudio, "library", lambda: library)
        await asyncio.wait_for(body(library), 10)
        assert not library.open

    monkeypatch.setattr(microphone_module, "RETRY_FIRST_S", 0.01)
    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    """Let everything else run until then."""
    while not condition():
        await asyncio.sleep(0)


@pytest.mark.parametrize("fewest_channels", [1, 2])
def test_blocks(fewest_channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(library: Library) -> None:
        library.fewest_channels = fewest_channels
        async with Microphone() as microphone:
            (stream,) = library.open
            assert stream.options["channels"] == fewest_channels
            sound = np.repeat(tone(441, 1, rate_hz=RATE)[:, None], fewest_channels, axis=1)
            for start in range(0, len(sound), 1536):
                stream.heard(sound[start : start + 1536], overflow=start == 0)
            blocks = microphone.blocks()
            heard = np.concatenate([await anext(blocks) for _ in range(29)])
            assert heard.size == 29 * BLOCK
            spectrum = np.abs(np.fft.rfft(heard))
            assert np.argmax(spectrum) * RATE_HZ / heard.size == pytest.approx(441, abs=2)
            assert microphone.overflows == 1

    in_loop(body, monkeypatch)


def test_a_consumer_that_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(library: Library) -> None:
        async with Microphone() as microphone:
            (stream,) = library.open
            for _ in range(int(QUEUE_S * RATE_HZ / BLOCK) + 7):
                stream.heard(np.zeros((1536, 1), np.int16))
            await anext(microphone.blocks())
            assert microphone.dropped >= 7

    in_loop(body, monkeypatch)


def test_lost_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(library: Library) -> None:
        events = []
        async with Microphone("mic") as microphone:
            microphone.on_lost = lambda reason: events.append(reason)
            microphone.on_back = lambda: events.append("back")
            next_block = asyncio.ensure_future(anext(aiter(microphone.blocks())))
            library.present = set()
            library.opened.clear()
            library.open[0].close(True)
            await until(lambda: bool(events))
            assert "'mic' went away" in events[0]
            await until(lambda: library.started >= 2)  # it tries, and tries again
            library.present = {0, 1}
            await library.opened.wait()
            for _ in range(3):
                library.open[0].heard(np.ones((1536, 1), np.int16))
            assert (await next_block).size == BLOCK
            assert events[1:] == ["back"]

    in_loop(body, monkeypatch)


def test_closing_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(library: Library) -> None:
        async with Microphone() as microphone:
            waiting = asyncio.ensure_future(anext(microphone.blocks(), None))
            await asyncio.sleep(0)
        assert await waiting is None

    in_loop(body, monkeypatch)


def test_closing_goes_on_when_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it has not begun, because PortAudio is busy."""

    async def body(library: Library) -> None:
        busy = threading.Event()
        microphone = Microphone()
        await microphone.open()
        waiting = asyncio.ensure_future(portaudio.call(busy.wait, 10))
        closing = asyncio.ensure_future(microphone.close())
        await asyncio.sleep(0.01)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        busy.set()
        await waiting
        await portaudio.call(lambda: None)
        assert not library.open

    in_loop(body, monkeypatch)


def test_an_owner_that_leaves_while_others_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(library: Library) -> None:
        asked = []

        class Owner(portaudio.StreamOwner):
            def release(self) -> bool:
                asked.append(self)
                portaudio.unregister(self)  # as the event loop may meanwhile
                return True

        owners = [Owner() for _ in range(3)]
        for owner in owners:
            portaudio.register(owner)
        assert await portaudio.call(portaudio.rescan, Owner())
        assert len(asked) == 3

    in_loop(body, monkeypatch)


def test_no_such_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(library: Library) -> None:
        with pytest.raises(NoDevice, match="no microphone 'box'"):
            await Microphone("box").open()
        library.present = set()
        with pytest.raises(DeviceLost, match="cannot be opened"):
            await Microphone("mic").open()

    in_loop(body, monkeypatch)


async def play_all(library: Library, speaker: Speaker) -> Samples:
    """Take from the speaker until it has played all."""
    await until(lambda: bool(library.open))
    parts = []
    while speaker.playing:
        parts.append(library.open[0].asked())
        await asyncio.sleep(0)
    return np.concatenate(parts)


def test_speaking_and_closing_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(library: Library) -> None:
        async with Speaker() as speaker:
            assert not library.open
            speaker.play(sound := tone(441, 0.5, rate_hz=RATE), RATE)
            out = await play_all(library, speaker)
            assert out.shape[1] == 2
            assert np.array_equal(out[: sound.size, 0], sound)
            assert np.array_equal(out[:, 0], out[:, 1])
            await speaker.drained()
            assert speaker.played_s == 0.5
            while library.open:  # silence
                library.open[0].asked()
                await asyncio.sleep(0)
            speaker.play(sound, RATE)
            await play_all(library, speaker)
            assert speaker.played_s == 1.0

    in_loop(body, monkeypatch)


def test_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(library: Library) -> None:
        async with Speaker() as speaker:
            speaker.play(tone(441, 60, rate_hz=RATE), RATE)
            await until(lambda: bool(library.open))
            library.open[0].asked()
            speaker.stop()
            await play_all(library, speaker)
            await speaker.drained()
            assert speaker.played_s < 0.02

    in_loop(body, monkeypatch)


def test_a_loss_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(library: Library) -> None:
        events = []
        async with Speaker("box") as speaker:
            speaker.on_lost = lambda reason: events.append(reason)
            speaker.on_back = lambda: events.append("back")
            speaker.play(sound := tone(441, 1, rate_hz=RATE), RATE)
            await until(lambda: bool(library.open))
            library.present = set()
            library.open[0].close(True)
            with pytest.raises(DeviceLost, match="'box' went away"):
                await speaker.drained()
            await speaker.drained()
            speaker.play(sound, RATE)
            with pytest.raises(DeviceLost, match="'box' cannot be opened"):
                await speaker.drained()
            library.present = {0, 1}
            speaker.play(sound, RATE)
            await play_all(library, speaker)
            await speaker.drained()
            assert [event.split()[-1] for event in events] == ["again", "back"]

    in_loop(body, monkeypatch)


def test_a_speaker_starts_portaudio_anew_under_a_microphone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(library: Library) -> None:
        lost = []
        async with Microphone() as microphone, Speaker() as speaker:
            microphone.on_lost = lost.append
            speaker.on_lost = lambda _reason: None
            next_block = asyncio.ensure_future(anext(aiter(microphone.blocks())))
            library.present = {0}
            speaker.play(tone(441, 1, rate_hz=RATE), RATE)
            with pytest.raises(DeviceLost):
                await speaker.drained()
            library.present = {0, 1}
            speaker.play(tone(441, 1, rate_hz=RATE), RATE)
            await until(lambda: len(library.open) == 2 and library.started == 1)
            for stream in list(library.open):
                if "blocksize" in stream.options and stream.options["device"] == 0:
                    for _ in range(3):
                        stream.heard(np.zeros((1536, 1), np.int16))
            assert (await next_block).size == BLOCK
            assert not lost

    in_loop(body, monkeypatch)
