"""What the daemon counts: requests and how they end, tokens, durations, what went wrong.

Each number has one thread that changes it, so there is no lock: the serving thread counts requests
and frames, the engine thread tokens, durations, loads and relief. Others read them while they
change, one number at a time. Nothing here grows: the keys are the protocol's types and codes, never
what a client sends.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import get_args

from assistantd.protocol import (
    Counters,
    Done,
    Error,
    ErrorCode,
    HistogramInfo,
    Reply,
    Request,
)

WAIT_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds, of queueing and of the first token: a cached prompt, up to a long one on a slow disk."""
TOKEN_BOUNDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Seconds for a token: 500 a second for a tiny model, to one in five seconds from an SD card."""
KINDS = tuple(sorted(str(kind.__struct_config__.tag) for kind in get_args(Request)))
OUTCOMES = ("done", "cancelled", "gone", *get_args(ErrorCode))
"""How a request ends: done, cancelled (with what it had), gone (its client was dropped), or one of
the protocol's error codes. `deadline` is also said of answers that were cut off by it."""


class Histogram:
    """Durations in fixed buckets.

    Args:
        bounds: upper bounds in seconds, rising; one more bucket takes what is above.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Something took so long; `times` of them, each."""
        self._counts[bisect_left(self._bounds, seconds)] += times
        self._sum += seconds * times

    def info(self) -> HistogramInfo:
        """What it holds."""
        return HistogramInfo(list(self._bounds), list(self._counts), round(self._sum, 6))


class RequestCounts:
    """Requests by type and by how they ended. Belongs to the serving thread."""

    def __init__(self) -> None:
        self._counts = {kind: dict.fromkeys(OUTCOMES, 0) for kind in KINDS}

    def ended(self, kind: str, reply: Reply) -> None:
        """A request of this type got its last message."""
        self._counts[kind][outcome_of(reply)] += 1

    def gone(self, kind: str) -> None:
        """The client of a request was dropped before its end."""
        self._counts[kind]["gone"] += 1

    def of(self, outcome: str) -> int:
        """Requests of all types that ended so."""
        return sum(counts[outcome] for counts in self._counts.values())

    def table(self) -> dict[str, dict[str, int]]:
        """Type → outcome → requests, without those that never happened."""
        found = {
            kind: {outcome: n for outcome, n in counts.items() if n}
            for kind, counts in self._counts.items()
        }
        return {kind: counts for kind, counts in found.items() if counts}


class EngineCounts:
    """Tokens, durations, models and memory. Belongs to the engine thread."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.completion_tokens = 0
        self.model_loads = 0
        self.model_load_failures = 0
        self.relief_steps = 0
        self.queueing = Histogram(WAIT_BOUNDS)
        self.first_token = Histogram(WAIT_BOUNDS)
        self.token = Histogram(TOKEN_BOUNDS)


def kind_of(request: Request) -> str:
    """A request's type as the protocol calls it: one of KINDS."""
    return str(request.__struct_config__.tag)


def outcome_of(reply: Reply) -> str:
    """How a request ended, by its last message: one of OUTCOMES."""
    if isinstance(reply, Error):
        return reply.error.code
    if isinstance(reply, Done) and reply.finish_reason in ("cancelled", "deadline"):
        return reply.finish_reason
    return "done"


def counters(
    requests: RequestCounts,
    engine: EngineCounts,
    *,
    bad_frames: int,
    dropped_clients: int,
    streamed_bytes: int,
) -> Counters:
    """All of it, for the protocol."""
    return Counters(
        requests=requests.table(),
        refused=requests.of("busy"),
        bad_frames=bad_frames,
        dropped_clients=dropped_clients,
        prompt_tokens=engine.prompt_tokens,
        cached_tokens=engine.cached_tokens,
        completion_tokens=engine.completion_tokens,
        model_loads=engine.model_loads,
        model_load_failures=engine.model_load_failures,
        relief_steps=engine.relief_steps,
        streamed_bytes=streamed_bytes,
        queueing_s=engine.queueing.info(),
        first_token_s=engine.first_token.info(),
        token_s=engine.token.info(),
    )
