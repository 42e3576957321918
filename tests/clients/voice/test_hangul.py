"""clients.voice.hangul: how alike Korean words sound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.voice.hangul import distance, is_hangul, jamo, open_syllables

SYLLABLES = st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)
WORDS = st.text(SYLLABLES, min_size=1, max_size=5)
ANYTHING = st.text(st.one_of(SYLLABLES, st.sampled_from(" ab[]1")), max_size=8)


def test_jamo() -> None:
    assert jamo("자비스") == ["ㅈ", "ㅏ", "ㅂ", "ㅣ", "ㅅ", "ㅡ"]
    assert jamo("안녕") == ["ㅏ", "-ㄴ", "ㄴ", "ㅕ", "-ㅇ"]  # a silent ㅇ is no sound
    assert jamo("힣 [unk] 가") == ["ㅎ", "ㅣ", "-ㅎ", "ㄱ", "ㅏ"]
    assert jamo("") == []


def test_is_hangul() -> None:
    assert is_hangul("자비스")
    assert is_hangul("가힣")
    assert not any(map(is_hangul, ("", "jarvis", "자비스1", "자 비스", "ㅈ")))


def test_open_syllables() -> None:
    syllables = open_syllables()
    assert len(set(syllables)) == len(syllables) == 19 * 8
    assert {"자", "비", "스", "아"} <= set(syllables)
    assert all(len(jamo(one)) in (1, 2) for one in syllables)


@given(ANYTHING, WORDS, ANYTHING)
def test_a_word_that_is_there_is_at_no_distance(before: str, word: str, after: str) -> None:
    assert distance(word, before + word + after) == 0


@given(WORDS, ANYTHING)
def test_no_further_than_if_nothing_was_heard(word: str, heard: str) -> None:
    assert 0 <= distance(word, heard) <= distance(word, "")
    assert distance(word, "") > 0


@given(WORDS, ANYTHING, ANYTHING)
def test_more_that_was_heard_brings_it_no_further(word: str, heard: str, more: str) -> None:
    assert distance(word, heard + more) <= distance(word, heard)


@pytest.mark.parametrize(
    ("nearer", "further"),
    [("차비스", "마비스"), ("자비쓰", "자비크"), ("자피스", "자기스"), ("저비스", "주비스")],
)
def test_what_sounds_alike_is_nearer(nearer: str, further: str) -> None:
    assert 0 < distance("자비스", nearer) < distance("자비스", further)


def test_known_distances() -> None:
    assert distance("자비스", "차비스") == pytest.approx(0.2)
    assert distance("자비스", "아 자비 스 어") == 0
    assert distance("자", "") == pytest.approx(1.8)
