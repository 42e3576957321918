"""The marker rule: text of a user never becomes a special token.

Owns: where special tokens occur in a text, and how an occurrence is made harmless. Leaves to
others: which tokens are special (vocab.py), and tokenizing what lies between them.

A chat template places special tokens (`<|im_end|>`) as text, next to what the user wrote. To keep
the two apart, `protect` puts a noncharacter inside each occurrence in the user's text before the
template is rendered. The split on special tokens then cannot match it, and the marker is taken
out again before tokenizing: the user's text is tokenized as the plain text it is.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

MARKER: Final = "\ufdd0"
"""U+FDD0, a noncharacter: no text has a use for it, and no vocabulary holds it."""
MAX_SPECIAL_CHARS: Final = 256
"""Longer special tokens cannot be written as text; real ones stay below 64."""


def is_marker(text: str) -> bool:
    """Whether a user-defined token is a marker such as `<|im_start|>`, rather than plain text.

    Files declare both as user-defined. Runs of spaces, words and single characters are plain:
    they may match in anybody's text.
    """
    words = text.replace("▁", " ")  # how SentencePiece writes a space
    return len(text) > 1 and not words.isspace() and not words.replace(" ", "").isalnum()


class TokenFinder:
    """Finds given texts in a text, the longest at each place.

    Every place is tried by its first character and then by the few lengths that occur, so the cost
    does not grow with the number of tokens.
    """

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self.ids = dict(tokens)
        self._lengths: dict[str, list[int]] = {}
        for first, length in sorted({(t[0], len(t)) for t in tokens}, key=lambda x: -x[1]):
            self._lengths.setdefault(first, []).append(length)
        first_chars = "".join(map(re.escape, self._lengths))
        self._candidates = re.compile(f"[{first_chars}]") if first_chars else None

    def _find(self, text: str) -> Iterator[tuple[int, int]]:
        """(start, length) of the longest token at each place; they may overlap."""
        if self._candidates is None:
            return
        for candidate in self._candidates.finditer(text):
            start = candidate.start()
            for length in self._lengths[text[start]]:
                if text[start : start + length] in self.ids:
                    yield start, length
                    break

    def split(self, text: str) -> Iterator[str | int]:
        """Pieces of text and ids of the tokens between them, in order; no piece is empty."""
        done = 0
        for start, length in self._find(text):
            if start < done:
                continue
            if start > done:
                yield text[done:start]
            yield self.ids[text[start : start + length]]
            done = start + length
        if done < len(text):
            yield text[done:]


class SpecialTokens(TokenFinder):
    """The tokens that only a template may place."""

    def __init__(self, tokens: Mapping[str, int]) -> None:
        # A token of one character has no inside for the marker; without it, it is not parsed.
        super().__init__(
            {
                text: token_id
                for text, token_id in tokens.items()
                if 2 <= len(text) <= MAX_SPECIAL_CHARS and MARKER not in text
            }
        )

    def protect(self, text: str) -> str:
        """`text` with a marker inside each special token, and no other markers."""
        text = unprotect(text)
        pieces, done = [], 0
        for start, _ in self._find(text):  # every place, overlaps too: no token may be left whole
            pieces += [text[done : start + 1], MARKER]
            done = start + 1
        pieces.append(text[done:])
        return "".join(pieces)


def protect(text: str, special_tokens: Mapping[str, int]) -> str:
    """Make a user's text safe to be tokenized with `parse_special=True`.

    Afterwards `encode(protect(text, ...), parse_special=True)` equals
    `encode(text, parse_special=False)`.
    """
    return SpecialTokens(special_tokens).protect(text)


def unprotect(text: str) -> str:
    """Take the markers out again."""
    return text.replace(MARKER, "")
