"""Room, file systems and permissions, as the kernel has them; mounting needs root."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients.doctor.parts import NOBODY, Place, fine, needs_root, one


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A small file system in memory at a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@needs_root
def test_room(place: Place) -> None:
    fine(place.find("disk-space"))
    with mounted(place.data, "-o", "size=100M"):
        finding = one(place.find("disk-space"), "disk-space.little", "warning")
        assert "models" in finding.mend
        with (place.data / "fill").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 95 << 20)
        one(place.find("disk-space"), "disk-space.full", "problem")
    with mounted(place.data, "-o", "size=2G,nr_inodes=50"):
        one(place.find("disk-space"), "disk-space.files", "problem")


@needs_root
def test_a_file_system_that_went_read_only(place: Place) -> None:
    place.data.mkdir()
    fine(place.find("file-systems"))
    with mounted(place.data):
        fine(place.find("file-systems"))
        subprocess.run(["mount", "-o", "remount,ro", str(place.data)], check=True)
        finding = one(place.find("file-systems"), "file-systems.read-only", "problem")
        assert f"remount,rw {place.data}" in finding.mend


@pytest.mark.parametrize(
    ("kind", "id"),
    [
        ("nfs4", "file-systems.remote"),
        ("cifs", "file-systems.remote"),
        ("vfat", "file-systems.simple"),
        ("exfat", "file-systems.simple"),
    ],
)
def test_file_systems_that_do_not_do(place: Place, kind: str, id: str) -> None:
    """As the kernel would list them; the machine of the tests may have none of these."""
    real = place.folder.resolve()
    lines = [
        "22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/root rw",
        f"23 22 0:40 / {real} rw,relatime - {kind} server:/export rw",
    ]
    place.write("proc/self/mountinfo", "\n".join(lines))
    found = place.find("file-systems", root=place.root)
    assert {finding.id for finding in found} == {id}
    assert all(kind in finding.found and finding.mend for finding in found)
    lines[1] = lines[1].replace(kind, "ext4")
    place.write("proc/self/mountinfo", "\n".join(lines))
    fine(place.find("file-systems", root=place.root))


def _healthy(place: Place) -> None:
    place.data.mkdir(mode=0o700)
    for name in ("sessions.db", "sessions.db-wal"):
        (place.data / name).touch(0o600)
    (place.data / "network").mkdir(mode=0o700)
    (place.data / "network/server.key").touch(0o600)
    (place.data / "models").mkdir(mode=0o755)
    (place.data / "models/tiny.gguf").touch(0o444)
    web = place.folder / "xdg_data_home/assistantd/web"
    web.mkdir(parents=True, mode=0o700)
    (web / "ca.key").touch(0o600)


def test_permissions(place: Place) -> None:
    _healthy(place)
    fine(place.find("permissions"))
    for path, mode, id, mend in (
        (place.data / "sessions.db", 0o644, "permissions.open", "chmod 600"),
        (place.data / "network", 0o755, "permissions.open", "chmod 700"),
        (
            place.folder / "xdg_data_home/assistantd/web/ca.key",
            0o640,
            "permissions.open",
            "chmod 600",
        ),
        (place.data / "models", 0o777, "permissions.writable", "chmod o-w"),
        (place.data / "sessions.db", 0o400, "permissions.closed", "chmod u+rw"),
        (place.data / "models/tiny.gguf", 0o000, "permissions.closed", "chmod u+r"),
    ):
        before = path.stat().st_mode & 0o777
        path.chmod(mode)
        finding = one(place.find("permissions"), id, "problem")
        assert str(path) in finding.found and finding.mend.startswith(mend)
        # what was advised mends it
        subprocess.run(finding.mend, shell=True, check=True)
        fine(place.find("permissions"))
        path.chmod(before)


@needs_root
def test_a_file_of_somebody_else(place: Place) -> None:
    _healthy(place)
    os.chown(place.data / "sessions.db", NOBODY, NOBODY)
    finding = one(place.find("permissions"), "permissions.owner", "problem")
    assert "chown" in finding.mend and "sessions.db" in finding.found
    os.chown(place.data / "sessions.db", 0, 0)
    fine(place.find("permissions"))
