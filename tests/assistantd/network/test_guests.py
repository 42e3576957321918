"""Who is cut when there are too many, with real connections to a real ROUTER."""

import contextlib
import logging
import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import zmq

from assistantd.network import guests
from assistantd.network.descriptors import connection_of, received
from assistantd.network.guests import Guests
from assistantd.network.sparing import SparingLog

READY = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
HELLO = b"".join(  # what a DEALER without encryption says first
    (b"\xff", bytes(8), b"\x7f\x03\x01", b"NULL".ljust(20, b"\0"), bytes(32), b"\x04\x1c", READY)
)


class Hall:
    """A ROUTER without encryption, and its guests."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.linger = 0
        self.guests = Guests(self.context, self.router, SparingLog(logging.getLogger("test")))
        self.port = self.guests.port = self.router.bind_to_random_port("tcp://*")

    def close(self) -> None:
        self.guests.close()
        self.router.close()
        self.context.term()

    def until(self, number: int) -> list[bytes]:
        """Wait until there are so many; returns who is gone."""
        gone = self.guests.look()
        while len(self.guests) != number:
            assert self.guests.monitor.poll(20_000)
            gone += self.guests.look()
        return gone

    def until_one_is_cut(self) -> list[bytes]:
        """Wait until one is cut, and no more than that; returns who is gone."""
        gone = []
        while not self.guests.n_cut:
            assert self.guests.monitor.poll(20_000)
            gone += self.guests.look()
        assert self.guests.n_cut == 1
        return gone

    @contextmanager
    def stranger(self, host: str = "127.0.0.1") -> Iterator[socket.socket]:
        """A connection that says nothing, from an address of this machine."""
        with socket.create_connection(("127.0.0.1", self.port), 20, (host, 0)) as connection:
            yield connection

    @contextmanager
    def guest(self, key: str) -> Iterator["zmq.Socket[bytes]"]:
        """A connection that has said something, as whoever has this key."""
        with self.context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            dealer.connect(f"tcp://127.0.0.1:{self.port}")
            dealer.send(b"hello")
            assert self.router.poll(20_000)
            identity, message = self.router.recv_multipart(copy=False)
            self.guests.spoke(identity.bytes, int(message.get(zmq.SRCFD)), key, [5, 5])
            yield dealer


@pytest.fixture
def hall() -> Iterator[Hall]:
    found = Hall()
    yield found
    found.close()


def until_cut(connection: socket.socket) -> None:
    """Read what the other end says, until it closes."""
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(100):
            pass


def test_they_come_and_go(hall: Hall) -> None:
    with hall.stranger(), hall.guest("k"):
        hall.until(2)
    gone = hall.until(0)
    assert len(gone) == 1 and len(gone[0]) == 5
    assert hall.guests.n_cut == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs a second loopback address")
def test_the_oldest_of_the_largest_crowd_is_cut(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guests, "MAX_STRANGERS", 3)
    with ExitStack() as stack:
        stack.enter_context(hall.stranger("127.0.0.2"))
        hall.until(1)
        stack.enter_context(hall.guest("k"))
        first = stack.enter_context(hall.stranger())
        hall.until(3)
        stack.enter_context(hall.stranger())
        hall.until(4)
        assert hall.guests.n_cut == 0
        stack.enter_context(hall.stranger())
        hall.until_one_is_cut()
        until_cut(first)


def test_guests_leave_room_for_strangers(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "MAX_GUESTS", 2)
    with ExitStack() as stack:
        for key in "ab":
            stack.enter_context(hall.guest(key))
        late = stack.enter_context(hall.stranger())
        assert hall.until_one_is_cut() == []
        until_cut(late)


def test_the_oldest_of_a_key_is_cut(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "MAX_OF_A_KEY", 2)
    with ExitStack() as stack:
        for key in "kako":
            stack.enter_context(hall.guest(key))
        assert hall.guests.n_cut == 0
        stack.enter_context(hall.guest("k"))
        assert hall.guests.n_cut == 1
        # it comes again by itself, as a stranger until it says something
        assert len(hall.guests.look()) == 1
        hall.until(5)


def test_one_is_cut_by_name_and_nothing_else_ever(hall: Hall) -> None:
    with hall.guest("k"):
        (identity,) = hall.guests._by_identity
        hall.guests.cut(b"nobody")
        hall.guests.cut(identity)
        assert hall.guests.look() == [identity] and hall.guests.n_cut == 1
    # descriptors that are something else by now, or nothing
    with socket.socket() as other, open(os.devnull) as file:
        for descriptor in (other.fileno(), file.fileno(), 9999):
            with connection_of(descriptor, hall.port) as connection:
                assert connection is None
        assert os.fstat(file.fileno())


@pytest.mark.skipif(sys.platform != "linux", reason="others do not tell how much has come")
def test_a_message_without_an_end_is_cut_when_memory_is_short(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guests, "UNREAD_BYTES_OF_STRANGERS", 100_000)
    monkeypatch.setattr(guests, "UNREAD_BYTES", 200_000)
    frame = b"\x03" + (50_000).to_bytes(8, "big") + bytes(50_000)  # and more to come
    with hall.guest("k"), hall.stranger() as stranger, hall.stranger() as guest:
        for each in (stranger, guest):
            each.sendall(HELLO)
            said = b""
            while b"ROUTER" not in said:  # the end of what the other end says first
                said += each.recv(1000)
        guest.sendall(b"\0\x05hello")
        assert hall.router.poll(20_000)
        identity, message = hall.router.recv_multipart(copy=False)
        hall.guests.spoke(identity.bytes, int(message.get(zmq.SRCFD)), "g", [5, 5])
        for each in (stranger, guest):
            each.sendall(frame)
        hall.guests.relieve()
        assert hall.guests.n_cut == 0
        for each in (stranger, guest):
            for _ in range(2):
                each.sendall(frame)
        until_received(hall, 150_000, 2)
        hall.guests.relieve()
        assert hall.guests.n_cut == 1 and identity.bytes in hall.guests._by_identity
        until_cut(stranger)
        for _ in range(2):
            guest.sendall(frame)
        until_received(hall, 250_000, 1)
        hall.guests.relieve()
        assert hall.guests.look() == [identity.bytes] and hall.guests.n_cut == 2
        until_cut(guest)


def until_received(hall: Hall, n_bytes: int, n_guests: int) -> None:
    """Wait until so many guests have sent so much, as the kernel sees it."""
    for _ in range(1_000_000):
        have = [received(descriptor, hall.port) for descriptor in hall.guests._guests]
        if sum(n >= n_bytes for n in have) == n_guests:
            return
    raise AssertionError("it never came")


def test_one_is_cut_though_no_descriptor_is_left(hall: Hall) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack, hall.guest("k"):
        (identity,) = hall.guests._by_identity
        limit = max(map(int, os.listdir("/dev/fd"))) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                stack.callback(os.close, os.dup(0))
        hall.guests.cut(identity)
        assert hall.guests.look() == [identity]
        assert hall.guests.monitor.poll(20_000)  # ZeroMQ has noticed that it is closed
