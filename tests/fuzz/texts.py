"""The tokenizer: vocabularies made of fuzzed pieces, and fuzzed texts through sound ones.

What must hold whatever the vocabulary is: ids are within it; a text puts in no token that only a
template may place; protected text with markers parsed is what unprotected text is without; a
stream gives the same text as decoding at once. Of a vocabulary whose tokens are all plain and
that has all bytes: decoding gives the text back.
"""

import random
import struct
from functools import cache
from typing import Any

import numpy as np

from engine.errors import EngineError
from engine.tokenizer import MARKER, Tokenizer, load_tokenizer
from engine.tokenizer.bpe import BYTE_CHARS
from engine.tokenizer.pretokenizers import PRE_TOKENIZERS
from engine.tokenizer.spm import SpmTokenizer
from tests.fuzz.target import FileOf, Mutate, Target
from tests.hostile import readers
from tests.hostile.pathological import texts as hostile_texts

KEY = "tokenizer.ggml."
PRES = sorted(PRE_TOKENIZERS)
BYTES = [BYTE_CHARS[byte] for byte in range(256)]
SPM_BYTES = [f"<0x{i:02X}>" for i in range(256)]
SPLIT = b"\x00\x01"
"""Between the fields of an input."""


def one(data: bytes) -> str:
    """An input: kind, settings, then fields: the text, pieces with their type and score, merges."""
    if len(data) < 4:
        return ""
    kind, setting, flags = data[0] % 4, data[1], data[2]
    fields = data[3:].split(SPLIT)
    text = (
        fields[0].decode("utf-8", "surrogatepass" if flags & 1 else "replace")
        if _decodes(fields[0], flags)
        else fields[0].decode("utf-8", "replace")
    )
    try:
        if kind == 0:
            tokenizer = _bpe(setting, flags, fields[1:])
        elif kind == 1:
            tokenizer = _spm(setting, flags, fields[1:])
        elif kind == 2:
            with FileOf(SPLIT.join(fields[1:])) as path:
                tokenizer = SpmTokenizer.from_file(path)
        else:
            tokenizer = _sound(setting)
    except EngineError as error:
        assert str(error).strip() and len(str(error)) < 1000
        return str(error)
    check(tokenizer, text, is_plain=kind == 3 and setting % 8 != 0)
    return f"{tokenizer.name} {tokenizer.vocab_size.bit_length()} {len(text).bit_length()}"


def _decodes(raw: bytes, flags: int) -> bool:
    if not flags & 1:
        return True
    try:
        raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def check(tokenizer: Tokenizer, text: str, *, is_plain: bool) -> None:
    """What must hold."""
    ids = tokenizer.encode(text)
    assert all(0 <= token < tokenizer.vocab_size for token in ids)
    reserved = set(tokenizer._special.ids.values())
    assert not reserved.intersection(ids), "text became a token that only a template may place"
    protected = tokenizer.encode(tokenizer.protect(text), parse_special=True)
    assert protected == ids, (protected, ids)
    parsed = tokenizer.encode(text, parse_special=True, add_bos=True)
    assert all(0 <= token < tokenizer.vocab_size for token in parsed)
    whole = tokenizer.decode(parsed)
    stream = tokenizer.stream()
    assert "".join([*map(stream.push, parsed), stream.flush()]) == whole
    tokenizer.decode(parsed, skip_special=False)
    if is_plain:
        valid = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        assert tokenizer.decode(ids) == valid.replace(MARKER, "")


@cache
def _sound(setting: int) -> Tokenizer:
    if setting % 8 == 0:  # it lacks a few bytes
        from tests.engine.test_tokenizer import tokenizer_of

        return tokenizer_of("smollm2")
    pre = PRES[setting % len(PRES)]
    merges = ["t h", "th e", "Ġ the", "a a", "aa aa", "aaaa aaaa", "Ġ Ġ", "ĠĠ ĠĠ", "í ķ", "Ċ Ċ"]
    tokens = ["<|im_start|>", "<|im_end|>", *BYTES, *(m.replace(" ", "") for m in merges)]
    types = np.array([3, 3, *[1] * (len(tokens) - 2)], np.int32)
    return load_tokenizer(
        {
            f"{KEY}model": "gpt2",
            f"{KEY}pre": pre,
            f"{KEY}tokens": tokens,
            f"{KEY}token_type": types,
            f"{KEY}merges": merges,
        }
    )


def _pieces(fields: list[bytes]) -> tuple[list[str], list[int], list[float]]:
    texts, types, scores = [], [], []
    for field in fields:
        kind = field[0] % 9 if field else 1
        texts.append(field[1:].decode("utf-8", "replace"))
        types.append(kind if kind <= 6 else 1)
        scores.append(float(struct.unpack("<h", (field[-2:] + b"\0\0")[:2])[0]))
    return texts, types, scores


def _bpe(setting: int, flags: int, fields: list[bytes]) -> Tokenizer:
    texts, types, _scores = _pieces(fields)
    if flags & 2:  # with all bytes
        texts, types = [*BYTES, *texts], [*[1] * 256, *types]
    if flags & 4:
        unique = dict(zip(texts, types, strict=True))
        texts, types = list(unique), list(unique.values())
    known = set(texts)
    merges = []
    for text in texts:
        for at in range(1, min(len(text), 8)):
            if text[:at] in known and text[at:] in known:
                merges.append(f"{text[:at]} {text[at:]}")
    if flags & 8:
        merges.reverse()
    if flags & 16 and fields:
        merges.insert(0, fields[-1].decode("utf-8", "replace"))
    keys: dict[str, Any] = {
        f"{KEY}model": "gpt2",
        f"{KEY}pre": PRES[setting % len(PRES)],
        f"{KEY}tokens": texts,
        f"{KEY}token_type": np.array(types, np.int32),
        f"{KEY}merges": merges,
        f"{KEY}bos_token_id": setting,
    }
    if flags & 32:
        keys[f"{KEY}eos_token_id"] = setting ^ 1
    if flags & 64:
        del keys[f"{KEY}token_type"]
    return load_tokenizer(keys)


def _spm(setting: int, flags: int, fields: list[bytes]) -> Tokenizer:
    texts, types, scores = _pieces(fields)
    if flags & 2:
        texts, types = [*SPM_BYTES, *texts], [*[6] * 256, *types]
        scores = [*[0.0] * 256, *scores]
    if flags & 4:
        unique = dict(zip(texts, zip(types, scores, strict=True), strict=True))
        texts = list(unique)
        types, scores = [t for t, _ in unique.values()], [s for _, s in unique.values()]
    keys: dict[str, Any] = {
        f"{KEY}model": "llama",
        f"{KEY}tokens": texts,
        f"{KEY}token_type": np.array(types, np.int32),
        f"{KEY}scores": np.array(scores, np.float32),
        f"{KEY}add_space_prefix": bool(flags & 8),
    }
    if flags & 16:
        keys[f"{KEY}unknown_token_id"] = setting
    if flags & 32:
        keys[f"{KEY}bos_token_id"] = setting
    return load_tokenizer(keys)


def _field(text: str, kind: int) -> bytes:
    return bytes([kind]) + text.encode()


def seeds() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    words = ["th", "the", "Ġthe", "aa", "<|im_end|>", "</s>", "   ", "한", "▁the", "▁"]
    kinds = [1, 1, 1, 1, 3, 3, 4, 4, 1, 1]
    pieces = [_field(word, kind) for word, kind in zip(words, kinds, strict=True)]
    for number, text in enumerate(["the aa <|im_end|> 한국", "a\0b\n\n  c1234", "😀é́ \u202e"]):
        for kind in (0, 1):
            for flags in (2, 6, 14):
                head = bytes([kind, 7 * number, flags])
                found[f"{kind}-{number}-{flags}"] = head + SPLIT.join([text.encode(), *pieces])
        found[f"3-{number}"] = bytes([3, number, 0]) + text.encode()
    for number, (name, text) in enumerate(sorted(hostile_texts(400).items())):
        found[f"text-{name}"] = bytes([3, number, 1]) + text.encode("utf-8", "surrogatepass")
    found["file"] = bytes([2, 0, 0]) + SPLIT.join([b"the aa", _model_file()])
    return found


def _model_file() -> bytes:
    from engine.tokenizer import spm

    texts = ["<unk>", "<s>", "</s>", "▁", "a", "▁a", "the", "▁the"]
    types = bytearray([2, 3, 3, 1, 1, 1, 1, 1])
    specs = spm._gguf_specs(types, adds_space_prefix=True)
    return spm._model_proto(texts, [-float(i) for i in range(8)], types, *specs)


def mutate(data: bytes, longest: int, seed: int, generic: Mutate) -> bytes:
    rng = random.Random(seed)
    if rng.random() < 0.5 or len(data) < 4:
        return generic(data, longest)
    new = bytearray(data)
    if rng.random() < 0.2:
        new[rng.randrange(3)] = rng.randrange(256)
    fields = bytes(new[3:]).split(SPLIT)
    kind, at = rng.randrange(6), rng.randrange(len(fields))
    if kind == 0:
        fields.insert(at, rng.choice(fields))
    elif kind == 1 and len(fields) > 1:
        del fields[at]
    elif kind == 2:
        fields[at] = generic(fields[at], 256)
    elif kind == 3 and len(fields) > 2:  # a token made of two others
        first, second = rng.choice(fields[1:]), rng.choice(fields[1:])
        fields.append(first[:1] + first[1:] + second[1:])
    elif kind == 4 and len(fields) > 1:  # a token in the text
        token = rng.choice(fields[1:])[1:]
        place = rng.randint(0, len(fields[0]))
        fields[0] = fields[0][:place] + token * rng.randint(1, 3) + fields[0][place:]
    elif kind == 5:
        fields[0] = fields[0] * 2
    return (bytes(new[:3]) + SPLIT.join(fields))[:longest]


TARGET = Target("tokenizer", one, seeds, mutate, longest=1 << 13, words=readers.WORDS)
