"""Tokenizers against the peer's vectors, against sentencepiece, and against hostile files."""

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import EngineError, ModelFormatError, UnsupportedModelError
from engine.gguf import open_gguf
from engine.tokenizer import MARKER, Tokenizer, load_sentencepiece, load_tokenizer, protect
from engine.tokenizer.bpe import BYTE_CHARS, CACHED_WORDS
from engine.tokenizer.pretokenizers import PRE_TOKENIZERS
from tests.data.tokenizer.packed import load_vocabulary, read_inputs, read_json, read_outputs

WHOLE = ("llama-spm", "llama-bpe", "smollm2")
KEY = "tokenizer.ggml."

_metadata: dict[str, dict[str, Any]] = {}
_tokenizers: dict[str, Tokenizer] = {}


def vocabulary(name: str) -> dict[str, Any]:
    """Metadata of a whole vocabulary; a fresh dict each time."""
    if name not in _metadata:
        _metadata[name] = load_vocabulary(name)
    return dict(_metadata[name])


def tokenizer_of(name: str) -> Tokenizer:
    if name not in _tokenizers:
        _tokenizers[name] = load_tokenizer(vocabulary(name))
    return _tokenizers[name]


# U+FDD0 is the marker and is dropped; "▁" is how SentencePiece writes a space
any_text = st.text(max_size=80).map(lambda text: text.replace(MARKER, ""))
SPECIALS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|eot_id|>", "<s>", "</s>")
text_with_specials = st.lists(
    st.one_of(
        st.sampled_from((*SPECIALS, "<|im_", "end|>", "<", "|>", MARKER, " ", "hello")),
        st.text(max_size=10),
    ),
    max_size=12,
).map("".join)


# --- the peer's vectors ---


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("llama-spm", "ggml-vocab-llama-spm.inp", "ggml-vocab-llama-spm.out"),
        ("llama-bpe", "ggml-vocab-llama-bpe.inp", "ggml-vocab-llama-bpe.out"),
        ("smollm2", "ggml-vocab-llama-bpe.inp", "smollm2.out"),
    ],
)
def test_published_vectors(name: str, inputs: str, outputs: str) -> None:
    tokenizer = tokenizer_of(name)
    texts, expected = read_inputs(inputs), read_outputs(outputs)
    assert len(texts) == len(expected) == 46
    assert [tokenizer.encode(text) for text in texts] == expected
    assert [tokenizer.decode(ids) for ids in expected] == texts


@pytest.mark.parametrize("name", WHOLE)
def test_random_texts_as_the_peer(name: str) -> None:
    peer = read_json("peer.json.xz")
    tokenizer = tokenizer_of(name)
    assert [tokenizer.encode(text) for text in peer["texts"]] == peer["whole"][name]
    assert sorted(tokenizer.eog_ids) == peer["eog_ids"][name]


def test_every_pre_tokenizer_of_the_peer() -> None:
    """Ten more vocabularies, each cut down to what these texts need (see make.py)."""
    peer = read_json("peer.json.xz")
    texts = read_inputs("ggml-vocab-llama-bpe.inp") + peer["texts"]
    assert len(peer["reduced"]) == 10
    for name, row in peer["reduced"].items():
        tokens, types = [""] * row["n_tokens"], np.ones(row["n_tokens"], np.int32)
        for i, text in row["tokens"].items():
            tokens[int(i)] = text
        for i, kind in row["types"].items():
            types[int(i)] = kind
        tokenizer = load_tokenizer(
            {
                f"{KEY}model": "gpt2",
                f"{KEY}pre": row["pre"],
                f"{KEY}tokens": tokens,
                f"{KEY}token_type": types,
                f"{KEY}merges": row["merges"],
                **row["keys"],
            }
        )
        assert sorted(tokenizer.eog_ids) == peer["eog_ids"][name], name
        results = zip(texts, row["ids"], strict=True)
        wrong = [text for text, ids in results if tokenizer.encode(text) != ids]
        assert not wrong, name


def test_the_model_itself_has_the_vocabulary_under_test(smollm2_path: Path) -> None:
    with open_gguf(smollm2_path) as file:
        real = file.metadata
        packed = vocabulary("smollm2")
        assert {k for k in real if k.startswith("tokenizer.")} == set(packed)
        for key, value in packed.items():
            assert np.array_equal(real[key], value), key


# --- properties of the ids ---


def test_smollm2_attributes() -> None:
    tokenizer = tokenizer_of("smollm2")
    assert tokenizer.name == "bpe:smollm"
    assert tokenizer.vocab_size == 49152
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == (1, 2, False)
    assert tokenizer.special_tokens["<|im_end|>"] == 2
    assert tokenizer.eog_ids >= {0, 2}
    assert tokenizer.token_bytes(2) == b""


def test_llama_attributes() -> None:
    spm, bpe = tokenizer_of("llama-spm"), tokenizer_of("llama-bpe")
    assert (spm.name, spm.vocab_size, spm.bos_id, spm.add_bos) == ("spm", 32000, 1, True)
    assert (bpe.name, bpe.bos_id, bpe.add_bos) == ("bpe:llama-bpe", 128000, True)
    assert spm.encode("Hi", add_bos=True) == [1, *spm.encode("Hi")]
    assert bpe.encode("Hi", add_bos=True) == [128000, *bpe.encode("Hi")]
    assert spm.token_bytes(spm.encode("x\n")[-1]) == b"\n"  # <0x0A>
    assert spm.encode("") == bpe.encode("") == []


@pytest.mark.parametrize("name", WHOLE)
def test_special_tokens_are_parsed_only_on_request(name: str) -> None:
    tokenizer = tokenizer_of(name)
    for text, token_id in tokenizer.special_tokens.items():
        assert tokenizer.encode(text, parse_special=True) == [token_id]
        plain = tokenizer.encode(text)
        assert token_id not in plain
        assert not set(plain) & set(tokenizer.special_tokens.values())
        assert tokenizer.decode(plain) == text


@pytest.mark.parametrize("name", WHOLE)
def test_every_token_survives_decoding(name: str) -> None:
    """token_bytes of all ids; in a BPE each normal token is found again by its bytes."""
    tokenizer = tokenizer_of(name)
    pieces = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    special = set(tokenizer.special_tokens.values())
    assert [i for i, piece in enumerate(pieces) if not piece] == sorted(
        special | ({0} if name == "llama-spm" else set())  # <unk>
    )
    for token_id in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match=str(token_id)):
            tokenizer.token_bytes(token_id)


@cache
def missing_bytes(name: str) -> frozenset[int]:
    tokens = set(vocabulary(name)[f"{KEY}tokens"])
    return frozenset(byte for byte, char in BYTE_CHARS.items() if char not in tokens)


def written(name: str, text: str) -> str:
    """What of a text this vocabulary can hold."""
    if name == "llama-spm":
        return text.replace("▁", "")  # there it is a space
    missing = missing_bytes(name)
    return "".join(char for char in text if missing.isdisjoint(char.encode()))


def test_bytes_that_smollm2_has_no_token_for() -> None:
    """Some control characters and two planes of Unicode; LLaMA 3 has every byte."""
    every = "".join(chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000)
    lost = set(every) - set(written("smollm2", every))
    assert {char for char in lost if char < "\U00040000"} == set("\x04\x06\x13\x14\x16\x1d")
    assert written("llama-bpe", every) == every


@pytest.mark.parametrize("name", WHOLE)
@given(text=any_text)
def test_decode_inverts_encode(name: str, text: str) -> None:
    text = written(name, text)
    tokenizer = tokenizer_of(name)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("name", WHOLE)
@given(text=st.one_of(text_with_specials, any_text, st.text("ab \n\x04\u200b▁", max_size=99)))
def test_there_are_no_fewer_tokens(name: str, text: str) -> None:
    tokenizer = tokenizer_of(name)
    assert tokenizer.least_tokens(text) <= len(tokenizer.encode(text))


def test_a_long_text_has_many_tokens() -> None:
    for name in WHOLE:
        tokenizer = tokenizer_of(name)
        assert tokenizer.least_tokens("The weather is fine. " * 10_000) > 1000
    assert tokenizer_of("smollm2").least_tokens("\n" * 200_000) > 1000
    assert tokenizer_of("llama-spm").least_tokens("▁" * 99 + "a") == 1


@pytest.mark.parametrize("name", WHOLE)
@given(text=text_with_specials)
def test_decode_inverts_encode_with_special_tokens(name: str, text: str) -> None:
    text = written(name, text)
    tokenizer = tokenizer_of(name)
    ids = tokenizer.encode(text, parse_special=True)
    assert tokenizer.decode(ids, skip_special=False) == text.replace(MARKER, "")


def test_lone_surrogates_become_the_replacement_character() -> None:
    for name in WHOLE:
        tokenizer = tokenizer_of(name)
        assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a�b"
        assert tokenizer.decode(tokenizer.encode("\ud83d\ude00")) == "😀"


# --- the marker rule ---


@pytest.mark.parametrize("name", WHOLE)
@given(text=text_with_specials)
def test_protected_text_is_plain_text(name: str, text: str) -> None:
    tokenizer = tokenizer_of(name)
    plain = tokenizer.encode(text, parse_special=False)
    assert tokenizer.encode(tokenizer.protect(text), parse_special=True) == plain
    assert tokenizer.encode(protect(text, tokenizer.special_tokens), parse_special=True) == plain
    assert not set(plain) & set(tokenizer.special_tokens.values())


@given(
    tokens=st.lists(st.text("ab<>|", min_size=2, max_size=5), min_size=1, max_size=6, unique=True),
    text=st.text("ab<>|" + MARKER, max_size=40),
)
def test_no_special_token_is_left_whole(tokens: list[str], text: str) -> None:
    safe = protect(text, {token: i for i, token in enumerate(tokens)})
    assert not any(token in safe for token in tokens)
    assert safe.replace(MARKER, "") == text.replace(MARKER, "")


def test_the_longest_special_token_wins() -> None:
    metadata = tiny_bpe(specials=("<|a|>", "<|a|><|b|>", "<|b|>"))
    tokenizer = load_tokenizer(metadata)
    first = tokenizer.special_tokens["<|a|>"]
    assert tokenizer.encode("<|a|>x<|a|><|b|><|b|>", parse_special=True) == [
        first,
        *tokenizer.encode("x"),
        first + 1,
        first + 2,
    ]


def test_user_defined_tokens_are_special_only_if_they_look_like_markers() -> None:
    metadata = tiny_bpe(specials=("<|user|>", "    "))
    metadata[f"{KEY}token_type"][-2:] = 4
    tokenizer = load_tokenizer(metadata)
    marker_id, spaces_id = tokenizer.vocab_size - 2, tokenizer.vocab_size - 1
    assert tokenizer.special_tokens == {"<|user|>": marker_id}
    assert tokenizer.encode("a    b").count(spaces_id) == 1
    assert marker_id not in tokenizer.encode("<|user|>")
    assert tokenizer.encode("<|user|>", parse_special=True) == [marker_id]
    assert tokenizer.decode([marker_id, spaces_id]) == "<|user|>    "


def test_merges_never_make_a_control_token() -> None:
    """`</s>` can be put together from merges here, and the peer would end the answer there."""
    metadata = tiny_bpe(
        words=("</", "s>", "</s>"), merges=("< /", "s >", "</ s>"), specials=("<|x|>",)
    )
    tokenizer = load_tokenizer(metadata)
    assert tokenizer.eog_ids == {tokenizer.special_tokens["</s>"]}
    assert tokenizer.eog_ids.isdisjoint(tokenizer.encode("</s>"))
    assert tokenizer.decode(tokenizer.encode("</s>")) == "</s>"


# --- streams ---


@pytest.mark.parametrize("name", WHOLE)
@given(data=st.data())
def test_a_stream_adds_up_to_the_whole(name: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of(name)
    ids = data.draw(
        st.one_of(
            st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30),
            any_text.map(tokenizer.encode),
        )
    )
    stream = tokenizer.stream()
    pieces = [stream.push(i) for i in ids]
    assert "".join([*pieces, stream.flush()]) == tokenizer.decode(ids)
    if not tokenizer.adds_space_prefix:
        raw = b"".join(map(tokenizer.token_bytes, ids))
        assert tokenizer.decode(ids) == raw.decode("utf-8", "replace")


def test_a_stream_never_splits_a_character() -> None:
    for name in WHOLE:
        tokenizer = tokenizer_of(name)
        ids = tokenizer.encode("😀🦙")
        assert len(ids) > 2, name  # else this shows nothing
        stream = tokenizer.stream()
        pieces = [stream.push(i) for i in ids]
        assert set(pieces) <= {"", "😀", "🦙", "😀🦙"}
        assert "".join(pieces) == "😀🦙"
        assert stream.flush() == ""


def test_a_broken_tail_becomes_one_replacement_character() -> None:
    tokenizer = tokenizer_of("llama-spm")
    ids = tokenizer.encode("😀")
    stream = tokenizer.stream(ids[:1])
    assert [stream.push(i) for i in ids[1:-1]] == ["", "", ""]
    assert stream.flush() == "�"


def test_the_space_of_sentencepiece_goes_only_where_encode_put_it() -> None:
    tokenizer = tokenizer_of("llama-spm")
    (hello,) = tokenizer.encode("Hello")
    assert tokenizer.token_bytes(hello) == b" Hello"
    assert tokenizer.decode([hello, hello]) == "Hello Hello"
    assert tokenizer.decode([1, hello, 2, hello]) == "HelloHello"
    assert tokenizer.stream().push(hello) == "Hello"
    assert tokenizer.stream([1]).push(hello) == "Hello"
    assert tokenizer.stream([1, hello]).push(hello) == " Hello"
    assert tokenizer.decode(tokenizer.encode("  two")) == "  two"

    plain = load_tokenizer(vocabulary("llama-spm") | {f"{KEY}add_space_prefix": False})
    assert plain.encode(" Hello") == [hello]
    assert plain.decode([hello]) == " Hello"
    assert plain.encode("Hello") != [hello]


# --- SentencePiece files ---

CORPUS = (
    "The llama lives in the Andes and carries loads of wool over the mountains.",
    "A small model answers questions on the device that you own, and nowhere else.",
    "Tokens go in, tokens come out; the cache keeps what was already computed.",
    "한국어 문장도 조금 있습니다. Ein bisschen Deutsch über Größe ist auch dabei.",
)


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def spm_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.model trained here, with LLaMA's options; in another process, as it prints."""
    folder = tmp_path_factory.mktemp(f"spm-{request.param}")
    (folder / "corpus.txt").write_text("\n".join(CORPUS * 4))
    options = (
        f"sentencepiece.SentencePieceTrainer.train(input={str(folder / 'corpus.txt')!r},"
        f"model_prefix={str(folder / 'tokenizer')!r}, model_type={request.param!r},"
        "vocab_size=420, byte_fallback=True, split_digits=True, character_coverage=0.98,"
        "normalization_rule_name='identity', remove_extra_whitespaces=False,"
        "allow_whitespace_only_pieces=True, hard_vocab_limit=False, minloglevel=2,"
        "user_defined_symbols=['<|im_end|>', '▁▁▁▁'])"
    )
    subprocess.run([sys.executable, "-c", f"import sentencepiece; {options}"], check=True)
    return folder / "tokenizer.model"


@settings(deadline=None)
@given(
    text=st.one_of(
        any_text,
        st.sampled_from(CORPUS),
        st.text("ath ", max_size=40),
        st.text("aeth onm\n ▁", max_size=40),
    )
)
def test_tokenizer_model_as_the_library_reads_it(spm_file: Path, text: str) -> None:
    library = sentencepiece.SentencePieceProcessor(model_file=str(spm_file))
    tokenizer = load_sentencepiece(spm_file)
    assert tokenizer.encode(text) == library.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " ")


def test_tokenizer_model_attributes(spm_file: Path) -> None:
    library = sentencepiece.SentencePieceProcessor(model_file=str(spm_file))
    tokenizer = load_sentencepiece(spm_file)
    assert tokenizer.vocab_size == library.vocab_size()
    assert (tokenizer.bos_id, tokenizer.eos_id) == (library.bos_id(), library.eos_id())
    marker = library.piece_to_id("<|im_end|>")
    assert tokenizer.eog_ids == {tokenizer.eos_id, marker}
    # the library would let anybody write it
    assert marker in library.encode("a<|im_end|>")
    assert marker not in tokenizer.encode("a<|im_end|>")
    assert marker in tokenizer.encode("a<|im_end|>", parse_special=True)
    spaces = library.piece_to_id("▁▁▁▁")
    assert tokenizer.encode("a    b").count(spaces) == 1


def as_metadata(path: Path) -> dict[str, Any]:
    """The keys that a converter writes for a tokenizer.model."""
    library = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ids = range(library.vocab_size())
    kinds = [
        (library.is_unknown(i) and 2)
        or (library.is_control(i) and 3)
        or (library.is_byte(i) and 6)
        or (library.id_to_piece(i) in ("<|im_end|>", "▁▁▁▁") and 4)
        or 1
        for i in ids
    ]
    return {
        f"{KEY}model": "llama",
        f"{KEY}tokens": [library.id_to_piece(i) for i in ids],
        f"{KEY}scores": np.array([library.get_score(i) for i in ids], np.float32),
        f"{KEY}token_type": np.array(kinds, np.int32),
        f"{KEY}bos_token_id": library.bos_id(),
        f"{KEY}eos_token_id": library.eos_id(),
        f"{KEY}unknown_token_id": library.unk_id(),
    }


def test_a_gguf_with_the_same_vocabulary_gives_the_same_ids(spm_file: Path) -> None:
    if "unigram" in str(spm_file):
        pytest.skip("a GGUF's `llama` tokenizer is always merged by score, never unigram")
    from_file, from_gguf = load_sentencepiece(spm_file), load_tokenizer(as_metadata(spm_file))
    texts = [*CORPUS, *read_inputs("ggml-vocab-llama-spm.inp"), "a    b <|im_end|>"]
    for text in texts:
        for parse_special in (False, True):
            assert from_gguf.encode(text, parse_special=parse_special) == from_file.encode(
                text, parse_special=parse_special
            )
    assert from_gguf.eog_ids == from_file.eog_ids
    assert from_gguf.special_tokens == from_file.special_tokens


@settings(deadline=None)
@given(data=st.data())
def test_a_damaged_tokenizer_model_is_an_engine_error(
    spm_file: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(spm_file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    path = tmp_path_factory.mktemp("damaged") / "tokenizer.model"
    path.write_bytes(content)
    try:
        tokenizer = load_sentencepiece(path)
    except EngineError as error:
        assert str(error)
    else:
        tokenizer.decode(tokenizer.encode("The llama"))


def test_a_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"none\.model"):
        load_sentencepiece(tmp_path / "none.model")
    (tmp_path / "empty.model").touch()
    with pytest.raises(ModelFormatError, match=r"empty\.model.*0 pieces"):
        load_sentencepiece(tmp_path / "empty.model")


def test_an_spm_vocabulary_without_an_unknown_token_leaves_out_what_it_lacks() -> None:
    tokenizer = load_tokenizer(
        {
            f"{KEY}model": "llama",
            f"{KEY}tokens": ["<s>", "</s>", "▁", "a", "▁a", "aa"],
            f"{KEY}scores": [0.0, 0.0, -3.0, -4.0, -1.0, -2.0],
            f"{KEY}token_type": [3, 3, 1, 1, 1, 1],
            f"{KEY}bos_token_id": 0,
            f"{KEY}eos_token_id": 1,
        }
    )
    assert tokenizer.encode("aéa") == [4, 3]
    assert tokenizer.encode("aaa") == [4, 5]
    assert tokenizer.least_tokens("é" * 100) == 0


# --- hostile and odd files ---


def tiny_bpe(
    *,
    words: tuple[str, ...] = ("ab",),
    merges: tuple[str, ...] = ("a b",),
    specials: tuple[str, ...] = ("<|end|>",),
    pre: str = "gpt-2",
) -> dict[str, Any]:
    """256 bytes, then words, then control tokens."""
    tokens = [*BYTE_CHARS.values(), *words, *specials]
    types = np.ones(len(tokens), np.int32)
    types[len(tokens) - len(specials) :] = 3
    return {
        f"{KEY}model": "gpt2",
        f"{KEY}pre": pre,
        f"{KEY}tokens": tokens,
        f"{KEY}token_type": types,
        f"{KEY}merges": list(merges),
    }


def tiny_spm() -> dict[str, Any]:
    return {
        f"{KEY}model": "llama",
        f"{KEY}tokens": ["<unk>", "<s>", "</s>", "▁", "a"],
        f"{KEY}scores": np.zeros(5, np.float32),
        f"{KEY}token_type": np.array([2, 3, 3, 1, 1], np.int32),
    }


@pytest.mark.parametrize("make", [tiny_bpe, tiny_spm])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", None),
        ("model", 7),
        ("tokens", None),
        ("tokens", []),
        ("tokens", "abc"),
        ("tokens", ["a", 3]),
        ("tokens", ["a", "b", "a"]),
        ("tokens", np.arange(3)),
        ("token_type", np.array([1], np.int32)),
        ("token_type", np.full(300, 9, np.int32)),
        ("token_type", np.full(300, -1, np.int32)),
        ("token_type", np.ones(300, np.float32)),
        ("token_type", ["normal"] * 300),
        ("token_type", [[1], [1, 2]]),
        ("token_type", 1),
        ("bos_token_id", 4_000_000_000),
        ("eos_token_id", -1),
        ("eos_token_id", "2"),
        ("eos_token_id", True),
        ("eot_token_id", 300),
        ("add_bos_token", 1),
        ("add_bos_token", "yes"),
    ],
)
def test_a_bad_key_is_named_with_its_value(
    make: Callable[[], dict[str, Any]], key: str, value: object
) -> None:
    metadata = make()
    load_tokenizer(metadata)  # it is this key that is wrong
    if value is None:
        del metadata[KEY + key]
    else:
        metadata[KEY + key] = value
    with pytest.raises(ModelFormatError, match=f"{KEY}{key}"):
        load_tokenizer(metadata)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scores", None),
        ("scores", np.zeros(4, np.float32)),
        ("scores", np.array([0, 0, 0, np.nan, 0], np.float32)),
        ("add_space_prefix", 2),
        ("unknown_token_id", 5),
    ],
)
def test_a_bad_key_of_sentencepiece(key: str, value: object) -> None:
    metadata = tiny_spm()
    if value is None:
        del metadata[KEY + key]
    else:
        metadata[KEY + key] = value
    with pytest.raises(ModelFormatError, match=f"{KEY}{key}"):
        load_tokenizer(metadata)


def test_byte_tokens_are_all_there_or_none() -> None:
    metadata = tiny_spm()
    metadata[f"{KEY}token_type"][4] = 6
    with pytest.raises(ModelFormatError, match="1 byte tokens"):
        load_tokenizer(metadata)
    metadata[f"{KEY}tokens"] += [f"<0x{byte:02X}>" for byte in range(1, 256)]
    metadata[f"{KEY}scores"] = np.zeros(260, np.float32)
    metadata[f"{KEY}token_type"] = np.array([2, 3, 3, 1] + [6] * 256, np.int32)
    with pytest.raises(ModelFormatError, match="'a' marked as a byte"):
        load_tokenizer(metadata)
    metadata[f"{KEY}tokens"][4] = "<0x00>"
    assert load_tokenizer(metadata).encode("\n") == [3, 4 + 10]


@pytest.mark.parametrize("merge", ["", "ab", " ab", "a  b", "a c", "x b", "a b c", "é b", "a "])
def test_a_bad_merge_is_named(merge: str) -> None:
    metadata = tiny_bpe(merges=("a b", merge))
    with pytest.raises(ModelFormatError, match=rf"{KEY}merges\[1\] is {merge!r}"):
        load_tokenizer(metadata)


def test_missing_merges() -> None:
    metadata = tiny_bpe()
    del metadata[f"{KEY}merges"]
    with pytest.raises(ModelFormatError, match=f"{KEY}merges"):
        load_tokenizer(metadata)


def test_unsupported_kinds_are_named() -> None:
    with pytest.raises(UnsupportedModelError, match="'bert'"):
        load_tokenizer({f"{KEY}model": "bert"})
    with pytest.raises(UnsupportedModelError, match="'kimi-k2'"):
        load_tokenizer(tiny_bpe(pre="kimi-k2"))


ALL_KEYS = (
    *("model", "pre", "tokens", "token_type", "scores", "merges", "add_bos_token"),
    *("bos_token_id", "eos_token_id", "unknown_token_id", "eot_token_id", "fim_pad_token_id"),
    "add_space_prefix",
)


@given(
    key=st.sampled_from(ALL_KEYS),
    value=st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=5),
        st.lists(st.one_of(st.text(max_size=3), st.integers(-3, 9), st.floats()), max_size=9),
    ),
    make=st.sampled_from([tiny_bpe, tiny_spm]),
)
def test_only_engine_errors_come_out(key: str, value: object, make: Any) -> None:
    try:
        tokenizer = load_tokenizer(make() | {KEY + key: value})
    except EngineError as error:
        assert str(error)
    else:
        tokenizer.decode(tokenizer.encode("abc"))


def test_holes_in_a_vocabulary_are_allowed() -> None:
    metadata = tiny_bpe(words=("ab", "", ""))
    assert load_tokenizer(metadata).encode("ab") == [256]


def test_bytes_without_a_token_are_left_out() -> None:
    metadata = tiny_bpe()
    metadata[f"{KEY}tokens"][list(BYTE_CHARS.values()).index("c")] = ""
    tokenizer = load_tokenizer(metadata)
    assert tokenizer.decode(tokenizer.encode("abcab")) == "abab"


# --- byte-level BPE ---


def slow_merge(word: bytes, metadata: dict[str, Any]) -> list[str]:
    """The definition: again and again the leftmost pair with the lowest rank."""
    ranks: dict[tuple[str, ...], int] = {}
    for rank, merge in enumerate(metadata[f"{KEY}merges"]):
        ranks.setdefault(tuple(merge.split(" ")), rank)
    parts = [BYTE_CHARS[byte] for byte in word]
    while True:
        pairs = [(ranks[p], i) for i, p in enumerate(pairwise(parts)) if p in ranks]
        if not pairs:
            return parts
        _, at = min(pairs)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@given(data=st.data())
def test_merging_follows_the_definition(data: st.DataObject) -> None:
    """Random merges, among them ones that overlap and ones listed twice."""
    tokens = list("abc")
    merges: list[str] = []
    for _ in range(data.draw(st.integers(1, 12))):
        left, right = data.draw(st.sampled_from(tokens)), data.draw(st.sampled_from(tokens))
        merges.append(f"{left} {right}")
        if left + right not in tokens:
            tokens.append(left + right)
    metadata = tiny_bpe(words=tuple(tokens[3:]), merges=tuple(merges))
    word = data.draw(st.text("abc", min_size=1, max_size=24))
    ids = load_tokenizer(metadata).encode(word)
    assert [metadata[f"{KEY}tokens"][i] for i in ids] == slow_merge(word.encode(), metadata)


def test_a_whole_word_needs_no_merges_where_the_vocabulary_says_so() -> None:
    words = {"words": ("xyz", "ab"), "merges": ("a b",)}
    assert load_tokenizer(tiny_bpe(pre="llama-bpe", **words)).encode("xyz") == [256]  # type: ignore[arg-type]
    assert len(load_tokenizer(tiny_bpe(pre="gpt-2", **words)).encode("xyz")) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS))
@given(text=st.text(max_size=60))
def test_pre_tokenizers_lose_nothing(name: str, text: str) -> None:
    words = list(PRE_TOKENIZERS[name].split(text))
    assert "".join(words) == text
    assert all(words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smollm", ["I", "'m", " ", "1", "2", "3", "4", " HTTPServer", "\n\n"]),
        ("llama-bpe", ["I", "'m", " ", "123", "4", " HTTPServer", "\n\n"]),
        ("qwen2", ["I", "'m", " ", "1", "2", "3", "4", " HTTPServer", "\n\n"]),
        ("gpt-2", ["I", "'m", " 1234", " HTTPServer", "\n\n"]),
        ("gpt-4o", ["I'm", " ", "123", "4", " HTTPServer", "\n\n"]),
        ("tekken", ["I", "'m", " ", "1", "2", "3", "4", " HTTPServer", "\n\n"]),
        ("deepseek-v3", ["I", "'m", " ", "123", "4", " HTTPServer", "\n\n"]),
        ("glm4", ["I", "'m", " ", "123", "4", " HTTPServer", "\n\n"]),
    ],
)
def test_where_words_are_split(name: str, words: list[str]) -> None:
    assert list(PRE_TOKENIZERS[name].split("I'm 1234 HTTPServer\n\n")) == words


def test_a_long_word_takes_no_more_look_ups_than_its_length_allows() -> None:
    """n log n, whatever the word: counted, because a clock says nothing on a busy machine."""
    tokenizer = load_tokenizer(vocabulary("smollm2"))
    counts = []
    find_merge = tokenizer._find_merge  # type: ignore[attr-defined]
    for n_chars in (1000, 8000):
        calls = 0

        def counted(left: int, right: int) -> Any:
            nonlocal calls
            calls += 1
            return find_merge(left, right)

        tokenizer._find_merge = counted  # type: ignore[attr-defined]
        assert tokenizer.decode(tokenizer.encode("ab" * (n_chars // 2))) == "ab" * (n_chars // 2)
        counts.append(calls)
    # one look-up per pair at first, then at most two per merge
    assert 1000 <= counts[0] <= 3 * 1000
    assert counts[1] <= 3 * 8000


def test_the_word_cache_is_bounded() -> None:
    tokenizer = load_tokenizer(tiny_bpe())
    tokenizer.encode(" ".join(map(str, range(100_000, 100_000 + 2 * CACHED_WORDS))))
    cache = tokenizer._cache  # type: ignore[attr-defined]
    assert 0 < len(cache) <= CACHED_WORDS
    tokenizer.encode("z" * 10_000)
    assert max(map(len, cache)) <= 64


@pytest.mark.parametrize(("name", "limit_mb"), [("smollm2", 2.5), ("llama-bpe", 9.0)])
def test_a_loaded_tokenizer_is_small(name: str, limit_mb: float) -> None:
    """Devices have 512 MB; dicts of strings would take 40 MB for LLaMA 3."""
    metadata = vocabulary(name)
    load_tokenizer(metadata)  # imports and caches of the libraries
    tracemalloc.start()
    try:
        tokenizer = load_tokenizer(metadata)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert tokenizer.vocab_size > 0
    assert size < limit_mb * 1e6
