"""clients.voice.reference and clock: what was played when."""

import numpy as np
import pytest

from clients.voice.clock import SLACK_S, SampleClock
from clients.voice.reference import DELAY_S, Reference
from clients.voice.sound import BLOCK, RATE_HZ, Samples
from tests.clients.voice.signals import noise


def test_a_clock_counts_samples_and_not_callbacks() -> None:
    clock = SampleClock(1000)
    assert clock.advance(10, 5.0) == 5.0
    assert clock.advance(10, 5.11) == pytest.approx(5.01)  # late
    assert clock.advance(10, 5.11) == pytest.approx(5.02)  # in a burst
    assert clock.advance(10, 5.028) == 5.028  # so the first one was late, too
    assert clock.advance(10, 6.0) == 6.0  # it was interrupted


@pytest.mark.parametrize("drift", [-0.0002, 0.0002])
@pytest.mark.parametrize("burst_s", [0.0, 0.05])
def test_a_clock_follows_one_that_drifts(drift: float, burst_s: float) -> None:
    clock, worst_s, period_s = SampleClock(1000), 0.0, 0.01 * (1 + drift)
    for n in range(10_000):
        done_s = n * period_s
        came_s = np.ceil(done_s / burst_s) * burst_s if burst_s else done_s
        error_s = clock.advance(10, came_s) - done_s
        if n > 500:
            worst_s = max(worst_s, abs(error_s))
    assert worst_s < 2 * SLACK_S + 0.01


def test_what_was_played_at_a_time() -> None:
    reference, sound = Reference(), noise(2, -20)
    for start in range(0, sound.size, 160):
        reference.add(sound[start : start + 160], RATE_HZ, 100 + (start + 160) / RATE_HZ)
    delay = round(DELAY_S * RATE_HZ)
    for end in (BLOCK + delay, 10_000, sound.size):
        got = reference.read(BLOCK, 100 + end / RATE_HZ)
        assert np.array_equal(got, sound[end - delay - BLOCK : end - delay])


def test_silence_before_between_and_after() -> None:
    reference, sound = Reference(), noise(0.1, -20)
    assert not reference.read(BLOCK, 3.0).any()
    reference.add(sound, RATE_HZ, 10.1)
    reference.add(sound, RATE_HZ, 11.1)
    assert not reference.read(BLOCK, 10.5).any()
    assert not reference.read(BLOCK, 20.0).any()
    assert not reference.read(BLOCK, 9.0).any()
    for end_s in (10.1, 11.1):
        assert np.array_equal(reference.read(1600, end_s + DELAY_S), sound)


def test_at_another_rate() -> None:
    """Resampled as one stream: a click stays where it is, to a sample or two."""
    reference = Reference()
    sound: Samples = np.zeros(48_000, np.int16)
    sound[24_000] = 20_000
    for start in range(0, sound.size, 480):
        reference.add(sound[start : start + 480], 48_000, 50 + (start + 480) / 48_000)
    got = reference.read(RATE_HZ // 2, 50.75 + DELAY_S)
    assert int(np.argmax(got)) == pytest.approx(RATE_HZ // 4, abs=2)


def test_a_device_that_asks_for_large_pieces() -> None:
    """They come late, but none of it is missing once that is known."""
    reference, sound = Reference(), noise(2, -20)
    piece, read = 800, []
    for end in range(BLOCK, sound.size, BLOCK):
        known = end // piece * piece
        if known >= piece and known > end - BLOCK:
            reference.add(sound[known - piece : known], RATE_HZ, known / RATE_HZ)
        read.append(reference.read(BLOCK, end / RATE_HZ))
    whole = np.concatenate(read[30:])  # by then it has met the longest wait
    start = sound.tobytes().find(whole[:BLOCK].tobytes()) // 2
    assert np.array_equal(whole, sound[start : start + whole.size])
