"""clients.voice.gate: open for speech, shut for noise, and nothing of the beginning lost."""

import numpy as np
import pytest

from clients.voice.gate import Gate, NoiseFloor
from clients.voice.sound import BLOCK, RATE_HZ, Samples
from tests.clients.voice.signals import babble, blocks, mixed, noise, silence, tone

pytest.importorskip("pymicro_vad")


def open_spans(gate: Gate, sound: Samples) -> list[tuple[float, float]]:
    """From when to when it was open, in seconds."""
    states = [gate.hear(block) for block in blocks(sound)]
    edges = np.flatnonzero(np.diff([False, *states, False])) * BLOCK / RATE_HZ
    return [(float(a), float(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize("level_dbfs", [-50, -35, -20])
@pytest.mark.parametrize("noisy", [False, True])
def test_speech(level_dbfs: float, noisy: bool) -> None:
    sound = np.concatenate([silence(3), babble(3, level_dbfs), silence(2)])
    if noisy:
        sound = mixed(sound, noise(8, level_dbfs - 10))
    ((start, end),) = open_spans(Gate(), sound)
    assert 3 < start < 3.8
    assert 6 < end < 7.2


@pytest.mark.parametrize("dbfs", [-70, -50, -30, -15])
def test_noise(dbfs: float) -> None:
    gate = Gate()
    assert open_spans(gate, np.concatenate([silence(1), noise(20, dbfs)])) == []
    # it is not even asked once the noise is known
    assert gate.detector_s < 4
    assert gate.share_open == 0


def test_a_hum() -> None:
    assert open_spans(Gate(), tone(50, 5)) == []


def test_the_beginning_is_kept() -> None:
    gate, speech = Gate(preroll_s=1), babble(2, -20)
    before = noise(2, -60)
    for block in blocks(sound := np.concatenate([before, speech])):
        gate.hear(block)
        if gate.just_opened:
            break
    kept = gate.preroll()
    assert kept.size == pytest.approx(RATE_HZ, abs=BLOCK)
    start = sound.tobytes().find(kept.tobytes()) // 2
    assert start < before.size


def test_the_floor_follows_the_room() -> None:
    floor = NoiseFloor()

    def hear(dbfs: float, span_s: float) -> float:
        for _ in range(round(span_s * RATE_HZ / BLOCK)):
            floor.hear(10 ** (dbfs / 10))
        return floor.dbfs

    assert hear(-60, 3) == pytest.approx(-60, abs=2)
    assert hear(-30, 1) == pytest.approx(-60, abs=2)  # somebody speaks
    assert hear(-30, 3) == pytest.approx(-30, abs=2)  # a fan
    assert hear(-60, 0.5) == pytest.approx(-60, abs=3)
    assert hear(-200, 3) == NoiseFloor.LOWEST_DBFS


def test_hangover() -> None:
    sound = np.concatenate([silence(2), babble(2, -20), silence(3)])
    ((_, short),) = open_spans(Gate(hangover_s=0.4), sound)
    ((_, long),) = open_spans(Gate(hangover_s=1.4), sound)
    assert long - short == pytest.approx(1, abs=0.1)


def test_what_an_echo_was_taken_out_of_says_nothing_of_the_room() -> None:
    """The canceller takes the room's noise out with it: it would look as if it spoke ever after."""
    gate, room = Gate(), noise(3, -60)
    for block in blocks(room):
        gate.hear(block)
    floor_dbfs = gate.floor_dbfs
    for block in blocks(silence(3)):
        gate.hear(block, cleaned=True)
    assert gate.floor_dbfs == floor_dbfs
    for block in blocks(noise(0.5, -60)):
        gate.hear(block)
    assert gate.quiet_s > 3
