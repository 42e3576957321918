"""Read and write vocabularies and vectors as small files.

A vocabulary is JSON under xz: the `tokenizer.*` keys of a GGUF, where a list of merges, which is
sorted by the token it makes, is kept as the differences of those ids and the places of the spaces.
"""

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
TOKENS, MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.merges"
SEPARATOR = "\n__ggml_vocab_test__\n"
"""After each input in the peer's .inp files."""


def write_json(name: str, value: Any) -> None:
    """One file of this folder, compressed."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    (HERE / name).write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def read_json(name: str) -> Any:
    """One file of this folder."""
    return json.loads(lzma.decompress((HERE / name).read_bytes()))


def pack(metadata: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer's part of a GGUF's metadata, ready for `write_json`."""
    packed = {
        key: value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in metadata.items()
        if key.startswith("tokenizer.")
    }
    merges = packed.get(MERGES)
    if merges:
        ids = {text: i for i, text in enumerate(packed[TOKENS])}
        made = [ids[merge.replace(" ", "")] for merge in merges]
        packed[MERGES] = {
            "steps": np.diff(made, prepend=0).tolist(),
            "spaces": [merge.index(" ") for merge in merges],
        }
    return packed


def load_vocabulary(name: str) -> dict[str, Any]:
    """Metadata as `open_gguf` would give it."""
    metadata: dict[str, Any] = read_json(f"{name}.json.xz")
    merges = metadata.get(MERGES)
    if merges:
        texts = [metadata[TOKENS][i] for i in np.cumsum(merges["steps"])]
        metadata[MERGES] = [
            f"{text[:space]} {text[space:]}"
            for text, space in zip(texts, merges["spaces"], strict=True)
        ]
    for key, dtype in (("token_type", np.int32), ("scores", np.float32)):
        if f"tokenizer.ggml.{key}" in metadata:
            metadata[f"tokenizer.ggml.{key}"] = np.array(metadata[f"tokenizer.ggml.{key}"], dtype)
    return metadata


def read_inputs(name: str) -> list[str]:
    """Texts of an .inp file; each is followed by a separator, also the last."""
    *texts, rest = (HERE / name).read_bytes().decode().split(SEPARATOR)
    assert not rest
    return texts


def read_outputs(name: str) -> list[list[int]]:
    """Ids of an .out file, one list a line."""
    lines = (HERE / name).read_text().splitlines()
    return [[int(number) for number in line.split()] for line in lines]
