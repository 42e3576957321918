"""The network's door: a ROUTER on TCP that speaks CURVE and nothing else.

It has a ZeroMQ context of its own, whose thread does the handshakes: a flood of them does not hold
up the local door. Who may come in is asked of the device store (zap.py); how many, guests.py.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import zmq

from assistantd.doors import (
    CLOSE_LINGER_MS,
    SEND_QUEUE,
    Arrival,
    Door,
    make_room_for_files,
    make_router,
)
from assistantd.i18n import _
from assistantd.network.devices import DeviceStore
from assistantd.network.guests import Guests
from assistantd.network.keys import ServerKey
from assistantd.network.sparing import SparingLog
from assistantd.network.zap import DOMAIN, Zap
from assistantd.protocol import MAX_BODY_BYTES

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = MAX_BODY_BYTES + 4096
"""A body that is a little too large is answered `too_large`; more cuts the connection."""
RECEIVE_QUEUE = 16
"""Messages of a connection that wait to be read; each may have MAX_MESSAGE_BYTES."""
HANDSHAKE_MS = 5_000
"""What is no guest by then is cut, however slowly it still talks."""
HEARTBEAT_MS = 5_000
HEARTBEAT_TIMEOUT_MS = 15_000
KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_TRIES = 60, 15, 4
BACKLOG = 1024
"""Connections that wait to be accepted; where it is full, a device would try again in a second."""


class NetworkDoor(Door):
    """Bound to an address and a port of this machine, as soon as it is made.

    Args:
        address: "*" for all interfaces, with IPv6 where there is any; or one's address or name.

    Raises:
        zmq.ZMQError: it cannot be bound there.
    """

    mark = b"n"
    turns = 20

    def __init__(
        self, address: str, port: int, key: ServerKey, store: DeviceStore, log: SparingLog
    ) -> None:
        self.endpoint, self._log = tcp_endpoint(address, port), log
        self._context = zmq.Context()
        self._zap = Zap(self._context, lambda known: store.by_key(known) is not None, log)
        self.router = make_router(self._context)
        self._guests = Guests(self._context, self.router, log)
        self._guests.port = port
        self._set_up(key)
        make_room_for_files()
        try:
            bind_tcp(self.router, address, port)
        except zmq.ZMQError:
            self.close()
            raise

    def _set_up(self, key: ServerKey) -> None:
        options: dict[int, int | bytes] = {
            zmq.CURVE_SERVER: 1,
            zmq.CURVE_SECRETKEY: key.secret.encode(),
            zmq.ZAP_DOMAIN: DOMAIN,
            zmq.ZAP_ENFORCE_DOMAIN: 1,  # without anybody to ask, nobody comes in
            zmq.ROUTER_MANDATORY: 1,
            zmq.LINGER: CLOSE_LINGER_MS,
            zmq.SNDHWM: SEND_QUEUE,
            zmq.RCVHWM: RECEIVE_QUEUE,
            zmq.MAXMSGSIZE: MAX_MESSAGE_BYTES,
            zmq.BACKLOG: BACKLOG,
            zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
            zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
            zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
            zmq.HEARTBEAT_TTL: HEARTBEAT_TIMEOUT_MS,  # so long the other end waits for ours
            zmq.TCP_KEEPALIVE: 1,
            zmq.TCP_KEEPALIVE_IDLE: KEEPALIVE_IDLE_S,
            zmq.TCP_KEEPALIVE_INTVL: KEEPALIVE_EVERY_S,
            zmq.TCP_KEEPALIVE_CNT: KEEPALIVE_TRIES,
        }
        for option, value in options.items():
            self.router.set(option, value)

    @property
    def sockets(self) -> "Iterable[zmq.Socket[bytes]]":
        """What to wait on."""
        return (self.router, self._zap.socket, self._guests.monitor)

    def tend(self, ready: Mapping[Any, int]) -> list[bytes]:
        """Answer handshakes, and see who came and went. Returns whose connections are gone."""
        if self._zap.socket in ready:
            self._zap.answer_all()
        return self._guests.look()

    def receive(self) -> Arrival | None:
        """The next message, if there is one that is to be looked at."""
        for _turn in range(self.turns):
            try:
                frames = self.router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return None
            key = str(_property(frames[-1], "User-Id") or "")
            descriptor = int(_property(frames[-1], zmq.SRCFD) or -1)
            if self._guests.spoke(frames[0].bytes, descriptor, key, map(len, frames)):
                return Arrival([frame.bytes for frame in frames], key)
        return None

    def objection(self, identity: bytes) -> str | None:
        """Why a connection of this identity gets no answers."""
        # who chose his own could take that of a connection that was just lost, and hear its rest
        if len(identity) == 5 and identity[0] == 0:
            return None
        return _("on the network connections have no routing id of their own; do not set one")

    def complain(self, event: str, **values: Any) -> None:
        """Log what a client did wrong, unless that is too often."""
        self._log.warning(f"{event} on the network", **values)

    def cut(self, identity: bytes) -> None:
        """Close a connection that does not read, so that its client notices and resumes."""
        self._guests.cut(identity)

    def relieve(self) -> None:
        """Memory is short: cut who fills it with a message that does not end."""
        self._guests.relieve()

    def close(self) -> None:
        """Close everything, once what was sent has left; takes CLOSE_LINGER_MS at most."""
        self._guests.close()
        self.router.close()
        # handshakes that are not over find nobody to ask, and fail
        self._zap.close()
        self._context.term()


def tcp_endpoint(address: str, port: int) -> str:
    """An endpoint for ZeroMQ; an IPv6 address may be in brackets or not."""
    bare = ":" in address and not address.startswith("[")
    return f"tcp://[{address}]:{port}" if bare else f"tcp://{address}:{port}"


def bind_tcp(socket: "zmq.Socket[bytes]", address: str, port: int) -> None:
    """Bind a socket; "*" is for IPv4, and IPv6 where there is any.

    Raises:
        zmq.ZMQError: that is not possible.
    """
    socket.set(zmq.IPV6, int(address == "*" or ":" in address))
    socket.bind(tcp_endpoint(address, port))


def _property(frame: zmq.Frame, name: str | int) -> str | int | None:
    """What ZeroMQ knows of a message; None if it does not."""
    try:
        return frame.get(name)
    except zmq.ZMQError:
        return None
