"""What every tokenizer can do: split special tokens off, decode, stream.

Owns: the interface the rest of the engine uses, and the parts that do not depend on the kind of
vocabulary. Leaves to others: plain text to ids (bpe.py, spm.py).
"""

import codecs
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from engine.tokenizer.special import SpecialTokens, unprotect
from engine.tokenizer.vocab import ByteTable, Vocabulary


class Tokenizer(ABC):
    """Text to token ids and back.

    Attributes:
        name: "spm", or "bpe:" and the pre-tokenizer.
        vocab_size: ids are 0 to vocab_size - 1.
        special_tokens: tokens that only a template may place, by text.
        eog_ids: ids that end an answer.
        add_bos: whether the model wants its prompts to start with the BOS token.
        adds_space_prefix: whether `encode` puts a space before each piece of plain text.
    """

    def __init__(
        self, name: str, vocabulary: Vocabulary, pieces: ByteTable, *, adds_space_prefix: bool
    ) -> None:
        self.name = name
        self.vocab_size = vocabulary.size
        self.special_tokens: Mapping[str, int] = vocabulary.special_tokens
        self.bos_id = vocabulary.bos_id
        self.eos_id = vocabulary.eos_id
        self.eog_ids = vocabulary.eog_ids
        self.add_bos = vocabulary.add_bos
        self.adds_space_prefix = adds_space_prefix
        self._pieces = pieces
        self._without_token = b""
        """Bytes that `encode` leaves out, or makes one token of however many there are."""
        self._special = SpecialTokens(vocabulary.special_tokens)
        self._special_ids = frozenset(vocabulary.special_tokens.values())
        self._special_texts = vocabulary.special_texts

    def encode(self, text: str, *, parse_special: bool = False, add_bos: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            text: anything; lone surrogates become U+FFFD, U+FDD0 is dropped (see special.py).
            parse_special: whether `<|im_end|>` in the text becomes that token. Only for text that
                a template made, with the user's part of it under `protect`.
            add_bos: put the BOS token first, if there is one.
        """
        ids = [self.bos_id] if add_bos and self.bos_id is not None else []
        for piece in self._special.split(text) if parse_special else (text,):
            if isinstance(piece, int):
                ids.append(piece)
            elif plain := _valid(unprotect(piece)):
                ids += self._encode_plain(plain)
        return ids

    def least_tokens(self, text: str) -> int:
        """`encode` makes at least so many tokens of a text: quick to find, however long that is."""
        data = _valid(unprotect(text)).encode()
        return -(-len(data.translate(None, self._without_token)) // self._pieces.longest)

    @abstractmethod
    def _encode_plain(self, text: str) -> Sequence[int]:
        """Ids of a text that is not empty and has no special tokens."""

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of a whole sequence; bytes that are not UTF-8 become U+FFFD.

        Args:
            skip_special: leave control tokens out, else write them as text.
        """
        decoder = StreamDecoder(self, at_start=True, skip_special=skip_special)
        return "".join([*map(decoder.push, ids), decoder.flush()])

    def token_bytes(self, token_id: int) -> bytes:
        """The raw bytes this token adds to a text; b"" for control tokens."""
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(
                f"token id {token_id} is outside of the vocabulary of {self.vocab_size}"
            )
        return self._pieces[token_id]

    def protect(self, text: str) -> str:
        """`special.protect` with this tokenizer's special tokens."""
        return self._special.protect(text)

    def stream(self, ids_so_far: Sequence[int] = ()) -> "StreamDecoder":
        """A decoder for the ids that follow `ids_so_far`."""
        return StreamDecoder(self, at_start=not ids_so_far or self.is_special(ids_so_far[-1]))

    def is_special(self, token_id: int) -> bool:
        """Whether a template, not text, put this token there."""
        return token_id in self._special_ids

    def special_text(self, token_id: int) -> str | None:
        """How a control token is written; None for all others."""
        return self._special_texts.get(token_id)


class StreamDecoder:
    """Ids in, text out, as soon as its UTF-8 characters are whole.

    A space that `encode` puts before plain text - at the start, and after a special token - is
    taken off again.
    """

    def __init__(self, tokenizer: Tokenizer, *, at_start: bool, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._at_prefix = at_start and tokenizer.adds_space_prefix
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The text that this token completes; often "" in the middle of a character."""
        data = self._tokenizer.token_bytes(token_id)
        if not self._skip_special:
            data = data or (self._tokenizer.special_text(token_id) or "").encode()
        if self._tokenizer.is_special(token_id):
            self._at_prefix = self._tokenizer.adds_space_prefix
        elif data and self._at_prefix:
            self._at_prefix = False
            data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def flush(self) -> str:
        """The rest: U+FFFD if the last character was never finished."""
        return self._utf8.decode(b"", final=True)


def _valid(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot hold, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
