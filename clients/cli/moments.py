"""Days and ages as they are typed: 2026-11-24, yesterday, 30d."""

import re
from datetime import date, datetime, timedelta

import click

from clients.i18n import _

_UNITS = {"h": 1 / 24, "d": 1, "w": 7, "y": 365}


def parse_day(text: str) -> date:
    """A day of the local calendar.

    Raises:
        click.BadParameter: it is none.
    """
    today = date.today()
    if text.lower() in ("today", "yesterday"):
        return today - timedelta(days=text.lower() == "yesterday")
    try:
        return date.fromisoformat(text)
    except ValueError as problem:
        told = _("{text!r} is no day; write it as {example}, or today, or yesterday")
        raise click.BadParameter(told.format(text=text, example=today.isoformat())) from problem


def start_of(day: date) -> float:
    """When a day begins in the local time zone, in Unix time.

    Raises:
        click.BadParameter: too long ago, or too far ahead.
    """
    try:
        moment = datetime(day.year, day.month, day.day).timestamp()
    except (ValueError, OverflowError, OSError):
        moment = -1.0
    if not 0 <= moment < 1e11:
        told = _("{day} is too long ago, or too far ahead")
        raise click.BadParameter(told.format(day=day.isoformat()))
    return moment


def parse_age(text: str) -> timedelta:
    """A length of time: 12h, 30d, 8w, 1y.

    Raises:
        click.BadParameter: it is none.
    """
    match = re.fullmatch(r"(\d{1,5})([hdwy])", text.strip().lower(), re.ASCII)
    if match is None:
        told = _("{text!r} is no age; write hours, days, weeks or years, as in 12h, 30d, 8w, 1y")
        raise click.BadParameter(told.format(text=text))
    return timedelta(days=int(match[1]) * _UNITS[match[2]])
