"""One question and its answer, for `ask` and `chat`; fetches the default model if there is none."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from assistantd.protocol import Done, ModelInfo, Models, Timings
from clients.cli.connection import CONTROL_TIMEOUT_S
from clients.cli.output import note
from clients.cli.progress import Reporter
from clients.client import Answer, Client
from clients.errors import AssistantError, ConnectionLost, NotFound
from clients.i18n import _

DEFAULT_MODEL = "smollm2"
DEFAULT_MODEL_TITLE = "SmolLM2 (98 MB)"


class ModelMissing(AssistantError):  # noqa: N818  as its base
    """There is no model, and the user was not there to be asked or said no."""


def answer(
    client: Client,
    question: dict[str, Any],
    show: Callable[[str], None],
    *,
    assume_yes: bool,
    ctrl_c_cancels: bool = False,
) -> Done:
    """Ask, and show the pieces as they come.

    Args:
        question: arguments of Client.ask.
        show: prints a piece of text.
        assume_yes: download the default model without asking.
        ctrl_c_cancels: Ctrl-C ends the answer, with finish_reason "cancelled", instead of
            raising KeyboardInterrupt; a second one raises.

    Raises:
        AssistantError: it failed; what was shown before stays.
    """
    try:
        return _answer(client, question, show, ctrl_c_cancels)
    except NotFound as problem:
        offer_default_model(client, problem, assume_yes)
    try:
        return _answer(client, question, show, ctrl_c_cancels)
    except NotFound:
        # the daemon is set to serve another model, which is not there either
        with Reporter() as reporter:
            client.load(DEFAULT_MODEL, reporter)
    return _answer(client, question, show, ctrl_c_cancels)


def _answer(
    client: Client, question: dict[str, Any], show: Callable[[str], None], ctrl_c_cancels: bool
) -> Done:
    with Reporter() as reporter, client.ask(on_progress=reporter, **question) as answer:
        _see_that_it_lives(client)
        try:
            with _cancelling(answer, ctrl_c_cancels):
                for piece in answer:
                    reporter.clear()
                    show(piece)
                    reporter.mid_line = not piece.endswith("\n")
        except AssistantError:
            if reporter.mid_line and sys.stdout.isatty():
                print(flush=True)  # or what went wrong would stand in the answer's last line
            raise
        assert answer.done is not None
        return answer.done


def _see_that_it_lives(client: Client) -> None:
    """No limit of time suits an answer, but a daemon that is stuck does not say pong."""
    if not client.endpoint.startswith("tcp://"):
        client.ping(CONTROL_TIMEOUT_S)
        return
    try:
        # longer than it takes to notice that the connection is lost
        client.ping(2 * CONTROL_TIMEOUT_S)
    except ConnectionLost:
        return  # the answer waits for it to come back, and gives up by itself


@contextmanager
def _cancelling(answer: Answer, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def cancel(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        answer.cancel()

    signal.signal(signal.SIGINT, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def offer_default_model(client: Client, problem: NotFound, assume_yes: bool) -> None:
    """Download the default model, if it is missing and the user agrees.

    Raises:
        ModelMissing: the user cannot be asked, or said no.
        NotFound: `problem`; there are models, or the daemon is elsewhere, so its message says
            what to do.
    """
    if client.endpoint.startswith("tcp://") or _models(client):
        raise problem  # elsewhere it is not for us to fetch
    if not assume_yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise ModelMissing(
                _(
                    "{title} is not on this machine yet; fetch it with "
                    "`assistant models pull {name}`, or add -y to have it done now"
                ).format(title=DEFAULT_MODEL_TITLE, name=DEFAULT_MODEL)
            ) from problem
        import click

        question = _("{title} is not on this machine yet. Download it now?").format(
            title=DEFAULT_MODEL_TITLE
        )
        if not click.confirm(question, default=True, err=True):
            raise ModelMissing(
                _(
                    "there is no model to answer with; `assistant models pull {name}` "
                    "fetches the default one, `assistant models pull --help` tells of others"
                ).format(name=DEFAULT_MODEL)
            ) from problem
    pull(client, DEFAULT_MODEL)


def _models(client: Client) -> list[ModelInfo]:
    return client.request(Models(op="list"), timeout=CONTROL_TIMEOUT_S).models or []


def pull(client: Client, name: str) -> ModelInfo:
    """Download a model, showing how far it is. Ctrl-C cancels it in the daemon."""
    with Reporter() as reporter:
        model = client.pull(name, reporter)
    note(_("{name} is here").format(name=model.name))
    return model


def describe(timings: Timings) -> str:
    """The timings of an answer in one line."""
    if timings.cached_tokens:
        read = _("{n} tokens read, {cached} of them cached in {ms:.0f} ms")
    else:
        read = _("{n} tokens read in {ms:.0f} ms")
    written = _(
        "first word after {first_ms:.0f} ms; {n} tokens written at {speed:.1f} tokens/s"
    ).format(
        first_ms=timings.first_token_ms,
        n=timings.completion_tokens,
        speed=timings.tokens_per_second,
    )
    how = read.format(n=timings.prompt_tokens, cached=timings.cached_tokens, ms=timings.prefill_ms)
    return f"{how}; {written}"
