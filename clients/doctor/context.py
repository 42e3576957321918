"""What several checks need to know; each thing is asked for once, and by whoever needs it first."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import time

import msgspec

from assistantd.protocol import SYSTEM_SOCKET, NetworkInfo, StatusInfo, default_endpoint
from assistantd.protocol_examine import Examination
from clients.i18n import CATALOGUE, _

_EXAMINE_TIMEOUT_S = 120.0
"""Python from a slow card, and 64 MB of the model from it."""
_ANSWER_TIMEOUT_S = 5.0
SYSTEM_CONFIG = Path("/etc/assistantd/config.toml")
SYSTEM_DATA = Path("/var/lib/assistantd")
SYSTEM_CACHE = Path("/var/cache/assistantd")


def own_environment() -> dict[str, str]:
    """Environment for a program of this installation: it imports what this process does, and
    speaks the same language."""
    environment = dict(os.environ)
    if CATALOGUE.is_english:
        environment["LANGUAGE"] = "en"
    place = Path(__file__).resolve().parents[2]
    if place.name not in ("site-packages", "dist-packages"):  # a checkout
        given = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{place}{os.pathsep}{given}" if given else str(place)
    return environment


class UnexaminedError(Exception):
    """The daemon's program could not be asked; the message says why."""


@dataclass
class Context:
    """The machine, the installation and the daemon, as checks see them.

    Attributes:
        endpoint: of --endpoint; None for the usual place.
        thorough: also what takes long: the whole model is read.
        say: told what is being done when that takes longer than a moment.
        root: the folder that /proc, /sys and /usr are in; another one in tests.
        now: Unix time.
    """

    endpoint: str | None = None
    thorough: bool = False
    say: Callable[[str], None] = lambda text: None
    root: Path = Path("/")
    now: Callable[[], float] = time
    python: tuple[int, ...] = field(default_factory=lambda: tuple(sys.version_info[:3]))

    @cached_property
    def wanted(self) -> str:
        """The endpoint that is meant."""
        return self.endpoint or default_endpoint()

    @property
    def is_local(self) -> bool:
        """Whether the daemon is to be on this machine, at a socket with a path."""
        return self.wanted.startswith("ipc://") and not self.wanted.startswith("ipc://@")

    @property
    def socket(self) -> Path:
        """The daemon's socket, if it is local."""
        return Path(self.wanted.removeprefix("ipc://"))

    @property
    def is_system(self) -> bool:
        """Whether the daemon is the machine's, not this user's."""
        return self.wanted == f"ipc://{SYSTEM_SOCKET}"

    # --- the daemon's program ----------------------------------------------------------------

    @cached_property
    def _examined(self) -> Examination | str:
        self.say(_("asking assistantd about its settings, kernels and model …"))
        command = [sys.executable, "-B", "-m", "assistantd", "--examine"]
        environment = own_environment()
        if self.is_system:
            if SYSTEM_CONFIG.exists():
                command += ["--config", str(SYSTEM_CONFIG)]
            environment["STATE_DIRECTORY"] = str(SYSTEM_DATA)
            environment["RUNTIME_DIRECTORY"] = str(SYSTEM_SOCKET.parent)
            environment["ASSISTANTD_KERNEL_CACHE"] = str(SYSTEM_CACHE)
        elif self.is_local:
            command += ["--endpoint", self.wanted]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd="/",  # nothing of a folder that happens to be current is imported
                env=environment,
                timeout=_EXAMINE_TIMEOUT_S,
            )
            return msgspec.json.decode(done.stdout, type=Examination)
        except subprocess.TimeoutExpired:
            return _("it does not end within {n:.0f} s").format(n=_EXAMINE_TIMEOUT_S)
        except OSError as problem:
            return str(problem)
        except msgspec.MsgspecError:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            return lines[-1] if lines else _("it ended with status {n}").format(n=done.returncode)

    @property
    def examination(self) -> Examination:
        """What `assistantd --examine` says. Raises UnexaminedError."""
        found = self._examined
        if isinstance(found, str):
            raise UnexaminedError(found)
        return found

    @property
    def data(self) -> Path:
        """The daemon's folder of data. Raises UnexaminedError."""
        return Path(self.examination.config.data)

    # --- the daemon itself -------------------------------------------------------------------

    @cached_property
    def listens(self) -> bool | OSError:
        """Whether somebody accepts connections at the socket; or why that cannot be told."""
        from clients.cli.connection import open_socket

        try:
            open_socket(self.wanted).close()
        except BlockingIOError:
            return True  # its queue of connections is full: it is there
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as problem:
            return problem
        return True

    @cached_property
    def _asked(self) -> tuple[StatusInfo | None, NetworkInfo | None, str]:
        """Status, network, and what went wrong."""
        from assistantd.protocol import Network
        from clients.client import Client
        from clients.errors import AssistantError, RequestError

        if self.is_local and self.listens is not True:
            return None, None, ""
        self.say(_("asking the daemon how it is …"))
        try:
            with Client(self.wanted, timeout=_ANSWER_TIMEOUT_S) as client:
                client.ping(_ANSWER_TIMEOUT_S)
                status = client.status()
                try:
                    return status, client.request(Network(op="status")).network, ""
                except RequestError as refused:  # of a daemon elsewhere, to a device
                    return status, None, str(refused)
        except AssistantError as error:
            return None, None, str(error)

    @property
    def status(self) -> StatusInfo | None:
        """How the daemon is; None if it does not answer."""
        return self._asked[0]

    @property
    def network(self) -> NetworkInfo | None:
        """The daemon's network; None if it does not answer, or does not tell."""
        return self._asked[1]

    @property
    def complaint(self) -> str:
        """Why the daemon did not tell all; "" if it is away, or told."""
        return self._asked[2]

    # --- files -------------------------------------------------------------------------------

    def read(self, path: str) -> str:
        """A small file of the system below `root`; "" if it is not there or not ours to read."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""
