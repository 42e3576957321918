"""Read and check the `tokenizer.ggml.*` keys of a GGUF; the vocabulary they describe.

Owns: what the keys mean, which ids are special, which of them end an answer, and a compact table
of the bytes of every token. Leaves to others: turning text into ids (bpe.py, spm.py).
"""

import re
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.errors import ModelFormatError
from engine.tokenizer.special import is_marker

MAX_TOKENS: Final = 1 << 20  # the largest vocabularies of today have 2^18
PREFIX: Final = "tokenizer.ggml."


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`; SentencePiece numbers its types in the same way."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# Texts that end an answer whatever the keys say. The peer keeps the same list, because many files
# name only one of their two or three end tokens: https://github.com/ggml-org/llama.cpp/issues/9606
END_TEXTS: Final = frozenset(
    [
        "</s>",
        "<eos>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<turn|>",
        "[e~[",
        "<end_of_turn>",
        "<end_of_utterance>",
        "<|tool_response>",
        "<｜end▁of▁sentence｜>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|return|>",
        "<|call|>",
        "<|calls|>",
        "<|flush|>",
    ]
)
# Padding, repository and file separators of code models end an answer as well:
# key → texts to look for if the key is missing
CODE_ENDS: Final[Mapping[str, tuple[str, ...]]] = {
    "fim_pad_token_id": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep_token_id": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep_token_id": ("<|file_sep|>",),
}


class ByteTable:
    """The bytes of each token, end to end in one buffer: a list of objects takes ten times that.

    Attributes:
        longest: bytes of the longest token.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.ends = array("Q")
        buffer = bytearray()
        for piece in pieces:
            buffer += piece
            self.ends.append(len(buffer))
        self.buffer = bytes(buffer)
        lengths = np.diff(np.frombuffer(self.ends, np.uint64), prepend=np.uint64(0))
        self.longest = int(lengths.max(initial=1))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, token_id: int) -> bytes:
        start = self.ends[token_id - 1] if token_id else 0
        return self.buffer[start : self.ends[token_id]]


@dataclass(frozen=True)
class Vocabulary:
    """What is kept of a vocabulary once its tokenizer is built."""

    size: int
    types: bytes
    """One TokenType per token."""
    special_tokens: Mapping[str, int]
    """Tokens that only a template may place, by text; see `special.is_marker`."""
    special_texts: Mapping[int, str]
    """The text of each control token, by id: `decode` leaves these out unless asked."""
    bos_id: int | None
    eos_id: int | None
    eog_ids: frozenset[int]
    """Ids that end an answer."""
    add_bos: bool


def make_vocabulary(
    texts: list[str],
    types: bytearray,
    *,
    bos_id: int | None,
    eos_id: int | None,
    end_ids: Iterable[int],
    add_bos: bool,
) -> Vocabulary:
    """Decide which tokens are special and which end an answer; may correct `types` in place.

    Args:
        texts, types: by token id.
        end_ids: ids the file itself says end an answer, besides `eos_id`.
    """
    eog_ids = set(end_ids)
    for token_id, text in enumerate(texts):
        if text in END_TEXTS:
            eog_ids.add(token_id)
            # some files mark them as ordinary text, and would then print them
            types[token_id] = TokenType.CONTROL
    if eos_id is not None:
        eog_ids.add(eos_id)
    _drop_ambiguous_ends(eog_ids, texts, types)

    special_tokens, special_texts = {}, {}
    for token_id in np.flatnonzero(np.frombuffer(types, np.uint8) != TokenType.NORMAL).tolist():
        kind, text = types[token_id], texts[token_id]
        if kind in (TokenType.CONTROL, TokenType.UNKNOWN):
            special_texts[token_id] = text
        if kind == TokenType.CONTROL or (kind == TokenType.USER_DEFINED and is_marker(text)):
            special_tokens[text] = token_id
    return Vocabulary(
        size=len(texts),
        types=bytes(types),
        special_tokens=special_tokens,
        special_texts=special_texts,
        bos_id=bos_id,
        eos_id=eos_id,
        eog_ids=frozenset(eog_ids),
        add_bos=add_bos,
    )


def _drop_ambiguous_ends(eog_ids: set[int], texts: list[str], types: bytearray) -> None:
    """Two texts of END_TEXTS end nothing in vocabularies that have better ones."""
    ends = {texts[i]: i for i in eog_ids}
    has_call = "<|call|>" in ends or "<|calls|>" in ends
    if "<|end|>" in ends and has_call and ("<|return|>" in ends or "<|flush|>" in ends):
        eog_ids.discard(ends["<|end|>"])  # it ends a part of an answer there
        types[ends["<|end|>"]] = TokenType.USER_DEFINED
    if "</s>" in ends and ("<|tool_response>" in ends or "<|plamo:eos|>" in ends):
        eog_ids.discard(ends["</s>"])  # it is a piece of HTML there
        types[ends["</s>"]] = TokenType.NORMAL


class Keys:
    """Typed access to the `tokenizer.ggml.*` keys; every error names the key and its value."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata

    def bad(self, name: str, what: str) -> ModelFormatError:
        return ModelFormatError(f"{PREFIX}{name} {what}; the model file is damaged")

    def string(self, name: str) -> str | None:
        value = self.metadata.get(PREFIX + name)
        if value is not None and not isinstance(value, str):
            raise self.bad(name, f"is {short(value)}, not a string")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.metadata.get(PREFIX + name, default)
        if not isinstance(value, bool | np.bool_):
            raise self.bad(name, f"is {short(value)}, not true or false")
        return bool(value)

    def token_id(self, name: str, n_tokens: int, default: int | None = None) -> int | None:
        """The id under a key; a default outside of the vocabulary counts as none."""
        value = self.metadata.get(PREFIX + name)
        if value is None:
            return default if default is not None and default < n_tokens else None
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise self.bad(name, f"is {short(value)}, not a token id")
        if not 0 <= value < n_tokens:
            raise self.bad(name, f"is {value}, the vocabulary has {n_tokens} tokens")
        return int(value)

    def strings(self, name: str) -> list[str]:
        value = self.metadata.get(PREFIX + name)
        if value is None:
            raise ModelFormatError(
                f"the model file has no {PREFIX}{name}, its tokenizer needs that; "
                "convert the model again, or fetch another file"
            )
        if not isinstance(value, list | tuple):
            raise self.bad(name, f"is {short(value)}, not a list of strings")
        for i, item in enumerate(value):
            if not isinstance(item, str):
                raise self.bad(f"{name}[{i}]", f"is {short(item)}, not a string")
        return list(value)

    def tokens(self) -> list[str]:
        """Texts by id, each of them once."""
        texts = self.strings("tokens")
        if not 1 <= len(texts) <= MAX_TOKENS:
            raise self.bad("tokens", f"has {len(texts)} items, 1 to {MAX_TOKENS} are allowed")
        if "" in texts:
            # holes of a padded vocabulary; no text leads to them
            texts = [text or f"[EMPTY_{i}]" for i, text in enumerate(texts)]
        if len(set(texts)) != len(texts):
            seen: dict[str, int] = {}
            for i, text in enumerate(texts):
                if text in seen:
                    raise self.bad("tokens", f"has {short(text)} twice, at {seen[text]} and {i}")
                seen[text] = i
        return texts

    def numbers(self, name: str, n_tokens: int) -> npt.NDArray[Any] | None:
        """An array with one finite number per token; longer ones are cut."""
        value = self.metadata.get(PREFIX + name)
        if value is None:
            return None
        if isinstance(value, list | tuple):
            # not left to numpy: of texts it would make a table as wide as the longest
            if not all(isinstance(item, int | float) for item in value):
                raise self.bad(name, "is not a flat list of numbers")
            value = np.asarray(value)
        if not isinstance(value, np.ndarray):
            raise self.bad(name, f"is {short(value)}, not a list of numbers")
        numbers = value
        if numbers.ndim != 1 or numbers.dtype.kind not in "iuf":
            raise self.bad(name, f"holds {numbers.dtype} of shape {numbers.shape}, not numbers")
        if len(numbers) < n_tokens:
            raise self.bad(name, f"has {len(numbers)} items, the vocabulary has {n_tokens} tokens")
        numbers = numbers[:n_tokens]
        if not np.isfinite(numbers).all():
            where = int(np.flatnonzero(~np.isfinite(numbers))[0])
            raise self.bad(f"{name}[{where}]", f"is {numbers[where]}")
        return numbers

    def types(self, texts: list[str]) -> bytearray:
        numbers = self.numbers("token_type", len(texts))
        if numbers is None:
            return bytearray([TokenType.NORMAL]) * len(texts)
        wrong = np.flatnonzero((numbers < 0) | (numbers > max(TokenType)))
        if numbers.dtype.kind == "f" or len(wrong):
            where = int(wrong[0]) if len(wrong) else 0
            raise self.bad(f"token_type[{where}]", f"is {numbers[where]}, not a type from 0 to 6")
        return bytearray(numbers.astype(np.uint8).tobytes())

    def end_ids(self, texts: list[str], types: bytearray) -> set[int]:
        """Ids that end an answer, from the keys, and for some keys from texts instead."""
        found: set[int | None] = {
            self.token_id(name, len(texts)) for name in ("eot_token_id", "eom_token_id")
        }
        for name, candidates in CODE_ENDS.items():
            token_id = self.token_id(name, len(texts))
            if token_id is None:
                token_id = next((texts.index(t) for t in candidates if t in texts), None)
                if token_id is not None:
                    types[token_id] = TokenType.CONTROL
            found.add(token_id)
        return {token_id for token_id in found if token_id is not None}


def byte_value(text: str) -> bytes:
    """The byte that a token such as `<0x0A>` stands for."""
    found = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", text)
    if found is None:
        raise ModelFormatError(
            f"{PREFIX}tokens has {short(text)} marked as a byte, which is not written like "
            "'<0x0A>'; the model file is damaged"
        )
    return bytes.fromhex(found[1])


def short(value: object) -> str:
    """A value in an error message, never longer than a line."""
    if isinstance(value, list | tuple | np.ndarray):
        return f"a list of {len(value)}"
    text = repr(value[:60] if isinstance(value, str | bytes) else value)
    return text if len(text) <= 60 else text[:57] + "..."
