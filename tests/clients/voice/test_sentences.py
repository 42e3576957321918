import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.voice.sentences import FIRST_LONG, LONG, SentenceStream, columns

CASES = [
    ("Yes. It is raining. Bye.", ["Yes.", "It is raining.", "Bye."]),
    ("It is 3.14 long. Ok.", ["It is 3.14 long.", "Ok."]),
    ("2*3*4 is 24. Ok then.", ["2*3*4 is 24.", "Ok then."]),
    ("Dr. Smith came. He left.", ["Dr. Smith came.", "He left."]),
    ("Take fruit, e.g. Apples. Done.", ["Take fruit, e.g. Apples.", "Done."]),
    ("At 3 p.m. The train left.", ["At 3 p.m.", "The train left."]),
    ("At 3 p.m. Monday we go. Ok", ["At 3 p.m. Monday we go.", "Ok"]),
    ("At 3 p.m. we go. Ok", ["At 3 p.m. we go.", "Ok"]),
    ("The U.S. Army came. Ok", ["The U.S. Army came.", "Ok"]),
    ("He lives in the U.S. She does not.", ["He lives in the U.S.", "She does not."]),
    ("J. Smith and so on, etc. Then more.", ["J. Smith and so on, etc.", "Then more."]),
    ("No. 5 is alive. No. I do not.", ["No. 5 is alive.", "No.", "I do not."]),
    ("See example.com. Then go.", ["See example.com.", "Then go."]),
    ("Wait... what? Really... Yes", ["Wait... what?", "Really...", "Yes"]),
    ("I like it. 20 people came.", ["I like it.", "20 people came."]),
    ('He said "no." Then left.', ['He said "no."', "Then left."]),
    ('"Yes!" she said. **Bold.** End', ['"Yes!" she said.', "**Bold.**", "End"]),
    ("See `a. B` now. Ok", ["See `a. B` now.", "Ok"]),
    # lists
    ("1. First one\n2. Second one", ["1. First one", "2. Second one"]),
    ("- a\n- b\n\nEnd", ["- a", "- b", "End"]),
    ("Steps: 1. Wash 2. Dry 3. Fold. Ok", ["Steps: 1. Wash 2. Dry 3. Fold.", "Ok"]),
    # lines
    ("# Title\nText", ["# Title", "Text"]),
    ("hard\nwrapped text\nNew line", ["hard\nwrapped text", "New line"]),
    ("no end\n\nat all", ["no end", "at all"]),
    # other scripts
    (
        "오늘은 맑습니다. 비가 와요? 네",
        ["오늘은 맑습니다.", "비가 와요?", "네"],
    ),
    ("2026. 11. 25. 에 만나요. 네", ["2026. 11. 25. 에 만나요.", "네"]),
    ("我们去。你好！“好。”他", ["我们去。", "你好！", "“好。”", "他"]),
    ("", []),
    ("  \n ", []),
]


def cut(text: str) -> list[str]:
    stream = SentenceStream()
    return stream.feed(text) + stream.finish()


@pytest.mark.parametrize(("text", "pieces"), CASES)
def test_cuts(text: str, pieces: list[str]) -> None:
    assert cut(text) == pieces


def test_a_sentence_can_be_said_before_the_next_is_whole() -> None:
    stream = SentenceStream()
    assert stream.feed("It is sunny.") == []
    assert stream.feed(" T") == ["It is sunny."]


def test_a_long_first_sentence_is_cut_early_and_later_ones_are_not() -> None:
    long = "The capital of France is Paris, which has about two million people living in it, or so."
    assert cut(f"{long} {long}") == [
        "The capital of France is Paris,",
        "which has about two million people living in it, or so.",
        long,
    ]
    stream = SentenceStream()
    assert stream.feed(long[: FIRST_LONG + 1]) == ["The capital of France is Paris,"]


def test_a_very_long_sentence_is_cut_at_clauses_or_words() -> None:
    clauses = "Hi. " + "we went on and on without an end, " * 20
    pieces = cut(clauses)
    assert all(columns(piece) <= LONG for piece in pieces)
    assert all(piece.endswith("end,") for piece in pieces[1:])
    assert all(columns(piece) <= LONG for piece in cut("word " * 200))


def test_a_very_long_korean_clause_is_cut() -> None:
    text = (
        "서울은 대한민국의 수도이며 약 구백사십만 명이 살고 있는 도시로서 한강을 따라 발전했고 "
        "많은 사람들이 찾아옵니다."
    )
    assert cut(text)[0] == "서울은 대한민국의 수도이며"


def test_a_text_without_any_space_is_cut_somewhere() -> None:
    pieces = cut("a" * 5000)
    assert len(pieces) > 10
    assert "".join(pieces) == "a" * 5000


def test_a_stream_can_be_used_again() -> None:
    stream = SentenceStream()
    stream.feed("left over")
    assert stream.finish() == ["left over"]
    assert stream.feed("New. One") == ["New."]


# what sentences are made of, more often than single letters would make it
WORDS = (
    "a B word Word Dr. e.g. p.m. U.S. 1. 3.14 5 ? ! ... 。 ， , ; and 다. 고 - * ** ` ( ) “ ” — 😀"
)
BITS = st.lists(
    st.sampled_from([*re.split(" ", WORDS), " ", " ", " ", "\n", "\n\n"]) | st.text(max_size=5),
    max_size=60,
).map("".join)


@given(text=BITS, data=st.data())
def test_how_text_arrives_does_not_matter(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    stream = SentenceStream()
    pieces: list[str] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        pieces += stream.feed(text[start:end])
    assert pieces + stream.finish() == cut(text)


@given(text=BITS)
def test_no_word_is_lost(text: str) -> None:
    pieces = cut(text)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(piece and piece == piece.strip() for piece in pieces)


@given(words=st.lists(st.text("abcDE.,!?-", min_size=1, max_size=12), max_size=80))
def test_words_stay_whole(words: list[str]) -> None:
    assert " ".join(cut(" ".join(words))).split() == words
