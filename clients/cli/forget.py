"""`assistant forget`: delete conversations, so that nothing of them stays in any file."""

import sys
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import click

from clients.cli.output import clean, note, print_json
from clients.cli.settings import HELP, Settings, common, pass_settings
from clients.i18n import _, ngettext

if TYPE_CHECKING:
    from assistantd.protocol import ForgottenInfo
    from clients.client import Client

SHOWN = 20
"""Conversations that are named before the question; the rest is counted."""


@dataclass(frozen=True)
class Wanted:
    """What is to go, as the daemon is asked for it."""

    sessions: tuple[str, ...] = ()
    since: float | None = None
    before: float | None = None
    owner: str | None = None

    def requests(self) -> list[dict[str, Any]]:
        """What to ask: one for each session that is named."""
        times = {"since": self.since, "before": self.before, "owner": self.owner}
        if self.sessions:
            return [{"session": session, **times} for session in self.sessions]
        return [{"all": self.since is None and self.before is None, **times}]

    def covers(self, moment: float) -> bool:
        """Whether what was typed at a moment is meant: not if it is only about some session."""
        if self.sessions or self.owner is not None:
            return False
        after = self.since is None or moment >= self.since
        return after and (self.before is None or moment < self.before)


@click.command(context_settings=HELP)
@click.argument("sessions", nargs=-1, metavar="[SESSION]...")
@click.option("--day", metavar="DAY", help="What was asked on that day: 2026-11-24, today.")
@click.option("--before", metavar="DAY", help="What was asked before that day.")
@click.option("--older-than", metavar="AGE", help="What was asked longer ago: 12h, 30d, 8w, 1y.")
@click.option("--all", "everything", is_flag=True, help="Every conversation.")
@click.option("--device", metavar="DEVICE", help="Only what a paired device asked.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@common
@pass_settings
def forget(
    settings: Settings,
    sessions: tuple[str, ...],
    day: str | None,
    before: str | None,
    older_than: str | None,
    everything: bool,
    device: str | None,
    yes: bool,
) -> None:
    """Delete conversations, or parts of them, so that nothing of them stays in any file.

    \b
    assistant forget trip                  one conversation
    assistant forget --day yesterday       what was asked on a day, in all of them
    assistant forget --older-than 30d      what was asked before
    assistant forget --device phone --all  what a device asked
    assistant forget --all                 everything

    What will go is shown first. A question goes with its answer, and a conversation of which
    nothing is left goes, too. What you typed in `assistant chat` at that time goes from its
    history on this machine, with --all all of it. There is no way back: `assistant sessions
    export` makes a copy.
    """
    from clients.cli.connection import connect

    wanted = _wanted(sessions, day, before, older_than, everything, device)
    # no limit of time: a model that is being loaded is waited for
    with connect(settings, start=True, timeout=None) as client:
        if device is not None:
            wanted = Wanted(wanted.sessions, wanted.since, wanted.before, _device(client, device))
        preview = [client.forget(preview=True, **asked) for asked in wanted.requests()]
        n_messages = sum(found.messages for found in preview)
        if not settings.json:
            _show(preview, everything and device is None)
        # with --all there may be more than messages: what the engine keeps, damaged copies
        if not yes and (n_messages or any(found.copies for found in preview)):
            _confirm(settings, n_messages)
        done = [client.forget(**asked) for asked in wanted.requests()]
    from clients.cli.history import forget_typed

    n_typed = forget_typed(wanted.covers)
    if settings.json:
        for told in done:
            print_json({"forgotten": told, "typed": n_typed})
        return
    _report(done, n_typed)


def _wanted(
    sessions: tuple[str, ...],
    day: str | None,
    before: str | None,
    older_than: str | None,
    everything: bool,
    device: str | None,
) -> Wanted:
    from time import time

    from clients.cli.moments import parse_age, parse_day, start_of

    times = [option for option in (day, before, older_than) if option is not None]
    if len(times) > 1:
        raise click.UsageError(_("only one of --day, --before and --older-than can be given"))
    if everything == bool(sessions or times):
        raise click.UsageError(
            _("say what to forget: SESSION, --day, --before or --older-than; or --all alone")
        )
    if day is not None:
        first = parse_day(day)
        if first >= date.max:
            raise click.UsageError(_("{day} is too long ago, or too far ahead").format(day=day))
        return Wanted(sessions, start_of(first), start_of(first + timedelta(days=1)))
    if before is not None:
        return Wanted(sessions, before=start_of(parse_day(before)))
    if older_than is not None:
        return Wanted(sessions, before=max(0.0, time() - parse_age(older_than).total_seconds()))
    return Wanted(sessions)


def _device(client: "Client", text: str) -> str:
    """The id of a device; one that was revoked is only known by its whole id."""
    import re

    from clients.cli.devices import NoSuchDevice, find

    try:
        return find(client, text).id
    except NoSuchDevice:
        if re.fullmatch("[a-z2-7]{8}", text):
            return text
        raise


def _show(preview: "list[ForgottenInfo]", everything: bool) -> None:
    """What will go, on standard error: standard output is for what has gone."""
    going = [each for found in preview for each in found.conversations or ()]
    for each in going[:SHOWN]:
        what = ngettext("{n} message", "{n} messages", each.n_messages).format(n=each.n_messages)
        if not each.whole:
            what = _("{messages}, the rest stays").format(messages=what)
        print(clean(f"  {each.id}  {' '.join(each.title.split())}  ({what})"), file=sys.stderr)
    if len(going) > SHOWN:
        n = len(going) - SHOWN
        more = ngettext("and {n} conversation more", "and {n} conversations more", n)
        print(f"  {more.format(n=n)}", file=sys.stderr)
    if everything:
        for path in preview[0].copies:
            damaged = _("{path}, set aside as damaged").format(path=path)
            print(clean(f"  {damaged}"), file=sys.stderr)


def _confirm(settings: Settings, n_messages: int) -> None:
    if settings.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(_("nothing was forgotten: there is nobody to ask here; add --yes"))
    question = ngettext("Forget {n} message for good?", "Forget {n} messages for good?", n_messages)
    if not click.confirm(question.format(n=n_messages), err=True):
        note(_("nothing was forgotten"))
        raise click.exceptions.Exit(1)


def _report(done: "list[ForgottenInfo]", n_typed: int) -> None:
    n = sum(told.messages for told in done)
    click.echo(ngettext("{n} message was forgotten", "{n} messages were forgotten", n).format(n=n))
    if n_typed:
        typed = ngettext(
            "{n} input in the history of `assistant chat` as well",
            "{n} inputs in the history of `assistant chat` as well",
            n_typed,
        )
        click.echo(typed.format(n=n_typed))
    for path in sorted({path for told in done for path in told.copies}):
        left = _("{path} was set aside as damaged and may hold the same; --all deletes it")
        note(left.format(path=path))
