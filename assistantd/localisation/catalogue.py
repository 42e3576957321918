"""Which language the user wants, and the messages of a package in it; English needs no catalogue.

Nothing calls setlocale: numbers and what others print stay as they are, and the language works
even where the system does not have that locale installed.
"""

import functools
import os
from collections.abc import Mapping
from gettext import NullTranslations
from pathlib import Path


def wanted_languages(environ: Mapping[str, str]) -> list[str]:
    """Languages other than English that the user prefers to it, the best first.

    Read as gettext does: LANGUAGE may name several, else the first of LC_ALL, LC_MESSAGES and LANG
    that is set counts. A locale of C or POSIX is what scripts set to have English, so LANGUAGE
    does not change that.
    """
    settings = (environ.get(name, "") for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    locale = next(filter(None, settings), "")
    if locale in ("C", "POSIX"):
        return []
    found: list[str] = []
    for language in (environ.get("LANGUAGE") or locale).split(":"):
        if language.partition(".")[0].partition("_")[0] in ("en", "C", "POSIX"):
            break
        if language:
            found.append(language)
    return found


class Catalogue:
    """The messages of one package: FOLDER/LANGUAGE/LC_MESSAGES/DOMAIN.mo.

    The language is decided when the first message is needed, once for the process; until then
    nothing is read.
    """

    def __init__(self, domain: str, folder: Path) -> None:
        self.domain, self.folder = domain, folder

    @functools.cached_property
    def _translations(self) -> NullTranslations:
        languages = wanted_languages(os.environ)
        if not languages:
            return NullTranslations()
        import gettext

        # a language without a catalogue is answered in English; a damaged catalogue raises
        return gettext.translation(self.domain, self.folder, languages, fallback=True)

    def gettext(self, message: str) -> str:
        """`message` in the user's language."""
        return self._translations.gettext(message)

    def ngettext(self, singular: str, plural: str, n: int) -> str:
        """The form for `n` of them, in the user's language."""
        return self._translations.ngettext(singular, plural, n)

    def use_english(self) -> None:
        """From now on leave messages as they are, for output that programs read."""
        self.__dict__["_translations"] = NullTranslations()

    @property
    def is_english(self) -> bool:
        """Whether messages are left as they are."""
        return type(self._translations) is NullTranslations


def marked(message: str) -> str:
    """`message` itself: marks a text of a table, which is translated when it is shown."""
    return message
