"""Every error the engine raises on purpose, as one tree.

EngineError
├── ModelFormatError      the file is not a GGUF we can trust (damaged, hostile, truncated)
├── UnsupportedModelError the file is sound, but the engine lacks its architecture or tensor type
├── TemplateError         the model's chat template failed, or refused the messages
├── GrammarError          the requested output format is not a usable JSON schema
├── PromptTooLongError    prompt (+ at least one token) does not fit the context
└── OutOfCacheError       no KV page is free
"""


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
        n_tokens: tokens in the prompt.
        limit: the largest prompt that would have fitted, in tokens.
    """

    def __init__(self, n_tokens: int, limit: int) -> None:
        super().__init__(
            f"the prompt has {n_tokens} tokens and at most {limit} fit; "
            "shorten it, or start a new session"
        )
        self.n_tokens = n_tokens
        self.limit = limit


class OutOfCacheError(EngineError):
    """No KV page is free; the caller waits or evicts a sequence."""
