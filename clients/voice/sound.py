"""Sound as the voice client handles it: 16-bit mono samples, and files of them."""

import io
import os
import wave
from pathlib import Path
from typing import IO, Final

import numpy as np
import numpy.typing as npt
import soxr

from clients.i18n import _
from clients.voice.errors import VoiceError

Samples = npt.NDArray[np.int16]
"""(n,) int16, one channel."""

RATE_HZ: Final = 16_000
"""What the recogniser, the voice detector and the echo canceller work at."""
BLOCK: Final = 512
"""Samples that are listened to at once: 32 ms at RATE_HZ."""
_FULL_SCALE: Final = 32768.0
SILENCE_DBFS: Final = -96.0
"""The level of no sound at all: what 16 bits can tell apart."""


def level_dbfs(samples: Samples) -> float:
    """Root mean square in decibels below full scale; SILENCE_DBFS at least."""
    if not samples.size:
        return SILENCE_DBFS
    mean_square = float(np.mean(np.square(samples, dtype=np.float64))) / _FULL_SCALE**2
    return max(SILENCE_DBFS, 10 * float(np.log10(mean_square))) if mean_square else SILENCE_DBFS


def resample(samples: Samples, from_hz: int, to_hz: int) -> Samples:
    """A whole sound at another rate; for a stream take soxr.ResampleStream."""
    if from_hz == to_hz:
        return samples
    return np.asarray(soxr.resample(samples, from_hz, to_hz), np.int16)


def read_wav(path: Path) -> tuple[Samples, int]:
    """Samples of a 16-bit WAV file, channels averaged, and its rate in Hz.

    Raises:
        VoiceError: it cannot be read, or is no 16-bit WAV file.
    """
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate_hz = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except OSError as error:
        raise VoiceError(
            _("cannot read {path}: {problem}").format(path=path, problem=error.strerror or error)
        ) from error
    except (wave.Error, EOFError) as error:
        problem = str(error) or _("cut off")
        raise VoiceError(
            _("{path} is no readable WAV file ({problem})").format(path=path, problem=problem)
        ) from error
    if width != 2:
        raise VoiceError(
            _(
                "{path} has {n} bits a sample; 16 are needed (sox IN.wav -b 16 OUT.wav makes them)"
            ).format(path=path, n=8 * width)
        )
    usable = len(data) // (2 * channels) * channels
    samples = np.frombuffer(data, "<i2", usable).reshape(-1, channels)
    return samples.mean(axis=1).astype(np.int16) if channels > 1 else samples[:, 0].copy(), rate_hz


def write_wav(path: Path, samples: Samples, rate_hz: int) -> None:
    """Write a 16-bit mono WAV file, whole or not at all; into a pipe or device as far as it goes.

    Raises:
        OSError: it cannot be written.
    """
    if path.exists() and not path.is_file():
        # a device must not be replaced by a file; in memory first, as it cannot be gone back in
        whole = io.BytesIO()
        _write_wav(whole, samples, rate_hz)
        path.write_bytes(whole.getvalue())
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as out:
            _write_wav(out, samples, rate_hz)
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _write_wav(out: IO[bytes], samples: Samples, rate_hz: int) -> None:
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.astype("<i2").tobytes())
