"""Answers that outlive connections."""

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistantd.doors import Door
from assistantd.network import mailbox as module
from assistantd.network.mailbox import KEEP_S, KEPT_ANSWERS, LISTENERS, Mailbox
from assistantd.protocol import (
    Chat,
    Complete,
    Delta,
    DeviceInfo,
    Done,
    Error,
    ErrorInfo,
    Limits,
    Progress,
    Reply,
    Resume,
)
from assistantd.server import Peer
from clients import link

PHONE = DeviceInfo("phone222", "phone", "curve", "chat", Limits(concurrent=64), 0.0)
WATCH = DeviceInfo("watch222", "watch", "curve", "chat", Limits(concurrent=64), 0.0)
DOOR: Any = Door.__new__(Door)  # a name is all that is needed of it


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def peer(connection: str, request_id: str = "1", device: DeviceInfo | None = PHONE) -> Peer:
    who = device.id if device is not None else None
    return Peer(DOOR, connection.encode(), request_id.encode(), False, who)


class Heard(list[Reply]):
    """What a request was told."""

    def __call__(self, reply: Reply) -> None:
        self.append(reply)

    @property
    def text(self) -> str:
        return "".join(reply.text for reply in self if isinstance(reply, Delta))

    @property
    def code(self) -> str:
        (reply,) = self
        assert isinstance(reply, Error)
        return reply.error.code


def begin(
    box: Mailbox,
    connection: str = "a",
    request_id: str = "1",
    *,
    device: DeviceInfo = PHONE,
    request: Chat | Complete | None = None,
) -> tuple[Callable[[Reply], None] | None, Heard]:
    heard = Heard()
    asked = request or Chat(text="hello")
    return box.open(peer(connection, request_id, device), device, asked, heard), heard


def resume(
    box: Mailbox, offset: int, connection: str = "b", device: DeviceInfo | None = PHONE
) -> Heard:
    heard = Heard()
    box.resume(peer(connection, "r", device), Resume(target="1", offset=offset), heard)
    return heard


def test_who_asked_hears_it() -> None:
    put, heard = begin(Mailbox())
    assert put is not None
    said = [Progress("queued", "x"), Delta("a"), Delta("b"), Done(text="ab")]
    for reply in said:
        put(reply)
    assert heard == said


@given(
    st.lists(st.text(max_size=5), max_size=12),
    st.data(),
)
def test_the_text_is_whole_wherever_the_connection_breaks(
    pieces: list[str], data: st.DataObject
) -> None:
    """Breaks may come before any piece, and after the end; of what was sent some may be lost."""
    box = Mailbox()
    put, heard = begin(box)
    assert put is not None
    text, had, lines = "".join(pieces), "", 0
    replies: list[Reply] = [*map(Delta, pieces), Done(text=text)]
    breaks = data.draw(st.sets(st.integers(0, len(replies))), label="breaks")
    for number in range(len(replies) + 1):
        if number in breaks:
            box.detach(peer("a" if not lines else f"line{lines}").connection)
            arrived = had + heard.text
            had = arrived[: data.draw(st.integers(len(had), len(arrived)), label="arrived")]
            lines += 1
            heard = resume(box, len(had), f"line{lines}")
        if number < len(replies):
            put(replies[number])
    assert had + heard.text == text
    assert [reply for reply in heard if isinstance(reply, Done)] == [Done(text=text)]
    assert isinstance(heard[-1], Done)


@given(st.text(max_size=20), st.integers(0, 30), st.booleans())
def test_offsets_count_characters(text: str, offset: int, ended: bool) -> None:
    box = Mailbox()
    put, _heard = begin(box)
    assert put is not None
    put(Delta(text))
    if ended:
        put(Done(text=text))
    heard = resume(box, offset)
    if offset > len(text):
        assert heard.code == "bad_request"
        return
    assert heard.text == text[offset:]
    assert (heard[-1:] == [Done(text=text)]) is ended


def test_asked_twice_is_computed_once() -> None:
    box = Mailbox()
    put, first = begin(box, "a")
    assert put is not None
    put(Delta("x"))
    again, second = begin(box, "b")
    assert again is None
    put(Delta("y"))
    put(Done(text="xy"))
    late, third = begin(box, "c")
    assert late is None
    for heard in (first, second, third):
        assert heard.text == "xy" and heard[-1] == Done(text="xy")
        assert [reply for reply in heard if isinstance(reply, Done)] == [Done(text="xy")]


def test_asked_twice_over_one_connection_is_told_once() -> None:
    box = Mailbox()
    put, first = begin(box, "a")
    assert put is not None
    put(Delta("x"))
    assert begin(box, "a")[0] is None
    put(Done(text="x"))
    assert first.text == "x" and len(first) == 1  # the second heard the end


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"deadline_ms": 5}, True),
        ({"stream": False}, True),
        ({"device": "phone222"}, True),
        ({"text": "other"}, False),
        ({"session": "s"}, False),
        ({"seed": 1}, False),
        ({"max_tokens": 1}, False),
    ],
)
def test_another_question_needs_another_id(change: dict[str, Any], same: bool) -> None:
    box = Mailbox()
    put, _heard = begin(box)
    again, heard = begin(box, "b", request=msgspec.structs.replace(Chat(text="hello"), **change))
    assert put is not None and again is None
    assert heard == [] if same else heard.code == "bad_request"


def test_what_failed_may_be_tried_again() -> None:
    box = Mailbox()
    put, _heard = begin(box)
    assert put is not None
    put(Delta("x"))
    put(Error(ErrorInfo("busy", "later")))
    heard = resume(box, 0)
    assert heard.text == "x" and isinstance(heard[-1], Error)
    again, heard = begin(box)
    assert again is not None and heard == []
    again(Done(text="y"))
    assert heard == [Done(text="y")] and resume(box, 0)[-1] == Done(text="y")


def test_what_there_was_no_time_for_was_not_asked() -> None:
    """Who resumes it is to ask again, and not to hear for two minutes that there is no time."""
    box = Mailbox()
    put, heard = begin(box)
    assert put is not None
    put(Progress("queued", "x"))
    put(Error(ErrorInfo("busy", "later")))
    assert isinstance(heard[-1], Error)
    assert resume(box, 0).code == "not_found" and box.expire() is None


def test_it_is_kept_for_longer_than_clients_wait_for_a_connection() -> None:
    """Or one that comes back at the last moment asks again what was answered."""
    assert KEEP_S > link.PATIENCE_S + link._HEARTBEAT_TIMEOUT_MS / 1000


def test_whoever_asks_for_no_pieces_gets_none() -> None:
    box = Mailbox()
    put, heard = begin(box, request=Chat(text="hello", stream=False))
    assert put is not None
    assert resume(box, 3) == []
    put(Done(text="abc"))
    assert heard == [Done(text="abc")] and resume(box, 0) == [Done(text="abc")]


def test_devices_do_not_hear_each_other() -> None:
    box = Mailbox()
    phones, phone = begin(box, device=PHONE)
    watchs, watch = begin(box, device=WATCH)
    assert phones is not None and watchs is not None
    phones(Delta("p"))
    watchs(Delta("w"))
    assert (phone.text, watch.text) == ("p", "w")
    assert resume(box, 0, device=WATCH).text == "w"
    assert resume(box, 0, device=None).code == "not_found"
    box.forget(WATCH.id)
    watchs(Done(text="w"))
    assert watch == [Delta("w")]
    assert resume(box, 0, device=WATCH).code == "not_found"
    assert resume(box, 0, device=PHONE).text == "p"


def test_so_many_at_a_time() -> None:
    box = Mailbox()
    device = DeviceInfo("phone222", "phone", "curve", "chat", Limits(concurrent=2), 0.0)
    first, _heard = begin(box, "a", "1", device=device)
    begin(box, "a", "2", device=device)
    third, heard = begin(box, "a", "3", device=device)
    assert third is None and heard.code == "busy"
    # the same again is no further one, and neither is another device's
    assert begin(box, "b", "2", device=device)[1] == []
    assert begin(box, "a", "3", device=WATCH)[0] is not None
    assert first is not None
    first(Done(text=""))
    assert begin(box, "a", "3", device=device)[0] is not None


def test_it_is_forgotten_after_a_while() -> None:
    clock, rung = Clock(), list[None]()
    box = Mailbox(lambda: rung.append(None), clock)
    put, _heard = begin(box)
    assert put is not None and box.expire() is None
    clock.now += 1000.0  # however long it takes
    put(Delta("x"))
    assert rung == []
    put(Done(text="x"))
    assert rung == [None]
    clock.now += KEEP_S - 1
    assert box.expire() == 1.0 and resume(box, 0).text == "x"
    clock.now += 1.0
    assert resume(box, 0).code == "not_found" and box.expire() is None
    assert begin(box)[0] is not None


def test_not_endlessly_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(box: Mailbox, device: DeviceInfo) -> list[str]:
        return [name.decode() for owner, name in box._answers if owner == device.id]

    def answer(box: Mailbox, name: str, text: str, device: DeviceInfo = PHONE) -> None:
        put, _heard = begin(box, "a", name, device=device)
        assert put is not None
        put(Delta(text))
        put(Done(text=text))

    box = Mailbox()
    for number in range(KEPT_ANSWERS + 3):
        answer(box, f"{number}", "x")
    assert kept(box, PHONE) == [f"{number}" for number in range(3, KEPT_ANSWERS + 3)]
    monkeypatch.setattr(module, "KEPT_BYTES", 10)
    answer(box, "long", "é" * 5)  # ten bytes, and five characters
    assert kept(box, PHONE) == ["long"]
    answer(box, "too long", "é" * 6)
    assert kept(box, PHONE) == []
    monkeypatch.setattr(module, "KEPT_BYTES_IN_ALL", 15)
    answer(box, "1", "x" * 10, PHONE)
    answer(box, "1", "x" * 10, WATCH)
    assert (kept(box, PHONE), kept(box, WATCH)) == ([], ["1"])


def test_not_endlessly_many_listen() -> None:
    box = Mailbox()
    put, first = begin(box)
    assert put is not None
    others = [resume(box, 0, f"line{number}") for number in range(LISTENERS)]
    assert first.code == "busy"
    put(Done(text=""))
    assert all(heard == [Done(text="")] for heard in others) and len(first) == 1


def test_pieces_keep_their_order_while_others_come_and_go() -> None:
    """One thread says the answer, others resume it from random places at the same time."""
    box = Mailbox()
    put, heard = begin(box)
    assert put is not None
    text = "".join(chr(ord("a") + number % 26) for number in range(3000))
    begun = threading.Event()

    def say() -> None:
        for number, letter in enumerate(text):
            put(Delta(letter))
            if number == 100:
                begun.set()
        put(Done(text=text))

    speaker = threading.Thread(target=say)
    speaker.start()
    assert begun.wait(20)
    others = [(offset, resume(box, offset, f"line{offset}")) for offset in range(LISTENERS - 1)]
    speaker.join()
    assert heard.text == text
    for offset, other in others:
        assert other.text == text[offset:] and other[-1] == Done(text=text)


def test_what_is_forgotten_cannot_be_resumed_and_is_heard_to_its_end() -> None:
    box = Mailbox()
    asked = [Chat(text="x", session="phone222.s"), Chat(text="x", session="phone222.t")]
    begun = [
        begin(box, request_id=str(n), request=request)
        for n, request in enumerate([*asked, Chat(text="x"), Complete(prompt="x")])
    ]
    begun.append(begin(box, request_id="4", device=WATCH))
    for put, _heard in begun[2:]:
        assert put is not None
        put(Done(text="ended"))

    def known() -> list[bool]:
        found = []
        for n, device in enumerate((PHONE, PHONE, PHONE, PHONE, WATCH)):
            heard = Heard()
            box.resume(peer("b", f"r{n}", device), Resume(target=str(n)), heard)
            found.append(not (heard and isinstance(heard[0], Error)))
        return found

    box.forget_sessions({"phone222.s"}, others=False, device=None)
    assert known() == [False, True, True, True, True]
    put, heard = begun[0]
    assert put is not None
    put(Delta("secret"))
    put(Done(text="secret"))
    assert heard[-1] == Done(text="secret")
    assert known() == [False, True, True, True, True]  # it was not kept when it ended
    box.forget_sessions(set(), others=True, device="phone222")
    assert known() == [False, True, False, False, True]
    box.forget_sessions(set(), others=True, device=None)
    assert known() == [False, True, False, False, False]
