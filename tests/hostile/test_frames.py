"""Bad messages through everything that reads one: the error that it promises, and soon."""

import random
import time
from collections.abc import Iterator

import pytest

from assistantd import protocol
from tests.fuzz.target import mutate_json, own_mutator
from tests.hostile import readers
from tests.hostile.readers import SEPARATOR, Reader

BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no object": b"[]",
    "a text": b'"chat"',
    "a number": b"1",
    "null": b"null",
    "no type": b"{}",
    "a type that is none": b'{"type": "none"}',
    "a type that is a number": b'{"type": 1}',
    "a type that is null": b'{"type": null}',
    "a type twice": b'{"type": "ping", "type": "shutdown"}',
    "a key twice": b'{"type": "chat", "text": "a", "text": "b"}',
    "more after it": b'{"type": "ping"} {"type": "ping"}',
    "bytes after it": b'{"type": "ping"}\0\xff',
    "cut off": b'{"type": "chat", "text": "a',
    "not UTF-8": b'{"type": "chat", "text": "\xff\xfe"}',
    "an overlong slash": b'{"type": "chat", "text": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"type": "chat", "text": "\xed\xa0\x80"}',
    "a lone surrogate": b'{"type": "chat", "text": "\\ud800"}',
    "half an escape": b'{"type": "chat", "text": "\\u12"}',
    "a control letter": b'{"type": "chat", "text": "a\0b"}',
    "UTF-16": '{"type": "ping"}'.encode("utf-16"),
    "with a BOM": b'\xef\xbb\xbf{"type": "ping"}',
    "deep lists": b'{"type": "chat", "text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"type":"chat","format":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "deep and open": b"[" * 1_000_000,
    "NaN": b'{"type": "chat", "text": "a", "temperature": NaN}',
    "Infinity": b'{"type": "chat", "text": "a", "temperature": Infinity}',
    "1e400": b'{"type": "chat", "text": "a", "temperature": 1e400}',
    "1e-400": b'{"type": "chat", "text": "a", "temperature": 1e-400}',
    "a number of 10000 digits": b'{"type": "chat", "text": "a", "seed": ' + b"9" * 10_000 + b"}",
    "a fraction of 10000 digits": b'{"type":"chat","text":"a","top_p":0.' + b"9" * 10_000 + b"}",
    "an exponent of 1000 digits": b'{"type":"chat","text":"a","top_p":1e' + b"9" * 1000 + b"}",
    "a key of 10000 digits": b'{"type":"chat","text":"a","logit_bias":{"'
    + b"9" * 10_000
    + b'":1}}',
    "a key of other digits": '{"type":"chat","text":"a","logit_bias":{"٣":1}}'.encode(),
    "many keys": b'{"type": "chat", ' + b",".join(b'"k%d": 1' % i for i in range(50_000)) + b"}",
    "a key of a megabyte": b'{"type": "ping", "' + b"k" * 1_000_000 + b'": 1}',
    "many messages": b'{"type":"chat","messages":['
    + b",".join([b'{"role":"user","content":""}'] * 20_000)
    + b"]}",
    "many stops": b'{"type":"chat","text":"a","stop":[' + b",".join([b'"a"'] * 10_000) + b"]}",
    "an escape to the terminal": b'{"type": "\\u001b[2J\\u0007"}',
    "a session that climbs": b'{"type": "chat", "text": "a", "session": "../../etc/passwd"}',
    "a session of a line": b'{"type": "chat", "text": "a", "session": "a\\nb"}',
    "a session and a line": b'{"type": "chat", "text": "a", "session": "a\\n"}',
    "a device of a line": b'{"type": "ping", "device": "abcdefgh\\n"}',
    "an address of a program": b'{"type": "network", "op": "on", "address": "ipc://x"}',
    "a budget below zero": b'{"type": "budget", "bytes": -1}',
    "a budget of too much": b'{"type": "budget", "bytes": 9999999999999999999999}',
}
SCHEMAS: dict[str, bytes] = {
    "no schema": b"[]",
    "a type that is none": b'{"type": "none"}',
    "a reference to nothing": b'{"$ref": "#/none"}',
    "a reference to itself": b'{"$ref": "#"}',
    "a circle": b'{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}',
    "a reference to the network": b'{"$ref": "https://example.com/schema.json"}',
    "a reference to a file": b'{"$ref": "file:///etc/passwd"}',
    "a pattern that explodes": b'{"type": "string", "pattern": "^(a+)+$"}',
    "a pattern of repeats": b'{"type": "string", "pattern": "((a{1,99}){1,99}){1,99}"}',
    "a pattern of many": b'{"type": "string", "pattern": "a{1000000}"}',
    "a pattern that is none": b'{"type": "string", "pattern": "("}',
    "many items": b'{"type": "array", "minItems": 1000000000, "items": {}}',
    "at most many items": b'{"type": "array", "maxItems": 1000000000}',
    "a long text": b'{"type": "string", "minLength": 1000000000}',
    "less than nothing": b'{"type": "string", "minLength": 5, "maxLength": 1}',
    "a number out of range": b'{"type": "integer", "minimum": 1e300}',
    "a range that is none": b'{"type": "integer", "minimum": 5, "maximum": 1}',
    "a multiple of nothing": b'{"type": "number", "multipleOf": 0}',
    "an enum of nothing": b'{"enum": []}',
    "a large enum": b'{"enum": [' + b",".join(b'"w%d"' % i for i in range(20_000)) + b"]}",
    "many properties": b'{"type":"object","properties":{'
    + b",".join(b'"p%d":{"type":"integer"}' % i for i in range(5000))
    + b"}}",
    "all of any of": b'{"allOf": ['
    + b",".join([b'{"anyOf":[{"type":"string"},{"type":"integer"}]}'] * 30)
    + b"]}",
    "deep": b'{"items":' * 150 + b"{}" + b"}" * 150,
    "deeper": b'{"items":' * 900 + b"{}" + b"}" * 900,
    "combinations": b'{"oneOf": [' + b",".join([b'{"type":"object"}'] * 300) + b"]}",
    "a format that is none": b'{"type": "string", "format": "none"}',
    "a wrong type of keyword": b'{"properties": 1, "required": {}, "items": "x"}',
    "a key of NUL": b'{"properties": {"\\u0000": {}}, "required": ["\\u0000"]}',
}


def messages(reader: Reader) -> Iterator[bytes]:
    """Bad messages for one reader; some turn out sound."""
    rng = random.Random(f"frames {reader.name}")
    generic = own_mutator(readers.WORDS)(rng)
    for body in BODIES.values():
        yield body
        for seed in reader.seeds()[:1]:
            head, separator, _ = seed.rpartition(SEPARATOR)
            yield head + separator + body
    for seed in reader.seeds():
        head, separator, body = seed.rpartition(SEPARATOR)
        for _try in range(40):
            yield head + separator + mutate_json(body, rng)
            yield generic(seed, 1 << 14)
        for at in range(0, len(seed), 7):
            yield seed[:at]
    for n_frames in (0, 1, 2, 4, 5, 1000):
        yield SEPARATOR.join([b"assistant/1"] * n_frames)
    for n in (0, 65, 255, 1 << 16):
        yield SEPARATOR.join([b"assistant/1", b"i" * n, b'{"type": "ping"}'])


@pytest.mark.parametrize("name", readers.FRAMES)
def test_bad_messages(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    reader = readers.FRAMES[name]
    refused: set[bytes] = set()
    taken: set[bytes] = set()
    for raw in messages(reader):
        try:
            (taken if reader.check(raw) is None else refused).add(raw)
        except BaseException as error:
            raise AssertionError(f"{raw[:300]!r}") from error
    with capsys.disabled():
        print(f"\n{name}: {len(refused)} distinct bad messages refused, {len(taken)} taken")
    assert len(refused) > 30


def test_a_body_that_is_too_large() -> None:
    frames = [protocol.PROTOCOL, b"id", b" " * (protocol.MAX_BODY_BYTES + 1)]
    with pytest.raises(protocol.ProtocolError) as caught:
        protocol.decode_request(frames)
    assert caught.value.code == "too_large"


@pytest.mark.parametrize("name", SCHEMAS)
def test_hostile_formats(name: str) -> None:
    """A schema is refused, or followed: with a bound on what that takes, which is llguidance's."""
    body = b'{"type": "chat", "text": "a", "format": ' + SCHEMAS[name] + b"}"
    started = time.thread_time()
    readers.FRAMES["request"].check(SEPARATOR.join([protocol.PROTOCOL, b"id", body]))
    print(f"{time.thread_time() - started:.2f} s")
