"""The wheel and the source archive: what is in them, and that it is the same each time."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.e2e.installing.environments import DIST, REPOSITORY

pytestmark = pytest.mark.slow


def build(to: Path, umask: int) -> tuple[Path, Path]:
    subprocess.run(
        [sys.executable, DIST, "--output", to],
        check=True,
        cwd="/",
        umask=umask,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1800000000"},
    )
    (wheel,), (sdist,) = to.glob("*.whl"), to.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("dist"), 0o022)


def ours() -> set[str]:
    """All that a program needs of what git keeps; and of folders that are links, what is there."""
    done = subprocess.run(
        ["git", "ls-files", "assistantd", "clients", "engine"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    found = set()
    for name in done.stdout.split():
        path = REPOSITORY / name
        if path.is_dir():
            files = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
            # what makes packages is of no use in one
            found |= {f"{name}/{file}" for file in files if file.parts[0] != "packaging"}
        else:
            found.add(name)
    return found


def test_the_same_bytes_each_time(archives: tuple[Path, Path], tmp_path: Path) -> None:
    for first, second in zip(archives, build(tmp_path, 0o077), strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_the_wheel_has_all_of_the_program_and_nothing_else(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        modes = {name: wheel.getinfo(name).external_attr >> 16 & 0o777 for name in names}
        licences = [name for name in wheel.namelist() if name.endswith("/licenses/LICENSE")]
    assert names == {name for name in ours() if not name.endswith(".po")}
    assert set(modes.values()) == {0o644}
    assert len(licences) == 1


def test_the_source_archive_can_be_built_and_translated(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[1]) as sdist:
        members = sdist.getmembers()
    names = {member.name.partition("/")[2] for member in members}
    assert ours() <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= names
    assert not [name for name in names if name.startswith(("tests", ".", "docs"))]
    assert {(member.uid, member.gid, member.uname, member.mtime) for member in members} == {
        (0, 0, "", 1800000000)
    }
