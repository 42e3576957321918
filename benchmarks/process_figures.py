"""What a process takes of the system, from /proc, and whether a series of it grows."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figures:
    """Of one process at one moment (monotonic seconds)."""

    at: float
    rss_bytes: int
    rss_anon_bytes: int
    """Without what is mapped from files, which the kernel may take back."""
    descriptors: int
    threads: int


def figures_of(pid: int) -> Figures:
    """Read them.

    Raises:
        OSError: the process is gone.
    """
    values: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _colon, rest = line.partition(":")
        if name in ("VmRSS", "RssAnon", "Threads"):
            values[name] = int(rest.split()[0])
    return Figures(
        time.monotonic(),
        values["VmRSS"] * 1024,
        values["RssAnon"] * 1024,
        sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        values["Threads"],
    )


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Of the line through the points with the least squares; 0 for fewer than two."""
    if len(xs) < 2:
        return 0.0
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    if not spread:
        return 0.0
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
