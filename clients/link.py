"""The ZeroMQ sockets of one client: sends, receives, and notices that the daemon went away.

Nothing here waits: a caller waits on `sockets` in its own way (a poller, an event loop), then
calls `drain`. What messages mean is left to clients.requests.
"""

import itertools
import struct
from collections.abc import Callable
from time import monotonic

import zmq

from clients import requests
from clients.address import locate
from clients.errors import BadEndpoint, Unauthorized
from clients.i18n import _
from clients.requests import Exchange, Exchanges

# ZeroMQ tries again by itself for as long as nobody listens: a daemon that starts is found
# within RECONNECT_MAX_MS, and waiting for it costs no measurable CPU.
_RECONNECT_MS = 20
_RECONNECT_MAX_MS = 200
# How long `close` may take to hand what was already sent (a cancel, say) to a living daemon.
_LINGER_MS = 500

# Over the network: a computer that is gone says nothing, so both ends show that they are there.
_HEARTBEAT_MS = 5_000
_HEARTBEAT_TIMEOUT_MS = 15_000
_NETWORK_RECONNECT_MS = 100
_NETWORK_RECONNECT_MAX_MS = 2_000
# the kernel would repeat its first packet ever more rarely: a fresh try finds a link that is back
_CONNECT_TIMEOUT_MS = 5_000
_HANDSHAKE_TIMEOUT_MS = 10_000
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
PATIENCE_S = 120.0
"""Who set no timeout waits so long for a connection over the network to come (back)."""

_LOCAL_EVENTS = zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED
_NETWORK_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)
_monitor_names = itertools.count(1)


class Link:
    """A DEALER connected to the daemon, and the monitor that watches it.

    Args:
        endpoint: see Client.
        prefix: of request ids, for a local program that asks for devices; over the network they
            have a random one in any case.

    Attributes:
        endpoint: where the daemon is.
        exchanges: the requests under way.

    Raises:
        BadEndpoint: `endpoint` is neither an address nor the name of a stored one, or (NotPaired)
            no keys are stored for it.
    """

    def __init__(self, endpoint: str | None, prefix: str = "") -> None:
        self.endpoint, self._server = locate(endpoint)
        if self._server is not None:
            from clients.resuming import ResumableExchanges

            self.exchanges: Exchanges = ResumableExchanges(self.endpoint)
        else:
            self.exchanges = Exchanges(prefix)
        # while there is no connection over the network: since when, by the monotonic clock
        self._down_since = monotonic() if self._server is not None else None
        self._refusal: Callable[[str], Unauthorized] | None = None
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
        self._up = False
        self._broken_off = 0
        self._dealer = self._context.socket(zmq.DEALER)
        # no high-water marks: pieces of an answer must not be dropped while nobody reads them
        self._dealer.set(zmq.RCVHWM, 0)
        self._dealer.set(zmq.SNDHWM, 0)
        if self._server is not None:
            self._set_up_network()
        else:
            self._dealer.set(zmq.RECONNECT_IVL, _RECONNECT_MS)
            self._dealer.set(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        # an address of our own: pyzmq's default is made of a file descriptor, which is reused
        self._monitor = self._dealer.get_monitor_socket(
            _LOCAL_EVENTS if self._server is None else _NETWORK_EVENTS,
            f"inproc://clients.link.{next(_monitor_names)}",
        )
        self._connected = False
        if self._refusal is None:  # or it would go on being refused, again and again
            self._connect()

    def _set_up_network(self) -> None:
        assert self._server is not None
        dealer = self._dealer
        try:
            dealer.set(zmq.CURVE_SERVERKEY, self._server.server_key.encode())
            dealer.set(zmq.CURVE_PUBLICKEY, self._server.public_key.encode())
            dealer.set(zmq.CURVE_SECRETKEY, self._server.secret_key.encode())
        except zmq.ZMQError as error:
            dealer.close(linger=0)
            raise BadEndpoint(
                _(
                    "the keys stored for {endpoint} are damaged; "
                    "pair again with `assistant connect`"
                ).format(endpoint=self.endpoint)
            ) from error
        dealer.set(zmq.IPV6, 1)
        dealer.set(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        dealer.set(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS)
        dealer.set(zmq.RECONNECT_IVL, _NETWORK_RECONNECT_MS)
        dealer.set(zmq.RECONNECT_IVL_MAX, _NETWORK_RECONNECT_MAX_MS)
        dealer.set(zmq.CONNECT_TIMEOUT, _CONNECT_TIMEOUT_MS)
        dealer.set(zmq.HANDSHAKE_IVL, _HANDSHAKE_TIMEOUT_MS)
        dealer.set(zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES)

    def _connect(self) -> None:
        try:
            self._dealer.connect(self.endpoint)
        except zmq.ZMQError as error:
            self._close_sockets(linger_ms=0)
            raise BadEndpoint(
                _(
                    "cannot use the endpoint {endpoint!r}: {problem}; "
                    "write ipc:///path/to/socket or tcp://HOST:PORT"
                ).format(endpoint=self.endpoint, problem=error)
            ) from error
        self._connected, self._refusal = True, None
        for frames in self.exchanges.again():
            self.send(frames)

    @property
    def sockets(self) -> tuple["zmq.Socket[bytes]", "zmq.Socket[bytes]"]:
        """What to wait on for POLLIN."""
        return self._dealer, self._monitor

    def send(self, frames: list[bytes]) -> None:
        """Queue a message for the daemon, there or not. Never blocks."""
        if not self._connected:
            self._connect()
        try:
            self._dealer.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            # ZeroMQ has no connection and makes none any more: it was refused at this moment, and
            # the next `drain` fails what is under way
            return
        self.exchanges.sent(frames[1])

    def drain(self) -> bool:
        """Hand over everything that has arrived.

        Returns False if the daemon went away: requests under way have failed, or wait for the
        next connection, and the caller must `open` the link again.
        """
        is_well = True
        # the monitor first: what the daemon sent before it went away is then still read below
        while int(self._monitor.get(zmq.EVENTS)) & zmq.POLLIN:
            event, _address = self._monitor.recv_multipart(zmq.NOBLOCK)
            (kind,) = struct.unpack_from("=H", event)
            is_well = self._happened(kind) and is_well
        if self.exchanges.wake_at is not None and self.exchanges.wake_at <= monotonic():
            self.exchanges.wake()
        while True:
            while int(self._dealer.get(zmq.EVENTS)) & zmq.POLLIN:
                self.exchanges.received(self._dealer.recv_multipart(zmq.NOBLOCK))
            if not is_well or not self.exchanges.outbox:
                break
            # and look once more: sending may use up the signal of an arrival
            self.send(self.exchanges.outbox.popleft())
        if is_well:
            return True
        self.exchanges.outbox.clear()
        if self._server is not None:
            self._down_since = monotonic()
        refusal = self._refusal
        if refusal is not None:
            self.exchanges.fail(lambda: refusal(self.endpoint))
        else:
            self.exchanges.interrupt(lambda: requests.lost(self.endpoint))
        self._close_sockets(linger_ms=0)
        return False

    def _happened(self, kind: int) -> bool:
        """Note an event of the monitor. Returns False if fresh sockets are needed."""
        if kind in (zmq.EVENT_CONNECTED, zmq.EVENT_HANDSHAKE_SUCCEEDED):
            self._up, self._down_since, self._broken_off = True, None, 0
        elif kind == zmq.EVENT_DISCONNECTED:
            was_up, self._up = self._up, False
            if self._server is None:
                return False
            return not was_up  # else a handshake failed, of which another event tells
        elif kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refusal = requests.refused
        elif kind == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._refusal = requests.stranger
        else:
            # so does a daemon for which we have the wrong key, but so does any that is starting
            # behind a proxy: no reason to give up
            self._broken_off += 1
        return self._refusal is None

    def left(
        self, exchange: Exchange, deadline: float | None, timeout: float | None
    ) -> float | None:
        """Seconds to wait for more of `exchange` before `drain`; None for as long as it takes.

        Args:
            deadline: when the caller's `timeout` seconds of silence are over, by the monotonic
                clock; None if it set none.

        Raises:
            NoAnswer: they are over.
            ConnectionLost: there has been no connection for PATIENCE_S, and no timeout was set.
        """
        now = monotonic()
        until = [at for at in (self.exchanges.wake_at,) if at is not None]
        if deadline is not None and timeout is not None:
            if now >= deadline:
                raise requests.no_answer(self.endpoint, timeout, self._broken_off)
            until.append(deadline)
        elif self._down_since is not None:
            give_up = max(self._down_since, exchange.began_at) + PATIENCE_S
            if now >= give_up:
                raise requests.unreachable(self.endpoint, PATIENCE_S, self._broken_off)
            until.append(give_up)
        return max(0.0, min(until) - now) if until else None

    def close(self, *, unsent: bool) -> None:
        """Close the sockets; what was sent gets time to leave if the daemon is there.

        `unsent`: requests were under way, so wait for it even where no daemon was seen yet.
        """
        wait = unsent or self._up
        self._close_sockets(linger_ms=_LINGER_MS if wait else 0)

    def term(self) -> None:
        """After `close`: wait, at most the linger time, until the sockets are gone."""
        self._context.term()

    def _close_sockets(self, linger_ms: int) -> None:
        self._dealer.disable_monitor()  # closes the monitor's socket too
        self._monitor.close(linger=0)
        self._dealer.close(linger=linger_ms)
