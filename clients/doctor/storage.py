"""Checks of where data is kept: room, speed, kinds of file systems, and who may read it."""

import os
import pwd
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clients.cli.output import human_bytes
from clients.doctor.context import Context, UnexaminedError
from clients.doctor.finding import Finding, ok, problem, skipped, warning
from clients.i18n import _

_LEAST_BYTES = 32 << 20
_FEW_BYTES = 512 << 20
_FEW_INODES = 200
_SLOW_DISK = 20e6
"""Bytes per second: a slow memory card."""
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs")
_SIMPLE = ("vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk")
_PRIVATE = ("sessions.db", "sessions.db-wal", "sessions.db-shm", "network", "web", "kv", "crashes")
"""Of the data folder: nobody else may read these."""
_MOST_FILES = 2000


@dataclass(frozen=True)
class Mount:
    """A file system, and where it is."""

    point: str
    kind: str
    read_only: bool


def _existing(path: Path) -> Path:
    """A path, or the nearest folder above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def mounts(context: Context) -> list[Mount]:
    """All file systems, in the order in which they were mounted (proc_pid_mountinfo(5))."""
    found = []
    for line in context.read("proc/self/mountinfo").splitlines():
        before, _dash, after = line.partition(" - ")
        parts, rest = before.split(), after.split()
        if len(parts) >= 6 and len(rest) >= 3:
            point = parts[4].encode().decode("unicode_escape")  # a space is \040
            options = {*parts[5].split(","), *rest[2].split(",")}
            found.append(Mount(point, rest[0], "ro" in options))
    return found


def mount_of(path: Path, among: list[Mount]) -> Mount | None:
    """The file system that a path is on."""
    real = os.path.realpath(_existing(path))
    fitting = [
        mount
        for mount in among
        if real == mount.point or real.startswith(mount.point.rstrip("/") + "/")
    ]
    return max(reversed(fitting), key=lambda mount: len(mount.point), default=None)


def check_disk_space(context: Context) -> Iterator[Finding]:
    """Is there room for conversations, and for what the daemon puts on the disk?"""
    folder = _existing(context.data)
    free = shutil.disk_usage(folder).free
    inodes = os.statvfs(folder)
    details = {"folder": str(folder), "free": free}
    mend = _("delete what is not needed, as models: `assistant models list`, then `… remove NAME`")
    text = _("{free} are free in {folder}").format(free=human_bytes(free), folder=folder)
    if free < _LEAST_BYTES:
        yield problem(
            "disk-space.full", text, _("answers cannot be stored, and are lost"), mend, **details
        )
    elif inodes.f_files and inodes.f_favail < _FEW_INODES:
        text = _("no more than {n} files can be made in {folder}")
        text = text.format(n=inodes.f_favail, folder=folder)
        yield problem("disk-space.files", text, _("answers cannot be stored"), mend, **details)
    elif free < min(_FEW_BYTES, context.examination.config.kv_disk_bytes + _LEAST_BYTES):
        why = _("it is soon full; conversations that wait on disk (kv_disk) have no room")
        yield warning("disk-space.little", text, why, mend, **details)
    else:
        yield ok("disk-space", text, **details)


def check_disk_speed(context: Context) -> Iterator[Finding]:
    """How fast is the model read?"""
    found = context.examination.plan
    if found is None or found.disk is None:
        yield skipped("disk-speed", _("there is no model to read from"))
        return
    text = _("{speed} per second are read from the model").format(speed=human_bytes(found.disk))
    if found.disk < _SLOW_DISK:
        yield warning(
            "disk-speed.slow",
            text,
            _("loading takes long, and a model that does not fit in memory is slow"),
            _("keep data_dir on a solid-state disk, or a faster card (A2)"),
            bytes_per_second=found.disk,
        )
    else:
        yield ok("disk-speed", text, bytes_per_second=found.disk)


def check_file_systems(context: Context) -> Iterator[Finding]:
    """Are data, socket and kernels on file systems that lock, map and protect files?"""
    all_mounts = mounts(context)
    if not all_mounts:
        yield skipped("file-systems", _("the system does not tell of its file systems"))
        return
    places = [(_("the data"), context.data)]
    if context.is_local:
        places.append((_("the socket"), context.socket.parent))
    fine = {}
    for what, path in places:
        mount = mount_of(path, all_mounts)
        if mount is None:
            continue
        details = {"path": str(path), "mount": mount.point, "kind": mount.kind}
        move = _("set data_dir (or endpoint) to a folder on a disk of this machine, such as ext4")
        if mount.read_only:
            text = _("{path} is on a file system that is read-only ({mount})")
            yield problem(
                "file-systems.read-only",
                text.format(path=path, mount=mount.point),
                _("the daemon cannot start; the kernel does so, too, when a disk fails"),
                f"sudo dmesg | tail; sudo mount -o remount,rw {mount.point}",
                **details,
            )
        elif mount.kind in _REMOTE:
            text = _("{what} is on a network file system ({kind}): {path}")
            yield problem(
                "file-systems.remote",
                text.format(what=what, kind=mount.kind, path=path),
                _("locks do not hold there, a database breaks, and a lost server hangs the daemon"),
                move,
                **details,
            )
        elif mount.kind in _SIMPLE:
            text = _("{what} is on a file system without permissions ({kind}): {path}")
            yield problem(
                "file-systems.simple",
                text.format(what=what, kind=mount.kind, path=path),
                _("everybody may read conversations and keys, and sockets do not work"),
                move,
                **details,
            )
        else:
            fine[str(path)] = mount.kind
    if len(fine) == len(places):
        kinds = ", ".join(f"{path}: {kind}" for path, kind in fine.items())
        yield ok("file-systems", kinds, **fine)


def check_permissions(context: Context) -> Iterator[Finding]:
    """Do data files belong to the daemon's user, and to nobody else?"""
    from clients.servers import path as servers_file
    from clients.web.tls import folder as web_folder

    try:
        data: Path | None = context.data
    except UnexaminedError:
        data = None
    seen = 0
    faults: list[Finding] = []
    if data is not None and data.exists():
        owner = data.stat().st_uid
        if not context.is_system and owner != os.getuid() and os.getuid() != 0:
            faults.append(_foreign(data, owner, os.getuid()))
        for path in _files(data):
            seen += 1
            faults += _faults_of(path, owner, private=_is_private(path, data))
    for path in (servers_file(), *sorted(web_folder().glob("*.key"))):
        if path.exists():
            seen += 1
            faults += _faults_of(path, os.getuid(), private=True)
    yield from faults
    if not faults:
        text = _("{n} files belong to the right user, and to nobody else")
        yield ok("permissions", text.format(n=seen), files=seen)


def _files(folder: Path) -> list[Path]:
    found = [folder]
    for path in folder.rglob("*"):
        found.append(path)
        if len(found) >= _MOST_FILES:
            break
    return found


def _is_private(path: Path, data: Path) -> bool:
    # what is inside of a folder that others cannot enter is safe as it is
    return path.parent == data and (path.name in _PRIVATE or ".damaged-" in path.name)


def _faults_of(path: Path, owner: int, *, private: bool) -> Iterator[Finding]:
    try:
        status = path.lstat()
    except FileNotFoundError:  # the daemon has just deleted it
        return
    mode = status.st_mode & 0o777
    if path.is_symlink():
        return
    if status.st_uid != owner:
        yield _foreign(path, status.st_uid, owner)
    elif private and mode & 0o077:
        yield problem(
            "permissions.open",
            _("others may read {path} (mode {mode:o})").format(path=path, mode=mode),
            _("it holds what was said, or keys"),
            f"chmod {'700' if path.is_dir() else '600'} '{path}'",
            path=str(path),
            mode=f"{mode:o}",
        )
    elif mode & 0o002:
        yield problem(
            "permissions.writable",
            _("everybody may change {path} (mode {mode:o})").format(path=path, mode=mode),
            _("any program on this machine could exchange it"),
            f"chmod o-w '{path}'",
            path=str(path),
            mode=f"{mode:o}",
        )
    needed = 0o700 if path.is_dir() else 0o400 if path.suffix == ".gguf" else 0o600
    if mode & needed != needed and status.st_uid == owner:
        yield problem(
            "permissions.closed",
            _("the daemon's user may not use {path} (mode {mode:o})").format(path=path, mode=mode),
            _("the daemon cannot start, or not store answers"),
            f"chmod u+{'rwx' if path.is_dir() else 'rw'} '{path}'",
            path=str(path),
            mode=f"{mode:o}",
        )


def _foreign(path: Path, owner: int, wanted: int) -> Finding:
    return problem(
        "permissions.owner",
        _("{path} belongs to {owner}, and not to {wanted}").format(
            path=path, owner=_name(owner), wanted=_name(wanted)
        ),
        _("the daemon cannot write it; perhaps it was once started with sudo"),
        f"sudo chown -R {_name(wanted)} '{path}'",
        path=str(path),
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
