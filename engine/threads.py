"""The worker team: threads that run one compiled function together, and meet at barriers in it.

`Team.run` wakes the workers once per forward pass; within the pass they meet at a barrier
(kernels/barrier.py), without the GIL. Idle workers sleep on a lock and cost nothing.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np


def physical_cores() -> int:
    """Cores this process may run on, hyper-threads counted once; at least 1."""
    try:
        usable = os.sched_getaffinity(0)
    except AttributeError:  # macOS has no affinity
        return os.cpu_count() or 1
    cores = set()
    for cpu in usable:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text() if siblings.exists() else str(cpu))
    return max(1, len(cores))


def name_thread() -> None:
    """Tell the kernel what this thread is called, for `top -H` and whoever looks for a hung one."""
    name = threading.current_thread().name
    with contextlib.suppress(OSError):  # not Linux, or /proc is hidden: it is only a name
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name)


class Team:
    """n_threads threads, of which the caller of `run` is one."""

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._sync = np.zeros(128 // 8 + 8, np.int64)
        # aligned to a cache line, so that the two counters never share one
        self.sync_address = -(-self._sync.ctypes.data // 64) * 64
        self._job: tuple[Callable[[int, int, int, int], None], int] | None = None
        self._wake = [threading.Semaphore(0) for _ in range(n_threads - 1)]
        self._finished = threading.Semaphore(0)
        self._threads = [
            threading.Thread(
                target=self._work, args=(i + 1, wake), name=f"engine-{i + 1}", daemon=True
            )
            for i, wake in enumerate(self._wake)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, function: Callable[[int, int, int, int], None], job: int) -> None:
        """Run function(thread, n_threads, sync_address, job) on all threads; wait for all.

        The function must be a compiled one that raises nothing once it has started: a thread that
        left early would be waited for at the next barrier for ever.
        """
        self._job = (function, job)
        for wake in self._wake:
            wake.release()
        function(0, self.n_threads, self.sync_address, job)
        for _ in self._wake:
            self._finished.acquire()
        self._job = None

    def close(self) -> None:
        """End the worker threads."""
        self._job = None
        for wake in self._wake:
            wake.release()
        for thread in self._threads:
            thread.join()
        self._threads, self._wake = [], []

    def _work(self, index: int, wake: threading.Semaphore) -> None:
        name_thread()
        while True:
            wake.acquire()
            if self._job is None:
                return
            function, job = self._job
            function(index, self.n_threads, self.sync_address, job)
            self._finished.release()
