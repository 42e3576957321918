"""The command tree, the default command, and the one place where errors become words and codes.

Exit codes: 0 done, 1 the daemon answered with an error, 2 wrong usage, 3 no daemon answers,
130 interrupted by Ctrl-C, 141 whoever read the output went away.
"""

import importlib
import os
import sys
from collections.abc import Sequence

import click

from assistantd.localisation.click_help import localise
from assistantd.protocol import to_json
from clients.cli.settings import HELP, Settings, endpoint_option
from clients.errors import (
    AssistantError,
    BadEndpoint,
    ConnectionLost,
    NoAnswer,
    NotPaired,
    RequestError,
)
from clients.i18n import CATALOGUE, _

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

COMMANDS = {
    "ask": "clients.cli.ask",
    "chat": "clients.cli.chat",
    "status": "clients.cli.daemon",
    "top": "clients.cli.top",
    "budget": "clients.cli.budget",
    "reload": "clients.cli.reload",
    "start": "clients.cli.daemon",
    "stop": "clients.cli.daemon",
    "ping": "clients.cli.daemon",
    "sessions": "clients.cli.sessions",
    "forget": "clients.cli.forget",
    "models": "clients.cli.models",
    "network": "clients.cli.network",
    "devices": "clients.cli.devices",
    "bench": "clients.cli.bench",
    "doctor": "clients.cli.doctor",
    "voice": "clients.cli.voice",
    "gateway": "clients.cli.gateway",
    "pair": "clients.cli.pair",
    "connect": "clients.cli.connect",
    "service": "clients.cli.service",
}
"""Command → the module that has a click command of that name."""
EXTRAS = {
    **dict.fromkeys(
        [
            "sounddevice",
            "vosk",
            "soxr",
            "pymicro_vad",
            "pyaec",
            "markdown_it",
            "unicode_rbnf",
            "wyoming",
            "numpy",
        ],
        "voice",
    ),
    **dict.fromkeys(("spake2", "mnemonic", "zeroconf", "segno", "cryptography"), "network"),
    **dict.fromkeys(("starlette", "uvicorn", "websockets", "ifaddr"), "web"),
}
"""Package → the extra that brings it, where a command finds out that it is missing."""


_VERBS = frozenset(
    [
        "list",
        "show",
        "revoke",
        "rename",
        "limit",
        "add-key",
        "delete",
        "export",
        "pull",
        "remove",
        "load",
        "unload",
        "on",
        "off",
        "status",
        "devices",
        "models",
        "voices",
        "trigger",
        "install",
        "uninstall",
        "logs",
        "--help",
    ]
)
"""Second words of commands: what follows a mistyped first one, and begins no question."""


class Root(click.Group):
    """The top command: finds the others by name, and takes anything else as a question."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)
        localise(command, CATALOGUE)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # that is: not for shell completion
            args = with_default_command(args, stdin_is_terminal=_stdin_is_terminal())
        return super().parse_args(ctx, args)


def with_default_command(args: Sequence[str], *, stdin_is_terminal: bool) -> list[str]:
    """Put `ask` in front of what is no command: `assistant "question"` is a question.

    Raises:
        click.UsageError: it looks like a mistyped command.
    """
    start = 0
    while start < len(args) and args[start].startswith("--endpoint"):
        start += 1 if "=" in args[start] else 2
    before, rest = list(args[:start]), list(args[start:])
    if not rest:
        return before if stdin_is_terminal else [*before, "ask"]
    if rest[0] in COMMANDS or rest[0] in ("-h", "--help", "--version"):
        return [*before, *rest]
    if rest[0] == "--json" and len(rest) > 1 and rest[1] in COMMANDS:
        told = _("options come after the command: assistant {command} … --json")
        raise click.UsageError(told.format(command=rest[1]))
    if rest[0].isalpha() and len(rest) <= 3:
        import difflib

        near = difflib.get_close_matches(rest[0], COMMANDS, 1, cutoff=0.75)
        if near and (len(rest) == 1 or rest[1] in _VERBS):
            raise click.UsageError(
                _(
                    "there is no command {word!r}; did you mean `assistant {command}`? "
                    "To ask it as a question: assistant ask {word}"
                ).format(word=rest[0], command=near[0])
            )
    return [*before, "ask", *rest]


def _stdin_is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"assistant {version('assistantd')}")
        ctx.exit()


@click.command(cls=Root, invoke_without_command=True, context_settings=HELP)
@endpoint_option
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and stop.",
)
@click.pass_context
def root(ctx: click.Context) -> None:
    """Ask the assistant that lives on this machine. Nothing you type leaves it.

    \b
    assistant "What is the capital of France?"
    git diff | assistant ask "explain this change"
    assistant -c "and in one sentence?"      go on with the last session
    assistant chat                           talk
    assistant forget --day yesterday         what was said then, for good
    assistant models list                    what it can run
    assistant budget 400M                    how much memory it may use
    assistant top                            look on while it works
    assistant network on                     let paired devices reach it
    assistant service install                have the system start and watch it
    assistant COMMAND --help                 more about each command

    \b
    A daemon, assistantd, does the thinking; it is started when it is needed.
    ASSISTANTD_ENDPOINT   where it listens, if not at its usual place
    ASSISTANTD_AUTOSTART  0: never start it, 1: start it even at such an endpoint

    \b
    Exit codes: 0 done, 1 the daemon answered with an error, 2 wrong usage,
    3 no daemon answers, 130 interrupted, 141 the reader of the output left.
    Tab completion: eval "$(_ASSISTANT_COMPLETE=bash_source assistant)"
    (or zsh_source, fish_source).
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


# since click 8.2 a group without a command raises its help; before, it printed it
_NoCommand = getattr(click.exceptions, "NoArgsIsHelpError", ())


def run(args: list[str]) -> int:
    """Run one command line; returns the exit code. Prints every error, never a traceback."""
    settings = Settings()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that is not UTF-8 shows "?" for the rest
            stream.reconfigure(errors="replace")
    try:
        code = _invoke(args, settings)
        sys.stdout.flush()
    except click.ClickException as problem:
        if isinstance(problem, _NoCommand):
            click.echo(problem.format_message(), err=True)
            return EXIT_USAGE
        if isinstance(problem, click.UsageError) and problem.ctx is not None:
            hint = _("; see `{command} --help`").format(command=problem.ctx.command_path)
        else:
            hint = ""
        return _failed(settings, "usage", problem.format_message().rstrip(".") + hint, EXIT_USAGE)
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # or Python complains when it flushes what nobody reads
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except RequestError as problem:
        return _failed(settings, problem.code, str(problem), EXIT_ERROR)
    except BadEndpoint as problem:
        kind = "not_paired" if isinstance(problem, NotPaired) else "bad_endpoint"
        return _failed(settings, kind, str(problem), EXIT_USAGE)
    except (ConnectionLost, NoAnswer) as problem:
        kind = "no_answer" if isinstance(problem, NoAnswer) else "connection_lost"
        return _failed(settings, kind, str(problem), EXIT_UNREACHABLE)
    except AssistantError as problem:
        return _failed(settings, "error", str(problem), EXIT_ERROR)
    except ModuleNotFoundError as missing:
        extra = EXTRAS.get((missing.name or "").partition(".")[0])
        if extra is None:
            raise
        what = _("the Python package {name} is not installed; pip install 'assistantd[{extra}]'")
        told = what.format(name=missing.name, extra=extra)
        return _failed(settings, "missing_package", told, EXIT_ERROR)
    except OSError as problem:
        place = f" ({problem.filename})" if problem.filename else ""
        return _failed(settings, "os", f"{problem.strerror or problem}{place}", EXIT_ERROR)
    return code if isinstance(code, int) else 0


def _invoke(args: list[str], settings: Settings) -> object:
    """Run the command tree, all exceptions coming out as they are."""
    localise(root, CATALOGUE)
    if "_ASSISTANT_COMPLETE" in os.environ:
        return root.main(args, prog_name="assistant", obj=settings)
    # click's own main would turn an interrupt or a broken pipe into exit code 1
    try:
        with root.make_context("assistant", args, obj=settings) as context:
            return root.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code


def _failed(settings: Settings, code: str, message: str, status: int) -> int:
    """Say what went wrong, to people on stderr and with --json to programs on stdout."""
    from clients.cli.output import clean

    print(f"assistant: {clean(message)}", file=sys.stderr)
    if settings.json:
        print(to_json({"error": {"code": code, "message": message}}).decode(), flush=True)
    return status
