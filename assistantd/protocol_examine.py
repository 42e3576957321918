"""What `assistantd --examine` prints, one JSON object: for `assistant doctor`.

Like protocol.py this module imports nothing of the daemon, so that clients may import it.
"""

from msgspec import Struct

from assistantd.protocol import PlanInfo


class ConfigExamined(Struct):
    """The settings, and what is wrong with them; then the rest is told of the defaults."""

    problem: str | None
    files: dict[str, bool]
    """Configuration files that are looked for → whether they are there."""
    overridden: dict[str, list[str]]
    """Setting that is set at several places → the places, that which holds last."""
    variables: list[str]
    """$ASSISTANTD_… that mean nothing to the daemon."""
    listen: str
    data: str
    memory_budget: str
    """As it is set: a size, "auto" or "none"."""
    kv_disk_bytes: int


class ProcessorExamined(Struct):
    """Which instructions the kernels use."""

    machine: str
    target: str
    usable: list[str]
    """Targets that this processor can run, the best first."""
    cores: int


class KernelsExamined(Struct):
    """The compiled kernels for these sources, this compiler and this processor."""

    folder: str
    entries: dict[str, str]
    """Name → ok, missing, damaged, or later (no model needs it)."""
    writable: bool
    """Whether missing ones can be compiled into the folder."""
    old_bytes: int
    """Kernels beside them, of other versions or processors."""


class ModelExamined(Struct):
    """The model that is set, and the folder of models."""

    name: str
    path: str | None
    problem: str | None
    """Why there is none, or its file cannot be used."""
    is_there: bool
    size_bytes: int
    recorded_bytes: int | None
    """Its size when it was fetched; None if that was not recorded."""
    recorded_sha256: str | None
    parts: list[str]
    """Downloads that broke off: names."""


class PlanExamined(Struct):
    """How the model would use the memory that there is."""

    budget: int | None
    """Bytes; None: no budget."""
    plan: PlanInfo | None
    available: int | None
    """Bytes that programs can have now, in all."""
    cgroup_limit: int | None
    disk: float | None
    """Bytes per second that are read from the model's file, if it was measured; of memory:"""
    memory: float | None


class Examination(Struct):
    """All of it. A part that could not be looked at is null, and `problems` says why."""

    version: str
    problems: dict[str, str]
    config: ConfigExamined
    schemas: dict[str, int]
    """Database, below the data folder → the newest schema that this version knows."""
    processor: ProcessorExamined | None = None
    kernels: KernelsExamined | None = None
    model: ModelExamined | None = None
    plan: PlanExamined | None = None
