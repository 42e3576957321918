"""clients.voice.echo and interruption: in a room of arithmetic, with files for devices."""

import asyncio

import numpy as np
import pytest

from clients.voice.echo import EchoCanceller, erle_db
from clients.voice.files import FileMicrophone, FileSpeaker
from clients.voice.interruption import Interruption
from clients.voice.sound import BLOCK, RATE_HZ, Samples
from tests.clients.voice.signals import babble, blocks, echoed, mixed, noise, room, silence

pytest.importorskip("pyaec")
pytest.importorskip("pymicro_vad")


@pytest.mark.parametrize("delay_ms", [20, 60, 120])
@pytest.mark.parametrize("suppress", [False, True])
def test_an_echo_is_removed(delay_ms: float, suppress: bool) -> None:
    played = babble(10, -20)
    heard = mixed(echoed(played, room(delay_ms, gain=0.3)), noise(10, -70))
    canceller = EchoCanceller(suppress=suppress)
    cleaned = np.concatenate(
        [canceller.clean(a, b) for a, b in zip(blocks(heard), blocks(played), strict=True)]
    )
    converged = slice(4 * RATE_HZ, cleaned.size)
    assert erle_db(heard[converged], cleaned[converged]) > 10
    assert canceller.learned


def test_without_an_echo_speech_stays() -> None:
    heard, canceller = babble(5, -20), EchoCanceller()
    left = [canceller.clean(block, np.zeros_like(block)) for block in blocks(heard)]
    assert abs(erle_db(heard[: BLOCK * len(left)], np.concatenate(left))) < 3
    assert not canceller.learned


def test_an_echo_that_is_gone() -> None:
    """Headphones are put on: what was learned must not be heard as somebody who speaks."""
    played = babble(16, -20)
    echo = echoed(played, room(60, gain=0.5))
    echo[8 * RATE_HZ :] = 0
    interruption = Interruption(EchoCanceller())
    for heard, reference in zip(blocks(echo), blocks(played), strict=True):
        assert not interruption.hear(heard, reference)
        assert interruption.cleaned is not None
        if not heard.any():
            assert not interruption.cleaned.any()


def test_who_spoke_over_one_answer_does_not_interrupt_the_next() -> None:
    played = babble(12, -20)
    echo = echoed(played, room(60, gain=0.3))
    heard = mixed(echo, np.concatenate([silence(8), babble(4, -20, seed=9)]))
    interruption = Interruption(EchoCanceller())
    pairs = list(zip(blocks(heard), blocks(played), strict=True))
    assert any([interruption.hear(*pair) for pair in pairs])
    interruption.silence()
    # the next answer, of which there is no echo yet
    assert not any(
        [
            interruption.hear(echo_, reference)
            for echo_, reference in zip(blocks(echo)[:40], blocks(played)[:40], strict=True)
        ]
    )


def test_blocks_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="500 samples with a reference of 512"):
        EchoCanceller().clean(np.zeros(500, np.int16), np.zeros(512, np.int16))


def interrupted_at_s(said: Samples) -> float | None:
    """When it is noticed that somebody speaks over an answer of 12 s."""

    async def run() -> float | None:
        async with (
            FileSpeaker() as speaker,
            FileMicrophone(said, speaker, echo_gain=0.3, echo_delay_ms=70) as microphone,
        ):
            interruption = Interruption(EchoCanceller())
            speaker.play(babble(12, -20, seed=5), RATE_HZ)
            async for block in microphone.blocks():
                reference = speaker.reference(block.size, microphone.heard_s)
                if interruption.hear(block, reference):
                    return microphone.heard_s
                if not speaker.playing:
                    return None
        return None

    return asyncio.run(run())


def test_its_own_voice_interrupts_nobody() -> None:
    assert interrupted_at_s(noise(12, -70)) is None


def test_somebody_speaks_over_it() -> None:
    said = mixed(noise(12, -70), np.concatenate([silence(6), babble(3, -24, seed=9)]))
    at_s = interrupted_at_s(said)
    assert at_s is not None
    assert 6 < at_s < 7
