"""What OpenAI's clients ask, as a request of the protocol.

Fields that only decorate (user, metadata, store, …) are ignored. Those that would change what comes
back and are not done here (n, tools, logprobs, images, …) are refused by name: a client that got
something else without a word would be worse off.
"""

import re
from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec import Struct

from assistantd.protocol import Chat, Complete, Message
from clients.i18n import _
from clients.web.openai_errors import wrong

T = TypeVar("T")

_PLACE: Final = re.compile(r" - at `\$\.?([A-Za-z_]+)")
_ROLES: Final[dict[str, Literal["system", "user", "assistant"]]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_SMALLEST_TOP_P: Final = 1e-6


class _ContentPart(Struct):
    type: str
    text: str | None = None


class _Message(Struct):
    role: str
    content: str | list[_ContentPart] | None = None
    tool_calls: list[Any] | None = None


class _SchemaFormat(Struct):
    schema: dict[str, Any] | None = None


class _Format(Struct):
    type: str
    json_schema: _SchemaFormat | None = None


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Common(Struct, kw_only=True):
    """Fields of both endpoints. None and absent are the same, as OpenAI has it."""

    model: str = ""
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    n: int | None = None
    # not OpenAI's, but sent by many programs for local models
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None


class ChatBody(_Common, kw_only=True):
    """Of POST /v1/chat/completions."""

    messages: list[_Message] = []
    max_completion_tokens: int | None = None
    response_format: _Format | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    logprobs: bool | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None


class CompletionBody(_Common, kw_only=True):
    """Of POST /v1/completions."""

    prompt: str | list[Any] | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: int | None = None


def decode(body: bytes, kind: type[T]) -> T:
    """Raises Refusal, with the field that is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        place = _PLACE.search(str(error))
        raise wrong(str(error), place[1] if place else None) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise wrong(_("the body is no JSON: {problem}").format(problem=error)) from error


def chat_of(body: ChatBody, device: str) -> Chat:
    """The request to ask. Raises Refusal."""
    _refuse_if(body.tools or body.functions, "tools")
    _refuse_if(body.logprobs, "logprobs")
    _refuse_if(body.audio or "audio" in (body.modalities or []), "modalities")
    if not body.messages:
        raise wrong(_("`messages` is missing"), "messages")
    messages = [_message(one, i) for i, one in enumerate(body.messages)]
    if messages[-1].role != "user":
        raise wrong(_("the last of `messages` must have the role user"), "messages")
    fields = _sampling(body)
    if body.max_completion_tokens is not None:
        fields["max_tokens"] = body.max_completion_tokens
    if body.response_format is not None:
        fields["format"] = _format(body.response_format)
    return _checked(Chat, {"messages": messages, "device": device, **fields})


def complete_of(body: CompletionBody, device: str) -> Complete:
    """The request to ask. Raises Refusal."""
    _refuse_if(body.echo, "echo")
    _refuse_if(body.suffix, "suffix")
    _refuse_if(body.logprobs, "logprobs")
    _refuse_if((body.best_of or 1) > 1, "best_of")
    prompt = body.prompt
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise wrong(_("`prompt` must be one text"), "prompt")
    return _checked(Complete, {"prompt": prompt, "device": device, **_sampling(body)})


def _message(message: _Message, index: int) -> Message:
    place = f"messages[{index}]"
    role = _ROLES.get(message.role)
    if role is None:
        raise wrong(
            _("messages of the role {role!r} are not understood here").format(role=message.role),
            f"{place}.role",
        )
    _refuse_if(message.tool_calls, f"{place}.tool_calls")
    content = message.content
    if isinstance(content, list):
        for part in content:
            if part.type not in ("text", "input_text") or part.text is None:
                raise wrong(
                    _("only text is understood here, not {kind!r}").format(kind=part.type),
                    f"{place}.content",
                )
        content = "".join(part.text or "" for part in content)
    return Message(role=role, content=content or "")


def _sampling(body: _Common) -> dict[str, Any]:
    if body.n is not None and body.n != 1:
        raise wrong(_("one answer is given at a time; leave out `n`, or ask several times"), "n")
    fields: dict[str, Any] = {
        name: value
        for name in (
            "max_tokens",
            "temperature",
            "presence_penalty",
            "frequency_penalty",
            "logit_bias",
            "top_k",
            "min_p",
            "repeat_penalty",
        )
        if (value := getattr(body, name)) is not None
    }
    if body.top_p is not None:
        # OpenAI takes 0, which means the likeliest token only
        fields["top_p"] = max(body.top_p, _SMALLEST_TOP_P) if body.top_p >= 0 else body.top_p
    if body.seed is not None:
        fields["seed"] = body.seed & (2**63 - 1)  # OpenAI takes negative ones
    if body.stop is not None:
        stop = [body.stop] if isinstance(body.stop, str) else body.stop
        fields["stop"] = [text for text in stop if text]
    return fields


def _format(given: _Format) -> str | dict[str, Any]:
    if given.type == "text":
        return "text"
    if given.type == "json_object":
        return {"type": "object"}
    if given.type == "json_schema":
        if given.json_schema is None or given.json_schema.schema is None:
            raise wrong(_("`json_schema` needs a `schema`"), "response_format")
        return given.json_schema.schema
    raise wrong(
        _("the format {kind!r} is not known here").format(kind=given.type), "response_format"
    )


def _refuse_if(given: Any, name: str) -> None:
    if given:
        raise wrong(_("`{name}` is not possible here; leave it out").format(name=name), name)


def _checked(kind: type[T], values: dict[str, Any]) -> T:
    """A request within the protocol's bounds. Raises Refusal."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        place = _PLACE.search(str(error))
        raise wrong(str(error), place[1] if place else None) from error
