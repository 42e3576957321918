"""clients.voice.vocabulary: the words of a model, from files made here by hand."""

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients.voice.errors import ModelBroken
from clients.voice.vocabulary import Vocabulary

WORDS = ["<eps>", "jarvis", "자비스", "!SIL", "[unk]", "#0", "service"]


def string(text: bytes) -> bytes:
    return struct.pack("<i", len(text)) + text


def fst(words: list[str] = WORDS, *, flags: int = 1, n_words: int | None = None) -> bytes:
    """The beginning of an OpenFst file, up to the end of its input symbols."""
    header = struct.pack("<i", 2125659606) + string(b"ngram") + string(b"standard")
    header += struct.pack("<iiQqqq", 4, flags, 0x3F, 0, 10, 20)
    table = struct.pack("<i", 2125658996) + string(b"words")
    table += struct.pack("<qq", len(words), len(words) if n_words is None else n_words)
    for key, word in enumerate(words):
        table += string(word.encode()) + struct.pack("<q", key)
    return header + table


def vocabulary(folder: Path, data: bytes, name: str = "Gr.fst") -> Vocabulary:
    (folder / "graph").mkdir(exist_ok=True)
    (folder / "graph" / name).write_bytes(data)
    return Vocabulary(folder)


def test_words_of_an_fst(tmp_path: Path) -> None:
    words = vocabulary(tmp_path, fst() + b"states and arcs").words
    assert words == {"jarvis", "자비스", "service"}


def test_words_of_a_list(tmp_path: Path) -> None:
    text = "<eps> 0\njarvis 1\n\n자비스 2\n#0 3\n"
    assert vocabulary(tmp_path, text.encode(), "words.txt").words == {"jarvis", "자비스"}


def test_near_words(tmp_path: Path) -> None:
    vocabulary(tmp_path, fst(["jarvis", "jarred", "service", "purple", "carvis"]))
    near = Vocabulary(tmp_path).near("jarvi", 3)
    assert near[0] == "jarvis"
    assert "purple" not in near


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut off"),
        (b"\0" * 200, "no FST"),
        (fst(flags=0), "no list of words"),
        (fst(n_words=100), "cut off"),
        (fst(n_words=-1), "damaged"),
        (fst(n_words=1 << 60), "damaged"),
        (fst()[:8] + b"\xff" * 300, "damaged"),
    ],
)
def test_damaged(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ModelBroken, match=message):
        _ = vocabulary(tmp_path, data).words


@pytest.mark.parametrize("length", range(0, len(fst()), 7))
def test_cut_off_anywhere(tmp_path: Path, length: int) -> None:
    with pytest.raises(ModelBroken):
        _ = vocabulary(tmp_path, fst()[:length]).words


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(fst()) - 1), byte=st.integers(0, 255))
def test_one_wrong_byte(tmp_path: Path, position: int, byte: int) -> None:
    """Other words, or ModelBroken; nothing else."""
    data = bytearray(fst())
    data[position] = byte
    with contextlib.suppress(ModelBroken):
        assert len(vocabulary(tmp_path, bytes(data)).words) <= len(WORDS)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match="cannot read the words"):
        _ = Vocabulary(tmp_path).words


def test_a_list_in_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match="cannot read the words"):
        _ = vocabulary(tmp_path, "자비스 1\n".encode("euc-kr"), "words.txt").words
