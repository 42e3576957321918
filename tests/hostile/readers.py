"""Everything that reads bytes of a stranger in this process, what it may raise, and sound inputs.

Used by the corpus' tests and by the fuzzer of frames. Frames of a message are joined with
SEPARATOR, which no sound frame holds.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import msgspec
import numpy as np

from assistantd import protocol, protocol_pairing
from assistantd.prompts import Prompts
from clients.voice.wyoming_server import _BrokenEvent, _Connection
from clients.web import openai_requests
from clients.web.errors import Refusal
from engine import kv_disk
from engine.errors import GrammarError
from engine.grammar import Constraint
from engine.tokenizer import Tokenizer, load_tokenizer

SEPARATOR = b"\x00--\x00"
WORDS = (SEPARATOR, b'"type"', b'"device"', b"assistant/1", b"assistant-pair/1", b"\\ud800")
MAX_MESSAGE_CHARS = 2000
PEER_ID = b"id"


@dataclass(frozen=True)
class Reader:
    """One of them.

    Attributes:
        read: takes the bytes; raises one of `allowed` for what it refuses, and nothing else.
        seeds: sound inputs.
    """

    name: str
    read: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]

    def check(self, data: bytes) -> Exception | None:
        """The error that says why it was refused. Raises what a reader must not raise."""
        try:
            self.read(data)
        except self.allowed as error:
            text = str(error)
            assert text.strip() and len(text) <= MAX_MESSAGE_CHARS, text[:500]
            return error
        return None


# --- assistant/1 ---


@cache
def tokenizer() -> Tokenizer:
    """A small one, for formats."""
    from tests.hostile import small
    from tests.hostile.parts import Array

    keys: dict[str, Any] = {}
    for entry in small.bpe_keys():
        value: Any = entry.value
        if isinstance(value, Array):
            if value.kind == 8:
                value = [item[8:].decode() for item in value.items]
            else:
                value = np.frombuffer(b"".join(value.items), np.int32)
        elif entry.kind == 8:
            value = value[8:].decode()
        elif entry.kind == 7:
            value = bool(value[0])
        else:
            value = int.from_bytes(value, "little")
        keys[entry.key.decode()] = value
    return load_tokenizer(keys)


def _request(frames: list[bytes]) -> None:
    request_id, request = protocol.decode_request(frames)
    again = protocol.decode_request(protocol.encode_request(request_id, request))
    assert again == (request_id, request), "it comes out differently"
    if isinstance(request, protocol.Chat | protocol.Complete):
        _sampling(request)


class _Engine:
    """What Prompts.sampling asks of one."""

    class chat:  # noqa: N801
        stop_strings = ()


def _sampling(request: protocol.Chat | protocol.Complete) -> None:
    """What the daemon makes of a request before the model is asked."""
    from assistantd.config import Config
    from engine.sampler import Sampler

    params = Prompts(Config()).sampling(request, _Engine)  # type: ignore[arg-type]
    constraint = None
    if params.grammar is not None:
        constraint = Constraint(tokenizer(), params.grammar)
    sampler = Sampler(params, tokenizer().vocab_size, [1, 2, 3], constraint)
    for _token in range(3):
        if constraint is not None and constraint.is_finished:
            break
        sampler.accepted(sampler.sample(np.zeros(tokenizer().vocab_size, np.float32)))


def _reply(frames: list[bytes]) -> None:
    request_id, reply = protocol.decode_reply(frames)
    assert protocol.decode_reply(protocol.encode_reply(request_id, reply))[0] == request_id


def _pairing(decode: Callable[[list[bytes]], Any], frames: list[bytes]) -> None:
    message = decode(frames)
    assert decode(protocol_pairing.encode(message)) == message


def _framed(read: Callable[[list[bytes]], object], data: bytes) -> None:
    read(data.split(SEPARATOR))


def _join(frames: list[bytes]) -> bytes:
    return SEPARATOR.join(frames)


def requests() -> list[bytes]:
    from tests.assistantd.test_protocol import REQUESTS

    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"$ref": "#/$defs/b"}, "maxItems": 3}},
        "$defs": {"b": {"type": "string", "pattern": "^[a-z]{1,3}$"}},
        "required": ["a"],
    }
    more: list[protocol.Request] = [
        protocol.Chat(text="x", format=schema),
        protocol.Chat(text="x", format="json", logit_bias={"3": 2.0}, device="abcdefgh"),
        protocol.Devices(op="limit", id="abcdefgh", limits=protocol.Limits(concurrent=2)),
        protocol.Pair(op="claim", code="123456", name="n"),
        protocol.Network(op="on", address="127.0.0.1", port=7777),
        protocol.Resume(target="1", offset=3),
        protocol.Budget(bytes=1 << 30),
    ]
    return [_join(protocol.encode_request(PEER_ID, r)) for r in (*REQUESTS, *more)]


def replies() -> list[bytes]:
    from tests.assistantd.test_protocol import REPLIES

    status = protocol.StatusInfo(
        "0",
        1,
        1.0,
        "ready",
        protocol.ModelInfo("m", 1),
        protocol.QueueStatus(0, 0, 1),
        {},
        0,
        0,
        1.0,
    )
    more: list[protocol.Reply] = [
        protocol.Done(status=status),
        protocol.Done(sessions=[protocol.SessionInfo("a", "t", 1.0, 2.0, 3)]),
    ]
    return [_join(protocol.encode_reply(PEER_ID, r)) for r in (*REPLIES, *more)]


# --- pairing ---


def from_device() -> list[bytes]:
    p = protocol_pairing
    messages = [p.Start(message=b"A" * 33, password="code"), p.Confirm(proof=b"p" * 32)]
    return [_join(p.encode(m)) for m in (*messages, p.Sealed(box=b"b" * 40))]


def from_daemon() -> list[bytes]:
    p = protocol_pairing
    messages = [
        p.Started(message=b"A" * 33),
        p.Confirmed(proof=b"p" * 32),
        p.Sealed(box=b"b" * 40),
        p.Refused(reason="wrong", message="m", tries_left=2),
    ]
    return [_join(p.encode(m)) for m in messages]


def _box(data: bytes) -> None:
    """What is in a sealed box, once it is open: only who knows the code can put it there."""
    kind, _, body = data.partition(SEPARATOR)
    kinds = (
        protocol_pairing.Promise,
        protocol_pairing.DaemonKey,
        protocol_pairing.Offer,
        protocol_pairing.Welcome,
    )
    keys = _keys()
    which = kinds[(kind or b"\0")[0] % 4]
    cipher, nonce = keys._cipher("device"), protocol_pairing._nonce(which)
    keys.open("device", cipher.encrypt(nonce, body, keys.transcript), which)


@cache
def _keys() -> protocol_pairing.Keys:
    sides: dict[Any, bytes] = {"device": b"k" * 32, "daemon": b"d" * 32}
    return protocol_pairing.Keys(b"t" * 32, sides, sides)


def boxes() -> list[bytes]:
    p = protocol_pairing
    device = protocol.DeviceInfo("abcdefgh", "n", "curve", "chat", protocol.Limits(), 1.0)
    values = [
        p.Promise(hash=b"h" * 32),
        p.DaemonKey(server_key="k" * 40, nonce=b"n" * 32),
        p.Offer(public_key="k" * 40, name="n", nonce=b"n" * 32),
        p.Welcome(port=1, host="h", device=device),
    ]
    return [bytes([i]) + SEPARATOR + msgspec.json.encode(v) for i, v in enumerate(values)]


def _typed(data: bytes) -> None:
    protocol_pairing.read_password(data.decode("utf-8", "replace"))


# --- the gateway ---


def _openai(data: bytes) -> None:
    kind, _, body = data.partition(SEPARATOR)
    request: protocol.Request
    if kind == b"complete":
        request = openai_requests.complete_of(
            openai_requests.decode(body, openai_requests.CompletionBody), "abcdefgh"
        )
    else:
        request = openai_requests.chat_of(
            openai_requests.decode(body, openai_requests.ChatBody), "abcdefgh"
        )
    frames = protocol.encode_request(PEER_ID, request)
    try:
        protocol.decode_request(frames)
    except protocol.ProtocolError as error:  # it is the daemon that says this one, and the
        assert error.code == "bad_request"  # gateway hands it on


def openai() -> list[bytes]:
    chat = {
        "model": "m",
        "messages": [
            {"role": "developer", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "u"}]},
        ],
        "stream": True,
        "stop": ["a"],
        "seed": -1,
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "string"}}},
    }
    complete = {"prompt": ["p"], "top_p": 0, "logit_bias": {"1": 2}, "max_tokens": 3}
    return [
        b"chat" + SEPARATOR + msgspec.json.encode(chat),
        b"complete" + SEPARATOR + msgspec.json.encode(complete),
    ]


# --- Wyoming ---


def _wyoming(data: bytes) -> None:
    """All events of a connection that sent these bytes."""

    async def read() -> None:
        stream = asyncio.StreamReader(limit=1 << 16)
        stream.feed_data(data)
        stream.feed_eof()
        connection = _Connection.__new__(_Connection)
        connection.reader = stream
        while await connection._read() is not None:
            pass

    asyncio.run(read())


def wyoming() -> list[bytes]:
    return [
        b'{"type": "describe"}\n',
        b'{"type": "transcript", "data": {"text": "hi"}}\n{"type": "ping"}\n',
        b'{"type": "transcript", "data_length": 14}\n{"text": "hi"}\n',
        b'{"type": "audio-chunk", "data": {"rate": 16000, "width": 2, "channels": 1}, '
        b'"payload_length": 4}\n\0\0\0\0',
    ]


# --- files ---


def _index(data: bytes) -> None:
    """The index of saved pages, with the right digest: what follows that is looked at, too."""
    kv_disk.parse_index(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


def indexes() -> list[bytes]:
    pages = [kv_disk.SavedPage(-1, 0, 1, [1] * 16), kv_disk.SavedPage(0, 1, 2, [3, 4])]
    return [msgspec.json.encode(kv_disk.Index("f", pages))]


FRAMES: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        Reader(
            "request", partial(_framed, _request), (protocol.ProtocolError, GrammarError), requests
        ),
        Reader("reply", partial(_framed, _reply), (protocol.ProtocolError,), replies),
        Reader(
            "pairing-device",
            partial(_framed, partial(_pairing, protocol_pairing.decode_from_device)),
            (protocol_pairing.PairingMessageError,),
            from_device,
        ),
        Reader(
            "pairing-daemon",
            partial(_framed, partial(_pairing, protocol_pairing.decode_from_daemon)),
            (protocol_pairing.PairingMessageError,),
            from_daemon,
        ),
        Reader("pairing-box", _box, (protocol_pairing.PairingMessageError,), boxes),
        Reader("pairing-code", _typed, (ValueError,), lambda: [b"123 456", b"a" * 26]),
        Reader("openai", _openai, (Refusal,), openai),
        Reader("wyoming", _wyoming, (_BrokenEvent,), wyoming),
        Reader("kv-index", _index, (kv_disk.DamagedIndexError,), indexes),
    )
}
