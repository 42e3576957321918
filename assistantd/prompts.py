"""From a conversation to the tokens of a prompt that fits the model's context.

When a conversation has grown too long its oldest turns are left out: the system prompt and the
recent turns stay. More is left out than must be, and from then on the same, so that following
turns find their beginning in the KV cache instead of sliding by a message each time.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from engine.errors import PromptTooLongError

ANSWER_SHARE = 0.25
"""Share of the context that is kept for the answer, at most…"""
ANSWER_TOKENS = 512
"""… and this many tokens at most."""
KEEP_SHARE = 0.6
"""What the prompt is cut down to, as a share of its limit, when it has outgrown it."""

Message = Mapping[str, str]


class Encoder(Protocol):
    """A chat template with its tokenizer."""

    def encode(self, messages: list[dict[str, str]]) -> list[int]: ...


def prompt_limit(context_length: int) -> int:
    """The most tokens of a prompt, so that an answer still fits."""
    return context_length - min(ANSWER_TOKENS, int(context_length * ANSWER_SHARE))


def fit(
    chat: Encoder,
    system: str | None,
    history: Sequence[Message],
    text: str,
    context_length: int,
    first_kept: int = 0,
) -> tuple[list[int], int]:
    """Tokens of the prompt, and the index of the first message of the history that is in it.

    Args:
        history: answered messages, oldest first; user and assistant in turn.
        first_kept: where an earlier cut was made; nothing before it comes back.

    Raises:
        PromptTooLongError: system prompt and new message alone do not fit.
        EngineError: the template failed.
    """
    limit = prompt_limit(context_length)

    def encode(first: int) -> list[int]:
        head = [{"role": "system", "content": system}] if system else []
        kept = [dict(message) for message in history[first:]]
        return chat.encode([*head, *kept, {"role": "user", "content": text}])

    first = first_kept if first_kept <= len(history) else 0
    ids = encode(first)
    if len(ids) <= limit:
        return ids, first
    while len(ids) > KEEP_SHARE * limit and first < len(history):
        # guess from the lengths, then look: messages are not all alike
        share = 1 - KEEP_SHARE * limit / len(ids)
        first = min(len(history), first + max(2, int(share * (len(history) - first)) // 2 * 2))
        while first < len(history) and history[first]["role"] != "user":
            first += 1
        ids = encode(first)
    if len(ids) >= context_length:
        raise PromptTooLongError(len(ids), limit)
    return ids, first
