r"""How each byte-level BPE vocabulary splits a text into words before merging.

Owns: the table from `tokenizer.ggml.pre` to patterns. Leaves to others: merging (bpe.py).

A pre-tokenizer is a list of patterns. The first splits the text into what it matches and what lies
between; the next splits each of those, and so on. The patterns are those of the models' own
tokenizer.json files, as the peer applies them:
https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import regex  # type: ignore[import-untyped]

from engine.errors import UnsupportedModelError

# parts that many patterns share
_CONTRACTION: Final = r"'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE_CONTRACTION: Final = rf"(?i:{_CONTRACTION})"
_LETTERS: Final = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_PUNCTUATION: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACE: Final = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased_words(suffix: str = "") -> str:
    """Words split where upper case begins again: `aB` is two."""
    before = r"[^\r\n\p{L}\p{N}]?"
    return f"{before}{_UPPER}*{_LOWER}+{suffix}|{before}{_UPPER}+{_LOWER}*{suffix}"


_GPT2: Final = rf"{_CONTRACTION}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
_DIGITS_THEN_GPT2: Final = (r"\p{N}", _GPT2)
_LLAMA3: Final = (rf"{_ANY_CASE_CONTRACTION}|{_LETTERS}|\p{{N}}{{1,3}}|{_PUNCTUATION}|{_SPACE}",)
_QWEN2: Final = (rf"{_ANY_CASE_CONTRACTION}|{_LETTERS}|\p{{N}}|{_PUNCTUATION}|{_SPACE}",)
_DEEPSEEK_CJK: Final = r"[一-龥ࠀ-一가-\ud7ff]+"


@dataclass(frozen=True)
class PreTokenizer:
    """One row of the table."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    """A whole word that is a token needs no merges to become it."""
    add_bos: bool = False
    """What holds if `tokenizer.ggml.add_bos_token` is missing."""

    def split(self, text: str) -> Iterator[str]:
        """Words of the text, in order; joined they are the text again."""
        words: Iterator[str] = iter((text,))
        for pattern in self.patterns:
            words = _split(_compiled(pattern), words)
        return words


@lru_cache(maxsize=32)
def _compiled(pattern: str) -> Any:
    return regex.compile(pattern)


def _split(pattern: Any, pieces: Iterator[str]) -> Iterator[str]:
    """Matches and what lies between them; each piece is matched as if it stood alone."""
    for piece in pieces:
        done = 0
        for match in pattern.finditer(piece):
            start, end = match.span()
            if start == end:
                continue
            if start > done:
                yield piece[done:start]
            yield piece[start:end]
            done = end
        if done < len(piece):
            yield piece[done:]


_GPT2_STYLE = PreTokenizer((_GPT2,))
_STARCODER_STYLE = PreTokenizer(_DIGITS_THEN_GPT2)
_LLAMA3_STYLE = PreTokenizer(_LLAMA3, ignore_merges=True, add_bos=True)
_LLAMA3_PLAIN = PreTokenizer(_LLAMA3)
_QWEN2_STYLE = PreTokenizer(_QWEN2)
_GPT4O_STYLE = PreTokenizer(
    (
        _cased_words(f"{_ANY_CASE_CONTRACTION}?")
        + rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACE}",
    )
)

PRE_TOKENIZERS: Final[Mapping[str, PreTokenizer]] = {
    "default": PreTokenizer(
        (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
    ),
    # GPT-2's own
    **dict.fromkeys(
        ("gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "mellum", "exaone4", "trillion"),
        _GPT2_STYLE,
    ),
    # single digits first, then as GPT-2
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
        _STARCODER_STYLE,
    ),
    # LLaMA 3's: digits by three
    **dict.fromkeys(
        ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0"),
        _LLAMA3_STYLE,
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe"), _LLAMA3_PLAIN),
    "glm4": PreTokenizer(_LLAMA3, ignore_merges=True),
    # Qwen's: single digits
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan"), _QWEN2_STYLE),
    "qwen35": PreTokenizer(
        (
            rf"{_ANY_CASE_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
            rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACE}",
        )
    ),
    **dict.fromkeys(("gpt-4o", "llama4"), _GPT4O_STYLE),
    "tekken": PreTokenizer(
        (_cased_words() + rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACE}",),
        ignore_merges=True,
        add_bos=True,
    ),
    "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")),
    "deepseek-coder": PreTokenizer(
        (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, r"\p{N}")
    ),
    "deepseek-llm": PreTokenizer(
        (
            r"[\r\n]",
            r"\s?[\p{Lu}\p{Ll}\p{Lt}]+",
            r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
            # \s+$, which would be tried again at each place of a long run of spaces
            r"(?<!\s)\s++$",
            _DEEPSEEK_CJK,
            r"\p{N}+",
        )
    ),
    "deepseek-v3": PreTokenizer(
        (
            r"\p{N}{1,3}",
            r"[一-龥぀-ゟ゠-ヿ]+",
            r"[!-/:-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACE}",
        )
    ),
}


def pre_tokenizer(name: str | None) -> PreTokenizer:
    """The row for `tokenizer.ggml.pre`; files from before that key was invented have none.

    Raises:
        UnsupportedModelError: names the pre-tokenizer and the ones there are.
    """
    row = PRE_TOKENIZERS.get(name or "default")
    if row is None:
        raise UnsupportedModelError(
            f"tokenizer.ggml.pre is {(name or '')[:60]!r}, a way to split words that is not "
            "implemented; "
            f"known are {', '.join(sorted(PRE_TOKENIZERS))}"
        )
    return row
