"""What would keep a service from running, found out before anything is changed."""

import os
import shutil
import stat
import sys
from pathlib import Path

from clients.i18n import _
from clients.service.errors import ServiceError
from clients.service.units import SOCKET, socket_path

_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
"""What ProtectHome= hides."""


def programs_folder(given: Path | None) -> Path:
    """The absolute folder of `assistantd` and `assistant`.

    Args:
        given: what the user said; None for where this program was started from.

    Raises:
        ServiceError: they are not there.
    """
    folders = [given] if given else [Path(sys.argv[0]).parent, Path(sys.executable).parent]
    for folder in folders:
        # not resolved: a link from /usr/local/bin may be renewed by an upgrade
        absolute = Path(os.path.abspath(folder))
        if all(os.access(absolute / name, os.X_OK) for name in ("assistantd", "assistant")):
            return absolute
    raise ServiceError(
        _(
            "`assistantd` and `assistant` are not in {folder}; say with --programs in which folder "
            "they are installed"
        ).format(folder=os.path.abspath(folders[-1]))
    )


def check_readable(programs: Path) -> None:
    """Whether the machine's service, a user of its own without a home, can read the program.

    Raises:
        ServiceError: it lies in somebody's home, or is closed to others.
    """
    code = Path(__file__).resolve().parents[2]
    places = [
        programs,
        (programs / "assistantd").resolve(),
        Path(sys.executable),
        Path(sys.executable).resolve(),
        code,
    ]
    for place in places:
        for home in _HOMES:
            if place.is_relative_to(home):
                raise ServiceError(
                    _(
                        "the machine's service cannot read {path}: its sandbox hides {home}. "
                        "Install the program elsewhere, for example with "
                        "`python3 -m venv /opt/assistantd` and /opt/assistantd/bin/pip, or install "
                        "the service for yourself with --user"
                    ).format(path=place, home=home)
                )
        for folder in (place, *place.parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                raise ServiceError(
                    _(
                        "the machine's service cannot read {path}: {folder} is closed to others; "
                        "open it with `chmod o+rx {folder}`, or install the program elsewhere"
                    ).format(path=place, folder=folder)
                )


def check_rights(folder: Path, *, system: bool) -> None:
    """Whether units can be written.

    Raises:
        ServiceError: not by this user.
    """
    if system and os.geteuid() != 0:
        raise ServiceError(
            _(
                "a service of the machine is installed by its administrator: run it with sudo, or "
                "install one for yourself with --user"
            )
        )
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(there, os.W_OK):
        raise ServiceError(
            _("you may not write to {folder}; make it yours, or give another one").format(
                folder=there
            )
        )


def has_systemd(*, system: bool) -> bool:
    """Whether systemd runs services here, of the machine or of this user."""
    try:
        check_systemd(system=system)
    except ServiceError:
        return False
    return True


def check_systemd(*, system: bool) -> None:
    """Whether systemd runs here.

    Raises:
        ServiceError: it does not, or there is none for this user.
    """
    if shutil.which("systemctl") is None or not Path("/run/systemd/system").is_dir():
        raise ServiceError(
            _(
                "systemd does not run this machine; start `assistantd` by what does, or "
                "write the units for another machine with --root FOLDER"
            )
        )
    if system:
        return
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    if not Path(runtime, "systemd").is_dir():
        raise ServiceError(
            _(
                "systemd runs no services for you: there is no session of yours ({folder}). Log in "
                "directly, not by su or sudo, or run `sudo loginctl enable-linger {user}` first"
            ).format(folder=runtime, user=user_name())
        )


def check_alone(unit_is_active: bool, *, system: bool) -> None:
    """Whether another daemon has the socket.

    Raises:
        ServiceError: one that is no service listens there.
    """
    from clients.cli.connection import listening

    path = socket_path(system=system)
    if unit_is_active or not listening(f"ipc://{path}"):
        return
    raise ServiceError(
        _(
            "a daemon that is no service runs already, at {path}; stop it with `assistant stop`, "
            "then install {unit} again"
        ).format(path=path, unit=SOCKET)
    )


def user_name() -> str:
    """This user's name, or number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
