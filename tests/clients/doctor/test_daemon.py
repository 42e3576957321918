"""Sockets, locks, daemons that are silent, old, or not what they seem, crashes, the gateway."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

import pytest

from assistantd.daemon import take_lock
from assistantd.protocol import Done, NetworkInfo, StatusInfo
from clients.doctor import context as doctor_context
from clients.doctor import daemon as checks
from clients.doctor.context import Context
from tests.clients.doctor.parts import Place, fine, listener, one, program
from tests.clients.scripted_daemon import ScriptedDaemon, status_info

OWN = version("assistantd")


@contextmanager
def answering(
    place: Place, **changes: object
) -> Iterator[tuple[ScriptedDaemon, Callable[[], Context]]]:
    """A daemon that tells this status, and a new look at it."""

    def status(request: object, send: Callable[[Done], None]) -> None:
        send(Done(status=status_info(**{"version": OWN, **changes})))

    with ScriptedDaemon(place.folder) as daemon:
        (place.folder / "d.sock").chmod(0o660)
        daemon.on("status", status)
        daemon.on("network", lambda r, send: send(Done(network=NetworkInfo(on=False))))
        yield daemon, lambda: place.context(endpoint=daemon.endpoint)


def test_sockets(place: Place) -> None:
    path = place.folder / "s"
    assert "no daemon runs" in fine(place.find("socket")).found
    with listener(path):
        path.chmod(0o660)
        fine(place.find("socket"))
        path.chmod(0o666)
        finding = one(place.find("socket"), "socket.open", "problem")
        subprocess.run(finding.mend, shell=True, check=True)
        fine(place.find("socket"))
    assert stat.S_ISSOCK(path.stat().st_mode)  # nobody removed it, as after kill -9
    finding = one(place.find("socket"), "socket.stale", "warning")
    assert finding.mend == "assistant start"
    path.unlink()
    path.write_text("no socket")
    finding = one(place.find("socket"), "socket.file", "problem")
    subprocess.run(finding.mend, shell=True, check=True)
    fine(place.find("socket"))


def test_a_socket_that_cannot_be_used(place: Place) -> None:
    loop = place.folder / "loop"
    loop.symlink_to(loop)
    finding = one(place.find("socket", endpoint=f"ipc://{loop}"), "socket.broken", "problem")
    assert "ASSISTANTD_ENDPOINT" in finding.mend


def test_a_socket_of_a_group_that_one_is_not_in(place: Place) -> None:
    place.folder.chmod(0o755)
    with listener(place.folder / "s"):
        (place.folder / "s").chmod(0o600 if os.geteuid() == 0 else 0o000)
        finding = one(place.find_as_stranger("socket"), "socket.denied", "problem")
    assert "usermod -aG" in finding.mend


def test_a_daemon_elsewhere(place: Place) -> None:
    found = place.find("socket", endpoint="tcp://192.0.2.1:5771")
    assert [finding.severity for finding in found] == ["skipped"]


# --- locks -------------------------------------------------------------------------------------


def test_a_lock_that_is_left(place: Place) -> None:
    fine(place.find("lock"))
    place.data.mkdir()
    (place.data / "assistantd.lock").write_text("4194303\n")  # of a daemon that was killed
    assert fine(place.find("lock")).details["left_by"] == "4194303"


def test_another_daemon_holds_the_lock(place: Place) -> None:
    with take_lock(place.data / "assistantd.lock"):
        finding = one(place.find("lock"), "lock.elsewhere", "problem")
        assert f"kill {os.getpid()}" in finding.mend
        with answering(place, pid=1) as (_daemon, look):
            finding = one(place.find("lock", look()), "lock.other", "problem")
            assert finding.mend == f"kill {os.getpid()}"
        with answering(place) as (_daemon, look):
            fine(place.find("lock", look()))


def test_a_daemon_that_is_stopped(place: Place) -> None:
    lock = place.data / "assistantd.lock"
    script = (
        "import pathlib, sys; from assistantd.daemon import take_lock; "
        f"held = take_lock(pathlib.Path({str(lock)!r})); print('held', flush=True); "
        "sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.send_signal(signal.SIGSTOP)
        os.waitpid(holder.pid, os.WUNTRACED)
        finding = one(place.find("lock"), "lock.stopped", "problem")
        assert finding.mend == f"kill -CONT {holder.pid}"
        subprocess.run(finding.mend, shell=True, check=True)
        os.waitpid(holder.pid, os.WCONTINUED)
        one(place.find("lock"), "lock.elsewhere", "problem")
    finally:
        holder.kill()
        holder.communicate()


# --- the daemon --------------------------------------------------------------------------------


def test_a_daemon_that_is_away(place: Place) -> None:
    assert place.find("daemon")[0].severity == "skipped"


def test_a_daemon_that_is_well(place: Place) -> None:
    with answering(place) as (_daemon, look):
        fine(place.find("daemon", look()))


def test_a_daemon_that_hangs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_context, "_ANSWER_TIMEOUT_S", 0.3)
    with answering(place) as (daemon, look):
        daemon.on("ping", lambda request, send: None)
        finding = one(place.find("daemon", look()), "daemon.silent", "problem")
        assert "assistant stop" in finding.mend


def test_a_daemon_of_another_version(place: Place) -> None:
    with answering(place, version="0.0.1") as (_daemon, look):
        finding = one(place.find("daemon", look()), "daemon.version", "warning")
        assert "0.0.1" in finding.found and OWN in finding.found


def test_a_daemon_without_a_model(place: Place) -> None:
    told = "no model is on this machine yet"
    with answering(place, state="no_model", message=told) as (_daemon, look):
        finding = one(place.find("daemon", look()), "daemon.no-model", "problem")
        assert finding.found == told


def test_a_daemon_that_says_something_of_itself(place: Place) -> None:
    told = "(the session database was damaged and set aside as x)"
    with answering(place, message=told) as (_daemon, look):
        assert one(place.find("daemon", look()), "daemon.message", "warning").found == told


def test_a_daemon_that_knows_no_network(place: Place) -> None:
    """Of it all else is told."""
    from tests.clients.scripted_daemon import fail

    with answering(place) as (daemon, look):
        daemon.on("network", fail("unauthorized", "not for you"))
        fine(place.find("daemon", look()))
        assert place.find("network", look())[0].severity == "skipped"


def test_crashes(place: Place) -> None:
    fine(place.find("crashes"))
    folder = place.data / "crashes"
    folder.mkdir(parents=True)
    fine(place.find("crashes"))
    for name, days in (("older.txt", 40), ("old.txt", 30)):
        (folder / name).write_text("Traceback")
        when = (folder / name).stat().st_mtime - days * 86_400
        os.utime(folder / name, (when, when))
    assert "old.txt" in fine(place.find("crashes")).found
    (folder / "new.txt").write_text("Traceback")
    finding = one(place.find("crashes"), "crashes.recent", "warning")
    assert finding.mend == f"less '{folder}/new.txt'"


# --- the gateway -------------------------------------------------------------------------------


class _Other(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_gateways(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    port = _free_port()
    context = place.context()
    place.set(PATH=f"{place.folder}/bin:/usr/bin:/bin")
    assert next(checks.check_gateway(context, port)).severity == "skipped"
    program(place.folder / "bin", "systemctl", "echo LoadState=loaded; echo UnitFileState=enabled")
    finding = one(list(checks.check_gateway(context, port)), "gateway.away", "problem")
    assert "journalctl" in finding.mend
    with HTTPServer(("127.0.0.1", 0), _Other) as server:
        threading.Thread(target=server.serve_forever).start()
        found = list(checks.check_gateway(context, server.server_port))
        server.shutdown()
    assert f"--port {server.server_port + 1}" in one(found, "gateway.other", "warning").mend
    monkeypatch.setattr(checks, "_GATEWAY_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = int(silent.getsockname()[1])
        one(list(checks.check_gateway(context, port)), "gateway.silent", "warning")


def test_the_real_gateway(place: Place) -> None:
    import asyncio

    from tests.clients.web.house import House, visit

    async def test(house: House) -> None:
        found = await asyncio.to_thread(
            lambda: list(checks.check_gateway(place.context(), house.port))
        )
        fine(found)

    visit(place.folder, test)


def test_the_status_has_what_the_doctor_reads() -> None:
    assert {"version", "pid", "state", "message", "memory"} <= {*StatusInfo.__struct_fields__}
