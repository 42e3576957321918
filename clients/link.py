"""The ZeroMQ sockets of one client: sends, receives, and notices that the daemon went away.

Nothing here waits: a caller waits on `sockets` in its own way (a poller, an event loop), then
calls `drain`. What messages mean is left to clients.requests.
"""

import itertools
import struct

import zmq

from assistantd.protocol import default_endpoint
from clients.errors import BadEndpoint
from clients.requests import Exchanges, lost

# ZeroMQ tries again by itself for as long as nobody listens: a daemon that starts is found
# within RECONNECT_MAX_MS, and waiting for it costs no measurable CPU.
_RECONNECT_MS = 20
_RECONNECT_MAX_MS = 200
# How long `close` may take to hand what was already sent (a cancel, say) to a living daemon.
_LINGER_MS = 500

_EVENTS = zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED
_monitor_names = itertools.count(1)


class Link:
    """A DEALER connected to the daemon, and the monitor that watches it."""

    def __init__(self, endpoint: str | None, exchanges: Exchanges) -> None:
        self.endpoint = endpoint if endpoint is not None else default_endpoint()
        self._exchanges = exchanges
        self._context = zmq.Context()
        try:
            self.open()
        except BadEndpoint:
            self._context.term()
            raise

    def open(self) -> None:
        """Connect fresh sockets. The first time, and again after `drain` said the link is lost.

        A new socket rather than ZeroMQ's own reconnection: that would still deliver requests
        whose callers have been told they failed.

        Raises:
            BadEndpoint: ZeroMQ does not understand the address.
        """
        self._connected = False
        self._dealer = self._context.socket(zmq.DEALER)
        # no high-water marks: pieces of an answer must not be dropped while nobody reads them
        self._dealer.set(zmq.RCVHWM, 0)
        self._dealer.set(zmq.SNDHWM, 0)
        self._dealer.set(zmq.RECONNECT_IVL, _RECONNECT_MS)
        self._dealer.set(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        # an address of our own: pyzmq's default is made of a file descriptor, which is reused
        self._monitor = self._dealer.get_monitor_socket(
            _EVENTS, f"inproc://clients.link.{next(_monitor_names)}"
        )
        try:
            self._dealer.connect(self.endpoint)
        except zmq.ZMQError as error:
            self._close_sockets(linger_ms=0)
            raise BadEndpoint(
                f"cannot use the endpoint {self.endpoint!r}: {error}; "
                "write ipc:///path/to/socket or tcp://HOST:PORT"
            ) from error

    @property
    def sockets(self) -> tuple["zmq.Socket[bytes]", "zmq.Socket[bytes]"]:
        """What to wait on for POLLIN."""
        return self._dealer, self._monitor

    def send(self, frames: list[bytes]) -> None:
        """Queue a message for the daemon, there or not. Never blocks."""
        self._dealer.send_multipart(frames, zmq.NOBLOCK)

    def drain(self) -> bool:
        """Hand over everything that has arrived.

        Returns False if the daemon went away: requests under way have failed, and the caller
        must `open` the link again.
        """
        disconnected = False
        # the monitor first: what the daemon sent before it went away is then still read below
        while int(self._monitor.get(zmq.EVENTS)) & zmq.POLLIN:
            event, _ = self._monitor.recv_multipart(zmq.NOBLOCK)
            (kind,) = struct.unpack_from("=H", event)
            self._connected = kind == zmq.EVENT_CONNECTED
            disconnected = disconnected or kind == zmq.EVENT_DISCONNECTED
        while int(self._dealer.get(zmq.EVENTS)) & zmq.POLLIN:
            self._exchanges.received(self._dealer.recv_multipart(zmq.NOBLOCK))
        if disconnected:
            self._exchanges.fail(lambda: lost(self.endpoint))
            self._close_sockets(linger_ms=0)
        return not disconnected

    def close(self, *, unsent: bool) -> None:
        """Close the sockets; what was sent gets time to leave if the daemon is there.

        `unsent`: requests were under way, so wait for it even where no daemon was seen yet.
        """
        wait = unsent or self._connected
        self._close_sockets(linger_ms=_LINGER_MS if wait else 0)

    def term(self) -> None:
        """After `close`: wait, at most the linger time, until the sockets are gone."""
        self._context.term()

    def _close_sockets(self, linger_ms: int) -> None:
        self._dealer.disable_monitor()  # closes the monitor's socket too
        self._monitor.close(linger=0)
        self._dealer.close(linger=linger_ms)
