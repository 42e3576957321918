"""Who computes next: the engine thread, its queue, and what becomes of each request.

One thread owns the engine. It takes commands from an inbox, starts waiting jobs as there is room,
and makes one forward pass after another over all active ones, so that several clients' tokens
share the reading of the weights. Cancelling and deadlines take effect between two passes.

Owns: jobs and the loaded model. Leaves to others: sockets (server.py), the disk (storage.py,
models.py), and the arithmetic (engine).
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from assistantd.budget import Machine
from assistantd.config import Config
from assistantd.jobs import FairQueue, Job, ReplyTo
from assistantd.loading import brief, forget_saved, load_engine, measure, model_info
from assistantd.log import fields
from assistantd.memory import EngineMemory
from assistantd.models import DEFAULT_MODEL, ModelStore, StoreError
from assistantd.prompts import Prompts
from assistantd.protocol import (
    Chat,
    Delta,
    Done,
    Error,
    ErrorCode,
    ErrorInfo,
    FinishReason,
    ModelInfo,
    Progress,
    QueueStatus,
    SessionInfo,
)
from assistantd.storage import Storage
from engine.errors import EngineError, GrammarError, OverBudgetError, PromptTooLongError

if TYPE_CHECKING:
    from engine.generate import Engine, ProgressCallback, StepOutput

log = logging.getLogger(__name__)

State = Literal["starting", "loading", "ready", "no_model", "shutting_down"]
PROGRESS_AFTER_S = 1.0
"""A prompt that takes longer to read than this reports how far it is, as often."""
ANSWERS_REMEMBERED = 20
"""Recent answers from which the waiting time of a full queue is guessed."""


def error(code: ErrorCode, message: str, retry_after_ms: int | None = None) -> Error:
    """An error reply."""
    return Error(ErrorInfo(code, message, retry_after_ms))


@dataclass(frozen=True)
class LoadRequest:
    """Load a model, or unload the one there is (name None), when no answer is under way."""

    name: str | None
    reply: ReplyTo | None = None


class Scheduler:
    """The engine thread. Methods without a leading underscore may be called from any thread."""

    def __init__(
        self,
        config: Config,
        store: ModelStore,
        storage: Storage,
        *,
        load: "Callable[[Path, Config, ProgressCallback], Engine]" = load_engine,
        measure: Callable[[Path, Config, int | None], Machine] = measure,
    ) -> None:
        self.engine_memory = EngineMemory(config, measure)
        self._config, self._store, self._storage, self._load = config, store, storage, load
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting = FairQueue()
        self._active: list[Job] = []
        self._loads: deque[LoadRequest] = deque()
        self._engine: Engine | None = None
        self._prompts = Prompts(config)
        self._why_no_model: ErrorCode = "not_found"
        self._durations: deque[float] = deque(maxlen=ANSWERS_REMEMBERED)
        self._stop_at: float | None = None
        self._to_forget = threading.Event()
        self._relief_asked = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.ready = threading.Event()
        """Set once the first load has ended, well or not."""
        # read by other threads; each is replaced as a whole
        self.state: State = "starting"
        self.message = ""
        self.model: ModelInfo | None = None
        self.requests_served = 0
        self.tokens_generated = 0
        self.tokens_per_second: float | None = None
        self.on_state: Callable[[State, str], None] = lambda state, message: None

    # --- from other threads ------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; it loads the configured model first."""
        self._loads.append(LoadRequest(self._config.model))
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; every job is answered by its `reply` with a last message."""
        self._inbox.put(lambda: self._accept(job))

    def cancel(self, client: bytes, target: bytes, reply: ReplyTo) -> None:
        """End one request of a client as cancelled."""
        self._inbox.put(lambda: self._cancel(client, target, reply))

    def drop_client(self, client: bytes) -> None:
        """A client is gone: end all its requests."""
        self._inbox.put(lambda: self._drop_client(client))

    def load(self, request: LoadRequest) -> None:
        """Change the model when the answers under way are finished."""
        self._inbox.put(lambda: self._loads.append(request))

    def load_if_missing(self) -> None:
        """Load the configured model if there is none: its file may have come."""
        self._inbox.put(self._load_if_missing)

    def set_budget(self, budget: int | None, reply: ReplyTo) -> None:
        """Change the memory budget, in bytes, between two passes."""
        self._inbox.put(lambda: self._set_budget(budget, reply))

    def relieve(self) -> None:
        """Give memory back, as much as is too much when it comes to it."""
        if not self._relief_asked.is_set():  # or requests would pile up during a long pass
            self._relief_asked.set()
            self._inbox.put(self._relieve)

    def relax(self) -> None:
        """There is room again: use the whole budget."""
        self._inbox.put(self.engine_memory.relax)

    def forget_cached(self) -> None:
        """Forget what the engine keeps of conversations, in memory and on disk.

        It is done before any request that comes later. Answers under way go on; what they use is
        forgotten when they end.
        """
        self._to_forget.set()
        self._inbox.put(self._forget_cached)

    def shut_down(self, grace_s: float) -> None:
        """Refuse what waits, let active answers go on for grace_s seconds, then cancel them."""
        self._inbox.put(lambda: self._shut_down(grace_s))

    def join(self) -> None:
        """Wait for the thread to end."""
        self._thread.join()

    def forget_rest(self) -> None:
        """After the thread has ended: forget what was still asked to be forgotten."""
        if not self._thread.is_alive():
            self._forget_cached()

    def queue_status(self) -> QueueStatus:
        """Requests in the daemon."""
        return QueueStatus(len(self._active), len(self._waiting), self._config.limits.max_queue)

    # --- the loop ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                self._take_commands()
                self._expire()
                idle = not self._active and not self._loads and not len(self._waiting)
                if idle and self.engine_memory.rest_at() <= time.monotonic():
                    self.engine_memory.rest()
                if self._stop_at is not None and not self._active:
                    break
                if self._loads and not self._active and self._stop_at is None:
                    self._change_model(self._loads.popleft())
                    continue
                self._admit()
                if self._active:
                    self.engine_memory.active()
                    self._step()
                    self._admit()  # at once: with nothing active the next look at the inbox waits
        finally:
            self._forget_cached()
            if self._engine is not None:
                self._engine.close()
                self._engine = None

    def _take_commands(self) -> None:
        """Run what is in the inbox; with nothing to compute, wait for more or for a deadline."""
        timeout: float | None = 0.0
        if not self._active and not self._loads and self._stop_at is None:
            moments = [job.deadline for job in self._waiting]
            soonest = min(moments, default=self.engine_memory.rest_at())
            timeout = None if soonest == float("inf") else max(0.0, soonest - time.monotonic())
        while True:
            try:
                command = self._inbox.get(block=timeout != 0.0, timeout=timeout or None)
            except queue.Empty:
                return
            command()
            timeout = 0.0

    def _set_state(self, state: State, message: str = "") -> None:
        self.state, self.message = state, message
        log.info("state", extra=fields(state=state, message=message))
        self.on_state(state, message)

    # --- accepting ---------------------------------------------------------------------------

    def _accept(self, job: Job) -> None:
        limits = self._config.limits
        if self._stop_at is not None:
            job.reply(error("shutting_down", "the daemon is stopping; try again in a moment"))
            return
        if self.state == "no_model":
            self._load_if_missing()
        if self.state == "no_model" and not self._loads:
            job.reply(error(self._why_no_model, self.message))
            return
        if len(self._waiting) >= limits.max_queue:
            wait = self._guess_wait_ms()
            text = f"{limits.max_queue} requests wait already; try again in {wait / 1000:.1f} s"
            job.reply(error("busy", text, wait))
            return
        self._waiting.push(job)
        if self._engine is None:
            job.reply(Progress("queued", self.message or "waiting for the model"))

    def _guess_wait_ms(self) -> int:
        average = sum(self._durations) / len(self._durations) if self._durations else 5.0
        rounds = (len(self._waiting) + len(self._active)) / self._config.limits.max_active
        return max(100, int(1000 * average * min(rounds, 10) / 2))

    def _cancel(self, client: bytes, target: bytes, reply: ReplyTo) -> None:
        job = self._find(client, target)
        if job is None:
            reply(Done(message="nothing to cancel: no such request, or it has ended"))
            return
        self._end(job, "cancelled")
        reply(Done(message="cancelled"))

    def _find(self, client: bytes, request_id: bytes) -> Job | None:
        jobs: list[Job] = [*self._active, *self._waiting]
        for job in jobs:
            if job.client == client and job.request_id == request_id:
                return job
        return None

    def _drop_client(self, client: bytes) -> None:
        for job in [j for j in (*self._active, *self._waiting) if j.client == client]:
            log.info("client gone", extra=fields(request=job.name))
            self._end(job, "cancelled")

    def _expire(self) -> None:
        now = time.monotonic()
        for job in [j for j in (*self._active, *self._waiting) if j.deadline <= now]:
            if job.parts:
                self._end(job, "deadline")
            else:
                text = "the deadline passed before the first word; allow more time or ask less"
                self._fail(job, error("deadline", text))
        if self._stop_at is not None and self._stop_at <= now:
            for job in list(self._active):
                self._end(job, "cancelled")

    # --- starting ----------------------------------------------------------------------------

    def _admit(self) -> None:
        engine = self._engine
        if engine is None or self._loads or self._stop_at is not None:
            return
        while len(self._active) < self._config.limits.max_active:
            for job in self._waiting.candidates(self._active):
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
            job.turn = self._storage.call(lambda store: store.begin_turn(session, text, system))
            job.turn.add_done_callback(lambda _: self._inbox.put(lambda: None))  # wakes the loop
        return job.turn.done()

    def _start_or_fail(self, job: Job, engine: "Engine") -> bool:
        """Start a job, or answer why it cannot be. False if it has to wait for room."""
        try:
            params = self._prompts.sampling(job.request, engine)
            if job.prompt_ids is None:
                job.prompt_ids = self._prompts.encode(job, engine)
            if not engine.has_room(len(job.prompt_ids), params.max_tokens):
                if self._active:
                    return False
                raise PromptTooLongError(len(job.prompt_ids), engine.context_length - 1)
            job.sequence = engine.start(job.prompt_ids, params)
        except PromptTooLongError as problem:
            self._fail(job, error("too_large", str(problem)))
        except GrammarError as problem:
            self._fail(job, error("bad_request", str(problem)))
        except EngineError as problem:
            self._fail(job, error("model_error", str(problem)))
        except Exception:
            log.exception("cannot start a request", extra=fields(request=job.name))
            self._fail(job, error("internal", "the daemon failed on this request; see its log"))
        else:
            self._waiting.took_turn(job)
            self._active.append(job)
            job.started = job.last_progress = time.monotonic()
        return True

    # --- computing ---------------------------------------------------------------------------

    def _step(self) -> None:
        assert self._engine is not None
        try:
            outputs = self._engine.step()
        except Exception as problem:
            log.exception("the engine failed", extra=fields(requests=len(self._active)))
            code: ErrorCode = "model_error" if isinstance(problem, EngineError) else "internal"
            text = (
                f"the engine failed: {problem}"
                if isinstance(problem, EngineError)
                else ("the engine failed on this request; see the daemon's log")
            )
            for job in list(self._active):
                self._fail(job, error(code, text))
            return
        by_sequence = {id(job.sequence): job for job in self._active}
        for output in outputs:
            self._route(by_sequence[id(output.sequence)], output)

    def _route(self, job: Job, output: "StepOutput") -> None:
        now = time.monotonic()
        if output.token_ids:
            job.first_token = job.first_token or now
            self.tokens_generated += len(output.token_ids)
        elif now - job.last_progress >= PROGRESS_AFTER_S:
            job.last_progress = now
            text = "reading the prompt"
            job.reply(Progress("prefill", text, output.prefilled, output.prefill_total))
        if output.text:
            job.parts.append(output.text)
            if job.request.stream:
                job.reply(Delta(output.text))
        if output.finish_reason:
            self._finish(job, output.finish_reason)

    # --- ending ------------------------------------------------------------------------------

    def _end(self, job: Job, reason: FinishReason) -> None:
        """End a job early, with what it has."""
        if job.sequence is not None and self._engine is not None:
            rest = self._engine.finish(job.sequence, reason)
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
                finish=reason,
                prompt=timings.prompt_tokens,
                cached=timings.cached_tokens,
                tokens=timings.completion_tokens,
                queued_ms=timings.queued_ms,
                first_token_ms=timings.first_token_ms,
                tokens_per_second=timings.tokens_per_second,
            ),
        )
        done = Done(text=text, finish_reason=reason, timings=timings, model=brief(self.model))
        self.engine_memory.look()
        if job.turn is None or not job.started or (not text and reason != "stop"):
            job.reply(done)
            return
        turn = job.turn.result()

        def stored(future: Future[SessionInfo | None]) -> None:
            problem = future.exception()
            if problem is not None:
                log.error("cannot store an answer", extra=fields(error=problem))
                note = f"the answer could not be stored ({problem}); is the disk full?"
                job.reply(error("internal", note))
                return
            done.session = future.result()
            job.reply(done)

        self._storage.call(lambda store: store.finish_turn(turn, text, reason)).add_done_callback(
            stored
        )

    def _fail(self, job: Job, reply: Error) -> None:
        if job.sequence is not None and self._engine is not None:
            self._engine.finish(job.sequence, "error")
        self._take_out(job)
        log.warning("failed", extra=fields(request=job.name, code=reply.error.code))
        job.reply(reply)

    def _forget_cached(self) -> None:
        if not self._to_forget.is_set():
            return
        self._to_forget.clear()
        if self._engine is not None:
            self._engine.forget_cached()
            return
        try:
            forget_saved(self._config)
        except OSError as problem:
            log.error("cannot delete saved state", extra=fields(error=problem))

    def _take_out(self, job: Job) -> None:
        if job in self._active:
            self._active.remove(job)
        else:
            self._waiting.remove(job)

    # --- the model ---------------------------------------------------------------------------

    def _load_if_missing(self) -> None:
        if self._engine is not None or self._loads or self.state == "loading":
            return
        try:
            self._store.resolve(self._config.model)
        except StoreError:
            return
        self._loads.append(LoadRequest(self._config.model))

    def _change_model(self, request: LoadRequest) -> None:
        """Load or unload; the server goes on meanwhile, and jobs wait."""
        reply = request.reply or (lambda reply: None)
        path: Path | None = None
        if request.name is not None:
            try:
                path = self._store.resolve(request.name)
            except StoreError as problem:
                reply(error(problem.code, str(problem)))
                if self._engine is None:
                    self._no_model(self._missing(request.name, problem))
                return
        if self._engine is not None:
            # unloaded first: two models at once may not fit
            self._engine.close()
            self._engine, self.model = None, None
            self.engine_memory.unloaded()
            self._prompts.forget()
        if request.name is None or path is None:
            self._no_model("the model was unloaded; load one with `assistant models load NAME`")
            reply(Done(message="unloaded"))
            return
        name = request.name
        self._set_state("loading", f"loading {name}")

        def progress(message: str, completed: int, total: int) -> None:
            self.message = message
            update = Progress("load", f"{name}: {message}", completed, total)
            reply(update)
            for job in self._waiting:
                job.reply(update)

        started = time.monotonic()
        try:
            self._engine = self._load(path, self.engine_memory.before_load(path), progress)
        except EngineError as problem:
            text = f"{name} cannot be loaded: {problem}"
            code: ErrorCode = "model_error"
            if isinstance(problem, OverBudgetError):
                code = "over_budget"
            reply(error(code, text))
            self._no_model(text, code)
        except Exception:
            log.exception("loading failed", extra=fields(model=name))
            reply(error("internal", f"loading {name} failed; see the daemon's log"))
            self._no_model(f"loading {name} failed; see the daemon's log")
        else:
            self.model = model_info(name, path, self._engine)
            self.engine_memory.loaded(self._engine)
            log.info("loaded", extra=fields(model=name, seconds=time.monotonic() - started))
            self._set_state("ready")
            self.ready.set()
            reply(Done(model=self.model, message=f"{name} is loaded"))

    def _set_budget(self, budget: int | None, reply: ReplyTo) -> None:
        try:
            self.engine_memory.set_budget(budget)
        except OverBudgetError as problem:
            reply(error("over_budget", f"the running model cannot shrink so far: {problem}"))
            return
        except Exception as problem:
            log.exception("cannot change the budget")
            reply(error("model_error", f"the budget cannot be changed: {problem}"))
            return
        for job in self._waiting:
            job.prompt_ids = None  # there may be room for more, or only for less
        note = "the budget holds until the daemon restarts"
        reply(Done(plan=self.engine_memory.plan, message=note))

    def _relieve(self) -> None:
        self._relief_asked.clear()
        self.engine_memory.relieve()

    def _missing(self, name: str, problem: StoreError) -> str:
        if name == DEFAULT_MODEL:
            return f"no model is on this machine yet; fetch it with `assistant models pull {name}`"
        return str(problem)

    def _no_model(self, message: str, code: ErrorCode = "not_found") -> None:
        self._why_no_model = code
        self._set_state("no_model", message)
        self.ready.set()
        for job in list(self._waiting):
            self._fail(job, error(code, message))

    def _shut_down(self, grace_s: float) -> None:
        until = time.monotonic() + grace_s
        if self._stop_at is None:
            self._set_state("shutting_down", f"{len(self._active)} answers are being finished")
            for job in list(self._waiting):
                text = "the daemon is stopping; try again in a moment"
                self._fail(job, error("shutting_down", text))
        self._stop_at = until if self._stop_at is None else min(self._stop_at, until)
        if grace_s <= 0:
            for job in list(self._active):
                self._end(job, "cancelled")
