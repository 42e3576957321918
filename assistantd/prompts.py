"""From a conversation to the tokens of a prompt that fits the model's context.

When a conversation has grown too long its oldest turns are left out: the system prompt and the
recent turns stay. More is left out than must be, and from then on the same, so that following
turns find their beginning in the KV cache instead of sliding by a message each time.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from assistantd.config import Config
from assistantd.i18n import ngettext
from assistantd.jobs import Job
from assistantd.protocol import Chat, Complete, Progress
from engine.errors import PromptTooLongError

if TYPE_CHECKING:
    from engine.generate import Engine
    from engine.sampler import SamplingParams

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


class Prompts:
    """What requests ask for, in the engine's terms."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._first_kept: dict[str, int] = {}  # session → where its history was cut

    def configure(self, config: Config) -> None:
        """Complete requests from these settings from now on."""
        self._config = config

    def forget(self) -> None:
        """Another model has another context: cut anew."""
        self._first_kept.clear()

    def encode(self, job: Job, engine: "Engine") -> list[int]:
        """Tokens of a job's prompt; of a job in a session, its turn must be stored.

        Raises:
            PromptTooLongError: the system prompt and the new message do not fit the context.
            EngineError: the chat template failed.
        """
        request = job.request
        _refuse_the_endless(request, self._config.chat.system, engine)
        if isinstance(request, Complete):
            tokenizer = engine.tokenizer
            ids = tokenizer.encode(request.prompt, add_bos=tokenizer.add_bos)
            return ids or [tokenizer.bos_id if tokenizer.bos_id is not None else 0]
        default_system = self._config.chat.system or None
        if request.messages is not None:
            messages = [{"role": m.role, "content": m.content} for m in request.messages]
            system = request.system or default_system
            if system and messages[0]["role"] != "system":
                messages.insert(0, {"role": "system", "content": system})
            return engine.chat.encode(messages)
        assert request.text is not None
        if request.session is None:
            system = request.system or default_system
            return fit(engine.chat, system, [], request.text, engine.context_length)[0]
        assert job.turn is not None
        session, text, turn = request.session, request.text, job.turn.result()
        before = self._first_kept.get(session, 0)
        ids, first = fit(
            engine.chat,
            turn.system or default_system,
            turn.history,
            text,
            engine.context_length,
            before,
        )
        if first != before:
            self._first_kept[session] = first
            note = ngettext(
                "the conversation outgrew the context: its first {n} message is left out",
                "the conversation outgrew the context: its first {n} messages are left out",
                first,
            )
            job.reply(Progress("prefill", note.format(n=first)))
        return ids

    def sampling(self, request: Chat | Complete, engine: "Engine") -> "SamplingParams":
        """What the request says about sampling, completed from the configuration."""
        from engine.sampler import SamplingParams

        defaults = self._config.sampling

        def pick(name: str) -> float:
            value = getattr(request, name)
            return getattr(defaults, name) if value is None else value  # type: ignore[no-any-return]

        stops = engine.chat.stop_strings if isinstance(request, Chat) else ()
        return SamplingParams(
            max_tokens=int(pick("max_tokens")),
            temperature=pick("temperature"),
            top_k=int(pick("top_k")),
            top_p=pick("top_p"),
            min_p=pick("min_p"),
            repeat_penalty=pick("repeat_penalty"),
            presence_penalty=request.presence_penalty or 0.0,
            frequency_penalty=request.frequency_penalty or 0.0,
            seed=request.seed,
            stop=(*request.stop, *stops),
            logit_bias={int(k): v for k, v in (request.logit_bias or {}).items()},
            grammar=None if request.format == "text" else request.format,
        )


def _refuse_the_endless(request: Chat | Complete, default_system: str, engine: "Engine") -> None:
    """Megabytes take seconds to encode, in which nobody else is answered.

    Raises PromptTooLongError: what was sent cannot fit the context.
    """
    limit = engine.context_length - 1
    if isinstance(request, Complete):
        texts = [request.prompt]
    else:
        texts = [request.system or default_system, request.text or ""]
        # a template may leave out what the assistant has said, as thoughts
        texts += [m.content for m in request.messages or [] if m.role != "assistant"]
        if request.messages is None:
            limit = prompt_limit(engine.context_length)
    least = sum(map(engine.tokenizer.least_tokens, texts))
    if least >= engine.context_length:
        raise PromptTooLongError(least - 1, limit, at_least=True)
