"""How English reads numbers, units, signs and abbreviations aloud.

Only what voices do not read right by themselves: espeak-ng, which also spells for Piper, knows
whole numbers, decimals and Roman numerals.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from unicode_rbnf import RbnfEngine

_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_MONTH: Final = (
    r"(Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|"
    r"Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b\.?"
)
_YEAR: Final = r"(1[1-9]\d\d|20\d\d)"
_N: Final = r"\d+(?:,\d{3})*(?:\.\d+)?"
"""A number as it is written, with commas and decimals."""

_CURRENCIES: Final = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "", ""),
    "₩": ("won", "won", "", ""),
    "₹": ("rupee", "rupees", "paisa", "paise"),
}
_SCALES: Final = {
    "k": "thousand", "m": "million", "b": "billion", "bn": "billion", "t": "trillion",
    "thousand": "thousand", "million": "million", "billion": "billion", "trillion": "trillion",
}  # fmt: skip
# as written: one, several
_UNITS: Final = {
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "kph": ("kilometer per hour", "kilometers per hour"),
    "mph": ("mile per hour", "miles per hour"),
    "m/s": ("meter per second", "meters per second"),
    "km²": ("square kilometer", "square kilometers"),
    "m²": ("square meter", "square meters"),
    "m³": ("cubic meter", "cubic meters"),
    "km": ("kilometer", "kilometers"),
    "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"),
    "m": ("meter", "meters"),
    "mi": ("mile", "miles"),
    "ft": ("foot", "feet"),
    "yd": ("yard", "yards"),
    "kg": ("kilogram", "kilograms"),
    "mg": ("milligram", "milligrams"),
    "g": ("gram", "grams"),
    "lb": ("pound", "pounds"),
    "lbs": ("pound", "pounds"),
    "oz": ("ounce", "ounces"),
    "L": ("liter", "liters"),
    "l": ("liter", "liters"),
    "ml": ("milliliter", "milliliters"),
    "mL": ("milliliter", "milliliters"),
    "tbsp": ("tablespoon", "tablespoons"),
    "tsp": ("teaspoon", "teaspoons"),
    "°C": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "°": ("degree", "degrees"),
    "kHz": ("kilohertz", "kilohertz"),
    "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"),
    "Hz": ("hertz", "hertz"),
    "KB": ("kilobyte", "kilobytes"),
    "kB": ("kilobyte", "kilobytes"),
    "MB": ("megabyte", "megabytes"),
    "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"),
    "KiB": ("kibibyte", "kibibytes"),
    "MiB": ("mebibyte", "mebibytes"),
    "GiB": ("gibibyte", "gibibytes"),
    "Mbps": ("megabit per second", "megabits per second"),
    "Gbps": ("gigabit per second", "gigabits per second"),
    "kWh": ("kilowatt hour", "kilowatt hours"),
    "kW": ("kilowatt", "kilowatts"),
    "MW": ("megawatt", "megawatts"),
    "W": ("watt", "watts"),
    "V": ("volt", "volts"),
    "mAh": ("milliamp hour", "milliamp hours"),
    "kcal": ("kilocalorie", "kilocalories"),
    "cal": ("calorie", "calories"),
    "hPa": ("hectopascal", "hectopascals"),
    "dB": ("decibel", "decibels"),
    "ms": ("millisecond", "milliseconds"),
    "s": ("second", "seconds"),
    "sec": ("second", "seconds"),
    "secs": ("second", "seconds"),
    "min": ("minute", "minutes"),
    "mins": ("minute", "minutes"),
    "h": ("hour", "hours"),
    "hr": ("hour", "hours"),
    "hrs": ("hour", "hours"),
    "%": ("percent", "percent"),
}
_UNIT: Final = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_FRACTIONS: Final = {
    "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8",
    "⅞": "7/8", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5", "⅙": "1/6",
}  # fmt: skip
_TITLES: Final = {
    "Dr": "Doctor", "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Prof": "Professor",
    "St": "Saint", "Mt": "Mount", "Gen": "General", "Capt": "Captain", "Lt": "Lieutenant",
    "Sgt": "Sergeant", "Gov": "Governor", "Sen": "Senator", "Rev": "Reverend", "Fig": "Figure",
    "Vol": "Volume", "Ch": "Chapter",
}  # fmt: skip
_SHORT: Final = {
    "e.g.": "for example", "i.e.": "that is", "vs.": "versus", "vs": "versus", "cf.": "compare",
    "approx.": "approximately", "a.k.a.": "also known as", "w/o": "without", "Jr.": "Junior",
    "Sr.": "Senior", "Inc.": "Incorporated", "Ltd.": "Limited", "Corp.": "Corporation",
    "viz.": "namely", "dept.": "department", "Dept.": "Department",
}  # fmt: skip
_PHONE: Final = (
    r"(?<![\w.-])(?:\+\d{1,3}[ -]?(?:\(?\d{1,4}\)?[ -]?)?\d{2,4}(?:[ -]\d{2,4}){1,4}"
    r"|\(\d{3}\) ?\d{3}-\d{4}|(?:1-)?\d{3}[ -]\d{3}-\d{4}|\d{3}-\d{4}|0\d{1,2}-\d{3,4}-\d{4}"
    r"|0\d{9,10})(?![\w-])"
)


@cache
def _engine() -> "RbnfEngine":
    from unicode_rbnf import RbnfEngine

    return RbnfEngine.for_language("en")


def _spell(number: str | int, rules: str = "spellout-cardinal") -> str:
    """A whole number in words."""
    return str(_engine().format_number(int(number), ruleset_names=[rules]).text)


def _ordinal(number: str | int) -> str:
    return _spell(number, "spellout-ordinal")


def _year(number: str | int) -> str:
    return _spell(number, "spellout-numbering-year").replace("-hundred", " hundred")


def _digits(text: str) -> str:
    """Digits one by one, a comma between groups."""
    groups = re.findall(r"\d+", text)
    return ", ".join(" ".join(_spell(digit) for digit in group) for group in groups)


def _month(name: str) -> str:
    return next(month for month in _MONTHS if month.startswith(name[:3]))


def _date(year: str, month: int, day: int, found: re.Match[str]) -> str:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return found[0]
    return f"{_MONTHS[month - 1]} {_ordinal(day)}, {_year(year)}"


def _slashed_date(found: re.Match[str]) -> str:
    first, second = int(found[1]), int(found[2])
    month, day = (second, first) if first > 12 else (first, second)
    return _date(found[3], month, day, found)


def _named_date(found: re.Match[str]) -> str:
    year = f", {_year(found[3])}" if found[3] else ""
    return f"{_month(found[1])} {_ordinal(found[2])}{year}"


def _day_first(found: re.Match[str]) -> str:
    year = f", {_year(found[3])}" if found[3] else ""
    return f"{_month(found[2])} {_ordinal(found[1])}{year}"


def _time(found: re.Match[str]) -> str:
    hour, minute, half = int(found[1]), int(found[2] or 0), found[3]
    if hour > 24 or minute > 59 or (half and hour > 12):
        return found[0]
    end = f" {half.upper()}M" if half else ""
    if not half and not minute and 0 < hour <= 12:
        end = " o'clock"
    if minute:
        minutes = f" oh {_spell(minute)}" if minute < 10 else f" {_spell(minute)}"
    else:
        minutes = "" if end else " hundred hours" if hour else " hours"
    return f"{_spell(hour)}{minutes}{end}"


def _money(found: re.Match[str]) -> str:
    sign, amount, scale = found[1], found[2], found[3]
    one, many, cent, cents = _CURRENCIES[sign]
    if scale:
        return f"{amount} {_SCALES[scale.casefold()]} {many}"
    whole, _, part = amount.partition(".")
    name = one if whole == "1" else many
    if not cent or len(part) not in (0, 2):
        return f"{amount} {many if part else name}"
    if not int(part or 0):
        return f"{whole} {name}"
    small = f"{int(part)} {cent if int(part) == 1 else cents}"
    return small if not int(whole.replace(",", "")) else f"{whole} {name} and {small}"


def _money_after(found: re.Match[str]) -> str:
    one, many, *_ = _CURRENCIES[found[2]]
    return f"{found[1]} {one if found[1] == '1' else many}"


def _version(found: re.Match[str]) -> str:
    # four parts are an address; three a version, and so is anything after a v
    joint = " dot " if found[2].count(".") == 3 else " point "
    numbers = joint.join(found[2].split("."))
    named = found[1] or found[0][:1] in "Vv"
    return f"version {numbers}" if named else numbers


def _fraction(found: re.Match[str]) -> str:
    whole, above, below = found[1], int(found[2]), int(found[3])
    if not 0 < above < below or below > 100:
        return found[0]
    part = {2: "half", 4: "quarter"}.get(below) or _ordinal(below)
    if above > 1:
        part = "halves" if below == 2 else f"{part}s"
    said = f"{_spell(above)} {part}"
    return f"{whole} and {'a half' if (above, below) == (1, 2) else said}" if whole else said


def _range(found: re.Match[str]) -> str:
    first, second = found[1], found[2]
    year = re.fullmatch(_YEAR, first) and re.fullmatch(r"\d{4}|\d\d", second)
    if year and "," not in first:
        return f"{_year(first)} to {_year(second) if len(second) == 4 else _spell(second)}"
    return f"{first} to {second}"


def _unit(found: re.Match[str]) -> str:
    one, many = _UNITS[found[2]]
    single = found[1] == "1" or found[0][len(found[1])] == "-"  # a 5-km run
    return f"{found[1]} {one if single else many}"


def _ratio(found: re.Match[str]) -> str:
    return f"{found[1]} to {found[2]}"


def _decade(found: re.Match[str]) -> str:
    word = _year(found[1]) if len(found[1]) == 4 else _spell(found[1])
    return word.removesuffix("y") + "ies" if word.endswith("y") else f"{word}s"


_UNIT_OF_RATE: Final = (
    r"(seconds?|minutes?|min|hours?|days?|weeks?|months?|years?|person|liter|kg|km|GB|MB|h|s)\b"
)


def _rate(found: re.Match[str]) -> str:
    return f" per {_UNITS[found[1]][0]}" if found[1] in _UNITS else f" per {found[1]}"


def _comparison(found: re.Match[str]) -> str:
    names = {
        "=": "equals", "==": "equals", "<": "is less than", ">": "is greater than",
        "<=": "is at most", "≤": "is at most", ">=": "is at least", "≥": "is at least",
        "≠": "is not", "!=": "is not", "≈": "is about", "±": "plus or minus", "+": "plus",
        "−": "minus", "-": "minus", "–": "minus", "*": "times", "×": "times", "÷": "divided by",
        "/": "over", "->": "to", "→": "to", "=>": "to", "⇒": "to", "&": "and",
    }  # fmt: skip
    return f" {names[found[1]]} "


_Say = Callable[[re.Match[str]], str] | str
# in this order: what is longer and more special first; what a rule says is not read again
_RULES: Final[list[tuple[re.Pattern[str], _Say]]] = [
    (re.compile(pattern), say)
    for pattern, say in (
        # dates and times
        (
            r"\b(\d{4})-(\d\d)-(\d\d)(?:T(?=\d))?\b",
            lambda f: _date(f[1], int(f[2]), int(f[3]), f),
        ),
        (r"(?<![\d/])(\d\d?)/(\d\d?)/(\d{4})(?![\d/])", _slashed_date),
        (rf"\b{_MONTH} (\d\d?)(?:st|nd|rd|th)?\b(?:,? {_YEAR}\b)?(?![:\d])", _named_date),
        (rf"\b(\d\d?)(?:st|nd|rd|th)?(?: of)? {_MONTH}(?:,? {_YEAR}\b)?(?!\w)", _day_first),
        (r"(?<![\d:.])(\d\d?):(\d\d)(?:\s?([AaPp])\.?[Mm]\b\.?)?(?![\d:])", _time),
        (r"(?<![\d:.])(\d\d?)()\s?([AaPp])\.?[Mm]\b(?:\.(?!\s+[A-Z]|$))?", _time),
        (r"(?<![\d:.])(\d+):(\d+)(?![\d:])", _ratio),
        (r"\b([AaPp])\.[Mm]\.", lambda f: f"{f[1].upper()}M"),
        # telephones, versions, addresses
        (_PHONE, lambda f: _digits(f[0])),
        (r"(?i:\bversion )?(?<![\w.])([vV]\.? ?)?(\d+(?:\.\d+){2,})(?!\w)", _version),
        (r"(?i:\bversion )?(?<!\w)([vV])(\d+(?:\.\d+)*)(?!\w)", _version),
        # money
        (
            rf"(?:US|CA|AU)?([$€£¥₩₹])\s?({_N})(?:\s?(k|K|m|M|b|B|bn|t|thousand|million|billion"
            r"|trillion)\b)?",
            _money,
        ),
        (rf"({_N})\s?([€£¥₩])", _money_after),
        # years
        (r"\b((?:1[1-9]|20)\d0)['’]?s\b", _decade),
        (r"(?<!\w)['’](\d0)s\b", _decade),
        (rf"(?<![\w.,/-])({_N})[-–—~]({_N})(?![\w/-]*\d)", _range),
        (rf"(?<![\w.,/-])({_N}) – ({_N})", _range),
        (
            r"(?i)\b((?:in|since|from|until|by|year|around|circa|early|late|mid|of|before|after|and|to"
            r"|spring|summer|fall|autumn|winter|january|february|march|april|may|june|july|august"
            r"|september|october|november|december),?) "
            rf"{_YEAR}(?!\d|[,.]\d| ?(?:{_UNIT})(?!\w)| [a-z]+s\b)",
            lambda f: f"{f[1]} {_year(f[2])}",
        ),
        (rf"\({_YEAR}\)", lambda f: f"({_year(f[1])})"),
        (rf"(?<![\d.,]){_YEAR}(?= (?:AD|BC|CE|BCE)\b)", lambda f: _year(f[1])),
        # fractions, signs of numbers, units, ordinals
        (r"(\d*)([½¼¾⅓⅔⅛⅜⅝⅞⅕⅖⅗⅘⅙])", lambda f: f"{f[1]} {_FRACTIONS[f[2]]}".strip()),
        (r"(?<![\w/.])24/7(?![\w/])", "twenty-four seven"),
        (r"(?<![\w/.-])(?:(\d+) )?(\d{1,3})/(\d{1,3})(?![\w/]|\.\d)", _fraction),
        (r"(?<![\w)\].-])[-−](?=\d)", "minus "),
        (rf"(?<![\w.])({_N})[ -]?({_UNIT})(?![\w²³])", _unit),
        (rf"(?<=[a-z0-9])/{_UNIT_OF_RATE}", _rate),
        (
            r"\b(\d{1,3}(?:,\d{3})*|\d{1,9})(?:st|nd|rd|th)\b",
            lambda f: _ordinal(f[1].replace(",", "")),
        ),
        (r"(?<!\w)#(?=\d)", "number "),
        (r"\b[Nn]o\. ?(?=\d)", "number "),
        (r"(?<!\w)~ ?(?=\d)", "about "),
        (r"(?<!\w)[≈] ?(?=\d)", "about "),
        (r"±", " plus or minus "),
        (r"(?<=\w)²", " squared"),
        (r"(?<=\w)³", " cubed"),
        (r"(?<=\w)\^(?=\w)", " to the power of "),
        (r"(?<=[\w)]) ?(->|→|=>|⇒|==|<=|>=|!=|≤|≥|≠|≈|×|÷) ?(?=[\w(])", _comparison),
        (r"(?<=[\w)]) ([=<>+*/&−-]) (?=[\w(])", _comparison),
        (r"(?<=\d)([=+*])(?=\d)", _comparison),
        (r"(?<=\b\w)=(?=\w)", " equals "),
        (r"\s[–—]\s|(?<=\w)—(?=\w)", ", "),
        # abbreviations
        (
            rf"\b({'|'.join(_TITLES)})\.(?=\s*\w)",
            lambda f: _TITLES[f[1]],
        ),
        (r"\b(Dr|Mr|Mrs|Ms|Prof)(?= [A-Z])", lambda f: _TITLES[f[1]]),
        (r"\b[Ee]\.g\.,?", "for example,"),
        (r"\b[Ii]\.e\.,?", "that is,"),
        (r"\betc\.(?=$|\s+[A-Z])", "et cetera."),
        (r"\betc\b\.?", "et cetera"),
        (
            rf"(?<!\w)({'|'.join(map(re.escape, _SHORT))})(?!\w)",
            lambda f: _SHORT[f[1]],
        ),
        (r"\band/or\b", "and or"),
        (r"(?<![\w/.~-])([A-Za-z]{2,})/([A-Za-z]{2,})(?![\w/])", r"\1 \2"),
        (r"\bC#", "C sharp"),
        (r"\bF#", "F sharp"),
        (r"(?<=\w)\+\+", " plus plus"),
        (r" {2,}", " "),
    )
]  # fmt: skip


def say(text: str) -> str:
    """`text` as it is said; plain text in, plain text out."""
    for pattern, words in _RULES:
        text = pattern.sub(words, text)
    return text.strip()
