"""Checks of the daemon: its socket, its locks, whether it answers, its crashes; and the gateway."""

import grp
import http.client
import re
import stat
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from clients.doctor.context import Context
from clients.doctor.finding import Finding, ok, problem, skipped, warning
from clients.i18n import _

_RECENT_S: Final = 7 * 86_400.0
_GATEWAY_PORT: Final = 8080
_GATEWAY_TIMEOUT_S: Final = 5.0


def check_socket(context: Context) -> Iterator[Finding]:
    """Is the socket there, ours to use, and does somebody listen?"""
    if not context.is_local:
        yield skipped("socket", _("the daemon is elsewhere: {place}").format(place=context.wanted))
        return
    path, listens = context.socket, context.listens
    details = {"path": str(path)}
    if isinstance(listens, PermissionError):
        yield problem(
            "socket.denied",
            _("you may not use the daemon's socket {path}").format(path=path),
            _("no client of yours reaches the daemon"),
            f"sudo usermod -aG {_group_of(path)} $USER",
            **details,
        )
    elif isinstance(listens, OSError):
        text = _("the socket {path} cannot be used: {problem}")
        yield problem(
            "socket.broken",
            text.format(path=path, problem=listens.strerror or listens),
            _("no client reaches the daemon"),
            _("set ASSISTANTD_ENDPOINT to the daemon's address, ipc://PATH"),
            **details,
        )
    elif not path.exists():
        yield ok("socket", _("none at {path}: no daemon runs").format(path=path), **details)
    elif not stat.S_ISSOCK(path.stat().st_mode):
        yield problem(
            "socket.file",
            _("{path} is no socket").format(path=path),
            _("the daemon cannot listen there"),
            f"mv '{path}' '{path}.old'",
            **details,
        )
    elif not listens:
        yield warning(
            "socket.stale",
            _("nobody listens at {path}").format(path=path),
            _("a daemon ended without removing it: it was killed, or the power failed"),
            "assistant start",
            **details,
        )
    elif path.stat().st_mode & 0o007:
        yield problem(
            "socket.open",
            _("everybody on this machine may use {path}").format(path=path),
            _("whoever may, reads all conversations"),
            f"chmod 660 '{path}'",
            **details,
        )
    else:
        yield ok("socket", str(path), **details)


def _group_of(path: Path) -> str:
    try:
        return grp.getgrgid(path.stat().st_gid).gr_name
    except (OSError, KeyError):
        return "assistantd"


def lock_holders(context: Context) -> list[int]:
    """Processes that hold the lock of the data; 0 or less for one that may not be seen."""
    try:
        inode = (context.data / "assistantd.lock").stat().st_ino
    except OSError:
        return []
    # 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF (proc_locks(5)); the process may be hidden
    pattern = rf"FLOCK\s+ADVISORY\s+WRITE\s+(-?\d+)\s+\S+:{inode}\s"
    return [int(found) for found in re.findall(pattern, context.read("proc/locks"))]


def check_lock(context: Context) -> Iterator[Finding]:
    """Who holds the data, and is it the daemon that answers?"""
    path = context.data / "assistantd.lock"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        yield ok("lock", _("not taken"))
        return
    except OSError as error:
        yield skipped("lock", f"{path}: {error.strerror}")
        return
    if not (context.root / "proc/locks").exists():  # empty it is where nobody holds one
        yield skipped("lock", _("the system does not tell who holds it"))
        return
    holders = lock_holders(context)
    if not holders:
        yield ok("lock", _("not taken"), left_by=text.strip())
        return
    pid = holders[0]
    if pid <= 0 and text.strip().isdigit():
        pid = int(text.strip())
    state = re.search(r"^State:\s+(\S)", context.read(f"proc/{pid}/status"), re.MULTILINE)
    if state is not None and state[1] == "T":
        yield problem(
            "lock.stopped",
            _("the daemon (process {pid}) is stopped").format(pid=pid),
            _("it answers nobody, and no other can start"),
            f"kill -CONT {pid}",
            pid=pid,
        )
    elif context.status is not None and context.status.pid != pid:
        yield problem(
            "lock.other",
            _("process {pid} holds {path}, and not the daemon that answers ({other})").format(
                pid=pid, path=path, other=context.status.pid
            ),
            _("two daemons with the same settings are running at different sockets"),
            f"kill {pid}",
            pid=pid,
        )
    elif context.status is None and context.is_local and context.listens is False:
        yield problem(
            "lock.elsewhere",
            _("a daemon (process {pid}) has these data, but does not listen at {socket}").format(
                pid=pid, socket=context.socket
            ),
            _("clients do not find it, and no other can start"),
            _("set ASSISTANTD_ENDPOINT to where it listens, or end it: kill {pid}").format(pid=pid),
            pid=pid,
        )
    else:
        yield ok("lock", _("held by process {pid}").format(pid=pid), pid=pid)


def check_daemon(context: Context) -> Iterator[Finding]:
    """Does it answer, in which state, and is it of our version?"""
    status = context.status
    if status is None:
        if context.complaint:
            yield problem(
                "daemon.silent",
                _("the daemon does not answer: {problem}").format(problem=context.complaint),
                _("it hangs, or computes something very long"),
                "assistant service logs; assistant stop; assistant start",
            )
        else:
            yield skipped("daemon", _("not running; it is started when it is needed"))
        return
    details = {"version": status.version, "pid": status.pid, "state": status.state}
    fine = True
    if status.version != version("assistantd"):
        fine = False
        yield warning(
            "daemon.version",
            _("the daemon is {other}, this client {own}").format(
                other=status.version, own=version("assistantd")
            ),
            _("after an update the old one goes on until it is started again"),
            "assistant stop && assistant start",
            **details,
        )
    if status.state == "no_model":
        fine = False
        yield problem(
            "daemon.no-model",
            status.message or _("the daemon has no model"),
            _("nothing can be asked"),
            "assistant models pull smollm2",
            **details,
        )
    elif status.message and status.state == "ready":
        fine = False
        yield warning(
            "daemon.message",
            status.message,
            _("the daemon says so of itself"),
            "assistant status",
            **details,
        )
    if fine:
        text = _("assistantd {version} answers, process {pid}")
        yield ok("daemon", text.format(version=status.version, pid=status.pid), **details)


def check_crashes(context: Context) -> Iterator[Finding]:
    """Has the daemon crashed lately?"""
    folder = context.data / "crashes"
    try:
        reports = [(path.stat().st_mtime, path) for path in folder.glob("*.txt")]
    except OSError:  # gone meanwhile, or not ours to read, which is another check's to say
        reports = []
    if not reports:
        yield ok("crashes", _("none"))
        return
    when, newest = max(reports)
    shown = datetime.fromtimestamp(when).isoformat(" ", "minutes")
    details = {"newest": str(newest), "reports": len(reports)}
    text = _("the last crash was at {time}: {path}").format(time=shown, path=newest)
    if context.now() - when < _RECENT_S:
        yield warning(
            "crashes.recent",
            text,
            _("answers under way were lost"),
            f"less '{newest}'",
            **details,
        )
    else:
        yield ok("crashes", text, **details)


def check_gateway(context: Context, port: int = _GATEWAY_PORT) -> Iterator[Finding]:
    """Is the gateway there, if it should be?"""
    from clients.doctor.service import journal_of

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_GATEWAY_TIMEOUT_S)
    details = {"port": port}
    try:
        connection.request("GET", "/api/me", headers={"Host": f"localhost:{port}"})
        reply = connection.getresponse()
        ours = reply.getheader("www-authenticate") == "Cookie"
    except ConnectionRefusedError:
        journal = journal_of("assistant-gateway.service")
        if journal is not None:
            yield problem(
                "gateway.away",
                _("its service is enabled, and nothing listens at port {port}").format(port=port),
                _("phones and programs do not reach the assistant"),
                journal,
                **details,
            )
        else:
            yield skipped("gateway", _("not running"), **details)
        return
    except (OSError, http.client.HTTPException) as error:
        yield warning(
            "gateway.silent",
            _("what listens at port {port} does not answer: {problem}").format(
                port=port, problem=error
            ),
            _("phones and programs do not reach the assistant"),
            f"ss -ltnp 'sport = :{port}'",
            **details,
        )
        return
    finally:
        connection.close()
    if ours:
        yield ok("gateway", f"http://localhost:{port}/", **details)
    else:
        yield warning(
            "gateway.other",
            _("another program listens at port {port}").format(port=port),
            _("the gateway cannot start at its usual port"),
            f"assistant gateway --port {port + 1}",
            **details,
        )


def check_config(context: Context) -> Iterator[Finding]:
    """Are the settings sound, and which of them hide others?"""
    config = context.examination.config
    details = {"files": config.files, "overridden": config.overridden}
    fine = True
    if config.problem is not None:
        fine = False
        yield problem(
            "config.invalid",
            config.problem,
            _("the daemon does not start"),
            "assistantd --check-config",
            **details,
        )
    for key, places in config.overridden.items():
        if not places[-1].startswith("$"):
            continue  # a file of the user's over that of the machine, or a flag: as it is meant
        fine = False
        text = _("{key} is set in {weaker}, but {stronger} holds")
        yield warning(
            "config.overridden",
            text.format(key=key, weaker=", ".join(places[:-1]), stronger=places[-1]),
            _("changing the file has no effect"),
            f"unset {places[-1][1:]}",
            key=key,
            places=places,
        )
    for name in config.variables:
        fine = False
        yield warning(
            "config.variable",
            _("${name} is not a setting").format(name=name),
            _("it has no effect; perhaps it is misspelt"),
            "assistantd --print-config",
            name=name,
        )
    if fine:
        there = [file for file, exists in config.files.items() if exists]
        yield ok("config", ", ".join(there) if there else _("the defaults"), **details)
