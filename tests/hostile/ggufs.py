"""Bad GGUFs by name, made of sound ones: each says what is wrong with it.

Most must be refused; a few are only strange, and may be used. None may do anything else.
"""

import struct
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

from engine.formats import TensorType
from tests.hostile import parts, small
from tests.hostile.parts import ARRAY, CODES, FLOATS, LIMITS, NUMBERS, STRING, Array, Parts

HYPERPARAMETERS = (
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "rope.dimension_count",
)
HUGE = (1 << 20, 1 << 31, 1 << 60, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def cases() -> Iterator[tuple[str, bytes]]:
    """All of them."""
    bpe, spm = small.model(small.bpe_keys()), small.model(small.spm_keys())
    yield from _heads(bpe)
    for kind, sound in (("bpe", bpe), ("spm", spm)):
        for name, raw in _metadata(sound):
            yield f"{kind}: {name}", raw
    for name, raw in _hyperparameters(bpe):
        yield name, raw
    for name, raw in _tensors(bpe):
        yield name, raw
    for name, raw in _vocabularies(bpe):
        yield f"bpe: {name}", raw
    for name, raw in _vocabularies(spm):
        yield f"spm: {name}", raw
    for name, raw in _cuts(bpe.build()):
        yield name, raw
    for seed in range(600):
        raw = small.seeds()[("bpe-f32", "spm-f32", "bpe-q8_0")[seed % 3]]
        changed = parts.mutate(raw, seed, 1 + seed % 4)
        assert changed is not None
        yield f"changed {seed}", changed


def _heads(sound: Parts) -> Iterator[tuple[str, bytes]]:
    raw = sound.build()
    yield "empty", b""
    for n in (1, 3, 4, 8, 23, 24):
        yield f"{n} bytes", raw[:n]
    for magic in (b"GGML", b"ggjt", b"GGUf", b"FUGG", b"\0\0\0\0", b"PK\3\4", b"<htm", b"\x7fELF"):
        yield f"magic {magic!r}", replace(sound, magic=magic).build()
    for version in (0, 1, 4, 5, 255, 1 << 24, 2 << 24, 3 << 24, 0xFFFFFFFF):
        yield f"version {version}", replace(sound, version=version).build()
    yield "version 2", replace(sound, version=2).build()
    yield "big-endian", replace(sound, order=">").build()
    for n in (len(sound.tensors) + 1, 65_536, 65_537, *HUGE):
        yield f"{n} tensors said", replace(sound, n_tensors=n).build()
        yield f"{n} entries said", replace(sound, n_entries=n).build()
    for n in (0, 1, len(sound.tensors) - 1):
        yield f"only {n} tensors said", replace(sound, n_tensors=n).build()
        yield f"only {n} entries said", replace(sound, n_entries=n).build()
    yield "all zeros", bytes(4096)
    yield "all ones", b"\xff" * 4096
    yield "a web page", b"<!DOCTYPE html><title>404</title>" * 40
    for alignment in (0, 1, 4, 7, 8, 16, 24, 33, 64, 1 << 20, 1 << 21, (1 << 32) - 1):
        yield (
            f"alignment {alignment}",
            sound.with_entry("general.alignment", 4, parts.scalar(4, alignment)).build(),
        )
    yield "alignment of a text", sound.with_entry("general.alignment", 8, parts.text(b"32")).build()


def _metadata(sound: Parts) -> Iterator[tuple[str, bytes]]:
    for number, entry in enumerate(sound.entries):
        key = entry.key.decode()
        yield f"without {key}", sound.without(key).build()
        for kind in (*CODES, STRING, ARRAY, 13, 255, 0xFFFFFFFF):
            if kind != entry.kind:
                value = parts.scalar(kind, 1) if kind in CODES else parts.text(b"x")
                new = Array(STRING, [parts.text(b"x")]) if kind == ARRAY else value
                yield f"{key} of type {kind}", sound.with_entry(key, kind, new).build()
        twice = deepcopy(sound)
        twice.entries.insert(number, entry)
        yield f"{key} twice", twice.build()
        if entry.kind == STRING:
            for length in HUGE:
                lie = parts.text(b"llama", length)
                yield f"{key} of {length} bytes", sound.with_entry(key, STRING, lie).build()
            for text in (
                b"",
                b"\xff\xfe",
                b"\0",
                b"\x1b[2J\x07",
                "한\u202e".encode(),
                b"x" * 99_999,
            ):
                value = parts.text(text)
                yield f"{key} is {text[:9]!r}", sound.with_entry(key, STRING, value).build()
        if isinstance(entry.value, Array):
            array = entry.value
            for count in (0, len(array.items) + 1, 1 << 22, (1 << 22) + 1, *HUGE):
                lie = replace(array, count=count)
                yield f"{key} of {count} items", sound.with_entry(key, ARRAY, lie).build()
            for kind in (7, 9, 13, 255):
                lie = replace(array, kind=kind)
                yield f"{key} of items {kind}", sound.with_entry(key, ARRAY, lie).build()
    for name in (b"", b"\xff", b"\x1b[2J", b"k" * 65_535, b"k" * 65_536):
        odd = deepcopy(sound)
        odd.entries.append(parts.Entry(name, 0, b"\1"))
        yield f"a key {name[:6]!r} of {len(name)}", odd.build()
    nested = Array(ARRAY, [struct.pack("<IQ", ARRAY, 1) * 1000])
    yield "arrays in arrays", sound.with_entry("x", ARRAY, nested).build()
    many = deepcopy(sound)
    many.entries += [parts.Entry(b"k%d" % i, 0, b"\1") for i in range(70_000)]
    yield "70000 entries", many.build()


def _hyperparameters(sound: Parts) -> Iterator[tuple[str, bytes]]:
    for name in HYPERPARAMETERS:
        key = f"llama.{name}"
        for value in (*NUMBERS, (1 << 31) - 1, 1 << 31, (1 << 32) - 1):
            yield f"{name} {value}", sound.with_entry(key, 4, parts.scalar(4, value)).build()
        for value in (*LIMITS[-9:-1], (1 << 64) - 1):
            raw = (value & parts.MASK).to_bytes(8, "little")
            yield f"{name} {value} of 64 bits", sound.with_entry(key, 10, raw).build()
        yield f"{name} -1", sound.with_entry(key, 5, parts.scalar(5, -1)).build()
    for name in (
        "attention.layer_norm_rms_epsilon",
        "rope.freq_base",
        "rope.scale_linear",
        "rope.scaling.factor",
    ):
        for value in FLOATS:
            changed = sound.with_entry(f"llama.{name}", 12, parts.scalar(12, value))
            if "scaling" in name:
                changed = changed.with_entry("llama.rope.scaling.type", 8, parts.text(b"linear"))
            yield f"{name} {value}", changed.build()
    for name in ("key_length", "value_length"):
        for value in (0, 1, 3, 5, 8, 4096, 4097):
            changed = sound.with_entry(f"llama.attention.{name}", 4, parts.scalar(4, value))
            yield f"{name} {value}", changed.build()
    for kind in (b"yarn", b"longrope", b"", b"\0"):
        changed = sound.with_entry("llama.rope.scaling.type", 8, parts.text(kind))
        yield f"rope scaling {kind!r}", changed.build()
    yield "experts", sound.with_entry("llama.expert_count", 4, parts.scalar(4, 8)).build()
    for architecture in (b"", b"mamba", b"LLAMA", b"llama\0", b"\x1b[2J"):
        changed = sound.with_entry("general.architecture", 8, parts.text(architecture))
        yield f"architecture {architecture!r}", changed.build()


def _tensors(sound: Parts) -> Iterator[tuple[str, bytes]]:
    for tensor in sound.tensors:
        name = tensor.name.decode()
        lacking = replace(sound, tensors=[t for t in sound.tensors if t is not tensor])
        yield f"without {name}", lacking.build()
        twice = replace(sound, tensors=[*sound.tensors, tensor])
        yield f"{name} twice", twice.build()
        for kind in (*(int(t) for t in TensorType), *parts.TYPES):
            if kind != tensor.kind:
                yield f"{name} of type {kind}", sound.with_tensor(name, kind=kind).build()
        for offset in (1, 31, tensor.offset + 32, len(sound.data), *HUGE):
            yield f"{name} at {offset}", sound.with_tensor(name, offset=offset).build()
        for dims in (
            [],
            [0],
            [0, 0],
            [1 << 32, 1 << 32],
            [1 << 63, 2],
            [(1 << 64) - 1],
            [1 << 16] * 4,
            [3, 5],
            [*reversed(tensor.dims), 1, 1],
            [1] * 5,
        ):
            yield f"{name} of {dims}", sound.with_tensor(name, dims=dims).build()
        for n_dims in (0, 3, 5, 1 << 31, (1 << 32) - 1):
            yield f"{name} of {n_dims} dimensions", sound.with_tensor(name, n_dims=n_dims).build()
    first = sound.tensors[0].name.decode()
    for name in (b"", b"\xff", b"\x1b[2J", b"n" * 64, b"n" * 65, b"blk.-1.attn_q.weight"):
        yield f"a tensor {name[:9]!r}", sound.with_tensor(first, name=name).build()
    at_zero = replace(sound, tensors=[replace(t, offset=0) for t in sound.tensors])
    yield "all tensors at one place", at_zero.build()
    yield "no tensors", replace(sound, tensors=[]).build()
    many = [replace(sound.tensors[0], name=b"t%d" % i) for i in range(66_000)]
    yield "66000 tensors", replace(sound, tensors=many).build()
    for fill in (b"\0", b"\xff", b"\x7f", b"\x80"):  # NaN, infinities, and no numbers at all
        yield f"weights of {fill!r}", replace(sound, data=fill * len(sound.data)).build()
    nan = struct.pack("<f", float("nan")) * (len(sound.data) // 4)
    yield "weights of NaN", replace(sound, data=nan).build()
    inf = struct.pack("<f", float("inf")) * (len(sound.data) // 4)
    yield "weights of infinity", replace(sound, data=inf).build()


def _vocabularies(sound: Parts) -> Iterator[tuple[str, bytes]]:
    tokens = sound.entry("tokenizer.ggml.tokens").value
    assert isinstance(tokens, Array)
    n = len(tokens.items)

    def with_tokens(items: list[bytes]) -> bytes:
        return sound.with_entry("tokenizer.ggml.tokens", ARRAY, Array(STRING, items)).build()

    yield "no tokens", with_tokens([])
    yield "one token", with_tokens(tokens.items[:1])
    yield "a token too many", with_tokens([*tokens.items, parts.text(b"new")])
    yield "all tokens the same", with_tokens([parts.text(b"a")] * n)
    yield "all tokens empty", with_tokens([parts.text(b"")] * n)
    yield (
        "an empty token and its name",
        with_tokens([*tokens.items[:-2], parts.text(b""), parts.text(b"[EMPTY_%d]" % (n - 2))]),
    )
    for text in (b"\xff", b"\0", b" ", b"\n", "\ufdd0".encode(), b"x" * 70_000, b"<0x0A>", b"</s>"):
        yield f"a token {text[:9]!r}", with_tokens([*tokens.items[:-1], parts.text(text)])
    yield (
        "tokens of numbers",
        sound.with_entry("tokenizer.ggml.tokens", ARRAY, parts.numbers(5, [1] * n)).build(),
    )
    for kind in range(9):
        types = parts.numbers(5, [kind] * n)
        yield f"all of type {kind}", sound.with_entry("tokenizer.ggml.token_type", 9, types).build()
    wide = parts.strings(["x" * 50_000, *["x"] * (n - 1)])
    for key in ("token_type", "scores"):
        yield f"{key} of texts", sound.with_entry(f"tokenizer.ggml.{key}", ARRAY, wide).build()
        short = parts.numbers(5, [1] * (n - 1))
        yield f"{key} too few", sound.with_entry(f"tokenizer.ggml.{key}", ARRAY, short).build()
        for value in FLOATS:
            array = Array(12, [parts.scalar(12, value)] * n)
            yield f"{key} {value}", sound.with_entry(f"tokenizer.ggml.{key}", ARRAY, array).build()
    for name in ("bos", "eos", "eot", "eom", "unknown", "fim_pad", "fim_rep", "fim_sep"):
        for value in (n - 1, n, (1 << 31) - 1, (1 << 32) - 1):
            key = f"tokenizer.ggml.{name}_token_id"
            yield f"{name} {value}", sound.with_entry(key, 4, parts.scalar(4, value)).build()
        yield f"{name} -1", sound.with_entry(key, 5, parts.scalar(5, -1)).build()
        yield f"{name} true", sound.with_entry(key, 7, b"\1").build()
    for merge in (
        "",
        " ",
        "a",
        "a  b",
        "a b",
        "aa aa",
        "zz zz",
        " a",
        "a ",
        "aa a",
        "a aa",
        "\0 \0",
    ):
        array = parts.strings([merge])
        yield f"merge {merge!r}", sound.with_entry("tokenizer.ggml.merges", ARRAY, array).build()
    again = parts.strings(["a a", "aa aa"] * 5000)
    yield "merges again and again", sound.with_entry("tokenizer.ggml.merges", ARRAY, again).build()
    for model in (b"", b"bert", b"t5", b"rwkv", b"no_vocab", b"none", b"GPT2"):
        value = parts.text(model)
        yield (
            f"tokenizer {model!r}",
            sound.with_entry("tokenizer.ggml.model", STRING, value).build(),
        )
    for pre in (b"", b"unknown", b"llama-bpe", b"deepseek-llm"):
        yield (
            f"pre {pre!r}",
            sound.with_entry("tokenizer.ggml.pre", STRING, parts.text(pre)).build(),
        )
    other = b"llama" if sound.entry("tokenizer.ggml.model").value[8:] == b"gpt2" else b"gpt2"  # type: ignore[index]
    yield (
        "the keys of another kind",
        sound.with_entry("tokenizer.ggml.model", STRING, parts.text(other)).build(),
    )


def _cuts(raw: bytes) -> Iterator[tuple[str, bytes]]:
    for at in range(25, len(raw), 97):
        yield f"cut at {at}", raw[:at]
    for at in range(0, min(len(raw), 9000), 61):
        flipped = bytearray(raw)
        flipped[at] ^= 0x80
        yield f"byte {at} flipped", bytes(flipped)
