"""Messages to a prompt: the chat template of a GGUF, or the Alpaca format for models without one.

Owns: rendering, and that a message cannot leave its place in the prompt. Leaves to others: what
the special tokens are (tokenizer/), and cutting an answer at a stop string (stops.py).

A template is a program from the model file, so it is untrusted: it runs in Jinja's sandbox with a
limit on its loops and its output. What people wrote is untrusted in another way: it goes through
`Tokenizer.protect` first, so `<|im_end|>` in a message stays text (see tokenizer/special.py).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.errors import ModelFormatError, TemplateError
from engine.tokenizer import Tokenizer, unprotect

TEMPLATE_KEY: Final = "tokenizer.chat_template"
MAX_TEMPLATE_CHARS: Final = 1 << 20
MAX_PROMPT_CHARS: Final = 1 << 24
MAX_LOOP_STEPS: Final = 1_000_000
"""Loop steps of one rendering; a real template takes a few per message."""
MAX_REPEAT: Final = 1 << 20
"""Items that a multiplication in a template may make of a string or list."""

# https://github.com/tatsu-lab/stanford_alpaca#data-release
ALPACA_SYSTEM: Final = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
_ALPACA_HEADINGS: Final = {"user": "### Instruction:\n", "assistant": "### Response:\n"}
ALPACA_STOPS: Final = ("### Instruction:", "### Response:")

Messages = Sequence[Mapping[str, str]]
"""Each with "role" ("system", "user", "assistant") and "content"."""


class ChatTemplate:
    """How one model wants a conversation to be written.

    Attributes:
        source: "gguf" or "alpaca".
        stop_strings: texts that end an answer besides the model's own end tokens.
    """

    def __init__(self, tokenizer: Tokenizer, template: str | None = None) -> None:
        """`template` is Jinja; None stands for Alpaca.

        Raises:
            TemplateError: the template is not valid Jinja.
        """
        self._tokenizer = tokenizer
        self.source = "alpaca" if template is None else "gguf"
        self.stop_strings: tuple[str, ...] = ALPACA_STOPS if template is None else ()
        self._template = None if template is None else _compile(template)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], tokenizer: Tokenizer) -> "ChatTemplate":
        """The template in a GGUF, or Alpaca if it has none.

        Raises:
            ModelFormatError: the key holds something else than a text.
            TemplateError: the template is not valid Jinja.
        """
        template = metadata.get(TEMPLATE_KEY)
        if template is not None and not isinstance(template, str):
            raise ModelFormatError(
                f"{TEMPLATE_KEY} is a {type(template).__name__}, not a text; "
                "the model file is damaged"
            )
        return cls(tokenizer, template if template and template.strip() else None)

    def encode(self, messages: Messages, *, add_generation_prompt: bool = True) -> list[int]:
        """Token ids of the prompt, with BOS if the model wants one.

        Args:
            messages: roles and contents, the oldest first.
            add_generation_prompt: end with the start of the assistant's next answer.

        Raises:
            TemplateError: the template failed, or refused the messages.
        """
        text = self._render(messages, add_generation_prompt)
        ids = self._tokenizer.encode(text, parse_special=True)
        bos_id = self._tokenizer.bos_id
        # many templates write the BOS token themselves, and a second one confuses the model
        if self._tokenizer.add_bos and bos_id is not None and ids[:1] != [bos_id]:
            ids.insert(0, bos_id)
        return ids

    def render(self, messages: Messages, *, add_generation_prompt: bool = True) -> str:
        """The prompt for people to read. Not for `Tokenizer.encode`: it is not protected."""
        return unprotect(self._render(messages, add_generation_prompt))

    def _render(self, messages: Messages, add_generation_prompt: bool) -> str:
        """The prompt, with everything from the messages protected."""
        safe = [
            {key: self._tokenizer.protect(value) for key, value in message.items()}
            for message in messages
        ]
        if self._template is None:
            return _alpaca(safe, add_generation_prompt)
        try:
            return self._run(self._template, safe, add_generation_prompt)
        except _RefusedError as error:
            merged = _merge_system(safe)
            if merged is None:
                raise TemplateError(f"the model refuses these messages: {error}") from error
        try:
            return self._run(self._template, merged, add_generation_prompt)
        except _RefusedError as error:
            raise TemplateError(f"the model refuses these messages: {error}") from error

    def _run(
        self, template: jinja2.Template, messages: list[dict[str, str]], add_generation_prompt: bool
    ) -> str:
        pieces, n_chars = [], 0
        try:
            for piece in template.generate(
                {
                    "messages": messages,
                    "add_generation_prompt": add_generation_prompt,
                    "bos_token": self._text_of(self._tokenizer.bos_id),
                    "eos_token": self._text_of(self._tokenizer.eos_id),
                    "tools": None,
                    "documents": None,
                    _STEPS: _Steps(MAX_LOOP_STEPS),
                }
            ):
                n_chars += len(piece)
                if n_chars > MAX_PROMPT_CHARS:
                    raise SecurityError(f"its output is longer than {MAX_PROMPT_CHARS} characters")
                pieces.append(piece)
        except _RefusedError:
            raise
        except Exception as error:  # a program of somebody else: it may raise anything
            raise TemplateError(
                f"the model's chat template failed: {type(error).__name__}: {error}; "
                "ask without a template (`complete`), or use another model file"
            ) from error
        return "".join(pieces)

    def _text_of(self, token_id: int | None) -> str:
        """How a template writes this token."""
        if token_id is None:
            return ""
        return self._tokenizer.decode([token_id], skip_special=False)


def _merge_system(messages: list[dict[str, str]]) -> list[dict[str, str]] | None:
    """The same with the system's text at the head of the first user message; None if it cannot."""
    if not messages or messages[0].get("role") != "system":
        return None
    system, *others = messages
    for i, message in enumerate(others):
        if message.get("role") == "user":
            content = f"{system.get('content', '')}\n\n{message.get('content', '')}"
            return [*others[:i], {**message, "content": content}, *others[i + 1 :]]
    return None


def _alpaca(messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    system = ALPACA_SYSTEM
    if messages and messages[0].get("role") == "system":
        system, messages = messages[0].get("content", ""), messages[1:]
    blocks = [system.strip()]
    for message in messages:
        role = message.get("role", "")
        if role not in _ALPACA_HEADINGS:
            raise TemplateError(
                f"the model has no chat template, and the Alpaca format has no role {role!r} here; "
                "use one system message at the start, then user and assistant"
            )
        blocks.append(_ALPACA_HEADINGS[role] + message.get("content", "").strip())
    if add_generation_prompt:
        blocks.append(_ALPACA_HEADINGS["assistant"])
    return "\n\n".join(blocks)


# --- the sandbox ---

_STEPS: Final = "__steps__"
_COUNTED: Final = "__counted__"


class _RefusedError(jinja2.TemplateError):
    """The template called raise_exception."""


class _Steps:
    """Loop steps that one rendering has left; the sandbox hides names with an underscore."""

    def __init__(self, left: int) -> None:
        self._left = left

    def _take(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise SecurityError(f"its loops take more than {MAX_LOOP_STEPS} steps")


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja as Hugging Face sets it up for chat templates, with limits."""

    intercepted_binops = frozenset(["*", "**"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
        )
        self.filters["tojson"] = _to_json
        self.filters[_COUNTED] = _counted
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        """Jinja would print nothing; a template that reaches for internals is not run at all."""
        raise SecurityError(f"it may not use the attribute {attribute!r} of {type(obj).__name__}")

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        """Multiplication and powers, as long as the result is small."""
        numbers = [x for x in (left, right) if isinstance(x, int)]
        sizes = [len(x) for x in (left, right) if isinstance(x, str | list | tuple)]
        if any(abs(x) > 1 << 62 for x in numbers) or (
            (operator == "**" and any(abs(x) > 62 for x in numbers))
            or (sizes and numbers and sizes[0] * numbers[0] > MAX_REPEAT)
        ):
            raise SecurityError(f"the result of {operator} is too large")
        return super().call_binop(context, operator, left, right)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Every loop counts its steps."""
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, _COUNTED, [], [], None, None, lineno=loop.lineno)
        return tree


class _GenerationTag(Extension):
    """`{% generation %}`: marks answers for training, and means nothing here."""

    tags = {"generation"}  # noqa: RUF012 - the type is Jinja's

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@jinja2.pass_context
def _counted(context: jinja2.runtime.Context, items: Iterable[Any]) -> Iterator[Any]:
    # `parent`: what `generate` was given, which a template's own `set` does not change
    steps = context.parent[_STEPS]
    for item in items:
        steps._take()
        yield item


def _raise_exception(message: object = "no reason given") -> None:
    raise _RefusedError(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own would escape for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _compile(template: str) -> jinja2.Template:
    if len(template) > MAX_TEMPLATE_CHARS:
        raise TemplateError(
            f"the model's chat template has {len(template)} characters, "
            f"at most {MAX_TEMPLATE_CHARS} are allowed"
        )
    try:
        return _Environment().from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(
            f"the model's chat template is not valid Jinja: line {error.lineno}: {error.message}; "
            "use another model file"
        ) from error
    except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError) as error:
        # Python's own compiler gives up on what Jinja made of it
        raise TemplateError(
            f"the model's chat template cannot be compiled: {type(error).__name__}: {error}; "
            "use another model file"
        ) from error
