"""What a fuzz target is, and what all of them need."""

import json
import os
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

Mutate = Callable[[bytes, int], bytes]
"""Generic changes: the bytes, and how long they may become."""


@dataclass(frozen=True)
class Target:
    """Something that reads bytes.

    Attributes:
        one: reads them, and says what came of it; whatever it raises is a crash.
        seeds: sound inputs, and names for them.
        mutate: changes that keep the structure: (bytes, longest, seed, generic changes) → bytes.
        longest: bytes of an input.
    """

    name: str
    one: Callable[[bytes], object]
    seeds: Callable[[], dict[str, bytes]]
    mutate: Callable[[bytes, int, int, Mutate], bytes] | None = None
    longest: int = 1 << 16
    words: tuple[bytes, ...] = field(default=())
    """Put in by generic changes."""
    prepare: Callable[[], object] = lambda: None
    """Done once, before the time of an input counts."""


def outcome_of(said: object) -> str:
    """What was said of an input, without what differs from one to the next of its kind."""
    return re.sub(r"[0-9]+|'[^']*'|`[^`]*`", "0", f"{type(said).__name__} {said}")[:120]


class FileOf:
    """A file with these bytes that is gone afterwards; in memory where the system can."""

    def __init__(self, data: bytes) -> None:
        if hasattr(os, "memfd_create"):
            self._fd = os.memfd_create("fuzz")
            self.path = Path(f"/proc/self/fd/{self._fd}")
        else:
            import tempfile

            self._fd, name = tempfile.mkstemp()
            self.path = Path(name)
        os.write(self._fd, data)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_error: object) -> None:
        os.close(self._fd)
        if not str(self.path).startswith("/proc/"):
            self.path.unlink()


def own_mutator(words: Iterable[bytes]) -> Callable[[random.Random], Mutate]:
    """Generic changes, for where atheris is not."""
    known = [*words, b"\0", b"\xff" * 8, b"9" * 20, b"-1", b"1e400", b"\xed\xa0\x80", b"\xf0\x9f"]

    def of(rng: random.Random) -> Mutate:
        def mutate(data: bytes, longest: int) -> bytes:
            new = bytearray(data)
            for _change in range(1 + rng.randrange(4)):
                at = rng.randint(0, len(new))
                kind = rng.randrange(7)
                if kind == 0:
                    new[at:at] = rng.randbytes(rng.randint(1, 8))
                elif kind == 1:
                    del new[at : at + rng.randint(1, 32)]
                elif kind == 2 and new:
                    new[at % len(new)] = rng.randrange(256)
                elif kind == 3 and new:
                    new[at % len(new)] ^= 1 << rng.randrange(8)
                elif kind == 4:
                    new[at:at] = rng.choice(known)
                elif kind == 5:
                    start = rng.randint(0, len(new))
                    new[at:at] = new[start : start + rng.randint(1, 256)]
                else:
                    del new[rng.randint(0, len(new)) :]
            return bytes(new[:longest])

        return mutate

    return of


# --- JSON ---

_ATOMS: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0,
    1e308, 5e-324, "", "a", "\0", "\x1b[2J", "x" * 300, "\ud800", "한국어", "../../etc", [], {},
    [[]], {"": None}, {"type": "chat"},
)  # fmt: skip
_RAW = (b"NaN", b"Infinity", b"-Infinity", b"1e400", b"1" * 5000, b"0x10", b"01", b"'a'", b"\xff")


def mutate_json(raw: bytes, rng: random.Random) -> bytes:
    """A JSON text with one thing of it changed; as it is if it is none."""
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    places: list[tuple[object, object]] = []

    def walk(node: object) -> None:
        children = node.items() if isinstance(node, dict) else enumerate(node)  # type: ignore[call-overload]
        for key, child in list(children):
            places.append((node, key))
            if isinstance(child, dict | list):
                walk(child)

    if isinstance(tree, dict | list):
        walk(tree)
    if not places:
        return json.dumps(rng.choice(_ATOMS)).encode()
    node, key = rng.choice(places)
    kind = rng.randrange(7)
    if kind == 0:
        node[key] = rng.choice(_ATOMS)  # type: ignore[index]
    elif kind == 1:
        del node[key]  # type: ignore[attr-defined]
    elif kind == 2 and isinstance(node, dict):
        node[rng.choice(["type", "op", "device", "x", "", str(key) + "x"])] = rng.choice(_ATOMS)
    elif kind == 3:
        other, name = rng.choice(places)
        with_loop = json.dumps(other[name])  # type: ignore[index]
        node[key] = json.loads(with_loop)  # type: ignore[index]
    elif kind == 4 and isinstance(node, dict):
        text = json.dumps(tree)  # the key twice
        at = text.find(json.dumps(key) + ":")
        return (text[:at] + f"{json.dumps(key)}: 1, " + text[at:]).encode()
    elif kind == 5:
        node[key] = "@@"  # type: ignore[index]
        return json.dumps(tree).encode().replace(b'"@@"', rng.choice(_RAW), 1)
    else:
        n = rng.choice((10, 100, 1000, 5000))
        node[key] = "@@"  # type: ignore[index]
        deep = rng.choice([b"[" * n + b"]" * n, b'{"a":' * n + b"1" + b"}" * n, b"[" * n])
        return json.dumps(tree).encode().replace(b'"@@"', deep, 1)
    return json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
