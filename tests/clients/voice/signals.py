"""Sounds for the tests: made by arithmetic, so that no test needs a voice."""

import numpy as np
import numpy.typing as npt

from clients.voice.sound import BLOCK, RATE_HZ, Samples


def tone(hz: float, span_s: float, *, level: float = 0.5, rate_hz: int = RATE_HZ) -> Samples:
    """A sine of that peak."""
    t = np.arange(round(span_s * rate_hz)) / rate_hz
    return (level * 32767 * np.sin(2 * np.pi * hz * t)).astype(np.int16)


def noise(span_s: float, dbfs: float, seed: int = 1) -> Samples:
    """White noise of that root mean square."""
    values = np.random.default_rng(seed).standard_normal(round(span_s * RATE_HZ))
    return to_samples(values * 10 ** (dbfs / 20) * 32768)


def babble(span_s: float, dbfs: float, seed: int = 2) -> Samples:
    """What a voice detector takes for speech: a buzz with formants that wander, in syllables."""
    rng = np.random.default_rng(seed)
    n = round(span_s * RATE_HZ)
    t = np.arange(n) / RATE_HZ
    knots = max(4, round(span_s * 5))
    pitch = 120 + 20 * np.interp(t, np.linspace(0, span_s, knots), rng.uniform(-1, 1, knots))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE_HZ
    voice = np.zeros(n)
    for centre, width, spread in ((500, 150, 250), (1500, 250, 500), (2500, 300, 300)):
        formant = centre + spread * np.interp(
            t, np.linspace(0, span_s, knots), rng.uniform(-1, 1, knots)
        )
        for harmonic in range(1, 30):
            strength = np.exp(-(((harmonic * pitch - formant) / width) ** 2)) / (centre / 500)
            voice += strength * np.sin(harmonic * phase)
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * t)
    voice *= syllables
    return to_samples(voice / np.sqrt(np.mean(voice**2)) * 10 ** (dbfs / 20) * 32768)


def room(delay_ms: float, *, gain: float, span_s: float = 0.15) -> npt.NDArray[np.float64]:
    """An impulse response: the sound itself after `delay_ms`, and reflections that die away."""
    n = round(span_s * RATE_HZ)
    response = np.random.default_rng(0).standard_normal(n) * 0.15
    response *= np.exp(-6.9 * np.arange(n) / n)
    response[0] = 1
    response *= gain / np.sqrt(np.sum(response**2))
    return np.concatenate([np.zeros(round(delay_ms / 1000 * RATE_HZ)), response])


def echoed(played: Samples, response: npt.NDArray[np.float64]) -> Samples:
    """What a microphone in that room hears of it, as long as it was."""
    n = played.size + response.size
    spectrum = np.fft.rfft(played.astype(np.float64), n) * np.fft.rfft(response, n)
    return to_samples(np.fft.irfft(spectrum, n)[: played.size])


def silence(span_s: float, rate_hz: int = RATE_HZ) -> Samples:
    """Nothing."""
    return np.zeros(round(span_s * rate_hz), np.int16)


def mixed(*sounds: Samples) -> Samples:
    """All at once, as long as the longest."""
    out = np.zeros(max(sound.size for sound in sounds))
    for sound in sounds:
        out[: sound.size] += sound
    return to_samples(out)


def blocks(sound: Samples) -> list[Samples]:
    """All whole BLOCKs of it."""
    return [sound[i : i + BLOCK] for i in range(0, sound.size - BLOCK + 1, BLOCK)]


def to_samples(values: npt.NDArray[np.float64]) -> Samples:
    """Rounded, and clipped as a microphone would."""
    return np.clip(np.rint(values), -32768, 32767).astype(np.int16)
