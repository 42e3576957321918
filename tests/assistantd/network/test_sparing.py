"""The log that cannot be flooded."""

import logging

import pytest

from assistantd.network.sparing import AT_ONCE, EVERY_S, SparingLog

log = logging.getLogger("test.sparing")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, object]]]:
    return [(record.message, record.fields) for record in caplog.records]  # type: ignore[attr-defined]


def test_the_first_are_logged_and_the_rest_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    sparing = SparingLog(log, clock)
    assert sparing.flush() is None
    for number in range(AT_ONCE + 1000):
        sparing.warning("bad", number=number)
    sparing.warning("other")
    assert lines(caplog) == [*(("bad", {"number": n}) for n in range(AT_ONCE)), ("other", {})]
    caplog.clear()
    clock.now += EVERY_S - 1
    assert sparing.flush() == 1.0 and lines(caplog) == []
    clock.now += 1
    assert sparing.flush() is None
    assert lines(caplog) == [("bad", {"more": 1000, "seconds": EVERY_S})]
    caplog.clear()
    sparing.warning("bad", number=0)
    assert lines(caplog) == [("bad", {"number": 0})]
