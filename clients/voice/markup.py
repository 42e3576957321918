"""What a written piece of text says once its markup is gone: markdown, HTML, links, emoji.

Leaves numbers, units and abbreviations to english.py and korean.py, code blocks to spoken.py.
"""

import re
from functools import cache
from typing import TYPE_CHECKING, Final

import regex  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_HOST: Final = re.compile(r"(?:https?://|\bwww\.)(?:www\.)?([^\s/<>()\"'?#:]+)[^\s<>()\"']*", re.I)
_MAIL: Final = re.compile(r"\b([\w.+-]+)@((?:[\w-]+\.)+[A-Za-z]{2,})\b")
_TAG: Final = re.compile(r"</?[A-Za-z][^<>]*>|<!--.*?-->", re.S)
_TABLE_ROW: Final = re.compile(r"\s*\|(.*?)\|?\s*", re.S)
_TABLE_RULE: Final = re.compile(r"[\s|:-]+")
# marks whose partner is in another piece, or that never had one
_STRAY: Final = re.compile(r"\*{2,}|_{2,}|~~|`+|(?<!\S)\*(?=\S)|(?<=[^\s*\d])\*(?!\S)")
_PICTURES: Final = regex.compile(
    r"[\p{Extended_Pictographic}\p{Emoji_Modifier}\p{Regional_Indicator}\uFE0E\uFE0F\u200D\u20E3"
    r"\u2500-\u25FF\u2700-\u27BF]+"
)
_UNHEARD: Final = regex.compile(r"[\p{Cf}\p{Co}\p{Cs}\p{Cn}]|(?!\s)\p{Cc}")
_TIMES: Final = re.compile(r"(?<=\d)\*(?=\d)")
_BULLET: Final = re.compile(r"^\s*[•◦▪●·‣]\s*")
_SPACE: Final = re.compile(r"\s+")


def plain(text: str) -> str:
    """`text`, one sentence or line of markdown, as plain text on one line; empty if it is a picture
    or a ruler only."""
    text = _TIMES.sub("×", _BULLET.sub("", text))
    if _TABLE_ROW.fullmatch(text) and text.count("|") > 1:
        text = _cells(text)
    text = _STRAY.sub("", " ".join(_blocks(text)))
    text = _TAG.sub(" ", text)
    text = _MAIL.sub(lambda found: f"{found[1]} at {_dots(found[2])}", text)
    text = _HOST.sub(_host, text)
    text = _UNHEARD.sub("", _PICTURES.sub(" ", text))
    text = _SPACE.sub(" ", text).strip()
    text = re.sub(r" +(?=[,.!?;:](?:\s|$))", "", text)
    return text if any(character.isalnum() for character in text) else ""


def _cells(row: str) -> str:
    """The cells of a table's row; nothing for the rule below its head."""
    if _TABLE_RULE.fullmatch(row):
        return ""
    cells = (cell.strip() for cell in row.strip().strip("|").split("|"))
    return ", ".join(cell for cell in cells if cell)


def _host(found: re.Match[str]) -> str:
    end = re.search(r"[.,!?;:]*$", found[0])
    return _dots(found[1].rstrip(".,!;")) + (end[0] if end else "")


def _dots(host: str) -> str:
    return host.replace(".", " dot ")


@cache
def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").enable("strikethrough")
    # a piece begins anywhere: indentation, "---" or "[x]:" at its beginning mean nothing there
    return parser.disable(["code", "fence", "lheading", "reference", "html_block"])


def _blocks(text: str) -> list[str]:
    """The text of each paragraph, heading and list item."""
    tokens = _parser().parse(text)
    depth = sum(token.type == "ordered_list_open" for token in tokens)
    out = []
    for token in tokens:
        if token.type == "list_item_open" and token.info:
            # "2026. 11. 25." is no list; after an item's number a comma makes a pause, no end
            out.append(token.info + ("," if depth == 1 else token.markup))
        elif token.type == "inline":
            out.append(_inline(token.children or []))
    return out


def _inline(tokens: "list[Token]") -> str:
    out = []
    for token in tokens:
        if token.type in ("text", "code_inline", "image"):
            out.append(token.content)
        elif token.type in ("softbreak", "hardbreak", "html_inline"):
            out.append(" ")
    return "".join(out)
