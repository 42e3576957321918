"""Builds a Debian package: python deb.py WHEEL [--arch arm64] [--release bookworm]

It holds the program with all that it needs but Python itself, so that installing it needs no
network, no compiler and no virtual environment:

/opt/assistantd/           a virtual environment: bin/, lib/python3.X/site-packages/
/usr/bin/                  links to its programs
/usr/lib/systemd/system/   the units, as `assistant service install --system` writes them

What the package does when it is installed, upgraded and removed is in deb/. Packages for other
architectures can be built, too: wheels are only unpacked. Where pip takes packages from is what
its configuration says. Needs dpkg-deb, and the packages of the program here (`make deb` has them).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dist import ROOT, source_date

PREFIX = "opt/assistantd"
PROGRAMS = {"assistant": "clients.cli", "assistantd": "assistantd.__main__"}
PACKAGES = ("assistantd", "clients", "engine")
EXTRAS = "network,web"
ARCHITECTURES = {"arm64": "aarch64", "amd64": "x86_64"}
SCRIPTS = Path(__file__).resolve().parent / "deb"


@dataclass(frozen=True)
class Release:
    """A release of Debian, and so of Raspberry Pi OS."""

    python: str
    """Its python3: compiled packages are for one version."""
    glibc: int
    """Minor version: wheels that need a later one do not run."""
    suffix: str
    """Of the package's version: with the next release of Debian comes a later version."""


RELEASES = {
    "bookworm": Release("3.11", 36, "+deb12"),
    "trixie": Release("3.13", 41, "+deb13"),
}


def unpack(wheel: Path, extras: str, machine: str, release: Release, to: Path) -> None:
    """Unpack the wheel and all that it needs into a folder.

    Raises:
        subprocess.CalledProcessError: a package lacks a wheel for that machine, for example.
    """
    platforms = [f"manylinux2014_{machine}"]
    platforms += [f"manylinux_2_{minor}_{machine}" for minor in range(17, release.glibc + 1)]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"),
            *("--only-binary=:all:", "--implementation", "cp"),
            *("--python-version", release.python, "--target", str(to)),
            *(f"--platform={platform}" for platform in platforms),
            f"{wheel}[{extras}]" if extras else str(wheel),
        ],
        check=True,
    )
    shutil.rmtree(to / "bin")  # the packages' programs, for the Python that runs here
    for folder in [found for found in to.glob("**/tests") if found.is_dir()]:
        shutil.rmtree(folder, ignore_errors=not folder.exists())  # it was below another one
    (to / ".lock").unlink(missing_ok=True)


def make_environment(stage: Path, release: Release) -> Path:
    """What makes a folder a virtual environment, and its programs. Returns its site-packages."""
    prefix = stage / PREFIX
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "python").symlink_to(f"/usr/bin/python{release.python}")
    (prefix / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {release.python}\n"
    )
    (stage / "usr/bin").mkdir(parents=True)
    for program, module in PROGRAMS.items():
        script = prefix / "bin" / program
        script.write_text(
            f"#!/{PREFIX}/bin/python\nimport sys\n\nfrom {module} import main\n\n"
            'if __name__ == "__main__":\n    sys.exit(main())\n'
        )
        script.chmod(0o755)
        (stage / "usr/bin" / program).symlink_to(f"/{PREFIX}/bin/{program}")
    site = prefix / "lib" / f"python{release.python}" / "site-packages"
    site.mkdir(parents=True)
    return site


def run_packaged(site: Path, *arguments: str) -> str:
    """Run Python with the code of the wheel, and the packages from here. Returns what it said."""
    with tempfile.TemporaryDirectory(prefix="assistantd-wheel-") as folder:
        for part in (*map(site.joinpath, PACKAGES), *site.glob("assistantd-*.dist-info")):
            shutil.copytree(part, Path(folder) / part.name)
        done = subprocess.run(
            [sys.executable, "-P", *arguments],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder, "LANGUAGE": "en"},
        )
    return done.stdout.strip()


FACTS = """
from importlib.metadata import version
from assistantd.network.devices import FILE_NAME, MIGRATIONS as devices
from assistantd.sessions import MIGRATIONS as sessions
print(version("assistantd"), f"sessions.db:{len(sessions)}", f"network/{FILE_NAME}:{len(devices)}")
"""
"""The version, and which version of its schema each database has."""


def write_control(stage: Path, release: Release, values: dict[str, str]) -> None:
    """The package's control files, from deb/."""
    control = stage / "DEBIAN"
    control.mkdir()
    for template in sorted(SCRIPTS.iterdir()):
        text = template.read_text(encoding="utf-8")
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        target = control / template.name
        target.write_text(text, encoding="utf-8")
        is_script = text.startswith("#!")
        target.chmod(0o755 if is_script else 0o644)


def build(
    wheel: Path,
    extras: str,
    arch: str,
    release: Release,
    output: Path,
    when: int,
    level: int,
) -> Path:
    """Build the package into a folder. Returns its file.

    Args:
        when: Unix time that all files get.
        level: how hard to compress, 1 to 22.
    """
    with tempfile.TemporaryDirectory(prefix="assistantd-deb-") as folder:
        stage = Path(folder) / "stage"
        site = make_environment(stage, release)
        unpack(wheel, extras, ARCHITECTURES[arch], release, site)
        version, *schemas = run_packaged(site, "-c", FACTS).split()
        install = ("-m", "clients.cli", "service", "install", "--system", "--root", str(stage))
        run_packaged(site, *install, "--gateway", "--programs", f"/{PREFIX}/bin")
        major, minor = map(int, release.python.split("."))
        values = {
            "VERSION": version + release.suffix,
            "ARCHITECTURE": arch,
            "PYTHON": release.python,
            "NEXT_PYTHON": f"{major}.{minor + 1}",
            "SCHEMAS": " ".join(schemas),
            "SIZE_KIB": str(sum(f.lstat().st_size for f in stage.glob("**/*")) >> 10),
        }
        write_control(stage, release, values)
        for path in [stage, *stage.glob("**/*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)  # whatever the umask is here
            elif not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        output.mkdir(parents=True, exist_ok=True)
        package = output / f"assistantd_{values['VERSION']}_{arch}.deb"
        part = package.with_suffix(".part")
        subprocess.run(
            # zstd: a quarter larger than xz, and unpacked in seconds where xz takes a minute
            [
                *("dpkg-deb", "--root-owner-group", "-Zzstd", f"-z{level}"),
                *("--build", str(stage), str(part)),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(when)},
        )
        return part.rename(package)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--arch", choices=ARCHITECTURES, default="arm64")
    parser.add_argument("--release", choices=RELEASES, default="bookworm")
    parser.add_argument("--extras", default=EXTRAS, help=f"by default {EXTRAS}")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument("--level", type=int, default=9, help="of compression: 1 to 22")
    args = parser.parse_args()
    release, when = RELEASES[args.release], source_date(ROOT)
    try:
        package = build(
            args.wheel.resolve(),
            args.extras,
            args.arch,
            release,
            args.output.resolve(),
            when,
            args.level,
        )
    except subprocess.CalledProcessError as failed:
        raise SystemExit(f"{failed.cmd[0]} failed; see above") from None
    print(f"{package}  {package.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
