"""The machine's service under a real systemd as PID 1: it is installed, watched, limited, removed.

The tests follow one another on one machine: each leaves the service running and well.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clients import Client, ConnectionLost
from clients.cli.app import COMMANDS
from tests.e2e.systemd.freeze import frozen, thread
from tests.e2e.systemd.machine import OPT, Machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

UNIT, SOCKET = "assistantd.service", "/run/assistantd/assistantd.sock"
WATCHDOG_S = 6
BUDGET = 300 << 20
LONG = "The quick brown fox jumps over the lazy dog while it rains in the north. " * 60
PLACES = ("/etc", "/usr/lib/systemd", "/usr/lib/sysusers.d", "/var", "/run", "/root", "/home")


class Service:
    """The service on its machine."""

    def __init__(self, machine: Machine, before: set[str], said: str) -> None:
        self.machine, self.before, self.said = machine, before, said

    def client(self) -> Client:
        """A client on this machine, of the socket on that one."""
        return Client(f"ipc://{self.machine.path(SOCKET)}", timeout=120)

    def ask(self, prompt: str = "Once upon a time", n: int = 8) -> str:
        """Text of n tokens."""
        with self.client() as client:
            return client.complete(prompt, max_tokens=n, temperature=0).wait().text

    @property
    def pid(self) -> int:
        """The daemon's process, as numbered on this machine."""
        inside = self.machine.show(UNIT, "MainPID")
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
            except OSError:
                continue  # it has ended
            numbers = next(line for line in text.splitlines() if line.startswith("NSpid:"))
            ours, *theirs = numbers.split()[1:]
            if theirs == [inside] and self._is_here(int(ours)):
                return int(ours)
        raise AssertionError(f"no process {inside}")

    def _is_here(self, pid: int) -> bool:
        here = os.readlink(f"/proc/{self.machine.init}/ns/pid")
        return os.readlink(f"/proc/{pid}/ns/pid") == here

    @property
    def restarts(self) -> int:
        """How often systemd has started it again."""
        return int(self.machine.show(UNIT, "NRestarts"))

    def until(self, what: Callable[[], bool], within_s: float = 120) -> None:
        """Look until something holds; each look runs systemctl, which takes its time."""
        end = time.monotonic() + within_s
        while not what():
            assert time.monotonic() < end, self.machine.log()

    def state(self) -> str:
        """ActiveState."""
        return self.machine.show(UNIT, "ActiveState")

    def limit(self, text: str) -> None:
        """A drop-in of the administrator's, and a new start with it."""
        folder = self.machine.path(f"/etc/systemd/system/{UNIT}.d")
        folder.mkdir(exist_ok=True)
        unit = f"[Unit]\nStartLimitIntervalSec=0\n[Service]\n{text}\n"
        (folder / "90-test.conf").write_text(unit)
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "reset-failed")
        self.machine.run("systemctl", "restart", UNIT)


def listing(machine: Machine) -> set[str]:
    """Files that may have to do with the service, and all that are new in these folders."""
    found = machine.run("find", *PLACES, "-xdev", "-not", "-path", "/var/log/journal/*")
    return set(found.splitlines())


@pytest.fixture(scope="module")
def service(booted: Machine) -> Iterator[Service]:
    config = booted.path("/etc/assistantd/config.toml")
    config.write_text(config.read_text() + "# kept\n[engine]\nthreads = 2\n")
    booted.run("useradd", "--create-home", "ann")
    booted.run("useradd", "--create-home", "bob")
    before = listing(booted)
    options = ("--programs", f"{OPT}/bin", "--memory-budget", "300M")
    done = booted.do("assistant", "service", "install", "--system", *options)
    assert done.returncode == 0, done.stderr + booted.log()
    running = Service(booted, before, done.stdout + done.stderr)
    running.limit(f"WatchdogSec={WATCHDOG_S}\nRestartSec=100ms")
    booted.run("usermod", "-aG", "assistantd", "ann")
    yield running


def test_install_starts_it_and_says_what_to_do_next(service: Service) -> None:
    assert f"wrote /etc/systemd/system/{UNIT}" in service.said
    assert "usermod -aG assistantd" in service.said
    assert service.state() == "active"
    assert service.machine.show(UNIT, "UnitFileState") == "enabled"
    status = json.loads(service.machine.run("assistant", "service", "status", "--json"))
    assert status["scope"] == "system" and status["socket"] == SOCKET
    assert status["units"][UNIT]["active"] == "active"
    assert status["units"][UNIT]["pid"] == int(service.machine.show(UNIT, "MainPID"))
    log = service.machine.run("assistant", "service", "logs")
    assert "listening" in log and "state=ready" in log


def test_it_is_ready_only_once_the_model_has_answered(service: Service) -> None:
    machine = service.machine
    machine.run("systemctl", "stop", UNIT)
    machine.run("systemctl", "start", "--no-block", UNIT)
    seen = []
    with service.client() as client:
        # asked first: it may get ready in between, but never the other way round
        while (state := service.state()) != "active":
            assert state in ("inactive", "activating"), machine.log()
            seen.append(client.ping().message)
        assert client.ping().message == "ready"
        assert client.status().model is not None
    assert "loading" in seen


def test_the_status_line_tells_of_model_requests_and_memory(service: Service) -> None:
    service.ask()
    with service.client() as client:
        info = client.status()
    words = f"{info.requests_served} requests, {info.tokens_generated} tokens"
    service.until(lambda: words in service.machine.show(UNIT, "StatusText"))
    status = service.machine.show(UNIT, "StatusText")
    assert "model.gguf" in status and "of 300M" in status


def test_memory_is_limited_by_the_budget(service: Service) -> None:
    limit = int(service.machine.show(UNIT, "MemoryMax"))
    assert BUDGET < limit < BUDGET * 1.2
    with service.client() as client:
        info = client.status()
    assert info.budget == BUDGET
    assert info.memory["cgroup_limit"] in (limit, int(service.machine.show(UNIT, "MemoryHigh")))
    config = service.machine.path("/etc/assistantd/config.toml").read_text()
    assert 'memory_budget = "300M"' in config and "# kept" in config


def test_the_sandbox_holds(service: Service) -> None:
    machine, pid = service.machine, service.pid
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    own = machine.run("id", "-u", "assistantd").strip()
    assert set(status["Uid"].split()) == {own}
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
    # what it sees: its own folders may be written, the rest not, and homes are not there
    root = Path(f"/proc/{pid}/root")
    within = ["nsenter", "-t", machine.show(UNIT, "MainPID"), "-m"]
    assert machine.do(*within, "test", "-w", "/var/lib/assistantd").returncode == 0
    for place in ("/etc", "/usr", "/var/cache/assistantd", str(OPT)):
        done = machine.do(*within, "touch", f"{place}/written")
        assert "Read-only file system" in done.stderr, (place, done.stderr)
    assert machine.do(*within, "ls", "/home/ann").returncode != 0
    machine.run("touch", "/dev/a-device")
    assert (root / "dev/null").exists() and not (root / "dev/a-device").exists()
    # the code it runs is mapped from a file that belongs to another user
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    runnable = [line.split() for line in maps if "x" in line.split()[1]]
    assert any(line[-1].endswith("forward_pass.kernel") for line in runnable)
    assert not [line for line in runnable if "w" in line[1]]
    kernels = machine.run("find", "/var/cache/assistantd", "-name", "*.kernel", "-printf", "%u\n")
    assert set(kernels.split()) == {"assistantd-kernels"}


def test_the_group_decides_who_may_use_it(service: Service) -> None:
    machine = service.machine
    answer = machine.run("assistant", "--temperature", "0", "Say yes.", user="ann")
    assert answer.strip()
    refused = machine.do("assistant", "Say yes.", user="bob")
    assert refused.returncode == 3
    assert "usermod -aG assistantd bob" in refused.stderr


def test_a_stopped_process_is_restarted(service: Service) -> None:
    before, pid = service.restarts, service.pid
    os.kill(pid, signal.SIGSTOP)
    service.until(lambda: service.restarts == before + 1 and service.state() == "active")
    assert "Watchdog timeout" in service.machine.log()
    assert service.pid != pid
    assert service.ask()


def test_a_frozen_engine_is_restarted(service: Service) -> None:
    """Its thread stands still, with nothing to do; all others go on."""
    before = service.restarts
    with frozen(thread(service.pid, "engine")) as engine:
        with service.client() as client:
            assert client.ping().message == "ready"  # the daemon still answers
        assert engine.wait_killed() in (signal.SIGABRT, signal.SIGKILL)
    service.until(lambda: service.restarts == before + 1 and service.state() == "active")
    assert "does not move" in service.machine.log()
    assert service.ask()


def test_an_endless_loop_in_a_pass_is_restarted(service: Service) -> None:
    """A worker stands still, so that the engine's thread turns at the barrier for ever."""
    before, pid = service.restarts, service.pid
    with frozen(thread(pid, "engine-1")) as worker, service.client() as client:
        asked = client.complete("Once", max_tokens=4)
        assert worker.wait_killed() in (signal.SIGABRT, signal.SIGKILL)
        with pytest.raises(ConnectionLost):
            asked.wait()
    service.until(lambda: service.restarts == before + 1 and service.state() == "active")
    assert service.ask()


def test_a_slow_engine_is_left_alone(service: Service) -> None:
    """A prompt that takes several times as long as the watchdog waits, on a quarter of a core.

    Much less, for a watchdog of seconds, and the thread that tells systemd gets no turn in time.
    """
    before, started = service.restarts, time.monotonic()
    service.machine.run("systemctl", "set-property", "--runtime", UNIT, "CPUQuota=25%")
    try:
        n = 0
        while time.monotonic() - started < 4 * WATCHDOG_S:
            n += 1
            with service.client() as client:
                done = client.complete(f"{n} {LONG}", max_tokens=1, temperature=0)
                assert done.wait().timings.prompt_tokens > 500
    finally:
        service.machine.run("systemctl", "set-property", "--runtime", UNIT, "CPUQuota=")
        service.until(lambda: service.state() == "active")  # for the next test, if this one fails
    assert service.restarts == before
    assert "does not move" not in service.machine.log().rpartition("state=ready")[2]


def test_a_killed_daemon_is_restarted(service: Service) -> None:
    before, pid = service.restarts, service.pid
    os.kill(pid, signal.SIGKILL)
    service.until(lambda: service.restarts == before + 1 and service.state() == "active")
    assert service.ask()


def test_the_socket_outlives_the_daemon_and_starts_it(service: Service) -> None:
    machine = service.machine
    inode = machine.path(SOCKET).stat().st_ino
    assert machine.path(SOCKET).stat().st_mode & 0o777 == 0o660
    machine.run("systemctl", "stop", UNIT)
    assert service.state() == "inactive"
    assert machine.path(SOCKET).stat().st_ino == inode
    # what the first one asks, before there is a daemon, is answered; and so are those beside it
    clients = [service.client() for _ in range(5)]
    answers = [client.complete("Once", max_tokens=2, temperature=0) for client in clients]
    texts = {answer.wait().text for answer in answers}
    for client in clients:
        client.close()
    assert len(texts) == 1 and texts != {""}
    assert service.state() == "active"
    assert machine.path(SOCKET).stat().st_ino == inode


def test_stop_is_said_to_be_one_though_the_socket_stays(service: Service) -> None:
    done = service.machine.do("assistant", "stop", user="ann")
    assert done.returncode == 0, done.stderr
    assert "assistantd stopped" in done.stdout and "socket" in done.stdout
    # and is not started again by whoever has stopped it: systemd has seen all connections by now
    service.machine.run("systemctl", "daemon-reload")
    assert service.state() == "inactive"
    assert service.ask()


@pytest.mark.skipif("reload" not in COMMANDS, reason="this version cannot reload")
def test_reload_keeps_the_process(service: Service) -> None:
    pid = service.pid
    service.machine.run("systemctl", "reload", UNIT)
    service.until(lambda: service.state() == "active")
    assert service.pid == pid
    assert service.ask()


def test_offline_leaves_it_no_network(service: Service) -> None:
    machine = service.machine
    options = ("--programs", f"{OPT}/bin", "--offline")
    machine.run("assistant", "service", "install", "--system", *options)
    interfaces = Path(f"/proc/{service.pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    assert machine.show(UNIT, "RestrictAddressFamilies") == "AF_UNIX"
    assert service.ask()
    assert int(machine.show(UNIT, "MemoryMax")) < BUDGET * 1.2  # that was not asked for again
    machine.run("assistant", "service", "install", "--system", "--programs", f"{OPT}/bin")
    assert "AF_INET" in machine.show(UNIT, "RestrictAddressFamilies")


def test_kernels_are_compiled_in_their_own_sandbox(service: Service) -> None:
    machine = service.machine
    machine.run("systemctl", "stop", UNIT)
    machine.run("rm", "-r", "/var/cache/assistantd/kernels")
    machine.run("systemctl", "start", UNIT)  # minutes, where other things compute
    assert "compiling" in machine.log("assistantd-kernels.service")
    assert machine.show("assistantd-kernels.service", "Result") == "success"
    assert service.ask()


def test_uninstall_leaves_the_users_data_only(service: Service) -> None:
    machine = service.machine
    folder = machine.path(f"/etc/systemd/system/{UNIT}.d")
    (folder / "90-test.conf").unlink()
    done = machine.do("assistant", "service", "uninstall", "--system")
    assert done.returncode == 0, done.stderr
    assert "kept /var/lib/assistantd" in done.stdout
    left = {
        path
        for path in listing(machine) - service.before
        if not path.startswith(("/var/lib/assistantd", "/run/systemd/", "/var/lib/systemd/"))
    }
    # systemd-sysusers keeps a copy of what it has changed; bash and pip were not asked
    accounts = {f"/etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow")}
    assert left <= accounts | {"/etc/.pwd.lock"}, left
    assert machine.path("/etc/assistantd/config.toml").exists()
    assert machine.path("/var/lib/assistantd/sessions.db").exists()
    status = machine.do("assistant", "service", "status", "--system")
    assert status.returncode == 3 and "no service is installed" in status.stdout
