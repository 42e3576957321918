"""A token bucket: what may be done so often, and so many times at once."""

ROUNDING = 1e-6
"""Who has waited as long as he was told gets his token, whatever floating point makes of it."""


class Bucket:
    """Starts full. Not thread-safe.

    Args:
        now: seconds of a clock that only goes forward.
    """

    def __init__(self, now: float) -> None:
        self._spent = 0.0
        self._at = now

    def take(self, per_second: float, at_once: int, now: float) -> float:
        """Take a token: 0.0. If there is none: the seconds until there will be one.

        The rates may differ from one call to the next.
        """
        self._spent = max(0.0, self._spent - (now - self._at) * per_second)
        self._at = now
        if self._spent + 1 > at_once + ROUNDING:
            return (self._spent + 1 - at_once) / per_second
        self._spent += 1
        return 0.0
