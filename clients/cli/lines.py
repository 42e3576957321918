"""Where the chat's input comes from: an editor on a terminal, plain lines otherwise.

An input is one line, or several: a line that ends in a backslash goes on, and so does
everything between two lines of triple quotes.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from clients.cli.history import history_path
from clients.i18n import _

if TYPE_CHECKING:
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

QUOTES = '"""'


class Input(Protocol):
    """One input at a time."""

    def read(self) -> str:
        """The next input.

        Raises:
            EOFError: there are no more.
            KeyboardInterrupt: Ctrl-C; what was typed is dropped.
        """


def is_incomplete(text: str) -> bool:
    """Whether `text` asks for another line: an open block of quotes, or a backslash at its end."""
    if text.lstrip().startswith(QUOTES):
        opened = text.lstrip()[len(QUOTES) :]
        return QUOTES not in opened
    return text.endswith("\\")


def unwrapped(text: str) -> str:
    """`text` without the marks that made it span lines."""
    stripped = text.strip()
    if stripped.startswith(QUOTES):
        inside, _, after = stripped[len(QUOTES) :].partition(QUOTES)
        return (inside.strip("\n") + after).strip()
    return stripped.replace("\\\n", "\n")


class PlainInput:
    """Lines of a pipe or a file, without prompts."""

    def __init__(self, stream: Iterable[str]) -> None:
        self._lines: Iterator[str] = iter(stream)

    def read(self) -> str:
        """The next input; an unfinished one at the end of the stream counts as it is."""
        text = next(self._lines, None)
        if text is None:
            raise EOFError
        text = text.rstrip("\r\n")
        while is_incomplete(text):
            line = next(self._lines, None)
            if line is None:
                break
            text += "\n" + line.rstrip("\r\n")
        return unwrapped(text)


class TerminalInput:
    """prompt_toolkit's editor: history in a file, Esc-Enter for a new line.

    Args:
        words: completes slash commands.
    """

    def __init__(self, words: list[str]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import FileHistory

        self._session: PromptSession[str] = PromptSession(
            history=FileHistory(str(_history_file())),
            auto_suggest=AutoSuggestFromHistory(),
            completer=WordCompleter(words, sentence=True),
            complete_while_typing=False,
            key_bindings=_bindings(),
            multiline=True,
            prompt_continuation=lambda width, line, is_soft: "." * (width - 1) + " ",
        )

    def read(self) -> str:
        """Let the user type."""
        return unwrapped(self._session.prompt(_("you> ")))


def _bindings() -> "KeyBindings":
    from prompt_toolkit.key_binding import KeyBindings

    bindings = KeyBindings()

    @bindings.add("enter")
    def enter(event: "KeyPressEvent") -> None:
        buffer = event.current_buffer
        # only at the end: Enter in the middle of a text that is being corrected sends it
        if is_incomplete(buffer.text) and not buffer.document.text_after_cursor:
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def new_line(event: "KeyPressEvent") -> None:
        event.current_buffer.insert_text("\n")

    return bindings


def _history_file() -> Path:
    """What was typed before; readable by its owner only."""
    path = history_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    return path


def for_stdin(words: Callable[[], list[str]]) -> Input:
    """The right one of the two."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        return TerminalInput(words())
    return PlainInput(sys.stdin)
