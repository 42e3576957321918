"""Which voices are installed, and which one speaks a language."""

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

from clients.i18n import _
from clients.voice import espeak, piper_voice
from clients.voice.errors import MissingPart, ModelBroken, VoiceError
from clients.voice.espeak import EspeakVoice
from clients.voice.piper_voice import PiperVoice
from clients.voice.speech import Voice

__all__ = ["Voice", "VoiceInfo", "find_voices", "open_voice", "voices_folder"]

_QUALITIES: Final = ("x_low", "low", "medium", "high")


@dataclass(frozen=True)
class VoiceInfo:
    """A voice that is installed.

    Attributes:
        name: what open_voice() takes.
        language: "en", "ko", …, for espeak-ng also with a region: "en-gb".
        path: a Piper voice's .onnx file.
    """

    name: str
    language: str
    kind: Literal["piper", "espeak-ng"]
    path: Path | None = None


def voices_folder() -> Path:
    """Where a person puts Piper voices, an .onnx and an .onnx.json file each."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(data) / "assistantd" / "voices"


def find_voices() -> list[VoiceInfo]:
    """All voices that are installed, the best of a language first; damaged ones are left out.

    Raises:
        VoiceError: espeak-ng is there and does not work.
    """
    piper: dict[str, VoiceInfo] = {}
    if piper_voice.is_installed():
        for path in [*sorted(voices_folder().glob("**/*.onnx")), *_packaged()]:
            try:
                language = piper_voice.language_of(piper_voice.config_of(path))
            except ModelBroken:
                continue  # open_voice() of its path says why
            piper.setdefault(path.stem, VoiceInfo(path.stem, language, "piper", path))
    found = sorted(piper.values(), key=_quality, reverse=True)
    for code in espeak.languages():
        found.append(VoiceInfo(f"{espeak.PROGRAM}:{code}", code, "espeak-ng"))
    return found


def open_voice(name: str | None, language: str) -> Voice:
    """A voice by its name or path; None takes the best that is installed for the language.

    Args:
        name: as find_voices() tells, "espeak-ng:ko+f3" for a variant, "espeak-ng" alone for that
            program's voice of the language, or the path of an .onnx file.
        language: "en", "ko", "en-US", …

    Raises:
        VoiceError: there is no voice of that name, or none for the language.
        MissingPart: what the voice needs is not installed.
        ModelBroken: its configuration is damaged.
    """
    language = language.replace("_", "-").casefold()
    if name is None:
        return _best(language)
    if name.endswith(".onnx") or os.sep in name:
        return PiperVoice(Path(name).expanduser())
    program, _, code = name.partition(":")
    if program == espeak.PROGRAM:
        espeak.program()
        code, _, variant = (code or _spoken_code(language) or language).partition("+")
        if code.casefold() != "en" and code.casefold() not in map(str.casefold, espeak.languages()):
            raise _unknown(name, find_voices())
        return EspeakVoice(code, variant or None)
    voices = find_voices()
    for voice in voices:
        if voice.path is not None and voice.name.casefold() == name.casefold():
            return PiperVoice(voice.path)
    raise _unknown(name, voices)


def _best(language: str) -> Voice:
    base = language.partition("-")[0]
    for voice in find_voices():
        if voice.path is not None and voice.language == base:
            return PiperVoice(voice.path)
    code = _spoken_code(language)
    if code is not None:
        return EspeakVoice(code)
    espeak.program()
    raise VoiceError(
        _(
            "no voice is installed that speaks {language!r}; put a Piper voice into "
            "{folder}, or choose one of `espeak-ng --voices`"
        ).format(language=language, folder=voices_folder())
    )


def _spoken_code(language: str) -> str | None:
    """What espeak-ng calls the language, with its region if it knows it."""
    base = language.partition("-")[0]
    known = {code.casefold(): code for code in espeak.languages()}
    if language in known:
        return known[language]
    if base == "en" and known:
        return "en"
    return known.get(base) or next((c for f, c in known.items() if f.startswith(f"{base}-")), None)


def _unknown(name: str, voices: list[VoiceInfo]) -> VoiceError:
    if not voices:
        return MissingPart(
            _(
                "there is no voice {name!r}, and no other; install one with "
                "`sudo apt install espeak-ng` or `brew install espeak-ng`"
            ).format(name=name)
        )
    names = {voice.name.casefold(): voice.name for voice in voices}
    near = [names[found] for found in difflib.get_close_matches(name.casefold(), names, 3, 0.5)]
    # part of a name is how people remember it
    near += [n for f, n in names.items() if name.casefold() in f and n not in near][:3]
    if near:
        told = _("there is no voice {name!r}; did you mean {names}?")
    else:
        told = _("there is no voice {name!r}; `assistant voice voices` lists them")
    return VoiceError(told.format(name=name, names=", ".join(near)))


def _packaged() -> Iterator[Path]:
    """Piper voices inside installed Python packages, found in their lists of files."""
    for package in metadata.distributions():
        # most have none: their lists are searched as text, which is quick
        if ".onnx.json" not in (package.read_text("RECORD") or ""):
            continue
        for file in package.files or ():
            if file.name.endswith(".onnx.json"):
                model = Path(str(package.locate_file(file))).with_suffix("")
                if model.is_file():
                    yield model


def _quality(voice: VoiceInfo) -> int:
    word = voice.name.rpartition("-")[2]
    return _QUALITIES.index(word) if word in _QUALITIES else -1
