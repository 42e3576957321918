"""A kernel memory limit around a process: a cgroup of its own, version 1 or 2."""

import os
import shlex
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from assistantd.budget import Cgroup

_NAMES = {  # limit, peak, events with oom_kill
    1: ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
    2: ("memory.max", "memory.peak", "memory.events"),
}


class NoLimitsError(Exception):
    """No cgroup can be made here; the message says why."""


@dataclass
class KernelLimit:
    """A cgroup with a limit; processes started through `within` are held to it.

    Raises:
        NoLimitsError: when entered.
    """

    limit: int

    def __enter__(self) -> "KernelLimit":
        parent = Cgroup.find()
        if parent is None:
            raise NoLimitsError("this system has no cgroup with a memory controller")
        self._names = _NAMES[parent.version]
        # of version 2 a group that holds processes cannot have limited children: next to it then
        above = parent.folder
        if parent.version == 2 and (above.parent / "cgroup.procs").exists():
            above = above.parent
        self.folder = above / f"assistantd-test-{uuid.uuid4().hex[:8]}"
        try:
            self.folder.mkdir()
            (self.folder / self._names[0]).write_text(str(self.limit))
            if not (self.folder / self._names[1]).exists():
                raise OSError(0, "this kernel does not count the peak")
        except OSError as problem:
            if self.folder.exists():
                self.folder.rmdir()
            raise NoLimitsError(f"cannot make a cgroup in {above}: {problem.strerror}") from problem
        return self

    @property
    def within(self) -> list[str]:
        """A command that puts itself into the cgroup and becomes what follows it."""
        procs = shlex.quote(str(self.folder / "cgroup.procs"))
        return ["/bin/sh", "-c", f'echo $$ > {procs} && exec "$@"', "sh"]

    @property
    def peak(self) -> int:
        """The most bytes that were ever charged to it, page cache included."""
        return int((self.folder / self._names[1]).read_text())

    @property
    def kills(self) -> int:
        """Processes that the kernel has killed for want of memory."""
        events = (self.folder / self._names[2]).read_text().split()
        return int(events[events.index("oom_kill") + 1])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.rmdir(Path(self.folder))
