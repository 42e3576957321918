"""The connections at the network's door: counted, and cut where there are too many.

ZeroMQ accepts as many as come, whoever they are, and each takes a file descriptor, which the rest
of the daemon needs, too. What it offers is a monitor that tells of each, and the descriptor that a
message came from. A connection is a stranger's until its first message, for which it must have a
known key; strangers are few at a time, and who came in has room whatever they do.
"""

import itertools
import struct
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import zmq

from assistantd.network.bucket import Bucket
from assistantd.network.descriptors import Peer, peer_of, received, shut
from assistantd.network.sparing import SparingLog

MAX_STRANGERS = 16
"""Connections that have not said anything yet. ZeroMQ may hold a whole frame of each."""
MAX_GUESTS = 256
"""Connections in all."""
MAX_OF_A_KEY = 16
"""Connections of a device."""
MESSAGES_PER_S = 2000
"""Of a device; far more than a working one sends, and few enough to be answered by the way."""
UNREAD_BYTES = 32 << 20
"""What a guest may have sent of a message that does not end, when memory is short."""
UNREAD_BYTES_OF_STRANGERS = 64 << 10
FRAME_BYTES = 64
"""More than what a frame takes beside what is in it."""
EVENTS_AT_ONCE = 200
"""News of connections that are taken in a row, before it is the turn of others."""

_ADDRESS = "inproc://assistantd.guests"


@dataclass(eq=False)
class Guest:
    """A connection."""

    descriptor: int
    number: int
    """They are numbered as they come."""
    peer: Peer | None
    """None if it had left already when we looked."""
    key: str | None = None
    """Once it has said something: its CURVE key (Z85)."""
    identity: bytes | None = None
    """And what the ROUTER calls it."""
    n_read: int = 0
    """Bytes of the messages that came from it."""

    @property
    def address(self) -> str:
        """From where it comes."""
        return "" if self.peer is None else self.peer[0]


class Guests:
    """Watches the ROUTER that is given, from before it is bound."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        router: "zmq.Socket[bytes]",
        log: SparingLog,
    ) -> None:
        self._router, self._log = router, log
        self.port = 0
        """The door's; nothing else is ever cut."""
        self.n_cut = 0
        self._numbers = itertools.count()
        self._guests: dict[int, Guest] = {}  # by descriptor
        self._by_identity: dict[bytes, Guest] = {}
        self._buckets: dict[str, Bucket] = {}  # by key
        self._gone: list[bytes] = []
        router.monitor(_ADDRESS, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self.monitor = context.socket(zmq.PAIR)
        # no high-water mark: ZeroMQ's own thread would wait where it is reached
        self.monitor.set(zmq.RCVHWM, 0)
        self.monitor.set(zmq.LINGER, 0)
        self.monitor.connect(_ADDRESS)

    def __len__(self) -> int:
        return len(self._guests)

    def look(self) -> list[bytes]:
        """Take note of who came and went; returns the identities of guests that are gone."""
        self._listen()
        gone, self._gone = self._gone, []
        return gone

    def spoke(self, identity: bytes, descriptor: int, key: str, sizes: Iterable[int]) -> bool:
        """A message came from a connection: its guest is known from now on.

        Args:
            sizes: of the message's frames, in bytes.

        False if he sends so many that this one is not to be looked at.
        """
        if identity not in self._by_identity:
            self._meet(identity, descriptor, key)
        if identity in self._by_identity:
            self._by_identity[identity].n_read += sum(size + FRAME_BYTES for size in sizes)
        now = time.monotonic()
        bucket = self._buckets.setdefault(key, Bucket(now))
        if bucket.take(MESSAGES_PER_S, MESSAGES_PER_S, now) == 0:
            return True
        if identity in self._by_identity:
            self._cut(self._by_identity[identity], "its device sends too much")
        return False

    def cut(self, identity: bytes) -> None:
        """Close a guest's connection."""
        guest = self._by_identity.get(identity)
        if guest is not None:
            self._cut(guest, "it does not read")

    def relieve(self) -> None:
        """Memory is short: cut whose messages lie here and do not end.

        ZeroMQ hands on a message once it has all frames of it, and there may be any number of
        them. How much has come without an end can be seen where the system is Linux.
        """
        for guest in list(self._guests.values()):
            most = UNREAD_BYTES_OF_STRANGERS if guest.key is None else UNREAD_BYTES
            if received(guest.descriptor, self.port) - guest.n_read > most:
                self._cut(guest, "its message does not end")

    def close(self) -> None:
        """Watch no longer."""
        self._router.disable_monitor()
        self.monitor.close()

    def _listen(self) -> None:
        for _turn in range(EVENTS_AT_ONCE):
            try:
                event, _endpoint = self.monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            kind, descriptor = struct.unpack("=HI", event)
            guest = self._guests.get(descriptor)
            if guest is not None:
                self._left(guest)  # ZeroMQ does not tell of every end
            if kind == zmq.EVENT_ACCEPTED:
                self._came(descriptor)

    def _came(self, descriptor: int) -> None:
        peer = peer_of(descriptor, self.port)
        self._guests[descriptor] = Guest(descriptor, next(self._numbers), peer)
        strangers = [guest for guest in self._guests.values() if guest.key is None]
        if len(strangers) > MAX_STRANGERS or len(self._guests) > MAX_GUESTS:
            # from where most come it hits them; a device elsewhere is let finish its handshake
            crowds = Counter(guest.address for guest in strangers)
            crowded = max(crowds.values())
            crowd = [guest for guest in strangers if crowds[guest.address] == crowded]
            self._cut(min(crowd, key=lambda guest: guest.number), "too many connections")

    def _meet(self, identity: bytes, descriptor: int, key: str) -> None:
        # of a connection that speaks the monitor has told, but perhaps it was not heard yet
        self._listen()
        guest = self._guests.get(descriptor)
        if guest is None or guest.identity is not None:
            return  # it has left already, or is heard of later
        guest.key, guest.identity = key, identity
        guest.peer = peer_of(descriptor, self.port)
        self._by_identity[identity] = guest
        own = [each for each in self._guests.values() if each.key == key]
        if len(own) > MAX_OF_A_KEY:
            self._cut(min(own, key=lambda each: each.number), "its device has too many")

    def _left(self, guest: Guest) -> None:
        self._forget(guest)
        if guest.identity is None:
            # no key, another server's key, another protocol, or silence until it was too long
            self._log.warning("a stranger left", address=guest.address)
        elif guest.peer is not None and peer_of(guest.descriptor, self.port) == guest.peer:
            # In a crowd news come late: what ended is an earlier connection of this descriptor,
            # and this one was taken for it. Better it begins anew than that it waits for ever.
            shut(guest.descriptor, self.port)

    def _cut(self, guest: Guest, reason: str) -> None:
        self.n_cut += 1
        self._log.warning("a connection was cut", address=guest.address, reason=reason)
        self._forget(guest)
        shut(guest.descriptor, self.port)

    def _forget(self, guest: Guest) -> None:
        del self._guests[guest.descriptor]
        if guest.identity is not None:
            del self._by_identity[guest.identity]
            self._gone.append(guest.identity)
