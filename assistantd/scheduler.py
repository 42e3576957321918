"""The engine thread: what it does next, and what others ask of it.

One thread owns the engine. It takes commands from an inbox, starts waiting jobs as there is room,
and makes one forward pass after another over all active ones, so that several clients' tokens
share the reading of the weights. Cancelling and deadlines take effect between two passes.

Owns: the thread and its inbox. Leaves to others: jobs (answering.py), which model answers
(model_change.py), sockets (server.py), the disk (storage.py, models.py), and the arithmetic
(engine).
"""

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from assistantd.answering import Answers
from assistantd.budget import Machine
from assistantd.config import Config
from assistantd.forgetting import Found
from assistantd.i18n import _, ngettext
from assistantd.jobs import Job, ReplyTo
from assistantd.loading import attach_disk, forget_saved, load_engine, measure
from assistantd.log import fields
from assistantd.memory import EngineMemory, Reconfiguration
from assistantd.metrics import EngineCounts
from assistantd.model_change import LoadRequest, ModelChanges, error, stopping
from assistantd.models import ModelStore, StoreError
from assistantd.prompts import Prompts
from assistantd.protocol import Done, ErrorCode, ModelInfo, Progress, QueueStatus
from assistantd.storage import Storage
from engine.errors import OverBudgetError
from engine.threads import name_thread

if TYPE_CHECKING:
    from engine.generate import Engine

log = logging.getLogger(__name__)

State = Literal["starting", "loading", "ready", "no_model", "shutting_down"]
ARRIVING = 8
"""So many times the queue's places may arrive while a model is loaded, before they are queued."""
ARRIVING_RETRY_S = 5
FAILURES_IN_A_ROW = 3
"""Rounds without the memory for them, and without a pass in between, after which it is no use."""


class Scheduler:
    """The engine thread. Methods without a leading underscore may be called from any thread."""

    def __init__(
        self,
        config: Config,
        store: ModelStore,
        storage: Storage,
        *,
        load: "Callable[..., Engine]" = load_engine,
        attach: "Callable[[Engine, Config], None]" = attach_disk,
        measure: Callable[[Path, Config, int | None], Machine] = measure,
    ) -> None:
        self.counts = counts = EngineCounts()
        self.engine_memory = EngineMemory(config, measure, counts)
        self._config, self._store, self._storage = config, store, storage
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._prompts = prompts = Prompts(config)
        memory = self.engine_memory
        self._changes = changes = ModelChanges(self, store, memory, prompts, counts, load, attach)
        self.answers = Answers(
            config, storage, prompts, changes, memory, counts, lambda: self._inbox.put(lambda: None)
        )
        self._reconfigurations: deque[Reconfiguration] = deque()
        self._last_change: Reconfiguration | None = None
        # budgets that wait until a model is loaded beside another
        self._deferred: deque[tuple[int | None, ReplyTo]] = deque()
        # held to find out, or say, that the thread has ended, and for what is asked afterwards
        self._ending = threading.RLock()
        self._has_ended = False
        self.has_failed = False
        """Whether the thread has ended by an exception; read by others once it has."""
        self._why_no_model: ErrorCode = "not_found"
        self._stop_at: float | None = None
        self._failures = 0  # in a row, for want of memory
        self._to_forget = threading.Event()
        self._relief_asked = threading.Event()
        self._wake_asked = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        # read by other threads; each is replaced as a whole
        self.state: State = "starting"
        self.message = ""
        self.was_ready = False
        """Whether there was a model that had answered, or none to wait for."""
        self.turns = 0
        """Of the loop, and steps of loading that were reported: a sign of life (pulse.py)."""
        self.on_state: Callable[[State, str], None] = lambda state, message: None
        # jobs that came while a model is loaded, and are not accepted yet; appended to by others
        self._arriving: list[Job] = []

    # --- from other threads ------------------------------------------------------------------

    def _ask(self, command: Callable[[], None]) -> None:
        """Have a command run, that replies to somebody: by the thread, or without it at its end."""
        with self._ending:
            if self._has_ended:
                self._run_late(command)
            else:
                self._inbox.put(command)

    def start(self) -> None:
        """Start the thread; it loads the configured model first."""
        self._changes.requests.append(LoadRequest(self._config.model))
        self._thread.start()

    @property
    def model(self) -> ModelInfo | None:
        """The model that answers."""
        return self._changes.model

    def submit(self, job: Job) -> None:
        """Queue a job; every job is answered by its `reply` with a last message."""
        if self.state == "loading":
            # the thread is busy with that, and accepts it only afterwards: after a minute at the
            # first start, when the kernels are compiled
            most = ARRIVING * self._config.limits.max_queue
            own = sum(other.client == job.client for other in self._arriving)
            if len(self._arriving) >= most or own >= self._config.limits.max_queue:
                text = _("{message}, and {n} requests wait for it; try again in {s} s")
                n = len(self._arriving)
                text = text.format(message=self.message, n=n, s=ARRIVING_RETRY_S)
                self.answers.refuse(job, error("busy", text, 1000 * ARRIVING_RETRY_S))
                return
            job.reply(Progress("load", self.message))
            self._arriving.append(job)
        self._ask(lambda: self._accept(job))

    def cancel(self, client: bytes, target: bytes, reply: ReplyTo) -> None:
        """End one request of a client as cancelled."""
        self._ask(lambda: self.answers.cancel(client, target, reply))

    def drop_client(self, client: bytes) -> None:
        """A client is gone: end all its requests."""
        for job in [job for job in self._arriving if job.client == client]:
            self._has_arrived(job)
        self._inbox.put(lambda: self.answers.drop_client(client))

    def load(self, request: LoadRequest) -> None:
        """Change the model when the answers under way are finished."""
        self._ask(lambda: self._load(request))

    def load_if_missing(self) -> None:
        """Load the configured model if there is none: its file may have come."""
        self._inbox.put(self._load_if_missing)

    def set_budget(self, budget: int | None, reply: ReplyTo) -> None:
        """Change the memory budget, in bytes, between two passes."""
        self._ask(lambda: self._set_budget(budget, reply))

    def reconfigure(self, change: Reconfiguration) -> None:
        """Let other settings hold; its `reply` is told of the end, whatever it is.

        It may be told that the daemon stops after another end.
        """
        with self._ending:
            if not self._has_ended:
                self._reconfigurations.append(change)
                self._inbox.put(self._reconfigure)
                return
        change.reply(stopping())

    def relieve(self) -> None:
        """Give memory back, as much as is too much when it comes to it."""
        if not self._relief_asked.is_set():  # or requests would pile up during a long pass
            self._relief_asked.set()
            self._inbox.put(self._relieve)

    def relax(self) -> None:
        """There is room again: use the whole budget."""
        self._inbox.put(self.engine_memory.relax)

    def forget(self, found: Found, then: Callable[[OSError | None], None]) -> None:
        """Forget what the engine keeps of conversations, in memory and on disk.

        It is done before any request that comes later. Answers under way in what was found have
        the forgotten words in their prompts, and end as cancelled; others go on, and what they use
        is forgotten when they end.

        Args:
            then: called when it is done, with what the disk refused; on the engine's thread, or
                at once if that has ended.
        """
        self._to_forget.set()
        self._ask(lambda: self._forget(found, then))

    def wake(self) -> None:
        """Have the loop make a turn, if it waits for something to do."""
        if not self._wake_asked.is_set():  # or these would pile up during a long pass
            self._wake_asked.set()
            self._inbox.put(self._wake_asked.clear)

    def ticks(self) -> int:
        """Clock ticks that the engine's passes have booked; moves while one is computed."""
        engine = self._changes.engine
        return 0 if engine is None else engine.ticks

    def thread_ids(self) -> list[int]:
        """The kernel's numbers of the threads that work for the engine."""
        return [
            thread.native_id
            for thread in threading.enumerate()
            if thread.native_id is not None
            and thread.name.partition("-")[0] in ("engine", "reader")  # threads.py, stream.py
        ]

    @property
    def is_loading(self) -> bool:
        """Whether a model is being loaded."""
        return self.state == "loading"

    def shut_down(self, grace_s: float) -> None:
        """Refuse what waits, let active answers go on for grace_s seconds, then cancel them."""
        self._changes.stop.set()  # at once: the thread may be loading
        self._inbox.put(lambda: self._shut_down(grace_s))

    def join(self) -> None:
        """Wait for the thread to end."""
        self._thread.join()

    def forget_rest(self) -> OSError | None:
        """After the thread has ended: forget what was still asked to be forgotten.

        Returns what the disk refused, if it did.
        """
        return None if self._thread.is_alive() else self._forget_cached()

    def queue_status(self) -> QueueStatus:
        """Requests in the daemon."""
        answers = self.answers
        n_most = answers.config.limits.max_queue
        return QueueStatus(len(answers.active), len(answers.waiting), n_most)

    # --- the loop ----------------------------------------------------------------------------

    def _run(self) -> None:
        name_thread()
        answers, changes = self.answers, self._changes
        try:
            while not self._is_over_after_a_round():
                pass
        except BaseException:
            self.has_failed = True
            answers.abandon(error("internal", _("the daemon failed; see its log, and ask again")))
            raise
        finally:
            try:
                self._forget_cached()
                changes.close()
            finally:
                self._refuse_the_rest()

    def _is_over_after_a_round(self) -> bool:
        """One round of the loop; no memory for it costs the answers under way, and no more.

        Raises:
            MemoryError: there was none several times, and no pass in between.
            Exception: the daemon has a mistake.
        """
        try:
            return self._round()
        except MemoryError:
            self._failures += 1
            if self._failures == FAILURES_IN_A_ROW:
                raise
            log.exception("no memory", extra=fields(requests=len(self.answers.active)))
            text = _("the daemon failed on this request; see its log")
            self.answers.fail_active(error("internal", text))
            self._inbox.put(lambda: None)  # others wait: the next look at the inbox must not
            return False

    def _round(self) -> bool:
        """Once around the loop; whether it is over."""
        answers, changes = self.answers, self._changes
        self.turns += 1
        self._take_commands()
        self._expire()
        idle = not answers.active and not changes.requests and not len(answers.waiting)
        if idle and self.engine_memory.rest_at() <= time.monotonic():
            self.engine_memory.rest()
        if self._stop_at is not None and not answers.active:
            return True
        if changes.requests and self._may_change():
            changes.next()  # and whoever waited for it is started below
        self._admit()
        if answers.active:
            self.engine_memory.active()
            answers.step()
            self._failures = 0
            self._admit()  # at once: with nothing active the next look at the inbox waits
        retiring = changes.retiring
        if retiring and not any(job.engine is retiring for job in answers.active):
            changes.retire()
        return False

    def _refuse_the_rest(self) -> None:
        """The thread ends: who has asked for something meanwhile, or will, is told so.

        Closing takes seconds, as conversations are saved, and clients are heard until it is over.
        """
        with self._ending:
            self._has_ended = True
            self._stop_at = time.monotonic() if self._stop_at is None else self._stop_at
            while not self._inbox.empty():
                self._run_late(self._inbox.get())
        # the last one, too: the thread may have failed in the middle of it
        last = [] if self._last_change is None else [self._last_change]
        for change in (*last, *self._reconfigurations):
            change.reply(stopping())
        for _budget, reply in self._deferred:
            reply(stopping())

    def _run_late(self, command: Callable[[], None]) -> None:
        """Run what would have been the thread's, which has no engine and refuses all."""
        try:
            command()
        except Exception:  # of a thread that failed: the report of that says why
            log.exception("a request failed at the end")

    def _expire(self) -> None:
        now = time.monotonic()
        self.answers.expire(now)
        end_at = self._stop_at
        if end_at is None:  # a model that is to be loaded may need the room that they have
            end_at = min((r.finish_by for r in self._changes.requests), default=None)
        if end_at is not None and end_at <= now:
            self.answers.end_all()

    def _admit(self) -> None:
        if self._stop_at is None:
            self.answers.admit()

    def _may_change(self) -> bool:
        """Whether the model in memory may be unloaded now."""
        busy = self.answers.active or self._changes.is_loading_beside
        return not busy and self._stop_at is None

    def _take_commands(self) -> None:
        """Run what is in the inbox; with nothing to compute, wait for more or for a deadline."""
        while self._deferred and not self._changes.is_loading_beside:
            self._set_budget(*self._deferred.popleft())
        timeout: float | None = 0.0
        changing = self._changes.requests and self._may_change()
        if not self.answers.active and not changing and self._stop_at is None:
            moments = [job.deadline for job in self.answers.waiting]
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
        self.was_ready = self.was_ready or state in ("ready", "no_model")
        log.info("state", extra=fields(state=state, message=message))
        self.on_state(state, message)

    # --- accepting ---------------------------------------------------------------------------

    def _accept(self, job: Job) -> None:
        self._has_arrived(job)
        if self._stop_at is not None:
            self.answers.refuse(job, stopping())
            return
        if self.state == "no_model":
            self._load_if_missing()
        if self.state == "no_model" and not self._changes.requests:
            self.answers.refuse(job, error(self._why_no_model, self.message))
            return
        if not self.answers.queue(job):
            return
        if self._changes.engine is None or self._changes.requests:
            job.reply(Progress("queued", self.message or _("waiting for the model")))

    def _has_arrived(self, job: Job) -> None:
        with contextlib.suppress(ValueError):  # the other thread was first
            self._arriving.remove(job)

    def _forget(self, found: Found, then: Callable[[OSError | None], None]) -> None:
        self.answers.end_forgotten(found)
        self._prompts.forget()
        then(self._forget_cached())

    def _forget_cached(self) -> OSError | None:
        """Do it if it is to be done; what the disk refused, if it did."""
        if not self._to_forget.is_set():
            return None
        self._to_forget.clear()
        refused = [engine.forget_cached() for engine in self._changes.engines]
        if refused:
            return next((problem for problem in refused if problem is not None), None)
        try:
            forget_saved(self._config)
        except OSError as problem:
            log.error("cannot delete saved state", extra=fields(error=problem))
            return problem
        return None

    # --- the model ---------------------------------------------------------------------------

    def _load(self, request: LoadRequest) -> None:
        if not self._has_ended:
            self._changes.requests.append(request)
        elif request.reply is not None:
            request.reply(stopping())

    def _load_if_missing(self) -> None:
        changes = self._changes
        if changes.engine is not None or changes.requests or self.state == "loading":
            return
        try:
            self._store.resolve(self._config.model)
        except StoreError:
            return
        changes.requests.append(LoadRequest(self._config.model))

    # what model_change.py asks of its host

    def post(self, command: Callable[[], None]) -> None:
        """Run a command on the engine thread; from any thread."""
        self._inbox.put(command)

    def loading(self, message: str) -> None:
        """A model is being loaded, and there is no other."""
        self._set_state("loading", message)

    def tell(self, progress: Progress) -> None:
        """To all who wait for a model."""
        self.turns += 1
        self.message = progress.message.partition(": ")[2]
        for job in (*self.answers.waiting, *self._arriving):
            job.reply(progress)

    def ready(self) -> None:
        """There is a model, perhaps another one than before."""
        self._set_state("ready")
        self.answers.encode_again()

    def adopt(self, config: Config) -> None:
        """These settings hold now."""
        self._config = self.answers.config = config
        self._prompts.configure(config)

    def is_stopping(self) -> bool:
        """Whether the daemon was told to stop."""
        return self._changes.stop.is_set()

    def no_model(self, message: str, code: ErrorCode = "not_found") -> None:
        """There is none, and nobody need wait for one."""
        self._why_no_model = code
        self._set_state("no_model", message)
        self.answers.fail_waiting(error(code, message))

    # other settings

    def _reconfigure(self) -> None:
        if not self._reconfigurations:
            return
        change = self._last_change = self._reconfigurations.popleft()
        if self._stop_at is not None:
            change.reply(stopping())
            return
        grace_s = change.config.limits.reload_grace_s
        if self._changes.is_other(change):
            self._changes.change(change, grace_s)
            return
        try:
            if change.budget:
                self.engine_memory.set_budget(change.n_bytes)
        except OverBudgetError:  # what is running cannot shrink so far, but loaded anew it fits
            self._changes.change(change, grace_s)
            return
        except Exception as problem:
            log.exception("cannot change the budget")
            text = _("the budget cannot be changed: {problem}").format(problem=problem)
            change.reply(error("model_error", text))
            return
        self.engine_memory.adopt(change.config, budget=change.budget)
        self.adopt(change.config)
        self.answers.encode_again()
        change.reply(Done(message=_("the settings hold now")))

    def _set_budget(self, budget: int | None, reply: ReplyTo) -> None:
        if self._has_ended:
            reply(stopping())
            return
        if self._changes.is_loading_beside:  # it is planned for the budget that there is
            self._deferred.append((budget, reply))
            return
        try:
            self.engine_memory.set_budget(budget)
        except OverBudgetError as problem:
            text = _("the running model cannot shrink so far: {problem}").format(problem=problem)
            reply(error("over_budget", text))
            return
        except Exception as problem:
            log.exception("cannot change the budget")
            text = _("the budget cannot be changed: {problem}").format(problem=problem)
            reply(error("model_error", text))
            return
        self.answers.encode_again()
        note = _("the budget holds until the daemon restarts")
        reply(Done(plan=self.engine_memory.plan, message=note))

    def _relieve(self) -> None:
        self._relief_asked.clear()
        self.engine_memory.relieve()

    def _shut_down(self, grace_s: float) -> None:
        until = time.monotonic() + grace_s
        if self._stop_at is None:
            n = len(self.answers.active)
            text = ngettext(
                "{n} answer is being finished", "{n} answers are being finished", n
            ).format(n=n)
            self._set_state("shutting_down", text)
            self.answers.fail_waiting(stopping())
        self._stop_at = until if self._stop_at is None else min(self._stop_at, until)
        if grace_s <= 0:
            self.answers.end_all()
