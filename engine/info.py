"""What a model file is and what running it will take, without loading it (no numba here)."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.config import ModelConfig, read_config
from engine.gguf import GGUFFile, open_gguf
from engine.kernels import KV_F16, KV_Q8, PAGE, head_bytes

DEFAULT_KV_TOKENS = 8192
KV_KINDS = {"f16": KV_F16, "q8": KV_Q8}
"""How the KV cache may keep its numbers, by the name in the configuration."""
MAX_ROWS = 128
"""The largest batch of a forward pass, in rows."""
MAX_OUTPUTS = 32
"""The most rows of a batch whose logits are computed: so many sequences decode together."""
RUNTIME_BYTES = 70 * 1024 * 1024
"""Interpreter, libraries and compiled kernels, as measured by benchmarks/ (see docs/engine.md)."""


@dataclass(frozen=True)
class EngineInfo:
    """A model, as a person would describe it."""

    name: str
    architecture: str
    parameters: int
    quantization: str
    context_length: int
    """Tokens the model was made for."""
    n_layers: int
    embedding_length: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    tokenizer: str
    chat_template: bool
    license: str
    weights_bytes: int


def engine_info(file: GGUFFile, config: ModelConfig) -> EngineInfo:
    """Describe an open model."""
    meta = file.metadata
    layer_bytes: Counter[str] = Counter()
    for tensor in file.tensors.values():
        if tensor.name.startswith("blk.") and len(tensor.shape) > 1:
            layer_bytes[tensor.type.name] += tensor.n_bytes
    kind = str(meta.get("tokenizer.ggml.model", "?"))
    pre = meta.get("tokenizer.ggml.pre")
    return EngineInfo(
        name=str(meta.get("general.name", file.path.stem)),
        architecture="llama",
        parameters=sum(int(np.prod(t.shape, dtype=np.int64)) for t in file.tensors.values()),
        quantization=layer_bytes.most_common(1)[0][0],
        context_length=config.max_context,
        n_layers=config.n_layers,
        embedding_length=config.dim,
        n_heads=config.n_heads,
        n_kv_heads=config.n_kv_heads,
        vocab_size=config.vocab_size,
        tokenizer={"gpt2": f"byte-level BPE ({pre})", "llama": "SentencePiece"}.get(kind, kind),
        chat_template=isinstance(meta.get("tokenizer.chat_template"), str),
        license=str(meta.get("general.license", "")),
        weights_bytes=sum(t.n_bytes for t in file.tensors.values()),
    )


def page_bytes(config: ModelConfig, kv_type: str = "f16") -> int:
    """Bytes of a page of the KV cache: PAGE positions, all layers, keys and values."""
    return config.n_layers * config.n_kv_heads * head_bytes(KV_KINDS[kv_type], config.head_dim)


def memory_estimate(
    file: GGUFFile, config: ModelConfig, kv_tokens: int, kv_type: str = "f16"
) -> dict[str, int]:
    """Bytes that running the model takes, by owner; `total` is their sum."""
    row = 4 * (4 * config.dim + 3 * config.q_dim + 2 * config.kv_dim + 4 * config.hidden_dim)
    owners = {
        "weights": sum(t.n_bytes for t in file.tensors.values()),
        "kv_cache": -(-kv_tokens // PAGE) * page_bytes(config, kv_type),
        "activations": MAX_ROWS * row + MAX_OUTPUTS * 4 * config.vocab_size,
        "runtime": RUNTIME_BYTES,
    }
    return {**owners, "total": sum(owners.values())}


def describe(
    path: Path, kv_tokens: int = DEFAULT_KV_TOKENS, kv_type: str = "f16"
) -> tuple[EngineInfo, dict[str, int]]:
    """Describe a model file and estimate the memory it will need.

    Raises:
        EngineError: the file is damaged, or its model is not supported.
    """
    with open_gguf(path) as file:
        config = read_config(file)
        kv_tokens = min(kv_tokens, 4 * config.max_context)
        return engine_info(file, config), memory_estimate(file, config, kv_tokens, kv_type)
