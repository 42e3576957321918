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
from clients.errors import AssistantError, NotFound

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
        # no limit of time suits an answer, but a daemon that is stuck does not say pong
        client.ping(CONTROL_TIMEOUT_S)
        with _cancelling(answer, ctrl_c_cancels):
            for piece in answer:
                reporter.clear()
                show(piece)
        assert answer.done is not None
        return answer.done


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
        NotFound: `problem`; there are models, so the daemon's message says what to do.
    """
    if _models(client):
        raise problem
    if not assume_yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise ModelMissing(
                f"{DEFAULT_MODEL_TITLE} is not on this machine yet; fetch it with "
                f"`assistant models pull {DEFAULT_MODEL}`, or add -y to have it done now"
            ) from problem
        import click

        question = f"{DEFAULT_MODEL_TITLE} is not on this machine yet. Download it now?"
        if not click.confirm(question, default=True, err=True):
            raise ModelMissing(
                f"there is no model to answer with; `assistant models pull {DEFAULT_MODEL}` "
                "fetches the default one, `assistant models pull --help` tells of others"
            ) from problem
    pull(client, DEFAULT_MODEL)


def _models(client: Client) -> list[ModelInfo]:
    return client.request(Models(op="list"), timeout=CONTROL_TIMEOUT_S).models or []


def pull(client: Client, name: str) -> ModelInfo:
    """Download a model, showing how far it is. Ctrl-C cancels it in the daemon."""
    with Reporter() as reporter:
        model = client.pull(name, reporter)
    note(f"{model.name} is here")
    return model


def describe(timings: Timings) -> str:
    """The timings of an answer in one line."""
    cached = f", {timings.cached_tokens} of them cached" if timings.cached_tokens else ""
    return (
        f"{timings.prompt_tokens} tokens read{cached} in {timings.prefill_ms:.0f} ms; "
        f"first word after {timings.first_token_ms:.0f} ms; "
        f"{timings.completion_tokens} tokens written at {timings.tokens_per_second:.1f} tokens/s"
    )
