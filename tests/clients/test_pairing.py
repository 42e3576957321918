"""The device's half of pairing, against the daemon's real half, and against those who are none."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from assistantd.network import pairing_socket
from assistantd.protocol import Done, PairingInfo
from assistantd.protocol_pairing import (
    Confirmed,
    Refused,
    Sealed,
    Start,
    Started,
    encode,
    read_password,
    spake_daemon,
)
from clients import pairing
from clients.errors import AssistantError
from clients.pairing import PairingFailed, pair
from tests.assistantd.network.parts import Parts, free_port, parts

Frames = list[bytes]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing_socket, "TICK_S", 0.01)


@pytest.fixture
def box() -> Iterator[Parts]:
    with parts() as made:
        yield made


def opened(box: Parts) -> PairingInfo:
    done = box.ask(op="open")
    assert isinstance(done, Done) and done.pairing is not None
    return done.pairing


@contextmanager
def answering(answer: Callable[[Frames], Frames | None]) -> Iterator[int]:
    """Something at a pairing port that says what `answer` returns; yields the daemon's port."""
    port = free_port()
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(f"tcp://127.0.0.1:{port + 1}")
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            while True:
                identity, *frames = router.recv_multipart()
                said = answer(frames)
                if said is not None:
                    router.send_multipart([identity, *said])
        except zmq.ContextTerminated:
            router.close(linger=0)
        except BaseException as problem:
            failures.append(problem)
            router.close(linger=0)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield port
    finally:
        context.term()
        thread.join()
        assert failures == []


# --- what is typed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("123456", ("code", "123456")),
        (" 123 456\n", ("code", "123456")),
        ("123-456", ("code", "123456")),
        ("ABCDEFGHIJKLMNOPQRSTUVWX23", ("secret", "abcdefghijklmnopqrstuvwx23")),
    ],
)
def test_codes(typed: str, read: tuple[str, str]) -> None:
    assert read_password(typed) == read
    assert pairing.is_code(typed)


@pytest.mark.parametrize("typed", ["", "12345", "1234567", "12345a", "١٢٣٤٥٦", "a" * 25, "1" * 26])
def test_what_is_no_code(typed: str) -> None:
    assert not pairing.is_code(typed)
    with pytest.raises(AssistantError, match="six digits"):
        pair("127.0.0.1", 1, typed, "laptop")


@given(st.text())
def test_any_text(typed: str) -> None:
    if pairing.is_code(typed):
        assert read_password(read_password(typed)[1]) == read_password(typed)


# --- nobody is there -------------------------------------------------------------------------


def test_nobody_listens() -> None:
    with pytest.raises(PairingFailed, match="assistant network on") as failed:
        pair("127.0.0.1", free_port(), "123456", "laptop")
    assert failed.value.reason == "unreachable"


def test_no_such_machine() -> None:
    with pytest.raises(PairingFailed, match="no machine"):
        pair("no-such-machine.invalid", 5771, "123456", "laptop")


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "b\udcff"])
def test_what_is_no_name_of_a_machine(host: str) -> None:
    with pytest.raises(PairingFailed, match="no machine"):
        pair(host, 5771, "123456", "laptop")


def test_a_name_that_is_no_text_costs_no_code(box: Parts) -> None:
    info = opened(box)
    with pytest.raises(AssistantError, match="UTF-8"):
        pair("127.0.0.1", box.port, info.code, "lap\udcff")
    pair("127.0.0.1", box.port, info.code, "laptop")


def test_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "ANSWER_TIMEOUT_S", 0.2)
    with answering(lambda frames: None) as port, pytest.raises(PairingFailed) as failed:
        pair("127.0.0.1", port, "123456", "laptop")
    assert failed.value.reason == "unreachable"


def test_it_hangs_up() -> None:
    with socket.socket() as listener:
        while True:
            port = free_port()
            listener.bind(("127.0.0.1", port + 1))
            break
        listener.listen()

        def hang_up() -> None:
            for _ in range(2):  # the look whether it is open, and the conversation
                listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(PairingFailed) as failed:
            pair("127.0.0.1", port, "123456", "laptop")
        thread.join()
    assert failed.value.reason == "unreachable"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "spake2", None)
    with pytest.raises(AssistantError, match=r"assistantd\[network\]"):
        pair("127.0.0.1", 1, "123456", "laptop")


# --- whoever is there is not honest ----------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        [b"junk"],
        [b"assistant-pair/1", b"{}"],
        [b"assistant-pair/1", b"\xff"],
        encode(Started(message=b"B" + bytes(32))),
        encode(Started(message=b"A" + b"\x58" + b"\x66" * 31)),
        encode(Confirmed(proof=bytes(32))),
        encode(Sealed(box=bytes(40))),
        encode(Start(message=bytes(33), password="code")),
    ],
)
def test_nonsense(said: Frames) -> None:
    with answering(lambda frames: said) as port, pytest.raises(PairingFailed) as failed:
        pair("127.0.0.1", port, "123456", "laptop")
    assert failed.value.reason == "dishonest"


@pytest.mark.parametrize("reason", ["wrong", "void", "expired", "closed", "busy", "bad_message"])
def test_refusals(reason: str) -> None:
    refusal = Refused(reason=reason, message="because", tries_left=3 if reason == "wrong" else None)  # type: ignore[arg-type]
    with answering(lambda frames: encode(refusal)) as port, pytest.raises(PairingFailed) as failed:
        pair("127.0.0.1", port, "123456", "laptop")
    assert (failed.value.reason, failed.value.tries_left) == (reason, refusal.tries_left)


def test_who_does_not_know_the_code_cannot_pose_as_the_daemon() -> None:
    answers = [
        encode(Started(message=spake_daemon("code", "654321").start())),
        encode(Confirmed(proof=bytes(32))),
    ]
    with (
        answering(lambda frames: answers.pop(0)) as port,
        pytest.raises(PairingFailed, match="does not know the code") as failed,
    ):
        pair("127.0.0.1", port, "123456", "laptop")
    assert failed.value.reason == "dishonest"


def test_who_sends_back_what_he_got() -> None:
    with answering(lambda frames: frames) as port, pytest.raises(PairingFailed):
        pair("127.0.0.1", port, "123456", "laptop")


# --- in the middle ---------------------------------------------------------------------------


@contextmanager
def middle(box: Parts, change: Callable[[int, Frames], Frames]) -> Iterator[int]:
    """A man between a device and `box`, who may change each message, of either direction."""
    port = free_port()
    context = zmq.Context()
    router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    router.bind(f"tcp://127.0.0.1:{port + 1}")
    dealer.connect(f"tcp://127.0.0.1:{box.port + 1}")

    def serve() -> None:
        identity, count = b"", 0
        poller = zmq.Poller()
        poller.register(router, zmq.POLLIN)
        poller.register(dealer, zmq.POLLIN)
        try:
            while True:
                for ready, _event in poller.poll():
                    frames = ready.recv_multipart()
                    if ready is router:
                        identity, *frames = frames
                    said = change(count, frames)
                    count += 1
                    if ready is router:
                        dealer.send_multipart(said)
                    else:
                        router.send_multipart([identity, *said])
        except zmq.ContextTerminated:
            router.close(linger=0)
            dealer.close(linger=0)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield port
    finally:
        context.term()
        thread.join()


def test_who_only_listens_changes_nothing_and_sees_no_secret(box: Parts) -> None:
    heard: list[Frames] = []

    def listen(_count: int, frames: Frames) -> Frames:
        heard.append(frames)
        return frames

    info = opened(box)
    with middle(box, listen) as port:
        paired = pair("127.0.0.1", port, info.code, "laptop")
    assert len(heard) == 8
    everything = b"".join(b"".join(frames) for frames in heard)
    for secret in (info.code, paired.public_key, paired.server_key, "laptop", paired.device.id):
        assert secret.encode() not in everything


@pytest.mark.parametrize("nth", range(8))
def test_a_changed_message_is_noticed(box: Parts, nth: int) -> None:
    def change(count: int, frames: Frames) -> Frames:
        if count != nth:
            return frames
        # a letter of the base64 in the middle of the message, proof or box
        body = bytearray(frames[1])
        place = body.index(b'":"', body.index(b'",')) + 20
        body[place] = ord("A") if body[place] != ord("A") else ord("B")
        return [frames[0], bytes(body)]

    info = opened(box)
    with middle(box, change) as port, pytest.raises(PairingFailed) as failed:
        pair("127.0.0.1", port, info.code, "laptop")
    assert failed.value.reason in ("wrong", "dishonest", "bad_message", "void")
    if nth < 7:  # the last one has only the device notice; the owner sees a device and its words
        assert box.store.devices == []


@pytest.mark.parametrize("nth", range(8))
def test_messages_put_in_place_of_another(box: Parts, nth: int) -> None:
    """Each message is answered for once with the one before it, as if it had been overtaken."""
    before: list[Frames] = [[b"assistant-pair/1", b"{}"]]

    def swap(count: int, frames: Frames) -> Frames:
        before.append(frames)
        return before[-2] if count == nth else frames

    info = opened(box)
    with middle(box, swap) as port, pytest.raises(PairingFailed):
        pair("127.0.0.1", port, info.code, "laptop")
    assert len(box.store.devices) == (nth == 7)


def test_who_knows_the_code_is_told_by_the_words(box: Parts) -> None:
    """He saw the code over a shoulder: plays daemon to the device, and device to the daemon."""
    info = opened(box)
    with parts() as evil:
        opened(evil)
        code = evil.pairing.codes.last
        assert code is not None
        code.digits = info.code
        victim = pair("127.0.0.1", evil.port, info.code, "laptop")
    pair("127.0.0.1", box.port, info.code, "laptop")
    (let_in,) = box.store.devices
    assert victim.words != let_in.words
