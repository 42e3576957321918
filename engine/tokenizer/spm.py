"""SentencePiece: the vocabularies of LLaMA 1 and 2, Mistral and their relatives.

Owns: reading and writing the few fields of a SentencePiece model that matter, so that the
`sentencepiece` library can tokenize with a GGUF's vocabulary. Leaves to others: the tokenizing
(the library), special tokens (special.py, base.py).

A model is a protobuf message; of its fields these are used (number: name):

    ModelProto      1: pieces (repeated SentencePiece)  2: trainer_spec  3: normalizer_spec
    SentencePiece   1: piece (string)  2: score (float)  3: type (enum, as vocab.TokenType)
    TrainerSpec     3: model_type (1 unigram, 2 BPE)  35: byte_fallback  41: bos id  42: eos id
    NormalizerSpec  1: name  3: add_dummy_prefix  4: remove_extra_whitespaces

Source: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import sentencepiece

from engine.errors import ModelFormatError
from engine.tokenizer.base import Tokenizer
from engine.tokenizer.special import unprotect
from engine.tokenizer.vocab import (
    MAX_TOKENS,
    PREFIX,
    ByteTable,
    Keys,
    TokenType,
    Vocabulary,
    byte_value,
    make_vocabulary,
)

SPACE: Final = "▁"
"""How SentencePiece writes a space (U+2581)."""
MAX_FILE_BYTES: Final = 1 << 26
MAX_SCORE: Final = 1e12
"""Of either sign; sound scores are ranks or logarithms of probabilities."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf wire types
_BPE: Final = 2


class SpmTokenizer(Tokenizer):
    """Tokenizes with the `sentencepiece` library."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        texts: list[str],
        model_proto: bytes,
        *,
        adds_space_prefix: bool,
    ) -> None:
        pieces = ByteTable(
            _piece(text, kind) for text, kind in zip(texts, vocabulary.types, strict=True)
        )
        super().__init__("spm", vocabulary, pieces, adds_space_prefix=adds_space_prefix)
        if TokenType.BYTE not in vocabulary.types:
            self._without_token = bytes(range(256))  # where one is known or not
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model_proto)
        except RuntimeError as error:
            raise ModelFormatError(
                f"the SentencePiece vocabulary is not usable: {error}"
            ) from error

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "SpmTokenizer":
        """See `engine.tokenizer.load_tokenizer`."""
        keys = Keys(metadata)
        texts = keys.tokens()
        types = keys.types(texts)
        scores = keys.numbers("scores", len(texts))
        if scores is None:
            raise keys.bad("scores", "is missing, a SentencePiece vocabulary needs them")
        if np.abs(scores).max() > MAX_SCORE:
            raise keys.bad("scores", f"has a number beyond ±{MAX_SCORE:g}")
        n_tokens = len(texts)
        if f"{PREFIX}token_type" not in metadata:
            types = bytearray(
                TokenType.BYTE if _looks_like_byte(text) else TokenType.NORMAL for text in texts
            )
        vocabulary = make_vocabulary(
            texts,
            types,
            end_ids=keys.end_ids(texts, types),
            bos_id=keys.token_id("bos_token_id", n_tokens, default=1),
            eos_id=keys.token_id("eos_token_id", n_tokens, default=2),
            add_bos=keys.flag("add_bos_token", True),
        )
        unknown_id = keys.token_id("unknown_token_id", n_tokens)
        if unknown_id is None:
            unknown_id = types.find(TokenType.UNKNOWN)  # -1: there is none
        adds_space_prefix = keys.flag("add_space_prefix", True)
        library_types = _library_types(texts, types, unknown_id, vocabulary)
        specs = _gguf_specs(types, adds_space_prefix=adds_space_prefix)
        proto = _model_proto(texts, scores.tolist(), library_types, *specs)
        return cls(vocabulary, texts, proto, adds_space_prefix=adds_space_prefix)

    @classmethod
    def from_file(cls, path: Path) -> "SpmTokenizer":
        """See `engine.tokenizer.load_sentencepiece`."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ModelFormatError(f"cannot open {path}: {error.strerror or error}") from error
        if len(data) > MAX_FILE_BYTES:
            raise ModelFormatError(f"{path} is larger than {MAX_FILE_BYTES} bytes: not a tokenizer")
        try:
            texts, scores, types, trainer_spec, normalizer_spec = _read_model(data)
            trainer, normalizer = dict(_fields(trainer_spec)), dict(_fields(normalizer_spec))
        except ValueError as error:
            raise ModelFormatError(f"{path} is not a SentencePiece model: {error}") from error

        def special_id(field: int, default: int) -> int | None:
            value = trainer.get(field, default)  # -1, "none", is written as 2^64 - 1
            return value if isinstance(value, int) and value < len(texts) else None

        vocabulary = make_vocabulary(
            texts,
            types,
            end_ids=(),
            bos_id=special_id(_BOS_ID, 1),
            eos_id=special_id(_EOS_ID, 2),
            add_bos=True,
        )
        library_types = _library_types(texts, types, types.find(TokenType.UNKNOWN), vocabulary)
        proto = _model_proto(texts, scores, library_types, trainer_spec, normalizer_spec)
        adds_space_prefix = bool(normalizer.get(_ADD_DUMMY_PREFIX, 1))
        return cls(vocabulary, texts, proto, adds_space_prefix=adds_space_prefix)

    def least_tokens(self, text: str) -> int:
        """See Tokenizer. Spaces count for nothing: runs of them may be left out."""
        words = unprotect("".join(text.split())).replace(SPACE, "").encode("utf-8", "replace")
        return -(-len(words.translate(None, self._without_token)) // self._longest)

    @cached_property
    def _longest(self) -> int:
        """Bytes of the longest token, without spaces; found when it is needed, not at the start."""
        pieces = (self._pieces[token_id] for token_id in range(self.vocab_size))
        return max(1, max(len(piece.replace(b" ", b"")) for piece in pieces))

    def _encode_plain(self, text: str) -> Sequence[int]:
        ids: list[int] = self._processor.encode(text)
        if ids and max(ids) >= self.vocab_size:  # the stand-in that _model_proto may add
            return [token_id for token_id in ids if token_id < self.vocab_size]
        return ids


def _piece(text: str, kind: int) -> bytes:
    """What a token adds to a text."""
    if kind == TokenType.BYTE:
        return byte_value(text)
    if kind in (TokenType.NORMAL, TokenType.USER_DEFINED):
        return text.replace(SPACE, " ").encode()
    return b""


def _library_types(
    texts: list[str], types: bytearray, unknown_id: int, vocabulary: Vocabulary
) -> bytearray:
    """Types as the library should see them.

    It insists on exactly one unknown token, and must match neither what only a template may place
    nor tokens without a use; a control token matches no text.
    """
    result = bytearray(types)
    for token_id, kind in enumerate(types):
        if kind in (TokenType.UNKNOWN, TokenType.UNDEFINED) or (
            kind == TokenType.USER_DEFINED and texts[token_id] in vocabulary.special_tokens
        ):
            result[token_id] = TokenType.CONTROL
    # what stands for unknown text is no token that only a template may place
    if unknown_id >= 0 and texts[unknown_id] not in vocabulary.special_tokens:
        result[unknown_id] = TokenType.UNKNOWN
    n_bytes = types.count(TokenType.BYTE)
    if n_bytes not in (0, 256):
        raise ModelFormatError(
            f"the SentencePiece vocabulary has {n_bytes} byte tokens, 0 or 256 are possible; "
            "the model file is damaged"
        )
    return result


# --- the model as a protobuf message ---

_TYPE: Final = 3
_MODEL_TYPE, _BYTE_FALLBACK, _BOS_ID, _EOS_ID = 3, 35, 41, 42
_ADD_DUMMY_PREFIX, _REMOVE_EXTRA_WHITESPACES = 3, 4


def _gguf_specs(types: bytearray, *, adds_space_prefix: bool) -> tuple[bytes, bytes]:
    """TrainerSpec and NormalizerSpec for a GGUF, which has no such things: as LLaMA's."""
    trainer_spec = _number(_MODEL_TYPE, _BPE) + _number(_BYTE_FALLBACK, TokenType.BYTE in types)
    normalizer_spec = (
        _string(1, b"identity")
        + _number(_ADD_DUMMY_PREFIX, adds_space_prefix)
        + _number(_REMOVE_EXTRA_WHITESPACES, 0)
    )
    return trainer_spec, normalizer_spec


def _model_proto(
    texts: list[str],
    scores: list[float],
    types: bytearray,
    trainer_spec: bytes,
    normalizer_spec: bytes,
) -> bytes:
    """A ModelProto for the library."""
    proto = bytearray()
    for text, score, kind in zip(texts, scores, types, strict=True):
        if kind == TokenType.USER_DEFINED:
            text = text.replace(" ", SPACE)  # GGUF writers have unescaped these
        proto += _string(1, _encode_piece(text, score, kind))
    if TokenType.UNKNOWN not in types:
        # a stand-in, longer than any other token so that it is none of them
        text = "<unk>" + "_" * max(map(len, texts))
        proto += _string(1, _encode_piece(text, 0.0, TokenType.UNKNOWN))
    return bytes(proto + _string(2, trainer_spec) + _string(3, normalizer_spec))


def _encode_piece(text: str, score: float, kind: int) -> bytes:
    return _string(1, text.encode()) + b"\x15" + struct.pack("<f", score) + _number(_TYPE, kind)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(int(value))


def _string(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(value)) + value


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of a message: int, bytes, or float for 32 bits.

    Raises:
        ValueError: it is not a protobuf message.
    """
    at = 0

    def varint() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(data):
                raise ValueError("it is cut off")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError(f"a number at byte {at} has no end")

    def take(n_bytes: int) -> bytes:
        nonlocal at
        if n_bytes > len(data) - at:
            raise ValueError("it is cut off")
        at += n_bytes
        return data[at - n_bytes : at]

    while at < len(data):
        key = varint()
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            yield field, varint()
        elif wire == _BYTES:
            yield field, take(varint())
        elif wire == _FIXED32:
            yield field, struct.unpack("<f", take(4))[0]
        elif wire == _FIXED64:
            yield field, take(8)
        else:
            raise ValueError(f"field {field} has the wire type {wire}")


def _read_model(data: bytes) -> tuple[list[str], list[float], bytearray, bytes, bytes]:
    """Texts, scores, types, TrainerSpec and NormalizerSpec of a ModelProto.

    Raises:
        ValueError: it is not one.
    """
    texts: list[str] = []
    scores: list[float] = []
    types = bytearray()
    specs = {2: b"", 3: b""}
    for field, value in _fields(data):
        if field in (1, 2, 3) and not isinstance(value, bytes):
            raise ValueError(f"field {field} is not a message")
        if field in specs:
            specs[field] += value
        elif field == 1:
            piece = dict(_fields(value))
            text, score, kind = piece.get(1), piece.get(2, 0.0), piece.get(_TYPE, TokenType.NORMAL)
            if not isinstance(text, bytes) or not isinstance(score, float):
                raise ValueError(f"piece {len(texts)} has no text, or no number as its score")
            if not abs(score) <= MAX_SCORE:
                raise ValueError(f"piece {len(texts)} has the score {score}")
            if kind not in set(TokenType) - {TokenType.UNDEFINED}:
                raise ValueError(f"piece {len(texts)} has the type {kind!r}, not one from 1 to 6")
            texts.append(text.decode())  # UnicodeDecodeError is a ValueError
            scores.append(score)
            types.append(kind)
    if not 1 <= len(texts) <= MAX_TOKENS:
        raise ValueError(f"it has {len(texts)} pieces, 1 to {MAX_TOKENS} are allowed")
    if len(set(texts)) != len(texts):
        raise ValueError("it has the same piece twice")
    return texts, scores, types, specs[2], specs[3]


def _looks_like_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")
