"""The catalogues of all languages: collects the messages of the sources, and compiles.

    make catalogues                  after a message was added or changed, and after translating
    make catalogues CATALOGUE=de     begin German: empty catalogues, to be filled in

A message is `_("…")`, `ngettext("…", "…", n)` or `marked("…")`, or a help text of a click command;
those are read from the commands themselves, paragraph by paragraph as click_help.py translates
them. Places are noted by file and not by line, so that a catalogue changes only when a message
does.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ["LANGUAGE"] = "en"  # before any command is imported: their help texts as written

import click
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir, extract_from_file
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from assistantd.localisation.click_help import CLICK, help_texts, split

ROOT = Path(__file__).resolve().parent.parent
KEYWORDS = {"_": None, "ngettext": (1, 2), "marked": None}
METHODS = [("**.py", "python")]


@dataclass(frozen=True)
class Domain:
    """A catalogue: the messages of one package."""

    name: str
    package: str

    @property
    def folder(self) -> Path:
        """What holds a folder for each language."""
        return ROOT / self.package / "locale"

    def po(self, language: str) -> Path:
        """The catalogue that people edit; what programs read lies beside it."""
        return self.folder / language / "LC_MESSAGES" / f"{self.name}.po"

    def template(self) -> Catalog:
        """The messages of the sources, untranslated."""
        template = Catalog(project="assistantd", version="1", fuzzy=False)
        if self.name == CLICK.domain:
            for message in _messages_of_click():
                template.add(message)
            return template
        for file, _, message, comments, context in extract_from_dir(
            str(ROOT / self.package), METHODS, keywords=KEYWORDS
        ):
            place = (f"{self.package}/{file}", None)
            template.add(message, locations=[place], auto_comments=comments, context=context)
        for place, message in _help(self.name):
            template.add(message, locations=[(place, None)])
        return template


DOMAINS = (
    Domain("assistant", "clients"),
    Domain("assistantd", "assistantd"),
    Domain("engine", "engine"),
    Domain(CLICK.domain, "assistantd/localisation"),
)


def _help(domain: str) -> Iterator[tuple[str, str]]:
    """Help texts that are no call of `_`, and where they are from."""
    commands: list[click.Command] = []
    if domain == "assistant":
        from clients.cli import app, repl

        context = click.Context(app.root)
        found = (app.root.get_command(context, name) for name in app.COMMANDS)
        commands = [app.root, *(command for command in found if command is not None)]
        for slash_command in repl.COMMANDS.values():
            assert slash_command.__doc__ is not None
            yield "clients/cli/repl.py", slash_command.__doc__
    elif domain == "assistantd":
        from assistantd import __main__, bench

        commands = [__main__.command, bench.command]
    for command in commands:
        place = command.callback.__module__ if command.callback else ""
        for owner, name in help_texts(command):
            for _, paragraph in split(getattr(owner, name)):
                yield f"{place.replace('.', '/')}.py", paragraph


def _messages_of_click() -> Iterator[str | tuple[str, str]]:
    """What click itself says, as far as our commands can come to it."""
    assert click.__file__ is not None
    folder = Path(click.__file__).parent
    for name in ("core", "decorators", "exceptions", "formatting", "parser", "termui", "types"):
        for _, message, _, _ in extract_from_file("python", folder / f"{name}.py"):
            if isinstance(message, tuple):
                yield (message[0], message[1])
            else:
                yield message


def languages() -> list[str]:
    """Those that have a catalogue."""
    found = (path for one in DOMAINS for path in one.folder.glob("*/LC_MESSAGES/*.po"))
    return sorted({path.parts[-3] for path in found})


def read(domain: Domain, language: str) -> Catalog:
    """A catalogue as it is on disk; an empty one if there is none."""
    path = domain.po(language)
    if not path.exists():
        return Catalog(locale=language, project="assistantd", version="1", fuzzy=False)
    with path.open("rb") as file:
        return read_po(file, locale=language)


def update(domain: Domain, language: str) -> Catalog:
    """Write a catalogue with the messages as they are now in the sources, and compile it."""
    catalogue = read(domain, language)
    template = domain.template()
    template.creation_date = catalogue.creation_date  # or it would change each time
    if domain.name == CLICK.domain:
        for message in list(catalogue):  # other versions of click may say it in other words
            template.add(message.id)
    catalogue.update(template)
    path = domain.po(language)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_po(file, catalogue, width=100, ignore_obsolete=True, include_lineno=False)
    with path.with_suffix(".mo").open("wb") as file:
        write_mo(file, catalogue)
    return catalogue


def main(asked: list[str]) -> None:
    """Bring the catalogues up to date; says what is left to translate."""
    for language in asked or languages():
        for domain in DOMAINS:
            catalogue = update(domain, language)
            messages = [message for message in catalogue if message.id]
            left = [m for m in messages if m.fuzzy or not all(_strings(m.string))]
            print(f"{domain.po(language).relative_to(ROOT)}: {len(messages)}, {len(left)} to do")


def _strings(string: str | tuple[str, ...]) -> tuple[str, ...]:
    return string if isinstance(string, tuple) else (string,)


if __name__ == "__main__":
    main(sys.argv[1:])
