"""The button: `assistant voice trigger`, or any program's ZeroMQ message, starts to listen.

A REP socket at ipc://$XDG_RUNTIME_DIR/assistant-voice.sock answers b"trigger" with b"listening";
anything else with b"unknown". A hardware button is a REQ socket and one message:

    zmq.Context().socket(zmq.REQ) …connect(endpoint); socket.send(b"trigger")
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, Final

import zmq
import zmq.asyncio

from assistantd.protocol import runtime_dir
from clients.errors import NoAnswer
from clients.i18n import _
from clients.voice.errors import VoiceError

ENDPOINT_VARIABLE: Final = "ASSISTANT_VOICE_ENDPOINT"
TRIGGER: Final = b"trigger"
LISTENING: Final = b"listening"
UNKNOWN: Final = b"unknown"
_ANSWER_MS: Final = 2000
_LONGEST: Final = 64  # bytes of a message


def endpoint() -> str:
    """Where the button's messages go."""
    return os.environ.get(ENDPOINT_VARIABLE) or f"ipc://{runtime_dir() / 'assistant-voice.sock'}"


async def serve(press: Callable[[], None], address: str) -> None:
    """Call `press` for every trigger, until cancelled.

    Raises VoiceError: the address cannot be used, or another voice client uses it.
    """
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.REP)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, _LONGEST)
    try:
        if await asyncio.to_thread(_answers, address):
            raise VoiceError(
                _("another `assistant voice` is running (it has {address}); stop it").format(
                    address=address
                )
            )
        try:
            if address.startswith("ipc://"):
                os.makedirs(os.path.dirname(address[6:]), mode=0o700, exist_ok=True)
            socket.bind(address)
        except (zmq.ZMQError, OSError) as error:
            raise VoiceError(
                _(
                    "cannot listen for the button at {address}: {problem}; "
                    "set {variable} to another place"
                ).format(address=address, problem=error, variable=ENDPOINT_VARIABLE)
            ) from error
        while True:
            frames = await socket.recv_multipart()
            if frames == [TRIGGER]:
                press()
                await socket.send(LISTENING)
            else:
                await socket.send(UNKNOWN)
    finally:
        socket.close()
        context.term()


def press(address: str) -> None:
    """Press the button of the voice client that runs.

    Raises NoAnswer if none does, VoiceError if the address is none.
    """
    if _ask(address, TRIGGER) != LISTENING:
        raise NoAnswer(
            _("no `assistant voice` is running at {address}; start it").format(address=address)
        )


def _answers(address: str) -> bool:
    path = address.removeprefix("ipc://")
    if path != address and not os.path.exists(path):
        return False
    return _ask(address, b"") is not None


def _ask(address: str, message: bytes) -> bytes | None:
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            raise VoiceError(
                _(
                    "cannot reach a button at {address!r}: {error}; set {variable} to "
                    "ipc:///path/to/socket"
                ).format(address=address, error=error.strerror, variable=ENDPOINT_VARIABLE)
            ) from error
        socket.send(message)
        return socket.recv() if socket.poll(_ANSWER_MS) else None


async def run_with_button(
    press_: Callable[[], None], address: str, main: Coroutine[Any, Any, None]
) -> None:
    """Serve the button as long as `main` runs; an error of either ends both, and is raised."""
    running = asyncio.create_task(main, name="voice")
    button = asyncio.create_task(serve(press_, address), name="button")
    try:
        await asyncio.wait([running, button], return_when=asyncio.FIRST_COMPLETED)
        for task in (button, running):
            if task.done():
                task.result()
    finally:
        for task in (running, button):
            task.cancel()
        await asyncio.gather(running, button, return_exceptions=True)
