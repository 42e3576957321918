"""`assistant status`, `ping`, `start` and `stop`: the daemon itself."""

import socket
from typing import TYPE_CHECKING

import click

from clients.cli.output import human_span, pairs, print_json
from clients.cli.settings import HELP, Settings, common, pass_settings

if TYPE_CHECKING:
    from assistantd.protocol import StatusInfo

_STATES = {
    "starting": "starting",
    "loading": "loading its model",
    "ready": "ready",
    "no_model": "without a model",
    "shutting_down": "shutting down",
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

    state = _STATES[info.state] + (f": {info.message}" if info.message else "")
    queue = info.queue
    rows = [
        (
            "daemon",
            f"assistantd {info.version}, process {info.pid}, up {human_span(info.uptime_s)}",
        ),
        ("listens at", endpoint),
        ("state", state),
        ("model", info.model.name if info.model is not None else "none in memory"),
        ("queue", f"{queue.active} active, {queue.waiting} of {queue.capacity} waiting"),
        ("served", f"{info.requests_served:,} requests, {info.tokens_generated:,} tokens"),
    ]
    if info.tokens_per_second is not None:
        rows.append(("last speed", speed(info.tokens_per_second)))
    rows += [budget_row(info.budget), use_row(info)]
    return rows + (plan_rows(info.plan, info.memory) if info.plan is not None else [])


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
        click.echo(f"assistantd {done.version} answered in {took_ms:.1f} ms")


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
        how = "runs already" if was_there else "runs"
        click.echo(f"assistantd {how}, as process {info.pid}; it is {_STATES[info.state]}")
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
            click.echo("assistantd is not running")
        return
    with client:
        # a bare connection ends when the daemon does, so nobody has to look again and again
        with open_socket(client.endpoint) as watch:
            try:
                done = client.shutdown()
            except ConnectionLost:  # it was gone before its reply was sent: as was asked
                done = Done()
            _wait_for_end(watch)
        if listening(client.endpoint):
            done.message = "stopping, as soon as the answers under way are finished"
        else:
            done.message = "stopped"
    if settings.json:
        print_json(done)
    else:
        click.echo(f"assistantd {done.message}")


def _wait_for_end(watch: socket.socket) -> None:
    """Until the other end closes, which ZeroMQ also does after 30 s of our silence."""
    try:
        while watch.recv(4096):
            pass
    except (ConnectionError, TimeoutError):
        return
