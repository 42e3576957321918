"""click in the user's language: the help texts of our commands, and click's own words.

Help is written in English where a command is defined, as docstrings and `help=`; it is translated
here when a command is about to be used, so that definitions stay as click wants them.
"""

import gettext
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from assistantd.localisation.catalogue import Catalogue
from assistantd.localisation.width import is_wide

CLICK = Catalogue("click", Path(__file__).parent / "locale")
_FILLER = "\ue000"
"""A letter of the private use area, which no text has."""
_AS_IT_IS = "\b\n"
"""Before a paragraph whose lines click leaves alone."""


def localise(command: click.Command, catalogue: Catalogue) -> None:
    """Translate the help of a command and of those below it, in place; and what click says."""
    if catalogue.is_english:
        return
    # click asks the standard gettext, which looks for the languages by itself
    gettext.bindtextdomain(CLICK.domain, CLICK.folder)
    gettext.textdomain(CLICK.domain)
    click.Context.formatter_class = WideFormatter
    for owner, name in help_texts(command):
        paragraphs = split(getattr(owner, name))
        translated = (mark + catalogue.gettext(text) for mark, text in paragraphs)
        setattr(owner, name, "\n\n".join(translated))


def help_texts(command: click.Command) -> Iterator[tuple[click.Command | click.Option, str]]:
    """What has a text for people, of a command and of those below it, and its attribute."""
    owners: list[tuple[click.Command | click.Option, tuple[str, ...]]] = [
        (command, ("help", "epilog", "short_help"))
    ]
    owners += [(param, ("help",)) for param in command.params if isinstance(param, click.Option)]
    for owner, names in owners:
        yield from ((owner, name) for name in names if getattr(owner, name))
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from help_texts(below)


def split(text: str) -> list[tuple[str, str]]:
    """A help text's paragraphs, each a message of its own, with click's mark before it if any.

    Lines of a paragraph are joined, as click does when it wraps them: where they were broken in
    the source is no matter of the translation. Paragraphs marked with \\b keep their lines.
    """
    found = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        mark = _AS_IT_IS if paragraph.startswith(_AS_IT_IS) else ""
        body = paragraph.removeprefix(mark)
        found.append((mark, body if mark else " ".join(body.split())))
    return found


class WideFormatter(click.HelpFormatter):
    """click's help where letters may take two columns.

    click counts letters. So each wide one gets a filler behind it until the lines are made.
    """

    def write_text(self, text: str) -> None:
        """A paragraph."""
        super().write_text(_filled(text))

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """A list of terms and what they mean."""
        wide = [(_filled(term), _filled(meaning)) for term, meaning in rows]
        super().write_dl(wide, col_max, col_spacing)

    def getvalue(self) -> str:
        """The whole text."""
        return super().getvalue().replace(_FILLER, "")


def _filled(text: str) -> str:
    if text.isascii():
        return text
    return "".join(letter + _FILLER if is_wide(letter) else letter for letter in text)
