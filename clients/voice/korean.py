"""How Korean reads numbers, units and signs aloud.

All numbers become words: espeak-ng drops the point of decimals, and no voice knows when a number is
said in native words (세 시, 두 명) rather than Sino-Korean ones (삼 분, 이 킬로미터).
"""

import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from unicode_rbnf import RbnfEngine

_N: Final = r"\d+(?:,\d{3})*(?:\.\d+)?"
_DIGITS: Final = "공일이삼사오육칠팔구"

# counted in native words up to 99; the longest that fits is taken
_COUNTERS: Final = (
    "시간 시 명 사람 살 개 마리 권 잔 병 대 번째 번 가지 장 그루 송이 켤레 벌 채 척 달 배 군데 곳 "
    "접시 그릇 조각 줄 봉지 상자 컵 숟가락 큰술 작은술 스푼 끼 쌍 팀 걸음 바퀴 판 방울 자루 다발 "
    "포기 차례 가구 모금 알 통 묶음 편 칸 모 갑 단 곡 단어 문장 분들"
)
# words that begin like a counter and are none
_NO_COUNTERS: Final = (
    "개월 개국 개년 시즌 시리즈 대학 대회 장르 배터리 통신 번지 번역 팀장 권역 단계 단지 판사 편성 "
    "시스템 명제 모델 알파 곡선 배럴 달러 채널 벌금 척도 병원 병동 대로"
)
_UNITS: Final = {
    "km/h": "킬로미터 퍼 아워", "m/s": "미터 퍼 세컨드", "km²": "제곱킬로미터", "m²": "제곱미터",
    "㎡": "제곱미터", "m³": "세제곱미터", "km": "킬로미터", "cm": "센티미터", "mm": "밀리미터",
    "m": "미터", "kg": "킬로그램", "mg": "밀리그램", "g": "그램", "L": "리터", "l": "리터",
    "ml": "밀리리터", "mL": "밀리리터", "°C": "도", "℃": "도", "°F": "화씨 도", "°": "도",
    "kHz": "킬로헤르츠", "MHz": "메가헤르츠", "GHz": "기가헤르츠", "Hz": "헤르츠",
    "KB": "킬로바이트", "kB": "킬로바이트", "MB": "메가바이트", "GB": "기가바이트",
    "TB": "테라바이트", "MiB": "메비바이트", "GiB": "기비바이트", "Mbps": "메가비피에스",
    "Gbps": "기가비피에스", "kWh": "킬로와트시", "kW": "킬로와트", "W": "와트", "V": "볼트",
    "kcal": "킬로칼로리", "cal": "칼로리", "hPa": "헥토파스칼", "dB": "데시벨",
    "ms": "밀리초", "s": "초", "sec": "초", "min": "분", "h": "시간", "hr": "시간",
    "%p": "퍼센트포인트", "%": "퍼센트",
}  # fmt: skip
_CURRENCIES: Final = {
    "$": "달러", "€": "유로", "£": "파운드", "¥": "엔", "₩": "원", "₹": "루피",
}  # fmt: skip
_MONTHS: Final = {6: "유월", 10: "시월"}


def _longest_first(words: list[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_UNIT: Final = _longest_first([*_UNITS])
_COUNTER: Final = (
    rf"(?!{_longest_first(_NO_COUNTERS.split())})({_longest_first(_COUNTERS.split())})"
)


@cache
def _engine() -> "RbnfEngine":
    from unicode_rbnf import RbnfEngine

    return RbnfEngine.for_language("ko")


def _rules(number: int, rules: str) -> str:
    return str(_engine().format_number(number, ruleset_names=[rules]).text)


def _sino(number: str) -> str:
    """A number as written, in Sino-Korean words."""
    whole, _, part = number.replace(",", "").partition(".")
    # beyond 10¹⁵ floating point would be wrong; a leading zero is a code rather than an amount
    if len(whole) > 15 or (len(whole) > 1 and whole[0] == "0"):
        words = _one_by_one(whole)
    else:
        words = _rules(int(whole), "spellout-cardinal-sinokorean")
    return f"{words} 점 {_one_by_one(part).replace('공', '영')}" if part else words


def _native(number: str) -> str:
    """A number before its counter."""
    plain = number.replace(",", "")
    if "." in plain or int(plain) > 99 or plain[0] == "0":
        return _sino(number)
    return _rules(int(plain), "spellout-cardinal-native-attributive")


def _one_by_one(digits: str) -> str:
    return "".join(_DIGITS[int(digit)] for digit in digits)


def _groups(text: str) -> str:
    return " ".join(_one_by_one(group) for group in re.findall(r"\d+", text))


def _month(number: str) -> str:
    return _MONTHS.get(int(number)) or f"{_sino(str(int(number)))}월"


def _date(found: re.Match[str]) -> str:
    year, month, day = found[1], int(found[2]), int(found[3])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return found[0]
    return f"{_sino(year)}년 {_month(str(month))} {_sino(str(day))}일"


def _time(found: re.Match[str]) -> str:
    hour, minute, half = int(found[1]), int(found[2] or 0), (found[3] or "").casefold()
    if hour > 24 or minute > 59 or (half and hour > 12):
        return found[0]
    said = f"{_sino(str(hour)) if not 0 < hour <= 12 else _native(str(hour))} 시"
    if minute:
        said += f" {_sino(str(minute))} 분"
    return {"": "", "a": "오전 ", "p": "오후 "}[half] + said


def _money(found: re.Match[str]) -> str:
    sign, amount, scale = found[1], found[2], found[3] or ""
    whole, _, part = amount.partition(".")
    if sign in "$€" and len(part) == 2 and not scale:
        cents = f" {_sino(str(int(part)))} 센트" if int(part) else ""
        return f"{_sino(whole)} {_CURRENCIES[sign]}{cents}"
    return f"{_sino(amount)}{scale} {_CURRENCIES[sign]}"


def _fraction(found: re.Match[str]) -> str:
    above, below = int(found[1]), int(found[2])
    if not 0 < above < below or below > 100:
        return found[0]
    return f"{_sino(found[2])}분의 {_sino(found[1])}"


def _count(found: re.Match[str]) -> str:
    number, counter = found[1], found[2]
    plain = number.replace(",", "")
    # twenties, thirties ("20대"), and hours of the railway ("15시"), are Sino-Korean
    ages = counter == "대" and plain.isdigit() and int(plain) >= 10 and int(plain) % 10 == 0
    late = counter == "시" and plain.isdigit() and not 0 < int(plain) <= 12
    return f"{_sino(number) if ages or late else _native(number)} {counter}"


def _counted_range(found: re.Match[str]) -> str:
    first, second, counter = found[1], found[2], found[3]
    return f"{_native(first)} {counter}에서 {_native(second)} {counter}"


def _closed(character: str) -> bool:
    """Whether a syllable ends in a consonant."""
    return "가" <= character <= "힣" and (ord(character) - ord("가")) % 28 > 0


_COMPARISONS: Final = {
    "+": "더하기", "−": "빼기", "-": "빼기", "*": "곱하기", "×": "곱하기",
    "÷": "나누기", "/": "나누기", "<": "보다 작은", ">": "보다 큰", "→": "에서", "->": "에서",
    "&": "그리고",
}  # fmt: skip

_Say = Callable[[re.Match[str]], str] | str
# in this order: what is longer and more special first
_RULES: Final[list[tuple[re.Pattern[str], _Say]]] = [
    (re.compile(pattern), say)
    for pattern, say in (
        # dates and times
        (r"(?<!\d)(\d{4})[-/](\d\d?)[-/](\d\d?)(?!\d)(?:T(?=\d))?", _date),
        (r"(?<!\d)(\d{4})\. ?(\d\d?)\. ?(\d\d?)(?:\.(?!\d)|(?![\d.]))", _date),
        (r"(?<![\d.])(0?[1-9]|1[0-2]) ?월(?!\w*요일)", lambda f: _month(f[1])),
        (r"(?<![\d:.])(\d\d?):(\d\d)(?:\s?([AaPp])\.?[Mm]\b\.?)?(?![\d:])", _time),
        (r"(?<![\d:.])(\d\d?)()\s?([AaPp])\.?[Mm]\b\.?", _time),
        (r"(?<![\d:.])(\d+):(\d+)(?![\d:])", lambda f: f"{_sino(f[1])} 대 {_sino(f[2])}"),
        # telephones, versions, addresses
        (
            r"(?<![\w.-])(?:\+\d{1,3}[ -]\d{1,4}(?:[ -]\d{2,4}){1,4}|0\d{1,2}-\d{3,4}-\d{4}|"
            r"1\d{3}-\d{4}|\d{3}-\d{4}|01\d{8,9})(?![\d-])",
            lambda f: _groups(f[0]),
        ),
        (r"(?<![\w.])[vV]\.? ?(\d+(?:\.\d+)*)(?![A-Za-z])", lambda f: f"버전 {_points(f[1])}"),
        (r"(?<![\w.])(\d+(?:\.\d+){2,})(?![A-Za-z])", lambda f: _points(f[1])),
        # money
        (rf"(?:US)?([$€£¥₩₹])\s?({_N})(?:\s?([만억조천백]+))?(?![가-힣]*[원달])", _money),
        (rf"({_N})([만억조천백]+) ?원", lambda f: f"{_sino(f[1])}{f[2]} 원"),
        (rf"({_N})\s?([€£¥₩$])", lambda f: f"{_sino(f[1])} {_CURRENCIES[f[2]]}"),
        # ranges
        (rf"(?<![\w.])({_N}) ?[~∼〜–-] ?({_N}) ?{_COUNTER}", _counted_range),
        (rf"(?<![\w.-])({_N})(?:{_UNIT})? ?[~∼〜–] ?(?={_N})", lambda f: f"{_sino(f[1])}에서 "),
        (rf"(?<![\w.-])({_N})-(?={_N}(?![\d-]))", lambda f: f"{_sino(f[1])}에서 "),
        (rf"({_N}) ?(?:{_UNIT}) ?[~∼〜] ?(?={_N})", lambda f: f"{_sino(f[1])}에서 "),
        # fractions, units, counters
        (r"½", "이분의 일"),
        (r"(?<![\w/.-])(\d{1,3})/(\d{1,3})(?![\d/]|\.\d)", _fraction),
        (r"(?<![\w)\].-])[-−](?=\d)", "마이너스 "),
        (rf"({_N}) ?({_UNIT})(?![A-Za-z/²³])", lambda f: f"{_sino(f[1])} {_UNITS[f[2]]}"),
        (r"(?<=제)(\d+)", lambda f: _sino(f[1])),
        (
            r"(\d+) ?번(?= ?(?:출구|버스|문제|채널|트랙|항목|선택지|국도|게이트|승강장|창구))",
            lambda f: f"{_sino(f[1])} 번",
        ),
        (rf"(?<![\d.,])(\d+(?:,\d{{3}})*) ?{_COUNTER}", _count),
        (r"(?<![\w])(?:No\.|#) ?(\d+)", lambda f: f"{_sino(f[1])} 번"),
        # what is left: an amount, and what follows said apart unless it is a particle or a scale
        (
            rf"({_N})(?=(원|년|월|일|분|초|층|호|세|도|인|위|점|회|개월|킬로|미터|퍼센트|달러|센트))",
            lambda f: f"{_sino(f[1])}" + ("" if f[2] in ("년", "월", "일") else " "),
        ),
        (_N, lambda f: _sino(f[0])),
        # signs
        (r"(\w) ?= ?(?=\w)", lambda f: f"{f[1]}{'은' if _closed(f[1]) else '는'} "),
        (r"(?<=\w) (->|[+−*×÷/<>→&-]) (?=\w)", lambda f: f" {_COMPARISONS[f[1]]} "),
        (r"(?<=\w)([+×÷])(?=\w)", lambda f: f" {_COMPARISONS[f[1]]} "),
        (r"\s[–—]\s|(?<=\w)—(?=\w)", ", "),
        (r"(?<!\w)[~∼≈] ?", "약 "),
        (r"(?<=\w)[~∼]+", ""),
        (r"±", "플러스 마이너스 "),
        (r"\be\.g\.,?", "예를 들어"),
        (r"\bi\.e\.,?", "즉"),
        (r"\betc\.?", "등"),
        (r"\bvs\.?(?!\w)", "대"),
        (r"\bDr\.?(?= ?\w)", "닥터"),
        (r"ㅋ{2,}|ㅎ{2,}|[ㅠㅜ]{2,}", ""),
        (r" {2,}", " "),
    )
]  # fmt: skip


def _points(number: str) -> str:
    return " 점 ".join(_sino(part) for part in number.split("."))


def say(text: str) -> str:
    """`text` as it is said; plain text in, plain text out."""
    for pattern, words in _RULES:
        text = pattern.sub(words, text)
    return text.strip()
