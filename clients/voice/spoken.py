"""From written text to what is said: without markup, numbers and abbreviations as words.

Reads a text that is still being written. Owns code blocks, which are announced and not read; where
sentences end is sentences.py's, markup.py takes marks away, english.py and korean.py know words.
"""

import re
from collections.abc import Callable
from typing import Final

from clients.voice.english import say as say_english
from clients.voice.korean import say as say_korean
from clients.voice.markup import plain
from clients.voice.sentences import SentenceStream

_SAY: Final[dict[str, Callable[[str], str]]] = {"en": say_english, "ko": say_korean}
_CODE: Final = {"en": "The code is in the text.", "ko": "코드는 화면에 있어요."}
_FENCE: Final = re.compile(r"\s*(?:[-*+]\s+|\d+[.)]\s+)?(`{3,}|~{3,})(.*)", re.S)
# what may become a fence when more of the line comes
_MAYBE_FENCE: Final = re.compile(r"\s*(?:[-*+](?:\s+|$)|\d+[.)]?(?:\s+|$))?(?:`{0,2}|~{0,2})")
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
_PAUSE: Final = tuple(".!?,;:…。！？，、")


def spoken(text: str, language: str) -> str:
    """All that is said of `text`, as one line.

    Args:
        language: "en", "ko", or any other, whose numbers are left to the voice.
    """
    stream = SpokenText(language)
    return " ".join(stream.feed(text) + stream.finish())


def _opens(line: str) -> bool:
    """Whether a whole line opens a code block; ```code``` on one line does not."""
    found = _FENCE.match(line)
    return found is not None and not (found[1][0] == "`" and "`" in found[2])


class SpokenText:
    """Cuts a text that arrives in pieces into what can be said, sentence by sentence."""

    def __init__(self, language: str) -> None:
        self._language = language.replace("_", "-").partition("-")[0].casefold()
        self._sentences = SentenceStream()
        self._line = ""  # what has come of a line that may open or close a code block
        self._inside = False  # of a line that is known to be text
        self._fence = ""  # what opened the code block that the text is in

    def feed(self, piece: str) -> list[str]:
        """What can be said after `piece` of text; sentences without words are left out."""
        out: list[str] = []
        for part in _LINE.findall(piece):
            self._line += part
            out += self._take(part.endswith("\n"))
        return out

    def finish(self) -> list[str]:
        """What is left to say, at the text's end; the stream can then be used again."""
        out: list[str] = []
        if self._line and not self._fence:
            out = self._opened() if _opens(self._line) else self._said(self._line)
        out += self._say(self._sentences.finish())
        self._line, self._inside, self._fence = "", False, ""
        return out

    def _take(self, ended: bool) -> list[str]:
        """Deal with the line, or as much of it as can be told yet."""
        line = self._line
        if self._fence:
            if ended:
                self._line = ""
                if line.strip().startswith(self._fence) and not line.strip().strip(self._fence[0]):
                    self._fence = ""
            return []
        if not self._inside:
            found = _FENCE.match(line)
            if found and not ended:
                return []
            if found and _opens(line):
                self._fence, self._line = found[1], ""
                return self._opened()
            if not found and not ended and _MAYBE_FENCE.fullmatch(line):
                return []
        self._line, self._inside = "", not ended
        return self._said(line)

    def _opened(self) -> list[str]:
        phrase = _CODE.get(self._language)
        return self._say(self._sentences.finish()) + ([phrase] if phrase else [])

    def _said(self, text: str) -> list[str]:
        return self._say(self._sentences.feed(text))

    def _say(self, pieces: list[str]) -> list[str]:
        """Each piece as it is said; the voice falls at the end even where no full stop is."""
        say = _SAY.get(self._language)
        out = []
        for piece in pieces:
            words = plain(piece)
            if say is not None:
                words = say(words)
            if words:
                open_ended = not words.rstrip("'\")]}’”»」』）》】").endswith(_PAUSE)
                out.append(words + "." if open_ended else words)
        return out
