"""Stop one thread of a process, as a debugger does, while the others go on."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_DETACH, _SEIZE, _INTERRUPT = 17, 0x4206, 0x4207
_WALL = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def thread(pid: int, name: str) -> int:
    """The thread of a process that has this name."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == name:
            return int(task.name)
    raise AssertionError(f"process {pid} has no thread {name}")


def _ptrace(request: int, thread_id: int) -> None:
    if _libc.ptrace(request, thread_id, None, None) < 0:
        problem = ctypes.get_errno()
        raise OSError(problem, os.strerror(problem))


class Frozen:
    """A thread that does not move."""

    def __init__(self, thread_id: int) -> None:
        self.thread_id = thread_id
        _ptrace(_SEIZE, thread_id)
        _ptrace(_INTERRUPT, thread_id)
        _pid, status = os.waitpid(thread_id, _WALL)
        assert os.WIFSTOPPED(status), status
        self.killed_by: int | None = None

    def wait_killed(self) -> int:
        """Wait until somebody ends the process; returns the signal.

        A thread that is traced is reaped by its tracer; until then the process has not ended.
        """
        _pid, status = os.waitpid(self.thread_id, _WALL)
        while os.WIFSTOPPED(status):
            # a signal has arrived: it is passed on as it came
            if _libc.ptrace(7, self.thread_id, None, os.WSTOPSIG(status)) < 0:
                break
            _pid, status = os.waitpid(self.thread_id, _WALL)
        assert os.WIFSIGNALED(status), status
        self.killed_by = os.WTERMSIG(status)
        return self.killed_by


@contextlib.contextmanager
def frozen(thread_id: int) -> Iterator[Frozen]:
    """A thread stands still while the block runs, or until its process is ended."""
    stopped = Frozen(thread_id)
    try:
        yield stopped
    finally:
        if stopped.killed_by is None:
            with contextlib.suppress(ProcessLookupError):
                _ptrace(_DETACH, thread_id)
