"""Requests for text while they are worked on: from the queue into the engine, and out again.

Belongs to the engine thread (scheduler.py). Every job ends here once, with one last message.
"""

import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from assistantd.config import Config
from assistantd.database import is_damage
from assistantd.forgetting import Found
from assistantd.i18n import _, ngettext
from assistantd.jobs import FairQueue, Job, ReplyTo
from assistantd.loading import brief
from assistantd.log import fields, text_fields
from assistantd.memory import EngineMemory
from assistantd.metrics import EngineCounts
from assistantd.model_change import ModelChanges, error
from assistantd.prompts import Prompts
from assistantd.protocol import (
    Chat,
    Delta,
    Done,
    Error,
    ErrorCode,
    FinishReason,
    Progress,
    SessionInfo,
)
from assistantd.sessions import SessionStore, Turn
from assistantd.storage import DamagedError, Storage
from engine.errors import EngineError, FileChangedError, GrammarError, PromptTooLongError

if TYPE_CHECKING:
    from engine.generate import Engine, StepOutput

log = logging.getLogger(__name__)

PROGRESS_AFTER_S = 1.0
"""A prompt that takes longer to read than this reports how far it is, as often."""
ANSWERS_REMEMBERED = 20
"""Recent answers from which the waiting time of a full queue is guessed."""
MAX_RETRY_MS = 5000
"""The guess may be wrong: who is told to come again later than this waits for nothing too often."""


def begin_turn_if_possible(
    store: SessionStore, session: str, text: str, system: str | None
) -> Turn:
    """Store a question; one that cannot be stored is answered all the same.

    Raises:
        sqlite3.Error: the database is damaged, or what was said before cannot be read either.
    """
    try:
        return store.begin_turn(session, text, system)
    except sqlite3.Error as problem:
        if is_damage(problem):
            raise
        log.error("cannot store a question", extra=fields(error=problem))
        return store.unstored_turn(session, text, system)


class Answers:
    """The jobs that wait and those that are being answered.

    Args:
        wake: makes the engine thread look again; from any thread.
    Attributes:
        config: the settings that hold.
        requests_served, tokens_generated, tokens_per_second: counted since the start; the speed
            is that of the last answer. Read by other threads.
    """

    def __init__(
        self,
        config: Config,
        storage: Storage,
        prompts: Prompts,
        changes: ModelChanges,
        memory: EngineMemory,
        counts: EngineCounts,
        wake: Callable[[], None],
    ) -> None:
        self.config, self._storage, self._prompts = config, storage, prompts
        self._changes, self._memory, self._counts, self._wake = changes, memory, counts, wake
        self.waiting = FairQueue()
        self.active: list[Job] = []
        self._durations: deque[float] = deque(maxlen=ANSWERS_REMEMBERED)
        self.requests_served = 0
        self.tokens_generated = 0
        self.tokens_per_second: float | None = None

    # --- who waits, and who is gone ----------------------------------------------------------

    def queue(self, job: Job) -> bool:
        """Let a job wait, in the place of another if need be; False if it was told `busy`."""
        limits = self.config.limits
        if not self.waiting.has_place(job, limits.max_queue, limits.max_active):
            displaced = self.waiting.to_displace(job.client)
            if displaced is None:
                self._turn_away(job)
                return False
            self.waiting.remove(displaced)
            self._turn_away(displaced)
        self.waiting.push(job)
        return True

    def _turn_away(self, job: Job) -> None:
        """Tell a client that there is no room, and when to come again."""
        wait = self._guess_wait_ms(self.waiting.n_before(job.client))
        self.waiting.refused(job.client, wait / 1000)
        n_most = self.config.limits.max_queue
        text = ngettext(
            "{n} request waits already; try again in {s:.1f} s",
            "{n} requests wait already; try again in {s:.1f} s",
            n_most,
        ).format(n=n_most, s=wait / 1000)
        self.refuse(job, error("busy", text, wait))

    def _guess_wait_ms(self, n_before: int) -> int:
        """When a place comes free for a client before which so many others wait for one."""
        average = sum(self._durations) / len(self._durations) if self._durations else 5.0
        rounds = (n_before + 1) / self.config.limits.max_active
        return max(100, min(int(1000 * average * rounds), MAX_RETRY_MS))

    def cancel(self, client: bytes, target: bytes, reply: ReplyTo) -> None:
        """End one request of a client as cancelled."""
        job = self._find(client, target)
        if job is None:
            reply(Done(message=_("nothing to cancel: no such request, or it has ended")))
            return
        self.end(job, "cancelled")
        reply(Done(message=_("cancelled")))

    def _find(self, client: bytes, request_id: bytes) -> Job | None:
        jobs: list[Job] = [*self.active, *self.waiting]
        for job in jobs:
            if job.client == client and job.request_id == request_id:
                return job
        return None

    def drop_client(self, client: bytes) -> None:
        """A client is gone: end all its requests."""
        self.waiting.forget(client)
        for job in [j for j in (*self.active, *self.waiting) if j.client == client]:
            log.info("client gone", extra=fields(request=job.name))
            self.end(job, "cancelled")

    def expire(self, now: float) -> None:
        """End what should have ended by a monotonic time."""
        for job in [j for j in (*self.active, *self.waiting) if j.deadline <= now]:
            if job.parts:
                self.end(job, "deadline")
            else:
                text = _("the deadline passed before the first word; allow more time or ask less")
                self.fail(job, error("deadline", text))

    def end_all(self) -> None:
        """End all answers under way with what they have."""
        for job in list(self.active):
            self.end(job, "cancelled")

    def end_forgotten(self, found: Found) -> None:
        """End the answers of conversations whose words were forgotten: they are in the prompts."""
        sessions = {part.session for part in found.parts}
        for job in [*self.active, *self.waiting]:
            if job.session not in sessions or job.turn is None or not job.turn.done():
                continue  # what is not stored yet was asked afterwards
            if job.turn.exception() is None:
                number = job.turn.result().user_message
                if number is not None and number > found.last_message:
                    continue
            self.end(job, "cancelled")

    def fail_waiting(self, reply: Error) -> None:
        """Answer all who wait with an error."""
        for job in list(self.waiting):
            self.fail(job, reply)

    def fail_active(self, reply: Error) -> None:
        """Answer all who are being answered with an error."""
        for job in list(self.active):
            self.fail(job, reply)

    def encode_again(self) -> None:
        """Another model has other tokens, another budget more room or less."""
        for job in self.waiting:
            job.prompt_ids = None

    # --- starting ----------------------------------------------------------------------------

    def admit(self) -> None:
        """Start those who wait, as there is room."""
        engine = self._changes.engine
        if engine is None or self._changes.requests:
            return
        while len(self.active) < self.config.limits.max_active:
            for job in self.waiting.candidates(self.active):
                if not self._on_disk(job):
                    continue  # its question is being stored; others may go first
                if not self._start_or_fail(job, engine):
                    return  # no room: who comes next waits too, so that long prompts get theirs
                break
            else:
                return

    def _on_disk(self, job: Job) -> bool:
        """Whether the question of a job in a session is stored; if not, see to it."""
        request = job.request
        if not isinstance(request, Chat) or request.session is None:
            return True
        if job.turn is None:
            session, text, system = request.session, request.text or "", request.system
            job.turn = self._storage.call(
                lambda store: begin_turn_if_possible(store, session, text, system)
            )
            job.turn.add_done_callback(lambda stored: self._wake())
        return job.turn.done()

    def _start_or_fail(self, job: Job, engine: "Engine") -> bool:
        """Start a job, or answer why it cannot be. False if it has to wait for room."""
        try:
            params = self._prompts.sampling(job.request, engine)
            if job.prompt_ids is None:
                job.prompt_ids = self._prompts.encode(job, engine)
            if not engine.has_room(len(job.prompt_ids), params.max_tokens):
                if self.active:
                    return False
                raise PromptTooLongError(len(job.prompt_ids), engine.context_length - 1)
            job.sequence = engine.start(job.prompt_ids, params)
        except PromptTooLongError as problem:
            self.fail(job, error("too_large", str(problem)))
        except GrammarError as problem:
            self.fail(job, error("bad_request", str(problem)))
        except EngineError as problem:
            self.fail(job, error("model_error", str(problem)))
        except DamagedError as problem:
            self.fail(job, error("internal", str(problem)))
        except sqlite3.Error as problem:
            log.error("cannot read a session", extra=fields(request=job.name, error=problem))
            text = _("the conversation cannot be read: {problem}").format(problem=problem)
            self.fail(job, error("internal", text))
        except Exception:
            log.exception("cannot start a request", extra=fields(request=job.name))
            text = _("the daemon failed on this request; see its log")
            self.fail(job, error("internal", text))
        else:
            job.engine, job.model = engine, self._changes.model
            self.waiting.took_turn(job)
            self.active.append(job)
            job.started = job.last_progress = time.monotonic()
            self._counts.queueing.observe(job.started - job.received)
            self._counts.prompt_tokens += len(job.prompt_ids)
            self._counts.cached_tokens += job.sequence.n_cached
        return True

    # --- computing ---------------------------------------------------------------------------

    def step(self) -> None:
        """One pass of each engine that has answers under way."""
        for engine in self._changes.engines:
            jobs = [job for job in self.active if job.engine is engine]
            if jobs:
                self._pass(engine, jobs)

    def _pass(self, engine: "Engine", jobs: list[Job]) -> None:
        try:
            outputs = engine.step()
        except Exception as problem:
            log.exception("the engine failed", extra=fields(requests=len(jobs)))
            code: ErrorCode = "model_error" if isinstance(problem, EngineError) else "internal"
            text = (
                _("the engine failed: {problem}").format(problem=problem)
                if isinstance(problem, EngineError)
                else _("the engine failed on this request; see the daemon's log")
            )
            for job in jobs:
                self.fail(job, error(code, text))
            if isinstance(problem, FileChangedError):
                self._changes.file_changed(engine)
            return
        by_sequence = {id(job.sequence): job for job in jobs}
        for output in outputs:
            self._route(by_sequence[id(output.sequence)], output)

    def _route(self, job: Job, output: "StepOutput") -> None:
        now = time.monotonic()
        if output.token_ids:
            self._count_tokens(job, len(output.token_ids), now)
        elif now - job.last_progress >= PROGRESS_AFTER_S:
            job.last_progress = now
            text = _("reading the prompt")
            job.reply(Progress("prefill", text, output.prefilled, output.prefill_total))
        if output.text:
            job.parts.append(output.text)
            if job.request.stream:
                job.reply(Delta(output.text))
        if output.finish_reason:
            self._finish(job, output.finish_reason)

    def _count_tokens(self, job: Job, n: int, now: float) -> None:
        """Tokens have come out of a pass: one, or several that were guessed."""
        self.tokens_generated += n
        self._counts.completion_tokens += n
        if job.first_token:
            self._counts.token.observe((now - job.last_token) / n, n)
        else:
            job.first_token = now
            self._counts.first_token.observe(now - job.received)
        job.last_token = now

    # --- ending ------------------------------------------------------------------------------

    def end(self, job: Job, reason: FinishReason) -> None:
        """End a job early, with what it has."""
        if job.sequence is not None and job.engine is not None:
            rest = job.engine.finish(job.sequence, reason)
            if rest and job.request.stream:
                job.reply(Delta(rest))
            job.parts.append(rest)
        self._finish(job, reason)

    def _finish(self, job: Job, reason: FinishReason) -> None:
        """Take a job out, store its answer, and only then say that it is done."""
        self._take_out(job)
        timings = job.timings()
        text = "".join(job.parts)
        self.requests_served += 1
        if job.started:
            self._durations.append(time.monotonic() - job.started)
        if timings.tokens_per_second:
            self.tokens_per_second = timings.tokens_per_second
        log.info(
            "answered",
            extra=fields(
                request=job.name,
                **({"device": job.device} if job.device else {}),
                finish=reason,
                **text_fields(answer=text),
                prompt=timings.prompt_tokens,
                cached=timings.cached_tokens,
                tokens=timings.completion_tokens,
                queued_ms=timings.queued_ms,
                first_token_ms=timings.first_token_ms,
                tokens_per_second=timings.tokens_per_second,
            ),
        )
        done = Done(text=text, finish_reason=reason, timings=timings, model=brief(job.model))
        self._memory.look()
        if job.turn is None or not job.started or (not text and reason != "stop"):
            job.reply(done)
            return
        turn = job.turn.result()

        def stored(future: Future[SessionInfo | None]) -> None:
            problem = future.exception()
            if problem is None:
                done.session = future.result()
            else:
                # it was computed, and most of it was read already: not storing it is no reason
                # to take it away
                log.error("cannot store an answer", extra=fields(request=job.name, error=problem))
                note = _("this answer is not saved ({problem}); make room on the disk")
                done.message = note.format(problem=problem)
            job.reply(done)

        model = job.model.name if job.model else None
        self._storage.call(
            lambda store: store.finish_turn(turn, text, reason, model)
        ).add_done_callback(stored)

    def fail(self, job: Job, reply: Error) -> None:
        """End a job with an error."""
        if job.sequence is not None and job.engine is not None:
            job.engine.finish(job.sequence, "error")
        self._take_out(job)
        self.refuse(job, reply)

    def refuse(self, job: Job, reply: Error) -> None:
        """Answer a job that was not accepted, or is no more, with an error."""
        log.warning("failed", extra=fields(request=job.name, code=reply.error.code))
        job.reply(reply)

    def abandon(self, reply: Error) -> None:
        """Answer all jobs with an error and do nothing else: the thread ends as it should not.

        The log says nothing of each: the report of the crash has them as under way.
        """
        for job in (*self.active, *self.waiting):
            job.reply(reply)

    def _take_out(self, job: Job) -> None:
        if job in self.active:
            self.active.remove(job)
            self.waiting.turn_ended(job)
        else:
            self.waiting.remove(job)
