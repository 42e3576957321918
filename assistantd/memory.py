"""The loaded model's share of the memory: its budget, giving back in steps, and rest.

Belongs to the engine thread (scheduler.py), but for the attributes, which any thread may read.
Whether there is too much is budget.py's business.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from assistantd.budget import Machine, plan_info, resolve
from assistantd.config import Config
from assistantd.jobs import ReplyTo
from assistantd.log import fields
from assistantd.metrics import EngineCounts
from assistantd.protocol import PlanInfo
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.generate import Engine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reconfiguration:
    """Other settings for the engine thread; all of them hold afterwards, or none.

    Attributes:
        name: the model that is to answer; None for the one that does, or the configured one.
        anew: load it anew, though it is the one in memory.
        budget: the memory budget is another one.
        n_bytes: the budget; None for none.
        plan: of the model called plan_of, by itself, if it is known.
        reply: gets progress, then done or an error.
    """

    config: Config
    name: str | None
    anew: bool
    budget: bool
    n_bytes: int | None
    plan: PlanInfo | None
    plan_of: str
    reply: ReplyTo


class EngineMemory:
    """How the engine, if there is one, uses the budget.

    Args:
        measure: the machine's speeds, from a model's path, the settings and the budget.
        counts: where steps that give memory back are counted.
    Attributes:
        config: the settings, with the budget as it was last set.
        budget: bytes; None for none.
        plan, used: what became of it, and bytes of the engine's that are in use; replaced whole.
        machine: its speeds, once they were measured.
        base_bytes: what the process takes without a model, once it is known.
        on_budget: told of each change of the budget.
        excess: bytes above the budget, measured now.
    """

    def __init__(
        self,
        config: Config,
        measure: Callable[[Path, Config, int | None], Machine],
        counts: EngineCounts,
    ) -> None:
        self.config, self._counts = config, counts
        self._measure = measure
        self._engine: Engine | None = None
        self._streamed_before = 0  # bytes, by engines that are closed
        self._last_active = time.monotonic()
        self._resting = False
        self._n_relieved = 0  # in a row
        self._pending: tuple[Config, int | None] | None = None  # hold once a model is loaded
        self.budget = resolve(config.memory_budget)
        self.plan: PlanInfo | None = None
        self.used: dict[str, int] = {}
        self.machine: Machine | None = None
        self.base_bytes: int | None = None
        self.on_budget: Callable[[int | None], None] = lambda budget: None
        self.excess: Callable[[], int] = lambda: 0

    # --- loading -----------------------------------------------------------------------------

    def before_load(self, path: Path, change: Reconfiguration | None = None) -> Config:
        """Find out the budget, and what to expect of the machine.

        Args:
            change: settings that hold once the model is loaded; None for those that do.

        Returns:
            The settings to load with; their budget is a number, or "none".
        """
        if change is None:
            budget = resolve(self.config.memory_budget)
            config = self.config
            self.budget, self._pending = budget, None
            self.on_budget(budget)
        else:
            config = self._merged(change.config, budget=change.budget)
            budget = change.n_bytes
            if not change.budget:
                budget = self.budget
            self._pending = (config, budget)
            self.on_budget(max(budget, self.budget) if budget and self.budget else None)
        if budget is not None and self.machine is None:
            try:
                self.machine = self._measure(path, config, budget)
            except EngineError as problem:  # only what to expect is not known then
                log.warning("cannot measure the machine", extra=fields(problem=problem))
        return structs.replace(config, memory_budget=str(budget) if budget else "none")

    def _merged(self, config: Config, *, budget: bool) -> Config:
        """Settings with the budget that was set since the start, unless theirs is to hold."""
        if budget:
            return config
        return structs.replace(config, memory_budget=self.config.memory_budget)

    def adopt(self, config: Config, *, budget: bool) -> None:
        """These settings hold now.

        Args:
            budget: theirs, too; else the one that was set last.
        """
        self.config = self._merged(config, budget=budget)

    def loaded(self, engine: "Engine") -> None:
        """This is the engine from now on."""
        if self._pending is not None:
            (self.config, self.budget), self._pending = self._pending, None
            self.on_budget(self.budget)
        self._engine = engine
        self.base_bytes = engine.base_bytes
        self.look()
        self.active()

    def not_loaded(self) -> None:
        """The engine there is stays, with its settings."""
        self._pending = None
        self.on_budget(self.budget)

    def unloaded(self) -> None:
        """There is no engine now."""
        if self._engine is not None:
            self._streamed_before += self._engine.streamed_bytes
        self._engine, self.plan, self.used = None, None, {}

    @property
    def streamed_bytes(self) -> int:
        """Bytes of weights that were streamed from the disk since the start; for any thread."""
        engine = self._engine
        return self._streamed_before + (engine.streamed_bytes if engine is not None else 0)

    def look(self) -> None:
        """Publish what has become of the memory."""
        if self._engine is not None:
            self.plan = plan_info(self._engine.plan, self.machine)
            self.used = self._engine.memory()

    # --- the budget --------------------------------------------------------------------------

    def set_budget(self, budget: int | None) -> None:
        """Change the budget, until the daemon restarts.

        Raises:
            OverBudgetError: what is running cannot shrink so far; nothing has changed.
            EngineError, OSError: weights could not be read, or the system refused.
        """
        # the watch is told of a larger budget before it is used, of a smaller one after
        self.on_budget(max(budget, self.budget) if budget and self.budget else None)
        try:
            if self._engine is not None:
                self._engine.set_budget(budget)
                self.look()
        except BaseException:
            self.on_budget(self.budget)
            raise
        self.budget = budget
        setting = str(budget) if budget else "none"
        self.config = structs.replace(self.config, memory_budget=setting)
        self.on_budget(budget)
        log.info("budget", extra=fields(bytes=budget))

    def relieve(self) -> None:
        """Give memory back: first what is quickly had again, then weights: they can be streamed."""
        engine, excess = self._engine, self.excess()
        if engine is None or not excess:
            return
        self._n_relieved += 1
        self._counts.relief_steps += 1
        if self._n_relieved == 1 or self._resting:
            engine.drop_caches()
            return
        # as if what was not foreseen had been planned
        lowered = (engine.plan.budget or engine.plan.total) - excess
        try:
            engine.set_budget(lowered)
        except Exception as problem:  # the thread must go on, whatever the system refuses
            log.error("cannot keep the budget", extra=fields(excess=excess, problem=problem))
        else:
            log.warning("gave memory back", extra=fields(excess=excess, planned=lowered))
            self.look()

    def relax(self) -> None:
        """There is room again: use the whole budget."""
        self._n_relieved = 0
        if self._engine is None or self._engine.plan.budget == self.budget:
            return
        try:
            self._engine.set_budget(self.budget)
        except Exception as problem:
            log.error("cannot use the whole budget", extra=fields(problem=problem))
        else:
            self.look()

    # --- rest --------------------------------------------------------------------------------

    def active(self) -> None:
        """Something is being computed."""
        self._last_active, self._resting = time.monotonic(), False

    def rest_at(self) -> float:
        """Monotonic time at which the weights' memory is given back, if nobody asks before."""
        after = self.config.idle_unload_s
        if self._engine is None or self._resting or not after:
            return float("inf")
        return self._last_active + after

    def rest(self) -> None:
        """Give the weights' memory back; the next pass brings it back."""
        if self._engine is not None:
            self._engine.rest()
            self._resting = True
            log.info("resting", extra=fields(idle_s=self.config.idle_unload_s))
