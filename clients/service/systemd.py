"""systemd is spoken to: units are installed, removed, and asked how they are."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from assistantd.protocol import SYSTEM_SOCKET
from clients.i18n import _
from clients.service import checks, files, units
from clients.service.errors import ServiceError
from clients.service.units import DAEMON, KERNELS, SOCKET, File, Wanted

Tell = Callable[[str], None]
_PROPERTIES = (
    "LoadState ActiveState SubState UnitFileState MainPID NRestarts StatusText MemoryCurrent "
    "MemoryMax Result FragmentPath"
)
_LOOK_EVERY_S = 1.0


class Manager:
    """systemd, of the machine or of this user."""

    def __init__(self, *, system: bool) -> None:
        self.system = system
        self._command = ["systemctl", *([] if system else ["--user"])]

    def __call__(self, *arguments: str) -> str:
        """Run systemctl.

        Raises:
            ServiceError: it refused; with what it said.
        """
        done = subprocess.run(
            [*self._command, *arguments], capture_output=True, text=True, errors="replace"
        )
        if done.returncode != 0:
            raise self._refused(arguments, done.stderr)
        return done.stdout

    def _refused(self, arguments: tuple[str, ...], said: str) -> ServiceError:
        return ServiceError(
            _("`{command}` failed: {problem}").format(
                command=" ".join([*self._command, *arguments]),
                problem=" ".join(said.split()) or _("it does not say why"),
            )
        )

    def show(self, unit: str) -> dict[str, str]:
        """How a unit is, by the names of `systemctl show`."""
        text = self("show", unit, "--property", ",".join(_PROPERTIES.split()))
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def is_active(self, unit: str) -> bool:
        """Whether a unit runs, or is starting."""
        return self.show(unit).get("ActiveState") in ("active", "activating", "reloading")

    def start(self, unit: str, tell: Tell) -> None:
        """Start a unit and wait until it is ready, telling what it says of itself meanwhile.

        Raises:
            ServiceError: it did not start; with the end of its log.
        """
        arguments = ("start", unit)
        # a file takes what it says, so that it never waits for a reader
        with subprocess.Popen(
            [*self._command, *arguments],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as starting:
            told = ""
            while True:
                try:
                    _out, said = starting.communicate(timeout=_LOOK_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    status = self.show(unit).get("StatusText", "")
                    if status and status != told:
                        tell(status)
                        told = status
        if starting.returncode != 0:
            lines = self.log(unit, 5)
            problem = self._refused(arguments, said)
            if lines:
                raise ServiceError(
                    _("{problem}\nits log ends with:\n{lines}").format(
                        problem=problem, lines="\n".join(f"  {line}" for line in lines)
                    )
                )
            raise problem

    def log_command(self, unit: str, *more: str) -> list[str]:
        """The command that shows a unit's log."""
        return ["journalctl", *([] if self.system else ["--user"]), "--unit", unit, *more]

    def log(self, unit: str, n_lines: int) -> list[str]:
        """The last lines of a unit's log; none where the journal cannot be read."""
        command = self.log_command(unit, "--lines", str(n_lines), "--output", "cat", "--quiet")
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        return done.stdout.splitlines() if done.returncode == 0 else []


# --- install -------------------------------------------------------------------------------------


def planned(wanted: Wanted) -> list[File]:
    """All files that `install` would write."""
    found = units.systemd_files(wanted)
    if wanted.budget is not None:
        path = units.config_file(system=wanted.system, root=wanted.root)
        try:
            before = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            before = ""
        found.append(File(path, units.with_budget(before, wanted.budget)))
    return found


def check(wanted: Wanted) -> None:
    """Find out what would keep it from running.

    Raises:
        ServiceError: it would not; nothing was changed.
    """
    folder = units.units_folder(system=wanted.system, root=wanted.root)
    if wanted.root is not None:
        checks.check_rights(folder, system=False)
        return
    checks.check_rights(folder, system=wanted.system)
    checks.check_systemd(system=wanted.system)
    if wanted.system:
        checks.check_readable(wanted.programs)
    manager = Manager(system=wanted.system)
    # of the socket that systemd listens at, it is the daemon's as well
    active = manager.is_active(SOCKET) or manager.is_active(DAEMON)
    checks.check_alone(active, system=wanted.system)


def install(wanted: Wanted, tell: Tell, *, on_demand: bool = False) -> list[File]:
    """Write the units; without `root` also start them, and wait until the daemon is ready.

    Args:
        on_demand: start the daemon at its first client, and not with the machine or the session.

    Raises:
        ServiceError, OSError: it did not work; the message says what to do.
    """
    check(wanted)
    if wanted.root is None:
        _drop_in_leftovers(wanted)
    written = planned(wanted)
    for file in written:
        files.write(file)
    if wanted.root is not None:
        return written
    manager = Manager(system=wanted.system)
    if wanted.system:
        _run("systemd-sysusers", "assistantd.conf")
    manager("daemon-reload")
    manager("reset-failed")
    if wanted.system:
        _run("systemd-tmpfiles", "--create", "assistantd.conf")
    tell(_("compiling the kernels for this processor, if they are not there; it takes a minute"))
    manager.start(KERNELS, tell)
    # a daemon that runs already is one of older units; its socket changes hands while it is down
    manager("stop", DAEMON)
    manager("restart", SOCKET)
    manager("enable", SOCKET)
    if on_demand:
        manager("disable", DAEMON)
        manager("enable", SOCKET)  # which the line above has disabled with it
    else:
        manager("enable", DAEMON)
        tell(_("starting the daemon; it is ready once its model has answered"))
        manager.start(DAEMON, tell)
    for unit in wanted.services[3:]:
        manager("enable", unit)
        tell(_("starting {unit}").format(unit=unit))
        manager("restart", unit)
    return written


def _drop_in_leftovers(wanted: Wanted) -> None:
    """Remove what an earlier install has limited, and this one does not."""
    folder = units.units_folder(system=wanted.system) / f"{DAEMON}.d"
    memory, offline = units.DROP_INS
    if wanted.budget == 0:
        files.remove(folder / memory)
    if not wanted.offline:
        files.remove(folder / offline)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise ServiceError(
            _("`{command}` failed: {problem}").format(
                command=" ".join(command), problem=" ".join(done.stderr.split())
            )
        )


# --- uninstall -----------------------------------------------------------------------------------


def uninstall(*, system: bool, tell: Tell) -> list[Path]:
    """Stop the units and remove all that `install` has written. Returns what was removed.

    What the daemon keeps of its user stays: models, sessions, settings.

    Raises:
        ServiceError, OSError: it did not work.
    """
    folder = units.units_folder(system=system)
    checks.check_rights(folder, system=system)
    checks.check_systemd(system=system)
    manager = Manager(system=system)
    there = [unit for unit in units.ALL if manager.show(unit).get("LoadState") == "loaded"]
    if there:
        # the socket first: it would start the daemon again
        order = sorted(there, key=lambda unit: unit != SOCKET)
        with_install = [unit for unit in order if unit != KERNELS]
        manager("disable", "--now", *with_install)
        manager("stop", KERNELS)
    removed = [folder / unit for unit in units.ALL if files.remove(folder / unit)]
    for name in units.DROP_INS:
        path = folder / f"{DAEMON}.d" / name
        if files.remove(path):
            removed.append(path)
    if system:
        for name in ("sysusers.d/assistantd.conf", "tmpfiles.d/assistantd.conf"):
            if files.remove(Path("/etc") / name):
                removed.append(Path("/etc") / name)
        for place in (units.CACHE, SYSTEM_SOCKET.parent):
            if place.is_dir():
                shutil.rmtree(place)
                removed.append(place)
    manager("daemon-reload")
    if there:
        manager("reset-failed")
    if there and units.is_packaged(system=system):
        tell(_("the units of the package stay; remove the package to remove them"))
    return removed


# --- status --------------------------------------------------------------------------------------


def status(*, system: bool) -> dict[str, Any]:
    """How the units are; of a unit that is not installed, nothing.

    Raises:
        ServiceError: systemd does not run here.
    """
    checks.check_systemd(system=system)
    manager = Manager(system=system)
    found = {}
    for unit in units.ALL:
        values = manager.show(unit)
        if values.get("LoadState") != "loaded":
            continue
        found[unit] = {
            "active": values["ActiveState"],
            "state": values["SubState"],
            "enabled": values["UnitFileState"] == "enabled",
            "pid": int(values.get("MainPID", 0)) or None,
            "restarts": int(values.get("NRestarts", 0)),
            "memory": _number(values.get("MemoryCurrent", "")),
            "memory_max": _number(values.get("MemoryMax", "")),
            "says": values.get("StatusText") or None,
            "result": values.get("Result") or None,
            "file": values.get("FragmentPath") or None,
        }
    return {
        "scope": "system" if system else "user",
        "socket": str(units.socket_path(system=system)),
        "lingers": None if system else lingers(),
        "units": found,
    }


def _number(text: str) -> int | None:
    """Bytes; None for "[not set]", "infinity", and the number that means it."""
    return int(text) if text.isdecimal() and int(text) < 1 << 63 else None


def lingers() -> bool | None:
    """Whether this user's services run without a session of his; None if that is not known."""
    if shutil.which("loginctl") is None:
        return None
    done = subprocess.run(
        ["loginctl", "show-user", str(os.getuid()), "--property", "Linger", "--value"],
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() == "yes" if done.returncode == 0 else None
