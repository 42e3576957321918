"""Devices at the real doors of a daemon whose engine does a step when the test says so."""

import contextlib
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zmq

from assistantd import protocol
from assistantd.config import LimitsConfig
from assistantd.network import guests
from assistantd.network.door import MAX_MESSAGE_BYTES
from assistantd.protocol import (
    Cancel,
    Chat,
    Delta,
    Devices,
    Done,
    Error,
    Limits,
    Network,
    NetworkInfo,
    Pair,
    Ping,
    Progress,
    Resume,
    Sessions,
    Status,
)
from tests.assistantd.stepped import Running
from tests.remote import Keys, Line, Paired, device_at, free_port, line_to, pair

LIMITS = LimitsConfig(max_active=4, max_queue=8)
REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH
BROKEN_OFF = (
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_DISCONNECTED,
)


class Home:
    """A daemon with its network on, the local user's connection, and devices."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "d"
        self.port = free_port()
        self.phone = pair(self.data, name="phone")
        self.watch = pair(self.data, name="watch")
        self.admin = pair(self.data, name="laptop", rights="admin")
        self.stack = ExitStack()

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start(self, *, on: bool = True) -> "Home":
        self.running = self.stack.enter_context(Running(self.folder, LIMITS))
        self.engine = self.running.engine
        self.local = self.stack.enter_context(line_to(self.running.endpoint))
        if on:
            assert self.switch("on", address="127.0.0.1", port=self.port).on
        return self

    def stop(self) -> None:
        self.stack.close()

    def switch(self, op: str, **fields: object) -> NetworkInfo:
        done = self.local.ask(Network(op=op, **fields))  # type: ignore[arg-type]
        assert isinstance(done, Done) and done.network is not None, done
        return done.network

    @contextmanager
    def line(self, device: Paired) -> Iterator[Line]:
        with device_at(self.port, device) as line:
            yield line

    def until(self, active: int) -> None:
        """Ask for the status until so many answers are computed, and none waits."""
        for _ in range(100_000):
            done = self.local.ask(Status())
            assert isinstance(done, Done) and done.status is not None
            if (done.status.queue.active, done.status.queue.waiting) == (active, 0):
                return
        raise AssertionError("it never came to that")


@pytest.fixture
def home() -> Iterator[Home]:
    found = Home(Path(tempfile.mkdtemp(prefix="an-")))
    yield found
    found.stop()


def code(reply: object) -> str:
    assert isinstance(reply, Error), reply
    return reply.error.code


# --- coming in -------------------------------------------------------------------------------


def test_the_status_names_no_folder_of_the_daemons_machine(home: Home) -> None:
    (home.data / "sessions.db").write_bytes(b"damaged" * 1000)
    home.start()
    local = home.local.ask(Status())
    assert isinstance(local, Done) and local.status and str(home.data) in local.status.message
    with home.line(home.phone) as phone:
        done = phone.ask(Status())
    assert isinstance(done, Done) and done.status and "sessions.db" in done.status.message
    assert str(home.folder) not in str(done)


def test_a_paired_device_is_answered(home: Home) -> None:
    home.start()
    home.engine.free_running = True
    with home.line(home.phone) as phone:
        done = phone.ask(Chat(text="abc", max_tokens=3))
        assert isinstance(done, Done) and done.text == "aaa"
        who = phone.ask(Devices(op="whoami"))
        assert isinstance(who, Done) and who.device is not None
        assert who.device.id == home.phone.id
    me = home.local.ask(Devices(op="whoami"))
    assert isinstance(me, Done) and me.device is None


@pytest.mark.parametrize("who", ["stranger", "revoked", "wrong server", "no key"])
def test_nobody_else_comes_in(home: Home, who: str) -> None:
    home.start()
    keys, server_key = home.phone.keys, home.phone.server_key
    if who == "stranger":
        keys = Keys.new()
    elif who == "revoked":
        assert isinstance(home.local.ask(Devices(op="revoke", id=home.phone.id)), Done)
    elif who == "wrong server":
        server_key = Keys.new().public
    given = (None, None) if who == "no key" else (server_key, keys)
    with line_to(home.endpoint, *given) as line:
        line.send(Ping())
        if who in ("stranger", "revoked"):
            line.wait_for(REFUSED)
        else:
            line.wait_for(*BROKEN_OFF)
        assert not line.dealer.poll(0)
    # the door is as open as before for others
    with home.line(home.watch) as watch:
        assert isinstance(watch.ask(Ping()), Done)


def test_a_chosen_routing_id_is_refused(home: Home) -> None:
    home.start()
    keys = (home.phone.server_key, home.phone.keys)
    with line_to(home.endpoint, *keys, routing_id=b"phone") as line:
        reply = line.ask(Ping())
        assert code(reply) == "bad_request"


def test_only_local_programs_say_for_whom_they_speak(home: Home) -> None:
    home.start()
    with home.line(home.phone) as phone, home.line(home.admin) as admin:
        for line in (phone, admin):
            for device in (home.phone.id, home.watch.id):
                assert code(line.ask(Ping(device=device))) == "bad_request"
    who = home.local.ask(Devices(op="whoami", device=home.phone.id))
    assert isinstance(who, Done) and who.device is not None and who.device.id == home.phone.id
    assert code(home.local.ask(Network(op="off", device=home.phone.id))) == "unauthorized"
    assert code(home.local.ask(Ping(device="nothere7"))) == "unauthorized"


def test_what_is_too_large(home: Home) -> None:
    home.start()
    with home.line(home.phone) as phone:
        frames = [protocol.PROTOCOL, b"1", b"x" * (protocol.MAX_BODY_BYTES + 1)]
        phone.dealer.send_multipart(frames)
        assert code(phone.receive("1")) == "too_large"
        phone.dealer.send_multipart([protocol.PROTOCOL, b"2", b"x" * MAX_MESSAGE_BYTES])
        phone.wait_for(zmq.EVENT_DISCONNECTED)
        assert isinstance(phone.ask(Ping()), Done)  # over the next connection


def test_the_rights_of_an_admin(home: Home) -> None:
    home.start()
    with home.line(home.admin) as admin, home.line(home.phone) as phone:
        listed = admin.ask(Devices(op="list"))
        assert isinstance(listed, Done) and listed.devices is not None
        assert [device.name for device in listed.devices] == ["phone", "watch", "laptop"]
        assert code(phone.ask(Devices(op="list"))) == "unauthorized"
        assert isinstance(admin.ask(Devices(op="revoke", id=home.watch.id)), Done)
        assert code(admin.ask(Devices(op="show", id=home.watch.id))) == "not_found"


def test_a_program_gets_a_token(home: Home) -> None:
    home.start(on=False)
    added = home.local.ask(Devices(op="add", name="script", limits=Limits(concurrent=1)))
    assert isinstance(added, Done) and added.device is not None and added.token is not None
    assert (added.device.kind, added.device.rights) == ("api", "chat")
    known = home.local.ask(Devices(op="authenticate", token=added.token))
    assert isinstance(known, Done) and known.device is not None
    assert known.device.id == added.device.id and known.token is None
    assert code(home.local.ask(Devices(op="authenticate", token="x"))) == "unauthorized"
    assert isinstance(home.local.ask(Devices(op="rename", id=added.device.id, name="y")), Done)
    limit = Devices(op="limit", id=added.device.id, rights="admin")
    limited = home.local.ask(limit)
    assert isinstance(limited, Done) and limited.device is not None
    assert (limited.device.name, limited.device.rights) == ("y", "admin")
    assert isinstance(home.local.ask(Devices(op="revoke", id=added.device.id)), Done)
    assert code(home.local.ask(Devices(op="authenticate", token=added.token))) == "unauthorized"
    assert code(home.local.ask(Devices(op="revoke", id=added.device.id))) == "not_found"


# --- revoking --------------------------------------------------------------------------------


def test_revoking_ends_what_is_under_way(home: Home) -> None:
    home.start()
    with home.line(home.phone) as phone, home.line(home.watch) as watch:
        mine = phone.send(Chat(text="p", max_tokens=1000, session="s"))
        other = watch.send(Chat(text="w", max_tokens=2))
        home.until(active=2)
        home.engine.allow.release(1)
        assert isinstance(phone.receive(mine), Delta) and isinstance(watch.receive(other), Delta)
        gateway = home.local.send(Chat(text="g", max_tokens=1000, device=home.phone.id))
        assert isinstance(home.local.ask(Devices(op="revoke", id=home.phone.id)), Done)
        assert code(phone.receive(mine)) == "unauthorized"
        assert code(home.local.receive(gateway)) == "unauthorized"
        # its connection lives, and is told so for whatever it asks
        assert code(phone.ask(Chat(text="p"))) == "unauthorized"
        assert code(phone.ask(Resume(target=mine))) == "unauthorized"
        assert code(phone.ask(Cancel(target=mine))) == "unauthorized"
        home.engine.allow.release(1)
        text, done = watch.rest(other)
        assert isinstance(done, Done) and (text, done.text) == ("w", "ww")
        home.until(active=0)
        assert len(home.engine.sequences) == 0


def test_a_revoked_admin_watches_no_longer(home: Home) -> None:
    home.start()
    with home.line(home.admin) as admin:
        watching = admin.send(Devices(op="watch"))
        assert admin.receive(watching) == Progress("devices", "")
        home.local.ask(Devices(op="rename", id=home.phone.id, name="x"))
        assert admin.receive(watching) == Progress("devices", home.phone.id)
        home.local.ask(Devices(op="revoke", id=home.admin.id))
        assert code(admin.receive(watching)) == "unauthorized"


@pytest.mark.parametrize("how", ["revoke", "limit"])
def test_a_code_ends_with_the_rights_of_who_opened_it(home: Home, how: str) -> None:
    """Or who is shut out could let himself in again for five minutes."""
    home.start()
    with home.line(home.admin) as admin:
        done = admin.ask(Pair(op="open", rights="admin"))
    assert isinstance(done, Done) and done.pairing is not None
    home.local.send(Pair(op="wait"), "wait")
    admin_id = home.admin.id
    assert isinstance(home.local.ask(Devices(op="rename", id=admin_id, name="other")), Done)
    home.local.ask(Devices(op=how, id=admin_id, rights="chat"))  # type: ignore[arg-type]
    assert code(home.local.rest("wait")[1]) == "not_found"
    claim = Pair(op="claim", code=done.pairing.secret, name="thief")
    assert code(home.local.ask(claim)) == "unauthorized"
    # and that of somebody else stays open
    own = home.local.ask(Pair(op="open"))
    assert isinstance(own, Done) and own.pairing is not None
    home.local.ask(Devices(op="revoke", id=home.watch.id))
    assert isinstance(home.local.ask(Pair(op="claim", code=own.pairing.code, name="tv")), Done)


def test_who_may_no_longer_let_in_does_not_hear_who_came(home: Home) -> None:
    home.start()
    opened = home.local.ask(Pair(op="open"))
    assert isinstance(opened, Done) and opened.pairing is not None
    with home.line(home.admin) as admin:
        admin.send(Pair(op="wait"), "wait")
        assert isinstance(admin.ask(Ping()), Done)
        home.local.ask(Devices(op="limit", id=home.admin.id, rights="chat"))
        claim = Pair(op="claim", code=opened.pairing.code, name="tv")
        assert isinstance(home.local.ask(claim), Done)
        assert code(admin.rest("wait")[1]) == "unauthorized"


def test_who_may_no_longer_watch_is_told_so(home: Home) -> None:
    home.start()
    with home.line(home.admin) as admin:
        watching = admin.send(Devices(op="watch"))
        assert admin.receive(watching) == Progress("devices", "")
        home.local.ask(Devices(op="limit", id=home.admin.id, rights="chat"))
        assert code(admin.receive(watching)) == "unauthorized"
        assert code(admin.ask(Devices(op="watch"))) == "unauthorized"


def test_watching_hears_of_every_change_until_it_is_cancelled(home: Home) -> None:
    home.start(on=False)
    watching = home.local.send(Devices(op="watch"))
    assert home.local.receive(watching) == Progress("devices", "")
    with line_to(home.running.endpoint) as other:
        added = other.ask(Devices(op="add", name="script"))
        assert isinstance(added, Done) and added.device is not None
        other.ask(Devices(op="rename", id=added.device.id, name="x"))
        other.ask(Devices(op="limit", id=added.device.id, rights="admin"))
        other.ask(Devices(op="revoke", id=added.device.id))
    for _ in range(4):
        assert home.local.receive(watching) == Progress("devices", added.device.id)
    home.local.send(Cancel(target=watching))
    for _ in range(2):  # of the watch, and of the cancel
        done = home.local.receive()
        assert isinstance(done, Done) and done.message == "cancelled"


# --- answers that go on ----------------------------------------------------------------------


def test_an_answer_goes_on_when_its_connection_is_gone(home: Home) -> None:
    home.start()
    with home.line(home.phone) as phone:
        asked = phone.send(Chat(text="abc", max_tokens=6), "mine")
        home.engine.allow.release(2)
        assert [phone.receive(asked), phone.receive(asked)] == [Delta("a")] * 2
    home.engine.allow.release(2)
    with home.line(home.phone) as phone, home.line(home.watch) as watch:
        resumed = phone.send(Resume(target="mine", offset=2))
        assert code(watch.ask(Resume(target="mine", offset=2))) == "not_found"
        home.engine.allow.release(2)
        text, done = phone.rest(resumed)
        assert isinstance(done, Done) and (text, done.text) == ("aaaa", "aaaaaa")
        # and after its end, from anywhere in it
        text, again = phone.rest(phone.send(Resume(target="mine", offset=5)))
        assert (text, again) == ("a", done)
        assert code(phone.ask(Resume(target="mine", offset=7))) == "bad_request"
        assert code(phone.ask(Resume(target="other"))) == "not_found"
    assert code(home.local.ask(Resume(target="mine"))) == "not_found"
    assert home.engine.started == ["abc"]


def test_the_same_question_twice_is_asked_once(home: Home) -> None:
    home.start()
    question = Chat(text="abc", max_tokens=4)
    with home.line(home.phone) as first, home.line(home.phone) as second:
        first.send(question, "mine")
        home.engine.allow.release(2)
        assert [first.receive(), first.receive()] == [Delta("a")] * 2
        second.send(question, "mine")
        assert second.receive() == Delta("aa")
        first.send(question, "mine")  # over the same connection: from the beginning, too
        assert first.receive() == Delta("aa")
        home.engine.allow.release(2)
        for line in (first, second):
            text, done = line.rest("mine")
            assert isinstance(done, Done) and (text, done.text) == ("aa", "aaaa")
        other = Chat(text="xyz", max_tokens=4)
        assert code(first.ask(other, "mine")) == "bad_request"
    assert home.engine.started == ["abc"]


def test_cancelling_from_another_connection(home: Home) -> None:
    home.start()
    with home.line(home.phone) as first, home.line(home.watch) as watch:
        first.send(Chat(text="abc", max_tokens=100), "mine")
        home.engine.allow.release(1)
        assert first.receive() == Delta("a")
        # the id is another device's, or nobody's
        assert isinstance(watch.ask(Cancel(target="mine")), Done)
        assert isinstance(home.local.ask(Cancel(target="mine")), Done)
        home.engine.allow.release(1)
        assert first.receive() == Delta("a")
        with home.line(home.phone) as second:
            assert isinstance(second.ask(Cancel(target="mine")), Done)
        _text, done = first.rest("mine")
        assert isinstance(done, Done) and done.finish_reason == "cancelled"


def test_a_gateway_that_goes_leaves_its_devices_answers(home: Home) -> None:
    home.start(on=False)
    with line_to(home.running.endpoint) as gateway:
        device = home.phone.id
        gateway.send(Chat(text="abc", max_tokens=3, device=device), "page")
        gateway.send(Chat(text="x", max_tokens=3), "own")
        home.until(active=2)
        home.engine.allow.release(1)
        assert {type(gateway.receive()), type(gateway.receive())} == {Delta}
    home.engine.allow.release(2)
    text, done = home.local.rest(home.local.send(Resume(target="page", offset=1, device=device)))
    assert isinstance(done, Done) and (text, done.text) == ("aa", "aaa")
    home.until(active=0)


def test_so_many_answers_at_a_time(home: Home) -> None:
    laptop = pair(home.data, limits=Limits(requests_per_minute=1000, concurrent=1, max_tokens=2))
    home.start()
    with home.line(laptop) as line, home.line(laptop) as other:
        line.send(Chat(text="abc", max_tokens=500), "first")
        home.engine.allow.release(1)
        assert line.receive() == Delta("a")
        assert code(other.ask(Chat(text="x"))) == "busy"
        home.engine.allow.release(1)
        _text, done = line.rest("first")
        assert isinstance(done, Done) and done.text == "aa" and done.finish_reason == "length"
        other.send(Chat(text="x"), "second")
        home.engine.allow.release(2)
        assert other.rest("second")[0] == "xx"


def test_so_many_requests_a_minute(home: Home) -> None:
    laptop = pair(home.data, limits=Limits(requests_per_minute=2))
    home.start()
    with home.line(laptop) as line:
        assert [type(line.ask(Ping())) for _ in range(3)] == [Done, Done, Error]
        refused = line.ask(Ping())
        assert isinstance(refused, Error) and refused.error.code == "busy"
        assert refused.error.retry_after_ms is not None
        assert 0 < refused.error.retry_after_ms <= 30_000
        # as whoever speaks for it
        assert code(home.local.ask(Ping(device=laptop.id))) == "busy"
        assert isinstance(home.local.ask(Ping()), Done)


# --- sessions --------------------------------------------------------------------------------


def test_a_chat_device_has_sessions_of_its_own(home: Home) -> None:
    home.start()
    home.engine.free_running = True

    def sessions(line: Line) -> list[str]:
        done = line.ask(Sessions(op="list"))
        assert isinstance(done, Done) and done.sessions is not None
        return sorted(session.id for session in done.sessions)

    with home.line(home.phone) as phone, home.line(home.watch) as watch:
        for line in (phone, watch, home.local):
            done = line.ask(Chat(text="abc", session="s", max_tokens=1))
            assert isinstance(done, Done) and done.session is not None
            assert (done.session.id, done.session.n_messages) == ("s", 2)
        assert sessions(phone) == sessions(watch) == ["s"]
        assert sessions(home.local) == sorted(["s", f"{home.phone.id}.s", f"{home.watch.id}.s"])
        with home.line(home.admin) as admin:
            assert sessions(admin) == sessions(home.local)
        shown = phone.ask(Sessions(op="show", session="s"))
        assert isinstance(shown, Done) and shown.session is not None
        assert shown.session.messages is not None and len(shown.session.messages) == 2
        assert isinstance(phone.ask(Sessions(op="delete", session="s")), Done)
        assert sessions(phone) == [] and sessions(watch) == ["s"]
        # by no name does it come to those of others
        for name in (f"{home.watch.id}.s", "s"):
            for op in ("show", "delete"):
                reply = phone.ask(Sessions(op=op, session=name))  # type: ignore[arg-type]
                assert code(reply) == "not_found"
                assert isinstance(reply, Error) and home.phone.id not in reply.error.message
        assert sessions(home.local) == sorted(["s", f"{home.watch.id}.s"])


# --- on and off ------------------------------------------------------------------------------


def test_switching(home: Home) -> None:
    home.start(on=False)
    assert home.switch("status").on is False
    info = home.switch("on", address="127.0.0.1", port=home.port)
    assert (info.on, info.endpoint, info.hosts) == (True, home.endpoint, ["127.0.0.1"])
    assert info.public_key == home.phone.server_key
    assert home.switch("status") == info == home.switch("on", address="127.0.0.1", port=home.port)
    with home.line(home.phone) as phone:
        assert isinstance(phone.ask(Ping()), Done)
        assert home.switch("off").on is False
        phone.wait_for(zmq.EVENT_DISCONNECTED)
        # the same port again, at once; the same line comes back by itself
        assert home.switch("on", port=home.port).endpoint == f"tcp://*:{home.port}"
        assert isinstance(phone.ask(Ping()), Done)
        # the same port at another address, while it is on
        assert home.switch("on", address="127.0.0.1", port=home.port).hosts == ["127.0.0.1"]
        phone.wait_for(zmq.EVENT_DISCONNECTED)
        assert isinstance(phone.ask(Ping()), Done)


def test_an_admin_device_switches_it_off_and_is_told(home: Home) -> None:
    home.start()
    with home.line(home.admin) as admin:
        done = admin.ask(Network(op="off"))
        assert isinstance(done, Done) and done.network is not None and not done.network.on
        admin.wait_for(zmq.EVENT_DISCONNECTED)
    assert home.switch("status").on is False


def test_ipv6(home: Home) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("needs IPv6")
    home.start(on=False)
    assert home.switch("on", address="::1", port=home.port).endpoint == f"tcp://[::1]:{home.port}"
    home.switch("on", port=home.port)
    for host in ("127.0.0.1", "[::1]"):
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.linger, dealer.ipv6 = 0, True
            dealer.curve_serverkey = home.phone.server_key.encode()
            dealer.curve_publickey = home.phone.keys.public.encode()
            dealer.curve_secretkey = home.phone.keys.secret.encode()
            dealer.connect(f"tcp://{host}:{home.port}")
            dealer.send_multipart(protocol.encode_request(b"1", Ping()))
            assert dealer.poll(20_000)


def test_what_cannot_be_bound(home: Home) -> None:
    home.start()

    def refusal(**fields: object) -> str:
        reply = home.local.ask(Network(op="on", **fields))  # type: ignore[arg-type]
        assert isinstance(reply, Error) and reply.error.code == "bad_request", reply
        return reply.error.message

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert "in use" in refusal(address="127.0.0.1", port=taken)
    assert "65534" in refusal(port=65535)
    for address in ("192.0.2.77", "no-such-interface", "1.2.3", "::ffff"):
        assert "no address" in refusal(address=address, port=home.port)
    # each time it goes on as it was
    assert home.switch("status").endpoint == home.endpoint
    with home.line(home.phone) as phone:
        assert isinstance(phone.ask(Ping()), Done)


def test_it_is_kept_over_restarts(home: Home) -> None:
    home.start().stop()
    file = home.data / "network" / "network.json"
    assert file.stat().st_mode & 0o777 == 0o600
    home.start(on=False)
    assert home.switch("status").endpoint == home.endpoint
    with home.line(home.phone) as phone:
        assert isinstance(phone.ask(Ping()), Done)
    home.switch("off")
    home.stop()
    home.start(on=False)
    assert home.switch("status").on is False
    assert home.switch("status").public_key == home.phone.server_key
    home.stop()
    file.write_text("{")
    home.start(on=False)
    done = home.local.ask(Network(op="status"))
    assert isinstance(done, Done) and done.message is not None and "network.json" in done.message
    status = home.local.ask(Status())
    assert isinstance(status, Done) and status.status is not None
    assert "the network stays off" in status.status.message


def test_a_setting_that_cannot_be_kept_holds_until_the_restart(home: Home) -> None:
    home.start(on=False)
    (home.data / "network" / "network.json").mkdir()  # as a disk that is full
    refused = home.local.ask(Network(op="on", address="127.0.0.1", port=home.port))
    assert isinstance(refused, Error) and "until the daemon restarts" in refused.error.message
    assert home.switch("status").on
    with home.line(home.phone) as phone:
        assert isinstance(phone.ask(Ping()), Done)


def test_a_damaged_key_keeps_the_network_off(home: Home) -> None:
    home.start().stop()
    (home.data / "network" / "server.key").write_text("x")
    home.start(on=False)
    done = home.local.ask(Network(op="status"))
    assert isinstance(done, Done) and done.message is not None and "damaged" in done.message
    assert code(home.local.ask(Network(op="on"))) == "bad_request"
    assert home.switch("status").on is False


def test_who_listens_beside_the_door_is_told_of_changes(home: Home) -> None:
    home.start(on=False)
    switch = home.running.daemon._remote.switch
    ports: list[int | None] = []
    switch.on_change.append(lambda: ports.append(switch.port))
    home.switch("on", address="127.0.0.1", port=home.port)
    home.switch("on", address="127.0.0.1", port=home.port)
    home.switch("status")
    home.switch("off")
    home.switch("off")
    assert ports == [home.port, None]


def test_a_port_that_is_taken_at_the_start_is_tried_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.start().stop()
    monkeypatch.setattr("assistantd.network.switch.RETRY_S", 0.01)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", home.port))
        other.listen()
        home.start(on=False)
        done = home.local.ask(Network(op="status"))
        assert isinstance(done, Done) and done.message is not None and "in use" in done.message
    with home.line(home.phone) as phone:
        assert isinstance(phone.ask(Ping()), Done)
    assert home.switch("status").on


# --- crowds ----------------------------------------------------------------------------------


def test_strangers_do_not_keep_devices_out(home: Home) -> None:
    home.start()
    with ExitStack() as stack, home.line(home.phone) as phone:
        assert isinstance(phone.ask(Ping()), Done)
        address = ("127.0.0.1", home.port)
        crowd = [
            stack.enter_context(socket.create_connection(address, 20))
            for _ in range(guests.MAX_STRANGERS + 50)
        ]
        # those that came first are cut: each is over at once, and does not wait for a timeout
        for stranger in crowd[:50]:
            with contextlib.suppress(ConnectionResetError):
                while stranger.recv(100):  # what ZeroMQ says first, perhaps
                    pass
        with home.line(home.watch) as watch:
            assert isinstance(watch.ask(Ping()), Done)
            assert isinstance(phone.ask(Ping()), Done)
        assert phone.monitor.poll(0) == 0 or zmq.EVENT_DISCONNECTED not in events(phone)


def events(line: Line) -> list[int]:
    found = []
    while line.monitor.poll(0):
        frame, _endpoint = line.monitor.recv_multipart()
        found.append(int.from_bytes(frame[:2], "little"))
    return found


def test_a_device_has_only_so_many_connections(home: Home) -> None:
    home.start()
    with ExitStack() as stack:
        lines = []
        for _ in range(guests.MAX_OF_A_KEY + 1):
            line = stack.enter_context(home.line(home.phone))
            assert isinstance(line.ask(Ping()), Done)
            lines.append(line)
        lines[0].wait_for(zmq.EVENT_DISCONNECTED)


def test_a_device_that_does_not_read_is_cut_and_may_resume(home: Home) -> None:
    limits = Limits(requests_per_minute=1000, max_tokens=1_000_000)
    listener = pair(home.data, limits=limits)
    home.start()
    home.engine.free_running = True
    server = home.running.daemon._server
    with home.line(listener) as deaf:
        # its own queue and the system's buffers are small
        deaf.dealer.disconnect(home.endpoint)
        deaf.dealer.rcvhwm, deaf.dealer.rcvbuf = 1, 4096
        deaf.dealer.connect(home.endpoint)
        deaf.send(Chat(text="a", max_tokens=1_000_000), "long")
        while not server.dropped_clients:
            home.until(active=1)  # others are served all the while, and the answer goes on
        # it hears what was sent before, and then that the connection is over
        n_heard = 0
        while zmq.EVENT_DISCONNECTED not in events(deaf):
            if deaf.dealer.poll(0):
                reply = deaf.receive("long")
                assert reply == Delta("a")
                n_heard += 1
    with home.line(listener) as phone:
        resumed = phone.send(Resume(target="long", offset=n_heard))
        missing = phone.receive(resumed)
        assert isinstance(missing, Delta) and set(missing.text) == {"a"}
        assert isinstance(phone.ask(Cancel(target="long")), Done)
        rest, done = phone.rest(resumed)
        assert isinstance(done, Done) and done.text == n_heard * "a" + missing.text + rest


def test_garbage_does_not_fill_the_log(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.start()
    with home.line(home.phone) as phone:
        for _ in range(500):
            phone.dealer.send_multipart([b"x"])
        assert isinstance(phone.ask(Ping()), Done)
    bad = [record for record in caplog.records if record.message == "bad request on the network"]
    assert len(bad) == 10
    assert home.running.daemon._server.bad_frames == 500


def test_a_device_that_never_stops_is_cut(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.start()
    with home.line(home.phone) as phone, home.line(home.watch) as watch:
        for _ in range(2 * guests.MESSAGES_PER_S):
            phone.dealer.send_multipart([b"x"])
        phone.wait_for(zmq.EVENT_DISCONNECTED)
        assert isinstance(watch.ask(Ping()), Done)
    first, *_others = [r for r in caplog.records if r.message == "a connection was cut"]
    assert first.fields["reason"] == "its device sends too much"  # type: ignore[attr-defined]
