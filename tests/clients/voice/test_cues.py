import numpy as np
import pytest

from clients.voice.cues import _NOTES, CUES, PEAK_DBFS, Cue, cue

PEAK = 10 ** (PEAK_DBFS / 20) * 32767


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 48_000])
@pytest.mark.parametrize("name", CUES)
def test_short_and_quiet_without_clicks(name: Cue, rate_hz: int) -> None:
    samples = cue(name, rate_hz)
    assert samples.dtype == np.int16 and samples.ndim == 1
    assert len(samples) < 0.25 * rate_hz
    assert np.max(np.abs(samples)) <= PEAK + 1
    assert abs(samples[0]) < PEAK / 50 and abs(samples[-1]) < PEAK / 50
    # no step is larger than the highest overtone's slope
    steepest = 2 * np.pi * 2100 / rate_hz * PEAK
    assert np.max(np.abs(np.diff(samples.astype(int)))) <= steepest + 2


def test_all_are_as_loud_but_thinking_which_is_softer() -> None:
    peaks = {name: int(np.max(np.abs(cue(name, 16_000)))) for name in CUES}  # type: ignore[arg-type]
    soft = peaks.pop("thinking")
    assert all(abs(peak - PEAK) < 2 for peak in peaks.values())
    assert soft < PEAK / 2


def test_heard_rises_and_error_falls() -> None:
    def pitches(name: str) -> list[float]:
        return [frequency for frequency, _ in _NOTES[name] if frequency]

    assert pitches("heard") == sorted(pitches("heard"))
    assert pitches("error") == sorted(pitches("error"), reverse=True)


def test_shared_sound_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        cue("heard", 16_000)[0] = 1
    assert set(_NOTES) == set(CUES)
