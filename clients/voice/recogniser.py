"""The recogniser: one Vosk model in memory, for the wake word and for dictation alike."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from clients.i18n import _
from clients.voice.errors import MissingPart, ModelBroken
from clients.voice.sound import RATE_HZ, Samples
from clients.voice.vocabulary import Vocabulary

NEEDED: Final = ("am/final.mdl", "conf/model.conf")
"""What every folder of a Vosk model holds."""
_RUNTIME_GRAPH: Final = "graph/HCLr.fst"
_FST_MAGIC: Final = (2125659606).to_bytes(4, "little")
_LANGUAGE: Final = re.compile(r"(?<![a-z])(?:vosk[-_])?model[-_](?:small[-_])?([a-z]{2})(?![a-z])")


class Recogniser:
    """A Vosk model folder, loaded.

    Attributes:
        folder: where it is.
        language: two letters, "" if nothing tells.
        vocabulary: the words it knows.

    Raises:
        MissingPart: Vosk is not installed.
        ModelBroken: the folder is no Vosk model, or one that cannot be loaded.
    """

    def __init__(self, folder: Path, language: str = "") -> None:
        try:
            import vosk
        except ImportError as error:
            raise MissingPart(
                _(
                    "the Python package {name} is not installed; pip install 'assistantd[voice]'"
                ).format(name="vosk")
            ) from error
        for name in NEEDED:
            if not (folder / name).is_file():
                raise ModelBroken(
                    _(
                        "{folder} is no Vosk model: it has no {name}; "
                        "see what there is with `assistant voice models`"
                    ).format(folder=folder, name=name)
                )
        _require_whole(folder)
        vosk.SetLogLevel(-2)
        self._vosk = vosk
        try:
            self._model = vosk.Model(str(folder))
        except Exception as error:  # Vosk raises no narrower class
            raise ModelBroken(
                _(
                    "the recogniser's model in {folder} cannot be loaded; remove the folder, and "
                    "fetch it again with `assistant voice models pull NAME`"
                ).format(folder=folder)
            ) from error
        self.folder = folder
        self.language = language or language_of(folder)
        self.vocabulary = Vocabulary(folder)

    def knows(self, word: str) -> bool:
        """Whether it can ever hear this word."""
        return int(self._model.vosk_model_find_word(word)) >= 0

    def listen(self, grammar: Sequence[str] | None = None) -> "Listening":
        """Start to listen: for these phrases only, or for anything."""
        if grammar is None:
            return Listening(self._vosk.KaldiRecognizer(self._model, RATE_HZ))
        phrases = json.dumps(list(grammar), ensure_ascii=False)
        return Listening(self._vosk.KaldiRecognizer(self._model, RATE_HZ, phrases))


def _require_whole(folder: Path) -> None:
    """Kaldi ends the whole process, without a word, over a graph or settings that it cannot read.

    Raises ModelBroken. A graph that is cut off after its beginning is not noticed.
    """
    graphs = [folder / "graph" / name for name in ("HCLG.fst", "HCLr.fst", "Gr.fst")]
    for file in [folder / "conf" / "model.conf", *(one for one in graphs if one.exists())]:
        try:
            with file.open("rb") as opened:
                begin = opened.read(4)
        except OSError as error:
            raise ModelBroken(
                _("cannot read {path}: {problem}").format(path=file, problem=error.strerror)
            ) from error
        if not begin or (file.suffix == ".fst" and begin != _FST_MAGIC):
            if begin:
                told = _(
                    "the recogniser's model in {folder} is damaged: {file} is no graph; remove "
                    "the folder, and fetch it again with `assistant voice models pull NAME`"
                )
            else:
                told = _(
                    "the recogniser's model in {folder} is damaged: {file} is empty; remove "
                    "the folder, and fetch it again with `assistant voice models pull NAME`"
                )
            raise ModelBroken(told.format(folder=folder, file=file.relative_to(folder)))


class Listening:
    """Hears one stretch of sound after another. Not for two threads at once."""

    def __init__(self, kaldi: Any) -> None:
        self._kaldi = kaldi
        kaldi.SetWords(True)
        kaldi.SetPartialWords(True)

    def hear(self, samples: Samples) -> "Heard":
        """Listen to more, (n,) int16 at RATE_HZ; what is understood so far."""
        ended = self._kaldi.AcceptWaveform(samples.tobytes())
        if ended:
            return _heard(self._kaldi.Result(), "text", "result", final=True)
        return _heard(self._kaldi.PartialResult(), "partial", "partial_result", final=False)

    def finish(self) -> "Heard":
        """The sound has ended; what was understood since the last final result."""
        return _heard(self._kaldi.FinalResult(), "text", "result", final=True)

    def reset(self) -> None:
        """Forget all that was heard."""
        self._kaldi.Reset()


class Heard:
    """What was understood.

    Attributes:
        text: words with single spaces.
        words: each with where it began and ended, in seconds of all that was heard.
        final: whether Vosk took it for a whole utterance; the next result starts anew.
    """

    def __init__(self, text: str, words: list[tuple[str, float, float]], final: bool) -> None:
        self.text, self.words, self.final = text, words, final


def _heard(answer: str, text: str, words: str, *, final: bool) -> Heard:
    found = json.loads(answer)
    return Heard(
        " ".join(found.get(text, "").split()),
        [(one["word"], one["start"], one["end"]) for one in found.get(words, [])],
        final,
    )


def takes_grammar(folder: Path) -> bool:
    """Whether the model can listen for given phrases only, as a wake word needs.

    Models with a fixed graph cannot.
    """
    return (folder / _RUNTIME_GRAPH).is_file()


def language_of(folder: Path) -> str:
    """The language that the name of a model's folder tells, as vosk-model-small-ko-0.22; or ""."""
    for name in (folder.name, folder.parent.name):
        found = _LANGUAGE.search(name.lower())
        if found:
            return found[1]
    return ""
