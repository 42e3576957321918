"""The mouth: sentences in, sound out of the speaker; made in a thread while others are played."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from clients.voice.audio import SpeakerLike
from clients.voice.cues import Cue, cue
from clients.voice.sound import Samples
from clients.voice.speech import Voice

_CUE_RATE_HZ = 22_050


class Mouth:
    """Speaks one thing at a time.

    Attributes:
        on_sound: called when sound was queued.
        first_sound_s: when the first sound since start() was queued, on the monotonic clock.
        cues: whether tones are played.
    """

    def __init__(self, voice: Voice, speaker: SpeakerLike, *, cues: bool = True) -> None:
        self.voice = voice
        self.speaker = speaker
        self.cues = cues
        self.on_sound: Callable[[], None] = lambda: None
        self.first_sound_s: float | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="voice")
        self._said: list[tuple[str, float]] = []  # sentence, and played_s at its end
        self._queued_s = 0.0
        self._hushed = 0  # how often

    async def warm(self) -> None:
        """Load the voice. Raises VoiceError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self.voice.warm)

    def start(self) -> None:
        """Something new is going to be said; what heard() tells begins here."""
        self._said.clear()
        self._queued_s = self.speaker.played_s
        self.first_sound_s = None

    async def speak(self, sentence: str) -> None:
        """Make the sound of a sentence and queue it; returns before it is heard, or when hushed.

        Raises VoiceError, DeviceLost. Cancelling stops the voice.
        """
        loop, hushed = asyncio.get_running_loop(), self._hushed
        sound: Iterator[Samples] = self.voice.speak(sentence)
        try:
            while True:
                piece = await loop.run_in_executor(self._thread, next, sound, None)
                if self._hushed != hushed:
                    return  # who hushed it cancels this, too, but a piece may be there before
                if piece is None:
                    break
                self._queue(piece, self.voice.rate_hz)
        finally:
            # in the thread, which may still be busy with the piece that is not wanted any more
            self._thread.submit(getattr(sound, "close", lambda: None))
        self._said.append((sentence, self._queued_s))

    def tone(self, name: Cue) -> None:
        """A cue, if they are wanted. Raises DeviceLost."""
        if self.cues:
            self._queue(cue(name, _CUE_RATE_HZ), _CUE_RATE_HZ, counts=False)

    async def finished(self) -> None:
        """Until all is heard. Raises DeviceLost."""
        await self.speaker.drained()

    def hush(self) -> None:
        """Be silent at once."""
        self._hushed += 1
        self.speaker.stop()

    def heard(self) -> list[str]:
        """The sentences since start() that were played to their ends."""
        return [sentence for sentence, end_s in self._said if self.speaker.played_s >= end_s - 0.3]

    def close(self) -> None:
        """Free the voice."""
        self.voice.close()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _queue(self, samples: Samples, rate_hz: int, *, counts: bool = True) -> None:
        self.speaker.play(samples, rate_hz)
        self._queued_s += len(samples) / rate_hz
        if counts and self.first_sound_s is None:
            self.first_sound_s = monotonic()
        self.on_sound()
