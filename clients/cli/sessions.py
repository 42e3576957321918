"""`assistant sessions`: the conversations that the daemon keeps."""

from typing import TYPE_CHECKING

import click

from clients.cli.export import export
from clients.cli.output import ago, clean, print_json, table
from clients.cli.settings import HELP, Settings, common, pass_settings
from clients.errors import AssistantError
from clients.i18n import _, marked

if TYPE_CHECKING:
    from assistantd.protocol import SessionInfo
    from clients.client import Client


def last_session(client: "Client") -> str:
    """The id of the conversation that was used last.

    Raises:
        AssistantError: there is none.
    """
    from assistantd.protocol import Sessions
    from clients.cli.connection import CONTROL_TIMEOUT_S

    found = client.request(Sessions(op="list"), timeout=CONTROL_TIMEOUT_S).sessions
    if not found:
        raise AssistantError(
            _(
                "there is no session to go on with; begin one with -s NAME, as in "
                'assistant ask -s trip "Plan a day in Busan"'
            )
        )
    return max(found, key=lambda session: session.updated_at).id


_SPEAKERS = {
    "user": marked("You"),
    "assistant": marked("Assistant"),
    "system": marked("System"),
}
_FINISH_REASONS = {
    "length": marked("length"),
    "cancelled": marked("cancelled"),
    "deadline": marked("deadline"),
}


@click.group(context_settings=HELP)
def sessions() -> None:
    """See and tidy the conversations that were kept.

    \b
    assistant sessions list
    assistant sessions show trip
    assistant sessions export --all -o backup.json
    assistant sessions delete trip           `assistant forget` can do more
    """


@sessions.command("list")
@common
@pass_settings
def list_(settings: Settings) -> None:
    """All conversations, the last one first."""
    from clients.cli.connection import connect

    with connect(settings, start=True) as client:
        found = sorted(client.sessions(), key=lambda session: -session.updated_at)
    if settings.json:
        print_json(found)
    else:
        table(
            (_("session"), _("title"), _("messages"), _("last used")),
            [(s.id, s.title, str(s.n_messages), ago(s.updated_at)) for s in found],
        )


@sessions.command()
@click.argument("session")
@common
@pass_settings
def show(settings: Settings, session: str) -> None:
    """What was said in a conversation, as Markdown."""
    from clients.cli.connection import connect

    with connect(settings, start=True) as client:
        found = client.session(session)
    if settings.json:
        print_json(found)
    else:
        click.echo(clean(transcript(found)), nl=False)


@sessions.command()
@click.argument("session")
@click.argument("title")
@common
@pass_settings
def rename(settings: Settings, session: str, title: str) -> None:
    """Give a conversation a title. Its name, for -s, stays."""
    from clients.cli.connection import connect

    with connect(settings, start=True) as client:
        found = client.rename_session(session, title)
    if settings.json:
        print_json(found)
    else:
        click.echo(clean(_("{id} is now called {title!r}").format(id=found.id, title=found.title)))


@sessions.command()
@click.argument("names", nargs=-1, required=True, metavar="SESSION...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@common
@pass_settings
def delete(settings: Settings, names: tuple[str, ...], yes: bool) -> None:
    """Forget conversations for good."""
    import sys

    from clients.cli.connection import connect

    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        question = _("Forget {names} for good?").format(names=", ".join(names))
        click.confirm(question, abort=True, err=True)
    with connect(settings, start=True, timeout=None) as client:
        for name in names:
            done = client.delete_session(name)
            if settings.json:
                print_json(done)
            else:
                click.echo(_("{name} was deleted").format(name=name))


sessions.add_command(export)


def transcript(session: "SessionInfo") -> str:
    """A conversation as Markdown, for reading and for /save."""
    parts = [f"# {session.title or session.id}\n"]
    for message in session.messages or []:
        who = _(_SPEAKERS[message.role])
        remark = ""
        if message.role == "assistant" and message.finish_reason not in (None, "stop"):
            reason = _FINISH_REASONS.get(message.finish_reason or "")
            remark = f" ({_(reason) if reason else message.finish_reason})"
        elif message.role == "user" and not message.answered:
            remark = f" ({_('not answered')})"
        parts.append(f"\n## {who}{remark}\n\n{message.content.rstrip()}\n")
    return "".join(parts)
