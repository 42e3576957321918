"""Wheels, and virtual environments that they are installed into."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
DIST = REPOSITORY / "systemd" / "packaging" / "dist.py"


def run(*command: str | Path, **environment: str) -> str:
    """Run a program outside of the repository. Returns what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd="/",
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def wheel_of_any(source: Path, to: Path) -> Path:
    """The wheel of any version's sources, by pip alone, which leaves its traces in them."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", to, source)
    (wheel,) = to.glob("*.whl")
    return wheel


def wheel_of_this(to: Path) -> Path:
    """The repository's wheel, as `make dist` builds it."""
    run(sys.executable, DIST, "--output", to)
    (wheel,) = to.glob("*.whl")
    return wheel


class Environment:
    """A virtual environment of its own.

    Args:
        borrow: let it see the packages that the tests run with; else it has none but its own.
    """

    def __init__(self, folder: Path, *, borrow: bool) -> None:
        self.bin = folder / "bin"
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        (self.site,) = folder.glob("lib/python3.*/site-packages")
        if borrow:
            # after its own, and without what makes them editable
            (self.site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def pip(self, *arguments: str | Path) -> str:
        """Run pip for this environment."""
        return run(sys.executable, "-m", "pip", "--python", self.bin / "python", *arguments)

    def install(self, wheel: Path) -> None:
        """Install a wheel without what it needs."""
        self.pip("install", "--quiet", "--no-index", "--no-deps", "--force-reinstall", wheel)

    def __call__(self, program: str, *arguments: str, **variables: str) -> str:
        """Run one of its programs. Returns what it printed."""
        return run(self.bin / program, *arguments, **variables)
