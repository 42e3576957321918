"""Devices, and others, at the network's door of the real daemon with the real model."""

import contextlib
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zmq

from assistantd import protocol
from assistantd.network import guests
from assistantd.protocol import (
    Cancel,
    Chat,
    Complete,
    Delta,
    Devices,
    Done,
    Error,
    Models,
    Network,
    Ping,
    Progress,
    Resume,
    Sessions,
    Shutdown,
)
from tests.e2e.network.conftest import Home, switch_on
from tests.e2e.test_many_clients import GARBAGE
from tests.remote import Keys, Line, device_at, line_to
from tests.running import RunningDaemon

NO_END = {"2": -100.0}
"""Keeps the model from ending its answer."""
N_HALF_OPEN = 1000
GREETING = b"\xff" + 8 * b"\0" + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + 32 * b"\0"


def code(reply: object) -> str:
    assert isinstance(reply, Error), reply
    return reply.error.code


def some(line: Line, request_id: str, n_pieces: int) -> str:
    """The first pieces of an answer."""
    text = ""
    while n_pieces:
        reply = line.receive(request_id)
        if isinstance(reply, Delta):
            text += reply.text
            n_pieces -= 1
        else:
            assert isinstance(reply, Progress), reply
    return text


# --- who comes in ----------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["plain text", "wrong server key", "unknown key"])
def test_who_is_not_paired_stays_outside(home: Home, who: str) -> None:
    given: tuple[str | None, Keys | None] = (None, None)
    if who == "wrong server key":
        given = (Keys.new().public, home.phone.keys)
    elif who == "unknown key":
        given = (home.phone.server_key, Keys.new())
    with line_to(home.endpoint, *given) as line:
        line.send(Ping())
        is_told = who == "unknown key"
        line.wait_for(zmq.EVENT_HANDSHAKE_FAILED_AUTH if is_told else zmq.EVENT_DISCONNECTED)
        assert not line.dealer.poll(0)
    with device_at(home.port, home.phone) as phone:
        assert isinstance(phone.ask(Ping()), Done)


def test_what_is_no_zeromq_is_told_nothing(home: Home) -> None:
    said = b""
    with socket.create_connection(("127.0.0.1", home.port), 20) as web:
        web.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            while piece := web.recv(1000):
                said += piece
    assert b"assistant" not in said and len(said) <= len(GREETING)


def test_a_device_speaks_for_nobody_else(home: Home) -> None:
    for device in (home.phone, home.laptop):
        with device_at(home.port, device) as line:
            refused = line.ask(Chat(text="Hi", max_tokens=1, device=home.watch.id))
            assert code(refused) == "bad_request"


def test_rights(home: Home) -> None:
    forbidden = (Shutdown(), Network(op="off"), Devices(op="list"), Models(op="unload"))
    with device_at(home.port, home.phone) as phone:
        for request in forbidden:
            assert code(phone.ask(request)) == "unauthorized"
        status = phone.ask(protocol.Status())
        assert isinstance(status, Done) and status.status is not None
        assert status.status.model is not None and "/" not in status.status.model.name
    with device_at(home.port, home.laptop) as laptop:
        listed = laptop.ask(Devices(op="list"))
        assert isinstance(listed, Done) and listed.devices is not None
        seen = {device.name: device.last_seen_at for device in listed.devices}
        assert seen["phone"] is not None and seen["watch"] is None


def test_limits(home: Home) -> None:
    with device_at(home.port, home.limited) as line:
        first = line.send(Chat(text="Count.", max_tokens=2000, logit_bias=NO_END))
        _text, done = line.rest(first)
        assert isinstance(done, Done) and done.timings is not None
        assert done.finish_reason == "length" and done.timings.completion_tokens == 5
        codes = [line.ask(Ping()) for _ in range(5)]
        assert [isinstance(reply, Done) for reply in codes] == [True] * 3 + [False] * 2
        refused = codes[-1]
        assert isinstance(refused, Error) and refused.error.code == "busy"
        assert refused.error.retry_after_ms is not None
        # what ends work is taken all the same
        assert isinstance(line.ask(Cancel(target=first)), Done)


def test_sessions_of_devices_are_their_own(home: Home) -> None:
    def listed(line: Line) -> list[str]:
        done = line.ask(Sessions(op="list"))
        assert isinstance(done, Done) and done.sessions is not None
        return [session.id for session in done.sessions]

    with (
        device_at(home.port, home.phone) as phone,
        device_at(home.port, home.watch) as watch,
        device_at(home.port, home.laptop) as laptop,
        line_to(home.daemon.endpoint) as local,
    ):
        for line, text in ((phone, "My name is Ann."), (watch, "My name is Bob.")):
            done = line.ask(Chat(text=text, session="s", max_tokens=3))
            assert isinstance(done, Done) and done.session is not None
            assert done.session.id == "s"
        assert listed(phone) == listed(watch) == ["s"]
        shown = phone.ask(Sessions(op="show", session="s"))
        assert isinstance(shown, Done) and shown.session is not None
        assert shown.session.messages is not None
        assert shown.session.messages[0].content == "My name is Ann."
        assert set(listed(local)) == set(listed(laptop))
        assert {f"{home.phone.id}.s", f"{home.watch.id}.s"} <= set(listed(local))
        foreign = Sessions(op="show", session=f"{home.watch.id}.s")
        assert code(phone.ask(foreign)) == "not_found"
        # the gateway on this machine, for the phone
        done = local.ask(Sessions(op="show", session="s", device=home.phone.id))
        assert isinstance(done, Done) and done.session == shown.session


# --- answers that outlive connections --------------------------------------------------------


def test_an_answer_is_whole_though_its_connection_was_lost(home: Home) -> None:
    question = Chat(text="Tell me about the sea.", temperature=0, seed=7, max_tokens=120)
    with home.daemon.client() as client, device_at(home.port, home.phone) as line:
        expected, done = line.rest(line.send(question))
        assert isinstance(done, Done) and done.text == expected
        before = home.status(client)
        with device_at(home.port, home.phone) as first:
            first.send(question, "broken-1")
            heard = some(first, "broken-1", 3)
        for _ in range(2):
            with device_at(home.port, home.phone) as again:
                resumed = again.send(Resume(target="broken-1", offset=len(heard)))
                heard += some(again, resumed, 1)
        with device_at(home.port, home.phone) as last:
            rest, done = last.rest(last.send(Resume(target="broken-1", offset=len(heard))))
        assert isinstance(done, Done) and heard + rest == done.text == expected
        after = home.status(client)
        assert after.requests_served == before.requests_served + 1
    answered = [
        text
        for text in home.daemon.log.read_text().splitlines()
        if " answered " in text and "broken-1" in text
    ]
    assert len(answered) == 1 and f"device={home.phone.id}" in answered[0]


def test_the_same_question_twice_is_answered_once(home: Home) -> None:
    question = Complete(prompt="One, two, three,", max_tokens=40, seed=1)
    with (
        home.daemon.client() as client,
        device_at(home.port, home.phone) as first,
        device_at(home.port, home.phone) as second,
    ):
        before = home.status(client)
        first.send(question, "twice-1")
        heard = some(first, "twice-1", 2)
        second.send(question, "twice-1")
        first.send(question, "twice-1")
        whole, done = second.rest("twice-1")
        assert isinstance(done, Done) and whole == done.text
        again, _done = first.rest("twice-1")  # the rest, and in it all of it once more
        assert (heard + again).count(whole) >= 1 and again.endswith(whole[-5:])
        assert home.status(client).requests_served == before.requests_served + 1


def test_a_revoked_device_is_out_at_once(home: Home) -> None:
    endless = Chat(text="Go on for ever.", max_tokens=1500, logit_bias=NO_END)
    with (
        home.daemon.client() as client,
        line_to(home.daemon.endpoint) as local,
        device_at(home.port, home.lost) as lost,
    ):
        watching = local.send(Devices(op="watch"))
        assert local.receive(watching) == Progress("devices", "")
        mine = lost.send(endless)
        some(lost, mine, 2)
        assert isinstance(local.ask(Devices(op="revoke", id=home.lost.id)), Done)
        assert local.receive(watching) == Progress("devices", home.lost.id)
        _text, end = lost.rest(mine)
        assert code(end) == "unauthorized"
        for request in (Chat(text="Hi"), Resume(target=mine), Ping(), Cancel(target=mine)):
            assert code(lost.ask(request)) == "unauthorized"
        home.status(client)  # nothing is computed for it any more
        with device_at(home.port, home.lost) as again:
            again.send(Ping())
            again.wait_for(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        assert code(local.ask(Ping(device=home.lost.id))) == "unauthorized"
        assert isinstance(local.ask(Cancel(target=watching)), Done)
    log = home.daemon.log.read_text()
    assert "device revoked" in log and "refused on the network" in log


# --- crowds ----------------------------------------------------------------------------------


@contextmanager
def half_open(port: int, number: int) -> Iterator[list[socket.socket]]:
    """Connections that never finish a handshake; some of them begin it, byte by byte."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    over = threading.Event()

    def talk_slowly() -> None:
        for byte in GREETING:
            for connection in crowd[::10]:
                try:
                    connection.send(bytes([byte]))
                except OSError:
                    continue  # cut
            if over.wait(0.05):
                return

    with ExitStack() as stack:
        crowd = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            for _ in range(number)
        ]
        slow = threading.Thread(target=talk_slowly)
        slow.start()
        try:
            yield crowd
        finally:
            over.set()
            slow.join()


def descriptors(daemon: RunningDaemon) -> int:
    assert daemon.process is not None
    return len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))


def test_a_thousand_half_open_connections(home: Home) -> None:
    with home.daemon.client() as client, device_at(home.port, home.phone) as phone:
        assert isinstance(phone.ask(Ping()), Done)
        before = descriptors(home.daemon)
        with half_open(home.port, N_HALF_OPEN) as crowd:
            answer = client.ask("What is the capital of France?", max_tokens=20, temperature=0)
            assert "Paris" in answer.wait().text
            assert isinstance(phone.ask(Chat(text="Hi", max_tokens=3)), Done)
            with device_at(home.port, home.watch) as watch:  # and others still come in
                assert isinstance(watch.ask(Ping()), Done)
            with contextlib.suppress(ConnectionResetError):
                while crowd[0].recv(100):  # until it is cut
                    pass
            assert descriptors(home.daemon) <= before + guests.MAX_STRANGERS + 10
    log = home.daemon.log.read_text()
    assert log.count("a connection was cut") < 100


def test_garbage(home: Home) -> None:
    with device_at(home.port, home.phone) as phone, home.daemon.client() as client:
        for _ in range(50):
            for frames in GARBAGE:
                if sum(map(len, frames)) < 100_000:
                    phone.dealer.send_multipart(frames)
        assert client.ask("Hi", max_tokens=3).wait().text
        phone.send(Ping(), "ping")
        while True:
            assert phone.dealer.poll(60_000)
            frames = phone.dealer.recv_multipart()
            # some garbage begins like a REQ's envelope, and is answered in one
            name, reply = protocol.decode_reply(frames[1:] if not frames[0] else frames)
            if name == b"ping":
                assert isinstance(reply, Done)
                break
            assert isinstance(reply, Error)
        oversized = [protocol.PROTOCOL, b"1", bytes(2 * protocol.MAX_BODY_BYTES)]
        phone.dealer.send_multipart(oversized)
        phone.wait_for(zmq.EVENT_DISCONNECTED)
        assert isinstance(phone.ask(Ping()), Done)
    assert home.daemon.log.read_text().count("bad request on the network") < 30


# --- restarts --------------------------------------------------------------------------------


def test_a_restart_keeps_the_network_on_and_forgets_answers(own_daemon: RunningDaemon) -> None:
    from tests.remote import free_port, pair

    device = pair(own_daemon.folder / "data")
    port = free_port()
    own_daemon.start()
    switch_on(own_daemon, port)
    question = Chat(text="Count.", session="s", max_tokens=400, logit_bias=NO_END)
    with device_at(port, device) as line:
        line.send(question, "over-1")
        heard = some(line, "over-1", 2)
        own_daemon.kill()
        line.wait_for(zmq.EVENT_DISCONNECTED)
        own_daemon.start()
        assert code(line.ask(Resume(target="over-1", offset=len(heard)))) == "not_found"
        text, done = line.rest(line.send(question, "over-1"))  # and so it is asked again
        assert isinstance(done, Done) and text == done.text and done.session is not None
    assert own_daemon.stop() == 0
