"""Voices made by a neural network, with the package piper-tts (extra [piper]).

Owns how one is loaded in little memory; which ones are installed is voices.py's.
"""

import ctypes
import importlib.util
import json
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from clients.i18n import _
from clients.voice.errors import MissingPart, ModelBroken, VoiceError
from clients.voice.sound import Samples
from clients.voice.speech import Voice, sayable, tidy

if TYPE_CHECKING:
    import piper

_THREADS: Final = min(2, os.cpu_count() or 1)
_M_MMAP_THRESHOLD: Final = -3
"""glibc's name for it, malloc.h."""
_LARGE_BLOCK_BYTES: Final = 8 * 2**20
_WARM_UP: Final = {"en": "Hello there.", "ko": "안녕하세요."}


def is_installed() -> bool:
    """Whether piper-tts is there; it is not imported."""
    return importlib.util.find_spec("piper") is not None


def config_of(model: Path) -> dict[str, Any]:
    """What is beside the voice in MODEL.onnx.json.

    Raises:
        ModelBroken: it is missing or damaged.
    """
    path = Path(f"{model}.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelBroken(
            _(
                "the voice {name} needs {path} beside it, which cannot be read: "
                "{problem}; download both files of the voice again"
            ).format(name=model.name, path=path, problem=error.strerror or error)
        ) from error
    except ValueError as error:
        raise ModelBroken(
            _("{path} is damaged ({problem}); download the voice again").format(
                path=path, problem=error
            )
        ) from error
    try:
        rate_hz, espeak = config["audio"]["sample_rate"], config["espeak"]["voice"]
    except (KeyError, TypeError) as error:
        raise ModelBroken(
            _("{path} is no configuration of a Piper voice: it lacks {problem}").format(
                path=path, problem=error
            )
        ) from error
    if not isinstance(rate_hz, int) or not 8_000 <= rate_hz <= 96_000 or not espeak:
        raise ModelBroken(
            _("{path} is damaged ({problem}); download the voice again").format(
                path=path, problem=f"sample_rate {rate_hz!r}"
            )
        )
    return dict(config)


def language_of(config: dict[str, Any]) -> str:
    """The voice's language, such as "en" or "ko"."""
    code = (config.get("language") or {}).get("code") or config["espeak"]["voice"]
    return str(code).replace("_", "-").partition("-")[0].casefold()


class PiperVoice(Voice):
    """Speaks with a Piper voice, sentence by sentence.

    Args:
        model: the voice's .onnx file; its configuration is read at once, the network in warm() or
            when it first speaks.
        speaker: which of several speakers.

    Raises:
        ModelBroken: the configuration is missing or damaged.
        MissingPart: piper-tts is not installed.
    """

    def __init__(self, model: Path, speaker: int | None = None) -> None:
        if not is_installed():
            raise MissingPart(
                _(
                    "the voice {name} needs the package piper-tts; install it with "
                    "`pip install 'assistantd[piper]'`"
                ).format(name=model.stem)
            )
        if not model.is_file():
            raise VoiceError(_("there is no voice at {path}; check the path").format(path=model))
        config = config_of(model)
        self.name = model.stem
        self.language = language_of(config)
        self.rate_hz = int(config["audio"]["sample_rate"])
        self._model, self._config, self._speaker = model, config, speaker
        self._loading = threading.Lock()
        self._piper: piper.PiperVoice | None = None
        self._closed = False

    def warm(self) -> None:
        with self._loading:
            if self._piper is None:
                self._closed = False
                self._piper = self._load()
                # the first run plans its memory, and loads the tables of the language
                for _ in self._raw(_WARM_UP.get(self.language, "A, e, i, o.")):
                    pass

    def speak(self, text: str) -> Iterator[Samples]:
        text = sayable(text)
        if text:
            self.warm()
            yield from tidy(self._raw(text), self.rate_hz, text)

    def close(self) -> None:
        self._closed = True
        self._piper = None

    def _load(self) -> "piper.PiperVoice":
        # onnxruntime 1.32 tells Microsoft that it is used, unless it is told not to beforehand
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime
        import piper
        from piper.config import PiperConfig

        onnxruntime.disable_telemetry_events()
        _give_large_blocks_back()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _THREADS
        options.inter_op_num_threads = 1
        # spinning threads would take the cores that the model needs
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # an arena keeps the largest sentence's memory for ever; sentences differ in length
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        try:
            config = PiperConfig.from_dict(self._config)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelBroken(
                _(
                    "{path} is no configuration that piper-tts understands ({problem}); "
                    "download the voice again"
                ).format(path=f"{self._model}.json", problem=f"{type(error).__name__}: {error}")
            ) from error
        try:
            session = onnxruntime.InferenceSession(
                str(self._model), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise ModelBroken(
                _("{path} cannot be loaded ({problem}); download the voice again").format(
                    path=self._model, problem=_short(error)
                )
            ) from error
        return piper.PiperVoice(session=session, config=config)

    def _raw(self, text: str) -> Iterator[Samples]:
        """Piper's own sound, a sentence at a time."""
        voice = self._piper
        if voice is None:
            return
        from piper import SynthesisConfig

        style = SynthesisConfig(
            speaker_id=self._speaker,
            length_scale=voice.config.length_scale / self.speed,
            # raised to full scale, a whisper of noise would become as loud as a word
            normalize_audio=False,
        )
        try:
            for chunk in voice.synthesize(text, style):
                if self._closed:
                    return
                yield np.asarray(chunk.audio_int16_array)
        except Exception as error:  # piper-tts and onnxruntime raise whatever they like
            raise VoiceError(
                _("the voice {name} cannot say that: {problem}").format(
                    name=self.name, problem=_short(error)
                )
            ) from error


def _give_large_blocks_back() -> None:
    """Make this process return large blocks to the system when they are freed.

    glibc learns to keep them: a sentence of 200 letters then peaks at 470 MiB rather than 350, and
    50 MiB more stay, for a fifth less work (measured with en_US-joe-medium).
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
