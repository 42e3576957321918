"""Nothing reaches for the network unless it is turned on: the kernel's own account of it.

The daemon and its clients run in a network namespace without a route, without even loopback, and
strace notes every socket that any of their threads or children makes. There must be none but Unix
sockets. Needs Linux, strace, and the right to make namespaces.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import Client
from clients.cli.app import COMMANDS
from tests.running import RunningDaemon, short_folder

SOCKETS = re.compile(r"\bsocket(?:pair)?\((\w+)")
ADDRESSES = re.compile(r"sa_family=(\w+)")
HOSTS = re.compile(r'inet_addr\("([^"]*)"\)')


def why_not() -> str | None:
    if sys.platform != "linux" or shutil.which("strace") is None:
        return "needs Linux and strace"
    probe = ["unshare", "--net", "strace", "-D", "-f", "-qq", "-o", os.devnull, "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        return "may not make network namespaces, or trace, here"
    return None


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


def within(trace: Path) -> list[str]:
    """What runs a command without a network, and writes down its calls.

    The tracer is a grandchild (-D), so that the process that is started is the command itself.
    """
    calls = ["-e", "trace=%network", "-e", "signal=none"]
    return ["unshare", "--net", "strace", "-D", "-f", "-qq", *calls, "-o", str(trace)]


def families(trace: Path) -> set[str]:
    """Of all sockets that were made, and all addresses that were named."""
    text = trace.read_text(errors="replace")
    return {*SOCKETS.findall(text), *ADDRESSES.findall(text)}


def assistant(trace: Path, daemon: RunningDaemon, *args: str) -> None:
    done = subprocess.run(
        [*within(trace), sys.executable, "-m", "clients.cli", *args],
        env={**os.environ, "ASSISTANTD_ENDPOINT": daemon.endpoint},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    # a doctor may find fault with this machine
    assert done.returncode == 0 or args == ("doctor",), done.stderr


@pytest.fixture
def daemon(smollm2_path: Path) -> Iterator[RunningDaemon]:
    folder = short_folder()
    running = RunningDaemon(folder, smollm2_path, within=within(folder / "daemon.trace"))
    # at rest, and looking for old messages, as a daemon does in the course of days
    running.settings["ASSISTANTD_IDLE_UNLOAD_S"] = "1"
    running.settings["ASSISTANTD_PRIVACY_RETENTION_DAYS"] = "30"
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()
    shutil.rmtree(folder)


TRY = """
import socket, sys
try:
    socket.create_connection(("198.51.100.1", 80), 5)
except OSError as problem:
    print(problem.errno)
"""


def test_a_connection_would_be_seen(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    done = subprocess.run(
        [*within(trace), sys.executable, "-c", TRY], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == 101  # ENETUNREACH
    assert "AF_INET" in families(trace)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_only_unix_sockets(daemon: RunningDaemon, tmp_path: Path) -> None:
    daemon.start()
    traces = iter(tmp_path / f"{number}.trace" for number in range(100))
    commands: list[tuple[str, ...]] = [
        ("--temperature", "0", "--max-tokens", "8", "What is the capital of France?"),
        ("-s", "trip", "--max-tokens", "8", "And of Italy?"),
        ("status",),
        ("top", "--count", "1"),
        ("ping",),
        ("sessions", "list"),
        ("sessions", "show", "trip"),
        ("sessions", "export", "--all"),
        ("models", "list"),
        ("budget", "2G"),
        ("devices", "list"),
        ("network", "status"),
        ("forget", "--all", "--yes"),
    ]
    if "doctor" in COMMANDS:
        commands.insert(-1, ("doctor",))
    for command in commands:
        trace = next(traces)
        assistant(trace, daemon, *command)
        if command == ("doctor",):  # it looks for the gateway on this machine
            assert families(trace) == {"AF_UNIX", "AF_INET"}
            assert set(HOSTS.findall(trace.read_text(errors="replace"))) == {"127.0.0.1"}
        else:
            assert families(trace) == {"AF_UNIX"}, command
    with daemon.client() as client:
        wait_for_rest(client, daemon)
    assistant(next(traces), daemon, "stop")
    assert daemon.process is not None and daemon.process.wait(60) == 0
    assert families(daemon.folder / "daemon.trace") == {"AF_UNIX"}
    assert "Traceback" not in daemon.log.read_text()


def wait_for_rest(client: Client, daemon: RunningDaemon) -> None:
    """Until the daemon has given its weights back, as nobody asked for a while."""
    while "resting" not in daemon.log.read_text():
        client.ping()
