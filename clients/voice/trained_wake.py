"""Wake words that a network was trained for: this project's own, and those of openWakeWord.

openWakeWord computes a spectrogram and from it a speech embedding every 80 ms, shared by all words;
a small network for each word judges the last seconds of them. pyopen-wakeword runs the first part
on TensorFlow Lite and brings a few words along; anybody's .tflite file that openWakeWord's tools
have trained is a wake word, too. The networks of OWN are in wake_words/ (small_network.py).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from clients.i18n import _
from clients.voice.errors import MissingPart, ModelBroken
from clients.voice.small_network import Embeddings, SmallNetwork
from clients.voice.sound import RATE_HZ, Samples
from clients.voice.wake import Wake

HEY_JARVIS: Final = "hey jarvis"
OWN: Final = {HEY_JARVIS: "hey-jarvis", "자비스": "jabiseu"}
"""Word → its file in wake_words/, which says how it was made."""
WORDS: Final = (HEY_JARVIS, "hey mycroft", "hey rhasspy", "okay nabu", "alexa")
"""Only a network hears these; pyopen-wakeword brings all but the first along. They are English."""
SUFFIX: Final = ".tflite"
_CHUNK: Final = 1280
_KEPT_S: Final = 2.0
_END_S: Final = (0.65, 0.05)
"""openWakeWord's networks are sure of the word so long after its end, at most and at least."""
_OWN_END_S: Final = (0.3, 0.06)
"""The same for OWN: in the development voices, with and without a pause before the question, this
keeps least of the word and loses least of the question."""
_PAUSE: Final = RATE_HZ // 40
_MIDDLE: Final = 0.6
"""From which probability on it is the word, at sensitivity 0.5. openWakeWord's authors advise 0.5;
with the development voices of benchmarks/wake_word.py as little was missed at 0.6, and the false
wakes were a quarter fewer."""
_MAGIC: Final = b"TFL3"  # at byte 4


def is_installed() -> bool:
    """Whether pyopen-wakeword is; it has no wheels for some machines."""
    return find_spec("pyopen_wakeword") is not None


def is_trained(word: str) -> bool:
    """Whether a wake word is one of these rather than of the recogniser's vocabulary.

    One of OWN that a recogniser may know, too, is left to it where pyopen-wakeword is missing.
    """
    if word.endswith(SUFFIX) or word.lower() in WORDS:
        return True
    return word.lower() in OWN and is_installed()


def own_file(word: str) -> Path:
    """Where the network of a word of OWN is."""
    return Path(__file__).parent / "wake_words" / f"{OWN[word]}.npz"


def least_probability(sensitivity: float) -> float:
    """From which probability on it is the word."""
    return min(0.98, max(0.02, _MIDDLE + 0.5 - sensitivity))


class _Network(Protocol):
    """Judges embeddings one after another."""

    def reset(self) -> None: ...

    def hear(self, embedding: Embeddings) -> float | None:
        """The probability of the word; None until it has heard enough. embedding: (96,)."""


class _OfOpenWakeWord:
    """A network on TensorFlow Lite."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def reset(self) -> None:
        self._network.reset()

    def hear(self, embedding: Embeddings) -> float | None:
        found: float | None = max(
            self._network.process_streaming(embedding[None, None, None]), default=None
        )
        return found


class TrainedWakeWord:
    """Listens for one or more words; a WakeWord. Wake.distance is 1 - probability.

    Args:
        words: of OWN or WORDS, or paths of .tflite files.
        sensitivity: 0 to 1; more of it misses less and wakes more often without cause.

    Raises:
        MissingPart: pyopen-wakeword is not installed.
        ModelBroken: a file cannot be read, or is no such network.
    """

    def __init__(self, words: Sequence[str], sensitivity: float = 0.5) -> None:
        try:
            from pyopen_wakeword import Model, OpenWakeWord, OpenWakeWordFeatures
        except ImportError as error:
            raise MissingPart(
                _(
                    "{name} is not installed, which hears {words}: pip install 'assistantd[voice]'"
                ).format(name="pyopen-wakeword", words=", ".join(words))
            ) from error
        self._least = least_probability(sensitivity)
        self._features: Any = OpenWakeWordFeatures.from_builtin()
        self._networks: dict[str, _Network] = {}
        for word in words:
            if word.endswith(SUFFIX):
                path = Path(word).expanduser()
                _check(path)
                name = path.stem.replace("_", " ")
                self._networks[name] = _OfOpenWakeWord(OpenWakeWord.from_model(path))
            elif word.lower() in OWN:
                self._networks[word.lower()] = SmallNetwork.load(own_file(word.lower()))
            else:
                model = Model(word.lower().replace(" ", "_"))
                self._networks[word.lower()] = _OfOpenWakeWord(OpenWakeWord.from_builtin(model))
        for _embedding in self._features.process_streaming(bytes(2 * _CHUNK)):
            pass  # the first time it computes some seconds of silence; not while somebody speaks
        self._kept: deque[Samples] = deque()
        self._rest = np.zeros(0, np.int16)
        self._heard = 0

    def reset(self) -> None:
        """As in WakeWord."""
        for network in self._networks.values():
            network.reset()
        self._kept.clear()
        self._rest = self._rest[:0]
        self._heard = 0

    @property
    def heard_anything(self) -> bool:
        """As in WakeWord."""
        return self._heard > 0

    def hear(self, samples: Samples) -> Wake | None:
        """As in WakeWord."""
        self._kept.append(samples)
        self._heard += samples.size
        while sum(map(len, self._kept)) - self._kept[0].size > _KEPT_S * RATE_HZ:
            self._kept.popleft()
        samples = np.concatenate([self._rest, samples])
        whole = samples.size // _CHUNK * _CHUNK
        self._rest = samples[whole:]
        found: Wake | None = None
        for first in range(0, whole, _CHUNK):
            heard = self._best(samples[first : first + _CHUNK])
            if found is None and heard is not None:
                word, probability = heard
                since = samples.size - first - _CHUNK
                after = self._after(since, _OWN_END_S if word in OWN else _END_S)
                found = Wake(word, after, 1.0 - probability)
        return found

    def _best(self, chunk: Samples) -> tuple[str, float] | None:
        """The word that was heard with the chunk, and how surely."""
        sure = [found for found in self._judged(chunk) if found[1] >= self._least]
        return max(sure, key=lambda found: found[1], default=None)

    def _judged(self, chunk: Samples) -> Iterator[tuple[str, float]]:
        """Words, and how likely each of them ends in the chunk."""
        for embeddings in self._features.process_streaming(chunk.tobytes()):
            for word, network in self._networks.items():
                probability = network.hear(embeddings[0, 0, 0])
                if probability is not None:
                    yield word, probability

    def _after(self, since: int, end_s: tuple[float, float]) -> Samples:
        """What was heard since the word's end, where the network was sure `since` samples ago.

        It ended somewhere in the time before, most likely where it was quietest.
        """
        kept = np.concatenate(self._kept)
        sure = kept.size - since
        first, last = (max(0, sure - round(s * RATE_HZ)) for s in end_s)
        if last - first < _PAUSE:
            return kept[sure:]
        power = np.convolve(kept[first:last].astype(np.float64) ** 2, np.ones(_PAUSE), "valid")
        return kept[first + int(np.argmin(power)) :]


def _check(path: Path) -> None:
    # TensorFlow Lite ends the whole process when it is given anything else
    try:
        with path.open("rb") as file:
            is_network = file.read(8)[4:] == _MAGIC
    except OSError as error:
        raise ModelBroken(
            _("cannot read the wake word {path}: {problem}").format(
                path=path, problem=error.strerror
            )
        ) from error
    if not is_network:
        raise ModelBroken(
            _(
                "{path} is no TensorFlow Lite file; openWakeWord's tools make them. Or take one of "
                "{words}"
            ).format(path=path, words=", ".join(WORDS))
        )
