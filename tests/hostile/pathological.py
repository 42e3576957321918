"""Texts that are hard on whoever splits them into tokens."""

import sys
import unicodedata
from functools import cache


@cache
def all_of_unicode() -> str:
    """Every code point that UTF-8 can hold."""
    codes = (code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    return "".join(map(chr, codes))


def texts(n: int) -> dict[str, str]:
    """About n characters each."""
    marks = [chr(c) for c in range(0x300, 0x370) if unicodedata.combining(chr(c))]
    every = all_of_unicode()
    return {
        "one letter": "a" * n,
        "one capital": "A" * n,
        "two letters": "ab" * (n // 2),
        "spaces": " " * n,
        "spaces, then a letter": " " * n + "x",
        "spaces, then a digit": " " * n + "1",
        "spaces, then a mark": " " * n + "\u0301",
        "tabs and spaces": "\t " * (n // 2),
        "other spaces": "\u00a0\u2003\u3000\u0085" * (n // 4),
        "lines": "\n" * n,
        "lines of returns": "\r\n" * (n // 2) + "x",
        "spaces and lines": (" " * 50 + "\n") * (n // 51),
        "digits": "7" * n,
        "roman and other digits": "Ⅷ٣४" * (n // 3),
        "punctuation": "!?" * (n // 2),
        "apostrophes": "'" * n,
        "contractions": "'s't're" * (n // 7),
        "combining marks": "e" + "".join(marks[i % len(marks)] for i in range(n)),
        "capital and marks": ("A" + "\u0301" * 20) * (n // 21),
        "modifier letters": "ʰ" * n,
        "capitals and modifiers": "Aʰ" * (n // 2) + "!",
        "hangul": "가힣" * (n // 2),
        "hangul jamo": "각" * (n // 3),
        "chinese": "一龥" * (n // 2),
        "emoji": "👩\u200d👩\u200d👧🏽" * (n // 7),
        "flags": "🇰🇷" * (n // 2),
        "right to left": "\u202eאב\u202c" * (n // 4),
        "nothing to see": "\u200b\u200c\u2060\ufeff" * (n // 4),
        "nul": "\0" * n,
        "controls": "".join(chr(i % 32) for i in range(n)),
        "lone surrogates": "\ud800\udfff" * (n // 2),
        "surrogate and letter": "\udc80a" * (n // 2),
        "noncharacters": "\ufdd0\ufffe\U0010ffff" * (n // 3),
        "begin of a marker": "<|" * (n // 2),
        "almost markers": "<|im_en" * (n // 7),
        "markers": "<|im_end|>" * (n // 10),
        "markers in markers": "<|im_<|im_end|>end|>" * (n // 20),
        "brackets": "(" * (n // 2) + ")" * (n // 2),
        "base64": "QUJDRA0+/" * (n // 9),
        "all of unicode": every[:: max(1, len(every) // n)],
    }
