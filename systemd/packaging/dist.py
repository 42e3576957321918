"""Builds the wheel and the source archive into dist/: python dist.py [--output dist]

The same sources give the same bytes, whoever builds them and wherever: only what belongs to the
project is copied to an empty folder and built there by `build`, and both archives are then written
anew, in one order, with one owner, one set of permissions and one time: $SOURCE_DATE_EPOCH, or
when the last commit was made.
"""

import argparse
import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = "assistantd clients engine CHANGELOG.md LICENSE MANIFEST.in README.md pyproject.toml"
LEFTOVERS = shutil.ignore_patterns("__pycache__", "*.pyc", "*.part", "*.egg-info", ".*")
ZIP_BEGINS = 315532800  # 1980: a ZIP archive knows no earlier time


def source_date(source: Path) -> int:
    """Unix time that all files get.

    Raises:
        SystemExit: neither the environment nor git says when.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        git = ["git", "-C", str(source), "log", "-1", "--format=%ct"]
        found = subprocess.run(git, capture_output=True, text=True)
        if found.returncode != 0:
            raise SystemExit("not a git repository: set SOURCE_DATE_EPOCH to seconds since 1970")
        given = found.stdout
    return max(int(given), ZIP_BEGINS)


def copy_sources(source: Path, to: Path) -> None:
    """What is built, and nothing that lies about beside it; links become what they point at."""
    for name in SOURCES.split():
        if (source / name).is_dir():
            shutil.copytree(source / name, to / name, ignore=LEFTOVERS)
        else:
            shutil.copy(source / name, to / name)


def _mode(executable: bool) -> int:
    return 0o755 if executable else 0o644


def rewrite_wheel(wheel: Path, to: Path, when: int) -> None:
    """The same files, with nothing in them of who built it and where."""
    moment = time.gmtime(when)[:6]
    with zipfile.ZipFile(wheel) as before, zipfile.ZipFile(to, "w") as after:
        # RECORD comes last, as PEP 427 recommends
        names = sorted(before.namelist(), key=lambda name: (name.endswith("/RECORD"), name))
        for name in names:
            old = before.getinfo(name)
            new = zipfile.ZipInfo(name, moment)
            new.compress_type = zipfile.ZIP_DEFLATED
            new.create_system = 3  # Unix
            new.external_attr = (0o100000 | _mode(bool(old.external_attr >> 16 & 0o100))) << 16
            after.writestr(new, before.read(old), compresslevel=9)


def rewrite_sdist(sdist: Path, to: Path, when: int) -> None:
    """The same files, with nothing in them of who built it and where."""
    packed = io.BytesIO()
    with (
        tarfile.open(sdist) as before,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as after,
    ):
        for old in sorted(before.getmembers(), key=lambda member: member.name):
            if not old.isfile():
                continue
            new = tarfile.TarInfo(old.name)
            new.size, new.mtime, new.mode = old.size, when, _mode(bool(old.mode & 0o100))
            after.addfile(new, before.extractfile(old))
    with to.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=when) as zipped:
        zipped.write(packed.getvalue())


def build(source: Path, output: Path) -> list[Path]:
    """Build both into a folder. Returns the wheel and the source archive.

    Raises:
        SystemExit: building failed; what it said was printed.
    """
    when = source_date(source)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="assistantd-dist-") as folder:
        sources, built = Path(folder) / "sources", Path(folder) / "built"
        sources.mkdir()
        copy_sources(source, sources)
        done = subprocess.run(
            [sys.executable, "-m", "build", "--outdir", str(built), str(sources)],
            cwd=folder,  # so that the folder of this program is in nobody's way
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(when)},
        )
        if done.returncode != 0:
            sys.stderr.buffer.write(done.stdout)
            raise SystemExit(f"building failed with status {done.returncode}; see above")
        (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
        rewritten = []
        for archive, rewrite in ((wheel, rewrite_wheel), (sdist, rewrite_sdist)):
            part = output / f"{archive.name}.part"
            rewrite(archive, part, when)
            rewritten.append(part.rename(output / archive.name))
    return rewritten


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--source", type=Path, default=ROOT, help="the repository's folder")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    args = parser.parse_args()
    for archive in build(args.source.resolve(), args.output.resolve()):
        print(f"{archive}  {archive.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
