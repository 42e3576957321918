"""Sound for the benchmarks of the voice client: speech by machines, noise, a kind of music.

Everything is made from seeds, so that it comes out the same every time.
"""

import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clients.voice.sound import RATE_HZ, Samples, resample
from clients.voice.speech import Voice

Sound = np.ndarray[Any, np.dtype[np.float32]]
"""(n,) float32 at RATE_HZ, of full scale 1."""

_ESPEAK_HZ = 22_050
_WAV_HEADER_BYTES = 44
_PAUSE_BELOW = 0.006
"""Quieter samples of a voice are its pauses, which do not count for its level."""


def espeak(text: str, voice: str, speed: int = 165, pitch: int = 50) -> Sound:
    """A sentence by espeak-ng, such as voice "ko+f3"."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    wav = subprocess.run(command, capture_output=True, check=True).stdout
    return as_float(np.frombuffer(wav[_WAV_HEADER_BYTES:], np.int16), _ESPEAK_HZ)


def spoken(voice: Voice, text: str) -> Sound:
    """A sentence by one of the client's voices."""
    return as_float(np.concatenate(list(voice.speak(text))), voice.rate_hz)


def as_float(samples: Samples, rate_hz: int) -> Sound:
    """Samples of any rate, as sound."""
    return np.asarray(resample(samples, rate_hz, RATE_HZ), np.float32) / 32768


def as_samples(sound: Sound) -> Samples:
    """What a microphone would give."""
    return np.clip(sound * 32768, -32768, 32767).astype(np.int16)


def at_level(sound: Sound, dbfs: float) -> Sound:
    """Made so loud that what is no pause has this level."""
    loud = sound[np.abs(sound) > _PAUSE_BELOW * np.abs(sound).max()]
    return sound * np.float32(10 ** (dbfs / 20) / np.sqrt(np.mean(loud**2)))


def pink(n: int, dbfs: float, rng: np.random.Generator) -> Sound:
    """Noise that has as much power in each octave."""
    frequencies = np.fft.rfftfreq(n)
    frequencies[0] = 1
    spectrum = rng.normal(size=frequencies.size) + 1j * rng.normal(size=frequencies.size)
    noise = np.fft.irfft(spectrum / np.sqrt(frequencies), n).astype(np.float32)
    return noise * np.float32(10 ** (dbfs / 20) / noise.std())


def music(seconds: float, r: random.Random) -> Sound:
    """Chords below a melody, of plucked and of held tones with overtones."""
    out = np.zeros(round(seconds * RATE_HZ), np.float32)
    scale = [0, 2, 4, 5, 7, 9, 11]
    root, beat_s = r.choice([45, 48, 50, 53]), r.uniform(0.25, 0.6)
    step, n_beats = 7, int(seconds / beat_s)
    for beat in range(n_beats):
        if beat % 4 == 0:
            degree = r.choice([0, 3, 4, 5])
            for third in (0, 2, 4):
                octave, place = divmod(degree + third, 7)
                note = root + 12 * octave + scale[place]
                _tone(out, beat * beat_s, 4 * beat_s, note, 0.3, plucked=r.random() < 0.3)
        step = min(16, max(4, step + r.choice([-2, -1, -1, 1, 1, 2])))
        octave, place = divmod(step, 7)
        length = beat_s * r.choice([0.5, 1, 1, 2])
        _tone(out, beat * beat_s, length, root + 12 + 12 * octave + scale[place], 1, plucked=True)
    return out


def _tone(
    out: Sound, from_s: float, length_s: float, note: int, volume: float, *, plucked: bool
) -> None:
    first = round(from_s * RATE_HZ)
    t = np.arange(min(out.size - first, round(length_s * RATE_HZ))) / RATE_HZ
    hz = 440 * 2 ** ((note - 69) / 12)
    vibrato = 0.004 * hz / 5 * np.sin(2 * np.pi * 5 * t)
    wave = sum(np.sin(2 * np.pi * k * (hz * t + vibrato)) / k**1.3 for k in range(1, 7))
    attack = np.minimum(1, t / 0.01) * np.minimum(1, (length_s - t) / 0.03)
    envelope = attack * (np.exp(-3 * t) if plucked else 1)
    out[first : first + t.size] += (volume * wave * envelope).astype(np.float32)


@dataclass
class Item:
    """Something that is heard.

    Attributes:
        kind: "waking", "Korean", "English", "Piper", "music" or "noise".
        text: what is said, and by whom.
        from_s, to_s: where in its room.
    """

    kind: str
    text: str
    sound: Sound = field(repr=False)
    from_s: float = 0.0
    to_s: float = 0.0


@dataclass
class Room:
    """Items one after another, with pauses between, in the room's own noise."""

    name: str
    items: list[Item]
    samples: Samples

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.samples.size / RATE_HZ


def room(
    name: str, items: list[Item], noise_dbfs: float, seed: int, gaps_s: tuple[float, float]
) -> Room:
    """Put the items into a room."""
    r, rng = random.Random(seed), np.random.default_rng(seed)
    parts = [np.zeros(3 * RATE_HZ, np.float32)]
    at = parts[0].size
    for item in items:
        item.from_s, item.to_s = at / RATE_HZ, (at + item.sound.size) / RATE_HZ
        gap = np.zeros(round(r.uniform(*gaps_s) * RATE_HZ), np.float32)
        parts += [item.sound, gap]
        at += item.sound.size + gap.size
    whole = np.concatenate(parts)
    return Room(name, items, as_samples(whole + pink(whole.size, noise_dbfs, rng)))


SPEECH_DBFS = -24.0
SNRS: tuple[int | None, ...] = (None, 20, 10)
CLEAN_DBFS = -64.0
"""The noise of a quiet room, where no other is asked for."""


def snr_name(snr: int | None) -> str:
    """As it is printed."""
    return "clean" if snr is None else f"{snr} dB"


def wakings(
    word: str, n: int, voices: tuple[str, ...], questions: tuple[str, ...], seed: int
) -> list[Room]:
    """A room for each SNR, a third of the wakings in each; voices are espeak-ng's."""
    jobs = []
    for number in range(n):
        r = random.Random(f"{seed} {number}")
        voice, question = r.choice(voices), r.choice(questions)
        text = f"{word}{', ' if r.random() < 0.5 else ' '}{question}".strip(", ")
        jobs.append((text, voice, r.randint(110, 190), r.randint(20, 80)))
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda job: espeak(*job), jobs))
    rooms = []
    for number, snr in enumerate(SNRS):
        items = [
            Item("waking", f"{voice} {speed} {pitch}: {text}", at_level(sound, SPEECH_DBFS))
            for (text, voice, speed, pitch), sound in list(zip(jobs, said, strict=True))[number::3]
        ]
        noise = CLEAN_DBFS if snr is None else SPEECH_DBFS - snr
        rooms.append(room(snr_name(snr), items, noise, seed + number, (1.6, 3.0)))
    return rooms


def other_speech(
    minutes: float,
    variants: tuple[str, ...],
    korean: list[str],
    english: list[str],
    piper: Voice | None,
    seed: int,
) -> list[Room]:
    """What should wake nobody: speech at several levels, in rooms of several noises."""
    rooms = []
    for number, snr in enumerate(SNRS):
        items: list[Item] = []
        left_s = minutes * 60 / len(SNRS)
        r = random.Random(f"{seed} {number}")
        while left_s > 0:
            variant, speed, pitch = r.choice(variants), r.randint(110, 200), r.randint(20, 80)
            which = r.random()
            if piper is not None and which < 0.15:
                piper.speed = r.uniform(0.8, 1.3)
                kind, text, who = "Piper", r.choice(english), piper.name
                sound = spoken(piper, text)
            elif which < 0.3:
                kind, text, who = "English", r.choice(english), f"en-us{variant}"
                sound = espeak(text, who, speed, pitch)
            else:
                kind, text, who = "Korean", r.choice(korean), f"ko{variant}"
                sound = espeak(text, who, speed, pitch)
            level = SPEECH_DBFS + (r.choice([6, 0, 0, -10]) if snr is None else 0)
            items.append(Item(kind, f"{who} {speed} {pitch}: {text}", at_level(sound, level)))
            left_s -= sound.size / RATE_HZ + 0.6
        noise = CLEAN_DBFS if snr is None else SPEECH_DBFS - snr
        rooms.append(room(snr_name(snr), items, noise, seed + 10 + number, (0.2, 1.0)))
    return rooms


def music_and_noise(minutes: float, seed: int) -> Room:
    """Half music, half bursts of noise, from quiet to loud, in a quiet room."""
    r, rng = random.Random(seed), np.random.default_rng(seed)
    items, left_s = [], minutes * 60
    while left_s > 0:
        seconds, level = r.uniform(8, 20), r.choice([-40.0, -30.0, -20.0])
        if len(items) % 2:
            items.append(
                Item("noise", f"{level:g} dBFS", pink(round(seconds * RATE_HZ), level, rng))
            )
        else:
            items.append(Item("music", f"{level:g} dBFS", at_level(music(seconds, r), level)))
        left_s -= seconds + 1
    return room("music and noise", items, CLEAN_DBFS, seed, (0.5, 1.5))
