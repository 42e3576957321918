"""What is answered without the model, which cannot know it: the time and the date."""

from datetime import datetime
from typing import Final

from clients.voice.commands import Kind

_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_KO_DAYS: Final = "월화수목금토일"
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def answer(kind: Kind, now: datetime, language: str) -> str | None:
    """The written answer to a question that needs no model; None for any other command.

    Args:
        now: local time.
        language: "ko", or any other for English; the machine's locale does not matter.
    """
    korean = language.casefold().startswith("ko")
    if kind is Kind.TIME:
        return _time_ko(now) if korean else _time_en(now)
    if kind is Kind.DATE:
        return _date_ko(now) if korean else _date_en(now)
    return None


def _time_en(now: datetime) -> str:
    return f"It is {now.hour % 12 or 12}:{now.minute:02} {'AM' if now.hour < 12 else 'PM'}."


def _time_ko(now: datetime) -> str:
    minutes = f" {now.minute}분" if now.minute else ""
    half = "오전" if now.hour < 12 else "오후"
    return f"지금은 {half} {now.hour % 12 or 12}시{minutes}{'이에요' if minutes else '예요'}."


def _date_en(now: datetime) -> str:
    return f"It is {_DAYS[now.weekday()]}, {_MONTHS[now.month - 1]} {now.day}, {now.year}."


def _date_ko(now: datetime) -> str:
    day = _KO_DAYS[now.weekday()]
    return f"오늘은 {now.year}년 {now.month}월 {now.day}일 {day}요일이에요."
