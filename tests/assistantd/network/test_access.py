"""Who may do what: every type of request, with each of the rights; and the limits."""

import logging
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from assistantd import protocol
from assistantd.network.access import Access, Admitted
from assistantd.network.devices import DeviceStore
from assistantd.network.sparing import SparingLog
from assistantd.protocol import (
    Budget,
    Cancel,
    Chat,
    Complete,
    DeviceInfo,
    Devices,
    Error,
    Forget,
    Limits,
    Message,
    Models,
    Network,
    Pair,
    Ping,
    Reload,
    Request,
    Resume,
    Rights,
    Sessions,
    Shutdown,
    Status,
)

FOR_CHAT: list[Request] = [
    Chat(text="x"),
    Chat(text="x", session="s"),
    Chat(messages=[Message("user", "x")]),
    Complete(prompt="x"),
    Cancel(target="1"),
    Resume(target="1"),
    Ping(),
    Status(),
    Sessions(op="list"),
    Sessions(op="show", session="s"),
    Sessions(op="rename", session="s", title="t"),
    Sessions(op="delete", session="s"),
    Forget(all=True),
    Models(op="list"),
    Models(op="show", name="smollm2"),
    Devices(op="whoami"),
]
FOR_ADMIN: list[Request] = [
    Models(op="pull", name="smollm2"),
    Models(op="remove", name="smollm2"),
    Models(op="load", name="smollm2"),
    Models(op="unload"),
    Models(op="show", name="/etc/passwd"),
    Models(op="show", name="~/phi.gguf"),
    Budget(bytes=0),
    Reload(),
    Shutdown(),
    Devices(op="list"),
    Devices(op="show", id="abcdefg2"),
    Devices(op="revoke", id="abcdefg2"),
    Devices(op="rename", id="abcdefg2", name="x"),
    Devices(op="limit", id="abcdefg2", rights="admin"),
    Devices(op="add", name="x"),
    Devices(op="watch"),
    Pair(op="open"),
    Pair(op="wait"),
    Pair(op="close"),
    Network(op="on"),
    Network(op="off"),
    Network(op="status"),
]
FOR_LOCAL: list[Request] = [
    Pair(op="claim", code="123456", name="x"),
    Devices(op="authenticate", token="x"),
]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Given:
    """An Access with a device."""

    def __init__(self, path: Path) -> None:
        self.store = DeviceStore(path / "devices.db")
        self.clock, self.seen = Clock(), list[str]()
        sparing = SparingLog(logging.getLogger("test.access"))
        self.access = Access(self.store, self.seen.append, 1024, lambda: 100, sparing, self.clock)

    def device(self, rights: Rights = "chat", **limits: int) -> DeviceInfo:
        return self.store.add(
            name="x",
            kind="curve",
            rights=rights,
            limits=Limits(**{"requests_per_minute": 1000, **limits}),
            public_key=f"{len(self.store.list())}".rjust(40, "k"),
        )

    def code(self, device: DeviceInfo, request: Request) -> str:
        """What became of a request: an error's code, or "ok"."""
        admitted = self.access.admit(device.id, request)
        return admitted.error.code if isinstance(admitted, Error) else "ok"


@pytest.fixture
def given_access(tmp_path: Path) -> Iterator[Given]:
    found = Given(tmp_path)
    yield found
    found.store.close()


def test_the_lists_above_have_every_type_and_op() -> None:
    listed = [*FOR_CHAT, *FOR_ADMIN, *FOR_LOCAL]
    for kind in typing.get_args(protocol.Request):
        ops = typing.get_type_hints(kind).get("op")
        wanted = set(typing.get_args(ops)) if ops else {None}
        assert {getattr(r, "op", None) for r in listed if isinstance(r, kind)} == wanted, kind


def name(request: Request) -> str:
    return f"{type(request).__name__}-{getattr(request, 'op', '')}"


@pytest.mark.parametrize("request_", FOR_CHAT, ids=name)
def test_for_everybody(given_access: Given, request_: Request) -> None:
    # each gets a message of its own: a session's name is changed in it
    for rights in ("chat", "admin"):
        decoded = protocol.decode_request(protocol.encode_request(b"1", request_))[1]
        assert given_access.code(given_access.device(rights), decoded) == "ok"  # type: ignore[arg-type]


@pytest.mark.parametrize("request_", FOR_ADMIN, ids=name)
def test_for_admins(given_access: Given, request_: Request) -> None:
    assert given_access.code(given_access.device("chat"), request_) == "unauthorized"
    assert given_access.code(given_access.device("admin"), request_) == "ok"


@pytest.mark.parametrize("request_", FOR_LOCAL, ids=name)
def test_for_local_programs(given_access: Given, request_: Request) -> None:
    for rights in ("chat", "admin"):
        assert given_access.code(given_access.device(rights), request_) == "unauthorized"  # type: ignore[arg-type]
    assert given_access.access.identify(None, request_) is None


def test_who_it_is(given_access: Given) -> None:
    access, device = given_access.access, given_access.device()
    key = device.public_key
    assert key is not None
    assert access.identify(None, Ping()) is None
    assert access.identify(None, Ping(device=device.id)) == device.id
    assert access.identify(key, Ping()) == device.id

    def code(who: str | Error | None) -> str:
        assert isinstance(who, Error)
        return who.error.code

    for said in (device.id, "nothere7"):
        assert code(access.identify(key, Ping(device=said))) == "bad_request"
    for unknown in ("", "x" * 40):
        assert code(access.identify(unknown, Ping())) == "unauthorized"
    assert code(access.identify(None, Ping(device="nothere7"))) == "unauthorized"
    given_access.store.revoke(device.id)
    assert code(access.identify(key, Ping())) == "unauthorized"
    assert code(access.identify(None, Ping(device=device.id))) == "unauthorized"
    assert given_access.code(device, Ping()) == "unauthorized"


def test_what_changes_holds_for_the_next_request(given_access: Given) -> None:
    device = given_access.device("chat")
    assert given_access.code(device, Shutdown()) == "unauthorized"
    given_access.store.limit(device.id, "admin", None)
    assert given_access.code(device, Shutdown()) == "ok"


def test_sessions_of_a_chat_device_are_its_own(given_access: Given) -> None:
    device, admin = given_access.device("chat"), given_access.device("admin")
    chat = Chat(text="x", session="s")
    assert given_access.code(device, chat) == "ok" and chat.session == f"{device.id}.s"
    chat = Chat(text="x", session="s")
    assert given_access.code(admin, chat) == "ok" and chat.session == "s"
    assert given_access.code(device, Chat(text="x", session="s" * 56)) == "bad_request"
    assert given_access.code(device, Chat(text="x", session="s" * 55)) == "ok"


@pytest.mark.parametrize(
    ("asked", "allowed", "given_tokens"),
    [(None, 2048, 1024), (None, 100, 100), (50, 100, 50), (5000, 100, 100), (1, 1, 1)],
)
def test_max_tokens_are_lowered(
    given_access: Given, asked: int | None, allowed: int, given_tokens: int
) -> None:
    device = given_access.device(max_tokens=allowed)
    request = Chat(text="x", max_tokens=asked)
    given_access.access.lower(device, request)
    assert request.max_tokens == given_tokens


def test_requests_a_minute(given_access: Given) -> None:
    device, clock = given_access.device(requests_per_minute=3), given_access.clock
    assert [given_access.code(device, Ping()) for _ in range(4)] == ["ok"] * 3 + ["busy"]
    refused = given_access.access.admit(device.id, Chat(text="x"))
    assert isinstance(refused, Error) and refused.error.retry_after_ms == 20_000
    # what ends work is always welcome; others have tokens of their own
    assert given_access.code(device, Cancel(target="1")) == "ok"
    assert given_access.code(given_access.device(), Ping()) == "ok"
    clock.now += 20.0
    assert [given_access.code(device, Ping()) for _ in range(2)] == ["ok", "busy"]
    # what may not be done costs a token as well
    clock.now += 1000.0
    codes = [given_access.code(device, Shutdown()) for _ in range(4)]
    assert codes == ["unauthorized"] * 3 + ["busy"]
    given_access.store.limit(device.id, None, Limits(requests_per_minute=1000))
    assert given_access.code(device, Ping()) == "ok"


def test_what_is_too_long_to_be_read(given_access: Given) -> None:
    access = given_access.access

    def code(request: Chat | Complete) -> str:
        refusal = access.weigh(request)
        return refusal.error.code if refusal is not None else "ok"

    # a context of 100 tokens, of 16 bytes each
    assert code(Chat(text="é" * 800)) == "ok" and code(Chat(text="é" * 801)) == "too_large"
    assert code(Complete(prompt="x" * 1601)) == "too_large"
    assert code(Chat(text="x" * 800, system="x" * 801)) == "too_large"
    assert code(Chat(messages=[Message("user", "x" * 200)] * 8)) == "ok"
    assert code(Chat(messages=[Message("user", "x" * 201)] * 8)) == "too_large"
    schema = {"enum": ["x" * 70_000]}
    assert code(Chat(text="x", format=schema)) == "too_large"
    assert code(Chat(text="x", format={"type": "string"})) == "ok"


def test_it_is_noted_down_that_a_device_is_here(given_access: Given) -> None:
    device = given_access.device()
    given_access.code(device, Ping())
    assert given_access.seen == [device.id]
    given_access.store.touch(device.id)
    given_access.code(device, Ping())
    assert given_access.seen == [device.id]


def test_refusals_are_logged(given_access: Given, caplog: pytest.LogCaptureFixture) -> None:
    device = given_access.device(requests_per_minute=2)
    for _ in range(3):
        given_access.code(device, Network(op="off"))
    given_access.access.identify("x" * 40, Ping())
    found = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    assert found == [
        {"device": device.id, "request": "network off", "code": "unauthorized"},
        {"device": device.id, "request": "network off", "code": "unauthorized"},
        {"device": device.id, "request": "network off", "code": "busy"},
        {"device": "x" * 40, "request": "ping"},
    ]


def test_what_is_admitted_shows_itself_to_the_device(given_access: Given) -> None:
    device = given_access.device()
    admitted = given_access.access.admit(device.id, Sessions(op="list"))
    assert isinstance(admitted, Admitted)
    told: list[protocol.Reply] = []
    info = protocol.SessionInfo(f"{device.id}.s", "t", 1.0, 1.0, 1)
    admitted.show(told.append)(protocol.Done(sessions=[info]))
    (reply,) = told
    assert isinstance(reply, protocol.Done) and reply.sessions is not None
    assert reply.sessions[0].id == "s"
