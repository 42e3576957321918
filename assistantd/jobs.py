"""A request for text on its way through the daemon, and the queue in which it waits.

The queue is fair between clients: who has the fewest answers under way comes first, then who has
waited longest without a turn. A session answers one message at a time.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from assistantd.protocol import Chat, Complete, Reply, Timings
from assistantd.sessions import Turn

if TYPE_CHECKING:
    from engine.generate import Sequence

CLIENTS_REMEMBERED = 1000
"""Clients whose last turn is remembered while they have nothing waiting."""

ReplyTo = Callable[[Reply], None]
"""Sends a reply to whoever made the request; may be called from any thread."""


@dataclass(eq=False)
class Job:
    """One chat or complete request."""

    client: bytes
    """Identity of the connection."""
    request_id: bytes
    request: Chat | Complete
    reply: ReplyTo
    received: float = field(default_factory=time.monotonic)
    turn: "Future[Turn] | None" = None
    """Of a chat in a session: storing the user's message, and what was said before it."""
    prompt_ids: list[int] | None = None
    sequence: "Sequence | None" = None
    parts: list[str] = field(default_factory=list)
    """Text of the answer so far."""
    started: float = 0.0
    first_token: float = 0.0
    last_progress: float = 0.0

    @property
    def session(self) -> str | None:
        """The session it belongs to."""
        return self.request.session if isinstance(self.request, Chat) else None

    @property
    def deadline(self) -> float:
        """Monotonic time by which it must have ended."""
        if self.request.deadline_ms is None:
            return float("inf")
        return self.received + self.request.deadline_ms / 1000

    @property
    def name(self) -> str:
        """The request id for logs."""
        return self.request_id.decode("utf-8", "backslashreplace")

    def timings(self) -> Timings:
        """Durations and token counts up to now."""
        now = time.monotonic()
        started, first = self.started or now, self.first_token or now
        n_tokens = len(self.sequence.completion_ids) if self.sequence else 0
        decode_s = now - first
        return Timings(
            queued_ms=round(1000 * (started - self.received), 1),
            prefill_ms=round(1000 * (first - started), 1),
            prompt_tokens=len(self.prompt_ids or ()),
            cached_tokens=self.sequence.n_cached if self.sequence else 0,
            first_token_ms=round(1000 * (first - self.received), 1),
            decode_ms=round(1000 * decode_s, 1),
            completion_tokens=n_tokens,
            tokens_per_second=round((n_tokens - 1) / decode_s, 2)
            if n_tokens > 1 and decode_s > 0
            else 0.0,
        )


class FairQueue:
    """Waiting jobs, by client."""

    def __init__(self) -> None:
        self._clients: dict[bytes, deque[Job]] = {}
        self._turns = itertools.count(1)
        self._last_turn: dict[bytes, int] = {}  # client → number of its last turn, oldest first

    def __len__(self) -> int:
        return sum(len(jobs) for jobs in self._clients.values())

    def __iter__(self) -> Iterator[Job]:
        for jobs in self._clients.values():
            yield from jobs

    def push(self, job: Job) -> None:
        """Add a job behind its client's others."""
        self._clients.setdefault(job.client, deque()).append(job)

    def remove(self, job: Job) -> None:
        """Take a job out."""
        jobs = self._clients[job.client]
        jobs.remove(job)
        if not jobs:
            del self._clients[job.client]

    def candidates(self, active: list[Job]) -> list[Job]:
        """The next job of each client, the client whose turn it is first.

        Jobs of a session that is being answered, or has an earlier job waiting, are passed over.
        """
        busy = {job.session for job in active if job.session}
        busy |= {job.session for job in self if job.session and job.turn is not None}
        under_way = {client: 0 for client in self._clients}
        for job in active:
            if job.client in under_way:
                under_way[job.client] += 1
        found: list[Job] = []
        for jobs in self._clients.values():
            for job in jobs:
                if job.session is None or job.turn is not None or job.session not in busy:
                    found.append(job)
                    break
        # the sort is stable: among equals, who came first
        found.sort(key=lambda job: (under_way[job.client], self._last_turn.get(job.client, 0)))
        return found

    def took_turn(self, job: Job) -> None:
        """Remove a job that is being started, and put its client behind the others."""
        self.remove(job)
        self._last_turn.pop(job.client, None)
        self._last_turn[job.client] = next(self._turns)
        if len(self._last_turn) > CLIENTS_REMEMBERED:
            del self._last_turn[next(iter(self._last_turn))]
