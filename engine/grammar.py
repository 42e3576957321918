"""Answers that must be JSON: which tokens may come next, by llguidance.

Owns: the bridge from our tokenizers and samplers to llguidance, which is imported only when an
answer has a format. Leaves to others: choosing among the tokens that are allowed (sampler.py).
"""

import json
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.errors import GrammarError
from engine.i18n import _
from engine.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer

ANY_JSON: dict[str, Any] = {}
"""The schema that every JSON value satisfies."""

# one space after separators and no other: small models otherwise like to indent for ever
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

MAX_SCHEMA_KEYS, MAX_SCHEMA_ITEMS = 2000, 20_000
"""Of all objects and of all lists of a schema; its compiling takes the square of the first, while
nothing else is computed. llguidance follows some 700 properties of one object at most."""
MAX_SCHEMA_BYTES = 1 << 18
MAX_PROBLEM_CHARS = 300

_llg_tokenizers: "weakref.WeakKeyDictionary[Tokenizer, LLTokenizer]" = weakref.WeakKeyDictionary()


class _Vocabulary:
    """Our tokenizer as llguidance wants one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        end = tokenizer.eos_id if tokenizer.eos_id is not None else min(tokenizer.eog_ids)
        self.eos_token_id = end
        self.bos_token_id = tokenizer.bos_id
        special = set(tokenizer.special_tokens.values()) | tokenizer.eog_ids
        self.special_token_ids = sorted(special)
        self.tokens = [
            # 0xFF marks what is no text: control tokens, and ids without bytes
            b""
            if i not in special and not (raw := tokenizer.token_bytes(i))
            else (b"\xff[%d]" % i if i in special else raw)
            for i in range(tokenizer.vocab_size)
        ]
        self._tokenizer = tokenizer

    def __call__(self, text: str | bytes) -> list[int]:
        plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return self._tokenizer.encode(plain)


def _llg_tokenizer(tokenizer: Tokenizer) -> "LLTokenizer":
    found = _llg_tokenizers.get(tokenizer)
    if found is None:
        from llguidance import LLTokenizer, TokenizerWrapper

        if tokenizer.eos_id is None and not tokenizer.eog_ids:
            raise GrammarError(
                _("this model has no end token, so an answer's format cannot be kept")
            )
        found = LLTokenizer(
            TokenizerWrapper(_Vocabulary(tokenizer)), eos_token=sorted(tokenizer.eog_ids) or None
        )
        _llg_tokenizers[tokenizer] = found
    return found


def _check_size(schema: dict[str, Any], text: str) -> None:
    """Refuse what would take too long to compile.

    Raises:
        ValueError: the schema is too large.
    """
    n_keys, n_items, to_do = 0, 0, [schema]
    while to_do:
        each: Any = to_do.pop()
        if isinstance(each, dict):
            n_keys += len(each)
            to_do += each.values()
        elif isinstance(each, list):
            n_items += len(each)
            to_do += each
    if n_keys > MAX_SCHEMA_KEYS or n_items > MAX_SCHEMA_ITEMS or len(text) > MAX_SCHEMA_BYTES:
        raise ValueError(
            f"it has {n_keys} keys, {n_items} items and {len(text)} bytes; at most "
            f"{MAX_SCHEMA_KEYS}, {MAX_SCHEMA_ITEMS} and {MAX_SCHEMA_BYTES} are allowed"
        )


def _brief(problem: object) -> str:
    """What llguidance says, without its state and the schema again."""
    return str(problem).partition("\n")[0][:MAX_PROBLEM_CHARS]


class Constraint:
    """What an answer may still become.

    Args:
        grammar: "json" for any JSON value, or a JSON schema.

    Raises:
        GrammarError: the schema is wrong, or uses what llguidance does not support.
    """

    def __init__(self, tokenizer: Tokenizer, grammar: str | dict[str, Any]) -> None:
        from llguidance import LLMatcher

        schema = ANY_JSON if grammar == "json" else grammar
        if not isinstance(schema, dict):
            raise GrammarError(
                _("the format is {format!r}; it can be json, or a JSON schema").format(
                    format=grammar
                )
            )
        llg = _llg_tokenizer(tokenizer)
        try:
            text = json.dumps(schema)
            _check_size(schema, text)
            source = LLMatcher.grammar_from_json_schema(text, overrides=_LAYOUT)
        except (ValueError, RecursionError) as problem:
            raise GrammarError(
                _("the JSON schema cannot be used: {problem}").format(problem=_brief(problem))
            ) from problem
        self._matcher = LLMatcher(llg, source, log_level=0)
        if self._matcher.is_error():
            raise GrammarError(
                _("the JSON schema cannot be used: {problem}").format(
                    problem=_brief(self._matcher.get_error())
                )
            )

    def mask(self, scores: npt.NDArray[np.float32]) -> None:
        """Set what must not come next to -inf, in place. scores: (vocab_size,) f32.

        Raises:
            GrammarError: the grammar became too complex to follow.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise GrammarError(
                _("the format cannot be followed: {problem}").format(
                    problem=_brief(self._matcher.get_error())
                )
            )
        allowed = np.unpackbits(bits, bitorder="little")[: len(scores)].astype(bool)
        # rows of the embedding past the vocabulary are padding and never allowed
        scores[: len(allowed)][~allowed] = -np.inf
        scores[len(allowed) :] = -np.inf

    def accept(self, token: int) -> None:
        """Note the token that was chosen.

        Raises:
            GrammarError: the grammar does not allow it.
        """
        if not self._matcher.consume_token(token):
            raise GrammarError(
                f"token {token} breaks the format: {_brief(self._matcher.get_error())}"
            )

    @property
    def is_finished(self) -> bool:
        """Whether the value is complete and nothing but the end can follow."""
        return bool(self._matcher.is_stopped())
