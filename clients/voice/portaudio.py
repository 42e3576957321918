"""The PortAudio library: loaded when needed, called from one thread, started anew to see devices.

PortAudio is not safe to call from several threads, its calls may take long, and it sees new devices
only after it was ended and started again, which closes every stream. So all calls are made in one
thread of their own, and whoever has a stream open is registered here and asked before that is done.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, ParamSpec, TypeVar

from clients.i18n import _
from clients.voice.errors import MissingPart, NoDevice

_P = ParamSpec("_P")
_T = TypeVar("_T")


class StreamOwner(ABC):
    """Has, or may have, a stream open."""

    @abstractmethod
    def release(self) -> bool:
        """Close it, to open it again later; False if not now. Called in PortAudio's thread."""


_owners: set[StreamOwner] = set()


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="portaudio")


def library() -> Any:
    """The module sounddevice. Raises MissingPart; to be called in PortAudio's thread."""
    try:
        import sounddevice
    except ImportError as error:
        raise MissingPart(
            _("the Python package {name} is not installed; pip install 'assistantd[voice]'").format(
                name="sounddevice"
            )
        ) from error
    except OSError as error:  # the package is there, the library it wraps is not
        raise MissingPart(
            _(
                "the library PortAudio is not installed; on Debian and Ubuntu: "
                "sudo apt install libportaudio2"
            )
        ) from error
    return sounddevice


async def call(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call it in PortAudio's thread, and wait; if cancelled, it is called nevertheless."""
    called = asyncio.wrap_future(_thread().submit(function, *args, **kwargs))
    return await asyncio.shield(called)


def call_now(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """The same where there is no event loop."""
    return _thread().submit(function, *args, **kwargs).result()


def register(owner: StreamOwner) -> None:
    """From now on it is asked before PortAudio is started anew."""
    _owners.add(owner)


def unregister(owner: StreamOwner) -> None:
    """It has closed its stream for good."""
    _owners.discard(owner)


def rescan(asker: StreamOwner) -> bool:
    """See the devices that are there now; False if another owner cannot spare its stream.

    To be called in PortAudio's thread, when the asker has no stream open. Raises NoDevice.
    """
    sounddevice = library()
    if not all([owner.release() for owner in list(_owners) if owner is not asker]):
        return False
    try:
        if sounddevice._initialized:  # not so after the last attempt failed
            sounddevice._terminate()
        sounddevice._initialize()
    except sounddevice.PortAudioError as error:
        raise NoDevice(
            _("the sound system cannot be reached ({problem}); is it running?").format(
                problem=error
            )
        ) from error
    return True


def start(make: Callable[[int], tuple[Any, _T]], channels: Iterable[int]) -> tuple[Any, _T]:
    """A stream that runs, with the first of these numbers of channels that the device takes.

    `make` gives a stream and what its callbacks belong to. To be called in PortAudio's thread.
    Raises PortAudioError or ValueError, the last problem.
    """
    sounddevice = library()
    problem: Exception | None = None
    for n in channels:
        try:
            stream, owner = make(n)
        except (sounddevice.PortAudioError, ValueError) as error:
            problem = error
            continue
        try:
            stream.start()
        except sounddevice.PortAudioError as error:
            stream.close(ignore_errors=True)
            problem = error
            continue
        return stream, owner
    assert problem is not None  # a device has at least one channel
    raise problem


def end(stream: Any) -> None:
    """Stop it at once, and let go of the device. To be called in PortAudio's thread."""
    stream.abort(ignore_errors=True)
    stream.close(ignore_errors=True)
