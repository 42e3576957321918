"""How alike two Korean words sound, from their spelling: an edit distance of jamo.

Hangul is written as it sounds, so what a recogniser of single syllables heard can be compared with
a word it was not listening for. Costs follow what Korean ears, and acoustic models, take for one
another: ㅈ ㅊ ㅉ differ by breath only, ㅏ by a little from ㅓ.
"""

from collections.abc import Sequence
from functools import cache
from typing import Final

_FIRST: Final = 0xAC00
_N_SYLLABLES: Final = 11_172
_INITIALS: Final = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_VOWELS: Final = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
_FINALS: Final = " ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"
_SILENT: Final = "ㅇ"  # as an initial
_PLAIN_VOWELS: Final = "ㅏㅓㅗㅜㅡㅣㅐㅔ"

_ALIKE: Final = (
    ("ㅈㅊㅉ", 0.2),
    ("ㅅㅆ", 0.15),
    ("ㅂㅃㅍ", 0.2),
    ("ㄱㄲㅋ", 0.2),
    ("ㄷㄸㅌ", 0.2),
    ("ㅅㅆㅈㅊㅉ", 0.45),
    ("ㅁㅂ", 0.5),
    ("ㅎㅅㅆㅊ", 0.7),
    ("ㅏㅓ", 0.3),
    ("ㅏㅑ", 0.3),
    ("ㅣㅡ", 0.4),
    ("ㅡㅜ", 0.3),
    ("ㅓㅗ", 0.4),
    ("ㅣㅟㅢ", 0.2),
    ("ㅣㅔㅐㅖ", 0.5),
    ("ㅓㅡ", 0.5),
)
_VOWEL_FOR_CONSONANT: Final = 1.5
_MISSING_FINAL: Final = 0.4
_MISSING_VOWEL: Final = 1.0
_MISSING_CONSONANT: Final = 0.8


def is_hangul(word: str) -> bool:
    """Whether all of it is Hangul syllables."""
    return bool(word) and all(0 <= ord(letter) - _FIRST < _N_SYLLABLES for letter in word)


def open_syllables() -> list[str]:
    """All syllables of one initial and one plain vowel: enough to write down what any word is."""
    return [
        chr(_FIRST + (initial * len(_VOWELS) + _VOWELS.index(vowel)) * len(_FINALS))
        for initial in range(len(_INITIALS))
        for vowel in _PLAIN_VOWELS
    ]


def jamo(text: str) -> list[str]:
    """Its sounds in turn; finals have a "-" in front. What is no Hangul is left out."""
    sounds = []
    for letter in text:
        index = ord(letter) - _FIRST
        if not 0 <= index < _N_SYLLABLES:
            continue
        rest, final = divmod(index, len(_FINALS))
        initial, vowel = divmod(rest, len(_VOWELS))
        if _INITIALS[initial] != _SILENT:
            sounds.append(_INITIALS[initial])
        sounds.append(_VOWELS[vowel])
        if final:
            sounds.append("-" + _FINALS[final])
    return sounds


def distance(word: str, heard: str) -> float:
    """How far `word` is from the part of `heard` that is nearest to it; 0 if it is in there.

    Source: P. H. Sellers, "The theory and computation of evolutionary distances" (1980): the edit
    distance to any substring, whose beginning costs nothing.
    """
    sounds: Sequence[str] = jamo(heard)
    row = [0.0] * (len(sounds) + 1)
    for wanted in jamo(word):
        above, row = row, [row[0] + _missing(wanted)]
        for column, sound in enumerate(sounds, 1):
            row.append(
                min(
                    above[column] + _missing(wanted),
                    row[column - 1] + _missing(sound),
                    above[column - 1] + _instead(wanted, sound),
                )
            )
    return min(row)


def _missing(sound: str) -> float:
    if sound[0] == "-":
        return _MISSING_FINAL
    return _MISSING_VOWEL if sound in _VOWELS else _MISSING_CONSONANT


@cache
def _instead(wanted: str, sound: str) -> float:
    if wanted == sound:
        return 0.0
    if (wanted in _VOWELS) != (sound in _VOWELS):
        return _VOWEL_FOR_CONSONANT
    return min((cost for group, cost in _ALIKE if wanted in group and sound in group), default=1.0)
