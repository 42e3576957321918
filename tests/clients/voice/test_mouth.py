"""clients.voice.mouth: what is said, and that nothing of it is after it was hushed."""

import asyncio
import threading
from collections.abc import Iterator

from clients.voice.files import FileSpeaker
from clients.voice.mouth import Mouth
from clients.voice.sound import RATE_HZ, Samples
from clients.voice.speech import Voice
from tests.clients.voice.signals import tone


class SlowVoice(Voice):
    """Makes a piece whenever it may."""

    name, language, rate_hz = "slow", "en", RATE_HZ

    def __init__(self) -> None:
        self.may = threading.Semaphore(0)
        self.closed = threading.Event()

    def warm(self) -> None:
        pass

    def speak(self, text: str) -> Iterator[Samples]:
        try:
            for _ in text.split():
                self.may.acquire()
                yield tone(440, 0.1)
        finally:
            self.closed.set()

    def close(self) -> None:
        self.may.release(100)


def test_a_piece_that_is_made_when_it_is_hushed_is_not_heard() -> None:
    """The voice is cancelled a little later than the speaker is stopped."""

    async def run() -> None:
        voice, speaker = SlowVoice(), FileSpeaker()
        mouth = Mouth(voice, speaker)
        mouth.start()
        speaking = asyncio.create_task(mouth.speak("one two three"))
        voice.may.release()
        while not speaker.playing:
            await asyncio.sleep(0.001)
        mouth.hush()
        while speaker.playing:
            speaker.tick()
        voice.may.release(2)
        await asyncio.wait_for(speaking, 5)
        assert not speaker.playing
        assert mouth.heard() == []
        await asyncio.to_thread(voice.closed.wait, 5)
        assert voice.closed.is_set()
        again = asyncio.create_task(mouth.speak("four"))
        voice.may.release()
        await asyncio.wait_for(again, 5)
        assert speaker.playing
        mouth.close()

    asyncio.run(run())
