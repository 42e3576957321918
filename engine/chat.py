"""Messages to a prompt: the chat template of a GGUF, or the Alpaca format for models without one.

Owns: rendering, and that a message cannot leave its place in the prompt. Leaves to others: what
the special tokens are (tokenizer/), and cutting an answer at a stop string (stops.py).

A template is a program from the model file, so it is untrusted: it runs in a sandbox that bounds
its time, its memory and its output (sandbox.py). What people wrote is untrusted in another way: it
goes through `Tokenizer.protect` first, so `<|im_end|>` in a message stays text (see
tokenizer/special.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import jinja2
from jinja2.exceptions import SecurityError

from engine.errors import ModelFormatError, TemplateError
from engine.i18n import _
from engine.sandbox import Environment, RefusedError
from engine.tokenizer import Tokenizer, unprotect

TEMPLATE_KEY: Final = "tokenizer.chat_template"
MAX_TEMPLATE_CHARS: Final = 1 << 17
"""The longest of today have a fifth of that."""
MAX_PROMPT_CHARS: Final = 1 << 24
MAX_PROBLEM_CHARS: Final = 300
"""Of what a template says of its failure."""

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
        self._environment = Environment()
        self._template = None if template is None else _compile(self._environment, template)

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
        except RefusedError as error:
            merged = _merge_system(safe)
            if merged is None:
                raise TemplateError(
                    _("the model refuses these messages: {problem}").format(problem=_reason(error))
                ) from error
        try:
            return self._run(self._template, merged, add_generation_prompt)
        except RefusedError as error:
            raise TemplateError(
                _("the model refuses these messages: {problem}").format(problem=_reason(error))
            ) from error

    def _run(
        self, template: jinja2.Template, messages: list[dict[str, str]], add_generation_prompt: bool
    ) -> str:
        pieces, n_chars = [], 0
        self._environment.begin()
        try:
            for piece in template.generate(
                {
                    "messages": messages,
                    "add_generation_prompt": add_generation_prompt,
                    "bos_token": self._text_of(self._tokenizer.bos_id),
                    "eos_token": self._text_of(self._tokenizer.eos_id),
                    "tools": None,
                    "documents": None,
                }
            ):
                n_chars += len(piece)
                if n_chars > MAX_PROMPT_CHARS:
                    raise SecurityError(f"its output is longer than {MAX_PROMPT_CHARS} characters")
                pieces.append(piece)
        except RefusedError:
            raise
        except Exception as error:  # a program of somebody else: it may raise anything
            raise TemplateError(
                _(
                    "the model's chat template failed: {problem}; "
                    "ask without a template (`complete`), or use another model file"
                ).format(problem=_brief(error))
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
                _(
                    "the model has no chat template, and the Alpaca format has no role {role!r} "
                    "here; use one system message at the start, then user and assistant"
                ).format(role=role)
            )
        blocks.append(_ALPACA_HEADINGS[role] + message.get("content", "").strip())
    if add_generation_prompt:
        blocks.append(_ALPACA_HEADINGS["assistant"])
    return "\n\n".join(blocks)


def _compile(environment: Environment, template: str) -> jinja2.Template:
    if len(template) > MAX_TEMPLATE_CHARS:
        raise TemplateError(
            _("the model's chat template has {n} characters, at most {limit} are allowed").format(
                n=len(template), limit=MAX_TEMPLATE_CHARS
            )
        )
    try:
        environment.begin()
        return environment.from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(
            _(
                "the model's chat template is not valid Jinja: line {n}: {problem}; "
                "use another model file"
            ).format(n=error.lineno, problem=_reason(error))
        ) from error
    except Exception as error:
        # Python's own compiler may give up on what Jinja made of it, in many ways
        raise TemplateError(
            _(
                "the model's chat template cannot be compiled: {problem}; use another model file"
            ).format(problem=_brief(error))
        ) from error


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {_reason(error)}"


def _reason(error: Exception) -> str:
    """What an error says, as far as it can be shown: it may hold what the template made."""
    text = unprotect(str(error))[:MAX_PROBLEM_CHARS]
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
