from datetime import datetime, time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.voice.errors import VoiceError
from clients.voice.quiet import QuietHours


@pytest.mark.parametrize(
    ("text", "at", "quiet"),
    [
        ("22:00-07:00", "21:59", False),
        ("22:00-07:00", "22:00", True),
        ("22:00-07:00", "00:00", True),
        ("22:00-07:00", "06:59", True),
        ("22:00-07:00", "07:00", False),
        ("13:00-14:30", "14:29", True),
        ("13:00-14:30", "12:59", False),
        (" 22:00 – 7:00 , 13:00~14:00 ", "13:30", True),
        ("22:00-24:00", "23:59", True),
        ("22:00-24:00", "00:00", False),
        ("", "03:00", False),
        ("00:00-12:00, 12:00-24:00", "12:00", True),
    ],
)
def test_hours(text: str, at: str, quiet: bool) -> None:
    hours = QuietHours.parse(text)
    assert hours.is_quiet(time.fromisoformat(at)) is quiet
    assert hours.is_quiet(datetime.fromisoformat(f"2026-11-25T{at}")) is quiet


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("night", "22:00-07:00"),
        ("22-7", "22:00-07:00"),
        ("22:00-07:00,", "22:00-07:00"),
        ("25:00-07:00", "no time 25:00"),
        ("22:00-07:60", "no time 07:60"),
        ("07:00-07:00", "begin when they end"),
    ],
)
def test_bad_text_says_how_to_write_it(text: str, says: str) -> None:
    with pytest.raises(VoiceError, match=says):
        QuietHours.parse(text)


@given(begin=st.times(), end=st.times(), at=st.times())
def test_the_other_way_round_is_the_rest_of_the_day(begin: time, end: time, at: time) -> None:
    if begin != end:
        day, night = QuietHours(((begin, end),)), QuietHours(((end, begin),))
        assert day.is_quiet(at) != night.is_quiet(at)
