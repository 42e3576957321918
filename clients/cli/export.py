"""`assistant sessions export`: conversations as files, for other programs or for reading.

JSON has all that the daemon keeps (docs/privacy.md describes it). Markdown is for people: what was
said stands in block quotes, out of which nothing can break, whatever a model or a page wrote.
"""

import re
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clients.cli.output import clean, note, print_json
from clients.cli.settings import HELP, Settings, common, pass_settings
from clients.errors import AssistantError, NotFound
from clients.i18n import _, marked

if TYPE_CHECKING:
    from assistantd.protocol import SessionInfo, StoredMessage
    from clients.client import Client

FORMAT = "assistantd sessions"
VERSION = 1
EXTENSIONS = {"json": ".json", "markdown": ".md"}
_SPEAKERS = {
    "user": marked("You"),
    "assistant": marked("Assistant"),
    "system": marked("System"),
}
# would reorder what is shown, or steer a terminal that shows it
_UNSEEN = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_FENCE = re.compile(r"(`{3,})[^`]*$|(~{3,})")
_PERHAPS_A_FENCE = re.compile(r"[\s>*+\-0-9.)]*(```|~~~)")


class ExportError(AssistantError):
    """A file that cannot be written; the message says why, and what to do."""


@click.command(context_settings=HELP)
@click.argument("names", nargs=-1, metavar="[SESSION]...")
@click.option("--all", "everything", is_flag=True, help="Every conversation.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "markdown"]),
    help="For programs, or for reading; by the name of the file, else json.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE|FOLDER",
    help="Where to; in a folder (FOLDER/ makes one) each gets a file. Else standard output.",
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
@common
@pass_settings
def export(
    settings: Settings,
    names: tuple[str, ...],
    everything: bool,
    form: str | None,
    output: str | None,
    force: bool,
) -> None:
    """Write conversations into files, which only you can read.

    \b
    assistant sessions export trip > trip.json
    assistant sessions export --all -o backup.json
    assistant sessions export --all --format markdown -o notes/
    """
    from clients.cli.connection import connect

    if everything == bool(names):
        raise click.UsageError(_("name the conversations, or say --all"))
    if form is None:
        form = "markdown" if (output or "").endswith((".md", ".markdown")) else "json"
    with connect(settings, start=True) as client:
        found = _fetch(client, names, everything)
    if output is None:
        sys.stdout.write(_written(found, form))
        return
    written = _save(found, form, output, force)
    if settings.json:
        print_json([str(path) for path in written])
        return
    for path in written:
        click.echo(clean(_("saved as {path}").format(path=path)))
    if not written:
        note(_("there is no conversation to export"))


def _fetch(client: "Client", names: tuple[str, ...], everything: bool) -> "list[SessionInfo]":
    if not everything:
        return [client.session(name) for name in dict.fromkeys(names)]
    found = []
    for listed in sorted(client.sessions(), key=lambda session: session.created_at):
        try:
            found.append(client.session(listed.id))
        except NotFound:
            continue  # it was forgotten in this moment
    return found


def _save(found: "list[SessionInfo]", form: str, output: str, force: bool) -> list[Path]:
    from clients.durable import write_file

    path = Path(output).expanduser()
    files = {path: found}
    try:
        if output.endswith("/") or path.is_dir():
            path.mkdir(0o700, exist_ok=True)
            taken: set[str] = set()
            files = {
                path / (file_name(session.id, taken) + EXTENSIONS[form]): [session]
                for session in found
            }
        for path, sessions in files.items():
            write_file(path, _written(sessions, form), replace=force)
    except FileExistsError as problem:
        told = _("{path} exists; choose another name, or say --force").format(path=path)
        raise ExportError(told) from problem
    except OSError as problem:
        told = _("cannot write {path}: {problem}").format(path=path, problem=problem.strerror)
        raise ExportError(told) from problem
    return list(files)


def file_name(session: str, taken: set[str]) -> str:
    """A name for a session's file, without its ending: its id, which no title can steer.

    Args:
        taken: names that are in use, in small letters, as some disks see no others; it is added.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", session)[:64] or "_"
    if name[0] in ".-":  # hidden, or an option to whoever names it to a program
        name = f"_{name}"
    unique, n = name, 1
    while unique.lower() in taken:
        n += 1
        unique = f"{name}-{n}"
    taken.add(unique.lower())
    return unique


def _written(found: "list[SessionInfo]", form: str) -> str:
    return as_json(found) if form == "json" else "\n".join(map(as_markdown, found))


# --- JSON ------------------------------------------------------------------------------------


def as_json(found: "list[SessionInfo]") -> str:
    """Everything, as one object; what could steer a terminal is written as \\u escapes."""
    from msgspec.json import format as indented

    from assistantd.protocol import to_json

    whole = {
        "format": FORMAT,
        "version": VERSION,
        "exported_at": datetime.now().astimezone().isoformat(timespec="seconds"),
        "sessions": found,
    }
    text = indented(to_json(whole), indent=1).decode()
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


# --- Markdown --------------------------------------------------------------------------------


def as_markdown(session: "SessionInfo") -> str:
    """A conversation to be read."""
    lines = [f"# {_in_a_line(session.title or session.id)}", ""]
    lines += [
        _("Conversation `{id}`, begun {time}").format(
            id=re.sub(r"[^A-Za-z0-9._-]", "_", session.id), time=_time(session.created_at)
        )
    ]
    if session.system:
        lines += ["", f"## {_('System')}", "", *_quoted(session.system)]
    for message in session.messages or []:
        lines += ["", f"## {_heading(message)}", "", *_quoted(message.content)]
    return "\n".join(lines) + "\n"


def _heading(message: "StoredMessage") -> str:
    remarks = [_time(message.created_at)]
    if message.model:
        remarks.append(_in_a_line(message.model))
    if message.finish_reason not in (None, "stop"):
        remarks.append(_in_a_line(message.finish_reason or ""))
    if message.role == "user" and not message.answered:
        remarks.append(_("not answered"))
    return f"{_(_SPEAKERS[message.role])} ({', '.join(remarks)})"


def _time(moment: float) -> str:
    try:
        return datetime.fromtimestamp(moment).astimezone().isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        return f"{moment:.0f}"


def _plain(text: str) -> str:
    return _UNSEEN.sub("", clean(text.replace("\r\n", "\n").replace("\r", "\n")))


def _in_a_line(text: str) -> str:
    """Words of a heading, every mark of Markdown taken as it stands."""
    return re.sub(r"([\\`*_{}\[\]<>()#+\-.!|~&])", r"\\\1", " ".join(_plain(text).split()))


def _quoted(text: str) -> list[str]:
    """A block quote: every line begins with its mark, so that none can end it.

    Out of fenced code there is no HTML and no picture: who opens the file would fetch them.
    """
    lines: list[str] = []
    fence, unsure = "", False
    for line in _plain(text).rstrip("\n").split("\n"):
        bare = line.lstrip(" \t")
        line = line[: -len(bare) or None].replace("\t", "    ") + bare if bare else ""
        if fence:
            closing = rf" {{0,3}}{fence[0]}{{{len(fence)},}}[ \t]*"
            if re.fullmatch(closing, line):
                fence = ""
        elif not unsure and (match := _FENCE.match(line)):
            fence = match[1] or match[2]
        else:
            # within a list, say, where a fence ends with the list: from here on all is escaped
            unsure = unsure or _PERHAPS_A_FENCE.match(line) is not None
            line = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line).replace("![", "!\\[")
        lines.append(f"> {line}".rstrip())
    return lines
