"""macOS: the daemon as a launch agent of its user."""

import os
import subprocess
from pathlib import Path
from typing import Any

from clients.i18n import _
from clients.service import files, units
from clients.service.errors import ServiceError


def _domain() -> str:
    return f"gui/{os.getuid()}"


def _launchctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["launchctl", *arguments], capture_output=True, text=True)


def install(programs: Path) -> units.File:
    """Write the agent, compile the kernels, and start it.

    Raises:
        ServiceError: launchd refused. OSError: it cannot be written.
    """
    agent = units.agent(programs)
    units.logs_folder().mkdir(parents=True, exist_ok=True)
    files.write(agent)
    warmed = subprocess.run([str(programs / "assistantd"), "--warm"], stdout=subprocess.DEVNULL)
    if warmed.returncode != 0:
        raise ServiceError(_("the kernels could not be compiled; see above"))
    _launchctl("bootout", f"{_domain()}/{units.AGENT}")  # one that is there already; or nothing
    done = _launchctl("bootstrap", _domain(), str(agent.path))
    if done.returncode != 0:
        raise ServiceError(
            _("`{command}` failed: {problem}").format(
                command=f"launchctl bootstrap {_domain()} {agent.path}",
                problem=" ".join(done.stderr.split()),
            )
        )
    return agent


def uninstall() -> list[Path]:
    """Stop the agent and remove it."""
    _launchctl("bootout", f"{_domain()}/{units.AGENT}")
    path = units.agent_path()
    return [path] if files.remove(path) else []


def status() -> dict[str, Any]:
    """Whether the agent is there, and runs."""
    done = _launchctl("print", f"{_domain()}/{units.AGENT}")
    values = dict(
        line.strip().split(" = ", 1) for line in done.stdout.splitlines() if " = " in line
    )
    loaded = done.returncode == 0
    unit = {
        "active": "active" if values.get("state") == "running" else "inactive",
        "state": values.get("state"),
        "enabled": loaded,
        "pid": int(values["pid"]) if values.get("pid", "").isdecimal() else None,
        "file": str(units.agent_path()),
    }
    there = loaded or units.agent_path().exists()
    return {
        "scope": "user",
        "socket": str(units.socket_path(system=False)),
        "units": {units.AGENT: unit} if there else {},
    }


def log_command(*, follow: bool, n_lines: int) -> list[str]:
    """The command that shows the agent's log."""
    log = units.logs_folder() / "assistantd.log"
    return ["tail", "-n", str(n_lines), *(["-F"] if follow else []), str(log)]
