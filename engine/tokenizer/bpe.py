"""Byte-level BPE: LLaMA 3, SmolLM2, GPT-2 and their relatives.

Owns: the merge loop and its tables. Leaves to others: splitting text into words
(pretokenizers.py), special tokens (special.py, base.py).

A word's bytes are merged pair by pair, the pair with the lowest rank first and the leftmost of
equals first, until no pair of neighbours has a rank.
"""

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.errors import ModelFormatError
from engine.tokenizer.base import Tokenizer
from engine.tokenizer.pretokenizers import PreTokenizer, pre_tokenizer
from engine.tokenizer.special import MAX_SPECIAL_CHARS, TokenFinder
from engine.tokenizer.vocab import (
    PREFIX,
    ByteTable,
    Keys,
    TokenType,
    Vocabulary,
    byte_value,
    make_vocabulary,
    short,
)

MAX_MERGES: Final = 1 << 21
CACHED_WORDS: Final = 8192
MAX_CACHED_BYTES: Final = 64
"""Longer words are not worth a place in the cache."""
_ID_BITS: Final = 32
_ID_MASK: Final = (1 << _ID_BITS) - 1


def _byte_chars() -> dict[int, str]:
    """How GPT-2 writes each byte as a printable character: itself, or moved up from U+0100.

    Source: https://github.com/openai/gpt-2/blob/master/src/encoder.py
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(0x100 + i) for i, byte in enumerate(moved)
    }


BYTE_CHARS: Final = _byte_chars()
_TO_BYTES: Final = {ord(char): byte for byte, char in BYTE_CHARS.items()}


def raw_bytes(text: str) -> bytes:
    """The bytes that a normal token stands for."""
    try:
        return text.translate(_TO_BYTES).encode("latin-1")
    except UnicodeEncodeError:  # not in GPT-2's alphabet: the token is plain text
        return text.encode()


class BpeTokenizer(Tokenizer):
    """Byte-level BPE with tables sized for small devices.

    A merge is found by bisection in a sorted array of left << 32 | right; a dict of 280k merges
    would take 40 MB, this takes 4.5 MB. The words of a text repeat, so a small cache of words pays
    for the slower look-up.
    """

    def __init__(
        self,
        name: str,
        vocabulary: Vocabulary,
        texts: list[str],
        merges: list[str],
        words: PreTokenizer,
    ) -> None:
        types = vocabulary.types
        pieces = [_piece(text, kind) for text, kind in zip(texts, types, strict=True)]
        super().__init__(f"bpe:{name}", vocabulary, ByteTable(pieces), adds_space_prefix=False)
        self._words = words
        self._sorted_ids = array("I")
        if words.ignore_merges:
            normal = np.flatnonzero(np.frombuffer(types, np.uint8) == TokenType.NORMAL).tolist()
            self._sorted_ids = array("I", sorted(normal, key=pieces.__getitem__))
        del pieces  # what follows takes as much: this is when loading takes most
        ids = {text: token_id for token_id, text in enumerate(texts)}
        # plain text never becomes what only a template may place
        reserved = np.frombuffer(types, np.uint8) == TokenType.CONTROL
        reserved[list(vocabulary.special_tokens.values())] = True
        # A byte without a token (those that UTF-8 never uses) is left out, as the peer does.
        self._byte_ids = array("i", (ids.get(BYTE_CHARS[byte], -1) for byte in range(256)))
        for byte, token_id in enumerate(self._byte_ids):
            if token_id >= 0 and reserved[token_id]:
                self._byte_ids[byte] = -1
        self._without_token = bytes(byte for byte in range(256) if self._byte_ids[byte] < 0)
        self._merge_keys, self._merge_values = _merge_tables(merges, ids, reserved)
        # user-defined tokens that are plain text (runs of spaces, words) match in any text
        self._plain = TokenFinder(
            {
                text: token_id
                for text, token_id in ids.items()
                if types[token_id] == TokenType.USER_DEFINED
                and text not in vocabulary.special_tokens
                and len(text) <= MAX_SPECIAL_CHARS
            }
        )
        self._cache: dict[bytes, tuple[int, ...]] = {}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "BpeTokenizer":
        """See `engine.tokenizer.load_tokenizer`."""
        keys = Keys(metadata)
        name = keys.string("pre") or "default"
        words = pre_tokenizer(name)
        texts = keys.tokens()
        types = keys.types(texts)
        vocabulary = make_vocabulary(
            texts,
            types,
            end_ids=keys.end_ids(texts, types),
            bos_id=keys.token_id("bos_token_id", len(texts)),
            eos_id=keys.token_id("eos_token_id", len(texts)),
            add_bos=keys.flag("add_bos_token", words.add_bos),
        )
        merges = keys.strings("merges")
        if len(merges) > MAX_MERGES:
            raise keys.bad("merges", f"has {len(merges)} items, at most {MAX_MERGES} are allowed")
        return cls(name, vocabulary, texts, merges, words)

    def _encode_plain(self, text: str) -> Sequence[int]:
        ids: list[int] = []
        for piece in self._plain.split(text):
            if isinstance(piece, int):
                ids.append(piece)
                continue
            for word in self._words.split(piece):
                ids += self._encode_word(word.encode())
        return ids

    def _encode_word(self, word: bytes) -> tuple[int, ...]:
        found = self._cache.get(word)
        if found is not None:
            return found
        whole = self._find_token(word)
        ids = (whole,) if whole is not None else tuple(self._merge(word))
        if len(word) <= MAX_CACHED_BYTES:
            if len(self._cache) >= CACHED_WORDS:
                self._cache.clear()
            self._cache[word] = ids
        return ids

    def _find_token(self, word: bytes) -> int | None:
        """The normal token that is exactly this word; only where merges may be ignored."""
        at = bisect_left(self._sorted_ids, word, key=self._pieces.__getitem__)
        if at == len(self._sorted_ids):
            return None
        token_id = self._sorted_ids[at]
        return token_id if self._pieces[token_id] == word else None

    def _find_merge(self, left: int, right: int) -> int | None:
        """rank << 32 | id of the merged token, or None if the pair does not merge."""
        key = left << _ID_BITS | right
        at = bisect_left(self._merge_keys, key)
        if at == len(self._merge_keys) or self._merge_keys[at] != key:
            return None
        return self._merge_values[at]

    def _merge(self, word: bytes) -> list[int]:
        """Ids of one word: O(n log n), and some 60 bytes for each of its own, whatever it is."""
        ids = array("i", map(self._byte_ids.__getitem__, word))
        n = len(ids)
        # neighbours of each place; a merged pair lives on at its left place
        before = array("i", range(-1, n - 1))
        after = array("i", range(1, n + 1))
        gone = -2

        def merge_at(at: int) -> int | None:
            """rank << 32 | merged of the pair that begins at a place."""
            left, following = ids[at], after[at]
            if left < 0 or following == n or ids[following] < 0:
                return None
            return self._find_merge(left, ids[following])

        # rank << 32 | place; where the pair has become another one since, its rank has, too
        heap = [
            value & ~_ID_MASK | at for at in range(n - 1) if (value := merge_at(at)) is not None
        ]
        heapq.heapify(heap)
        while heap:
            offered = heapq.heappop(heap)
            at = offered & _ID_MASK
            value = merge_at(at)
            if value is None or value ^ offered > _ID_MASK:
                continue
            next_at = after[at]
            ids[at], ids[next_at] = value & _ID_MASK, gone
            following = after[at] = after[next_at]
            if following < n:
                before[following] = at
            for place in (at, before[at]):
                if place >= 0 and (value := merge_at(place)) is not None:
                    heapq.heappush(heap, value & ~_ID_MASK | place)
        return [token_id for token_id in ids if token_id >= 0]


def _piece(text: str, kind: int) -> bytes:
    """What a token adds to a text."""
    if kind == TokenType.NORMAL:
        return raw_bytes(text)
    if kind == TokenType.BYTE:
        return byte_value(text)
    return text.encode() if kind == TokenType.USER_DEFINED else b""


def _merge_tables(
    merges: list[str], ids: Mapping[str, int], reserved: npt.NDArray[np.bool_]
) -> "tuple[array[int], array[int]]":
    """Sorted left << 32 | right, and rank << 32 | merged for each."""
    # hot: 280k merges in LLaMA 3
    left_ids, right_ids, merged_ids = array("I"), array("I"), array("I")
    for rank, merge in enumerate(merges):
        left, _, right = merge.partition(" ")
        try:
            merged_ids.append(ids[left + right])
            left_ids.append(ids[left])
            right_ids.append(ids[right])
        except KeyError as error:
            raise _bad_merge(rank, merge) from error
    merged = np.array(merged_ids, np.uint64)
    keys = np.array(left_ids, np.uint64) << _ID_BITS | np.array(right_ids, np.uint64)
    values = np.arange(len(merges), dtype=np.uint64) << _ID_BITS | merged
    wanted = ~reserved[merged]
    # of a pair that is listed twice, `unique` keeps the first rank
    keys, first = np.unique(keys[wanted], return_index=True)
    return array("Q", keys.tobytes()), array("Q", values[wanted][first].tobytes())


def _bad_merge(rank: int, merge: str) -> ModelFormatError:
    return ModelFormatError(
        f"{PREFIX}merges[{rank}] is {short(merge)}: not two tokens with a space between them that "
        f"make a third, all of them in {PREFIX}tokens; the model file is damaged"
    )
