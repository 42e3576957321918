"""Messages of the engine: `_("...")`, in English unless whoever uses the engine translates them.

The engine knows no languages; assistantd does, and gives it a function.
"""

from collections.abc import Callable


def _as_it_is(message: str) -> str:
    return message


_translate: Callable[[str], str] = _as_it_is


def use(translate: Callable[[str], str]) -> None:
    """From now on messages are what `translate` makes of them."""
    global _translate
    _translate = translate


def _(message: str) -> str:
    """`message` in the user's language."""
    return _translate(message)
