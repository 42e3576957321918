"""A machine with a real systemd as PID 1, in namespaces on this one (boot.sh).

Its root is an overlay in memory of this machine's, with the program in /opt/assistantd, as if pip
had installed it there. It needs root, and a kernel that lets it have namespaces and overlays.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BOOT = Path(__file__).with_name("boot.sh")
OPT = Path("/opt/assistantd")
MODEL = OPT / "model.gguf"
PACKAGES = ("assistantd", "clients", "engine", "systemd")
CONSOLE_USER = "ann"
BOOT_S = 120


def why_not() -> str | None:
    """Why there can be no such machine here; None if there can."""
    if sys.platform != "linux":
        return "needs Linux"
    if os.geteuid() != 0:
        return "needs root: namespaces, an overlay, and PID 1"
    for program in ("unshare", "nsenter", "systemctl", "/lib/systemd/systemd", "dbus-daemon"):
        if shutil.which(program) is None:
            return f"needs {program}; on Debian: apt install systemd dbus"
    tried = subprocess.run(
        "unshare --pid --fork --mount --cgroup bash -c 'mount -t tmpfs tmpfs /mnt && cd /mnt && "
        "mkdir u w r && mount -t overlay overlay -o lowerdir=/,upperdir=u,workdir=w r'",
        shell=True,
        capture_output=True,
        text=True,
    )
    return f"no namespaces or overlays here: {tried.stderr.strip()}" if tried.returncode else None


class Machine:
    """One that runs."""

    def __init__(self, folder: Path, model: Path, kernels: Path) -> None:
        self._folder = folder
        self._files = folder / "files"
        self._put_program(model, kernels)
        (folder / "overlay").mkdir()
        name = f"\0assistantd-test-{os.getpid()}-{folder.name}"
        # PID 1 says here when it has booted, as to systemd-nspawn
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(name)
            told.settimeout(BOOT_S)
            with (folder / "console").open("wb") as console:
                self._process = subprocess.Popen(
                    [
                        "bash",
                        str(BOOT),
                        str(folder),
                        sys.base_prefix,
                        sysconfig.get_path("purelib"),
                    ],
                    env={**os.environ, "NOTIFY_SOCKET": "@" + name[1:]},
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                )
            try:
                while b"READY=1" not in told.recv(4096).splitlines():
                    pass
            except TimeoutError:
                self.close()
                raise AssertionError(f"no boot: {self.console()}") from None
        self.init = self._find_init()

    def _put_program(self, model: Path, kernels: Path) -> None:
        """What the root of the machine has besides this one's."""
        opt = self._files / OPT.relative_to("/")
        for name in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, opt / "src" / name, symlinks=True, ignore=ignored)
        (opt / "bin").mkdir()
        python = Path(sys.executable).resolve()
        for name, module in (("assistantd", "assistantd"), ("assistant", "clients.cli")):
            script = opt / "bin" / name
            script.write_text(
                # the interpreter may lie in a home, which the sandbox hides; here it does not
                f"#!/bin/sh\nLD_LIBRARY_PATH={OPT}/python/lib PYTHONPATH={OPT}/src:{OPT}/packages "
                f"PYTHONDONTWRITEBYTECODE=1 exec {OPT}/python/bin/{python.name} -P -m {module} "
                '"$@"\n'
            )
        shutil.copyfile(model, self._files / MODEL.relative_to("/"))
        for path in (self._files, *opt.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        for path in (opt, opt.parent):
            path.chmod(0o755)
        # compiled here already: the same sources, compiler and processor
        cache = self._files / "var/cache/assistantd/kernels" / kernels.name
        shutil.copytree(kernels, cache)
        etc = self._files / "etc/assistantd"
        etc.mkdir(parents=True)
        (etc / "config.toml").write_text(f'model = "{MODEL}"\n')

    def _find_init(self) -> int:
        pid = self._process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(child)

    def close(self) -> None:
        """End PID 1 and with it all that runs there, and remove its control groups."""
        with contextlib.suppress(ValueError, OSError):
            os.kill(self._find_init(), signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        for line in mounts:
            _device, place, kind = line.split()[:3]
            group = Path(place, self._folder.name)
            if kind in ("cgroup", "cgroup2") and group.is_dir():
                self._remove_group(group)

    def _remove_group(self, group: Path) -> None:
        for folder, _names, _files in os.walk(group, topdown=False):
            # processes that were killed leave their group in their own time
            wait = 'until rmdir "$0" 2>/dev/null; do sleep 0.05; done'
            subprocess.run(["timeout", "20", "bash", "-c", wait, folder], check=True)

    def console(self) -> str:
        """What PID 1 has said."""
        return (self._folder / "console").read_text(errors="replace")

    # --- inside ------------------------------------------------------------------------------

    def path(self, inside: Path | str) -> Path:
        """A path of the machine, as seen from here."""
        return Path(f"/proc/{self.init}/root") / str(inside).lstrip("/")

    def command(self, *words: str, user: str | None = None) -> list[str]:
        """The command that runs a command there."""
        environment = ["LANG=C.UTF-8", f"PATH={OPT}/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        drop: list[str] = []
        if user is not None:
            number = self.run("id", "-u", user).strip()
            environment += [f"XDG_RUNTIME_DIR=/run/user/{number}", f"HOME=/home/{user}"]
            drop = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"]
        inner = ["env", "-i", *environment, *drop, *words]
        return ["nsenter", "-t", str(self.init), "-a", "-w", *inner]

    def run(self, *words: str, user: str | None = None, check: bool = True) -> str:
        """Run a command there and return what it printed."""
        done = self.do(*words, user=user)
        if check:
            assert done.returncode == 0, (words, done.stdout, done.stderr, self.log())
        return done.stdout

    def do(self, *words: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command there, whatever becomes of it."""
        return subprocess.run(
            self.command(*words, user=user),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,  # compiling kernels on a machine that is busy
        )

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", unit, "--property", name, "--value").strip()

    def log(self, unit: str = "assistantd.service") -> str:
        """A unit's journal."""
        done = self.do("journalctl", "--no-pager", "--unit", unit, "--output", "short-monotonic")
        return done.stdout


@contextlib.contextmanager
def machine(model: Path, kernels: Path) -> Iterator[Machine]:
    """A machine for as long as the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="assistantd-machine-"))
    folder.chmod(0o755)
    try:
        running = Machine(folder, model, kernels)
        try:
            yield running
        finally:
            running.close()
    finally:
        shutil.rmtree(folder)
