"""Pairing with a real daemon: real processes, sockets, keys and mDNS."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import zmq

from assistantd import protocol
from assistantd.protocol import (
    DeviceInfo,
    Devices,
    Done,
    Error,
    Limits,
    Network,
    Pair,
    PairingInfo,
    Ping,
    Request,
)
from assistantd.protocol_pairing import Start, decode_from_daemon, encode, spake_device
from clients import Client, RequestError, servers
from clients.pairing import Paired, PairingFailed, pair
from tests.assistantd.network.parts import free_port
from tests.clients.scripted_daemon import WAIT_S
from tests.clients.test_pairing import Frames, middle
from tests.running import RunningDaemon

COMMAND = [sys.executable, "-m", "clients.cli"]


class Owner:
    """Whoever sits at the daemon's machine, with its network on."""

    def __init__(self, daemon: RunningDaemon, client: Client) -> None:
        self.daemon, self.client = daemon, client
        self.port = free_port()
        client.request(Network(op="on", address="127.0.0.1", port=self.port))

    def open(self, **options: object) -> PairingInfo:
        info = self.client.request(Pair(op="open", **options)).pairing  # type: ignore[arg-type]
        assert info is not None
        return info

    def devices(self) -> list[DeviceInfo]:
        return self.client.request(Devices(op="list")).devices or []


@pytest.fixture
def owner(daemon: RunningDaemon) -> Iterator[Owner]:
    with daemon.client() as client:
        owner = Owner(daemon, client)
        yield owner
        client.request(Pair(op="close"))
        client.request(Network(op="off"))
        for device in owner.devices():
            client.request(Devices(op="revoke", id=device.id))


def ask(paired: Paired, request: Request) -> Done | Error:
    """Ask with the keys that were paired; every reply but the last is passed over."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 0)
        dealer.set(zmq.RCVTIMEO, int(1000 * WAIT_S))
        dealer.set(zmq.CURVE_SERVERKEY, paired.server_key.encode())
        dealer.set(zmq.CURVE_PUBLICKEY, paired.public_key.encode())
        dealer.set(zmq.CURVE_SECRETKEY, paired.secret_key.encode())
        dealer.connect(paired.endpoint)
        dealer.send_multipart(protocol.encode_request(b"1", request))
        while True:
            _id, reply = protocol.decode_reply(dealer.recv_multipart())
            if isinstance(reply, Done | Error):
                return reply


def another(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("by", ["code", "secret"])
def test_a_device_pairs_and_asks(owner: Owner, by: str) -> None:
    info = owner.open(limits=Limits(max_tokens=5))
    assert info.port == owner.port + 1 and info.hosts == ["127.0.0.1"]
    status = owner.client.request(Network(op="status")).network
    assert status is not None and status.pairing == f"tcp://127.0.0.1:{owner.port + 1}"
    assert status.fingerprint == info.fingerprint
    paired = pair("127.0.0.1", owner.port, getattr(info, by), "laptop")
    device = owner.client.request(Pair(op="wait")).device
    assert device is not None and [device] == owner.devices()
    assert (device.name, device.words) == ("laptop", paired.words)
    # the keys are good at once
    reply = ask(paired, protocol.Chat(text="Hello", max_tokens=50, temperature=0))
    assert isinstance(reply, Done) and reply.timings is not None
    assert reply.timings.completion_tokens <= 5
    whoami = ask(paired, Devices(op="whoami"))
    assert isinstance(whoami, Done) and whoami.device is not None
    assert whoami.device.id == paired.device.id == device.id
    refused = ask(paired, Pair(op="open"))
    assert isinstance(refused, Error) and refused.error.code == "unauthorized"
    # the code is used up, and nothing listens for another
    with pytest.raises(PairingFailed):
        pair("127.0.0.1", owner.port, getattr(info, by), "thief")
    with pytest.raises(RequestError):
        owner.client.request(Pair(op="claim", code=info.code, name="thief"))
    assert not is_open(owner.port + 1)
    owner.client.request(Devices(op="revoke", id=device.id))


def test_an_admin_may_pair_others_but_not_try_codes(owner: Owner) -> None:
    info = owner.open(rights="admin")
    paired = pair("127.0.0.1", owner.port, info.code, "desk")
    opened = ask(paired, Pair(op="open"))
    assert isinstance(opened, Done) and opened.pairing is not None
    claimed = ask(paired, Pair(op="claim", code=opened.pairing.code, name="x"))
    assert isinstance(claimed, Error) and claimed.error.code == "unauthorized"
    pair("127.0.0.1", owner.port, opened.pairing.code, "another")
    assert [device.rights for device in owner.devices()] == ["admin", "chat"]


def test_a_browser_by_the_gateway(owner: Owner) -> None:
    info = owner.open()
    done = owner.client.request(Pair(op="claim", code=info.secret, name="phone"))
    assert done.device is not None and done.token is not None and done.device.kind == "web"
    known = owner.client.request(Devices(op="authenticate", token=done.token)).device
    assert known is not None and known.id == done.device.id
    for code in (info.secret, info.code):
        with pytest.raises(RequestError) as refused:
            owner.client.request(Pair(op="claim", code=code, name="thief"))
        assert refused.value.code == "unauthorized"
    assert done.token not in owner.daemon.log.read_text()


def test_what_was_recorded_is_refused(owner: Owner) -> None:
    heard: list[Frames] = []

    def listen(_count: int, frames: Frames) -> Frames:
        heard.append(frames)
        return frames

    info = owner.open()
    with middle(owner, listen) as port:
        pair("127.0.0.1", port, info.code, "laptop")
    owner.open()
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 0)
        dealer.set(zmq.RCVTIMEO, int(1000 * WAIT_S))
        dealer.connect(f"tcp://127.0.0.1:{owner.port + 1}")
        said = []
        for frames in heard[::2]:  # those of the device
            dealer.send_multipart(frames)
            said.append(type(decode_from_daemon(dealer.recv_multipart())).__name__)
    assert said[:2] == ["Started", "Refused"] and "Confirmed" not in said
    assert len(owner.devices()) == 1


def test_five_wrong_codes(owner: Owner) -> None:
    info = owner.open()
    for left in (4, 3, 2, 1, 0):
        with pytest.raises(PairingFailed) as failed:
            pair("127.0.0.1", owner.port, another(info.code), "thief")
        assert failed.value.tries_left == left
    with pytest.raises(RequestError) as ended:
        owner.client.request(Pair(op="wait"))
    assert ended.value.code == "unauthorized"
    with pytest.raises(RequestError):
        owner.client.request(Pair(op="claim", code=info.code, name="late"))
    assert owner.devices() == []
    log = owner.daemon.log.read_text()
    assert log.count("pairing refused by=curve reason=wrong") >= 5
    assert info.code not in log and info.secret not in log


def test_ten_thousand_guesses(own_daemon: RunningDaemon) -> None:
    """As fast as the sockets take them, by both ways that lead in."""
    own_daemon.start()
    with own_daemon.client() as client, zmq.Context() as context:
        owner = Owner(own_daemon, client)
        info = owner.open()
        dealer = context.socket(zmq.DEALER)
        dealer.set(zmq.LINGER, 0)
        dealer.set(zmq.RCVTIMEO, int(1000 * WAIT_S))
        dealer.connect(own_daemon.endpoint)
        guesses = (code for n in range(10_001) if (code := f"{n:06}") != info.code)
        for sent, code in zip(range(10_000), guesses, strict=False):
            request = Pair(op="claim", code=code, name="thief")
            dealer.send_multipart(protocol.encode_request(b"%d" % sent, request))
            if sent >= 50:  # so many are under way
                assert isinstance(protocol.decode_reply(dealer.recv_multipart())[1], Error)
        for _ in range(50):
            assert isinstance(protocol.decode_reply(dealer.recv_multipart())[1], Error)
        dealer.close()
        assert owner.devices() == []

        owner.open()
        start = encode(Start(message=spake_device("code", "000000").start(), password="code"))
        dealer = context.socket(zmq.DEALER)
        dealer.set(zmq.LINGER, 0)
        dealer.set(zmq.SNDHWM, 20_000)
        dealer.connect(f"tcp://127.0.0.1:{owner.port + 1}")
        for _ in range(10_000):
            dealer.send_multipart(start)
        with pytest.raises(RequestError) as ended:
            client.request(Pair(op="wait"))
        assert ended.value.code == "unauthorized"
        dealer.close()
        assert owner.devices() == []

        # alive, and ready for who has the right code
        assert isinstance(client.request(Ping()), Done)
        pair("127.0.0.1", owner.port, owner.open().secret, "laptop")
        assert [device.name for device in owner.devices()] == ["laptop"]
    assert own_daemon.stop() == 0
    assert "Traceback" not in own_daemon.log.read_text()


def test_garbage_leaves_the_daemon_as_it_was(owner: Owner) -> None:
    owner.open()
    with socket.create_connection(("127.0.0.1", owner.port + 1)) as one:
        one.sendall(os.urandom(100_000))
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 0)
        dealer.connect(f"tcp://127.0.0.1:{owner.port + 1}")
        for size in (0, 1, 100, 4096, 5000, 100_000):
            dealer.send_multipart([os.urandom(size)] * 3)
        assert isinstance(owner.client.request(Ping()), Done)
    pair("127.0.0.1", owner.port, owner.open().code, "laptop")


def test_it_listens_only_while_it_must(owner: Owner) -> None:
    assert is_open(owner.port) and not is_open(owner.port + 1)
    info = owner.open()
    assert is_open(owner.port + 1)
    owner.client.request(Network(op="off"))
    owner.client.request(Pair(op="close"))  # by then the network's end has been dealt with
    assert not is_open(owner.port + 1)
    assert owner.open().port is None
    with pytest.raises(RequestError):
        owner.client.request(Pair(op="claim", code=info.code, name="late"))
    other = free_port()
    owner.client.request(Network(op="on", address="127.0.0.1", port=other))
    info = owner.open()
    assert info.port == other + 1 and is_open(other + 1)
    pair("127.0.0.1", other, info.code, "laptop")


def test_the_two_commands(owner: Owner) -> None:
    """`assistant pair` here, `assistant connect` there, which finds it by itself."""
    environment = {**os.environ, "ASSISTANTD_ENDPOINT": owner.daemon.endpoint}
    with subprocess.Popen(
        [*COMMAND, "pair", "--json"], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        info = json.loads(process.stdout.readline())
        done = subprocess.run(
            [*COMMAND, "connect", info["pairing"]["code"], "--wait", "15", "--name", "home"],
            capture_output=True,
            text=True,
            timeout=4 * WAIT_S,
        )
        assert done.returncode == 0, done.stderr
        device = json.loads(process.stdout.readline())
    assert process.returncode == 0
    assert info["url"] == f"https://127.0.0.1:8443/pair#{info['pairing']['secret']}"
    assert device["words"] in done.stdout and info["pairing"]["fingerprint"] in done.stdout
    (kept,) = servers.load()
    assert (kept.name, kept.device, kept.words) == ("home", device["id"], device["words"])
    assert [known.id for known in owner.devices()] == [kept.device]
