from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.voice.commands import Command, Kind, parse
from clients.voice.skills import answer
from clients.voice.spoken import spoken

ENGLISH = {
    Kind.STOP: "stop|Stop!|please stop|jarvis stop|Jarvis, please stop.|stop please|quiet|be quiet"
    "|cancel|never mind|nevermind|Okay stop|stop talking|that's enough|shut up|stop it|stop now",
    Kind.REPEAT: "again|say that again|Say that again, please.|repeat that|one more time|repeat"
    "|what did you say|can you repeat that please|pardon",
    Kind.LOUDER: "louder|speak up|turn it up|volume up|turn up the volume|a little louder"
    "|could you speak louder please|raise the volume",
    Kind.QUIETER: "quieter|turn it down|volume down|turn the volume down|lower the volume|softer",
    Kind.MUTE: "mute|mute yourself|turn the sound off",
    Kind.UNMUTE: "unmute|turn the sound back on",
    Kind.SLOWER: "slower|speak slower|slow down|speak more slowly|a bit slower",
    Kind.FASTER: "faster|speak faster|speed up",
    Kind.TIME: "what time is it|What time is it now?|what's the time|tell me the time"
    "|jarvis what is"
    " the time|do you have the time|what is the current time",
    Kind.DATE: "what's the date|what day is it|what day is it today|What is the date today?"
    "|what's today's date|tell me the date",
}
KOREAN = {
    Kind.STOP: "그만|그만 해|그만 해 줘|그만해 주세요|멈춰|멈춰 줘|됐어|됐어요|아니야|조용히 해"
    "|취소"
    "|취소 해 줘|자비스 그만|이제 그만|조용히|스톱|그 만|자비스야 멈춰",
    Kind.REPEAT: "다시 말해|다시 말해 줘|한 번 더|한번 더 말해 주세요|다시 한 번|뭐라고"
    "|뭐라고 했어|다시"
    "|다시 얘기해 줘",
    Kind.LOUDER: "더 크게|크게 말해|소리 키워|볼륨 올려 줘|소리 좀 키워 줘|소리를 더 크게 해 줘"
    "|안 들려",
    Kind.QUIETER: "소리 줄여|소리 좀 줄여 줘|볼륨 낮춰|더 작게|볼륨 내려 주세요|작게 말해 줘",
    Kind.MUTE: "음소거|음소거 해 줘|소리 꺼",
    Kind.UNMUTE: "음소거 해제|소리 켜",
    Kind.SLOWER: "천천히|더 천천히 말해 줘|천천히 좀 말해 줘|좀 더 천천히",
    Kind.FASTER: "더 빨리|빨리 말해|더 빠르게 말해 줘",
    Kind.TIME: "몇 시야|지금 몇 시야|지금 몇 시예요|몇 시|지금 시간 알려 줘|시간이 어떻게 돼"
    "|몇 시지|"
    "지금 몇 시 인가요|자비스 지금 몇 시야",
    Kind.DATE: "오늘 며칠이야|오늘 날짜 알려 줘|오늘 무슨 요일이야|오늘이 며칠이지"
    "|오늘 몇 월 며칠이야"
    "|오늘 날짜",
}


@pytest.mark.parametrize(
    ("text", "language", "kind"),
    [
        (text, language, kind)
        for language, table in (("en", ENGLISH), ("ko", KOREAN))
        for kind, texts in table.items()
        for text in texts.split("|")
    ],
)
def test_commands(text: str, language: str, kind: Kind) -> None:
    assert parse(text, language) == Command(kind)


@pytest.mark.parametrize(
    ("text", "language", "percent"),
    [
        ("volume 50", "en", 50),
        ("set the volume to fifty percent", "en", 50),
        ("Set volume to 30%.", "en", 30),
        ("volume twenty five", "en", 25),
        ("turn it up to seventy", "en", 70),
        ("volume a hundred percent", "en", 100),
        ("volume zero", "en", 0),
        ("볼륨 50", "ko", 50),
        ("볼륨 오십", "ko", 50),
        ("볼륨을 오 십 퍼센트로 해 줘", "ko", 50),
        ("소리 이십오 프로로 맞춰 줘", "ko", 25),
        ("볼륨 백", "ko", 100),
        ("음량 30%로 줄여 줘", "ko", 30),
    ],
)
def test_volume(text: str, language: str, percent: int) -> None:
    assert parse(text, language) == Command(Kind.VOLUME, percent)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("", "en"),
        ("jarvis", "en"),
        ("computer please", "en"),
        ("stop the music in my head", "en"),
        ("how do I stop a nosebleed", "en"),
        ("what time is it in Tokyo", "en"),
        ("what is the date of the French revolution", "en"),
        ("say it in French again and again", "en"),
        ("is mute a word", "en"),
        ("volume of a sphere", "en"),
        ("volume 500", "en"),
        ("volume a", "en"),
        ("what is quiet quitting", "en"),
        ("그만두는 방법을 알려 줘", "ko"),
        ("다시 시작하는 법", "ko"),
        ("도쿄는 지금 몇 시야", "ko"),
        ("볼륨이 뭐야", "ko"),
        ("볼륨 오백", "ko"),
        ("오늘 날씨 알려 줘", "ko"),
        ("크게 웃는 법", "ko"),
        ("자비스", "ko"),
        ("", "ko"),
    ],
)
def test_questions_are_for_the_model(text: str, language: str) -> None:
    assert parse(text, language) is None


def test_any_wake_word_may_be_said_before() -> None:
    assert parse("Hey Alice, stop", "en", names=["alice"]) == Command(Kind.STOP)
    assert parse("jarvis stop", "en", names=["alice"]) is None
    assert parse("앨리스 그만", "ko", names=["앨리스"]) == Command(Kind.STOP)


@given(text=st.text(max_size=40), language=st.sampled_from(["en", "ko", "fr"]))
def test_anything_can_be_parsed(text: str, language: str) -> None:
    parse(text, language)


@pytest.mark.parametrize(
    ("kind", "at", "language", "written", "said"),
    [
        (Kind.TIME, "2026-11-25T19:30", "en", "It is 7:30 PM.", "It is seven thirty PM."),
        (Kind.TIME, "2026-11-25T00:05", "en", "It is 12:05 AM.", "It is twelve oh five AM."),
        (
            Kind.TIME,
            "2026-11-25T19:30",
            "ko",
            "지금은 오후 7시 30분이에요.",
            "지금은 오후 일곱 시 삼십 분이에요.",
        ),
        (Kind.TIME, "2026-11-25T09:00", "ko", "지금은 오전 9시예요.", "지금은 오전 아홉 시예요."),
        (
            Kind.DATE,
            "2026-11-25T09:00",
            "en",
            "It is Wednesday, November 25, 2026.",
            "It is Wednesday, November twenty-fifth, twenty twenty-six.",
        ),
        (
            Kind.DATE,
            "2026-06-10T09:00",
            "ko",
            "오늘은 2026년 6월 10일 수요일이에요.",
            "오늘은 이천이십육년 유월 십일 수요일이에요.",
        ),
    ],
)
def test_time_and_date(kind: Kind, at: str, language: str, written: str, said: str) -> None:
    text = answer(kind, datetime.fromisoformat(at), language)
    assert text == written
    assert spoken(text, language) == said


def test_other_commands_have_no_answer() -> None:
    assert answer(Kind.STOP, datetime(2026, 11, 25), "en") is None
