"""Settings that are read again while the daemon runs: SIGHUP, `assistant reload`.

    read the sources of the start → check all → plan the model → the engine thread → everything else

Nothing changes before all was checked, and if the model cannot be loaded nothing has changed. One
reload at a time: who asks during one gets the next, together with all others who did.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import msgspec

from assistantd import config as configuration
from assistantd.budget import human_mib, memory_of_process, resolve
from assistantd.config import Config, ConfigError, LoadedConfig
from assistantd.i18n import _, ngettext
from assistantd.jobs import ReplyTo
from assistantd.log import fields, notify_systemd
from assistantd.memory import Reconfiguration
from assistantd.model_change import error, stopping
from assistantd.models import ModelStore, StoreError
from assistantd.protocol import Done, Error, PlanInfo, Progress, Reply, SettingChange
from assistantd.scheduler import Scheduler
from assistantd.watchdog import START_S
from engine.errors import EngineError

log = logging.getLogger(__name__)

APPLIED = (
    "model",
    "memory_budget",
    "idle_unload_s",
    "log_level",
    "log_format",
    "log_text",
    "crash_reports",
)
"""Settings that take effect while the daemon runs, and sections that do as a whole. All others need
a restart, also those that are added some day and not here."""
APPLIED_SECTIONS = ("engine", "limits", "sampling", "chat", "privacy")

Plan = Callable[..., PlanInfo]


def is_applied(key: str) -> bool:
    """Whether a setting takes effect while the daemon runs."""
    return key in APPLIED or key.partition(".")[0] in APPLIED_SECTIONS


def changes(before: Config, after: Config) -> list[SettingChange]:
    """What differs, in the order of the settings."""
    old, new = configuration.flat(before), configuration.flat(after)
    return [
        SettingChange(key, _written(old[key]), _written(new[key]), not is_applied(key))
        for key in old
        if old[key] != new[key]
    ]


def _written(value: Any) -> str:
    return msgspec.json.encode(value).decode()  # as TOML writes it, too


class Reloader:
    """Reads the settings again when it is asked to, in a thread of its own.

    Args:
        read: the sources of the start.
        config: the settings that hold.
        adopt: called once with settings that hold from then on, for all but the engine thread.
        plan: loading.plan_model; replaced in unit tests.
    """

    def __init__(
        self,
        read: Callable[[], LoadedConfig],
        config: Config,
        scheduler: Scheduler,
        store: ModelStore,
        adopt: Callable[[Config], None],
        plan: Plan,
    ) -> None:
        self._read, self._config = read, config
        self._scheduler, self._store, self._adopt, self._plan = scheduler, store, adopt, plan
        self._lock = threading.Lock()  # guards what follows
        self._asked: list[ReplyTo] = []
        self._thread: threading.Thread | None = None
        self._is_closing = False

    @property
    def is_running(self) -> bool:
        """Whether a reload is under way, which tells the service manager how it ends."""
        return self._thread is not None

    def ask(self, reply: ReplyTo) -> None:
        """Reload; `reply` gets progress, then done or an error, from other threads."""
        with self._lock:
            if not self._is_closing:
                self._asked.append(reply)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="reload", daemon=True)
                    self._thread.start()
                    return
                reply(Progress("queued", _("another reload is under way; yours comes next")))
                return
        reply(stopping())

    def close(self) -> None:
        """Refuse further ones, and wait for the one under way; the scheduler has ended."""
        with self._lock:
            self._is_closing = True
            thread = self._thread
        if thread is not None:
            thread.join()

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._lock:
                replies, self._asked = self._asked, []
                if not replies:
                    self._thread = None
                    return
            started = time.monotonic()
            log.info("reloading", extra=fields(asked=len(replies)))
            notify_systemd(
                "RELOADING=1",
                f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}",
                "STATUS=" + _("reading the settings again"),
            )

            def tell(reply: Reply, replies: list[ReplyTo] = replies) -> None:
                if isinstance(reply, Progress):
                    # a reload has TimeoutStartSec=, too, and loading takes as long as it takes
                    notify_systemd(
                        f"STATUS={reply.message}", f"EXTEND_TIMEOUT_USEC={int(START_S * 1e6)}"
                    )
                for each in replies:
                    each(reply)

            last = stopping() if self._is_closing else self._reload_safely(tell)
            # during the start it is the model's answer that says so, not the end of this
            if self._scheduler.was_ready and not self._scheduler.is_stopping():
                notify_systemd("READY=1", f"STATUS={self._scheduler.message or _('ready')}")
            if isinstance(last, Error):
                log.error("reload failed", extra=fields(problem=last.error.message))
            else:
                log.info("reloaded", extra=fields(seconds=time.monotonic() - started))
            tell(last)

    def _reload_safely(self, tell: ReplyTo) -> Reply:
        try:
            return self._reload(tell)
        except Exception as problem:  # the daemon goes on with the settings it has
            log.exception("reload failed")
            text = _("the daemon failed: {problem}; see its log")
            return error("internal", text.format(problem=type(problem).__name__))

    def _reload(self, tell: ReplyTo) -> Reply:
        before = self._config
        try:
            found = self._read().config
        except ConfigError as problem:
            return error("bad_request", _("{problem}; nothing was changed").format(problem=problem))
        differing = changes(before, found)
        config = _without(found, before, differing)
        checked = self._check(before, config)
        if isinstance(checked, Error):
            return checked
        name, plan, n_bytes = checked
        answer: Future[Reply] = Future()

        def reply(reply: Reply) -> None:
            if isinstance(reply, Progress):
                tell(reply)
            elif not answer.done():
                answer.set_result(reply)

        keys = {change.key for change in differing if not change.needs_restart}
        self._scheduler.reconfigure(
            Reconfiguration(
                config=config,
                name=config.model if "model" in keys else None,
                anew=any(key.startswith("engine.") for key in keys),
                budget="memory_budget" in keys,
                n_bytes=n_bytes,
                plan=plan,
                plan_of=name,
                reply=reply,
            )
        )
        last = answer.result()
        if isinstance(last, Error):
            return last
        self._config = config
        self._adopt(config)
        applied, restart = _split(differing)
        log.info("settings changed", extra=fields(applied=applied, need_restart=restart))
        model = last.model if isinstance(last, Done) else None
        return Done(settings=differing, model=model, message=_summary(len(applied), restart))

    def _check(
        self, before: Config, config: Config
    ) -> "tuple[str, PlanInfo | None, int | None] | Error":
        """The model that is to answer, its plan, and the budget; or what speaks against it."""
        memory, model = self._scheduler.engine_memory, self._scheduler.model
        name = config.model if config.model != before.model or model is None else model.name
        n_bytes = memory.budget
        if config.memory_budget != before.memory_budget or model is None:
            held = memory_of_process().get("rss_anonymous", 0)
            n_bytes = resolve(config.memory_budget, held)
        try:
            path = self._store.resolve(name)
        except StoreError as problem:
            if config.model == before.model:
                return name, None, n_bytes  # as it was before: not a matter of the settings
            text = _("model = {name!r}: {problem}; nothing was changed")
            return error(problem.code, text.format(name=name, problem=problem))
        try:
            plan = self._plan(
                path, config, n_bytes, base_bytes=memory.base_bytes, machine=memory.machine
            )
        except EngineError as problem:
            text = _("{name} cannot be loaded: {problem}; nothing was changed")
            return error("model_error", text.format(name=name, problem=problem))
        if plan.smallest is not None:
            text = _("{model} does not fit in {budget}; the smallest budget is {size}").format(
                model=name, budget=human_mib(plan.budget or 0), size=human_mib(plan.smallest)
            )
            return error("over_budget", text)
        return name, plan, n_bytes


def _without(found: Config, before: Config, differing: list[SettingChange]) -> Config:
    """The settings that were found, but for those that need a restart."""
    old: Mapping[str, Any] = configuration.flat(before)
    kept = {change.key: old[change.key] for change in differing if change.needs_restart}
    return configuration.build({**configuration.flat(found), **kept})


def _split(differing: list[SettingChange]) -> tuple[list[str], list[str]]:
    applied = [change.key for change in differing if not change.needs_restart]
    return applied, [change.key for change in differing if change.needs_restart]


def _summary(n_applied: int, restart: list[str]) -> str:
    parts = []
    if n_applied:
        text = ngettext("{n} setting was changed", "{n} settings were changed", n_applied)
        parts.append(text.format(n=n_applied))
    if restart:
        text = _("a restart is needed for {keys}")
        parts.append(text.format(keys=", ".join(restart)))
    return "; ".join(parts) or _("no setting has changed")
