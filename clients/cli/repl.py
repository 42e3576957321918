"""The conversation of `assistant chat`: questions, answers, and the commands that begin with /."""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from assistantd.protocol import Chat, Timings
from clients.cli.answering import answer, describe
from clients.cli.connection import CONTROL_TIMEOUT_S, find
from clients.cli.lines import Input
from clients.cli.output import ago, note, table, write
from clients.cli.sessions import transcript
from clients.cli.settings import Settings
from clients.client import Client
from clients.durable import write_file
from clients.errors import AssistantError
from clients.i18n import _

SETTABLE = (
    "temperature",
    "max_tokens",
    "top_p",
    "top_k",
    "min_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
)


class Quit(Exception):  # noqa: N818  not an error
    """The user wants to leave."""


class CommandError(AssistantError):
    """A slash command that cannot be done."""


def new_session_name() -> str:
    """A name for a conversation that begins now."""
    return f"chat-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid() % 1000:03}"


class Repl:
    """One run of `assistant chat`.

    Args:
        interactive: a person sits there, so hints are welcome and an error ends nothing.

    Attributes:
        failed: something went wrong on the way; the exit code of a script tells.
    """

    def __init__(
        self,
        settings: Settings,
        client: Client,
        source: Input,
        session: str,
        system: str | None,
        *,
        interactive: bool,
        assume_yes: bool,
    ) -> None:
        self._settings, self._client, self._source = settings, client, source
        self._session, self._system = session, system
        self._interactive, self._assume_yes = interactive, assume_yes
        self._sampling: dict[str, Any] = {}
        self._last_question: str | None = None
        self._last_timings: Timings | None = None
        self._show_stats = False
        self.failed = False

    def run(self) -> None:
        """Until the input ends or the user leaves."""
        if self._interactive:
            hello = _("session {name}; /help tells what else there is, Ctrl-D leaves")
            print(hello.format(name=self._session))
        while True:
            try:
                text = self._source.read()
                if text:
                    self._handle(text)
            except EOFError:
                if self._interactive:
                    print()
                return
            except Quit:
                return
            except KeyboardInterrupt:
                if not self._interactive:
                    raise
                note(_("Ctrl-D or /quit leaves"))
            except AssistantError as problem:
                self.failed = True
                note(str(problem))

    def _handle(self, text: str) -> None:
        if not text.startswith("/"):
            self._ask(text)
            return
        name, _space, argument = text[1:].partition(" ")
        command = COMMANDS.get(name.lower())
        if command is None:
            raise CommandError(
                _(
                    "there is no command /{name}; /help lists them. "
                    "To ask something that begins with a slash, put a space in front"
                ).format(name=name)
            )
        command(self, argument.strip())

    def _ask(self, text: str) -> None:
        self._last_question = text
        find(self._settings, start=True)  # it may have gone since the last question
        question = {
            "text": text,
            "session": self._session,
            "system": self._system,
            **self._sampling,
        }
        last_piece = ""

        def show(piece: str) -> None:
            nonlocal last_piece
            last_piece = piece
            write(piece)

        try:
            done = answer(
                self._client,
                question,
                show,
                assume_yes=self._assume_yes,
                ctrl_c_cancels=self._interactive,
            )
        finally:
            if last_piece and not last_piece.endswith("\n"):
                write("\n")
        if not last_piece:
            write("\n")
        self._last_timings = done.timings
        if done.message:  # that it could not be saved
            note(done.message)
        if done.finish_reason == "cancelled":
            note(_("cancelled"))
        elif done.finish_reason == "length" and self._interactive:
            note(_("the answer was cut at its greatest length; /set max_tokens N allows more"))
        if self._show_stats and done.timings is not None:
            note(describe(done.timings))

    # --- slash commands ----------------------------------------------------------------------

    def _help(self, argument: str) -> None:
        """show this"""
        for name, command in COMMANDS.items():
            label = f"/{name} {ARGUMENTS.get(name, '')}"
            print(f"{label:24} {_(command.__doc__ or name)}")
        keys = _(
            "Enter sends. Esc-Enter, or a backslash at the end of a line, begins another line;\n"
            'a text between """ and """ may have many. Ctrl-C cancels an answer, Ctrl-D leaves.'
        )
        print(f"\n{keys}")

    def _new(self, argument: str) -> None:
        """begin another conversation"""
        self._switch(argument or new_session_name())

    def _sessions(self, argument: str) -> None:
        """list the conversations that were kept"""
        self._client.ping(CONTROL_TIMEOUT_S)
        found = sorted(self._client.sessions(), key=lambda session: -session.updated_at)
        rows = [
            ("*" if s.id == self._session else "", s.id, s.title, ago(s.updated_at)) for s in found
        ]
        table(("", _("session"), _("title"), _("last used")), rows)

    def _switch(self, argument: str) -> None:
        """go on with another conversation"""
        if not argument:
            raise CommandError(_("/switch needs the name of a session; /sessions lists them"))
        try:
            msgspec.convert({"type": "chat", "text": "", "session": argument}, Chat)
        except msgspec.ValidationError as problem:
            raise CommandError(
                _(
                    "{name!r} cannot be the name of a session: "
                    "up to 64 letters, digits, dots, underscores and hyphens"
                ).format(name=argument)
            ) from problem
        self._session = argument
        self._last_question = None
        print(_("session {name}").format(name=argument))

    def _set_system(self, argument: str) -> None:
        """set the model's instructions; without TEXT, show them"""
        if argument:
            self._system = argument
        print(_("system: {text}").format(text=self._system or _("(the default)")))

    def _set(self, argument: str) -> None:
        """change how answers are chosen; `default` for VALUE undoes it"""
        name, _space, value = argument.partition(" ")
        value = value.strip()
        if name and name not in SETTABLE:
            raise CommandError(
                _("there is no setting {name!r}; there are {names}").format(
                    name=name, names=", ".join(SETTABLE)
                )
            )
        if name and not value:
            raise CommandError(_("/set {name} needs a value, or `default`").format(name=name))
        if value == "default":
            self._sampling.pop(name, None)
        elif name:
            try:
                checked = msgspec.convert(
                    {"type": "chat", "text": "", name: value}, Chat, strict=False
                )
            except msgspec.ValidationError as problem:
                what = str(problem).partition(" - at `")[0].replace(" | null", "")
                raise CommandError(f"/set {name} {value}: {what}") from problem
            self._sampling[name] = getattr(checked, name)
        for setting in SETTABLE:
            print(f"{setting:18} {self._sampling.get(setting, 'default')}")

    def _stats(self, argument: str) -> None:
        """show what the last answer took, and from now on each; again to stop that"""
        self._show_stats = not self._show_stats
        if self._show_stats and self._last_timings is not None:
            print(describe(self._last_timings))
        print(_("stats are on") if self._show_stats else _("stats are off"))

    def _retry(self, argument: str) -> None:
        """ask the last question again"""
        if self._last_question is None:
            raise CommandError(_("there is no question yet to ask again"))
        self._ask(self._last_question)

    def _save(self, argument: str) -> None:
        """write the conversation to a new file, as Markdown"""
        if not argument:
            raise CommandError(_("/save needs the name of a file"))
        path = Path(argument).expanduser()
        text = transcript(self._client.session(self._session))
        try:
            write_file(path, text)
        except FileExistsError as problem:
            raise CommandError(
                _("{path} exists; choose another name").format(path=path)
            ) from problem
        except OSError as problem:
            raise CommandError(
                _("cannot write {path}: {problem}").format(path=path, problem=problem.strerror)
            ) from problem
        print(_("saved as {path}").format(path=path))

    def _quit(self, argument: str) -> None:
        """leave (the conversation is kept)"""
        raise Quit


COMMANDS: dict[str, Callable[[Repl, str], None]] = {
    "help": Repl._help,
    "new": Repl._new,
    "sessions": Repl._sessions,
    "switch": Repl._switch,
    "system": Repl._set_system,
    "set": Repl._set,
    "stats": Repl._stats,
    "retry": Repl._retry,
    "save": Repl._save,
    "quit": Repl._quit,
}
ARGUMENTS = {
    "new": "[SESSION]",
    "switch": "SESSION",
    "system": "[TEXT]",
    "set": "[NAME VALUE]",
    "save": "FILE",
}
