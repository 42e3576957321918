"""What a service's files hold, and where they go. Nothing is written, nobody asked here.

The files of systemd/ are templates; @PROGRAMS@ in them is the folder of `assistantd`
and `assistant`. They are in the package, too (as links), so that an installed program has them.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from assistantd.protocol import SYSTEM_SOCKET
from clients.i18n import _
from clients.service.errors import ServiceError

DAEMON, SOCKET, KERNELS = "assistantd.service", "assistantd.socket", "assistantd-kernels.service"
VOICE, GATEWAY = "assistant-voice.service", "assistant-gateway.service"
ALL = (DAEMON, SOCKET, KERNELS, VOICE, GATEWAY)
DROP_INS = ("50-memory.conf", "60-offline.conf")
PACKAGED = Path("/usr/lib/systemd")
"""Where distributions' packages put units, below it system/ and user/."""
DATA, CACHE = Path("/var/lib/assistantd"), Path("/var/cache/assistantd")
"""Of the machine's service: %S and %C of its unit."""
AGENT = "assistantd"
"""What launchd calls it."""
_LEAST_ROOM = 32 << 20


@dataclass(frozen=True)
class Wanted:
    """What is to be installed.

    Attributes:
        system: for the machine; else for one user.
        programs: folder of `assistantd` and `assistant`.
        root: write below this folder, for a package.
        voice, gateway: these, too.
        offline: leave the daemon no network at all.
        budget: bytes of `memory_budget` to set; None leaves it as it is. 0 for none.
    """

    system: bool
    programs: Path
    root: Path | None = None
    voice: bool = False
    gateway: bool = False
    offline: bool = False
    budget: int | None = None

    @property
    def services(self) -> tuple[str, ...]:
        """Units to have."""
        more = [unit for unit, on in ((VOICE, self.voice), (GATEWAY, self.gateway)) if on]
        return (SOCKET, KERNELS, DAEMON, *more)


@dataclass(frozen=True)
class File:
    """A file to write."""

    path: Path
    text: str


def units_folder(*, system: bool, root: Path | None = None) -> Path:
    """The folder of units: an administrator's or a user's, or below `root` a package's."""
    if root is not None:
        return root / (PACKAGED / ("system" if system else "user")).relative_to("/")
    return Path("/etc/systemd/system") if system else config_home() / "systemd/user"


def config_home() -> Path:
    """$XDG_CONFIG_HOME."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()


def config_file(*, system: bool, root: Path | None = None) -> Path:
    """The daemon's configuration that the service reads, and that --memory-budget changes."""
    if system:
        return (root or Path("/")) / "etc/assistantd/config.toml"
    return config_home() / "assistantd/config.toml"


def socket_path(*, system: bool) -> Path:
    """Where the service's socket is."""
    from assistantd.protocol import SOCKET_NAME, runtime_dir

    return SYSTEM_SOCKET if system else runtime_dir() / SOCKET_NAME


def is_packaged(*, system: bool) -> bool:
    """Whether a distribution's package brought the units: then they are not written again."""
    return (PACKAGED / ("system" if system else "user") / DAEMON).is_file()


def systemd_files(wanted: Wanted) -> list[File]:
    """The files to write for systemd; the configuration is not among them."""
    folder = units_folder(system=wanted.system, root=wanted.root)
    found: list[File] = []
    if wanted.root is not None or not is_packaged(system=wanted.system):
        kind = "system" if wanted.system else "user"
        found += [
            File(folder / unit, _filled(f"{kind}/{unit}", wanted)) for unit in wanted.services
        ]
        if wanted.system:
            base = Path("/etc") if wanted.root is None else wanted.root / "usr/lib"
            for name in ("sysusers.d/assistantd.conf", "tmpfiles.d/assistantd.conf"):
                found.append(File(base / name, _filled(name, wanted)))
    return found + list(_drop_ins(wanted, folder / f"{DAEMON}.d"))


def _drop_ins(wanted: Wanted, folder: Path) -> Iterator[File]:
    memory, offline = DROP_INS
    if wanted.budget:
        yield File(folder / memory, memory_limits(wanted.budget))
    if wanted.offline:
        lines = ["RestrictAddressFamilies=", "RestrictAddressFamilies=AF_UNIX"]
        if wanted.system:  # a user's manager has no right to these
            lines += ["PrivateNetwork=yes", "IPAddressDeny=any"]
        head = "# written by `assistant service install --offline`\n[Service]\n"
        yield File(folder / offline, head + "\n".join(lines) + "\n")


def memory_limits(budget: int) -> str:
    """A drop-in that holds the daemon to its budget, in bytes.

    The daemon keeps to the budget by itself; what the kernel counts besides, as pages of files
    that are being written, has the room above it. MemoryHigh= presses before MemoryMax= kills.
    """
    room = max(budget // 8, _LEAST_ROOM)
    return (
        "# written by `assistant service install --memory-budget`: the budget, and an eighth more\n"
        f"[Service]\nMemoryHigh={budget + room // 2}\nMemoryMax={budget + room}\n"
    )


def template(name: str) -> str:
    """A file of systemd/, by its path there."""
    return (files("clients.service") / "systemd" / name).read_text(encoding="utf-8")


def _filled(name: str, wanted: Wanted) -> str:
    return template(name).replace("@PROGRAMS@/", _escaped(wanted.programs) + "/")


def _escaped(folder: Path) -> str:
    """A path as the first word of ExecStart=.

    Raises:
        ServiceError: systemd takes no program from such a folder.
    """
    path = str(folder)
    if not path.isprintable() or any(mark in path for mark in "\"'\\"):
        raise ServiceError(
            _(
                "systemd starts no program from {folder}: quotes, backslashes and control "
                "characters are forbidden; install it in another folder"
            ).format(folder=repr(path))
        )
    path = path.replace("%", "%%")
    return re.sub(r"[ ;$]", lambda found: f"\\x{ord(found.group()):02x}", path)


# --- the configuration ---------------------------------------------------------------------------

_BUDGET_LINE = re.compile(r"^[ \t]*memory_budget[ \t]*=.*$", re.MULTILINE)
_SECTION = re.compile(r"^[ \t]*\[", re.MULTILINE)


def with_budget(text: str, budget: int) -> str:
    """A configuration (TOML) with another memory_budget, in bytes; all else stays as it is."""
    line = f'memory_budget = "{_size(budget)}"'
    section = _SECTION.search(text)
    head, rest = (text[: section.start()], text[section.start() :]) if section else (text, "")
    if _BUDGET_LINE.search(head):
        # a comment behind the old value was about that one
        return _BUDGET_LINE.sub(line, head, count=1) + rest
    return f"{line}\n" + head + rest


def _size(n_bytes: int) -> str:
    if not n_bytes:
        return "none"
    for unit, shift in (("G", 30), ("M", 20), ("K", 10)):
        if n_bytes % (1 << shift) == 0:
            return f"{n_bytes >> shift}{unit}"
    return str(n_bytes)


# --- macOS ---------------------------------------------------------------------------------------


def agent_path() -> Path:
    """The user's launch agent."""
    return Path(f"~/Library/LaunchAgents/{AGENT}.plist").expanduser()


def logs_folder() -> Path:
    """Where the launch agent logs to."""
    return Path("~/Library/Logs").expanduser()


def agent(programs: Path) -> File:
    """The launch agent: launchd's unit of the daemon."""
    from xml.sax.saxutils import escape

    text = (files("clients.service") / "systemd" / "launchd" / "assistantd.plist").read_text(
        encoding="utf-8"
    )
    text = text.replace("@PROGRAMS@", escape(str(programs)))
    return File(agent_path(), text.replace("@LOGS@", escape(str(logs_folder()))))
