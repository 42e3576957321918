"""A request for text on its way through the daemon, and the queue in which it waits.

The queue is fair between clients: who has the fewest answers under way comes first, then who has
waited longest without a turn. A session answers one message at a time.

It is bounded, and fair there as well: a client without a place takes one from a client that has
several, and who was refused keeps his rank among those who wait, for as long as he comes back.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from assistantd.protocol import Chat, Complete, ModelInfo, Reply, Timings
from assistantd.sessions import Turn

if TYPE_CHECKING:
    from engine.generate import Engine, Sequence

REFUSED_REMEMBERED = 1000
"""Clients whose rank is kept while they have no place."""
REFUSED_GRACE_S = 2.0
"""No place is kept for a client that is so much later than it was told to come back."""
RANK_KEPT_S = 60.0
"""It keeps its rank so long after that: its machine may be busy."""

ReplyTo = Callable[[Reply], None]
"""Sends a reply to whoever made the request; may be called from any thread."""


@dataclass(eq=False)
class Job:
    """One chat or complete request."""

    client: bytes
    """Whose turn it is when it is this job's: a connection's name, or a device's."""
    request_id: bytes
    request: Chat | Complete
    reply: ReplyTo
    device: str | None = None
    """Id of the device that asks."""
    received: float = field(default_factory=time.monotonic)
    turn: "Future[Turn] | None" = None
    """Of a chat in a session: storing the user's message, and what was said before it."""
    prompt_ids: list[int] | None = None
    engine: "Engine | None" = None
    """Which computes the answer, once it was started; `model` is what that is."""
    model: ModelInfo | None = None
    sequence: "Sequence | None" = None
    parts: list[str] = field(default_factory=list)
    """Text of the answer so far."""
    started: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0
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

    @property
    def question(self) -> str:
        """What was asked; for a log that was asked to have it."""
        if isinstance(self.request, Complete):
            return self.request.prompt
        if self.request.messages:
            return self.request.messages[-1].content
        return self.request.text or ""

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


@dataclass
class _Refused:
    """A client that waits outside."""

    rank: int
    until: float
    """Monotonic time after which it is not expected any more."""
    expected: bool = True


class FairQueue:
    """Waiting jobs, by client.

    A client's rank is the moment from which it waits: when its job came (for the first time, if it
    was refused), or, if another one waited then, when its last turn began and again when that
    ended. A low rank comes first.
    """

    def __init__(self) -> None:
        self._clients: dict[bytes, deque[Job]] = {}
        self._ranks: dict[bytes, int] = {}  # of those in _clients
        self._refused: dict[bytes, _Refused] = {}  # clients without a place, the first first
        self._moments = itertools.count(1)

    def __len__(self) -> int:
        return sum(len(jobs) for jobs in self._clients.values())

    def __iter__(self) -> Iterator[Job]:
        for jobs in self._clients.values():
            yield from jobs

    # --- places ------------------------------------------------------------------------------

    def push(self, job: Job) -> None:
        """Add a job behind its client's others."""
        if job.client not in self._clients:
            refused = self._refused.pop(job.client, None)
            self._clients[job.client] = deque()
            self._ranks[job.client] = next(self._moments) if refused is None else refused.rank
        self._clients[job.client].append(job)

    def has_place(self, job: Job, limit: int, spare: int, now: float | None = None) -> bool:
        """Whether a job may be pushed.

        Not all places are for whoever comes next: as many are kept free as clients were refused
        before and are expected back.

        Args:
            limit: jobs that may wait in all.
            spare: with fewer than so many waiting, nothing is kept for those who may not come.
        """
        self._look_for_refused(time.monotonic() if now is None else now)
        n_waiting = len(self)
        return n_waiting < min(spare, limit) or n_waiting + self.n_before(job.client) < limit

    def n_before(self, client: bytes) -> int:
        """Clients that wait outside and come before this one."""
        known = self._refused.get(client)
        expected = [other.rank for other in self._refused.values() if other.expected]
        return len(expected) if known is None else sum(rank < known.rank for rank in expected)

    def to_displace(self, client: bytes) -> Job | None:
        """A job whose place a client may have that has none; None if no other has two to spare.

        It is the youngest of the client that has most. One whose question is on disk stays.
        """
        if client in self._clients:
            return None
        for jobs in sorted(self._clients.values(), key=len, reverse=True):
            if len(jobs) < 2:
                break
            for job in reversed(jobs):
                if job.turn is None and job is not jobs[0]:
                    return job
        return None

    def refused(self, client: bytes, wait_s: float, now: float | None = None) -> None:
        """Note that a client was told to come again after wait_s seconds."""
        if client in self._clients:
            return  # it has a place, and its rank with it
        now = time.monotonic() if now is None else now
        known = self._refused.get(client)
        if known is None and len(self._refused) >= REFUSED_REMEMBERED:
            return
        rank = next(self._moments) if known is None else known.rank
        self._refused[client] = _Refused(rank, now + wait_s + REFUSED_GRACE_S)

    def forget(self, client: bytes) -> None:
        """A client is gone."""
        self._refused.pop(client, None)

    def _look_for_refused(self, now: float) -> None:
        for client, refused in list(self._refused.items()):
            refused.expected = refused.until >= now
            if refused.until + RANK_KEPT_S < now:
                del self._refused[client]

    # --- turns -------------------------------------------------------------------------------

    def remove(self, job: Job) -> None:
        """Take a job out."""
        jobs = self._clients[job.client]
        jobs.remove(job)
        if not jobs:
            del self._clients[job.client]
            del self._ranks[job.client]

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
        found.sort(key=lambda job: (under_way[job.client], self._ranks[job.client]))
        return found

    def took_turn(self, job: Job) -> None:
        """Remove a job that is being started, and put its client behind the others."""
        self.remove(job)
        if job.client in self._ranks:
            self._ranks[job.client] = next(self._moments)

    def turn_ended(self, job: Job) -> None:
        """A job that took a turn has ended: who was served until now has not waited yet."""
        if job.client in self._ranks:
            self._ranks[job.client] = next(self._moments)
