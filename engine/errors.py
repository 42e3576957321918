"""Every error the engine raises on purpose, as one tree.

EngineError
├── ModelFormatError      the file is not a GGUF we can trust (damaged, hostile, truncated)
├── UnsupportedModelError the file is sound, but the engine lacks its architecture or tensor type
├── TemplateError         the model's chat template failed, or refused the messages
├── GrammarError          the requested output format is not a usable JSON schema
├── PromptTooLongError    prompt (+ at least one token) does not fit the context
├── OutOfCacheError       no KV page is free
├── OverBudgetError       the model does not fit the memory budget
└── ReadError             the model's file could not be read while it was in use
    └── FileChangedError  it was cut off or written to; what was computed with it is of no use
"""

from engine.i18n import _


class EngineError(Exception):
    """Base class; its text is a sentence that may be shown to a user."""


class ModelFormatError(EngineError):
    """The model file is damaged, truncated or hostile."""


class UnsupportedModelError(EngineError):
    """The model file is sound but needs something this engine does not implement."""


class TemplateError(EngineError):
    """The model's chat template could not be rendered."""


class GrammarError(EngineError):
    """The requested output format cannot be compiled to a grammar."""


class PromptTooLongError(EngineError):
    """The prompt does not fit the model's context.

    Attributes:
        n_tokens: tokens in the prompt, or, with at_least, not more than there are.
        limit: the largest prompt that would have fitted, in tokens.
    """

    def __init__(self, n_tokens: int, limit: int, *, at_least: bool = False) -> None:
        text = _(
            "the prompt has {n} tokens and at most {limit} fit; shorten it, or start a new session"
        )
        if at_least:
            text = _("the prompt has more than {n} tokens and at most {limit} fit; shorten it")
        super().__init__(text.format(n=n_tokens, limit=limit))
        self.n_tokens = n_tokens
        self.limit = limit


class OutOfCacheError(EngineError):
    """No KV page is free; the caller waits or evicts a sequence."""


class ReadError(EngineError):
    """The model's file could not be read while it was in use."""


class FileChangedError(ReadError):
    """The model's file was cut off or written to while it was in use; load it again."""


class OverBudgetError(EngineError):
    """A model, or what is running of it, does not fit the memory budget.

    Attributes:
        budget, smallest: in bytes, what there is, and what would do.
    """

    def __init__(self, budget: int, smallest: int) -> None:
        needed = -(-smallest // 2**20)
        super().__init__(
            _(
                "it does not fit a memory budget of {budget:.0f}M; "
                "the smallest that would do is {smallest}M"
            ).format(budget=budget / 2**20, smallest=needed)
        )
        self.budget, self.smallest = budget, needed * 2**20
