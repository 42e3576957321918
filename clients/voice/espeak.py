"""The voice that is nearly everywhere: the program espeak-ng, for a hundred languages."""

import io
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from typing import IO, Final

import numpy as np

from clients.i18n import _
from clients.voice.errors import MissingPart, VoiceError
from clients.voice.sound import Samples
from clients.voice.speech import Voice, sayable, tidy

PROGRAM: Final = "espeak-ng"
RATE_HZ: Final = 22_050
"""What all of its own voices speak at."""
_HEADER: Final = struct.Struct("<4s4x4s4sIHHIIHH4s4x")
"""RIFF:4 size:4 WAVE:4 fmt_:4 16:4 format:2 channels:2 rate:4 bytes/s:4 align:2 bits:2 data:4
size:4; the sizes are not known when it is written (http://soundfile.sapp.org/doc/WaveFormat/)."""
_CHUNK_BYTES: Final = 8192
_VOICE_LINE: Final = re.compile(r"\s*\d+\s+(\S+)\s+\S+\s+(\S+)\s+(\S+)")


def program() -> str:
    """Path of espeak-ng.

    Raises:
        MissingPart: it is not installed.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise MissingPart(
            _(
                "the program espeak-ng is not installed; install it with "
                "`sudo apt install espeak-ng` or `brew install espeak-ng`"
            )
        )
    return found


def languages() -> list[str]:
    """Language codes espeak-ng speaks, such as "ko" and "en-us"; empty if it is not installed.

    Raises:
        VoiceError: it is there and does not work.
    """
    if shutil.which(PROGRAM) is None:
        return []
    done = subprocess.run(
        [program(), "--voices"], capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        raise VoiceError(
            _("espeak-ng cannot list its voices: {problem}").format(problem=_reason(done.stderr))
        )
    lines = done.stdout.splitlines()[1:]
    # voices that need the MBROLA program are listed whether it is there or not
    return [
        found[1] for line in lines if (found := _VOICE_LINE.match(line)) and "mb/" not in found[3]
    ]


class EspeakVoice(Voice):
    """Speaks by running espeak-ng, once for each text.

    Args:
        language: a code such as "en" or "ko".
        variant: one of espeak-ng's variants, such as "f3"; a man's voice if None.
        words_per_minute: at speed 1.
    """

    def __init__(
        self, language: str, variant: str | None = None, words_per_minute: int = 165
    ) -> None:
        self.language = language
        # British is what espeak-ng means by en; numbers are read as Americans do
        self._code = "en-us" if language.casefold() == "en" else language
        if variant:
            self._code += f"+{variant}"
        self.name = f"{PROGRAM}:{self._code}"
        self.rate_hz = RATE_HZ
        self._words_per_minute = words_per_minute
        self._process: subprocess.Popen[bytes] | None = None

    def warm(self) -> None:
        """Raises MissingPart if espeak-ng is not installed."""
        program()

    def speak(self, text: str) -> Iterator[Samples]:
        text = sayable(text)
        if text:
            yield from tidy(self._raw(text), self.rate_hz, text)

    def close(self) -> None:
        if (process := self._process) is not None:
            process.kill()

    def _raw(self, text: str) -> Iterator[Samples]:
        """espeak-ng's own sound."""
        speed = str(round(min(450, max(80, self._words_per_minute * self.speed))))
        # over stdin, text is no option whatever it begins with; without -m, <x> is no markup
        command = [program(), "-b", "1", "-v", self._code, "-s", speed, "--stdin", "--stdout"]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
            )
        except OSError as error:
            raise VoiceError(
                _("cannot run {program}: {problem}").format(
                    program=command[0], problem=error.strerror or error
                )
            ) from error
        assert process.stdin and process.stderr and isinstance(process.stdout, io.BufferedReader)
        self._process = process
        try:
            _send(process.stdin, text)
            sound = process.stdout.read(_HEADER.size)
            if len(sound) == _HEADER.size:
                self._check(sound)
                yield from _samples(process.stdout)
            # below zero: close() has killed it
            if process.wait() > 0:
                reason = _reason(process.stderr.read().decode("utf-8", "replace"))
                raise VoiceError(
                    _(
                        "espeak-ng cannot speak with the voice {voice!r}: {problem}; "
                        "`espeak-ng --voices` lists those it has"
                    ).format(voice=self._code, problem=reason)
                )
        finally:
            process.kill()  # if the iterator was closed; else it has ended
            process.wait()
            self._process = None
            process.stdout.close()
            process.stderr.close()

    def _check(self, header: bytes) -> None:
        fields = _HEADER.unpack(header)
        (riff, wave, fmt), channels, rate_hz, bits = fields[:3], fields[5], fields[6], fields[9]
        if (riff, wave, fmt) != (b"RIFF", b"WAVE", b"fmt ") or (channels, bits) != (1, 16):
            raise VoiceError(
                _("espeak-ng sent no 16-bit WAV sound; version 1.49 or newer is needed")
            )
        if rate_hz != self.rate_hz:
            raise VoiceError(
                _(
                    "the espeak-ng voice {voice!r} speaks at {found} Hz, not {wanted}; "
                    "choose one that needs no other program"
                ).format(voice=self._code, found=rate_hz, wanted=self.rate_hz)
            )


def _send(stdin: IO[bytes], text: str) -> None:
    """The text, whole, and its end; a program that has ended says why on its stderr."""
    try:
        with stdin:
            stdin.write(text.encode("utf-8", "replace"))
    except BrokenPipeError:
        return


def _samples(stdout: io.BufferedReader) -> Iterator[Samples]:
    rest = b""
    while data := stdout.read1(_CHUNK_BYTES):
        rest += data
        even = len(rest) // 2 * 2
        yield np.frombuffer(rest[:even], "<i2").astype(np.int16)
        rest = rest[even:]


def _reason(stderr: str) -> str:
    return " ".join(stderr.split()).removeprefix("Error: ").rstrip(".") or _("it gives no reason")
