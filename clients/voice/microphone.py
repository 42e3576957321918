"""A real microphone: PortAudio's callback to BLOCKs in the event loop, through loss and return.

Owns the input stream. Which device a name means is in devices.py; PortAudio itself in portaudio.py.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator
from time import monotonic
from typing import Any, Final

import numpy as np
import soxr

from clients.i18n import _
from clients.voice import portaudio
from clients.voice.audio import MicrophoneLike
from clients.voice.clock import SampleClock
from clients.voice.devices import choose, listed
from clients.voice.errors import DeviceLost, VoiceError
from clients.voice.sound import BLOCK, RATE_HZ, Samples

QUEUE_S: Final = 10.0
"""What a consumer may be behind; the oldest is dropped beyond."""
START_S: Final = 3.0
"""A device that was opened gives its first sound by then (Bluetooth takes its time)."""
STALL_S: Final = 1.0
"""A device that gives no sound for so long is lost."""
RETRY_FIRST_S: Final = 0.5
RETRY_LAST_S: Final = 5.0

_log = logging.getLogger(__name__)


class Microphone(MicrophoneLike, portaudio.StreamOwner):
    """`async with Microphone("headset") as mic: async for block in mic.blocks(): ...`

    Without a name it is the default device, whichever that is each time it is opened. A device
    that was named is waited for when it is gone; no other is taken instead.

    Attributes:
        dropped: pieces of 32 ms that were lost because the consumer was too far behind.
        overflows: times that the device itself lost sound.
    """

    def __init__(self, device: str | None = None) -> None:
        super().__init__("microphone")
        self.dropped = 0
        self.overflows = 0
        self._device = device
        self._name = "microphone"
        self._stream: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._capture = _Capture()
        self._closed = False

    async def open(self) -> None:
        """Open the device. Raises NoDevice, DeviceLost, MissingPart."""
        self._loop = asyncio.get_running_loop()
        self._closed = False
        portaudio.register(self)
        try:
            await portaudio.call(self._open)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the device; blocks() ends. May be repeated."""
        self._closed = True
        portaudio.unregister(self)
        await portaudio.call(self._close)
        self._wake.set()

    async def blocks(self) -> AsyncIterator[Samples]:
        """(BLOCK,) int16 at RATE_HZ each, until it is closed; for one consumer at a time.

        Goes on when the device was lost and came back; what was said in between is lost.
        """
        while not self._closed:
            capture = self._capture
            cutter = _Cutter(capture.rate_hz)
            try:
                async for piece, ended_s in self._pieces(capture):
                    for block, pending_s in cutter.blocks(piece):
                        self.heard_s = ended_s - pending_s
                        yield block
            except DeviceLost as error:
                _log.debug("%s", error)
                self.on_lost(str(error))
                if await self._reopen():
                    self.on_back()

    def release(self) -> bool:
        """Close the stream, so that PortAudio can look for devices; blocks() opens it again."""
        self._capture.released = True
        self._close()
        self._notify()
        return True

    # ---------------------------------------------------------------- in the event loop

    async def _pieces(self, capture: "_Capture") -> AsyncIterator[tuple[Samples, float]]:
        """What the device gives, at its own rate, and when it ended. Raises DeviceLost."""
        limit_s = START_S
        while not self._closed:
            while capture.pieces and not self._closed:
                self._count(capture)
                yield capture.pieces.popleft()
                limit_s = STALL_S
            if capture.released:
                # another stream needed PortAudio to be started anew; that is no loss
                await self._open_again()
                return
            if self._closed:
                return
            if capture.finished:
                raise DeviceLost(
                    _("the microphone {name!r} went away; plug it in again").format(name=self._name)
                )
            self._wake.clear()
            if capture.pieces or capture.finished or capture.released:
                continue  # it came just before the event was cleared
            try:
                async with asyncio.timeout(limit_s):  # wait_for of Python 3.11 may miss a cancel
                    await self._wake.wait()
            except TimeoutError:
                raise DeviceLost(
                    _("the microphone {name!r} gives no sound; plug it in again").format(
                        name=self._name
                    )
                ) from None

    async def _open_again(self) -> None:
        try:
            await portaudio.call(self._open)
        except VoiceError as error:
            raise DeviceLost(str(error)) from error

    async def _reopen(self) -> bool:
        """Try until it gives sound again; False if it was closed meanwhile."""
        pause_s = RETRY_FIRST_S
        while not self._closed:
            try:
                async with asyncio.timeout(pause_s):
                    await self._until_closed()
            except TimeoutError:
                pause_s = min(RETRY_LAST_S, 2 * pause_s)
            if not self._closed and await self._try_again():
                return True
        return False

    async def _until_closed(self) -> None:
        while not self._closed:
            self._wake.clear()
            await self._wake.wait()

    async def _try_again(self) -> bool:
        try:
            await portaudio.call(self._open_anew)
        except VoiceError as error:
            _log.debug("the microphone is not back: %s", error)
            return False
        capture = self._capture
        if self._closed:  # while it was being opened
            await portaudio.call(self._close)
            return False
        try:
            async with asyncio.timeout(START_S):
                while not (capture.pieces or capture.finished or capture.released or self._closed):
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            _log.debug("the microphone opens, but gives no sound")
        return bool(capture.pieces) or capture.released

    def _count(self, capture: "_Capture") -> None:
        self.overflows, capture.overflows = self.overflows + capture.overflows, 0
        dropped, capture.dropped = capture.dropped, 0
        if dropped and not self.dropped:
            _log.warning(
                "the voice client is more than %g s behind, and misses what is said; "
                "is the machine busy?",
                QUEUE_S,
            )
        self.dropped += dropped

    # ---------------------------------------------------------------- in PortAudio's thread

    def _open_anew(self) -> None:
        """Open it among the devices that are there now. Raises NoDevice, DeviceLost."""
        self._close()
        portaudio.rescan(self)  # if the speaker is in use: among those that were there before
        self._open()

    def _open(self) -> None:
        sounddevice = portaudio.library()
        self._close()
        device = choose(self._device, "microphone", listed())
        self._name = device.name

        def make(channels: int) -> "tuple[Any, _Capture]":
            capture = _Capture(device.rate_hz, self._notify)
            stream = sounddevice.InputStream(
                samplerate=device.rate_hz,
                blocksize=BLOCK * device.rate_hz // RATE_HZ,
                device=device.number,
                channels=channels,
                dtype="int16",
                latency="high",  # nobody waits for these few ms, and fewer get lost
                callback=capture.callback,
                finished_callback=capture.finish,
            )
            return stream, capture

        try:
            # some devices have no mono; the average of two is as good
            channels = sorted({1, min(2, device.inputs), device.inputs})
            self._stream, self._capture = portaudio.start(make, channels)
        except (sounddevice.PortAudioError, ValueError) as problem:
            raise DeviceLost(
                _(
                    "the microphone {name!r} cannot be opened ({problem}); is it plugged in, and "
                    "does no other program hold it? `assistant voice devices` lists what there is"
                ).format(name=device.name, problem=problem)
            ) from problem

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            portaudio.end(stream)

    # ---------------------------------------------------------------- in any thread

    def _notify(self) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)


class _Capture:
    """What one stream has heard; its callbacks are called in a thread of PortAudio's."""

    def __init__(self, rate_hz: int = RATE_HZ, notify: Any = None) -> None:
        self.rate_hz = rate_hz
        # (n,) int16 at rate_hz, and when its last sample came, on the monotonic clock
        self.pieces: deque[tuple[Samples, float]] = deque(maxlen=int(QUEUE_S * RATE_HZ / BLOCK))
        self.finished = False
        self.released = False
        self.dropped = 0
        self.overflows = 0
        self._notify = notify
        self._clock = SampleClock(rate_hz)

    def callback(self, heard: Samples, frames: int, _time: Any, status: Any) -> None:
        """Hot: 31 times a second, as long as anybody listens. `heard`: (frames, channels)."""
        if status and status.input_overflow:
            self.overflows += 1
        if len(self.pieces) == self.pieces.maxlen:
            self.dropped += 1
        ended_s = self._clock.advance(frames, monotonic())
        mono = heard[:, 0].copy() if heard.shape[1] == 1 else heard.mean(axis=1).astype(np.int16)
        self.pieces.append((mono, ended_s))
        self._notify()

    def finish(self) -> None:
        """The stream ended, by itself or because it was closed."""
        self.finished = True
        self._notify()


class _Cutter:
    """Pieces of any length and rate to BLOCKs at RATE_HZ."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._resampler: Any = None
        if rate_hz != RATE_HZ:
            self._resampler = soxr.ResampleStream(rate_hz, RATE_HZ, 1, "int16", "HQ")
        self._rest = np.zeros(0, np.int16)
        self._in = self._out = 0

    def blocks(self, piece: Samples) -> Iterator[tuple[Samples, float]]:
        """Each full block, and how many seconds of what came in so far come after it.

        The resampler holds back some 10 to 30 ms, now more and now less.
        """
        self._in += piece.size
        if self._resampler is not None:
            piece = self._resampler.resample_chunk(piece)
        pending = np.concatenate([self._rest, piece])
        full = pending.size // BLOCK * BLOCK
        self._rest = pending[full:]
        for start in range(0, full, BLOCK):
            self._out += BLOCK
            yield pending[start : start + BLOCK], self._in / self._rate_hz - self._out / RATE_HZ
