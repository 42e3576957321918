"""`assistant voice`: talk with the assistant; and what a newcomer needs to set it up."""

import asyncio
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from clients.cli.output import human_bytes, note, print_json, table
from clients.cli.settings import HELP, Settings, common, pass_settings
from clients.i18n import _, marked

if TYPE_CHECKING:
    from assistantd.log_crashes import Crashes
    from clients.voice.loop import Turn

REPORTS_KEPT = 10
"""Of crashes."""


@click.group(invoke_without_command=True, context_settings=HELP)
@click.option("--language", metavar="XX", help="Two letters: en, ko, ... By default the model's.")
@click.option("--answer-language", metavar="XX", help="By default the same, or the voice's.")
@click.option("--recogniser", metavar="NAME", help="A Vosk model, or its folder.")
@click.option("--voice", metavar="NAME", help="A voice; `assistant voice voices` shows them.")
@click.option("--wake-word", "wake_words", multiple=True, metavar="WORD", help="May be repeated.")
@click.option(
    "--sensitivity", type=click.FloatRange(0, 1), help="Of the wake word; 0.5 if not given."
)
@click.option(
    "--microphone", metavar="NAME", help="Part of a name that `devices` shows, or a number."
)
@click.option("--speaker", metavar="NAME", help="The same for the loudspeaker.")
@click.option("--session", metavar="NAME", help="The conversation that this room goes on with.")
@click.option("--max-tokens", type=click.IntRange(8), help="Length of an answer at most.")
@click.option("--no-gate", is_flag=True, help="Let the recogniser hear silence as well.")
@click.option(
    "--interrupt",
    type=click.Choice(["speech", "wake word", "off"]),
    help="What stops an answer; the button always does.",
)
@click.option(
    "--wav",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Hear this file instead of a microphone.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --wav: write what is said to this file.",
)
@click.option("--meter", is_flag=True, help="Show how loud the microphone is, and nothing else.")
@click.option("--test", is_flag=True, help="Try microphone, speaker and wake word, step by step.")
@common
@click.pass_context
def voice(
    ctx: click.Context,
    /,
    wav: Path | None,
    out: Path | None,
    meter: bool,
    test: bool,
    no_gate: bool,
    **flags: Any,
) -> None:
    """Talk with the assistant: say its name, and ask.

    \b
    assistant voice                          wait for "Jarvis, ..." and answer
    assistant voice --test                   try microphone, speaker and wake word
    assistant voice --wav in.wav --out out.wav
    assistant voice trigger                  what a button does: start to listen
    assistant voice models                   recognisers: what there is, and how to get one

    Nothing that is heard leaves this machine, and nothing is kept but the conversation. Settings
    are in voice.toml beside the daemon's config.toml, and in ASSISTANT_VOICE_ variables.
    """
    from clients.voice import settings as voice_settings

    given = dict(flags)  # None where it was not given; 0 and "" are values
    given["wake_words"] = list(flags["wake_words"]) or None
    given["gate"] = False if no_gate else None
    loaded = voice_settings.load(given)
    ctx.meta["voice"] = loaded
    if ctx.invoked_subcommand is not None:
        return
    if out is not None and wav is None:
        raise click.UsageError(_("--out is for what is said to --wav; give both"))
    if sum((meter, test, wav is not None)) > 1:
        raise click.UsageError(_("--meter, --test and --wav are three things; give one of them"))
    if meter:
        from clients.cli.voice_check import show_meter

        asyncio.run(show_meter(loaded, json=ctx.obj.json))
        return
    if test:
        from clients.cli.voice_check import walk_through

        asyncio.run(walk_through(loaded, ctx.obj.endpoint))
        return
    _talk(ctx.obj, loaded, wav, out)


def _talk(settings: Settings, loaded: Any, wav: Path | None, out: Path | None) -> None:
    from clients.cli.connection import find
    from clients.errors import NoAnswer
    from clients.voice import app

    endpoint = settings.endpoint
    try:
        endpoint = find(settings, start=True)
    except NoAnswer as absent:
        if wav is not None:
            raise
        # it may come later, and says so until then
        note(_("{problem}; listening nevertheless").format(problem=absent))
    if sys.stderr.isatty():
        note(_("loading the recogniser's model"))
    parts = app.prepare(loaded, echo=wav is None)
    show = _Show(json=settings.json)
    if wav is not None:
        asyncio.run(app.run_files(parts, endpoint, wav, out, show))
        return
    words = " / ".join(f'"{word}"' for word in parts.wake_words)
    ready = _("say {words}, and ask; Ctrl-C ends it").format(words=words)
    with _watched():
        asyncio.run(app.run(parts, endpoint, show, lambda assistant: note(ready)))


def _watched() -> "Crashes":
    """The log of a service, and reports of crashes, while the block runs."""
    import logging

    from assistantd.log import set_up
    from assistantd.log_crashes import Crashes, default_folder
    from assistantd.log_journal import is_journal
    from clients.errors import AssistantError

    if is_journal():
        set_up("info", "text", program="assistant-voice")
    else:  # warnings as they are, as without any of this; the reports see what is milder, too
        handler = logging.StreamHandler()
        handler.setLevel(logging.WARNING)
        logging.basicConfig(level=logging.INFO, handlers=[handler], format="%(message)s")
    expected = (AssistantError, click.ClickException, OSError)
    return Crashes(default_folder(), "assistant-voice", REPORTS_KEPT, expected=expected)


_REASONS = {
    "nothing was said": marked("nothing was said"),
    "nothing was understood": marked("nothing was understood"),
}
"""Of the event `nothing`, which is the same in every language."""


class _Show:
    """Prints what happens: lines for people, partial results in place on a terminal; or JSON."""

    def __init__(self, *, json: bool) -> None:
        from assistantd.log_journal import is_journal

        self._json = json
        # what a service prints goes into the journal, where no words of users belong
        self._words = not is_journal(1)
        self._live = sys.stdout.isatty() and not json
        self._partial = False
        self._lost = ""

    def __call__(self, what: str, text: str, turn: "Turn | None") -> None:
        if not self._words and what in ("partly", "said", "sentence"):
            return
        if self._json:
            line: dict[str, Any] = {"event": what, "text": text, "at": round(monotonic(), 3)}
            if turn is not None:
                line["stages"] = {name: round(s, 4) for name, s in turn.stages().items()}
                line["interrupted"] = turn.interrupted
                if self._words:
                    line["heard"], line["question"] = turn.heard, turn.question
            print_json(line)
            sys.stdout.flush()
            return
        if what == "partly":
            if self._live:
                self._erase()
                print(_("you: {text} …").format(text=_shown(text)), end="", flush=True)
                self._partial = True
            return
        self._erase()
        match what:
            case "said":
                print(_("you: {text}").format(text=_shown(text)))
            case "sentence":
                print(_("assistant: {text}").format(text=_shown(text)))
            case "woke":
                print(f"({_shown(text)})")
            case "interrupted":
                print(_("(interrupted)"))
            case "nothing":
                print(f"({_(_REASONS.get(text, text))})")
            case "lost":
                self._lost = text
                note(text)
            case "error" if text == self._lost:
                self._lost = ""  # what was being said then failed by it, too
            case "error":
                note(text)
            case "back":
                note(_("the {device} is back").format(device=_(text)))
        sys.stdout.flush()

    def _erase(self) -> None:
        if self._partial:
            print("\r\x1b[K", end="")
            self._partial = False


def _shown(text: str) -> str:
    from clients.cli.output import clean

    return clean(text)


@voice.command(context_settings=HELP)
@common
def trigger() -> None:
    """Press the button: the voice client that runs stops talking and listens."""
    from clients.voice import trigger as button

    button.press(button.endpoint())


@voice.command(context_settings=HELP)
@common
@pass_settings
def devices(settings: Settings) -> None:
    """Microphones and loudspeakers, as --microphone and --speaker take them."""
    from clients.voice.devices import devices as found

    rows = found()
    if settings.json:
        print_json(rows)
        return
    table(
        ["#", _("NAME"), _("IN"), _("OUT"), _("RATE"), _("DEFAULT FOR"), _("SYSTEM")],
        [
            [
                str(one.number),
                one.name,
                str(one.inputs or ""),
                str(one.outputs or ""),
                f"{one.rate_hz} Hz",
                " ".join(
                    word
                    for word, is_it in (
                        (_("microphone"), one.default_input),
                        (_("speaker"), one.default_output),
                    )
                    if is_it
                ),
                one.host,
            ]
            for one in rows
        ],
    )


@voice.command(context_settings=HELP)
@common
@pass_settings
def voices(settings: Settings) -> None:
    """Voices that are installed, the best of each language first."""
    from clients.voice.voices import find_voices

    rows = find_voices()
    if settings.json:
        print_json([{"name": one.name, "language": one.language, "kind": one.kind} for one in rows])
        return
    table([_("NAME"), _("LANGUAGE"), _("BY")], [[one.name, one.language, one.kind] for one in rows])


@voice.command(context_settings=HELP)
@click.option(
    "--uri",
    default="tcp://127.0.0.1:10300",
    show_default=True,
    help="tcp://HOST:PORT or unix:///PATH. Whoever reaches a port may use it: there are no keys.",
)
@common
@click.pass_context
def wyoming(ctx: click.Context, uri: str) -> None:
    """Serve ears, voice and answers to Home Assistant, by the Wyoming protocol.

    \b
    assistant voice wyoming --uri tcp://0.0.0.0:10300
    assistant voice --recogniser vosk-model-small-en-us-0.15 wyoming

    In Home Assistant add the integration "Wyoming Protocol" with this host and port; speech
    recognition, a voice and a conversation agent appear. Nothing listens on the network unless
    the address says so.
    """
    from clients import AsyncClient
    from clients.voice import app
    from clients.voice.wyoming_server import serve

    assert ctx.parent is not None
    loaded = ctx.parent.meta["voice"]
    parts = app.prepare(loaded, echo=False)
    endpoint = ctx.obj.endpoint
    server = serve(
        uri,
        recogniser=parts.recogniser,
        voice=parts.voice,
        make_client=lambda: AsyncClient(endpoint),
        languages=sorted({parts.language, parts.answer_language}),
        system=app.system_prompt(loaded, parts.answer_language),
        max_tokens=loaded.max_tokens,
        on_ready=lambda: note(_("serving at {address}; Ctrl-C ends it").format(address=uri)),
    )
    asyncio.run(app.until_signal(server))


@voice.group(context_settings=HELP, invoke_without_command=True)
@common
@pass_settings
@click.pass_context
def models(ctx: click.Context, /, settings: Settings) -> None:
    """Recognisers' models: what is installed.

    \b
    assistant voice models                   what is installed
    assistant voice models available         what can be downloaded
    assistant voice models pull vosk-model-small-en-us-0.15
    """
    if ctx.invoked_subcommand is not None:
        return
    from clients.voice import models as store

    installed = store.installed()
    if settings.json:
        rows = [
            {
                "name": one.name,
                "language": one.language,
                "bytes": one.n_bytes,
                "folder": str(one.folder),
                "takes_grammar": one.takes_grammar,
            }
            for one in installed
        ]
        print_json(rows)
    elif installed:
        table(
            [_("NAME"), _("LANGUAGE"), _("SIZE"), _("WAKE WORD")],
            [
                [
                    one.name,
                    one.language,
                    human_bytes(one.n_bytes),
                    _("yes") if one.takes_grammar else _("no"),
                ]
                for one in installed
            ],
        )
    else:
        note(
            _(
                "no recogniser's model is installed; see `assistant voice models available` and "
                "`assistant voice models pull NAME`, for instance vosk-model-small-en-us-0.15"
            )
        )


@models.command(context_settings=HELP)
@click.argument("language", required=False)
@common
@pass_settings
def available(settings: Settings, language: str | None) -> None:
    """Models that can be downloaded, of all languages or of one (two letters)."""
    from clients.voice import models as store

    found = [one for one in store.available() if language in (None, one.language)]
    if settings.json:
        print_json(
            [{"name": one.name, "language": one.language, "bytes": one.n_bytes} for one in found]
        )
        return
    table(
        [_("NAME"), _("LANGUAGE"), "", _("SIZE")],
        [[one.name, one.language, one.language_name, human_bytes(one.n_bytes)] for one in found],
    )


@models.command(context_settings=HELP)
@click.argument("name")
@common
@pass_settings
def pull(settings: Settings, name: str) -> None:
    """Download a recogniser's model by its name."""
    from clients.cli.voice_check import pull_with_progress

    folder = pull_with_progress(name)
    if settings.json:
        print_json({"name": name, "folder": str(folder)})
    else:
        print(folder)
