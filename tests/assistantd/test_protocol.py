"""The codec: every message survives the wire, and nothing else gets through."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistantd import protocol as p

REQUESTS: list[p.Request] = [
    p.Chat(text="hi"),
    p.Chat(text="hi", session="a.b-c_1", system="be brief", seed=2**63 - 1, stop=["x"]),
    p.Chat(messages=[p.Message("system", "s"), p.Message("user", "u")], format={"type": "object"}),
    p.Complete(prompt="Once", temperature=0.0, logit_bias={"5": -1.5}, stream=False),
    p.Cancel(target="1"),
    p.Sessions(op="rename", session="a", title="t"),
    p.Models(op="pull", name="smollm2"),
    p.Status(),
    p.Ping(),
    p.Shutdown(),
]
REPLIES: list[p.Reply] = [
    p.Delta("é"),
    p.Progress("download", "m", 1, 2),
    p.Done(text="", finish_reason="stop", timings=p.Timings(1, 2, 3, 4, 5, 6, 7, 8)),
    p.Done(message="x"),
    p.Error(p.ErrorInfo("busy", "later", 100)),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: type(r).__name__)
def test_requests_survive(request_: p.Request) -> None:
    assert p.decode_request(p.encode_request(b"id", request_)) == (b"id", request_)


@pytest.mark.parametrize("reply", REPLIES, ids=lambda r: type(r).__name__)
def test_replies_survive(reply: p.Reply) -> None:
    frames = p.encode_reply(b"id", reply)
    assert p.decode_reply(frames) == (b"id", reply)
    body = json.loads(frames[2])
    # what a stranger's client looks for
    last = isinstance(reply, p.Done | p.Error)
    assert (body.get("done") is True or "error" in body) == last


BAD: list[tuple[dict[str, Any], str]] = [
    ({"type": "chat"}, "either"),
    ({"type": "chat", "text": "a", "messages": [{"role": "user", "content": "b"}]}, "either"),
    ({"type": "chat", "messages": []}, "length"),
    ({"type": "chat", "messages": [{"role": "assistant", "content": "b"}]}, "role user"),
    ({"type": "chat", "messages": [{"role": "user", "content": "b"}], "session": "s"}, "session"),
    ({"type": "chat", "text": "a", "session": "../x"}, "session's name has 1 to 64"),
    ({"type": "chat", "text": "a", "temperature": -1}, ">= 0"),
    ({"type": "chat", "text": "a", "top_p": 0}, "> 0"),
    ({"type": "chat", "text": "a", "max_tokens": 0}, ">= 1"),
    ({"type": "chat", "text": "a", "max_tokens": 1.5}, "int"),
    ({"type": "chat", "text": "a", "max_tokens": True}, "int"),
    ({"type": "chat", "text": "a", "seed": -1}, ">= 0"),
    ({"type": "chat", "text": "a", "stop": [""]}, "length"),
    ({"type": "chat", "text": "a", "stop": ["x"] * 17}, "length"),
    ({"type": "chat", "text": "a", "logit_bias": {"x": 1}}, "token ids"),
    ({"type": "chat", "text": "a", "logit_bias": {str(i): 1 for i in range(2000)}}, "1,024"),
    ({"type": "chat", "text": "a", "tempreature": 1}, "tempreature"),
    ({"type": "chat", "text": 5}, "str"),
    ({"type": "cancel"}, "target"),
    ({"type": "sessions", "op": "show"}, "needs a `session`"),
    ({"type": "sessions", "op": "rename", "session": "a"}, "title"),
    ({"type": "models", "op": "pull"}, "needs a `name`"),
    ({"type": "nonsense"}, "nonsense"),
    ({}, "type"),
]


@pytest.mark.parametrize(("body", "problem"), BAD)
def test_bad_requests_are_told_why(body: dict[str, Any], problem: str) -> None:
    with pytest.raises(p.ProtocolError) as caught:
        p.decode_request([p.PROTOCOL, b"7", json.dumps(body).encode()])
    assert caught.value.code == "bad_request"
    assert caught.value.request_id == b"7"
    assert problem in str(caught.value)


def test_too_large() -> None:
    with pytest.raises(p.ProtocolError) as caught:
        p.decode_request([p.PROTOCOL, b"7", b" " * (p.MAX_BODY_BYTES + 1)])
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    "body", [{"type": "ping", "x" * 100_000: 1}, {"type": "x" * 100_000}, {"type": "ping\x1b[2J"}]
)
def test_what_is_wrong_is_not_repeated_at_length(body: dict[str, Any]) -> None:
    """It goes into the log, and waits for the sender, who may send many and read none."""
    with pytest.raises(p.ProtocolError) as caught:
        p.decode_request([p.PROTOCOL, b"7", json.dumps(body).encode()])
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()
    with pytest.raises(p.ProtocolError) as caught:
        p.decode_reply([p.PROTOCOL, b"7", json.dumps(body).encode()])
    assert len(str(caught.value)) < 400


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_random_frames(frames: list[bytes]) -> None:
    for decode in (p.decode_request, p.decode_reply):
        try:
            decode(frames)
        except p.ProtocolError as error:
            assert str(error)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
)
field_names = st.sampled_from(
    sorted({name for r in (p.Chat, p.Complete, p.Models) for name in r.__struct_fields__})
)


@given(
    st.sampled_from(["chat", "complete", "cancel", "sessions", "models", "status"]),
    st.dictionaries(field_names, json_values, max_size=5),
)
def test_random_fields(kind: str, fields: dict[str, Any]) -> None:
    """Whatever gets through is a request of its type, within its limits."""
    body = json.dumps({**fields, "type": kind}).encode()
    try:
        _, request = p.decode_request([p.PROTOCOL, b"1", body])
    except p.ProtocolError:
        return
    assert msgspec.json.decode(msgspec.json.encode(request), type=p.Request) == request
    if isinstance(request, p.Chat | p.Complete) and request.temperature is not None:
        assert 0 <= request.temperature <= 10
