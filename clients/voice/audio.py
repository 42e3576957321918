"""What the voice loop asks of ears and a mouth; real ones, and ones made of files, give it.

microphone.py and speaker.py have real devices, files.py those of files. Levels are in meter.py.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from clients.voice.errors import DeviceLost
from clients.voice.playback import Playback
from clients.voice.reference import Reference
from clients.voice.sound import Samples

_log = logging.getLogger(__name__)


class AudioDevice(ABC):
    """What microphones and speakers share: they close, and may go away and come back.

    Attributes:
        on_lost: called with the reason when the device went away; in the event loop, once a loss.
        on_back: called when it is there again.
    """

    def __init__(self, name: str) -> None:
        self.on_lost: Callable[[str], None] = lambda reason: _log.warning("lost: %s", reason)
        self.on_back: Callable[[], None] = lambda: _log.info("the %s is back", name)

    @abstractmethod
    async def open(self) -> None:
        """Make sure that it can be used. Raises NoDevice, DeviceLost, MissingPart."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the device; nothing is heard or played from here on. May be repeated."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class MicrophoneLike(AudioDevice):
    """A source of sound at RATE_HZ, BLOCK by BLOCK."""

    heard_s: float = 0.0
    """When the block that was given last had been heard, on the clock of the speaker beside it."""
    at_end: bool = False
    """Whether all of a file was heard; what follows is silence. Never so for a real microphone."""

    @abstractmethod
    def blocks(self) -> AsyncIterator[Samples]:
        """(BLOCK,) int16 at RATE_HZ each, until it is closed; waits while the device is lost."""


class SpeakerLike(AudioDevice):
    """Plays what it is given, in turn."""

    _loss: DeviceLost | None = None
    """That nobody was told of yet."""

    def __init__(self, rate_hz: int) -> None:
        super().__init__("speaker")
        self._playback = Playback(rate_hz)
        self._reference = Reference()
        self._drained = asyncio.Event()
        self._drained.set()

    @property
    def playing(self) -> bool:
        """Whether anything that was queued is still to be heard."""
        return not self._drained.is_set()

    @property
    def played_s(self) -> float:
        """Seconds of queued sound that the device has taken since it was made; take differences."""
        return self._playback.played_s

    @property
    def volume(self) -> float:
        """0 (silent) to 1 (as it is), as loud as it seems: half is -18 dB. May be set any time."""
        return self._playback.volume

    @volume.setter
    def volume(self, volume: float) -> None:
        self._playback.volume = volume

    @abstractmethod
    def play(self, samples: Samples, rate_hz: int) -> None:
        """Queue a sound; pieces of one sound join without a seam. Raises DeviceLost, once a loss.

        To be called in the event loop.
        """

    @abstractmethod
    def stop(self) -> None:
        """Drop all that is queued, and fall silent at once, without a click."""

    async def drained(self) -> None:
        """Until all that is queued was heard, or was stopped. Raises DeviceLost, once a loss."""
        self._playback.finish()
        await self._drained.wait()
        self._raise_loss()

    def reference(self, n: int, until_s: float) -> Samples:
        """(n,) int16 at RATE_HZ: what was played up to `until_s`, a microphone's `heard_s`."""
        return self._reference.read(n, until_s)

    def _raise_loss(self) -> None:
        loss, self._loss = self._loss, None
        if loss is not None:
            raise loss
