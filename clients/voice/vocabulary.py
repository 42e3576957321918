"""The words a Vosk model knows, read from its folder, and which of them are near to another.

Vosk itself only says whether it knows a given word; a helpful error, and the choice of words that
compete with the wake word, need the list.
"""

import struct
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Final

from clients.i18n import _
from clients.voice.errors import ModelBroken

_FST_MAGIC: Final = 2125659606
_SYMBOLS_MAGIC: Final = 2125658996
_HAS_INPUT_SYMBOLS: Final = 1
_LONGEST_WORD: Final = 4096  # bytes; more means that this is no symbol table
_MOST_WORDS: Final = 10_000_000


class Vocabulary:
    """Words of the model in `folder`; the list is read when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def words(self) -> frozenset[str]:
        """All of them, without the ones like <eps> that are not for people. Raises ModelBroken."""
        text, fst = self._folder / "graph" / "words.txt", self._folder / "graph" / "Gr.fst"
        try:
            if text.is_file():
                lines = text.read_text(encoding="utf-8").splitlines()
                found = [line.split()[0] for line in lines if line.strip()]
            else:
                with fst.open("rb") as file:
                    found = _symbols(file, fst)
        except (OSError, UnicodeDecodeError) as error:
            raise ModelBroken(
                _("cannot read the words of the recogniser's model in {folder}: {problem}").format(
                    folder=self._folder, problem=error
                )
            ) from error
        return frozenset(word for word in found if word[0] not in "<!#[")

    def near(self, word: str, n: int = 5) -> list[str]:
        """Words that are written nearly as `word` is, the nearest first."""
        # comparing with half a million words takes seconds; a near word has about the same length
        # and shares the beginning or the end
        similar = [
            known
            for known in self.words
            if abs(len(known) - len(word)) <= 2
            and (known[:1] == word[:1] or known[-1:] == word[-1:])
        ]
        return get_close_matches(word, similar, n, cutoff=0.4)


def _symbols(file: BinaryIO, path: Path) -> list[str]:
    """The input symbols of an FST in OpenFst's binary format.

    Layout: magic int32, type of FST and of arcs (int32 length and bytes each), version int32,
    flags int32, properties, start, number of states and of arcs int64 each; then the symbol table:
    magic int32, name, next key int64, number int64, and for each a word and its key int64.
    """

    def integer(layout: str) -> int:
        data = file.read(struct.calcsize(layout))
        if len(data) != struct.calcsize(layout):
            raise ModelBroken(
                _("{path} is cut off; fetch the recogniser's model again").format(path=path)
            )
        (value,) = struct.unpack(layout, data)
        return int(value)

    def text() -> str:
        length = integer("<i")
        if not 0 <= length <= _LONGEST_WORD:
            raise ModelBroken(
                _("{path} is damaged; fetch the recogniser's model again").format(path=path)
            )
        return file.read(length).decode("utf-8")

    if integer("<i") != _FST_MAGIC:
        raise ModelBroken(
            _("{path} is no FST; fetch the recogniser's model again").format(path=path)
        )
    text(), text(), integer("<i")
    flags = integer("<i")
    for _number in range(4):
        integer("<q")
    if not flags & _HAS_INPUT_SYMBOLS or integer("<i") != _SYMBOLS_MAGIC:
        raise ModelBroken(
            _("{path} has no list of words, and there is no words.txt beside it").format(path=path)
        )
    text(), integer("<q")
    n_words = integer("<q")
    if not 0 <= n_words <= _MOST_WORDS:
        raise ModelBroken(
            _("{path} is damaged; fetch the recogniser's model again").format(path=path)
        )
    words = []
    for _word in range(n_words):
        words.append(text())
        integer("<q")
    return [word for word in words if word]
