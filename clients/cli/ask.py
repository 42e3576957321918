"""`assistant ask`: one question, from the command line and from a pipe."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from clients.cli.output import note, print_json, write
from clients.cli.settings import HELP, Settings, common, pass_settings
from clients.i18n import _


@click.command(context_settings=HELP)
@click.argument("words", nargs=-1, metavar="[QUESTION]...")
@click.option("-s", "--session", metavar="NAME", help="Go on with, or begin, this conversation.")
@click.option("-c", "--continue", "continue_", is_flag=True, help="Go on with the last session.")
@click.option("--system", metavar="TEXT", help="Instructions for the model.")
@click.option("--temperature", type=click.FloatRange(0, 10), help="0 is the same each time.")
@click.option("--max-tokens", type=click.IntRange(1), help="Length of the answer at most.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True))
@click.option("--top-k", type=click.IntRange(0), help="0 for all.")
@click.option("--min-p", type=click.FloatRange(0, 1))
@click.option("--seed", type=click.IntRange(0), help="Same seed, same answer.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before it; may be repeated.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), help="Answer in JSON.")
@click.option(
    "--schema",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Answer in JSON that follows this JSON schema.",
)
@click.option("--deadline", type=click.FloatRange(0, 86_400, min_open=True), metavar="SECONDS")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is complete.")
@click.option("--stats", is_flag=True, help="Say on stderr what the answer took.")
@click.option("-y", "--yes", is_flag=True, help="Download the default model if there is none.")
@common
@pass_settings
def ask(
    settings: Settings,
    words: tuple[str, ...],
    session: str | None,
    continue_: bool,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    top_p: float | None,
    top_k: int | None,
    min_p: float | None,
    seed: int | None,
    stop: tuple[str, ...],
    format_: str | None,
    schema: Path | None,
    deadline: float | None,
    no_stream: bool,
    stats: bool,
    yes: bool,
) -> None:
    """Ask one question. `assistant "question"` is short for it.

    \b
    assistant ask "Why is the sky blue?"
    git diff | assistant ask "explain this change"
    assistant ask < question.txt
    assistant ask -s trip "Plan a day in Busan";  assistant ask -c "and if it rains?"
    assistant ask --schema person.json --json "Ada Lovelace, born 1815"

    What comes through a pipe is put below the question. Without -s or -c nothing is kept. With
    --json the last message of the protocol is printed as one line: text, finish_reason, timings.
    """
    if session is not None and continue_:
        raise click.UsageError(_("-s names a session and -c takes the last one; give one of them"))
    if schema is not None and format_ == "text":
        raise click.UsageError(_("--schema asks for JSON and --format text for none"))
    text = _question(words)
    format_or_schema = _read_schema(schema) if schema is not None else format_
    sampling = {
        "temperature": temperature,
        "max_tokens": max_tokens,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "seed": seed,
        "stop": list(stop) or None,
        "format": format_or_schema,
        "deadline_ms": max(1, round(deadline * 1000)) if deadline is not None else None,
        "stream": False if no_stream or settings.json else None,
    }
    question: dict[str, Any] = {
        name: value for name, value in sampling.items() if value is not None
    }

    # imported after the usage is known to be right: ZeroMQ is the costliest part of the start
    from clients.cli.answering import answer, describe
    from clients.cli.connection import connect
    from clients.cli.sessions import last_session

    with connect(settings, start=True, timeout=None) as client:
        if continue_:
            session = last_session(client)
        last_piece = ""

        def show(piece: str) -> None:
            nonlocal last_piece
            last_piece = piece
            if not settings.json:
                write(piece)

        try:
            done = answer(
                client,
                {"text": text, "session": session, "system": system, **question},
                show,
                assume_yes=yes,
            )
        except KeyboardInterrupt:
            if last_piece and sys.stderr.isatty():
                click.echo(err=True)
            raise
    if settings.json:
        print_json(done)
    elif not last_piece.endswith("\n"):
        write("\n")
    if done.message:  # that it could not be saved
        note(done.message)
    if done.finish_reason == "deadline":
        note(_("the deadline passed before the answer was complete"))
    elif done.finish_reason == "length" and sys.stderr.isatty():
        note(_("the answer was cut at its greatest length; --max-tokens allows more"))
    if stats and done.timings is not None:
        note(describe(done.timings))


def _question(words: tuple[str, ...]) -> str:
    """The question of the command line, of the pipe, or of both."""
    asked = " ".join(words).strip()
    piped = ""
    if sys.stdin is not None and not sys.stdin.isatty():
        piped = sys.stdin.buffer.read().decode("utf-8", "replace")
    if asked and piped.strip():
        fence = "```"
        while fence in piped:
            fence += "`"
        return f"{asked}\n\n{fence}\n{piped.rstrip()}\n{fence}"
    text = asked or piped.strip()
    if not text:
        raise click.UsageError(_('there is no question; write one, as in: assistant ask "Why?"'))
    return text


def _read_schema(path: Path) -> dict[str, Any]:
    try:
        schema = json.loads(path.read_bytes())
    except ValueError as problem:  # also what is not UTF-8
        raise click.UsageError(
            _("--schema {path} is not valid JSON: {problem}").format(path=path, problem=problem)
        ) from problem
    if not isinstance(schema, dict):
        raise click.UsageError(
            _("--schema {path} is not a JSON schema: it must be an object").format(path=path)
        )
    return schema
