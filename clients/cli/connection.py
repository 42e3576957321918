"""How a command reaches the daemon: look whether one listens, start the user's own if none does.

Whether somebody listens is asked of the operating system, not by waiting for an answer: the
client library waits patiently for a daemon that is yet to come, a command wants to know now.
"""

import contextlib
import errno
import os
import socket
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from assistantd.protocol import SOCKET_NAME, SYSTEM_SOCKET, default_endpoint, runtime_dir
from clients.address import locate, refusal
from clients.cli.output import note
from clients.cli.settings import Settings
from clients.client import Client
from clients.errors import AssistantError, BadEndpoint, ConnectionLost, NoAnswer
from clients.i18n import _

if TYPE_CHECKING:
    import subprocess

CONTROL_TIMEOUT_S = 15.0
"""A daemon that is alive answers status, ping and lists long before."""
_CONNECT_TIMEOUT_S = 5.0
_NETWORK_TIMEOUT_S = 10.0
_SILENT_S = 1.0
"""After so long without a word, a person is told what is waited for."""
_SILENCE_TIMEOUT_S = 40.0


class NotRunning(NoAnswer):
    """Nobody listens at the endpoint."""


def listening(endpoint: str) -> bool:
    """Whether somebody accepts connections at `endpoint`.

    Raises:
        BadEndpoint: it is no address.
        NotRunning: this user may not use the socket.
    """
    try:
        open_socket(endpoint).close()
    except PermissionError as problem:
        raise NotRunning(refusal(endpoint)) from problem
    except OSError as problem:
        return problem.errno == errno.EAGAIN  # its queue of connections is full: it is there
    return True


def open_socket(endpoint: str) -> socket.socket:
    """A bare connection to `endpoint`, which says nothing.

    Raises:
        BadEndpoint: it is no address.
        OSError: nobody accepts.
    """
    transport, _mark, place = endpoint.partition("://")
    if transport == "ipc" and place:
        # "@" is ZeroMQ's way to write Linux's abstract names
        path = "\0" + place[1:] if place.startswith("@") else place
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_CONNECT_TIMEOUT_S)
            connection.connect(path)
        except BaseException:
            connection.close()
            raise
    else:
        connection = socket.create_connection(_host_and_port(endpoint), _CONNECT_TIMEOUT_S)
    connection.settimeout(_SILENCE_TIMEOUT_S)
    return connection


def _host_and_port(endpoint: str) -> tuple[str, int]:
    transport, _mark, place = endpoint.partition("://")
    host, _mark, port = place.rpartition(":")
    if transport == "tcp" and host and port.isdecimal() and int(port) < 65536:
        return host.strip("[]"), int(port)
    raise BadEndpoint(
        _(
            "cannot use the endpoint {endpoint!r}; write ipc:///path/to/socket or tcp://HOST:PORT"
        ).format(endpoint=endpoint)
    )


def connect(
    settings: Settings, *, start: bool, timeout: float | None = CONTROL_TIMEOUT_S
) -> Client:
    """A client of a daemon that is there.

    Args:
        start: start the user's own daemon if there is none.
        timeout: seconds of silence before a request raises NoAnswer; None for no limit.

    Raises:
        NotRunning: none is there, and none was to be started.
        AssistantError: it was started and did not come up; or one elsewhere refuses us.
    """
    client = Client(find(settings, start=start), timeout=timeout)
    if client.endpoint.startswith("tcp://"):
        try:
            with _told_of_waiting(client.endpoint):
                client.ping(_NETWORK_TIMEOUT_S)
        except (ConnectionLost, NoAnswer) as problem:
            client.close()
            raise NotRunning(str(problem)) from problem
        except BaseException:
            client.close()
            raise
    return client


@contextlib.contextmanager
def _told_of_waiting(endpoint: str) -> Iterator[None]:
    """Within: who waits for longer than a second is told for what."""
    told = _("waiting for the daemon at {endpoint}").format(endpoint=endpoint)
    timer = threading.Timer(_SILENT_S, note, [told])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def find(settings: Settings, *, start: bool) -> str:
    """The endpoint at which a daemon listens now; `connect` without connecting.

    Elsewhere only a connection with keys tells whether it does, so that is left to `connect`.

    Raises:
        NotRunning, AssistantError: as `connect` does.
        BadEndpoint: it is no address and no stored name; NotPaired: there are no keys for it.
    """
    given = settings.endpoint or default_endpoint()
    endpoint, server = locate(given)
    if server is not None or listening(endpoint):
        return given
    if not settings.endpoint and not os.environ.get("ASSISTANTD_ENDPOINT"):
        # the user's own socket may be what a daemon has left that was killed
        machines = f"ipc://{SYSTEM_SOCKET}"
        if given != machines and os.access(SYSTEM_SOCKET, os.W_OK) and listening(machines):
            return machines
    if not start:
        advice = (
            _(
                "no daemon listens at {endpoint}; start it with `assistant start`, "
                "or ask something: that starts it too"
            )
            if _may_start(settings)
            else _(
                "no daemon listens at {endpoint}; start `assistantd` there, "
                "or set ASSISTANTD_ENDPOINT to where it listens"
            )
        )
        raise NotRunning(advice.format(endpoint=endpoint))
    if not _may_start(settings):
        raise NotRunning(
            _(
                "no daemon listens at {endpoint}; start it with `assistantd`, "
                "or set ASSISTANTD_AUTOSTART=1 to have it started when it is needed"
            ).format(endpoint=endpoint)
        )
    if not settings.endpoint and not os.environ.get("ASSISTANTD_ENDPOINT"):
        endpoint = (
            f"ipc://{runtime_dir() / SOCKET_NAME}"  # the system's daemon is not ours to start
        )
    start_daemon(endpoint)
    return endpoint


def _may_start(settings: Settings) -> bool:
    """By default only where the endpoint is nobody's explicit choice."""
    choice = os.environ.get("ASSISTANTD_AUTOSTART", "")
    if choice in ("0", "1"):
        return choice == "1"
    return settings.endpoint is None and not os.environ.get("ASSISTANTD_ENDPOINT")


# --- starting it -----------------------------------------------------------------------------

_START_TIMEOUT_S = 120.0
"""A slow card in a small machine takes a while to load Python."""
_EXIT_RUNS_ALREADY = 75
"""What assistantd says when another one holds the lock."""
_OTHER_DAEMON_S = 2.0
"""How long the other one gets to answer before it is taken to be one that was just leaving."""
_LOG_LINES_SHOWN = 5
_LOG_BYTES_KEPT = 1_000_000


def start_daemon(endpoint: str) -> None:
    """Start the user's daemon, detached, and wait until it answers a ping.

    Raises:
        AssistantError: it ended or did not answer; with the last lines of its log.
    """
    starter = _Starter(endpoint)
    what = _("no daemon is running; starting assistantd (its log: {log})")
    print(f"assistant: {what.format(log=starter.log_path)}", file=sys.stderr, flush=True)
    starter.spawn()
    with Client(endpoint) as client:
        try:
            client.wait_ready(_START_TIMEOUT_S, alive=starter.alive)
        except (AssistantError, OSError) as problem:
            raise NotRunning(starter.explain(problem)) from problem


class _Starter:
    """A daemon that is being started: its process and its log."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        self.log_path = os.path.join(state, "assistantd", "assistantd.log")
        self._process: subprocess.Popen[bytes] | None = None
        self._others_since: float | None = None
        self._tries = 0

    def spawn(self) -> None:
        """Start the process, in a session of its own, so that it outlives the terminal."""
        import subprocess

        os.makedirs(os.path.dirname(self.log_path), mode=0o700, exist_ok=True)
        if os.path.exists(self.log_path) and os.path.getsize(self.log_path) > _LOG_BYTES_KEPT:
            os.replace(self.log_path, f"{self.log_path}.1")
        self._tries += 1
        with open(self.log_path, "ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "assistantd", "--endpoint", self._endpoint],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # holds no folder busy, and `-m` imports from no folder that happens to be current
                cwd="/",
            )

    def alive(self) -> bool:
        """Whether an answer may still come. Called ten times a second while waiting."""
        from time import monotonic

        assert self._process is not None
        status = self._process.poll()
        if status is None:
            return True
        if status != _EXIT_RUNS_ALREADY:
            return False
        # another command started one at the same moment, or one is about to leave
        now = monotonic()
        if self._others_since is None:
            self._others_since = now
        if now - self._others_since > _OTHER_DAEMON_S:
            if self._tries >= 5:
                return False
            self._others_since = None
            self.spawn()
        return True

    def explain(self, problem: Exception) -> str:
        """What to tell the user when it did not come up."""
        assert self._process is not None
        status = self._process.poll()
        if status is None:
            what = _("assistantd was started and does not answer at {endpoint}: {problem}").format(
                endpoint=self._endpoint, problem=problem
            )
        elif status == _EXIT_RUNS_ALREADY:
            what = _(
                "another assistantd runs and does not answer at {endpoint}; it may listen "
                "elsewhere (set ASSISTANTD_ENDPOINT) or hang (end it)"
            ).format(endpoint=self._endpoint)
        elif status > 0:
            what = _("assistantd could not start (it ended with status {n})").format(n=status)
        else:
            what = _("assistantd could not start (it ended with signal {n})").format(n=-status)
        try:
            with open(self.log_path, "rb") as log:
                log.seek(self._log_start)
                lines = log.read().decode("utf-8", "replace").strip().splitlines()
        except OSError as unreadable:
            lines = [_("(its log cannot be read: {problem})").format(problem=unreadable)]
        shown = "".join(f"\n  {line}" for line in lines[-_LOG_LINES_SHOWN:])
        if shown:
            told = _("{what}; its log {log} ends with:{lines}").format(
                what=what, log=self.log_path, lines=f"{shown}\n"
            )
        else:
            told = _("{what}; its log {log} is empty. ").format(what=what, log=self.log_path)
        return told + _("Run `assistantd` in a terminal to see it all")
