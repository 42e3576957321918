"""All that belongs to the user of a service that was removed, to be deleted at his word."""

import os
import shutil
import subprocess
from pathlib import Path

from clients.i18n import _
from clients.service import units
from clients.service.errors import ServiceError

_HOMES = (
    ("XDG_DATA_HOME", "~/.local/share"),
    ("XDG_CONFIG_HOME", "~/.config"),
    ("XDG_STATE_HOME", "~/.local/state"),
    ("XDG_CACHE_HOME", "~/.cache"),
)
_USERS = ("assistantd", "assistantd-kernels")


def places(*, system: bool) -> list[Path]:
    """The folders that are there: models, sessions, keys, settings, logs, kernels."""
    if system:
        states = [
            units.DATA.with_name(units.DATA.name + part) for part in ("", "-gateway", "-voice")
        ]
        found = [*states, units.config_file(system=True).parent, units.CACHE]
    else:
        found = [
            Path(os.environ.get(variable) or default).expanduser() / "assistantd"
            for variable, default in _HOMES
        ]
    return [path for path in found if path.is_dir()]


def delete(found: list[Path], *, system: bool) -> None:
    """Delete them, and the users that nothing belongs to any more.

    Raises:
        ServiceError: a daemon still uses them; nothing was deleted.
        OSError: one cannot be deleted.
    """
    from clients.cli.connection import listening

    path = units.socket_path(system=system)
    if listening(f"ipc://{path}"):
        raise ServiceError(
            _("a daemon still runs, at {path}; stop it with `assistant stop` first").format(
                path=path
            )
        )
    for folder in found:
        shutil.rmtree(folder)
    for user in _USERS if system and shutil.which("userdel") else ():
        done = subprocess.run(["userdel", user], capture_output=True, text=True)
        if done.returncode not in (0, 6):  # 6: there is no such user
            raise ServiceError(
                _("`{command}` failed: {problem}").format(
                    command=f"userdel {user}", problem=" ".join(done.stderr.split())
                )
            )
