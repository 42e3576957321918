"""Whether the threads that do the work move: what a hung engine and a slow one differ in.

A clock cannot tell them apart: a prompt may take minutes on a small machine, and a weight seconds
on a worn card. What moves with the work is looked at instead, from outside:

    turns    of the engine thread's loop, and what it reports while it loads
    ticks    that the compiled pass books after each of its steps (some hundred in a pass)
    bytes    that the engine's threads and the readers of streamed weights have moved
    faults   of theirs that had to wait for the disk: mapped weights, and memory that was swapped
    waits    in the kernel that no signal interrupts (state D): the disk has the next word there,
             and a new start would wait for it again

Processor time is none of these, as an endless loop takes it, too; but while a model is loaded it
counts for a while, with that of the compiler that was started: reading a vocabulary, and compiling,
give no other sign.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

LOADING_S = 1800.0
"""Processor time is a sign of life for so long after loading began: compiling takes minutes."""
_TASKS = Path("/proc/self/task")


class Worker(Protocol):
    """The engine thread, as seen from outside."""

    turns: int

    @property
    def is_loading(self) -> bool:
        """Whether a model is being loaded."""

    def ticks(self) -> int:
        """Clock ticks that passes have booked."""

    def thread_ids(self) -> list[int]:
        """The kernel's numbers of the threads that work, those of the team included."""


@dataclass(frozen=True)
class Signs:
    """What the kernel says of some threads: sums, and whether one waits for the disk."""

    n_bytes: int = 0
    faults: int = 0
    waits: bool = False
    cpu: int = 0
    """Of the threads and of the processes they have started, in clock ticks."""


def signs(thread_ids: Iterable[int], tasks: Path = _TASKS) -> Signs:
    """Look at threads of this process; one that has ended meanwhile has no signs."""
    n_bytes = faults = cpu = 0
    waits = False
    for thread_id in thread_ids:
        folder = tasks / str(thread_id)
        try:
            state, own_faults, own_cpu = _stat(folder / "stat")
            moved = _moved(folder / "io")
            children = (folder / "children").read_text().split()
        except OSError:
            continue
        n_bytes, faults, cpu = n_bytes + moved, faults + own_faults, cpu + own_cpu
        waits = waits or state == "D"
        for child in children:
            try:
                _state, its_faults, its_cpu = _stat(Path("/proc", child, "stat"))
            except OSError:
                continue
            faults, cpu = faults + its_faults, cpu + its_cpu
    return Signs(n_bytes, faults, waits, cpu)


def _stat(path: Path) -> tuple[str, int, int]:
    """State, major faults and processor time, of proc(5)'s stat."""
    values = path.read_text().rpartition(")")[2].split()  # a name may hold anything
    return values[0], int(values[9]), int(values[11]) + int(values[12])


def _moved(path: Path) -> int:
    """Bytes that a thread has read and written, by any system call."""
    values = dict(line.split(": ") for line in path.read_text().splitlines())
    return int(values["rchar"]) + int(values["wchar"])


class Pulse:
    """Tells of a worker whether it has moved since it was last asked."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._last: tuple[int, ...] = ()
        self._cpu = 0
        self._loading_since: float | None = None

    def moves(self) -> bool:
        """Whether there was a sign of life since the last call; the first says so."""
        worker = self._worker
        seen = signs(worker.thread_ids())
        now = (worker.turns, worker.ticks(), seen.n_bytes, seen.faults)
        moved = now != self._last or seen.waits
        computes, self._last, self._cpu = seen.cpu != self._cpu, now, seen.cpu
        if not worker.is_loading:
            self._loading_since = None
            return moved
        if self._loading_since is None:
            self._loading_since = time.monotonic()
        in_time = time.monotonic() - self._loading_since < LOADING_S
        return moved or (computes and in_time)
