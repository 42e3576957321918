"""Which engine answers: loading a model, unloading it, and changing from one to another.

    load, unload      the old model is unloaded first, when no answer is under way
    reload, both fit  the new one is loaded by a thread of its own while the old one answers; then
                      what is under way goes on with the old one, and what comes has the new one
    reload, else      the old one is unloaded first; if the new one fails, it is loaded again

Belongs to the engine thread (scheduler.py), but for the thread that loads.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from assistantd.budget import available_bytes
from assistantd.config import Config
from assistantd.i18n import _
from assistantd.jobs import ReplyTo
from assistantd.loading import model_info
from assistantd.log import fields
from assistantd.memory import EngineMemory, Reconfiguration
from assistantd.metrics import EngineCounts
from assistantd.models import DEFAULT_MODEL, ModelStore, StoreError
from assistantd.prompts import Prompts
from assistantd.protocol import Done, Error, ErrorCode, ErrorInfo, ModelInfo, Progress
from engine.errors import EngineError, OverBudgetError

if TYPE_CHECKING:
    from engine.generate import Engine

log = logging.getLogger(__name__)


def error(code: ErrorCode, message: str, retry_after_ms: int | None = None) -> Error:
    """An error reply."""
    return Error(ErrorInfo(code, message, retry_after_ms))


def stopping() -> Error:
    """What those are told who ask while the daemon stops."""
    return error("shutting_down", _("the daemon is stopping; try again in a moment"))


@dataclass(frozen=True)
class LoadRequest:
    """Load a model, or unload the one there is (name None), when no answer is under way."""

    name: str | None
    reply: ReplyTo | None = None
    change: Reconfiguration | None = None
    """Settings that hold once it is loaded; without them the present ones do. If it cannot be
    loaded, the model before is loaded again."""
    finish_by: float = float("inf")
    """Monotonic time at which answers under way end with what they have, to make room."""


class Host(Protocol):
    """What the scheduler does for us."""

    def post(self, command: Callable[[], None]) -> None:
        """Run a command on the engine thread; from any thread."""

    def loading(self, message: str) -> None:
        """A model is being loaded, and there is no other."""

    def tell(self, progress: Progress) -> None:
        """To all who wait for a model."""

    def ready(self) -> None:
        """There is a model, perhaps another one than before."""

    def no_model(self, message: str, code: ErrorCode = "not_found") -> None:
        """There is none, and nobody need wait for one."""

    def adopt(self, config: Config) -> None:
        """These settings hold now."""

    def is_stopping(self) -> bool:
        """Whether the daemon was told to stop."""


@dataclass(frozen=True)
class _Source:
    """Where a model came from; other numbers are another file at the same path."""

    name: str
    path: Path
    numbers: tuple[int, int, int]

    @classmethod
    def of(cls, name: str, path: Path) -> "_Source":
        """As it is on disk now."""
        stat = path.stat()
        return cls(name, path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))

    @property
    def size(self) -> int:
        """In bytes, as it was before it was loaded: it may be removed meanwhile."""
        return self.numbers[1]


class _StoppedError(Exception):
    """Loading was broken off, for the daemon is stopping."""


@dataclass
class _Beside:
    """A model that is being loaded while another one answers."""

    change: Reconfiguration
    source: _Source
    thread: threading.Thread | None = None
    engine: "Engine | None" = None
    problem: BaseException | None = None
    started: float = 0.0


class ModelChanges:
    """The engine that answers, and what becomes of it.

    Args:
        load: makes an engine from a path and settings; `beside` is what the process takes without
            a model, if another one is loaded.
        attach: gives an engine that was loaded beside another one its folder on disk.
    Attributes:
        engine: the one that answers; None without a model.
        retiring: the one before, until what it began is finished.
        model: what `engine` is; replaced as a whole, and read by other threads.
        requests: changes that wait until no answer is under way.
        stop: set when loading is to be broken off; by any thread.
    """

    def __init__(
        self,
        host: Host,
        store: ModelStore,
        memory: EngineMemory,
        prompts: Prompts,
        counts: EngineCounts,
        load: Callable[..., "Engine"],
        attach: Callable[["Engine", Config], None],
    ) -> None:
        self._host, self._store, self._memory, self._prompts = host, store, memory, prompts
        self._counts, self._load, self._attach = counts, load, attach
        self.engine: Engine | None = None
        self.retiring: Engine | None = None
        self.model: ModelInfo | None = None
        self.requests: deque[LoadRequest] = deque()
        self.stop = threading.Event()
        self._beside: _Beside | None = None
        self._keeps = False  # what the retiring engine saves is of use to the next one
        self._source: _Source | None = None  # of the model in memory

    @property
    def is_loading_beside(self) -> bool:
        """Whether a model is being loaded while another one answers."""
        return self._beside is not None

    @property
    def engines(self) -> "list[Engine]":
        """All that may have answers under way."""
        return [engine for engine in (self.engine, self.retiring) if engine is not None]

    def file_changed(self, engine: "Engine") -> None:
        """A model's file is not what was loaded any more: load what is there now, if it is sound.

        What was computed with it goes first: nothing of it may be used by what is loaded next.
        """
        engine.forget_cached()
        if engine is self.engine and self.model is not None:
            self.requests.append(LoadRequest(self.model.name))

    # --- one after the other -----------------------------------------------------------------

    def next(self) -> None:
        """Do what has waited longest; no answer is under way. Clients wait meanwhile."""
        request = self.requests.popleft()
        reply = request.reply or (lambda reply: None)
        try:
            self._do(request, reply)
        except BaseException:  # of memory that there is none of, and of mistakes
            text = _("the daemon failed on this request; see its log")
            reply(error("internal", text))
            self._memory.not_loaded()
            # or it would seem to be loading for ever
            if self.engine is None:
                self._host.no_model(text, "internal")
            elif not self._host.is_stopping():
                self._host.ready()
            raise

    def _do(self, request: LoadRequest, reply: ReplyTo) -> None:
        source: _Source | None = None
        if request.name is not None:
            try:
                source = _Source.of(request.name, self._store.resolve(request.name))
            except (StoreError, OSError) as problem:
                code: ErrorCode = problem.code if isinstance(problem, StoreError) else "model_error"
                reply(error(code, str(problem)))
                if self.engine is None:
                    self._host.no_model(_missing(request.name, problem))
                return
        self.retire()  # it has the folder that the next one is to have, and memory
        before = self._source
        self._unload()
        if request.name is None or source is None:
            text = _("the model was unloaded; load one with `assistant models load NAME`")
            self._host.no_model(text)
            reply(Done(message=_("unloaded")))
            return
        problem_of_new = self._open(source, request.change, reply)
        if problem_of_new is None:
            if request.change is not None:
                self._host.adopt(request.change.config)
            self._host.ready()
            self._say_loaded(request.name, reply)
            return
        if request.change is None or before is None or self._host.is_stopping():
            self._give_up(problem_of_new, reply)
            return
        log.warning("loading the model before again", extra=fields(model=before.name))
        problem_of_old = self._open(before, None, reply)
        if problem_of_old is None:
            self._host.ready()
            text = _("{problem}; {name} answers again, and nothing was changed")
            message = text.format(problem=problem_of_new.error.message, name=before.name)
            reply(error(problem_of_new.error.code, message))
            return
        both = f"{problem_of_new.error.message}; {problem_of_old.error.message}"
        self._give_up(error(problem_of_old.error.code, both), reply)

    def _give_up(self, problem: Error, reply: ReplyTo) -> None:
        self._memory.not_loaded()
        reply(problem)
        if not self._host.is_stopping():  # or those who wait are told that it stops
            self._host.no_model(problem.error.message, problem.error.code)

    def _open(
        self, source: _Source, change: Reconfiguration | None, reply: ReplyTo
    ) -> Error | None:
        """Load into the place that is free; what went wrong, if anything did."""
        name, path = source.name, source.path
        self._host.loading(_("loading {name}").format(name=name))

        def progress(message: str, completed: int, total: int) -> None:
            self._break_off()
            update = Progress("load", f"{name}: {message}", completed, total)
            reply(update)
            self._host.tell(update)

        started = time.monotonic()
        config = self._memory.before_load(path, change)
        try:
            engine = self._load(path, config, progress)
        except Exception as problem:
            self._counts.model_load_failures += 1
            return _explain(name, problem)
        try:
            self._use(source, engine, started)
        except BaseException:  # nobody else knows it, and it has the lock of its folder
            self.engine = engine
            self._unload()
            raise
        return None

    def _unload(self) -> None:
        if self.engine is not None:
            _close(self.engine)
            self.engine, self.model, self._source = None, None, None
            self._memory.unloaded()

    def _use(self, source: _Source, engine: "Engine", started: float) -> None:
        self._counts.model_loads += 1
        self.engine, self.model = engine, model_info(source.name, source.path, source.size, engine)
        self._source = source
        self._memory.loaded(engine)
        self._prompts.forget()
        seconds = time.monotonic() - started
        log.info("loaded", extra=fields(model=source.name, seconds=seconds))

    def _say_loaded(self, name: str, reply: ReplyTo) -> None:
        reply(Done(model=self.model, message=_("{name} is loaded").format(name=name)))

    def _break_off(self) -> None:
        if self.stop.is_set():
            raise _StoppedError

    # --- side by side ------------------------------------------------------------------------

    def is_other(self, change: Reconfiguration) -> bool:
        """Whether other settings want a model to be loaded."""
        source = self._source
        if change.name is not None and (source is None or source.name != change.name):
            return True
        try:
            path = self._store.resolve(source.name if source else change.config.model)
            return change.anew or source is None or _Source.of(source.name, path) != source
        except (StoreError, OSError):
            return change.anew and source is not None

    def change(self, change: Reconfiguration, grace_s: float) -> None:
        """Load the model of other settings, beside the one that answers if there is room.

        Args:
            grace_s: what answers under way get to finish, if there is not.
        """
        name = change.name or (self._source.name if self._source else change.config.model)
        try:
            source = _Source.of(name, self._store.resolve(name))
        except (StoreError, OSError) as problem:
            code: ErrorCode = problem.code if isinstance(problem, StoreError) else "model_error"
            change.reply(error(code, str(problem)))
            return
        request = LoadRequest(name, change.reply, change, time.monotonic() + grace_s)
        if self.engine is None or not self._is_room(self.engine, name, change):
            text = _("the answers under way are finished first, then {name} is loaded")
            if self.engine is not None:
                change.reply(Progress("load", text.format(name=name)))
            self.requests.append(request)
            return
        self._beside = beside = _Beside(change, source, started=time.monotonic())
        text = _("loading {name}, while the model before answers")
        change.reply(Progress("load", text.format(name=name)))
        config = self._memory.before_load(source.path, change)
        base_bytes = self.engine.base_bytes
        beside.thread = threading.Thread(
            target=lambda: self._load_beside(beside, config, base_bytes), name="loader", daemon=True
        )
        beside.thread.start()

    def _is_room(self, engine: "Engine", name: str, change: Reconfiguration) -> bool:
        """Whether another model fits beside the one there is, for as long as they change."""
        known = change.plan is not None and change.plan_of == name
        if change.plan is None or not known or self.retiring is not None or self.requests:
            return False
        new = sum(change.plan.owners.values()) - engine.base_bytes
        available = available_bytes()
        if available is not None and new > available:
            return False
        return change.n_bytes is None or engine.plan.total + new <= change.n_bytes

    def _load_beside(self, beside: _Beside, config: Config, base_bytes: int) -> None:
        name = beside.source.name

        def progress(message: str, completed: int, total: int) -> None:
            self._break_off()
            beside.change.reply(Progress("load", f"{name}: {message}", completed, total))

        try:
            beside.engine = self._load(beside.source.path, config, progress, beside=base_bytes)
        except Exception as problem:
            beside.problem = problem
        self._host.post(self._loaded_beside)

    def _loaded_beside(self) -> None:
        beside, self._beside = self._beside, None
        if beside is None:
            return  # it was broken off
        name, reply, new = beside.source.name, beside.change.reply, beside.engine
        if self._host.is_stopping():
            if new is not None:
                _close(new)
            reply(stopping())
            return
        if new is None:
            self._counts.model_load_failures += 1
            self._memory.not_loaded()
            problem = _explain(name, beside.problem)
            text = _("{problem}; nothing was changed")
            reply(error(problem.error.code, text.format(problem=problem.error.message)))
            return
        before, self.retiring = self._source, self.engine
        self._keeps = before is not None and before.numbers == beside.source.numbers
        self._use(beside.source, new, beside.started)
        self._host.adopt(beside.change.config)
        self._host.ready()
        self._say_loaded(name, reply)

    def retire(self) -> None:
        """No answer of the model before is under way any more: unload it."""
        if self.retiring is None:
            return
        if not self._keeps:
            self.retiring.forget_cached()  # nobody could use it: saving it would take time
        _close(self.retiring)
        self.retiring = None
        if self.engine is not None:
            try:
                self._attach(self.engine, self._memory.config)
            except Exception:  # the file of the model is gone, or the disk refuses
                log.exception("the model has no folder for conversations")
            self._memory.look()
        log.info("the model before was unloaded")

    # --- the end -----------------------------------------------------------------------------

    def close(self) -> None:
        """Unload all there is."""
        self.stop.set()
        if self._beside is not None and self._beside.thread is not None:
            self._beside.thread.join()
            self._loaded_beside()
        for request in self.requests:
            if request.reply is not None:
                request.reply(stopping())
        self.requests.clear()
        self.retire()
        self._unload()


def _missing(name: str, problem: Exception) -> str:
    if name == DEFAULT_MODEL:
        return _(
            "no model is on this machine yet; fetch it with `assistant models pull {name}`"
        ).format(name=name)
    return str(problem)


def _explain(name: str, problem: BaseException | None) -> Error:
    """Why a model could not be loaded."""
    if isinstance(problem, _StoppedError):
        return stopping()
    if isinstance(problem, EngineError):
        code: ErrorCode = "over_budget" if isinstance(problem, OverBudgetError) else "model_error"
        text = _("{name} cannot be loaded: {problem}").format(name=name, problem=problem)
        return error(code, text)
    log.error("loading failed", extra=fields(model=name), exc_info=problem)
    return error("internal", _("loading {name} failed; see the daemon's log").format(name=name))


def _close(engine: Any) -> None:
    """Close an engine; whatever the system refuses, the thread goes on."""
    try:
        engine.close()
    except Exception:
        log.exception("a model could not be unloaded cleanly")
