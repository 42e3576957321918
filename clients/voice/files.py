"""A microphone and a speaker made of files, in step: for each block heard, one block is played.

The clock is the consumer's: it runs as fast as blocks are taken, and stands still while none is.
So a whole conversation in files takes no longer than its computing does, comes out the same every
time, and what is said into an answer comes at the same place of it.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import numpy as np

from clients.i18n import _
from clients.voice.audio import MicrophoneLike, SpeakerLike
from clients.voice.errors import DeviceLost
from clients.voice.sound import BLOCK, RATE_HZ, Samples, read_wav, resample

_BLOCK_S: Final = BLOCK / RATE_HZ


class FileSpeaker(SpeakerLike):
    """Plays into memory, at `rate_hz`, one block whenever its FileMicrophone gives one.

    Without a microphone whose blocks are taken, nothing is played and drained() waits. Its
    reference() goes by that microphone's heard_s.
    """

    def __init__(self, rate_hz: int = RATE_HZ) -> None:
        super().__init__(rate_hz)
        self.rate_hz = rate_hz
        self._recorded: list[Samples] = []
        self._blocks = 0
        self._samples = 0
        self._away = False
        self._closed = False

    async def open(self) -> None:
        """Nothing is to be opened."""
        self._closed = False

    async def close(self) -> None:
        """Drop what is queued; the recording stays."""
        self._closed = True
        self._playback.clear()
        self._drained.set()

    def play(self, samples: Samples, rate_hz: int) -> None:
        """Queue (n,) int16. Raises DeviceLost after lose(), as long as it is lost."""
        self._raise_loss()
        if self._closed or self._away:
            raise DeviceLost(
                _("the speaker is closed") if self._closed else _("the speaker is lost")
            )
        if samples.size:
            self._playback.push(samples, rate_hz)
            self._drained.clear()

    def stop(self) -> None:
        """Drop all that is queued, but for a fade of FADE_S."""
        self._playback.stop()
        if not self._playback.queued:
            self._drained.set()

    def recording(self, rate_hz: int | None = None) -> Samples:
        """All that was played, silence included, as long as all that was heard."""
        whole = np.concatenate(self._recorded) if self._recorded else np.zeros(0, np.int16)
        return resample(whole, self.rate_hz, rate_hz or self.rate_hz)

    def lose(self, reason: str = "the speaker went away") -> None:
        """As if it were unplugged."""
        self._away = True
        self._playback.clear()
        self._loss = DeviceLost(reason)
        self._drained.set()
        self.on_lost(reason)

    def bring_back(self) -> None:
        """As if it were plugged in again."""
        self._away = False
        self.on_back()

    def tick(self) -> Samples:
        """Play one block: (rate_hz * 32 ms,) int16. For the microphone."""
        self._blocks += 1
        end = round(self._blocks * BLOCK * self.rate_hz / RATE_HZ)
        samples, _had = self._playback.take(end - self._samples)
        self._samples = end
        self._recorded.append(samples)
        self._reference.add(samples, self.rate_hz, end / self.rate_hz)
        if not self._playback.queued:
            self._playback.finish()
            if not self._playback.queued:
                self._drained.set()
        return samples


class FileMicrophone(MicrophoneLike):
    """Gives a sound block by block, and silence after it for as long as anybody listens.

    Args:
        source: a WAV file, or (n,) int16 at RATE_HZ.
        speaker: plays a block for every one that is given.
        echo_gain: how much of what the speaker plays is heard again, 0 to 1.
        echo_delay_ms: how long after it is played; the speaker then has to be one at RATE_HZ.

    Raises VoiceError if the file cannot be read.
    """

    def __init__(
        self,
        source: Path | Samples,
        speaker: FileSpeaker | None = None,
        *,
        echo_gain: float = 0.0,
        echo_delay_ms: float = 80.0,
    ) -> None:
        super().__init__("microphone")
        if isinstance(source, Path):
            samples, rate_hz = read_wav(source)
            source = resample(samples, rate_hz, RATE_HZ)
        if echo_gain and speaker is not None and speaker.rate_hz != RATE_HZ:
            raise ValueError(f"an echo needs a speaker at {RATE_HZ} Hz, not {speaker.rate_hz}")
        self._source = source
        self._speaker = speaker
        self._echo_gain = echo_gain
        # what was played, and is still on its way to the microphone
        self._echo = np.zeros(round(echo_delay_ms / 1000 * RATE_HZ), np.int16)
        self._position = 0
        self._back = asyncio.Event()
        self._back.set()
        self._closed = False

    async def open(self) -> None:
        """Nothing is to be opened."""
        self._closed = False

    async def close(self) -> None:
        """blocks() ends."""
        self._closed = True
        self._back.set()

    async def blocks(self) -> AsyncIterator[Samples]:
        """(BLOCK,) int16 at RATE_HZ each; `at_end` once there is only silence left to come."""
        while not self._closed:
            await asyncio.sleep(0)  # let others act on the block before
            await self._back.wait()
            if self._closed:
                return
            block = np.zeros(BLOCK, np.int16)
            heard = self._source[self._position : self._position + BLOCK]
            block[: heard.size] = heard
            self._position += BLOCK
            self.at_end = self._position >= self._source.size
            self.heard_s += _BLOCK_S
            if self._speaker is not None:
                played = self._speaker.tick()
                if self._echo_gain:
                    self._echo = np.concatenate([self._echo, played])
                    echo, self._echo = self._echo[:BLOCK], self._echo[BLOCK:]
                    mixed = block + self._echo_gain * echo
                    block = np.clip(mixed, -32768, 32767).astype(np.int16)
            yield block

    def lose(self, reason: str = "the microphone went away") -> None:
        """As if it were unplugged: blocks() waits, and the clock stands still."""
        self._back.clear()
        self.on_lost(reason)

    def bring_back(self) -> None:
        """As if it were plugged in again."""
        self._back.set()
        self.on_back()
