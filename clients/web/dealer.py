"""A connection to the daemon that passes messages on as they are: the socket of one page.

`AsyncClient` chooses request ids and decodes replies. A page chooses its own, and what it gets is
what the daemon wrote. Each page has a DEALER of its own, because ids belong to a connection.
"""

import asyncio
import itertools
import struct
from collections.abc import Callable
from typing import Final, Literal

import zmq

from assistantd.protocol import PROTOCOL

_RECONNECT_MS: Final = 20
_RECONNECT_MAX_MS: Final = 200
_LINGER_MS: Final = 500
_EVENTS: Final = zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED
_names = itertools.count(1)


class Dealer:
    """A DEALER in the event loop that runs now.

    Args:
        context: one for the whole gateway, so that a page costs no thread.
        endpoint: where the daemon listens.
        on_reply: called with a request id and the JSON of each reply.
        on_change: called when `state` has changed.

    Attributes:
        state: "new" while there was no connection yet; "up"; "lost" once the daemon went away,
            until it is there again: nothing that was asked before will be answered.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        *,
        on_reply: Callable[[bytes, bytes], None],
        on_change: Callable[[], None],
    ) -> None:
        self._context, self._endpoint = context, endpoint
        self._on_reply, self._on_change = on_reply, on_change
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self.state: Literal["new", "up", "lost"] = "new"
        self._open()

    def send(self, request_id: bytes, body: bytes) -> None:
        """Send a request, which waits until the daemon is there. Never blocks."""
        self._dealer.send_multipart([PROTOCOL, request_id, body], zmq.NOBLOCK)
        # ZeroMQ's descriptor signals an arrival once, and sending may have used that up
        self._loop.call_soon(self._drain)

    def reset(self) -> None:
        """Connect anew; what was not sent yet never will be."""
        self._close_sockets(linger_ms=0)
        self._open()
        self.state = "new"

    def close(self) -> None:
        """Disconnect; what was sent is still handed over. May be repeated."""
        if not self._closed:
            self._closed = True
            self._close_sockets(_LINGER_MS)

    def _open(self) -> None:
        """Connect a new socket: the old one would still deliver what was told to have failed."""
        self._dealer = self._context.socket(zmq.DEALER)
        # what comes is read at once, and bounded where it waits for the page
        self._dealer.set(zmq.RCVHWM, 0)
        self._dealer.set(zmq.SNDHWM, 0)
        self._dealer.set(zmq.RECONNECT_IVL, _RECONNECT_MS)
        self._dealer.set(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        self._monitor = self._dealer.get_monitor_socket(
            _EVENTS, f"inproc://clients.web.dealer.{next(_names)}"
        )
        self._dealer.connect(self._endpoint)
        for socket in (self._dealer, self._monitor):
            self._loop.add_reader(int(socket.get(zmq.FD)), self._drain)
        self._loop.call_soon(self._drain)  # what came before the loop was watching

    def _close_sockets(self, linger_ms: int) -> None:
        for socket in (self._dealer, self._monitor):
            self._loop.remove_reader(int(socket.get(zmq.FD)))
        self._dealer.disable_monitor()  # closes the monitor's socket too
        self._monitor.close(linger=0)
        self._dealer.close(linger=linger_ms)

    def _drain(self) -> None:
        """Hand over everything that has arrived."""
        if self._closed:
            return
        gone = came = False
        # the monitor first: what the daemon sent before it went away is then still read below
        while int(self._monitor.get(zmq.EVENTS)) & zmq.POLLIN:
            event, _address = self._monitor.recv_multipart(zmq.NOBLOCK)
            (kind,) = struct.unpack_from("=H", event)
            came = kind == zmq.EVENT_CONNECTED
            gone = gone or kind == zmq.EVENT_DISCONNECTED
        while int(self._dealer.get(zmq.EVENTS)) & zmq.POLLIN:
            frames = self._dealer.recv_multipart(zmq.NOBLOCK)
            if len(frames) == 3 and frames[0] == PROTOCOL:
                self._on_reply(frames[1], frames[2])
            if self._closed:  # by what was done with the reply
                return
        if gone:
            self.reset()
            self.state = "lost"
            self._on_change()
        elif came and self.state != "up":
            self.state = "up"
            self._on_change()
