"""Pairing's parts with a store in memory, a clock that the test turns, and the real socket."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import zmq

from assistantd.network.pairing import Pairing, Place
from assistantd.protocol import DeviceInfo, Done, Error, Pair, Reply
from assistantd.server import Peer
from tests.clients.scripted_daemon import WAIT_S


@dataclass
class MemoryStore:
    """A DeviceStore that forgets; `fail` makes adding fail."""

    devices: list[DeviceInfo] = field(default_factory=list)
    tokens: list[bytes] = field(default_factory=list)
    fail: Exception | None = None

    def add(
        self, *, token_sha256: bytes | None = None, public_key: str | None = None, **given: Any
    ) -> DeviceInfo:
        if self.fail is not None:
            raise self.fail
        number = f"{len(self.devices) + 2:07}".translate(str.maketrans("01", "ab"))
        device = DeviceInfo(id=f"d{number}", created_at=1.0, public_key=public_key, **given)
        self.devices.append(device)
        if token_sha256 is not None:
            self.tokens.append(token_sha256)
        return device


class Clock:
    """Seconds that the test turns on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Answers:
    """Collects the replies to one request."""

    replies: list[Reply] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, reply: Reply) -> None:
        with self.changed:
            self.replies.append(reply)
            self.changed.notify_all()

    def last(self) -> Done | Error:
        """The last reply, once it has come."""
        with self.changed:
            assert self.changed.wait_for(self.is_over, WAIT_S)
            reply = self.replies[-1]
        assert isinstance(reply, Done | Error)
        return reply

    def is_over(self) -> bool:
        """Whether it has."""
        return bool(self.replies) and isinstance(self.replies[-1], Done | Error)


class Parts:
    """A Pairing whose requests are answered at once, and whose network the test turns on."""

    def __init__(self) -> None:
        self.store, self.clock = MemoryStore(), Clock()
        self.public_key = zmq.curve_keypair()[0].decode()
        self.port = free_port()
        self.network_on = True
        self.peer = peer()
        self.pairing = Pairing(
            self.store,
            lambda: self.public_key,
            self._place,
            lambda: ["127.0.0.1"],
            lambda work, reply: reply(work()),
            self.clock,
        )

    def _place(self) -> Place | None:
        if not self.network_on:
            return None

        def bind(router: "zmq.Socket[bytes]") -> None:
            router.bind(f"tcp://127.0.0.1:{self.port + 1}")

        return Place(bind, f"tcp://127.0.0.1:{self.port}", self.port, "box")

    def ask(self, **request: Any) -> Done | Error:
        """Any request but `wait`."""
        return self.start(**request).last()

    def start(self, **request: Any) -> Answers:
        """Begin a request."""
        answers = Answers()
        self.pairing.handle(self.peer, Pair(**request), answers)
        return answers


class Mark:
    """As much of a door as tells one connection from another."""

    mark = b"l"


def peer(**changes: Any) -> Peer:
    """Somebody who asks at the local door."""
    door = Mark()
    return Peer(**{"door": door, "identity": b"me", "request_id": b"1", "is_req": False, **changes})


@contextmanager
def parts() -> Iterator[Parts]:
    """Closes what it made."""
    made = Parts()
    try:
        yield made
    finally:
        made.pairing.close()


def free_port() -> int:
    """A port that nobody listens at, and neither at the next one."""
    while True:
        with socket.socket() as one, socket.socket() as next_one:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                next_one.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
