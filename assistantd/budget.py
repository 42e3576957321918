"""The memory budget: what it is, whether it is kept, and what a plan under it looks like to people.

The plan itself is the engine's (engine/plan.py). This side reads what the system allows and what
the process takes, and tells the scheduler when to give memory back: a thread looks twice a second,
which is often compared with how fast a process grows that has been planned for.
"""

import logging
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assistantd.i18n import _, marked
from assistantd.localisation.width import padded
from assistantd.log import fields
from assistantd.protocol import PlanInfo
from assistantd.sizes import parse_size

if TYPE_CHECKING:
    from engine.plan import MemoryPlan

log = logging.getLogger(__name__)

AUTO_SHARE = 0.9
"""Of a cgroup's limit or of the available memory, with `auto`."""
LOOK_EVERY_S = 0.5
CALM_S = 10.0
"""Without pressure for so long, what was given back is taken again."""
MOST_CALM_S = 600.0
"""It waits longer after each relapse, up to this."""
CGROUP_SHARE = 0.97
"""Of a cgroup's limit that may be used up: the kernel never lets it be more than all."""
PRESSURE_PERCENT = 10.0
"""Of the last ten seconds that tasks of the cgroup waited for memory (PSI some avg10)."""


# --- what the system says ------------------------------------------------------------------------


def _number(path: Path) -> int | None:
    """A file's only number; None if there is no such file, or it says "max"."""
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _fields(path: Path) -> dict[str, str]:
    """Lines of "key: value" or "key value"."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.replace(":", " ").split(maxsplit=1) for line in lines)
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


@dataclass(frozen=True)
class Cgroup:
    """The memory controller's folder of this process.

    Attributes:
        version: 1 or 2.
    """

    folder: Path
    version: int

    @classmethod
    def find(cls, proc: Path = Path("/proc/self"), root: Path = Path("/sys/fs/cgroup")) -> (
        "Cgroup | None"
    ):  # fmt: skip
        """Of this process; None where there are no cgroups."""
        try:
            lines = (proc / "cgroup").read_text().splitlines()
        except OSError:
            return None
        for line in lines:
            _number_of, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            version = 1 if controllers else 2
            base = root / "memory" if version == 1 else root
            folder = base / path.lstrip("/")
            # within a container the path is the host's, and the folder mounted at the root
            for place in (folder, base):
                name = "memory.limit_in_bytes" if version == 1 else "memory.current"
                if (place / name).exists():
                    return cls(place, version)
        return None

    @property
    def limit(self) -> int | None:
        """The smallest limit of the folder and those above it, in bytes; None if there is none."""
        name = "memory.limit_in_bytes" if self.version == 1 else "memory.max"
        high = [] if self.version == 1 else ["memory.high"]
        found = []
        folder = self.folder
        while (folder / "cgroup.procs").exists():
            found += [_number(folder / file) for file in (name, *high)]
            folder = folder.parent
        limits = [n for n in found if n is not None and n < 1 << 60]  # v1 says a huge number
        return min(limits, default=None)

    @property
    def usage(self) -> int | None:
        """Bytes charged to it that the kernel cannot simply drop: all but the page cache."""
        if self.version == 1:
            usage, cache = _number(self.folder / "memory.usage_in_bytes"), "total_inactive_file"
        else:
            usage, cache = _number(self.folder / "memory.current"), "inactive_file"
        if usage is None:
            return None
        stat = _fields(self.folder / "memory.stat")
        active = "total_active_file" if self.version == 1 else "active_file"
        return usage - int(stat.get(cache, 0)) - int(stat.get(active, 0))

    @property
    def pressure(self) -> float:
        """Percent of the last ten seconds that some task waited for memory; 0 if not known."""
        some = _fields(self.folder / "memory.pressure").get("some", "")
        for item in some.split():
            if item.startswith("avg10="):
                return float(item.removeprefix("avg10="))
        return 0.0


def available_bytes() -> int | None:
    """Memory that programs can have now, in all; None where the system does not say."""
    value = _fields(Path("/proc/meminfo")).get("MemAvailable")
    if value is not None:
        return int(value.split()[0]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError):
        return None


def resolve(setting: str, held: int = 0) -> int | None:
    """Bytes of the setting `memory_budget`; None for no budget.

    Args:
        held: what this process holds of the memory, and would have again.

    auto  nine tenths of the cgroup's limit, or of what is available now if that is less
    none  as much as it takes

    Raises:
        ValueError: it is neither of these nor a size.
    """
    if setting == "none":
        return None
    if setting != "auto":
        return parse_size(setting) or None
    cgroup = Cgroup.find()
    available = available_bytes()
    if available is not None:
        available += held
    limits = [n for n in (cgroup.limit if cgroup else None, available) if n]
    return int(AUTO_SHARE * min(limits)) if limits else None


def memory_of_process() -> dict[str, int]:
    """Bytes in memory: rss, rss_anonymous (Linux only) and peak_rss."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"peak_rss": peak if sys.platform == "darwin" else peak * 1024}
    names = {"VmRSS": "rss", "RssAnon": "rss_anonymous", "VmHWM": "peak_rss"}
    for key, value in _fields(Path("/proc/self/status")).items():
        if key in names:
            found[names[key]] = int(value.split()[0]) * 1024
    return found


# --- plans, for the protocol ---------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """Speeds in bytes per second; measured once, before a model is loaded."""

    disk: float
    memory: float


def plan_info(plan: "MemoryPlan", machine: Machine | None) -> PlanInfo:
    """What clients are told of a plan."""
    return PlanInfo(
        budget=plan.budget,
        owners=plan.owners,
        resident_bytes=plan.resident_bytes,
        streamed_bytes=plan.streamed_bytes,
        kv_tokens=plan.kv_tokens,
        kv_type=plan.kv_type,
        tokens_per_second=round(plan.tokens_per_second(machine.disk, machine.memory), 2)
        if machine
        else None,
    )


def no_plan(budget: int, smallest: int) -> PlanInfo:
    """What clients are told when a budget is too small."""
    return PlanInfo(budget, {}, 0, 0, 0, "f16", smallest=smallest)


def human_mib(n_bytes: int) -> str:
    """As budgets are written: 400M."""
    return f"{-(-n_bytes // 2**20)}M"


_OWNERS = {
    "libraries": marked("libraries"),
    "sessions": marked("sessions"),
    "weights": marked("weights"),
    "stream": marked("stream"),
    "kv_cache": marked("kv cache"),
    "activations": marked("activations"),
    "margin": marked("margin"),
}


def plan_lines(plan: PlanInfo, machine: Machine) -> list[str]:
    """A plan for people, a line for each owner."""
    planned = human_mib(sum(plan.owners.values()))
    if plan.budget is None:
        lines = [_("no budget, planned {size}").format(size=planned)]
    else:
        head = _("budget {budget}, planned {size}")
        lines = [head.format(budget=human_mib(plan.budget), size=planned)]
    for name, n_bytes in plan.owners.items():
        label = _(_OWNERS.get(name, name.replace("_", " ")))
        lines.append(f"  {padded(label, 12)}{human_mib(n_bytes):>8}")
    stays, read = human_mib(plan.resident_bytes), human_mib(plan.streamed_bytes)
    if plan.streamed_bytes:
        weights = _("weights: {stays} stay in memory, {read} are read from the disk for a token")
        lines.append(weights.format(stays=stays, read=read))
    else:
        lines.append(_("weights: all stay in memory"))
    kept = _("conversations: {n} tokens ({kv_type})")
    lines.append(kept.format(n=plan.kv_tokens, kv_type=plan.kv_type))
    speed = _(
        "speed: about {n:.1f} tokens/s at most (disk {disk:.1f} GB/s, memory {memory:.1f} GB/s)"
    )
    lines.append(
        speed.format(n=plan.tokens_per_second, disk=machine.disk / 1e9, memory=machine.memory / 1e9)
    )
    return lines


# --- keeping it ----------------------------------------------------------------------------------


class Watch:
    """Looks at the process's memory, and calls for help when there is too much of it.

    Args:
        relieve: called, from the watch's thread, at each look that finds too much.
        relax: called once there has been room for CALM_S, twice as long after each relapse.
    """

    def __init__(self, relieve: Callable[[], None], relax: Callable[[], None]) -> None:
        self._relieve, self._relax = relieve, relax
        self.budget: int | None = None
        """Bytes; may be changed at any time."""
        self.cgroup = Cgroup.find()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="budget", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join()

    def memory(self) -> dict[str, int]:
        """memory_of_process, with cgroup_usage and cgroup_limit where there is a limit."""
        found = memory_of_process()
        limit = self.cgroup.limit if self.cgroup else None
        if self.cgroup is not None and limit is not None:
            found["cgroup_limit"] = limit
            found["cgroup_usage"] = self.cgroup.usage or 0
        return found

    def excess(self) -> int:
        """Bytes above the budget or the cgroup's limit; under pressure at least a little."""
        memory = self.memory()
        excess = 0
        if self.budget is not None and "rss" in memory:
            excess = memory["rss"] - self.budget
        if "cgroup_limit" in memory:
            allowed = int(CGROUP_SHARE * memory["cgroup_limit"])
            excess = max(excess, memory["cgroup_usage"] - allowed)
            if self.cgroup is not None and self.cgroup.pressure > PRESSURE_PERCENT:
                excess = max(excess, memory["cgroup_limit"] // 50)
        return max(0, excess)

    def _run(self) -> None:
        over, relieved, calm_since, calm_s = False, False, time.monotonic(), CALM_S
        while not self._stop.wait(LOOK_EVERY_S):
            excess, now = self.excess(), time.monotonic()
            if excess:
                if not over:
                    log.warning("over budget", extra=fields(excess=excess, budget=self.budget))
                over = relieved = True
                calm_since = now
                self._relieve()
                continue
            over = False
            if relieved and now - calm_since >= calm_s:
                relieved, calm_s = False, min(2 * calm_s, MOST_CALM_S)
                self._relax()
            elif not relieved and now - calm_since >= MOST_CALM_S:
                calm_s = CALM_S
