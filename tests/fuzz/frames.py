"""Whatever is read from a socket: requests, replies, pairing, the gateway's bodies and messages.

The first byte chooses the reader. What is refused is refused with the error that the reader
promises; what is taken comes out the same when it is written and read again.
"""

import random

from tests.fuzz.target import Mutate, Target, mutate_json
from tests.hostile import readers

READERS = list(readers.FRAMES.values())


def one(data: bytes) -> str:
    if not data:
        return ""
    reader = READERS[data[0] % len(READERS)]
    refused = reader.check(data[1:])
    return f"{reader.name} {type(refused).__name__} {refused}"


def seeds() -> dict[str, bytes]:
    return {
        f"{reader.name}-{number}": bytes([kind]) + seed
        for kind, reader in enumerate(READERS)
        for number, seed in enumerate(reader.seeds())
    }


def mutate(data: bytes, longest: int, seed: int, generic: Mutate) -> bytes:
    rng = random.Random(seed)
    if rng.random() < 0.6 and len(data) > 1:
        head, separator, body = data[1:].rpartition(readers.SEPARATOR)
        new = data[:1] + head + separator + mutate_json(body, rng)
        if rng.random() < 0.05:
            new = bytes([rng.randrange(len(READERS))]) + new[1:]
        return new[:longest]
    return generic(data, longest)


TARGET = Target("frames", one, seeds, mutate, words=readers.WORDS)
