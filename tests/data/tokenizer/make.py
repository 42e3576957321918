"""Make the files of this folder from llama.cpp's vocabularies and from SmolLM2.

    python -m tests.data.tokenizer.make LLAMA_CPP/models SmolLM2-135M-Instruct.Q4_1.gguf

LLAMA_CPP is a source tree of llama.cpp; the one in the source package `llama-cpp-python` 0.3.36
was used. Needs that package installed, too: it says how the peer tokenizes.

    ggml-vocab-*.inp, .out   the peer's published vectors, as they are
    llama-spm, llama-bpe, smollm2 .json.xz   whole vocabularies, see packed.py
    smollm2.out              the peer's ids for ggml-vocab-llama-bpe.inp
    peer.json.xz             for every pre-tokenizer the peer has a vocabulary for: its ids for the
                             published inputs and for 120 random texts, and of its vocabulary only
                             the tokens and merges that are looked up on the way to them
"""

import argparse
import random
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import llama_cpp

from engine.gguf import open_gguf
from engine.tokenizer import load_tokenizer
from engine.tokenizer.bpe import BYTE_CHARS, BpeTokenizer
from tests.data.tokenizer.packed import HERE, MERGES, TOKENS, pack, read_inputs, write_json

WHOLE = ("llama-spm", "llama-bpe")
REDUCED = (
    *("gpt-2", "mpt", "refact", "starcoder", "command-r", "falcon"),
    *("deepseek-coder", "deepseek-llm", "qwen2", "qwen35"),
)
# fmt: off
WORDS = [
    *("the", "Quick", "brown", "fox's", "don't", "WE'LL", "I'm", "123", "45678", "3.14", "\n"),
    *("\n\n", "\t", "\r\n", "ünïcödé", "한국어", "日本語", "😀", "👍🏽", "f(x):", "x[1:];", "//"),
    *("<|im", "<|im_end|>", "<s>", "[INST]", "½", "²", "Ⅷ", "é", "ﬁ", "ß", "İ", "\u200b", "\xa0"),
    *("\u0301", "\x00", "\x7f", "▁", "0x1F", "...", "---", "??!", "'S", "'LL", "''", '"', "١٢٣"),
    *("aaaaaaaaaaaaa", "1000000", "हिन्दी", "ไทย", "العربية", "Ünder_score", "camelCase"),
    *("HTTPServer", "<h1>", "</s>", " ", "  ", "    "),
]
# fmt: on


def random_texts(n_texts: int) -> list[str]:
    """Texts of words, of any characters, and of spaces and letters in every order."""
    draw = random.Random(5)

    def char() -> str:
        while True:
            ranges = ((1, 128), (1, 128), (128, 0x800), (0x800, 0xD800), (0x10000, 0x1FFFF))
            found = chr(draw.randrange(*draw.choice(ranges)))
            # The peer splits at code points that no version of Unicode it knows has assigned,
            # and takes U+3000 for a tab in one of its paths; tokenizer.json files do neither.
            if unicodedata.category(found) not in ("Cn", "Co") and found != "\u3000":
                return found

    texts = []
    for i in range(n_texts):
        if i % 3 == 0:
            texts.append("".join(char() for _ in range(draw.randint(1, 30))))
        elif i % 3 == 1:
            texts.append(
                "".join(draw.choice(" \n\t\ra1.'é한sT") for _ in range(draw.randint(1, 30)))
            )
        else:
            space = draw.choice(["", " "])
            texts.append(space.join(draw.choice(WORDS) for _ in range(draw.randint(1, 14))))
    return texts


class Peer:
    """llama.cpp's tokenizer."""

    def __init__(self, path: Path) -> None:
        self.model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model.model)

    def encode(self, text: str) -> list[int]:
        data = text.encode()
        ids = (llama_cpp.llama_token * (2 * len(data) + 16))()
        n_ids = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, len(ids), False, False)
        return list(ids[:n_ids])

    def eog_ids(self) -> list[int]:
        n_tokens = llama_cpp.llama_vocab_n_tokens(self.vocab)
        return [i for i in range(n_tokens) if llama_cpp.llama_vocab_is_eog(self.vocab, i)]


def reduce(metadata: dict[str, Any], texts: list[str], peer_ids: list[list[int]]) -> dict[str, Any]:
    """What tokenizing `texts` looks up. A look-up that found nothing still finds nothing."""
    tokens: list[str] = metadata[TOKENS]
    tokenizer = load_tokenizer(metadata)
    assert isinstance(tokenizer, BpeTokenizer)
    pairs: set[str] = set()
    find_merge = tokenizer._find_merge

    def spy(left: int, right: int) -> int | None:
        value = find_merge(left, right)
        if value is not None:
            pairs.add(f"{tokens[left]} {tokens[right]}")
        return value

    tokenizer._find_merge = spy  # type: ignore[method-assign]
    for text in texts:
        tokenizer.encode(text)
    merges = [merge for merge in metadata[MERGES] if merge in pairs]
    wanted = {part for merge in merges for part in (*merge.split(" "), merge.replace(" ", ""))}
    types = metadata["tokenizer.ggml.token_type"].tolist()
    keep = {
        i: text
        for i, text in enumerate(tokens)
        if text in wanted
        or text in BYTE_CHARS.values()
        or i in tokenizer.eog_ids
        or (types[i] != 1 and not text.startswith("[PAD"))
    }
    return {
        "pre": metadata["tokenizer.ggml.pre"],
        "n_tokens": len(tokens),
        "tokens": keep,
        "types": {i: types[i] for i in keep if types[i] != 1},
        "merges": merges,
        "keys": {
            key: value
            for key, value in metadata.items()
            if key.startswith("tokenizer.ggml.") and key.endswith("_token_id")
        },
        "ids": peer_ids,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("smollm2", type=Path)
    args = parser.parse_args()
    for name in WHOLE:
        path = args.models / f"ggml-vocab-{name}.gguf"
        write_json(f"{name}.json.xz", pack(dict(open_gguf(path).metadata)))
        for suffix in ("inp", "out"):
            shutil.copyfile(f"{path}.{suffix}", HERE / f"ggml-vocab-{name}.{suffix}")
    write_json("smollm2.json.xz", pack(dict(open_gguf(args.smollm2).metadata)))
    inputs = read_inputs("ggml-vocab-llama-bpe.inp")
    peer = Peer(args.smollm2)
    lines = ["".join(f" {i}" for i in peer.encode(text)) for text in inputs]
    (HERE / "smollm2.out").write_text("\n".join(lines) + "\n")

    texts = random_texts(120)
    result: dict[str, Any] = {"texts": texts, "eog_ids": {}, "whole": {}, "reduced": {}}
    for name, path in {
        **{name: args.models / f"ggml-vocab-{name}.gguf" for name in (*WHOLE, *REDUCED)},
        "smollm2": args.smollm2,
    }.items():
        peer = Peer(path)
        result["eog_ids"][name] = peer.eog_ids()
        if name in REDUCED:
            ids = [peer.encode(text) for text in inputs + texts]
            result["reduced"][name] = reduce(dict(open_gguf(path).metadata), inputs + texts, ids)
        else:
            result["whole"][name] = [peer.encode(text) for text in texts]
    write_json("peer.json.xz", result)


if __name__ == "__main__":
    main()
