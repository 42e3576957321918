"""Sound in one piece: a WAV file that was said, and one that says a text; for the web gateway.

The loop of `assistant voice` hears and speaks while it goes on; here somebody else has recorded,
and will play.
"""

import io
import wave
from collections.abc import Callable
from typing import Final

import numpy as np

from clients.i18n import _
from clients.voice.errors import VoiceError
from clients.voice.recogniser import Recogniser
from clients.voice.sound import BLOCK, RATE_HZ, Samples, resample
from clients.voice.speech import Voice
from clients.voice.spoken import SpokenText

_RATES_HZ: Final = range(8_000, 96_001)
_LONGEST_S: Final = 120.0
_BLOCKS: Final = 16
"""So many are heard between two looks at whether anybody still wants to know."""


class NotWanted(Exception):  # noqa: N818
    """Whoever asked is gone."""


class BadSound(VoiceError):  # noqa: N818
    """What was sent is no sound that can be heard."""


def samples_of(wav: bytes) -> Samples:
    """The sound of a WAV file: (n,) int16 at RATE_HZ.

    Raises:
        BadSound: it is no 16-bit mono WAV file, or longer than two minutes.
    """
    try:
        with wave.open(io.BytesIO(wav), "rb") as file:
            shape = (file.getnchannels(), file.getsampwidth())
            rate_hz, n = file.getframerate(), file.getnframes()
            data = file.readframes(n)
    except (wave.Error, EOFError) as error:
        raise BadSound(
            _("this is no WAV file ({problem}); 16-bit mono is needed").format(
                problem=str(error) or _("cut off")
            )
        ) from error
    if shape != (1, 2) or rate_hz not in _RATES_HZ:
        raise BadSound(_("16-bit mono sound is needed, of 8,000 to 96,000 Hz; record it so"))
    samples = np.frombuffer(data, "<i2", len(data) // 2).astype(np.int16)
    if len(samples) > _LONGEST_S * rate_hz:
        raise BadSound(
            _("at most {n:.0f} seconds are heard at once; say less").format(n=_LONGEST_S)
        )
    return resample(samples, rate_hz, RATE_HZ)


def hear(recogniser: Recogniser, wav: bytes, wanted: Callable[[], bool]) -> str:
    """What is said in a WAV file; "" if nothing was understood.

    Args:
        wanted: asked now and then; the work ends when it says no.

    Raises:
        BadSound: as samples_of().
        NotWanted: it said no.
    """
    samples = samples_of(wav)
    listening = recogniser.listen()
    texts: list[str] = []
    for i, start in enumerate(range(0, len(samples), BLOCK)):
        if i % _BLOCKS == 0 and not wanted():
            raise NotWanted
        heard = listening.hear(samples[start : start + BLOCK])
        if heard.final:
            texts.append(heard.text)
    texts.append(listening.finish().text)
    return " ".join(text for text in texts if text)


def speak(voice: Voice, text: str, language: str, wanted: Callable[[], bool]) -> bytes:
    """A WAV file that says a text, which may have markup; without sound if nothing is to be said.

    Raises:
        VoiceError: the voice cannot say it.
        NotWanted: `wanted` said no.
    """
    stream = SpokenText(language)
    pieces: list[bytes] = []
    for sentence in [*stream.feed(text), *stream.finish()]:
        for samples in voice.speak(sentence):
            if not wanted():
                raise NotWanted
            pieces.append(samples.astype("<i2").tobytes())
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(voice.rate_hz)
        file.writeframes(b"".join(pieces))
    return out.getvalue()
