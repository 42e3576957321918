"""The voice client's settings: defaults, voice.toml, environment, flags, in that order.

$XDG_CONFIG_HOME/assistantd/voice.toml   ~/.config by default
ASSISTANT_VOICE_WAKE_WORDS, …            the key in capitals; lists with commas
assistant voice --wake-word …            flags
"""

import difflib
import os
import platform
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from clients.i18n import _
from clients.voice.errors import VoiceError

PREFIX = "ASSISTANT_VOICE_"
Seconds = Annotated[float, Meta(ge=0, le=3600)]


class VoiceSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """All settings; each is a key of voice.toml."""

    language: Annotated[str, Meta(pattern="^([a-z]{2})?$")] = ""
    """Two letters; empty for the recogniser's model's."""
    answer_language: Annotated[str, Meta(pattern="^([a-z]{2})?$")] = ""
    """What answers are written and spoken in; empty for the voice's, if one is named, else
    `language`."""
    recogniser: str = ""
    """A Vosk model: its name or folder; empty for the best that is installed."""
    voice: str = ""
    """A voice: "espeak-ng:ko+f3", the name of a Piper voice, or a file; empty for the best."""
    wake_words: list[str] = []
    """Empty for "jarvis" as the language writes it."""
    sensitivity: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """Of the wake word: more misses less, and wakes more often without cause."""
    microphone: str = ""
    speaker: str = ""
    """Names, parts of names or numbers that `assistant voice devices` shows; empty for the
    system's own choice."""
    volume: Annotated[float, Meta(ge=0, le=1)] = 0.8
    cues: bool = True
    """Short tones for heard, thinking, error and not connected."""
    quiet_hours: str = ""
    """As 22:00-07:00: no tones, and a low voice."""
    silence_s: Annotated[float, Meta(ge=0.2, le=5)] = 0.5
    """So long a silence ends what you say."""
    patience_s: Annotated[float, Meta(ge=1, le=60)] = 5.0
    """So long it waits for you to begin."""
    follow_up_s: Seconds = 4.0
    """So long it listens after an answer without the wake word; 0 for not at all."""
    interrupt: Literal["speech", "wake word", "off"] = "wake word"
    """What stops an answer: any speech, which needs headphones or a room whose echo the canceller
    can follow; the wake word only; or neither. The button always does."""
    gate: bool = True
    """Let the recogniser hear only what may be speech."""
    session: Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{0,64}$")] = ""
    """The conversation that this room goes on with; empty for one named after the machine."""
    system: str = ""
    """Instructions for the model; empty for short answers that are meant to be heard."""
    max_tokens: Annotated[int, Meta(ge=8, le=4096)] = 160

    @property
    def session_id(self) -> str:
        """The daemon's conversation of this room."""
        if self.session:
            return self.session
        name = (
            "".join(c if c.isascii() and c.isalnum() else "-" for c in platform.node().lower())
            or "here"
        )
        return f"voice-{name}"[:64]


WAKE_WORDS: Mapping[str, str] = {"ko": "자비스"}
"""Language → the wake word by default; "jarvis" where none is given."""
SYSTEM: Mapping[str, str] = {
    "en": "You are a voice assistant. You always answer in English, whatever language you are "
    "asked in. Your answers are spoken aloud: answer in one to three short sentences of plain "
    "words, without lists, markdown or code.",
    "ko": "당신은 음성 비서입니다. 대답은 소리 내어 읽힙니다. 목록이나 기호 없이 한두 문장의 쉬운 "
    "말로 짧게 대답하세요.",
}


def settings_file() -> Path:
    """Where the file is looked for."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "assistantd" / "voice.toml"


def load(flags: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> VoiceSettings:
    """Read and check everything; flags that are None were not given.

    Raises:
        VoiceError: with the place, the key, what was found and what is allowed.
    """
    environ = os.environ if environ is None else environ
    keys = VoiceSettings.__struct_fields__
    values: dict[str, Any] = {}
    file = settings_file()
    for key, value in (_read(file) if file.exists() else {}).items():
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1)
            if near:
                told = _("{file}: there is no setting {name!r}; did you mean {near}?")
            else:
                told = _("{file}: there is no setting {name!r}; there are {names}")
            raise VoiceError(
                told.format(file=file, name=key, near=" ".join(near), names=", ".join(keys))
            )
        _check(key, value, str(file))
        values[key] = value
    for key in keys:
        text = environ.get(PREFIX + key.upper())
        if text:
            value = [w.strip() for w in text.split(",")] if key == "wake_words" else text
            values[key] = _check(key, value, f"${PREFIX}{key.upper()}")
    for key, value in flags.items():
        if value is not None:
            values[key] = _check(key, value, f"--{key.replace('_', '-')}")
    return msgspec.convert(values, VoiceSettings, strict=False)


def _check(key: str, value: Any, place: str) -> Any:
    try:
        msgspec.convert({key: value}, VoiceSettings, strict=False)
    except msgspec.ValidationError as error:
        what = str(error).partition(" - at `")[0]
        raise VoiceError(f"{place}: {key} = {value!r}: {what}") from error
    return value


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise VoiceError(
            _("cannot read {path}: {problem}").format(path=file, problem=error.strerror)
        ) from error
    except (ValueError, RecursionError) as error:  # also of numbers with thousands of digits
        raise VoiceError(
            _("{path} is not valid TOML: {problem}").format(path=file, problem=error)
        ) from error
