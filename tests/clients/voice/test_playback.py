"""clients.voice.playback: a queue without seams, a volume, a quick and quiet end."""

import numpy as np
import pytest

from clients.voice.playback import FADE_S, Playback
from clients.voice.sound import Samples
from tests.clients.voice.signals import tone

RATE = 48_000


def taken(playback: Playback, period: int = 480) -> Samples:
    parts = []
    while playback.queued:
        parts.append(playback.take(period)[0])
    return np.concatenate(parts)


def largest_step(samples: Samples) -> int:
    return int(np.abs(np.diff(samples.astype(np.int32))).max())


def test_pieces_of_one_sound_join() -> None:
    """At another rate than the device's: as if it had been one piece."""
    whole, pieces = Playback(RATE), Playback(RATE)
    sound = tone(440, 0.5, rate_hz=22_050)
    whole.push(sound, 22_050)
    for start in range(0, sound.size, 1000):
        pieces.push(sound[start : start + 1000], 22_050)
    for playback in (whole, pieces):
        playback.finish()
    a, b = taken(whole), taken(pieces)
    assert a.size == b.size == pytest.approx(0.5 * RATE, abs=480)
    assert np.abs(a.astype(np.int32) - b).max() <= 4  # soxr dithers


def test_what_was_queued_may_be_changed_afterwards() -> None:
    playback, sound = Playback(RATE), tone(440, 0.01, rate_hz=RATE)
    playback.push(sound, RATE)
    expected = sound.copy()
    sound[:] = 0
    assert np.array_equal(playback.take(480)[0], expected)


def test_stop_fades() -> None:
    playback = Playback(RATE)
    playback.push(sound := tone(200, 1, rate_hz=RATE), RATE)
    before, _ = playback.take(4800)
    playback.stop()
    playback.stop()  # has nothing to add
    rest = taken(playback)
    assert FADE_S * RATE <= rest.size <= FADE_S * RATE + 480
    assert largest_step(np.concatenate([before, rest])) <= largest_step(sound) + 1
    assert rest[-1] == 0
    assert playback.played_s == pytest.approx(0.1 + FADE_S)


def test_a_sound_after_a_stop_is_whole() -> None:
    playback = Playback(RATE)
    playback.push(tone(200, 1, rate_hz=RATE), RATE)
    playback.stop()
    playback.push(sound := tone(300, 0.1, rate_hz=RATE), RATE)
    assert np.array_equal(playback.take(sound.size + int(FADE_S * RATE))[0][-sound.size :], sound)


def test_a_stop_soon_after_another_stops_what_came_between() -> None:
    """Whether the device has taken the fade meanwhile or not."""
    for taken_between in (0, int(FADE_S * RATE / 2), int(FADE_S * RATE), RATE // 10):
        playback = Playback(RATE)
        playback.push(tone(200, 1, rate_hz=RATE), RATE)
        playback.stop()
        playback.push(tone(300, 1, rate_hz=RATE), RATE)
        playback.take(taken_between)
        playback.stop()
        assert playback.queued <= FADE_S * RATE, taken_between


def test_only_what_was_queued_counts_as_played() -> None:
    playback = Playback(RATE)
    playback.take(RATE)
    playback.push(tone(200, 0.25, rate_hz=RATE), RATE)
    samples, had = playback.take(RATE)
    assert (samples.size, had) == (RATE, RATE // 4)
    assert playback.played_s == 0.25
    assert playback.nothing_after(playback.taken)
    assert not playback.nothing_after(playback.taken - 1)


def test_volume_is_a_cube_and_changes_without_a_click() -> None:
    playback = Playback(RATE)
    playback.push(sound := tone(200, 0.1, level=0.8, rate_hz=RATE), RATE)
    first, _ = playback.take(960)
    playback.volume = 0.5
    changing, _ = playback.take(960)
    quiet, _ = playback.take(960)
    assert np.abs(quiet).max() == pytest.approx(np.abs(first).max() / 8, rel=0.01)
    assert largest_step(np.concatenate([first, changing, quiet])) <= 1.1 * largest_step(sound)
    with pytest.raises(ValueError, match="must be 0 to 1"):
        playback.volume = 1.5


def test_the_device_has_another_rate_after_all() -> None:
    playback = Playback(RATE)
    playback.push(tone(440, 0.5, rate_hz=16_000), 16_000)
    playback.take(4800)
    playback.set_rate(44_100)
    assert taken(playback, 441).size == pytest.approx(0.4 * 44_100, abs=441)
    assert playback.played_s == pytest.approx(0.5, abs=0.001)
