"""`assistant status`, `ping`, `start` and `stop`: the daemon itself."""

import os
import select
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clients.cli.output import ago, human_span, pairs, print_json
from clients.cli.settings import HELP, Settings, common, pass_settings
from clients.i18n import _, marked, ngettext

if TYPE_CHECKING:
    from assistantd.protocol import RetentionInfo, StatusInfo

_END_S = 30.0
_STATES = {
    "starting": marked("starting"),
    "loading": marked("loading its model"),
    "ready": marked("ready"),
    "no_model": marked("without a model"),
    "shutting_down": marked("shutting down"),
}


@click.command(context_settings=HELP)
@common
@pass_settings
def status(settings: Settings) -> None:
    """How the daemon is: its model, queue, memory and speed.

    \b
    assistant status            the bar shows what each part may use of the memory budget
    assistant status | cat      the same in plain words
    assistant status --json     for scripts, in bytes
    assistant top               look on while it works

    "planned" is what was set aside, "memory" what the process takes at this moment. Weights that
    are "streamed" do not fit, and are read from the disk for every token.
    """
    from clients.cli.connection import connect
    from clients.cli.ledger import print_bar

    with connect(settings, start=False) as client:
        endpoint, info = client.endpoint, client.status()
    if settings.json:
        print_json(info)
        return
    pairs(describe(info, endpoint))
    if info.plan is not None:
        print_bar(info.plan, info.memory)


def describe(info: "StatusInfo", endpoint: str) -> list[tuple[str, str]]:
    """Labels and values of a status."""
    from clients.cli.ledger import budget_row, plan_rows, speed, use_row

    state = _(_STATES[info.state]) + (f": {info.message}" if info.message else "")
    queue = info.queue
    rows = [
        (
            _("daemon"),
            _("assistantd {version}, process {pid}, up {span}").format(
                version=info.version, pid=info.pid, span=human_span(info.uptime_s)
            ),
        ),
        (_("listens at"), endpoint),
        (_("state"), state),
        (_("model"), info.model.name if info.model is not None else _("none in memory")),
        (
            _("queue"),
            _("{active} active, {waiting} of {capacity} waiting").format(
                active=queue.active, waiting=queue.waiting, capacity=queue.capacity
            ),
        ),
        (
            _("served"),
            _("{requests:,} requests, {tokens:,} tokens").format(
                requests=info.requests_served, tokens=info.tokens_generated
            ),
        ),
    ]
    if info.crash_report is not None:
        rows.append((_("last run"), _("crashed; see {path}").format(path=info.crash_report)))
    if info.tokens_per_second is not None:
        rows.append((_("last speed"), speed(info.tokens_per_second)))
    if info.retention is not None:
        rows.append((_("keeps"), _retention(info.retention)))
    rows += [budget_row(info.budget), use_row(info)]
    return rows + (plan_rows(info.plan, info.memory) if info.plan is not None else [])


def _retention(retention: "RetentionInfo") -> str:
    """How long messages are kept, and when old ones were removed."""
    from datetime import datetime

    kept = ngettext("messages for {n} day", "messages for {n} days", retention.days).format(
        n=retention.days
    )
    if retention.waits_until is not None:
        until = datetime.fromtimestamp(retention.waits_until).strftime("%Y-%m-%d %H:%M")
        waits = _("{kept}; the clock has leapt, so none is removed before {until}")
        return waits.format(kept=kept, until=until)
    if retention.removed_at is None:
        return kept
    return _("{kept}; older ones were removed {ago}").format(
        kept=kept, ago=ago(retention.removed_at)
    )


@click.command(context_settings=HELP)
@common
@pass_settings
def ping(settings: Settings) -> None:
    """Is the daemon there? Exit code 3 if it is not."""
    from time import perf_counter

    from clients.cli.connection import connect

    with connect(settings, start=False) as client:
        before = perf_counter()
        done = client.ping()
        took_ms = 1000 * (perf_counter() - before)
    if settings.json:
        print_json(done)
    else:
        click.echo(
            _("assistantd {version} answered in {ms:.1f} ms").format(
                version=done.version, ms=took_ms
            )
        )


@click.command(context_settings=HELP)
@common
@pass_settings
def start(settings: Settings) -> None:
    """Start the daemon for this user, and wait until it answers.

    It goes on in the background when the terminal is closed; `assistant stop` ends it. Other
    commands start it by themselves when they need it.
    """
    from clients.cli.connection import NotRunning, connect

    try:
        client, was_there = connect(settings, start=False), True
    except NotRunning:
        client, was_there = connect(settings, start=True), False
    with client:
        info = client.status()
    if settings.json:
        print_json(info)
    else:
        if was_there:
            how = _("assistantd runs already, as process {pid}; it is {state}")
        else:
            how = _("assistantd runs, as process {pid}; it is {state}")
        click.echo(how.format(pid=info.pid, state=_(_STATES[info.state])))
        if info.state == "no_model":
            click.echo(info.message)


@click.command(context_settings=HELP)
@common
@pass_settings
def stop(settings: Settings) -> None:
    """Stop the daemon. Answers under way get a few seconds to finish."""
    from assistantd.protocol import Done
    from clients.cli.connection import NotRunning, connect, listening, open_socket
    from clients.errors import ConnectionLost

    try:
        client = connect(settings, start=False)
    except NotRunning:
        if settings.json:
            print_json({"message": "not running"})
        else:
            click.echo(_("assistantd is not running"))
        return
    with client:
        # a bare connection ends when the daemon does, so nobody has to look again and again
        with open_socket(client.endpoint) as watch:
            activated = _is_systemds(watch)
            process = _process(client.status().pid) if activated else None
            try:
                done = client.shutdown()
            except ConnectionLost:  # it was gone before its reply was sent: as was asked
                done = Done()
            client.close()  # it would connect again, which starts the daemon at systemd's socket
            _wait_for_end(watch)
        # at systemd's socket somebody listens all the time, and to look would start the daemon
        stopped = _has_ended(process) if activated else not listening(client.endpoint)
    if settings.json:
        # as it is in every language: scripts read it
        done.message = (
            "stopped" if stopped else "stopping, as soon as the answers under way are finished"
        )
        print_json(done)
    elif stopped and activated:
        click.echo(
            _(
                "assistantd stopped; the service's socket stays, and starts it again when somebody "
                "asks. To end that: systemctl stop assistantd.socket"
            )
        )
    elif stopped:
        click.echo(_("assistantd stopped"))
    else:
        click.echo(_("assistantd stopping, as soon as the answers under way are finished"))


def _is_systemds(connection: socket.socket) -> bool:
    """Whether it is systemd that listens at the other end, and the daemon took that over."""
    if not hasattr(socket, "SO_PEERCRED") or connection.family != socket.AF_UNIX:
        return False
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, _user, _group = struct.unpack("3i", credentials)
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "systemd"
    except OSError:
        return False


def _process(pid: int) -> int | None:
    """A file descriptor that tells when a process ends; None if it has."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _has_ended(process: int | None) -> bool:
    """Whether a process ends within the time that answers get."""
    if process is None:
        return True
    try:
        return bool(select.select([process], [], [], _END_S)[0])
    finally:
        os.close(process)


def _wait_for_end(watch: socket.socket) -> None:
    """Until the other end closes, which ZeroMQ also does after 30 s of our silence."""
    try:
        while watch.recv(4096):
            pass
    except (ConnectionError, TimeoutError):
        return
