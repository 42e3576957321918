"""Where a text that is still being written can be cut so that speech starts early.

Owns the cuts only: markdown and numbers are spoken.py's.

Own rules rather than the `sentence-stream` package, which was tried: it deletes asterisks
("2*3*4 is 24." becomes "234 is 24."), cuts after "1.", "e.g." and never at a line's end, holds
"Yes." back as if it were an abbreviation, and never cuts a long sentence.
"""

import unicodedata
from typing import Final

import regex  # type: ignore[import-untyped]

FIRST_LONG: Final = 60
"""A first sentence of this many columns may be cut at a clause, so that speech starts."""
LONG: Final = 200
"""Any sentence of this many columns is cut at a clause, or between words."""
_SHORT: Final = 20
"""No clause of fewer columns is cut off."""
_TAIL: Final = 60
"""Characters at the end of the text in which an end is looked for; only junk has longer ones."""
_WORD_LIMIT: Final = 2 * LONG
"""Columns without any place to cut, after which the text is cut in the middle."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# words before a full stop that ends no sentence if a number follows
_BEFORE_NUMBER: Final = _words("no nr jan feb mar apr jun jul aug sep sept oct nov dec")
# words before a full stop that does not end a sentence, whatever follows
_TITLES: Final = _words(
    "dr mr mrs ms prof st mt rev hon gen col capt lt sgt gov sen rep pres vs e.g i.e cf viz "
    "approx ca fig eq sec ch vol p pp ed eds dept est"
)
# words whose full stop may also end a sentence; the next word decides
_AMBIGUOUS: Final = _words("etc inc ltd co corp jr sr bros al ave blvd rd")
# words that begin a sentence, though a name might stand there too ("the U.S. Army")
_STARTERS: Final = _words(
    "a an and also as at but by can do for from he her here his how however i if in is it its let "
    "my no not now of on one or our please she so that the their then there these they this "
    "those to we what when where which while who why will with would yes you your"
)
_AFTER_TIME: Final = _words(
    "monday tuesday wednesday thursday friday saturday sunday january february march april may "
    "june july august september october november december est edt cst cdt mst mdt pst pdt gmt "
    "utc cet kst"
)

_CLOSERS: Final = r"['\"\)\]\}*_`~’”»」』）》】〕〉]"
_OPENERS: Final = r"['\"\(\[\{*_`~‘“«「『（《【〔〈]"
# an end, closing marks, white space, opening marks, and what the next sentence begins with
_END: Final = regex.compile(rf"([.!?…؟।॥]+)({_CLOSERS}*)(\s+)({_OPENERS}*)([^\s'\"*_`~(\[{{])\Z")
# the full-width ends need no white space after them
_WIDE_END: Final = regex.compile(
    rf"[。！？]+{_CLOSERS}*(?=[^。！？\s'\"\)*_`~’”»」』）》】〕〉]\Z)"
)
# the same for an abbreviation, up to the end of the next word, which tells what it was
_WORD_AFTER: Final = regex.compile(
    rf"\.({_CLOSERS}*)(\s+){_OPENERS}*([\p{{L}}\p{{M}}]+)[^\p{{L}}\p{{M}}]\Z"
)
_LINE_END: Final = regex.compile(r"(\s*\n\s*)(\S)\Z")
_LAST_WORD: Final = regex.compile(r"(?:\p{L}{1,2}\.)*[\p{L}\p{M}]+\Z")
_ENUMERATOR: Final = regex.compile(r"(?:^|[\n:;,.!?)]\s*|\A\W*)\d{1,3}\Z")
_NUMBER: Final = regex.compile(r"(?<!\S)\d{1,3}\Z")
_DATE: Final = regex.compile(r"\b\d{4}(?:\. ?\d{1,2})?\Z")
# white space after which a clause begins: first choice, second choice
_CLAUSE: Final = regex.compile(
    rf"(?<=[,;:、，；：]{_CLOSERS}{{0,3}})\s+|(?<=[—–])\s*|\s+(?=[—–]\s)|(?<=[、，；：])(?!\s)"
)
_JOINT: Final = regex.compile(
    r"\s+(?=(?:and|but|or|because|which|while|so|although|whereas)\s)"
    r"|(?<=\p{Hangul}{2}(?:고|며|지만|는데|니까|면서|어서|아서|려면|다면|라면))\s+"
)


def columns(text: str) -> int:
    """How long `text` is to say, roughly in Latin letters: a Hangul syllable counts as two."""
    return len(text) + sum(unicodedata.east_asian_width(c) in "WF" for c in text)


class SentenceStream:
    """Cuts text that arrives in pieces into sentences, or clauses where a sentence is long.

    How the text is cut does not depend on how it arrives. Nothing but white space is lost.
    """

    def __init__(self) -> None:
        self._text = ""
        self._columns = 0
        self._first = True

    def feed(self, piece: str) -> list[str]:
        """What can be said after `piece` of text (of any length), stripped of white space."""
        out: list[str] = []
        for character in piece:
            # of white space one character is enough, but for a blank line
            if character.isspace() and (
                not self._text or (character != "\n" and self._text[-1].isspace())
            ):
                continue
            self._text += character
            self._columns += columns(character)
            cut = self._cut(character)
            while cut is not None:
                said, self._text = self._text[:cut].rstrip(), self._text[cut:].lstrip()
                self._columns = columns(self._text)
                if said:
                    out.append(said)
                    self._first = False
                cut = self._too_long()
        return out

    def finish(self) -> list[str]:
        """What is left, at the text's end; the stream can then be used for another text."""
        rest, self._text, self._columns, self._first = self._text.strip(), "", 0, True
        return [rest] if rest else []

    def _cut(self, last: str) -> int | None:
        """Where the text can be cut now that `last` has come; None: not yet."""
        text = self._text
        if last == "\n" and text.rstrip(" \t\r\n").count("\n") < text.count("\n") - 1:
            return len(text)  # a blank line
        tail = max(0, len(text) - _TAIL)
        if (whole := _WORD_AFTER.search(text, tail)) is not None:
            found = _LAST_WORD.search(text[: whole.start()])
            if found and _is_ambiguous(found[0]) and _begins(whole[3], found[0]):
                return int(whole.end(2))
        if last.isspace():
            return None
        if (wide := _WIDE_END.search(text, tail)) is not None:
            return int(wide.end())
        if (end := _END.search(text, tail)) is not None and self._ends(end):
            return int(end.end(3))
        if (line := _LINE_END.search(text, tail)) is not None and not last.islower():
            return int(line.end(1))  # a list item, a heading, a verse; a small letter goes on
        return self._too_long()

    def _ends(self, end: "regex.Match[str]") -> bool:
        """Whether a sentence ends there, or an abbreviation."""
        before, mark, next_ = self._text[: end.start()], end[1], end[5]
        if before.rpartition("\n")[2].count("`") % 2 and "`" not in end[2]:
            return False  # inside inline code
        if "\n" in end[3]:
            return not next_.islower() or mark != "."
        if next_.islower():
            return False
        if mark != ".":
            return True
        if before[-1:].isdigit():
            if next_.isdigit() and _DATE.search(before):
                return False  # 2026. 11. 25
            return not _is_enumerator(before)
        found = _LAST_WORD.search(before)
        if found is None:
            return True
        word = found[0].casefold()
        if word in _BEFORE_NUMBER:
            return not next_.isdigit()
        if word in _TITLES:
            return False
        # an ambiguous one is not decided before the next word is whole, see _WORD_AFTER
        return not _is_ambiguous(found[0])

    def _too_long(self) -> int | None:
        """Where to cut a sentence that has become long, or None."""
        limit = FIRST_LONG if self._first else LONG
        if self._columns <= limit:
            return None
        for pattern in (_CLAUSE, _JOINT):
            ends: list[int] = [found.end() for found in pattern.finditer(self._text)]
            # at the last character it is not known yet whether a clause or only a word is over
            fitting = [
                at
                for at in ends
                if at < len(self._text) and columns(self._text[:at].rstrip()) >= _SHORT
            ]
            if fitting:
                return fitting[0 if self._first else -1]
        if self._columns > LONG and (space := self._text.rstrip().rfind(" ")) > 0:
            return space
        return len(self._text) - 1 if self._columns > _WORD_LIMIT else None


def _is_enumerator(before: str) -> bool:
    """Whether the number at the end of `before` and the full stop after it count list items."""
    if _ENUMERATOR.search(before):
        return True
    number = _NUMBER.search(before)
    return (
        number is not None and regex.search(rf"(?<!\S){int(number[0]) - 1}\.\s", before) is not None
    )


def _is_ambiguous(word: str) -> bool:
    """Whether a full stop after `word` may end a sentence or only the word."""
    folded = word.casefold()
    initial = len(word) == 1 and word.isupper() and word.isascii()
    return folded in _AMBIGUOUS or "." in word or initial


def _begins(word: str, after: str) -> bool:
    """Whether `word` begins a sentence when it comes after the abbreviation `after`."""
    if not word[0].isupper():
        return False
    if after.casefold() in ("a.m", "p.m"):
        return word.casefold() not in _AFTER_TIME
    return after.casefold() == "etc" or word.casefold() in _STARTERS
