"""Loading a model into the engine, the plan for it, and what there is to say of it afterwards."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from assistantd.budget import Machine, memory_of_process, no_plan, plan_info, resolve
from assistantd.config import Config
from assistantd.i18n import _
from assistantd.log import fields
from assistantd.protocol import ModelInfo, PlanInfo
from engine.errors import EngineError, OverBudgetError

if TYPE_CHECKING:
    from engine.generate import Engine, ProgressCallback
    from engine.plan import Settings

log = logging.getLogger(__name__)

_PROBE_BYTES = 64 << 20
_KERNEL_BYTES = 8 << 20
"""What loading the kernels adds to a process that has not loaded them."""


def load_engine(
    path: Path, config: Config, progress: "ProgressCallback", *, beside: int | None = None
) -> "Engine":
    """The real engine, once its model has answered.

    Args:
        beside: what the process takes without a model, if another one is in memory: that one has
            the folder for conversations; see `attach_disk`.

    Raises:
        EngineError: the model cannot be loaded, or does not answer.
    """
    from engine.generate import Engine

    if beside is None and not config.engine.kv_disk_bytes:
        forget_saved(config)  # of a time when it was kept
    engine = Engine.load(
        path,
        n_threads=config.engine.threads or None,
        kv_tokens=config.engine.kv_tokens,
        kv_type=config.engine.kv_type,
        kv_dir=config.kv_path if beside is None else None,
        kv_disk_bytes=config.engine.kv_disk_bytes,
        prompt_lookup=config.engine.prompt_lookup,
        budget=resolve(config.memory_budget),
        base_bytes=beside,
        progress=progress,
    )
    try:
        prove(engine)
    except BaseException:
        engine.close()
        raise
    return engine


def prove(engine: "Engine") -> None:
    """Have the model answer one token, all the way from text: then it can be called ready.

    Raises:
        EngineError: none came.
    """
    from engine.sampler import SamplingParams

    prompt = engine.tokenizer.encode("a") or [0]
    sequence = engine.start(prompt, SamplingParams(temperature=0.0, max_tokens=1))
    while sequence.finish_reason is None:
        if not engine.step():
            raise EngineError(_("the model does not answer"))


def attach_disk(engine: "Engine", config: Config) -> None:
    """Give an engine that was loaded beside another the folder that the other one had.

    The other one is closed by now, and what it saved is deleted if it is of another model.
    """
    if config.engine.kv_disk_bytes:
        engine.use_disk(config.kv_path, config.engine.kv_disk_bytes)
        return
    try:
        forget_saved(config)
    except OSError as problem:
        log.error("cannot delete saved state", extra=fields(error=problem))


def settings_of(config: Config) -> "Settings":
    """What the configuration asks for, in the planner's terms."""
    from engine.plan import Settings
    from engine.threads import physical_cores

    engine = config.engine
    return Settings(engine.threads or physical_cores(), engine.kv_tokens, engine.kv_type)


def measure(path: Path, config: Config, budget: int | None) -> Machine:
    """The machine's speeds, within a budget of which the process has no model yet.

    Raises:
        EngineError: the file cannot be read, or the kernels not compiled.
    """
    from engine.probe import disk_speed, memory_speed

    room = _PROBE_BYTES
    if budget is not None:
        room = min(room, (budget - memory_of_process().get("rss", 0)) // 2)
    n_threads = settings_of(config).n_threads
    return Machine(disk_speed(path, _PROBE_BYTES // 2), memory_speed(n_threads, room, 5))


def plan_model(
    path: Path,
    config: Config,
    budget: int | None,
    *,
    base_bytes: int | None = None,
    machine: Machine | None = None,
) -> PlanInfo:
    """How a model would use a budget, or the smallest that would do.

    Args:
        base_bytes: what the daemon takes without a model; None: what this process takes now.

    Raises:
        EngineError: the file is damaged, or its model not supported.
    """
    from engine.plan import plan_for

    if base_bytes is None:
        base_bytes = memory_of_process().get("rss", 0) + _KERNEL_BYTES
    try:
        plan = plan_for(path, base_bytes, settings_of(config), budget)
    except OverBudgetError as problem:
        return no_plan(problem.budget, problem.smallest)
    return plan_info(plan, machine)


def forget_saved(config: Config) -> None:
    """Delete what engines have saved of conversations; no engine may be loaded.

    Raises:
        OSError: the disk refused.
    """
    from engine.kv_disk import discard

    discard(config.kv_path)


def brief(model: ModelInfo | None) -> ModelInfo | None:
    """The model as a reply names it, without the details."""
    return ModelInfo(model.name, model.size_bytes, loaded=True) if model else None


def model_info(name: str, path: Path, size_bytes: int, engine: "Engine") -> ModelInfo:
    """All there is to know of a loaded model."""
    info = engine.info
    return ModelInfo(
        name=name,
        size_bytes=size_bytes,
        loaded=True,
        path=str(path),
        architecture=info.architecture,
        parameters=info.parameters,
        quantization=info.quantization,
        context_length=engine.context_length,
        n_layers=info.n_layers,
        vocab_size=info.vocab_size,
    )
