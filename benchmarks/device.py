"""A small device inside this machine: a kernel limit on memory, and a slow disk with files on it.

For root on Linux. The disk is an ext4 image behind a loop device whose reads and writes the blkio
controller slows down. With version 1 of it, writes that nobody waits for are not slowed down,
because the kernel's own threads make them; reads and fsync are.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.memory.limits import KernelLimit

BLKIO = Path("/sys/fs/cgroup/blkio")
OWN_MOUNTS = "ASSISTANTD_BENCHMARK_OWN_MOUNTS"


class NoDeviceError(Exception):
    """It cannot be made here; the message says why."""


@dataclass(frozen=True)
class SmallDevice:
    """Attributes:
    disk: where its file system is mounted.
    within: a command that puts itself on the device and becomes what follows it.
    """

    disk: Path
    memory: KernelLimit
    within: list[str]


def run(*command: str) -> str:
    """Run a program of the system; its output.

    Raises:
        NoDeviceError: it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NoDeviceError(f"{shlex.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


def with_own_mounts() -> None:
    """Begin this program again with mounts that nobody else sees.

    Whoever makes a mount namespace at the wrong moment would else keep our file systems mounted.
    """
    if os.environ.get(OWN_MOUNTS) or os.geteuid():
        return
    os.environ[OWN_MOUNTS] = "1"
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m"]
    os.execvp(command[0], [*command, sys.modules["__main__"].__spec__.name, *sys.argv[1:]])


@contextlib.contextmanager
def loop_disk(n_bytes: int, *mount_options: str) -> Iterator[tuple[str, Path]]:
    """A file system of its own, on a loop device: (device, folder).

    Raises:
        NoDeviceError: not root, or no loop devices here.
    """
    if os.geteuid() or shutil.which("mkfs.ext4") is None:
        raise NoDeviceError("a disk of its own needs root and mkfs.ext4")
    with contextlib.ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="disk-")))
        image, mounted = folder / "image", folder / "m"
        with image.open("wb") as file:
            file.truncate(n_bytes)
        mounted.mkdir()
        run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        device = run("losetup", "--find", "--show", str(image))
        closing.callback(run, "losetup", "--detach", device)
        options = ",".join(("noatime", *mount_options))
        run("mount", "-t", "ext4", "-o", options, device, str(mounted))
        # lazily: whoever still has a file open there may end later
        closing.callback(run, "umount", "--lazy", str(mounted))
        yield device, mounted


@contextlib.contextmanager
def small_device(memory: int, disk: int, bytes_per_second: int) -> Iterator[SmallDevice]:
    """Make one.

    Raises:
        NoDeviceError, NoLimitsError: that is not possible here.
    """
    with contextlib.ExitStack() as closing:
        device, mounted = closing.enter_context(loop_disk(disk))
        limit = closing.enter_context(KernelLimit(memory))
        group = BLKIO / f"assistantd-test-{uuid.uuid4().hex[:8]}"
        if not (BLKIO / "cgroup.procs").exists():
            raise NoDeviceError("no blkio controller (version 1) here")
        group.mkdir()
        closing.callback(group.rmdir)
        number = os.stat(device).st_rdev
        rate = f"{os.major(number)}:{os.minor(number)} {bytes_per_second}"
        for name in ("read", "write"):
            (group / f"blkio.throttle.{name}_bps_device").write_text(rate)
        procs = [str(folder / "cgroup.procs") for folder in (limit.folder, group)]
        enter = " && ".join(f"echo $$ > {shlex.quote(each)}" for each in procs)
        yield SmallDevice(mounted, limit, ["/bin/sh", "-c", f'{enter} && exec "$@"', "sh"])
