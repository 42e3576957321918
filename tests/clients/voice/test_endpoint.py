"""clients.voice.endpoint: when somebody has finished speaking."""

import pytest

from clients.voice.endpoint import End, Endpointer


def listen(*spans: tuple[float, float]) -> tuple[End | None, float]:
    """Why and after how many seconds it ends, given (probability, seconds) one after the other."""
    endpointer, heard_s = Endpointer(), 0.0
    for probability, span_s in spans:
        for _ in range(round(span_s / 0.01)):
            heard_s += 0.01
            if end := endpointer.hear(probability, 0.01):
                return end, heard_s
    return None, heard_s


@pytest.mark.parametrize(
    ("spans", "end", "after_s"),
    [
        ([(0, 1), (1, 2), (0, 5)], End.FINISHED, 3.6),
        ([(0, 1), (1, 1), (0, 0.5), (1, 1), (0, 5)], End.FINISHED, 4.1),
        ([(0, 9)], End.NO_SPEECH, 5.0),
        ([(0, 1), (1, 0.05), (0, 9)], End.NO_SPEECH, 5.0),  # a click
        ([(1, 99)], End.TOO_LONG, 15.0),
        ([(1, 2), (0, 0.5)], None, 2.5),
    ],
)
def test_why_and_when(spans: list[tuple[float, float]], end: End | None, after_s: float) -> None:
    assert listen(*spans) == (end, pytest.approx(after_s, abs=0.02))


def test_silence_began_when_it_became_quiet() -> None:
    """And not when it had been quiet for long enough to be told from a pause."""
    endpointer = Endpointer(trailing_s=0.5)
    for _ in range(20):
        assert endpointer.hear(0.9, 0.1) is None
    assert endpointer.hear(0.9, 0.1, quiet_s=0.1) is None
    assert endpointer.hear(0.0, 0.1, quiet_s=0.2) is None
    assert endpointer.silent_s == pytest.approx(0.2)
    assert endpointer.hear(0.0, 0.1, quiet_s=0.3) is None
    assert endpointer.hear(0.0, 0.1, quiet_s=0.4) is None
    assert endpointer.hear(0.0, 0.1, quiet_s=0.5) is End.FINISHED
