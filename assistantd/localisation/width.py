"""How many columns of a terminal a text takes: letters of Hangul, Kana and Han take two.

Plain ASCII, which is most of what is printed, is not looked at letter by letter.
"""

import re
import textwrap
from unicodedata import category, east_asian_width


def columns(text: str) -> int:
    """Columns that `text` takes."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(letter: str) -> int:
    if category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if is_wide(letter) else 1


def is_wide(letter: str) -> bool:
    """Whether a letter takes two columns."""
    return east_asian_width(letter) in ("W", "F")


def padded(text: str, width: int) -> str:
    """`text` with spaces behind it up to `width` columns."""
    return text + " " * (width - columns(text))


def cut(text: str, width: int) -> str:
    """As much of the beginning of `text` as fits in `width` columns."""
    if text.isascii():
        return text[:width]
    used = 0
    for i, letter in enumerate(text):
        used += _columns_of(letter)
        if used > width:
            return text[:i]
    return text


def folded(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at spaces; a longer word stays in one piece."""
    if text.isascii():
        lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        return lines or [""]
    lines = [""]
    for space, word in re.findall(r"(\s*)(\S+)", text):
        if not lines[-1] or columns(lines[-1] + space + word) <= width:
            lines[-1] += (space if lines[-1] else "") + word
        else:
            lines.append(word)
    return lines
