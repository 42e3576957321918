"""Checks of the services: systemd's units, what they start, and whether they start at all."""

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from clients.doctor.context import Context
from clients.doctor.finding import Finding, ok, problem, skipped, warning
from clients.i18n import _

_UNITS: Final = (
    "assistantd.service",
    "assistantd.socket",
    "assistant-gateway.service",
    "assistant-voice.service",
)
_TIMEOUT_S: Final = 10.0
_SHOWN: Final = "LoadState,ActiveState,SubState,UnitFileState,NRestarts,Result"
_STARTS = ("ExecStart=", "ExecStartPre=", "ExecReload=")


def unit_files() -> dict[Path, bool]:
    """Our units that are installed → whether they are the machine's."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    folders = {
        home / "systemd/user": False,
        Path("/usr/lib/systemd/user"): False,
        Path("/etc/systemd/system"): True,
        Path("/usr/lib/systemd/system"): True,
    }
    return {
        folder / name: system
        for folder, system in folders.items()
        for name in _UNITS
        if (folder / name).is_file()
    }


def journal_of(unit: str) -> str | None:
    """How to read the journal of a unit that is enabled; None if it is not."""
    for system in (False, True):
        if _show(unit, system=system).get("UnitFileState") == "enabled":
            return _journal(unit, system=system)
    return None


def _journal(unit: str, *, system: bool) -> str:
    return f"{'sudo journalctl' if system else 'journalctl --user'} -e -u {unit}"


def check_service(context: Context) -> Iterator[Finding]:
    """Are the services installed, enabled, and do they run?"""
    files = unit_files()
    if not files:
        yield skipped("service", _("none is installed; commands start the daemon when needed"))
        return
    faults: list[Finding] = []
    states: dict[str, str] = {}
    for path, system in files.items():
        for program in _programs(path):
            if not os.access(program, os.X_OK):
                faults.append(
                    problem(
                        "service.path",
                        _("{unit} starts {program}, which is not there").format(
                            unit=path, program=program
                        ),
                        _("the service cannot start; assistantd was moved, or installed anew"),
                        f"assistant service install {'--system' if system else '--user'}",
                        unit=str(path),
                        program=program,
                    )
                )
        shown = _show(path.name, system=system)
        if shown:
            states[str(path)] = f"{shown.get('ActiveState')}, {shown.get('UnitFileState')}"
            faults += _faults_of(path.name, shown, system=system)
    yield from faults
    if not faults:
        names = ", ".join(f"{path.name}" for path in files)
        yield ok("service", names, **states)


def _faults_of(unit: str, shown: dict[str, str], *, system: bool) -> Iterator[Finding]:
    command = f"{'sudo systemctl' if system else 'systemctl --user'}"
    journal = _journal(unit, system=system)
    if shown.get("ActiveState") == "failed":
        yield problem(
            "service.failed",
            _("{unit} has failed ({reason})").format(unit=unit, reason=shown.get("Result", "?")),
            _("it is not started again by itself"),
            f"{journal}; {command} reset-failed {unit}; {command} restart {unit}",
            **shown,
        )
    elif int(shown.get("NRestarts") or 0) > 0 and shown.get("SubState") == "auto-restart":
        yield problem(
            "service.restarting",
            _("{unit} ends again and again ({n} times)").format(unit=unit, n=shown["NRestarts"]),
            _("it never comes to answer"),
            journal,
            **shown,
        )
    elif shown.get("UnitFileState") == "disabled" and shown.get("ActiveState") != "active":
        yield warning(
            "service.disabled",
            _("{unit} is installed, but not enabled").format(unit=unit),
            _("it does not start with the machine"),
            f"{command} enable --now {unit}",
            **shown,
        )


def check_linger(context: Context) -> Iterator[Finding]:
    """Do the user's services start without somebody logging in?"""
    files = unit_files()
    mine = [path for path, system in files.items() if not system]
    if not any(_show(path.name, system=False).get("UnitFileState") == "enabled" for path in mine):
        yield skipped("linger", _("no service of yours is enabled"))
        return
    done = _run(["loginctl", "show-user", getpass.getuser(), "--property=Linger", "--value"])
    if done is not None and done.strip() == "no":
        yield warning(
            "linger.off",
            _("your services end when you log out"),
            _("after a start of the machine the assistant is away until you log in"),
            "loginctl enable-linger",
        )
    elif done is None:
        yield skipped("linger", _("loginctl does not tell"))
    else:
        yield ok("linger", _("on"))


def _programs(unit: Path) -> Iterator[str]:
    """Absolute paths of what a unit starts."""
    try:
        lines = unit.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        if line.startswith(_STARTS):
            words = line.partition("=")[2].strip().lstrip("@-:+!").split()
            if words:
                program = words[0].replace("%h", str(Path.home()))
                if program.startswith("/"):
                    yield program


def _show(unit: str, *, system: bool) -> dict[str, str]:
    """What systemd knows of a unit; empty if it does not run, or does not know it."""
    which = ["--system"] if system else ["--user"]
    done = _run(["systemctl", *which, "show", unit, f"--property={_SHOWN}"])
    shown = dict(line.split("=", 1) for line in (done or "").splitlines() if "=" in line)
    return shown if shown.get("LoadState") == "loaded" else {}


def _run(command: list[str]) -> str | None:
    """What a program prints; None if it is not there, or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
