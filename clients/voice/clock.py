"""When a stream of samples was heard or played, from how many there were, not when a callback came.

Callbacks come late and in bursts, never early; samples come one after the other. The echo canceller
needs to know to a few samples what was played while something was heard, so the time of a sample is
the least that callbacks allow.
"""

from typing import Final

WINDOW_S: Final = 2.0
"""The most punctual callback of that time counts."""
SLACK_S: Final = 0.005
"""Later than that: samples were lost, or the device's clock is slower than ours."""
JUMP_S: Final = 0.5
"""Later than any busy machine is: it was interrupted."""


class SampleClock:
    """Turns counts of samples into seconds of a monotonic clock."""

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._end_s: float | None = None
        self._least_late_s = float("inf")
        self._window_s = 0.0

    def advance(self, n: int, now_s: float) -> float:
        """`n` more samples were done by `now_s` at the latest; when, in seconds."""
        span_s = n / self._rate_hz
        late_s = 0.0 if self._end_s is None else now_s - self._end_s - span_s
        if self._end_s is None or not 0 <= late_s <= JUMP_S:
            return self._restart(now_s)
        self._end_s += span_s
        self._least_late_s = min(self._least_late_s, late_s)
        self._window_s += span_s
        if self._window_s >= WINDOW_S:
            if self._least_late_s > SLACK_S:
                return self._restart(self._end_s + self._least_late_s)
            self._least_late_s, self._window_s = float("inf"), 0.0
        return self._end_s

    def _restart(self, end_s: float) -> float:
        self._end_s, self._least_late_s, self._window_s = end_s, float("inf"), 0.0
        return end_s
