"""Hours in which the assistant does not speak by itself, such as "22:00-07:00"."""

import re
from dataclasses import dataclass
from datetime import datetime, time
from typing import Final

from clients.i18n import _, marked
from clients.voice.errors import VoiceError

_SPAN: Final = re.compile(r"(\d{1,2}):(\d{2})\s*[-–~]\s*(\d{1,2}):(\d{2})")
_EXAMPLE: Final = marked("write it like 22:00-07:00, several with a comma between them")


@dataclass(frozen=True)
class QuietHours:
    """Spans of the day, local time; a span whose end is before its beginning goes past midnight."""

    spans: tuple[tuple[time, time], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "QuietHours":
        """From "22:00-07:00, 13:00-14:00"; empty text is no quiet hours at all. 24:00 is midnight.

        Raises:
            VoiceError: it is written differently, or there is no such time.
        """
        if not text.strip():
            return cls()
        return cls(tuple(_span(part.strip()) for part in text.split(",")))

    def is_quiet(self, now: datetime | time) -> bool:
        """Whether `now` (local time) is in a span; its end is not."""
        at = now.time() if isinstance(now, datetime) else now
        return any(
            begin <= at < end if begin < end else at >= begin or at < end
            for begin, end in self.spans
        )


def _span(text: str) -> tuple[time, time]:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise VoiceError(
            _("quiet hours cannot be {text!r}; {example}").format(text=text, example=_(_EXAMPLE))
        )
    begin, end = _time(found[1], found[2], text), _time(found[3], found[4], text)
    if begin == end:
        raise VoiceError(
            _(
                "quiet hours {text!r} begin when they end; for the whole day write 00:00-12:00, "
                "12:00-24:00"
            ).format(text=text)
        )
    return begin, end


def _time(hour: str, minute: str, text: str) -> time:
    if (int(hour), int(minute)) == (24, 0):
        return time(0)
    try:
        return time(int(hour), int(minute))
    except ValueError:
        raise VoiceError(
            _("there is no time {time} in quiet hours {text!r}; {example}").format(
                time=f"{hour}:{minute}", text=text, example=_(_EXAMPLE)
            )
        ) from None
