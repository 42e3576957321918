"""`assistantd --examine`: what the settings, the processor, kernels, model and plan are like.

For `assistant doctor`, which must not import the engine. Nothing is changed, compiled or fetched;
64 MB of the model are read at most. A part that fails does not keep the others from being told.
"""

import json
import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from assistantd import budget
from assistantd import config as configuration
from assistantd.config import Config, ConfigError, LoadedConfig
from assistantd.models import ModelStore, StoreError
from assistantd.protocol_examine import (
    ConfigExamined,
    Examination,
    KernelsExamined,
    ModelExamined,
    PlanExamined,
    ProcessorExamined,
)

T = TypeVar("T")

_OTHER_VARIABLES = frozenset(
    f"ASSISTANTD_{name}" for name in ("SIMD", "KERNEL_CACHE", "AUTOSTART", "TEST_MODEL")
)
"""Variables beside the settings' own."""
_PROBE_BYTES = 64 << 20


def examine(config_file: Path | None, flags: Mapping[str, Any]) -> Examination:
    """Look at everything."""
    problem: str | None = None
    try:
        loaded = configuration.load(config_file, flags)
    except ConfigError as error:
        problem = str(error)
        # what can be told without them
        place = {"ASSISTANTD_DATA_DIR": os.environ.get("ASSISTANTD_DATA_DIR", "")}
        loaded = configuration.load(Path(os.devnull), {}, place)
    files = [config_file] if config_file else configuration.default_files()
    config = loaded.config
    found = Examination(
        version=version("assistantd"),
        problems={},
        config=_config(loaded, problem, files),
        schemas=_schemas(),
    )

    def part(name: str, look: Callable[[], T]) -> T | None:
        try:
            return look()
        except (Exception, SystemExit) as error:  # a package that is broken may raise anything
            found.problems[name] = f"{type(error).__name__}: {error}"
            return None

    found.processor = part("processor", lambda: _processor(config))
    found.kernels = part("kernels", _kernels)
    found.model = part("model", lambda: _model(config))
    found.plan = part("plan", lambda: _plan(config, found))
    return found


def _config(loaded: LoadedConfig, problem: str | None, files: list[Path]) -> ConfigExamined:
    config = loaded.config
    settings = configuration.keys()
    known = {"ASSISTANTD_" + key.replace(".", "_").upper() for key in settings}
    given = {name for name in os.environ if name.startswith("ASSISTANTD_")}
    return ConfigExamined(
        problem=problem,
        files={str(file): file.exists() for file in files},
        overridden={key: list(places) for key, places in loaded.shadowed.items()},
        variables=sorted(given - known - _OTHER_VARIABLES),
        listen=config.listen,
        data=str(config.data_path),
        memory_budget=config.memory_budget,
        kv_disk_bytes=config.engine.kv_disk_bytes,
    )


def _schemas() -> dict[str, int]:
    from assistantd import sessions
    from assistantd.network import devices

    known = {"sessions.db": len(sessions.MIGRATIONS)}
    return {**known, f"network/{devices.FILE_NAME}": len(devices.MIGRATIONS)}


def _processor(config: Config) -> ProcessorExamined:
    from assistantd.loading import settings_of
    from engine import target

    return ProcessorExamined(
        machine=platform.machine(),
        target=target.TARGET,
        usable=target.available(),
        cores=settings_of(config).n_threads,
    )


def _kernels() -> KernelsExamined:
    # what is compiled does without it, but not what is to be compiled next
    import llvmlite.binding  # noqa: F401

    from engine import native

    def state(name: str) -> str:
        if native.read(name) is not None:
            return "ok"
        if native.path_of(name).exists():
            return "damaged"
        return "missing" if name in native.NEEDED else "later"

    folder = native.cache_dir()
    there = folder
    while not there.exists():
        there = there.parent
    others = [one for one in folder.parent.glob("*/*.kernel") if one.parent != folder]
    return KernelsExamined(
        folder=str(folder),
        entries={name: state(name) for name in native.ENTRIES},
        writable=os.access(there, os.W_OK | os.X_OK),
        old_bytes=sum(one.stat().st_size for one in others),
    )


def _model(config: Config) -> ModelExamined:
    root = config.data_path / "models"
    store = ModelStore(root)
    found = ModelExamined(
        name=config.model,
        path=None,
        problem=None,
        is_there=False,
        size_bytes=0,
        recorded_bytes=None,
        recorded_sha256=None,
        parts=sorted(path.stem for path in root.glob("*.part")),
    )
    try:
        path = store.resolve(config.model)
    except StoreError as error:
        found.problem = str(error)
        return found
    found.path, found.is_there, found.size_bytes = str(path), True, path.stat().st_size
    try:
        note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        found.recorded_bytes = int(note["size_bytes"])
        found.recorded_sha256 = str(note["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # a file put here by hand has no such note
    found.problem = store.show(config.model).problem
    return found


def _plan(config: Config, found: Examination) -> PlanExamined:
    from engine import native
    from engine.probe import disk_speed, memory_speed

    cgroup = budget.Cgroup.find()
    n_bytes = budget.resolve(config.memory_budget)
    plan = PlanExamined(
        budget=n_bytes,
        plan=None,
        available=budget.available_bytes(),
        cgroup_limit=cgroup.limit if cgroup else None,
        disk=None,
        memory=None,
    )
    model = found.model
    if model is None or model.path is None or model.problem is not None:
        return plan
    from assistantd.loading import plan_model

    path, machine = Path(model.path), None
    plan.disk = disk_speed(path, _PROBE_BYTES)
    if native.read("read_memory") is not None:  # or it would be compiled now
        cores = found.processor.cores if found.processor is not None else 1
        plan.memory = memory_speed(cores, _PROBE_BYTES, 5)
        machine = budget.Machine(plan.disk, plan.memory)
    plan.plan = plan_model(path, config, n_bytes, machine=machine)
    return plan
