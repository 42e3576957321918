"""`assistant chat`: sets the conversation of repl.py up."""

import sys

import click

from clients.cli.settings import HELP, Settings, endpoint_option, pass_settings
from clients.i18n import _


@click.command(context_settings=HELP)
@click.option("-s", "--session", metavar="NAME", help="Go on with, or begin, this conversation.")
@click.option("-c", "--continue", "continue_", is_flag=True, help="Go on with the last session.")
@click.option("--system", metavar="TEXT", help="Instructions for the model.")
@click.option("-y", "--yes", is_flag=True, help="Download the default model if there is none.")
@endpoint_option
@pass_settings
def chat(
    settings: Settings, session: str | None, continue_: bool, system: str | None, yes: bool
) -> int:
    """Talk with the assistant; the conversation is kept as a session.

    \b
    assistant chat                begin a conversation
    assistant chat -s trip        begin or go on with the one called trip
    assistant chat -c             go on with the last one

    /help in the chat tells what else there is. Ctrl-C cancels an answer, Ctrl-D leaves. What
    comes through a pipe is read line by line, each line a question or a command; the exit code
    is 1 if one of them failed.
    """
    if session is not None and continue_:
        raise click.UsageError(_("-s names a session and -c takes the last one; give one of them"))
    from clients.cli.connection import connect
    from clients.cli.lines import for_stdin
    from clients.cli.repl import COMMANDS, Repl, new_session_name
    from clients.cli.sessions import last_session

    with connect(settings, start=True, timeout=None) as client:
        if continue_:
            session = last_session(client)
        source = for_stdin(lambda: [f"/{name}" for name in COMMANDS])
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        repl = Repl(
            settings,
            client,
            source,
            session or new_session_name(),
            system,
            interactive=interactive,
            assume_yes=yes,
        )
        repl.run()
    return 1 if repl.failed and not interactive else 0
