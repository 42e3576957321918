"""Commands understood at once, without the model, in English and Korean.

Only a whole utterance is a command: "stop", "jarvis, please stop", not "stop the music". What is
done about one is left to the loop; skills.py answers TIME and DATE.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class Kind(Enum):
    """What is asked for."""

    STOP = auto()
    REPEAT = auto()
    LOUDER = auto()
    QUIETER = auto()
    VOLUME = auto()
    MUTE = auto()
    UNMUTE = auto()
    SLOWER = auto()
    FASTER = auto()
    TIME = auto()
    DATE = auto()


@dataclass(frozen=True)
class Command:
    """A command; percent, 0 to 100, is VOLUME's."""

    kind: Kind
    percent: int | None = None


NAMES: Final = ("jarvis", "computer", "assistant", "자비스", "컴퓨터", "비서")
"""What the assistant may be called, before or after a command."""


def parse(text: str, language: str, names: Iterable[str] = NAMES) -> Command | None:
    """The command that `text`, a whole utterance, is; None if it is for the model.

    Args:
        text: as the recogniser wrote it; case, punctuation and, in Korean, spaces do not matter.
        language: "ko", or any other for English.
        names: the wake words, without which the command is looked for.
    """
    words = re.sub(r"[^\w%]+", " ", unicodedata.normalize("NFC", text).casefold()).strip()
    called = "|".join(sorted((re.escape(name.casefold()) for name in names), key=len, reverse=True))
    if language.casefold().startswith("ko"):
        return _match(re.sub(r"\s", "", words), _KOREAN, rf"(?:{called})?[아야]?", "")
    return _match(words, _ENGLISH, _before(called), _after(called))


def _match(
    words: str, patterns: dict[Kind, re.Pattern[str]], before: str, after: str
) -> Command | None:
    # "computer" may be both the name and, alone, nothing: an empty command is none
    for said in (words, re.sub(rf"{after}$", "", re.sub(rf"^{before}", "", words))):
        for kind, pattern in patterns.items():
            found = pattern.fullmatch(said)
            if found is None:
                continue
            if kind is not Kind.VOLUME:
                return Command(kind)
            percent = _number(found["n"])
            if percent is not None and percent <= 100:
                return Command(kind, percent)
    return None


# English


def _before(called: str) -> str:
    return (
        rf"(?:(?:{called}|hey|hi|ok|okay|oh|no|please|just|now|can you|could you|would you"
        rf"|will you"
        r"|can i|i said|alright|all right|um|uh) )*"
    )


def _after(called: str) -> str:
    return (
        rf"(?: (?:{called}|please|now|thanks|thank you|for me|a bit|a little|a little bit|it"
        r"|right now|already|ok|okay|then|will you|would you))*"
    )


_ONES: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety"
_EN_NUMBERS: Final = {word: n for n, word in enumerate(_ONES.split(" "))}
_EN_TENS: Final = {word: 10 * n for n, word in enumerate(_TENS.split(" "), 2)}
_EN_NUMBER: Final = (
    rf"(?P<n>\d{{1,3}}|(?:(?:{'|'.join([*_EN_NUMBERS, *_EN_TENS, 'a', 'hundred'])}) ?)+)"
)
_SOUND: Final = r"(?:the |your )?(?:volume|sound|voice)"

_ENGLISH: Final = {
    kind: re.compile(pattern)
    for kind, pattern in {
        Kind.STOP: (
            r"(?:stop|quiet|be quiet|silence|cancel|never ?mind|shut up|enough|that s enough"
            r"|thats enough|hush|shush|stop (?:it|that|talking|speaking|reading|now)|stop stop"
            r"|forget it|forget about it|cancel (?:that|it)|no stop|that s all|thats all"
            r"|that is all)"
        ),
        Kind.REPEAT: (
            r"(?:again|repeat|repeat (?:that|it)(?: again)?|say (?:that|it) again|one more time"
            r"|once more|what did you say|what was that|come again|pardon|pardon me|say again"
            r"|say (?:that|it) one more time|i (?:didn t|didnt|did not) (?:hear|catch) (?:that"
            r"|you))"
        ),
        Kind.UNMUTE: rf"(?:un ?mute|turn {_SOUND} (?:back )?on|{_SOUND} on)",
        Kind.MUTE: rf"(?:mute|mute (?:it|yourself|{_SOUND})|turn {_SOUND} off|turn off {_SOUND})",
        Kind.VOLUME: (
            rf"(?:(?:set|turn|change|put) )?(?:{_SOUND}|it)(?: (?:up|down))?(?: (?:to|at))? ?"
            rf"{_EN_NUMBER} ?(?:percent|per cent|%)?"
        ),
        Kind.LOUDER: (
            r"(?:(?:speak |talk |a (?:bit|little) |much )?louder|speak up"
            rf"|(?:turn|raise|increase|bring) (?:it|{_SOUND})(?: up)?|turn up {_SOUND}|{_SOUND} up"
            rf"|(?:raise|increase) {_SOUND})"
        ),
        Kind.QUIETER: (
            r"(?:(?:speak |talk |a (?:bit|little) |much )?(?:quieter|softer|more quietly)"
            rf"|(?:turn|bring) (?:it|{_SOUND}) down|turn down {_SOUND}|{_SOUND} down"
            rf"|(?:lower|decrease|reduce) {_SOUND}|not so loud|too loud|that s too loud)"
        ),
        Kind.SLOWER: (
            r"(?:(?:speak |talk |a (?:bit|little) )?(?:slower|more slowly)|slow down|too fast"
            r"|not so fast|(?:speak|talk) slowly)"
        ),
        Kind.FASTER: (
            r"(?:(?:speak |talk |a (?:bit|little) )?(?:faster|more quickly)|speed up|too slow)"
        ),
        Kind.TIME: (
            r"(?:what(?: s| is)? (?:the )?time(?: is it)?(?: now)?|whats the time"
            r"|what time (?:is it|do you have)|time"
            r"|(?:tell|give) me (?:the (?:current )?time|what time it is)|do you (?:have"
            r"|know) the time"
            r"|do you know what time it is|(?:what is |what s )?the current time)"
        ),
        Kind.DATE: (
            r"(?:what(?: s| is)? (?:the |today s |todays )?date(?: today| is it| is it today)?"
            r"|what day is (?:it|today|it today)|whats the date(?: today)?"
            r"|what(?: s| is) today(?: s date)?|date|what is today|which day is it(?: today)?"
            r"|(?:tell|give) me (?:the date|today s date|what day it is)"
            r"|what day of the week is it)"
        ),
    }.items()
}

# Korean, without spaces

_END: Final = r"(?:좀)?(?:해)?(?:요|라|봐|줘|줘요|줘라|주세요|줄래|줄래요|주라|주실래요|봐요|줘봐)?"
_IS: Final = (
    r"(?:야|이야|에요|예요|이에요|이예요|인가요|인가|입니까|이니|니|이지|지|죠|이죠|일까|냐|인지)?"
)
_TELL: Final = rf"(?:좀)?(?:알려|말해|가르쳐|얘기해){_END}"
_VOICE: Final = r"(?:소리|볼륨|음량|목소리)(?:를|을|이|가)?"
_KO_DIGITS: Final = {c: n for n, c in enumerate("영일이삼사오육칠팔구")} | {"공": 0}
_KO_NUMBER: Final = r"(?P<n>\d{1,3}|[영공일이삼사오육칠팔구십백]+)"

_KOREAN: Final = {
    kind: re.compile(pattern)
    for kind, pattern in {
        Kind.STOP: (
            rf"(?:이제|좀|야|제발|아니)?(?:그만|멈춰|멈추|멈춤|정지|중지|스톱|스탑|조용|조용히"
            rf"|취소|쉿|닥쳐"
            r"|그만말|그만말해|그만얘기해|그만이야기해|그만읽어|그만둬|말하지마|입다물어|시끄러"
            r"|시끄러워"
            rf"|관둬|집어치워){_END}|(?:이제|아니)?(?:됐어|됐어요|됐습니다|됐다|되었어|되었어요"
            rf"|됐고"
            r"|아니야|아니에요|아니예요|아냐|아뇨|아니요됐어|충분해|충분해요)"
        ),
        Kind.REPEAT: (
            r"(?:아까거|방금거)?(?:다시|한번더|다시한번|한번다시|또|또한번"
            r"|다시한번더)(?:좀)?(?:말|말해|말씀"
            rf"|말씀해|얘기|얘기해|이야기|이야기해|들려|읽어|반복|반복해)?{_END}|반복{_END}"
            r"|(?:방금|지금)?뭐라고(?:했어|했지|했어요|그랬어|하셨어|하셨어요|했니|요)?"
            r"|못들었어|못들었어요|잘안들려"
            r"|뭐라구"
        ),
        Kind.UNMUTE: rf"음소거(?:해제|풀어|취소|꺼){_END}|{_VOICE}(?:다시)?켜{_END}",
        Kind.MUTE: rf"(?:음소거|무음|뮤트){_END}|{_VOICE}(?:좀)?꺼{_END}",
        Kind.VOLUME: (
            # no 이 or 가, which would eat a two
            rf"(?:소리|볼륨|음량|목소리)(?:를|을)?(?:좀)?{_KO_NUMBER}(?:퍼센트|프로|%"
            rf"|퍼)?(?:으로|로|까지)?"
            rf"(?:설정|맞춰|올려|내려|낮춰|줄여|키워|조절)?{_END}"
        ),
        Kind.LOUDER: (
            rf"(?:{_VOICE})?(?:좀)?(?:더|조금|조금더|좀더)?(?:크게|키워|높여)(?:말|말해"
            rf"|얘기해)?{_END}"
            rf"|{_VOICE}(?:좀)?(?:더|조금|조금더|좀더)?(?:올려|업){_END}|안들려|안들려요"
        ),
        Kind.QUIETER: (
            rf"(?:{_VOICE})?(?:좀)?(?:더|조금|조금더|좀더)?(?:작게|낮춰|조그맣게)(?:말|말해"
            rf"|얘기해)?{_END}"
            rf"|{_VOICE}(?:좀)?(?:더|조금|조금더|좀더)?(?:줄여|내려|다운|작게){_END}|너무커"
            rf"|너무시끄러워"
        ),
        Kind.SLOWER: (
            rf"(?:좀|조금)?(?:더|조금더)?(?:천천히|느리게)(?:좀)?(?:말|말해|얘기해|이야기해"
            rf"|읽어)?{_END}"
            r"|너무빨라|너무빨라요"
        ),
        Kind.FASTER: (
            rf"(?:좀|조금)?(?:더|조금더)?(?:빨리|빠르게)(?:좀)?(?:말|말해|얘기해|이야기해"
            rf"|읽어){_END}"
            r"|(?:좀|조금)?더(?:빨리|빠르게)|너무느려|너무느려요"
        ),
        Kind.TIME: (
            rf"(?:지금|현재|지금은|지금이)?(?:몇시|시간|시각)(?:이|은|을|가)?(?:{_IS}|몇시{_IS}"
            rf"|{_TELL}"
            r"|어떻게돼|어떻게되나요|어떻게되지|됐어|됐지|됐나요|쯤됐어)"
        ),
        Kind.DATE: (
            rf"(?:오늘|지금|오늘은|오늘이)?(?:의)?(?:날짜|며칠|몇일|몇월며칠|몇월몇일|무슨요일"
            rf"|무슨날|요일)"
            rf"(?:이|은|을|가)?(?:{_IS}|{_TELL}|어떻게돼|어떻게되나요|어떻게되지)"
        ),
    }.items()
}


def _number(text: str) -> int | None:
    """0 to 999 in digits, English or Sino-Korean words; None if it is none."""
    text = text.strip()
    if text.isdecimal():
        return int(text)
    if not text.isascii():
        return _korean_number(text)
    if text == "a":
        return None
    total = 0
    for word in text.split():
        if word in _EN_NUMBERS:
            total += _EN_NUMBERS[word]
        elif word in _EN_TENS:
            total += _EN_TENS[word]
        elif word == "hundred":
            total = max(1, total) * 100
        elif word != "a":
            return None
    return total


def _korean_number(text: str) -> int:
    total, digit = 0, 0
    for character in text:
        if character in _KO_DIGITS:
            digit = digit * 10 + _KO_DIGITS[character]
        else:
            total += max(1, digit) * (10 if character == "십" else 100)
            digit = 0
    return total + digit
