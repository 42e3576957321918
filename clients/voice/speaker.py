"""A real loudspeaker: a queue of sound to PortAudio's callback, open only while there is any.

Owns the output stream. What is queued is in playback.py, what was played in reference.py.
"""

import asyncio
import logging
from time import monotonic
from typing import Any, Final

from clients.i18n import _
from clients.voice import portaudio
from clients.voice.audio import SpeakerLike
from clients.voice.clock import SampleClock
from clients.voice.devices import choose, listed
from clients.voice.errors import DeviceLost, VoiceError
from clients.voice.playback import Playback
from clients.voice.reference import Reference
from clients.voice.sound import Samples

LATENCY_S: Final = 0.03
"""How much is handed to the device ahead: what is still heard after stop(). With less, a busy
machine is late with more."""
PERIOD_S: Final = 0.01
"""How much each callback hands over."""
_RATE_HZ: Final = 48_000  # until the device says what it works at
IDLE_S: Final = 3.0
"""The device is closed after so much silence, and costs nothing until the next sound."""
STALL_S: Final = 2.0
"""A device that takes no sound for so long is lost."""

_log = logging.getLogger(__name__)


class Speaker(SpeakerLike, portaudio.StreamOwner):
    """`async with Speaker("headset") as speaker: speaker.play(samples, 22050); ...`

    A device that went away is looked for at the next play(). What played_s counts was handed to
    the device, and is heard LATENCY_S later.

    Attributes:
        underflows: times that the machine was too busy to give the device its sound in time.
    """

    def __init__(self, device: str | None = None) -> None:
        super().__init__(_RATE_HZ)
        self.underflows = 0
        self._device = device
        self._name = "speaker"
        self._stream: Any = None
        self._output: _Output | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._was_lost = False
        self._closed = False

    async def open(self) -> None:
        """Look whether there is such a device; it is opened at the first play().

        Raises NoDevice, MissingPart.
        """
        self._loop = asyncio.get_running_loop()
        self._closed = False
        device = await portaudio.call(lambda: choose(self._device, "speaker", listed()))
        self._playback.set_rate(device.rate_hz)
        portaudio.register(self)

    async def close(self) -> None:
        """Fall silent and let go of the device. May be repeated."""
        self._closed = True
        self._playback.clear()
        self._changed.set()
        task, self._task = self._task, None
        if task is not None:
            await task
        portaudio.unregister(self)
        await portaudio.call(self._close)
        self._drained.set()

    def play(self, samples: Samples, rate_hz: int) -> None:
        """Queue (n,) int16; pieces of one sound join without a seam.

        Raises DeviceLost if the device went away and drained() has not said so; the sound is then
        not queued, and the next play() looks for the device.
        """
        self._raise_loss()
        if self._closed or self._loop is None:
            raise DeviceLost(_("the speaker is closed"))
        if not samples.size:
            return
        self._playback.push(samples, rate_hz)
        self._drained.clear()
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._run(), name="speaker")

    def stop(self) -> None:
        """Drop all that is queued; what was handed over, some LATENCY_S, fades out and ends."""
        self._playback.stop()
        if self._output is None:  # not open yet: nothing will be heard
            self._playback.clear()
            self._drained.set()

    def release(self) -> bool:
        """Close the stream, so that PortAudio can look for devices; not while it plays."""
        if self._playback.queued or self.playing:
            return False
        self._close()
        return True

    # ---------------------------------------------------------------- in the event loop

    async def _run(self) -> None:
        """As long as the device is open."""
        try:
            while not self._closed:
                if self._stream is None:
                    await portaudio.call(self._open)
                    if self._was_lost:
                        self._was_lost = False
                        self.on_back()
                if not await self._watch():
                    break
        except VoiceError as error:
            self._lose(error)
        try:
            await portaudio.call(self._close)
        finally:
            # a play() that came while it was being closed found this task at work
            if self._playback.queued and not self._closed:
                self._task = asyncio.get_running_loop().create_task(self._run(), name="speaker")
            else:
                self._drained.set()

    async def _watch(self) -> bool:
        """Wait for something to change; False if the stream is needed no more."""
        output = self._output
        if output is None:  # released
            return bool(self._playback.queued)
        self._changed.clear()
        self._look_at(output)
        if not output.finished and not self._closed:
            try:
                async with asyncio.timeout(STALL_S):  # wait_for of Python 3.11 may miss a cancel
                    await self._changed.wait()
            except TimeoutError:
                if monotonic() - output.called_s > STALL_S:
                    output.finished = True
        self._look_at(output)
        if self._stream is None or self._closed:  # released, or closed
            return bool(self._playback.queued) and not self._closed
        if output.finished:
            raise DeviceLost(
                _("the speaker {name!r} went away; plug it in again").format(name=self._name)
            )
        return not (output.idle and self._drained.is_set())

    def _look_at(self, output: "_Output") -> None:
        self.underflows, output.underflows = self.underflows + output.underflows, 0
        if self._playback.nothing_after(output.heard):
            self._playback.finish()  # what comes next does not join what ended some time ago
            if not self._playback.queued:
                self._drained.set()

    def _lose(self, error: VoiceError) -> None:
        _log.debug("%s", error)
        self._playback.clear()
        first, self._was_lost = not self._was_lost, True
        self._loss = error if isinstance(error, DeviceLost) else DeviceLost(str(error))
        self._drained.set()
        if first:
            self.on_lost(str(error))

    # ---------------------------------------------------------------- in PortAudio's thread

    def _open(self) -> None:
        sounddevice = portaudio.library()
        self._close()
        if self._was_lost:
            portaudio.rescan(self)
        device = choose(self._device, "speaker", listed())
        self._name = device.name
        self._playback.set_rate(device.rate_hz)

        def make(channels: int) -> "tuple[Any, _Output]":
            output = _Output(self._playback, self._reference, self._notify)
            stream = sounddevice.OutputStream(
                samplerate=device.rate_hz,
                blocksize=int(PERIOD_S * device.rate_hz),
                device=device.number,
                channels=channels,
                dtype="int16",
                latency=LATENCY_S,
                callback=output.callback,
                finished_callback=output.finish,
            )
            output.latency_s = max(stream.latency, LATENCY_S)
            return stream, output

        # mono on a stereo device may be heard on one side only
        channels = sorted({min(2, device.outputs), 1, device.outputs}, key=lambda n: n != 2)
        try:
            self._stream, self._output = portaudio.start(make, channels)
        except (sounddevice.PortAudioError, ValueError) as problem:
            raise DeviceLost(
                _(
                    "the speaker {name!r} cannot be opened ({problem}); is it plugged in, and does "
                    "no other program hold it? `assistant voice devices` lists what there is"
                ).format(name=device.name, problem=problem)
            ) from problem

    def _close(self) -> None:
        stream, self._stream, self._output = self._stream, None, None
        if stream is not None:
            portaudio.end(stream)
            self._notify()

    # ---------------------------------------------------------------- in any thread

    def _notify(self) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)


class _Output:
    """One stream at work; its callbacks are called in a thread of PortAudio's.

    Attributes:
        heard: how many queued samples had left the device when it last fell silent.
        idle: it has had nothing to play for IDLE_S.
        called_s: when the last callback was, on the monotonic clock.
    """

    def __init__(self, playback: Playback, reference: Reference, notify: Any) -> None:
        self.latency_s = LATENCY_S
        self.heard = -1
        self.idle = False
        self.finished = False
        self.underflows = 0
        self.called_s = monotonic()
        self._playback = playback
        self._reference = reference
        self._notify = notify
        self._rate_hz = playback.rate_hz
        self._clock = SampleClock(playback.rate_hz)
        self._silence = 0  # samples since the last that was queued

    def callback(self, out: Samples, frames: int, _time: Any, status: Any) -> None:
        """Hot: 100 times a second while the device is open. `out`: (frames, channels)."""
        if status and status.output_underflow:
            self.underflows += 1
        self.called_s = monotonic()
        samples, had = self._playback.take(frames)
        out[:] = samples[:, None]
        self._reference.add(samples, self._rate_hz, self._clock.advance(frames, self.called_s))
        if had:
            self._silence = frames - had
            self.idle = False
            return
        self._silence += frames
        # only here is anything taken, so the count is that of the sound before this silence
        taken = self._playback.taken
        if self._silence >= self.latency_s * self._rate_hz and self.heard != taken:
            self.heard = taken
            self._notify()
        if self._silence >= IDLE_S * self._rate_hz and not self.idle:
            self.idle = True
            self._notify()

    def finish(self) -> None:
        """The stream ended, by itself or because it was closed."""
        self.finished = True
        self._notify()
