"""Power cuts at random points: is what was acknowledged there when only synced data survives?

    python -m benchmarks.power_cuts MODEL.gguf [--cuts 200] [--seed 0] [--json docs/power-cuts.json]

As kills.py, but the daemon's data are on an ext4 file system of their own, and instead of its
process the file system is killed: FS_IOC_SHUTDOWN without a flush of the journal, which is how the
kernel's own tests simulate a power failure. Nothing that was not synced reaches the disk. Then it
is unmounted and mounted, which replays the journal, and the next daemon must cope with what is
there. The journal is never committed but by fsync (commit=600).

ext4 writes names with any file's fsync, so that a folder that is not synced goes unnoticed here;
tests/faults/test_syncs.py watches the system calls for that.
"""

import argparse
import contextlib
import fcntl
import json
import os
import random
import shutil
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.device import loop_disk, run, with_own_mounts
from benchmarks.kill_triggers import Trigger
from benchmarks.kills import Kills, RefusedError
from tests.running import short_folder

DISK = 400 << 20
FS_IOC_SHUTDOWN = 0x8004587D
WITHOUT_LOG_FLUSH = 2
DISK_ERRORS = ("Input/output error", "disk I/O error", "disk image is malformed")
"""Of a disk without power; what its files hold is looked at when it has power again."""


def cut_power(folder: Path) -> None:
    """The file system of a folder loses what was not synced, and all further calls fail."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, FS_IOC_SHUTDOWN, struct.pack("I", WITHOUT_LOG_FLUSH))
    finally:
        os.close(handle)


class Cut(Trigger):
    """A trigger that cuts the power of the disk, and of the process."""

    disk: Path

    def fire(self) -> None:
        if not self.gone.is_set():
            # both go at once with the power: what it says while it lives a moment longer than
            # its disk was never said (the kernel has told it of syncs that were broken off)
            self.void.set()
            cut_power(self.disk)
        super().fire()


class PowerCuts(Kills):
    """The run; its data are on a disk of their own."""

    def __init__(self, model: Path, folder: Path, device: str, disk: Path, seed: int) -> None:
        super().__init__(model, folder, seed, disk / "data")
        self.device, self.disk = device, disk

    def trigger(
        self,
        kind: str,
        pid: int,
        folders: Sequence[Path],
        rng: random.Random,
        spread_s: float,
        spread: int,
    ) -> Trigger:
        """One that cuts the power."""
        cut = Cut(kind, pid, folders, rng, spread_s, spread)
        cut.disk = self.disk
        return cut

    def after(self, status: int) -> None:
        """The power comes back."""
        # once more: it may have ended by itself, and what it left is to survive as well
        cut_power(self.disk)
        run("umount", str(self.disk))
        run("mount", "-t", "ext4", "-o", "noatime,commit=600", self.device, str(self.disk))

    def is_well(self, phase: str, status: int) -> bool:
        """It may also have found that its disk does not work, before it was killed."""
        return status == 0 or (phase == "start" and status == 1)

    def expected(self, refused: RefusedError) -> bool:
        """Between the cut and the end of the process the disk gives nothing but errors."""
        return any(text in str(refused) for text in DISK_ERRORS)

    def log_problems(self) -> list[str]:
        """None: it may say in full what the disk did."""
        return []


@contextlib.contextmanager
def cuts(model: Path, seed: int) -> Iterator[PowerCuts]:
    """A run on a new disk."""
    folder = short_folder()
    with loop_disk(DISK, "commit=600") as (device, disk):
        yield PowerCuts(model, folder, device, disk, seed)
    shutil.rmtree(folder)


def cut_many(model: Path, n: int, seed: int = 0) -> dict[str, object]:
    """So many cuts; what came of them."""
    with cuts(model, seed) as running:
        return running.run(n)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with_own_mounts()
    result = cut_many(options.model.resolve(), options.cuts, options.seed)
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(bool(result["problems"]))


if __name__ == "__main__":
    main()
