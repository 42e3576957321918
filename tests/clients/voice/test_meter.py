"""clients.voice.meter: levels, and the bar."""

import numpy as np
import pytest

from clients.voice.meter import bar, measure
from clients.voice.sound import SILENCE_DBFS
from tests.clients.voice.signals import silence, tone


def test_a_sine() -> None:
    level = measure(tone(1000, 0.1, level=0.5))
    assert level.peak_dbfs == pytest.approx(-6.02, abs=0.05)
    assert level.rms_dbfs == pytest.approx(-9.03, abs=0.05)
    assert not level.clipped


def test_silence_and_full_scale() -> None:
    assert measure(silence(0.1)).peak_dbfs == SILENCE_DBFS
    assert measure(np.zeros(0, np.int16)).rms_dbfs == SILENCE_DBFS
    assert measure(np.full(10, -32768, np.int16)).clipped


@pytest.mark.parametrize(
    ("level_dbfs", "drawn"),
    [
        (0.0, "████████"),
        (3.0, "████████"),
        (-30.0, "████    "),
        (-96.0, " " * 8),
        (-52.5, "█       "),
    ],
)
def test_bar(level_dbfs: float, drawn: str) -> None:
    assert bar(level_dbfs, 8) == drawn


def test_a_bar_has_always_the_same_width() -> None:
    assert {len(bar(level / 10, 21)) for level in range(-700, 50)} == {21}
