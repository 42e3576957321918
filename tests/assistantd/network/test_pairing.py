"""Codes, the pairing socket and the `pair` request, with a clock of the test's own."""

import contextlib
import hashlib
import logging
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from assistantd.network import codes, pairing_socket
from assistantd.network.codes import Code, Codes, RefusedError
from assistantd.network.conversation import Conversation
from assistantd.network.devices import DeviceError
from assistantd.network.words import token_words
from assistantd.protocol import DeviceInfo, Done, Error, Limits, PairingInfo, Progress
from assistantd.protocol_pairing import (
    Confirm,
    Confirmed,
    DaemonKey,
    Keys,
    Offer,
    PairingMessageError,
    Promise,
    Refused,
    Sealed,
    Start,
    Started,
    Welcome,
    decode_from_daemon,
    decode_from_device,
    derive,
    encode,
    pairing_words,
    spake_device,
)
from clients.pairing import PairingFailed, pair
from tests.assistantd.network.parts import Clock, Parts, parts, peer
from tests.clients.scripted_daemon import WAIT_S

OFFER = Offer(public_key="a" * 40, name="laptop", nonce=b"1" * 32)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing_socket, "TICK_S", 0.01)


@pytest.fixture
def box() -> Iterator[Parts]:
    with parts() as made:
        yield made


def opened(box: Parts, **options: object) -> PairingInfo:
    done = box.ask(op="open", **options)
    assert isinstance(done, Done) and done.pairing is not None
    return done.pairing


def refused(reply: Done | Error) -> tuple[str, str]:
    assert isinstance(reply, Error)
    return reply.error.code, reply.error.message


def another(code: str) -> str:
    """A code that is wrong."""
    return f"{(int(code) + 1) % 1_000_000:06}"


# --- codes -----------------------------------------------------------------------------------


def test_what_is_opened(box: Parts) -> None:
    info = opened(box)
    assert len(info.code) == 6 and info.code.isdecimal()
    assert len(info.secret) == 26  # 128 bits in base32
    assert info.port == box.port + 1 and info.hosts == ["127.0.0.1"]
    assert len(info.fingerprint.split()) == 4
    assert opened(box).code != info.code or opened(box).secret != info.secret


@pytest.mark.parametrize("what", ["code", "spaced", "secret", "shouted"])
def test_a_claim(box: Parts, what: str) -> None:
    info = opened(box, rights="admin", limits=Limits(max_tokens=7))
    waiting = box.start(op="wait")
    typed = {
        "code": info.code,
        "spaced": f" {info.code[:3]} {info.code[3:]}",
        "secret": info.secret,
        "shouted": info.secret.upper(),
    }[what]
    done = box.ask(op="claim", code=typed, name="phone")
    assert isinstance(done, Done) and done.device is not None and done.token is not None
    assert (done.device.kind, done.device.rights, done.device.limits.max_tokens) == (
        "web",
        "admin",
        7,
    )
    assert len(done.token) >= 43  # 256 bits in base64
    assert box.store.tokens == [hashlib.sha256(done.token.encode()).digest()]
    assert done.device.words == token_words(done.token)
    ended = waiting.last()
    assert isinstance(ended, Done) and ended.device == done.device
    # and once it was used it works no more, neither the code nor the secret
    for again in (info.code, info.secret):
        assert refused(box.ask(op="claim", code=again, name="thief"))[0] == "unauthorized"
    assert len(box.store.devices) == 1
    late = box.ask(op="wait")
    assert isinstance(late, Done) and late.device == done.device


def test_five_wrong_tries(box: Parts, caplog: pytest.LogCaptureFixture) -> None:
    info = opened(box)
    waiting = box.start(op="wait")
    for left in (4, 3, 2, 1):
        code, message = refused(box.ask(op="claim", code=another(info.code), name="x"))
        assert code == "unauthorized" and str(left) in message
    assert "void" in refused(box.ask(op="claim", code=another(info.code), name="x"))[1]
    assert refused(box.ask(op="claim", code=info.code, name="x"))[0] == "unauthorized"
    assert refused(waiting.last())[0] == "unauthorized"
    told = [reply.completed for reply in waiting.replies if isinstance(reply, Progress)]
    assert told == [4, 3, 2, 1]
    assert box.store.devices == []
    logged = [record for record in caplog.records if record.message == "pairing refused"]
    assert len(logged) == 6 and all(r.levelno == logging.WARNING for r in logged)
    assert not any(info.code in str(vars(r)) for r in caplog.records)


def test_it_expires(box: Parts) -> None:
    info = opened(box)
    waiting = box.start(op="wait")
    box.clock.now += codes.LIFETIME_S - 1
    assert box.pairing.codes.expire() == pytest.approx(1)
    box.clock.now += 1
    code, message = refused(box.ask(op="claim", code=info.code, name="x"))
    assert code == "unauthorized" and "expired" in message
    assert refused(waiting.last())[0] == "deadline"
    assert not box.pairing.is_listening()


def test_time_ends_it_without_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "LIFETIME_S", 0.05)
    with parts() as box:
        box.pairing.codes._clock = codes.boot_clock
        opened(box)
        assert refused(box.start(op="wait").last())[0] in ("deadline", "not_found")


def test_closing_and_opening_another(box: Parts) -> None:
    assert refused(box.ask(op="wait"))[0] == "not_found"
    assert refused(box.ask(op="claim", code="123456", name="x"))[0] == "unauthorized"
    first = opened(box)
    waiting = box.start(op="wait")
    second = opened(box)
    assert refused(waiting.last())[0] == "not_found"
    assert refused(box.ask(op="claim", code=first.secret, name="x"))[0] == "unauthorized"
    waiting = box.start(op="wait")
    assert isinstance(box.ask(op="close"), Done)
    assert refused(waiting.last())[0] == "not_found"
    assert refused(box.ask(op="claim", code=second.code, name="x"))[0] == "unauthorized"
    assert isinstance(box.ask(op="close"), Done)  # nothing to close is no error
    assert box.store.devices == []


def test_a_wait_can_be_cancelled(box: Parts) -> None:
    opened(box)
    waiting = box.start(op="wait")
    client = box.peer.client
    assert not box.pairing.cancel(client, b"2") and not box.pairing.cancel(b"x", b"1")
    assert box.pairing.cancel(client, b"1")
    assert isinstance(waiting.last(), Done)
    assert not box.pairing.cancel(client, b"1")
    left = box.start(op="wait")
    box.pairing.gone(box.peer.connection)
    box.ask(op="close")
    assert left.replies == []


def test_a_device_cannot_claim_for_others(box: Parts) -> None:
    info = opened(box)
    box.peer = peer(device="abcdefgh")
    assert refused(box.ask(op="claim", code=info.code, name="x"))[0] == "unauthorized"
    box.peer = peer()
    assert isinstance(box.ask(op="claim", code=info.code, name="x"), Done)


def test_what_the_store_refuses(box: Parts) -> None:
    info = opened(box)
    box.store.fail = DeviceError("too many devices; revoke some")
    assert refused(box.ask(op="claim", code=info.code, name="x"))[1].startswith("too many")
    info = opened(box)
    waiting = box.start(op="wait")
    with pytest.raises(PairingFailed, match="too many"):
        pair("127.0.0.1", box.port, info.code, "laptop")
    assert refused(waiting.last())[1].startswith("too many")


def test_tries_are_limited_over_all_codes(box: Parts) -> None:
    n_open = 0
    for _ in range(3):
        info = opened(box)
        for _ in range(codes.MAX_TRIES):
            reply = box.ask(op="claim", code=another(info.code), name="x")
            n_open += refused(reply)[0] == "unauthorized"
    assert n_open == codes.TRIES_BURST
    # now even the right one has to wait, and does not learn that it is right
    reply = box.ask(op="claim", code=info.code, name="x")
    assert refused(reply)[0] == "busy"
    assert isinstance(reply, Error) and reply.error.retry_after_ms == 6000
    box.clock.now += codes.TRY_EVERY_S
    assert isinstance(box.ask(op="claim", code=info.code, name="x"), Done)


def test_many_right_codes_are_no_guessing(box: Parts) -> None:
    for _ in range(2 * codes.TRIES_BURST):
        assert isinstance(box.ask(op="claim", code=opened(box).code, name="x"), Done)


def test_ten_thousand_guesses(box: Parts) -> None:
    info = opened(box)
    for guess in range(10_000):
        typed = another(info.code) if int(info.code) == guess else f"{guess:06}"
        reply = box.ask(op="claim", code=typed, name="x")
        assert isinstance(reply, Error)
    assert box.store.devices == []


def test_one_of_many_at_once_gets_in() -> None:
    with parts() as box, ThreadPoolExecutor(8) as pool:
        info = opened(box)
        replies = list(
            pool.map(lambda n: box.ask(op="claim", code=info.code, name=f"d{n}"), range(8))
        )
        assert sum(isinstance(reply, Done) for reply in replies) == len(box.store.devices) == 1


def test_a_store_that_fails_ends_the_code(box: Parts) -> None:
    info = opened(box)
    waiting = box.start(op="wait")
    box.store.fail = OSError("disk full")
    with pytest.raises(OSError):
        box.ask(op="claim", code=info.code, name="x")
    assert "disk full" in refused(waiting.last())[1]
    box.store.fail = None
    assert refused(box.ask(op="claim", code=info.code, name="x"))[0] == "unauthorized"


def test_missing_packages_are_named(box: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "spake2", None)
    code, message = refused(box.ask(op="open"))
    assert code == "not_found" and "spake2" in message and "assistantd[network]" in message


# --- over the network ------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["code", "secret"])
def test_pairing_over_the_socket(box: Parts, by: str) -> None:
    info = opened(box, limits=Limits(concurrent=2))
    waiting = box.start(op="wait")
    paired = pair("127.0.0.1", box.port, getattr(info, by), "laptop")
    assert paired.server_key == box.public_key
    assert paired.endpoint == f"tcp://127.0.0.1:{box.port}" and paired.host == "box"
    assert zmq.curve_public(paired.secret_key.encode()).decode() == paired.public_key
    (device,) = box.store.devices
    assert device == paired.device
    assert (device.kind, device.name, device.limits.concurrent) == ("curve", "laptop", 2)
    assert device.public_key == paired.public_key
    assert device.words == paired.words and len(paired.words.split()) == 4
    ended = waiting.last()
    assert isinstance(ended, Done) and ended.device == device
    assert paired.secret_key not in repr(paired)
    assert box.pairing._socket is not None
    box.pairing._socket._thread.join(WAIT_S)  # it is closed after the last message was sent
    with pytest.raises(PairingFailed, match="nobody pairs"):
        pair("127.0.0.1", box.port, info.secret, "again")


def test_a_wrong_code_over_the_socket(box: Parts) -> None:
    info = opened(box)
    for left in (4, 3, 2, 1, 0):
        with pytest.raises(PairingFailed) as failed:
            pair("127.0.0.1", box.port, another(info.code), "thief")
        assert (failed.value.reason, failed.value.tries_left) == ("wrong", left)
    with pytest.raises(PairingFailed):
        pair("127.0.0.1", box.port, info.code, "late")
    assert box.store.devices == []


def test_it_listens_only_while_a_code_is_open_and_the_network_on(box: Parts) -> None:
    def is_open() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", box.port + 1)) == 0

    assert not is_open()
    box.network_on = False
    assert opened(box).port is None
    assert not is_open()
    box.network_on = True
    box.pairing.network_changed()
    assert is_open() and box.pairing.is_listening()
    box.network_on = False
    box.pairing.network_changed()
    assert not is_open() and not box.pairing.is_listening()
    box.network_on = True
    opened(box)
    assert is_open()
    box.ask(op="close")
    assert not is_open()


def test_a_port_that_is_taken(box: Parts) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", box.port + 1))
        other.listen()
        code, message = refused(box.ask(op="open"))
    assert code == "bad_request" and "--port" in message
    assert refused(box.ask(op="wait"))[1] == message
    opened(box)


def test_a_device_that_could_not_be_stored(box: Parts) -> None:
    info = opened(box)
    box.store.fail = OSError("disk full")
    with pytest.raises(PairingFailed, match="disk full"):
        pair("127.0.0.1", box.port, info.code, "laptop")
    assert refused(box.ask(op="wait"))[0] == "unauthorized"


class Raw:
    """A DEALER of one's own, to say what no honest device would."""

    def __init__(self, port: int) -> None:
        self._context = zmq.Context()
        self.dealer = self._context.socket(zmq.DEALER)
        self.dealer.set(zmq.RCVTIMEO, int(1000 * WAIT_S))
        self.dealer.connect(f"tcp://127.0.0.1:{port + 1}")

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.destroy(linger=0)

    def say(self, frames: list[bytes]) -> object:
        """The answer to a message."""
        self.dealer.send_multipart(frames)
        return decode_from_daemon(self.dealer.recv_multipart())


GARBAGE = [
    [b""],
    [b"", b"", b""],
    [b"assistant-pair/1"],
    [b"assistant-pair/1", b"{"],
    [b"assistant-pair/1", b"\xff\xfe"],
    [b"assistant-pair/1", b'{"type":"start"}'],
    [b"assistant-pair/1", b'{"type":"started","message":"' + b"A" * 44 + b'"}'],
    [b"assistant-pair/1", b'{"type":"confirm","proof":"' + b"A" * 43 + b'="}'],
    [b"assistant-pair/1", b"[" * 2000],
    [b"assistant/1", b"1", b'{"type":"ping"}'],
]


def test_garbage_is_refused_and_not_free(box: Parts) -> None:
    info = opened(box)
    with Raw(box.port) as raw:
        for frames in GARBAGE:
            answer = raw.say(frames)
            assert isinstance(answer, Refused) and answer.reason == "bad_message", frames
    assert isinstance(pair("127.0.0.1", box.port, info.code, "laptop").device, DeviceInfo)
    opened(box)
    waiting = box.start(op="wait")
    with Raw(box.port) as raw:
        for _ in range(codes.MAX_CONVERSATIONS + 1):
            raw.dealer.send_multipart([b"junk"])
        assert "too much" in refused(waiting.last())[1]


def test_a_large_frame_ends_its_connection_only(box: Parts) -> None:
    info = opened(box)
    with Raw(box.port) as raw:
        raw.dealer.send_multipart([b"x" * (pairing_socket.MAX_FRAME_BYTES + 1)])
        pair("127.0.0.1", box.port, info.code, "laptop")


def test_too_many_connections_end_the_code(box: Parts) -> None:
    opened(box)
    waiting = box.start(op="wait")
    crowd = []
    try:
        for _ in range(pairing_socket.MAX_CONNECTIONS + 1):
            crowd.append(socket.create_connection(("127.0.0.1", box.port + 1)))
        assert "too much" in refused(waiting.last())[1]
    finally:
        for one in crowd:
            one.close()


@pytest.mark.parametrize(
    "greeting",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x01\x00\x05\x00junk",  # ZMTP 1: an identity, then a message
        b"\xff" + bytes(8) + b"\x7f\x01\x05\x00\x00",  # ZMTP 2
    ],
)
def test_a_browser_costs_no_conversation(box: Parts, greeting: bytes) -> None:
    """A page may make it send anything here, if it can name this port. And many of them came."""
    info = opened(box)
    for _ in range(2 * pairing_socket.MAX_CONNECTIONS):
        with socket.create_connection(("127.0.0.1", box.port + 1)) as one:
            one.sendall(greeting)
            with contextlib.suppress(ConnectionResetError):
                while one.recv(1000):
                    pass
    code = box.pairing.codes.last
    assert code is not None and code.conversations_left == codes.MAX_CONVERSATIONS
    pair("127.0.0.1", box.port, info.code, "laptop")


def test_a_device_that_vanishes_after_its_proof(
    box: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairing_socket, "CONVERSATION_S", 0.5)
    info = opened(box)
    waiting = box.start(op="wait")
    with Raw(box.port) as raw:
        keys = proved(raw, info.code)
        assert refused(box.ask(op="claim", code=info.code, name="x"))[0] == "unauthorized"
        assert "lost" in refused(waiting.last())[1]
        # too late
        promise = Promise(hash=OFFER.promised())
        raw.dealer.send_multipart(encode(Sealed(box=keys.seal("device", promise))))
    assert box.store.devices == []


def proved(raw: Raw, code: str) -> Keys:
    """The first two rounds."""
    spake = spake_device("code", code)
    start = Start(message=spake.start(), password="code")
    started = raw.say(encode(start))
    assert isinstance(started, Started)
    keys = derive(spake, start, started)
    confirmed = raw.say(encode(Confirm(proof=keys.proof("device"))))
    assert isinstance(confirmed, Confirmed) and keys.proves("daemon", confirmed.proof)
    return keys


def test_a_second_who_has_the_code_comes_too_late(box: Parts) -> None:
    info = opened(box)
    with Raw(box.port) as first, Raw(box.port) as second:
        spake = spake_device("code", info.code)
        start = Start(message=spake.start(), password="code")
        started = second.say(encode(start))
        assert isinstance(started, Started)
        keys = proved(first, info.code)
        proof = derive(spake, start, started).proof("device")
        late = second.say(encode(Confirm(proof=proof)))
        assert isinstance(late, Refused) and late.reason == "void"
        for said in (Promise(hash=OFFER.promised()), OFFER):
            assert isinstance(first.say(encode(Sealed(box=keys.seal("device", said)))), Sealed)
    assert [device.public_key for device in box.store.devices] == [OFFER.public_key]


def test_closing_ends_a_code_that_a_device_has_taken(box: Parts) -> None:
    info = opened(box)
    waiting = box.start(op="wait")
    with Raw(box.port) as raw:
        proved(raw, info.code)
        box.ask(op="close")
        assert refused(waiting.last())[0] == "not_found"
    assert not box.pairing.is_listening() and box.store.devices == []


# --- a conversation, message by message ------------------------------------------------------


class Talk:
    """A device and a daemon without a socket between them."""

    def __init__(self, typed: str | None = None) -> None:
        self.changes: list[Code] = []
        self.codes = Codes(self.changes.append, Clock())
        self.code = self.codes.open("chat", Limits())
        self.added: list[Offer] = []
        self.meanwhile: Callable[[], object] = lambda: None
        self.daemon = self.another()
        self.spake = spake_device("code", typed or self.code.digits)
        self.start = Start(message=self.spake.start(), password="code")

    def another(self) -> Conversation:
        """A further one with the same code."""
        return Conversation(self.codes.begin(), self.codes, "b" * 40, self._finish)

    def _finish(self, code: Code, offer: Offer, words: str) -> Welcome:
        self.added.append(offer)
        self.meanwhile()
        device = DeviceInfo("abcdefgh", offer.name, "curve", "chat", code.limits, 1.0, words=words)
        self.codes.finish(code, device)
        return Welcome(port=5771, host="box", device=device)

    def keys(self) -> Keys:
        started = self.daemon.receive(self.start)
        assert isinstance(started, Started)
        return derive(self.spake, self.start, started)

    def proved(self) -> Keys:
        """Up to both proofs."""
        keys = self.keys()
        confirmed = self.daemon.receive(Confirm(proof=keys.proof("device")))
        assert isinstance(confirmed, Confirmed) and keys.proves("daemon", confirmed.proof)
        return keys

    def promise(self, keys: Keys, offer: Offer) -> DaemonKey:
        """The next step."""
        box = keys.seal("device", Promise(hash=offer.promised()))
        sealed = self.daemon.receive(Sealed(box=box))
        assert isinstance(sealed, Sealed)
        return keys.open("daemon", sealed.box, DaemonKey)


def test_an_honest_conversation() -> None:
    talk = Talk()
    keys = talk.proved()
    assert talk.code.state == "taken"
    daemon = talk.promise(keys, OFFER)
    assert daemon.server_key == "b" * 40
    sealed = talk.daemon.receive(Sealed(box=keys.seal("device", OFFER)))
    assert isinstance(sealed, Sealed)
    welcome = keys.open("daemon", sealed.box, Welcome)
    assert welcome.device.words == pairing_words(daemon, OFFER)
    assert talk.added == [OFFER] and talk.code.state == "used" and talk.daemon.is_over


@pytest.mark.parametrize("how", ["closed", "replaced", "too much"])
def test_nobody_is_added_with_a_code_that_is_void(how: str) -> None:
    """What made it void is heard of between two messages, and the last one may be here already."""
    talk = Talk()
    keys = talk.proved()
    talk.promise(keys, OFFER)
    {
        "closed": talk.codes.close,
        "replaced": lambda: talk.codes.open("chat", Limits()),
        "too much": lambda: talk.codes.void(talk.code, "too much"),
    }[how]()
    with pytest.raises(RefusedError):
        talk.daemon.receive(Sealed(box=keys.seal("device", OFFER)))
    assert talk.added == [] and talk.code.state == "void" and talk.code.device is None


def test_a_code_cannot_be_made_void_while_its_device_is_added() -> None:
    """Or the owner would be told that nobody came in."""
    talk = Talk()
    keys = talk.proved()
    talk.promise(keys, OFFER)
    talk.meanwhile = talk.codes.close
    talk.daemon.receive(Sealed(box=keys.seal("device", OFFER)))
    assert talk.code.state == "used" and talk.code.device is not None
    assert [code.state for code in talk.changes][-1] == "used"


def test_who_knows_the_code_cannot_choose_keys_until_the_words_agree() -> None:
    talk = Talk()
    keys = talk.proved()
    talk.promise(keys, OFFER)
    # having seen the daemon's random number, he would take another key
    for other in (
        Offer(public_key="c" * 40, name=OFFER.name, nonce=OFFER.nonce),
        Offer(public_key=OFFER.public_key, name=OFFER.name, nonce=b"2" * 32),
    ):
        with pytest.raises(PairingMessageError):
            talk.daemon.receive(Sealed(box=keys.seal("device", other)))
    assert talk.added == []
    nonces = {talk.promise(talk.proved(), OFFER).nonce for talk in (Talk(), Talk())}
    assert len(nonces) == 2


def test_who_does_not_know_the_code_gets_no_proof_to_try_guesses_with() -> None:
    talk = Talk(typed="x")
    keys = talk.keys()
    with pytest.raises(RefusedError) as refusal:
        talk.daemon.receive(Confirm(proof=keys.proof("device")))
    assert (refusal.value.reason, refusal.value.tries_left) == ("wrong", 4)
    # and not a second try in the same conversation, either
    with pytest.raises(PairingMessageError):
        talk.daemon.receive(Sealed(box=keys.seal("device", OFFER)))


def test_the_daemons_own_proof_and_box_are_not_taken_back() -> None:
    talk = Talk()
    keys = talk.keys()
    with pytest.raises(RefusedError):
        talk.daemon.receive(Confirm(proof=keys.proof("daemon")))  # reflected
    talk = Talk()
    keys = talk.proved()
    with pytest.raises(PairingMessageError):
        talk.daemon.receive(Sealed(box=keys.seal("daemon", Promise(hash=OFFER.promised()))))
    talk.daemon.abandon()
    assert talk.code.state == "void" and talk.added == []


def test_a_reflected_spake_message_is_a_wrong_try() -> None:
    talk = Talk()
    first = talk.daemon.receive(talk.start)
    assert isinstance(first, Started)
    with pytest.raises(PairingMessageError):
        derive(talk.spake, talk.start, Started(message=talk.start.message))
    for message in (b"B" + talk.start.message[1:], b"A" + first.message[1:], b"A" + bytes(32)):
        bad = Talk()
        bad.daemon.receive(Start(message=message, password="code"))
        with pytest.raises(RefusedError) as refusal:
            bad.daemon.receive(Confirm(proof=bytes(32)))
        assert refusal.value.reason == "wrong"


def test_what_was_recorded_is_worth_nothing_in_another_conversation() -> None:
    talk = Talk()
    keys = talk.keys()
    confirm = Confirm(proof=keys.proof("device"))
    again = talk.another()
    again.receive(talk.start)
    with pytest.raises(RefusedError) as refusal:
        again.receive(confirm)
    assert refusal.value.reason == "wrong"


def test_the_kind_of_password_is_part_of_it() -> None:
    talk = Talk()
    keys = talk.keys()
    other = talk.another()
    start = Start(message=talk.start.message, password="secret")
    other.receive(start)
    with pytest.raises(RefusedError):
        other.receive(Confirm(proof=keys.proof("device")))


@given(st.integers(min_value=0, max_value=3), st.data())
@settings(max_examples=40)
def test_any_bit_changed_on_its_way_is_noticed(step: int, data: st.DataObject) -> None:
    """A man in the middle who changes any message, without knowing the code."""

    def changed(message: bytes) -> bytes:
        bit = data.draw(st.integers(min_value=0, max_value=8 * len(message) - 1))
        value = int.from_bytes(message, "big") ^ (1 << bit)
        return value.to_bytes(len(message), "big")

    talk = Talk()
    try:
        start = talk.start
        if step == 0:
            start = Start(message=changed(start.message), password="code")
        started = talk.daemon.receive(start)
        assert isinstance(started, Started)
        if step == 1:
            started = Started(message=changed(started.message))
        keys = derive(talk.spake, talk.start, started)
        confirmed = talk.daemon.receive(Confirm(proof=keys.proof("device")))
        assert isinstance(confirmed, Confirmed) and keys.proves("daemon", confirmed.proof)
        promise = keys.seal("device", Promise(hash=OFFER.promised()))
        talk.daemon.receive(Sealed(box=changed(promise) if step == 2 else promise))
        talk.daemon.receive(Sealed(box=changed(keys.seal("device", OFFER))))
    except (PairingMessageError, RefusedError):
        assert talk.added == []
        return
    raise AssertionError("not noticed")


@given(st.lists(st.binary(max_size=100), max_size=4))
def test_any_frames(frames: list[bytes]) -> None:
    for read in (decode_from_device, decode_from_daemon):
        with pytest.raises(PairingMessageError):
            read(frames)


proofs = st.binary(min_size=32, max_size=32)
anything = st.one_of(
    st.builds(
        Start,
        message=st.binary(min_size=33, max_size=33),
        password=st.sampled_from(["code", "secret"]),
    ),
    st.builds(Confirm, proof=proofs),
    st.builds(Sealed, box=st.binary(min_size=17, max_size=200)),
)


@given(st.lists(anything, max_size=6))
@settings(max_examples=60)
def test_any_messages_in_any_order(messages: list[Start | Confirm | Sealed]) -> None:
    """Sound messages that no honest device sends: nobody gets in, nothing breaks."""
    talk = Talk()
    for message in messages:
        assert decode_from_device(encode(message)) == message
        try:
            answer = talk.daemon.receive(message)
        except (PairingMessageError, RefusedError):
            talk.daemon.abandon()
            break
        assert isinstance(answer, Started)
    assert talk.added == [] and talk.code.tries_left >= 4


frames = st.lists(st.binary(max_size=60) | st.just(b"assistant-pair/1"), min_size=1, max_size=4)


@given(st.lists(st.one_of(frames, anything.map(encode)), min_size=1, max_size=4))
@settings(max_examples=25)
def test_anything_over_the_socket(messages: list[list[bytes]]) -> None:
    with parts() as box:
        info = opened(box)
        with Raw(box.port) as raw:
            for message in messages:
                assert isinstance(raw.say(message), Started | Refused)
        assert box.store.devices == []
        pair("127.0.0.1", box.port, info.code, "laptop")


def test_what_is_no_code_is_a_wrong_one(box: Parts) -> None:
    opened(box)
    assert refused(box.ask(op="claim", code="no code at all", name="x"))[0] == "unauthorized"
