"""A door: a ROUTER that is bound, and what it knows of whoever comes in by it.

This is the local one, whose file's permissions decide who may. The network's is network/door.py.
"""

import contextlib
import ctypes
import logging
import os
import resource
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from assistantd.activation import Inherited
from assistantd.log import fields

log = logging.getLogger(__name__)

SEND_QUEUE = 1000
"""Messages kept for a client that does not read them; then it is dropped."""
HARD_MESSAGE_BYTES = 64 * 1024 * 1024
"""ZeroMQ drops a local connection that sends a larger frame. Up to it, `too_large` is answered."""
CLOSE_LINGER_MS = 1000
DESCRIPTORS = (65536, 10240, 4096)
"""Files that may be open: the first of these that the system allows."""


def make_router(context: "zmq.Context[zmq.Socket[bytes]]") -> "zmq.Socket[bytes]":
    """A ROUTER whose names for its connections cannot be guessed.

    ZeroMQ counts connections from a number of C's rand(), which it does not seed: it is the same in
    each process. A connection may choose its own name, and if it is that of the next one, ZeroMQ
    ends the whole process.
    """
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4)))
    return context.socket(zmq.ROUTER)


def make_room_for_files() -> None:
    """Allow as many open files as the system lets us.

    ZeroMQ accepts a crowd before it can be cut, and where no descriptor is left it ends the whole
    process as soon as a local client connects.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in DESCRIPTORS:
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as problem:  # a system with another limit beside this one
            log.info("fewer files", extra=fields(wanted=wanted, problem=problem))
        else:
            return


@dataclass(frozen=True)
class Arrival:
    """A message that came in."""

    frames: list[bytes]
    """With the connection's identity in front."""
    key: str | None
    """The CURVE key (Z85) that its sender has; "" for none, which lets nobody in. None at the
    local door, where everybody may do everything."""


class Door:
    """The local door.

    Args:
        endpoint: ipc://PATH; its folder is made (0700) if there is none, the socket is 0660.
        inherited: the socket that listens there already: taken as it is, and its path left alone.
    """

    mark = b"l"
    """What connections are called by begins with it, so that no two doors' names are the same."""
    turns = 100
    """Messages that are taken in a row, before it is the turn of others."""

    def __init__(self, endpoint: str, inherited: Inherited | None = None) -> None:
        self.endpoint, self._inherited = endpoint, inherited
        self._context = zmq.Context()
        self.router = make_router(self._context)
        self.router.set(zmq.LINGER, CLOSE_LINGER_MS)
        self.router.set(zmq.ROUTER_MANDATORY, 1)
        self.router.set(zmq.SNDHWM, SEND_QUEUE)
        self.router.set(zmq.MAXMSGSIZE, HARD_MESSAGE_BYTES)

    def bind(self) -> None:
        """Bind the socket; from here on clients can connect.

        Raises:
            zmq.ZMQError, OSError: that is not possible.
        """
        make_room_for_files()
        if self._inherited is not None:
            # ZeroMQ neither removes nor makes the file then, and closes the socket in the end
            self.router.set(zmq.USE_FD, self._inherited.descriptor)
            self.router.bind(self.endpoint)
            return
        path = self._path()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # made unreachable for others from the start, then opened to the group
        before = os.umask(0o177)
        try:
            self.router.bind(self.endpoint)
        finally:
            os.umask(before)
        path.chmod(0o660)

    @property
    def sockets(self) -> "Iterable[zmq.Socket[bytes]]":
        """What to wait on."""
        return (self.router,)

    def tend(self, ready: Mapping[Any, int]) -> list[bytes]:
        """See to what is not a message. Returns the identities of connections that are gone."""
        return []

    def receive(self) -> Arrival | None:
        """The next message, if there is one."""
        with contextlib.suppress(zmq.Again):
            return Arrival(self.router.recv_multipart(zmq.NOBLOCK), None)
        return None

    def objection(self, identity: bytes) -> str | None:
        """Why a connection of this identity gets no answers."""
        return None

    def complain(self, event: str, **values: Any) -> None:
        """Log what a client did wrong."""
        log.warning(event, extra=fields(**values))

    def cut(self, identity: bytes) -> None:
        """Close a connection that does not read; locally its user is left to do that."""

    def relieve(self) -> None:
        """Memory is short; locally nobody is suspected of wanting that."""

    def close(self) -> None:
        """Close the socket, once what was sent has left, and remove its file if we made it."""
        self.router.close()
        self._context.term()
        if self._inherited is None:
            self._path().unlink(missing_ok=True)

    def _path(self) -> Path:
        return Path(self.endpoint.removeprefix("ipc://"))
