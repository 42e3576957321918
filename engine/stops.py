"""Stop strings in streamed text: nothing of one is ever let out, not even its beginning."""

from collections.abc import Sequence


class StopMatcher:
    """Holds back the end of the text while it may be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self._stopped = False

    def push(self, text: str) -> tuple[str, bool]:
        """Text that may be shown now, and whether a stop string was met (then all has ended)."""
        if self._stopped:
            return "", True
        if not self._stops:
            return text, False
        self._held += text
        # the first to be complete ends it, so that how the text is cut makes no difference
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            emit, self._held, self._stopped = self._held[: min(found)[1]], "", True
            return emit, True
        keep = max(self._partial(stop) for stop in self._stops)
        cut = len(self._held) - keep
        emit, self._held = self._held[:cut], self._held[cut:]
        return emit, False

    def _partial(self, stop: str) -> int:
        """Length of the longest end of the held text that begins the stop string."""
        for n in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if stop.startswith(self._held[-n:]):
                return n
        return 0

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held
