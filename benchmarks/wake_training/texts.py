"""What is said in the training of wake words; none of it is in benchmarks/sentences.py."""

import random
import re
from functools import cache
from pathlib import Path

from benchmarks import sentences
from clients.voice import hangul, models
from clients.voice.vocabulary import Vocabulary

_ROOT = Path(__file__).parents[2]
JABISEU = "자비스"

KOREAN_CALLS = ("자비스", "자비스", "자비스", "자비스야", "헤이 자비스")
KOREAN_IPA = (
    "ʨabisɯ", "ʥabisɯ", "ʨˈabisɯ", "ʥˈabisɯ", "ʨabˈisɯ", "ʥabisˈɯ", "ʥabisɨ", "ʨabisɨ", "ʨaːbisɯ",
    "ʥabiːsɯ", "ʨˈaβisɯ", "ʥabisu", "ʨabisɯja", "ʥˈabisɯja", "heˈi ʨabisɯ", "hˈei ʥabisɯ",
)  # fmt: skip
IN_OTHER_LETTERS = {
    "ja": "ジャビス", "id": "jabisu", "ms": "jabis", "sw": "jabisu", "tr": "cabisı", "az": "cabısı",
    "it": "giabisu", "pl": "dżabisy", "eo": "ĝabisu", "hi": "जाबिसु", "ru": "джабисы",
    "de": "dschabisu", "ro": "giabisâ", "bg": "джабису", "mk": "џабису", "hr": "džabisu",
    "cs": "džabisu", "sk": "džabisy",
}  # fmt: skip
"""Nearly 자비스, as other languages of espeak-ng sound it."""

ENGLISH_ACCENTS = (
    "en-us", "en-us", "en", "en-gb-scotland", "en-us-nyc", "en-gb-x-rp", "en-029",
    "en-gb-x-gbclan", "en-gb-x-gbcwmd",
)  # fmt: skip
HEY_CALLS = ("hey jarvis", "hey jarvis", "hey, jarvis", "Hey Jarvis!", "hey Jarvis")
JARVIS_CALLS = ("jarvis", "Jarvis", "jarvis!")
HEY_IPA = (
    "hˈA ʤˈɑːɹvɪs", "hˌA ʤˈɑːɹvɪs", "hA ʤˈɑːɹvᵻs", "hˈA ʤˈɑːvɪs", "hˌA ʤˈɑːvɪs", "hˈA, ʤˈɑːɹvɪs",
    "hˈA ʤˈɑɹvɪs", "hˈA ʤˈɑːɹvəs",
)  # fmt: skip
JARVIS_IPA = ("ʤˈɑːɹvɪs", "ʤˈɑɹvᵻs", "ʤˈɑːvɪs", "ʤˈɑːɹvəs")
HEY_IN_OTHER_LETTERS = {
    "ja": "ヘイ ジャービス", "id": "hei jarvis", "tr": "hey carvis", "hi": "हे जार्विस",
    "ru": "хей джарвис", "pl": "hej dżarwis", "de": "hey dscharwis", "hr": "hej džarvis",
    "cs": "hej džarvis", "bg": "хей джарвис", "it": "ehi giarvis", "ko": "헤이 자비스",
}  # fmt: skip

KOREAN_QUESTIONS = (
    "영국의 수도는 어디예요", "모레 눈 와요", "삼십 초 뒤에 깨워 줘", "오늘 며칠이야",
    "텔레비전 꺼 줘", "바람은 왜 부나요", "소리 좀 키워 줘", "이순신이 누구예요",
    "노래 하나 틀어 줄래", "안녕", "지금 뭐 해", "메모 하나 남겨 줘", "창문 좀 닫아 줘",
    "뉴스 읽어 줘", "고마워", "이리 와 봐", "왜 대답이 없어", "알람 끄고 조용히 해",
    "우유를 장보기 목록에 넣어 줘", "내 말 들려",
)  # fmt: skip
ENGLISH_QUESTIONS = (
    "how far away is the moon", "is it cold outside", "wake me up at seven", "what's the date",
    "play some jazz", "who painted the Mona Lisa", "make it louder", "tell me a joke", "stop",
    "good morning", "add milk to my list", "are you there", "open the window", "dim the lights",
    "how do I boil an egg", "read me the news", "never mind", "remind me about the meeting",
    "can you hear me", "translate thank you into French", "I need some help",
)  # fmt: skip

_NEAR_ENGLISH = (
    "service", "services", "serve us", "harvest", "Travis", "Davis", "nervous", "Jervis", "Harvey",
    "jars of it", "jar of it", "jargon", "garden", "Gervase", "carve this", "marvellous", "Marvin",
    "Java is", "Jarvik", "Jarred", "George", "just this", "charming", "starve us", "chalice",
    "gravy", "office", "varnish", "larvae", "Elvis", "Mavis", "Jonas", "Charles", "Charlie",
    "James", "Jasper", "Jamie", "Jack", "justice", "Janice", "jealous", "Jupiter", "journey",
    "jarring", "John is", "jaw is", "job is", "jaunty", "Darwin", "Janet", "charge this",
)  # fmt: skip
_HEY = (
    "Martin", "Google", "Mycroft", "Marcus", "Sarah", "Joe", "Jordan", "you", "there", "kids",
    "everybody", "what are you doing", "come here", "James", "Charlie", "Travis", "Davis", "Java",
    "service", "Charles", "Janice", "John", "look at this", "Harvey", "Jude", "Siri", "computer",
)  # fmt: skip
_AS_A_NAME = (
    "Mr Jarvis said that he would be late.", "I met Jarvis at the station.",
    "The Jarvis family moved away.", "Jarvis Avenue is closed.", "Was that Jarvis on the phone?",
)  # fmt: skip
"""Not "hey jarvis", and not to be taken for it."""


def _fresh(text: str) -> bool:
    """Whether nobody says it in the benchmarks."""
    return text not in _KNOWN and not any(known in text for known in _KNOWN)


_KNOWN = {
    text.casefold().strip(" .?")
    for text in (
        *sentences.TEST_KOREAN, *sentences.TEST_ENGLISH, *sentences.DEVELOPMENT_KOREAN,
        *sentences.DEVELOPMENT_ENGLISH, *sentences.TEST_QUESTIONS, *sentences.DEVELOPMENT_QUESTIONS,
        *sentences.ENGLISH_QUESTIONS,
    )
    if text
}  # fmt: skip
assert not _KNOWN & {text.casefold() for text in (*KOREAN_QUESTIONS, *ENGLISH_QUESTIONS)}


@cache
def korean_sentences() -> tuple[str, ...]:
    """What this project says to Koreans."""
    found = set()
    for path in _ROOT.glob("*/**/ko/LC_MESSAGES/*.po"):
        for text in re.findall(r'"((?:[^"\\]|\\.)*)"', path.read_text("utf-8")):
            text = re.sub(r"\{.*?\}|%\S+|[`\\<>\[\]()_*]|[A-Za-z./-]{2,}", " ", text)
            text = " ".join(text.split())
            if len(re.findall("[가-힣]", text)) > 5 and JABISEU not in text and _fresh(text):
                found.add(text[:90])
    return tuple(sorted(found))


@cache
def korean_words() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Of the recogniser: any, those near to 자비스, and those that end like its first half."""
    words = sorted(
        word
        for word in Vocabulary(models.find(None, "ko")).words
        if hangul.is_hangul(word) and 1 < len(word) < 8 and JABISEU not in word
    )
    random.Random("words").shuffle(words)
    some = words[:30_000]
    near = [word for word in words[:60_000] if hangul.distance(JABISEU, word) <= 1.6]
    halves = [word for word in words if word[-1] == "비" and hangul.distance("자비", word) <= 0.7]
    return tuple(some), tuple(near), tuple(halves)


def korean(r: random.Random) -> str:
    """A sentence, or words after one another."""
    some, near, halves = korean_words()
    which = r.random()
    if which < 0.35:
        return r.choice(korean_sentences())
    words = [r.choice(some) for _ in range(r.randint(2, 8))]
    if which > 0.55:
        words[r.randrange(len(words))] = r.choice(near)
    if which > 0.85:
        after = r.choice([word for word in r.sample(some, 300) if word[0] in "스슬슨습수시서세"])
        words += [r.choice(halves), after]
    return " ".join(words) if JABISEU not in "".join(words) else r.choice(some)


_JOINED = (
    "로",
    "는",
    "가",
    "의",
    "에",
    "까지",
    "만",
    "도",
    "",
    "",
    " 스",
    " 수",
    " 시",
    "심",
    "비스",
)
_HALF = (
    "자비",
    "자비",
    "차비",
    "제비",
    "장비",
    "잡비",
    "서비",
    "다비",
    "자기",
    "좌비",
    "저비",
    "자미",
)
_ALIKE = (
    "서비스",
    "데이비스",
    "비스",
    "제비스트",
    "재미스",
    "자비심",
    "자비에르",
    "비스듬",
    "자세히",
)


def near_korean(r: random.Random) -> str:
    """Words that are near to 자비스, and some after them."""
    some, near, halves = korean_words()
    words = []
    for _ in range(r.randint(1, 3)):
        which = r.random()
        if which < 0.45:
            words.append(r.choice(_HALF) + r.choice(_JOINED))
        elif which < 0.6:
            words.append(r.choice(halves) + r.choice(_JOINED))
        else:
            words.append(r.choice((*near[:300], *_ALIKE)))
        words += [r.choice(some) for _ in range(r.randint(0, 2))]
    text = " ".join(words)
    return text if JABISEU not in text.replace(" ", "") and _fresh(text) else r.choice(some)


def near_english(r: random.Random) -> str:
    """Words that are near to "jarvis" or "hey jarvis", and some after them."""
    words = [r.choice(_NEAR_ENGLISH)]
    if r.random() < 0.6:
        words = ["hey", r.choice((*_HEY, *_NEAR_ENGLISH))]
    return " ".join([*words, *(r.choice(english_words()) for _ in range(r.randint(0, 3)))])


@cache
def english_sentences() -> tuple[str, ...]:
    """Of this project's documents."""
    found = set()
    for path in [*_ROOT.glob("docs/*.md"), _ROOT / "README.md", *_ROOT.glob("*/**/*.py")]:
        if ".venv" in path.parts or "tests" in path.parts or "benchmarks" in path.parts:
            continue
        for text in re.findall(r"[A-Z][A-Za-z ,'\n]{25,140}[.?:]", path.read_text("utf-8")):
            text = " ".join(text.split())
            if "arvis" not in text and _fresh(text.casefold()):
                found.add(text)
    return tuple(sorted(found))


@cache
def english_words() -> tuple[str, ...]:
    """Any that are in those."""
    return tuple(sorted({word for text in english_sentences() for word in text.split()}))


def english(r: random.Random) -> str:
    """A sentence, or words after one another; without "Jarvis"."""
    which = r.random()
    if which < 0.5:
        return r.choice(english_sentences())
    words = [r.choice(english_words()) for _ in range(r.randint(2, 8))]
    if which > 0.7:
        words[r.randrange(len(words))] = r.choice(_NEAR_ENGLISH)
    if which > 0.85:
        words.insert(0, f"hey {r.choice((*_HEY, *_NEAR_ENGLISH))}")
    return " ".join(words)


def as_a_name(r: random.Random) -> str:
    """A sentence with "Jarvis" that calls nobody."""
    return r.choice(_AS_A_NAME)
