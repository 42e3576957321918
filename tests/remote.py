"""A device's side of the network: a bare DEALER with keys, for tests of the daemon."""

import itertools
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from assistantd import protocol
from assistantd.network.devices import FILE_NAME, DeviceStore
from assistantd.network.keys import ServerKey
from assistantd.protocol import DeviceInfo, Done, Error, Limits, Reply, Request, Rights

WAIT_MS = 20_000


@dataclass(frozen=True)
class Keys:
    """A CURVE key pair, Z85."""

    public: str
    secret: str

    @classmethod
    def new(cls) -> "Keys":
        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())


def free_port() -> int:
    """A port that nobody listens at, and nobody at the next one."""
    while True:
        with socket.socket() as one, socket.socket() as next_one:
            one.bind(("", 0))
            port = int(one.getsockname()[1])
            try:
                next_one.bind(("", port + 1))
            except (OSError, OverflowError):
                continue
            return port


@dataclass
class Paired:
    """A device that the daemon of a data folder knows."""

    info: DeviceInfo
    keys: Keys
    server_key: str

    @property
    def id(self) -> str:
        """The device's."""
        return self.info.id


def pair(
    data: Path, *, name: str = "phone", rights: Rights = "chat", limits: Limits | None = None
) -> Paired:
    """Let a device in by writing to the data folder, while no daemon uses it."""
    keys = Keys.new()
    server_key = ServerKey.load_or_make(data / "network").public
    store = DeviceStore(data / "network" / FILE_NAME)
    info = store.add(
        name=name,
        kind="curve",
        rights=rights,
        limits=limits or Limits(requests_per_minute=1000),
        public_key=keys.public,
    )
    store.close()
    return Paired(info, keys, server_key)


@dataclass
class Line:
    """One connection of a device."""

    dealer: "zmq.Socket[bytes]"
    monitor: "zmq.Socket[bytes]"
    numbers: Iterator[int] = field(default_factory=itertools.count)
    passed_over: list[tuple[str, Reply]] = field(default_factory=list)
    """What came while the reply to another request was waited for."""

    def send(self, request: Request, request_id: str | None = None) -> str:
        """Send a request; returns its id."""
        name = request_id or f"{id(self):x}-{next(self.numbers)}"
        self.dealer.send_multipart(protocol.encode_request(name.encode(), request))
        return name

    def receive(self, request_id: str | None = None) -> Reply:
        """The next reply; to one request, if that is said."""
        for number, (name, reply) in enumerate(self.passed_over):
            if request_id in (None, name):
                del self.passed_over[number]
                return reply
        while True:
            if not self.dealer.poll(WAIT_MS):
                raise AssertionError("no reply came")
            raw, reply = protocol.decode_reply(self.dealer.recv_multipart())
            if request_id in (None, raw.decode()):
                return reply
            self.passed_over.append((raw.decode(), reply))

    def rest(self, request_id: str) -> tuple[str, Done | Error]:
        """What of an answer's text still comes, and its end."""
        text = ""
        while True:
            reply = self.receive(request_id)
            if isinstance(reply, protocol.Delta):
                text += reply.text
            elif isinstance(reply, Done | Error):
                return text, reply

    def ask(self, request: Request, request_id: str | None = None) -> Done | Error:
        """Send a request, and wait for its end."""
        return self.rest(self.send(request, request_id))[1]

    def wait_for(self, *events: int) -> int:
        """Wait until the connection has one of these events."""
        while True:
            if not self.monitor.poll(WAIT_MS):
                raise AssertionError("the connection did not change")
            frame, _endpoint = self.monitor.recv_multipart()
            kind = int.from_bytes(frame[:2], "little")
            if kind in events:
                return kind


@contextmanager
def line_to(
    endpoint: str,
    server_key: str | None = None,
    keys: Keys | None = None,
    routing_id: bytes = b"",
) -> Iterator[Line]:
    """A connection to a door: with keys, with wrong ones, or without any."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.rcvhwm = 0
        if routing_id:
            dealer.routing_id = routing_id
        if server_key is not None and keys is not None:
            dealer.curve_serverkey = server_key.encode()
            dealer.curve_publickey = keys.public.encode()
            dealer.curve_secretkey = keys.secret.encode()
        monitor = dealer.get_monitor_socket()
        dealer.connect(endpoint)
        try:
            yield Line(dealer, monitor)
        finally:
            dealer.disable_monitor()
            monitor.close(0)


@contextmanager
def device_at(port: int, device: Paired) -> Iterator[Line]:
    """A connection of a device."""
    with line_to(f"tcp://127.0.0.1:{port}", device.server_key, device.keys) as line:
        yield line
