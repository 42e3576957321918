"""A GGUF in parts that can be changed one by one, and need not fit together.

Owns: taking a sound file apart, putting lies together, and the changes that the corpus
(ggufs.py) and the fuzzer (tests/fuzz/gguf.py) make. The reader under test is not used here.
"""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

STRING, ARRAY = 8, 9
CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
"""struct codes of the scalar types."""
NUMBERS = (0, 1, 2, 3, 7, 8, 31, 32, 33, 255, 256, 4096, 65535, 65536, 1 << 20, (1 << 24) + 1)
LIMITS = tuple((1 << bits) + step for bits in (31, 32, 48, 60, 62, 63, 64) for step in (-1, 0, 1))
"""Around the ends of the integer types."""
FLOATS = (0.0, -0.0, -1.0, 5e-324, 1e-45, 1e38, 1e308, float("inf"), float("-inf"), float("nan"))
TYPES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13, 14, 16, 24, 30, 31, 39, 77, 0xFFFFFFFF)


@dataclass
class Array:
    """An array: its items, and what it says of them."""

    kind: int
    items: list[bytes]
    """Each packed."""
    count: int | None = None
    """What is said; None for the truth."""


@dataclass
class Entry:
    """A key and its value, packed if it is no array."""

    key: bytes
    kind: int
    value: bytes | Array


@dataclass
class TensorEntry:
    """A line of the table of tensors."""

    name: bytes
    dims: list[int]
    kind: int
    offset: int
    n_dims: int | None = None


@dataclass
class Parts:
    """A whole file."""

    entries: list[Entry]
    tensors: list[TensorEntry]
    data: bytes
    magic: bytes = b"GGUF"
    version: int = 3
    n_tensors: int | None = None
    n_entries: int | None = None
    order: str = "<"
    padding: int | None = None
    """Bytes before the data; None for what the alignment asks."""

    def entry(self, key: str) -> Entry:
        return next(entry for entry in self.entries if entry.key == key.encode())

    def tensor(self, name: str) -> TensorEntry:
        return next(tensor for tensor in self.tensors if tensor.name == name.encode())

    def without(self, key: str) -> "Parts":
        return replace(self, entries=[e for e in self.entries if e.key != key.encode()])

    def with_entry(self, key: str, kind: int, value: bytes | Array) -> "Parts":
        """The entry changed, or added."""
        new = Entry(key.encode(), kind, value)
        entries = [new if e.key == new.key else e for e in self.entries]
        if new not in entries:
            entries.append(new)
        return replace(self, entries=entries)

    def with_tensor(self, of: str, /, **changes: object) -> "Parts":
        tensors = [
            replace(t, **changes) if t.name == of.encode() else t  # type: ignore[arg-type]
            for t in self.tensors
        ]
        return replace(self, tensors=tensors)

    def header(self) -> bytes:
        """All before the padding."""
        u32, u64 = self.order + "I", self.order + "Q"
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_entries = len(self.entries) if self.n_entries is None else self.n_entries
        out = bytearray(self.magic + struct.pack(u32, self.version & 0xFFFFFFFF))
        out += struct.pack(u64, n_tensors & MASK) + struct.pack(u64, n_entries & MASK)
        for entry in self.entries:
            out += struct.pack(u64, len(entry.key)) + entry.key + struct.pack(u32, entry.kind)
            if isinstance(entry.value, Array):
                array = entry.value
                count = len(array.items) if array.count is None else array.count
                out += struct.pack(u32, array.kind) + struct.pack(u64, count & MASK)
                out += b"".join(array.items)
            else:
                out += entry.value
        for tensor in self.tensors:
            n_dims = len(tensor.dims) if tensor.n_dims is None else tensor.n_dims
            out += struct.pack(u64, len(tensor.name)) + tensor.name
            out += struct.pack(u32, n_dims & 0xFFFFFFFF)
            out += b"".join(struct.pack(u64, dim & MASK) for dim in tensor.dims)
            out += struct.pack(u32, tensor.kind & 0xFFFFFFFF)
            out += struct.pack(u64, tensor.offset & MASK)
        return bytes(out)

    def build(self) -> bytes:
        header = self.header()
        padding = -len(header) % 32 if self.padding is None else self.padding
        return header + bytes(padding) + self.data


MASK = (1 << 64) - 1


def text(value: bytes, length: int | None = None) -> bytes:
    """A string as the format has it; `length` is what it says of itself."""
    return struct.pack("<Q", (len(value) if length is None else length) & MASK) + value


def scalar(kind: int, value: float) -> bytes:
    return struct.pack("<" + CODES[kind], value)


def strings(items: list[str]) -> Array:
    return Array(STRING, [text(item.encode()) for item in items])


def numbers(kind: int, items: Sequence[float]) -> Array:
    return Array(kind, [scalar(kind, item) for item in items])


class NotWholeError(Exception):
    """The bytes cannot be taken apart."""


def parse(raw: bytes) -> Parts:
    """Take a file apart, as far as it makes sense.

    Raises:
        NotWholeError: it does not.
    """
    at = 0

    def take(n: int) -> bytes:
        nonlocal at
        if n > len(raw) - at:
            raise NotWholeError
        at += n
        return raw[at - n : at]

    def number(code: str) -> int:
        return int(struct.unpack("<" + code, take(struct.calcsize("<" + code)))[0])

    def value(kind: int) -> bytes:
        if kind == STRING:
            head = take(8)
            return head + take(struct.unpack("<Q", head)[0])
        if kind not in CODES:
            raise NotWholeError
        return take(struct.calcsize("<" + CODES[kind]))

    magic, version = take(4), number("I")
    n_tensors, n_entries = number("Q"), number("Q")
    if n_tensors > 4096 or n_entries > 4096:
        raise NotWholeError
    entries = []
    for _entry in range(n_entries):
        key = take(number("Q"))
        kind = number("I")
        if kind == ARRAY:
            item_kind, count = number("I"), number("Q")
            if count > len(raw):
                raise NotWholeError
            entries.append(
                Entry(key, kind, Array(item_kind, [value(item_kind) for _ in range(count)]))
            )
        else:
            entries.append(Entry(key, kind, value(kind)))
    tensors = []
    for _tensor in range(n_tensors):
        name = take(number("Q"))
        n_dims = number("I")
        if n_dims > 8:
            raise NotWholeError
        dims = [number("Q") for _dim in range(n_dims)]
        tensors.append(TensorEntry(name, dims, number("I"), number("Q")))
    padding = min(-at % 32, len(raw) - at)
    return Parts(entries, tensors, raw[at + padding :], magic, version)


def _number(rng: random.Random) -> int:
    return rng.choice([rng.choice(NUMBERS), rng.choice(LIMITS), rng.randrange(1 << 16)])


def _bytes(rng: random.Random, old: bytes) -> bytes:
    """Bytes changed a little."""
    new = bytearray(old)
    for _change in range(rng.randint(1, 3)):
        kind = rng.randrange(5)
        at = rng.randint(0, len(new))
        if kind == 0:
            new[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 4)))
        elif kind == 1:
            del new[at : at + rng.randint(1, 4)]
        elif kind == 2 and new:
            new[at % len(new)] ^= 1 << rng.randrange(8)
        elif kind == 3:
            new[at:at] = rng.choice(
                [b"\0", b" ", b"\x1b[2J", b"\xff\xfe", "한".encode(), b"{{", b"%}", "▁".encode()]
            )
        else:
            new[at:at] = new[: rng.randint(0, 8)]
    return bytes(new)


def _scalar(rng: random.Random, kind: int) -> bytes:
    code = CODES[kind]
    if code in "fd":
        try:
            return scalar(kind, rng.choice([*FLOATS, float(rng.randint(-9, 9)), rng.random()]))
        except OverflowError:
            return scalar(kind, float("inf"))
    size = struct.calcsize("<" + code)
    return (_number(rng) & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _value(rng: random.Random, kind: int) -> bytes:
    if kind == STRING:
        return text(_bytes(rng, b"llama"))
    return _scalar(rng, kind) if kind in CODES else b""


def _change_value(rng: random.Random, parts: Parts) -> None:
    entry = rng.choice(parts.entries)
    if isinstance(entry.value, Array):
        _change_array(rng, entry.value)
    elif entry.kind == STRING:
        entry.value = text(_bytes(rng, entry.value[8:]))
    elif entry.kind in CODES:
        entry.value = _scalar(rng, entry.kind)


def _change_array(rng: random.Random, array: Array) -> None:
    kind = rng.randrange(8)
    if kind == 0:
        array.count = rng.choice([_number(rng), len(array.items) + rng.choice((-1, 1))])
    elif kind == 1:
        array.kind = rng.randrange(14)
    elif kind == 2 and array.items:
        del array.items[rng.randrange(len(array.items)) :]
    elif not array.items:
        array.items.append(_value(rng, array.kind))
    elif kind == 3:
        array.items.append(rng.choice(array.items))
    elif kind == 4:
        first, second = rng.randrange(len(array.items)), rng.randrange(len(array.items))
        array.items[first], array.items[second] = array.items[second], array.items[first]
    elif kind == 5:
        del array.items[rng.randrange(len(array.items))]
    else:
        at = rng.randrange(len(array.items))
        if array.kind == STRING:
            array.items[at] = text(_bytes(rng, array.items[at][8:]))
        elif array.kind in CODES:
            array.items[at] = _scalar(rng, array.kind)


def _change_kind(rng: random.Random, parts: Parts) -> None:
    entry = rng.choice(parts.entries)
    entry.kind = rng.randrange(15)
    if entry.kind == ARRAY:
        entry.value = Array(rng.randrange(13), [])
    elif rng.random() < 0.7 and (entry.kind in CODES or entry.kind == STRING):
        entry.value = _value(rng, entry.kind)


def _change_entries(rng: random.Random, parts: Parts) -> None:
    at = rng.randrange(len(parts.entries))
    kind = rng.randrange(4)
    if kind == 0:
        del parts.entries[at]
    elif kind == 1:
        parts.entries.insert(at, rng.choice(parts.entries))
    elif kind == 2:
        old = parts.entries[at]
        parts.entries[at] = Entry(_bytes(rng, old.key), old.kind, old.value)
    else:
        rng.shuffle(parts.entries)


def _change_tensor(rng: random.Random, parts: Parts) -> None:
    if not parts.tensors:
        return
    at = rng.randrange(len(parts.tensors))
    tensor = parts.tensors[at]
    kind = rng.randrange(8)
    if kind == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = _number(rng)
    elif kind == 1:
        tensor.kind = rng.choice(TYPES)
    elif kind == 2:
        tensor.offset = rng.choice([_number(rng), tensor.offset + rng.choice((-32, 1, 32))])
    elif kind == 3:
        tensor.name = rng.choice([_bytes(rng, tensor.name), rng.choice(parts.tensors).name])
    elif kind == 4:
        tensor.n_dims = rng.randrange(7)
    elif kind == 5:
        tensor.dims.insert(rng.randint(0, len(tensor.dims)), rng.choice((0, 1, 2)))
    elif kind == 6:
        del parts.tensors[at]
    else:
        parts.tensors.append(replace(rng.choice(parts.tensors)))


def _change_head(rng: random.Random, parts: Parts) -> None:
    kind = rng.randrange(6)
    if kind == 0:
        parts.version = rng.choice((0, 1, 2, 3, 4, 0x03000000, 0xFFFFFFFF))
    elif kind == 1:
        parts.n_tensors = rng.choice([_number(rng), len(parts.tensors) + rng.choice((-1, 1))])
    elif kind == 2:
        parts.n_entries = rng.choice([_number(rng), len(parts.entries) + rng.choice((-1, 1))])
    elif kind == 3:
        parts.data = parts.data[: rng.randint(0, len(parts.data))]
    elif kind == 4:
        parts.padding = rng.randrange(64)
    else:
        parts.data = _bytes(rng, parts.data)


CHANGES: tuple[Callable[[random.Random, Parts], None], ...] = (
    _change_value,
    _change_value,
    _change_value,
    _change_kind,
    _change_entries,
    _change_tensor,
    _change_tensor,
    _change_head,
)


def mutate(raw: bytes, seed: int, n_changes: int = 1) -> bytes | None:
    """A file changed in its structure; None if it has none that could be seen."""
    try:
        parts = parse(raw)
    except NotWholeError:
        return None
    rng = random.Random(seed)
    for _change in range(n_changes):
        if not parts.entries:
            break
        rng.choice(CHANGES)(rng, parts)
    return parts.build()
