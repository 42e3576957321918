"""What happens to a voice on its way to the microphone: distance, room, device, noise."""

import random

import numpy as np

from benchmarks import sounds
from benchmarks.sounds import Sound
from clients.voice.sound import RATE_HZ

_SEED = 7_000_000
"""Far from the seeds of benchmarks/wake_word.py, so that no noise is heard in both."""


def _quick(n: int) -> int:
    """A size of at least n whose transform is quick."""
    return 1 << (n - 1).bit_length()


def filtered(sound: Sound, r: random.Random) -> Sound:
    """As a cheap microphone or a telephone hears it."""
    size = _quick(sound.size)
    spectrum = np.fft.rfft(sound, size)
    hz = np.fft.rfftfreq(size, 1 / RATE_HZ)
    low, high = r.choice([0, 60, 120, 250, 350]), r.choice([3400, 4000, 5500, 7000, 8000])
    gain = 1 / np.sqrt(1 + (low / np.maximum(hz, 1)) ** 4) / np.sqrt(1 + (hz / high) ** 8)
    for _ in range(r.randint(0, 3)):  # bumps and holes
        at, width, db = r.uniform(100, 6000), r.uniform(0.2, 1.0), r.uniform(-9, 7)
        gain *= 10 ** (db / 20 * np.exp(-((np.log2(np.maximum(hz, 20) / at) / width) ** 2)))
    tilt_db = r.uniform(-3, 3)  # an octave
    gain *= (np.maximum(hz, 60) / 1000) ** (tilt_db / 6.02)
    return np.fft.irfft(spectrum * gain, size)[: sound.size].astype(np.float32)


def in_a_room(sound: Sound, r: random.Random) -> Sound:
    """With echoes that fade; the high ones sooner."""
    rng = np.random.default_rng(r.randrange(2**32))
    fade_s = r.uniform(0.08, 0.6)
    n = round(fade_s * RATE_HZ)
    t = np.arange(n) / RATE_HZ
    tail = rng.normal(size=n) * 10 ** (-3 * t / fade_s)
    for _ in range(r.randint(0, 2)):
        tail = np.convolve(tail, [0.6, 0.4])[:n]
    tail[: round(r.uniform(0.001, 0.012) * RATE_HZ)] = 0
    tail *= 10 ** (-r.uniform(-3, 14) / 20) / np.sqrt(np.sum(tail**2) + 1e-9)
    tail[0] = 1
    size = _quick(sound.size + n)
    out = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)
    return out[: sound.size].astype(np.float32)


def coded(sound: Sound) -> Sound:
    """Through the telephone's 8 bits (mu-law)."""
    top = float(np.abs(sound).max(initial=1e-6))
    squeezed = np.sign(sound) * np.log1p(255 * np.abs(sound) / top) / np.log(256)
    squeezed = np.round(squeezed * 127) / 127
    return (np.sign(squeezed) * np.expm1(np.abs(squeezed) * np.log(256)) / 255 * top).astype(
        np.float32
    )


def noise(n: int, dbfs: float, r: random.Random) -> Sound:
    """Of many colours, with or without a hum, or something like music."""
    which = r.random()
    if which < 0.12:
        found = sounds.music(n / RATE_HZ + 0.1, random.Random(_SEED + r.randrange(10**9)))[:n]
    else:
        rng = np.random.default_rng(_SEED + r.randrange(10**9))
        hz = np.maximum(np.fft.rfftfreq(_quick(n), 1 / RATE_HZ), 20)
        spectrum = rng.normal(size=hz.size) + 1j * rng.normal(size=hz.size)
        slope = r.choice([0.5, 0.5, 0.5, r.uniform(0, 1.3)])
        found = np.fft.irfft(spectrum * hz**-slope, _quick(n))[:n]
        if r.random() < 0.15:
            base, t = r.choice([50, 60, 100, 120, r.uniform(80, 400)]), np.arange(n) / RATE_HZ
            hum = sum(np.sin(2 * np.pi * base * k * t) / k for k in range(1, 6))
            found = found / found.std() + r.uniform(0.3, 2) * hum
        if r.random() < 0.2:  # it comes and goes
            at = np.arange(0, n + 8000, 8000)
            found = found * np.interp(np.arange(n), at, rng.uniform(0.2, 1, at.size))
    return (found * 10 ** (dbfs / 20) / (found.std() + 1e-9)).astype(np.float32)


def heard(sound: Sound, r: random.Random) -> Sound:
    """All of that, by chance; as speech at some level, with the noise of the room."""
    if r.random() < 0.5:
        sound = filtered(sound, r)
    if r.random() < 0.45:
        sound = in_a_room(sound, r)
    if r.random() < 0.08:
        sound = coded(sound)
    level = r.choice([sounds.SPEECH_DBFS, r.uniform(-38, -12)])
    sound = sounds.at_level(sound, level)
    snr = r.choice([None, None, r.uniform(5, 30), r.uniform(5, 30), r.uniform(8, 14)])
    if snr is None:
        return sound + noise(sound.size, r.uniform(-75, -55), r)
    return sound + noise(sound.size, level - snr, r)
