import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.voice.spoken import SpokenText, spoken

MARKUP = [
    ("**Bold**, *it*, `code_x`, [link](https://a.com/x), ~~no~~", "Bold, it, code_x, link, no."),
    ("# Heading", "Heading."),
    ("- item one\n- item two", "item one. item two."),
    ("1. first\n2. second", "1, first. 2, second."),
    ("| a | b |\n|---|---|\n| 1 | 2 |", "a, b. 1, 2."),
    ("See https://www.example.com/path?q=1.", "See example dot com."),
    ("Write to joe@x.org.", "Write to joe at x dot org."),
    ("Hi 😀! 👍🏽", "Hi!"),
    ("😀", ""),
    ("---", ""),
    ("<b>Tags</b> &amp; more<br>", "Tags and more."),
    ("2*3*4 is 24.", "2 times 3 times 4 is 24."),
    ("**Bold. And more** here", "Bold. And more here."),
    ("Text\n```python\nprint('- x')\n```\nThen.", "Text. The code is in the text. Then."),
    ("```\nnever closed", "The code is in the text."),
    ("1. Do:\n   ```\n   x\n   ```\n2. End", "1, Do: The code is in the text. 2, End."),
    ("```x``` inline", "x inline."),
    ("~~~\n```\n~~~\nEnd", "The code is in the text. End."),
    ("> quoted", "quoted."),
    ("-5 degrees", "minus 5 degrees."),
    ("<speak>x</speak> [[h@l]]", "x [[h@l]]."),
]
ENGLISH = [
    ("It costs $5.20, €1 or £0.50.", "It costs 5 dollars and 20 cents, 1 euro or 50 pence."),
    ("₩1,000, $3.5 million, $5M", "1,000 won, 3.5 million dollars, 5 million dollars."),
    ("10 km at 12 km/h", "10 kilometers at 12 kilometers per hour."),
    ("20°C, 5 GB, 1 kg, 5-10 min", "20 degrees Celsius, 5 gigabytes, 1 kilogram, 5 to 10 minutes."),
    ("a 5-km run at 5 GB/s", "a 5 kilometer run at 5 gigabytes per second."),
    ("$10/month", "10 dollars per month."),
    ("7:30, 07:05 pm, 3 p.m.", "seven thirty, seven oh five PM, three PM."),
    ("7:00 or 19:00", "seven o'clock or nineteen hundred hours."),
    ("We left at 6 p.m. yesterday.", "We left at six PM yesterday."),
    ("2026-11-25", "November twenty-fifth, twenty twenty-six."),
    ("Nov 25, 2026 or Dec. 3rd", "November twenty-fifth, twenty twenty-six or December third."),
    ("25 November 2026", "November twenty-fifth, twenty twenty-six."),
    ("11/25/2026", "November twenty-fifth, twenty twenty-six."),
    ("3-5 people in 1939–1945", "3 to 5 people in nineteen thirty-nine to nineteen forty-five."),
    ("in 1984, since 2008", "in nineteen eighty-four, since two thousand eight."),
    ("1984 people in 1500 meters", "1984 people in 1500 meters."),
    ("the 1990s and the '90s", "the nineteen nineties and the nineties."),
    (
        "1/2, 3/4, 2 1/2, ½, 24/7",
        "one half, three quarters, 2 and a half, one half, twenty-four seven.",
    ),
    ("555-1234", "five five five, one two three four."),
    ("v1.2.3 and version 3.11.7", "version 1 point 2 point 3 and version 3 point 11 point 7."),
    ("192.168.0.1", "192 dot 168 dot 0 dot 1."),
    ("1st, 22nd, 100th", "first, twenty-second, one hundredth."),
    ("50% or 3.5%", "50 percent or 3.5 percent."),
    ("Dr. Smith vs. Mr. Brown", "Doctor Smith versus Mister Brown."),
    ("e.g. apples, i.e. fruit, etc.", "for example, apples, that is, fruit, et cetera."),
    ("No. 5, #3, No. Not that.", "number 5, number 3, No. Not that."),
    ("World War II, C++, C#", "World War II, C plus plus, C sharp."),
    ("2 + 2 = 4, 3×4", "2 plus 2 equals 4, 3 times 4."),
    ("16:9", "16 to 9."),
    ("5, 6, and 1,000,000", "5, 6, and 1,000,000."),
    ("AC/DC, and/or", "AC DC, and or."),
    ("99/99/2026 and 25:99", "99/99/2026 and 25 to 99."),
]
KOREAN = [
    ("지금은 3시 30분입니다.", "지금은 세 시 삼십 분입니다."),
    ("2명, 20살, 12개, 21권", "두 명, 스무 살, 열두 개, 스물한 권."),
    ("3개월, 2번째, 100명", "삼 개월, 두 번째, 백 명."),
    ("2026-11-25", "이천이십육년 십일월 이십오일."),
    ("2026년 6월 10일, 10월", "이천이십육년 유월 십일, 시월."),
    ("2026. 11. 25. 에 만나요.", "이천이십육년 십일월 이십오일 에 만나요."),
    ("₩1,000, $5.20, 1,000원", "천 원, 오 달러 이십 센트, 천 원."),
    ("3만 5천원", "삼만 오천 원."),
    ("3.14와 5%는", "삼 점 일사와 오 퍼센트는."),
    ("10km를 12km/h로", "십 킬로미터를 십이 킬로미터 퍼 아워로."),
    ("7:30, 오후 7:05, 07:05 pm", "일곱 시 삼십 분, 오후 일곱 시 오 분, 오후 일곱 시 오 분."),
    ("19:30, 15시, 24시간", "십구 시 삼십 분, 십오 시, 스물네 시간."),
    ("3~5명, 3-5km", "세 명에서 다섯 명, 삼에서 오 킬로미터."),
    ("1/2, 010-1234-5678", "이분의 일, 공일공 일이삼사 오육칠팔."),
    ("v1.2.3", "버전 일 점 이 점 삼."),
    ("20대 남성 2대", "이십 대 남성 두 대."),
    ("1번 출구에서 3번", "일 번 출구에서 세 번."),
    ("-5°C, 20℃", "마이너스 오 도, 이십 도."),
    ("2 + 3 = 5", "이 더하기 삼은 오."),
    ("```\nx\n```\n끝", "코드는 화면에 있어요. 끝."),
    ("**굵게** 쓰고 😀 `코드`도.", "굵게 쓰고 코드도."),
]


@pytest.mark.parametrize(("written", "said"), MARKUP + ENGLISH)
def test_english(written: str, said: str) -> None:
    assert spoken(written, "en") == said


@pytest.mark.parametrize(("written", "said"), KOREAN)
def test_korean(written: str, said: str) -> None:
    assert spoken(written, "ko") == said


def test_other_languages_lose_their_markup_only() -> None:
    assert spoken("**Hola** a las 7:30 😀\n```\nx\n```", "es") == "Hola a las 7:30."
    assert spoken("5 km", "en_US") == "5 kilometers."


def test_each_sentence_comes_as_soon_as_it_is_whole() -> None:
    stream = SpokenText("en")
    assert stream.feed("It is **5 km**. ") == []
    assert stream.feed("Then\n``") == ["It is 5 kilometers."]
    assert stream.feed("`py") == []
    assert stream.feed("\nx\n") == ["Then.", "The code is in the text."]
    assert stream.feed("``") == []
    assert stream.feed("`\nEnd") == []
    assert stream.finish() == ["End."]
    assert stream.feed("Again. A") == ["Again."]


TEXTS = st.lists(
    st.sampled_from(
        [
            *["a", "Word.", "```", "``", "`", "~~~", "\n", "\n", " ", " ", "**", "- ", "1. ", "|"],
            *["5", "km", "7:30", "다.", "$", "<b>", "http://a.b/c", "😀", "1/2", "-", "3시"],
        ]
    )
    | st.text(max_size=5),
    max_size=50,
).map("".join)


@pytest.mark.parametrize("language", ["en", "ko"])
@given(text=TEXTS, data=st.data())
def test_how_text_arrives_does_not_matter(text: str, data: st.DataObject, language: str) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    stream, whole = SpokenText(language), SpokenText(language)
    pieces: list[str] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        pieces += stream.feed(text[start:end])
    assert pieces + stream.finish() == whole.feed(text) + whole.finish()
    assert all(piece.strip() for piece in pieces)


@given(number=st.integers(0, 10**18), unit=st.sampled_from(["", "명", "km", "시", "원", ".5%"]))
def test_korean_leaves_no_digit(number: int, unit: str) -> None:
    said = spoken(f"약 {number}{unit}입니다", "ko")
    assert not any(character.isdigit() for character in said)


@pytest.mark.timeout(30)  # a second here; minutes if the time grew with the square of the length
@pytest.mark.parametrize("junk", ["*", " x" + " " * 50, ".", "(.", "1", "|", "[", "<a", "~`"])
def test_what_a_confused_model_repeats_is_no_burden(junk: str) -> None:
    spoken(junk * (20_000 // len(junk)), "en")
    spoken(junk * (20_000 // len(junk)), "ko")
