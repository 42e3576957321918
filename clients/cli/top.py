"""`assistant top`: the status again and again, live on a terminal, as lines elsewhere."""

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from clients.cli.output import clean, pairs, print_json
from clients.cli.settings import HELP, Settings, common, pass_settings
from clients.i18n import _

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from assistantd.protocol import StatusInfo
    from clients.client import Client
    from clients.errors import AssistantError

_ANSWER_TIMEOUT_S = 2.0
"""A daemon that says nothing for so long is shown as away; keys wait no longer than this."""


@click.command(context_settings=HELP)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Look again after so long.",
)
@click.option(
    "--count",
    type=click.IntRange(1),
    metavar="N",
    help="Stop after N looks; by default after q or Ctrl-C, in a pipe without --json after one.",
)
@common
@pass_settings
def top(settings: Settings, interval: float, count: int | None) -> None:
    """Look on while the daemon works.

    Shows its state, speed, queue and memory again every second, until q or Ctrl-C.

    \b
    assistant top
    assistant top --interval 5 --json >> memory.jsonl    a line of JSON every five seconds
    assistant top --count 3 | cat                        as text

    A daemon that stops or restarts is waited for; in lines of JSON its absence is an error.
    """
    from clients.cli.connection import connect

    capable = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    live = capable and not settings.json
    if not live and not settings.json:
        count = count or 1
    with connect(settings, start=False, timeout=_ANSWER_TIMEOUT_S) as client:
        watch = Watch(client)
        try:
            if live:
                _live(watch, interval, count)
            else:
                _lines(watch, interval, count, as_json=settings.json)
        except KeyboardInterrupt:  # the way to leave
            return


@dataclass
class Look:
    """What was seen at one moment.

    Attributes:
        info: None while the daemon is away; then `problem` says how that was noticed.
        speed: tokens/s since the look before; None if that cannot be told.
    """

    endpoint: str
    info: "StatusInfo | None"
    problem: "AssistantError | None" = None
    speed: float | None = None

    def rows(self) -> list[tuple[str, str]]:
        """Labels and values."""
        if self.info is None:
            away = _("away: {problem}").format(problem=self.problem)
            return [(_("daemon"), away), (_("state"), _("waiting for it to come back"))]
        from clients.cli.daemon import describe
        from clients.cli.ledger import speed

        rows = describe(self.info, self.endpoint)
        if self.speed is not None:
            now = speed(self.speed) if self.speed else _("nothing is written")
            rows.append((_("speed now"), now))
        return rows


class Watch:
    """Asks a daemon for its status, again and again, whether it is there or not."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._away = False
        self._before: tuple[int, int, float] | None = None  # process, tokens, when

    def look(self) -> Look:
        """The daemon now.

        Raises:
            RequestError: it is there and refuses.
        """
        from clients.cli.connection import NotRunning, listening
        from clients.errors import ConnectionLost, NoAnswer, ShuttingDown

        endpoint = self._client.endpoint
        try:
            # nobody waits for an answer from where nobody listens
            if self._away and not listening(endpoint):
                raise NotRunning(_("no daemon listens at {endpoint}").format(endpoint=endpoint))
            info = self._client.status()
        except (ConnectionLost, NoAnswer, ShuttingDown) as problem:
            self._away, self._before = True, None
            return Look(endpoint, None, problem)
        self._away = False
        return Look(endpoint, info, speed=self._speed(info))

    def _speed(self, info: "StatusInfo") -> float | None:
        now = time.monotonic()
        before, self._before = self._before, (info.pid, info.tokens_generated, now)
        if before is None or before[0] != info.pid or now <= before[2]:
            return None
        return (info.tokens_generated - before[1]) / (now - before[2])


# --- in a pipe -------------------------------------------------------------------------------


def _lines(watch: Watch, interval: float, count: int | None, *, as_json: bool) -> None:
    from clients.cli.ledger import print_bar

    seen = 0
    while True:
        due = time.monotonic() + interval
        look = watch.look()
        if look.problem is not None and count == 1:
            raise look.problem
        if as_json:
            _print_json(look)
        else:
            if seen:
                print()
            pairs(look.rows())
            if look.info is not None and look.info.plan is not None:
                print_bar(look.info.plan, look.info.memory)
        sys.stdout.flush()
        seen += 1
        if seen == count:
            return
        _wait(due)


def _print_json(look: Look) -> None:
    if look.info is not None:
        print_json(look.info)
    else:
        print_json({"error": {"code": "away", "message": str(look.problem)}})


def _wait(due: float) -> None:
    """Until `due`.

    Raises:
        BrokenPipeError: the reader of the output went away meanwhile.
    """
    poll = select.poll()
    poll.register(sys.stdout, 0)  # POLLERR and POLLHUP come unasked
    if poll.poll(1000 * max(0.0, due - time.monotonic())):
        raise BrokenPipeError


# --- on a terminal ---------------------------------------------------------------------------


def _live(watch: Watch, interval: float, count: int | None) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with _keys() as keys, Live(console=console, screen=True, auto_refresh=False) as screen:
        seen = 0
        while True:
            due = time.monotonic() + interval
            screen.update(_page(watch.look(), console, interval), refresh=True)
            seen += 1
            if seen == count or _wants_to_leave(keys, due):
                return


def _page(look: Look, console: "Console", interval: float) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from clients.cli.ledger import drawn

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in look.rows():
        grid.add_row(label, Text(clean(value)))
    parts: list[RenderableType] = [grid]
    info = look.info
    if info is not None and info.plan is not None and info.plan.owners:
        # above the rows, so that a terminal of few lines still shows it
        parts = [drawn(info.plan, info.memory, console), Text(), *parts]
    parts.append(Text("\n" + _("every {n:g} s; q leaves").format(n=interval), style="dim"))
    return Group(*parts)


@contextmanager
def _keys() -> Iterator[int | None]:
    """The terminal's keys without Enter, as a descriptor; None if stdin is none."""
    if sys.stdin is None or not sys.stdin.isatty():
        yield None
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _wants_to_leave(keys: int | None, due: float) -> bool:
    """Wait for q until `due`; other keys change nothing."""
    watched = [] if keys is None else [keys]
    while True:
        left = due - time.monotonic()
        if left <= 0:
            return False
        ready, _, _ = select.select(watched, [], [], left)
        if not ready:
            return False
        assert keys is not None
        typed = os.read(keys, 1024)
        if not typed or b"q" in typed.lower():  # nothing: the terminal is gone
            return True
