"""What a model file is and what running it will take, without loading it (no numba here)."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from engine.config import ModelConfig, read_config
from engine.gguf import GGUFFile, open_gguf, shown
from engine.kernels import KV_F16, KV_Q8, head_bytes

DEFAULT_KV_TOKENS = 8192
KvType = Literal["f16", "q8"]
KV_KINDS: dict[KvType, int] = {"f16": KV_F16, "q8": KV_Q8}
"""How the KV cache may keep its numbers, by the name in the configuration."""
MAX_ROWS = 128
"""The largest batch of a forward pass, in rows."""
MAX_OUTPUTS = 32
"""The most rows of a batch whose logits are computed: so many sequences decode together."""


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
    kind = _text(meta.get("tokenizer.ggml.model"), "?")
    pre = _text(meta.get("tokenizer.ggml.pre"), "default")
    return EngineInfo(
        name=_text(meta.get("general.name"), file.path.stem),
        architecture="llama",
        parameters=sum(int(np.prod(t.shape, dtype=np.int64)) for t in file.tensors.values()),
        quantization=layer_bytes.most_common(1)[0][0],
        context_length=config.max_context,
        n_layers=config.n_layers,
        embedding_length=config.dim,
        n_heads=config.n_heads,
        n_kv_heads=config.n_kv_heads,
        vocab_size=config.vocab_size,
        tokenizer=_text(
            {"gpt2": f"byte-level BPE ({pre})", "llama": "SentencePiece"}.get(kind, kind), "?"
        ),
        chat_template=isinstance(meta.get("tokenizer.chat_template"), str),
        license=_text(meta.get("general.license"), ""),
        weights_bytes=sum(t.n_bytes for t in file.tensors.values()),
    )


def _text(value: object, otherwise: str) -> str:
    """A text of the file, as far as people need it."""
    return shown(value) if isinstance(value, str) else otherwise


def page_bytes(config: ModelConfig, kv_type: KvType = "f16") -> int:
    """Bytes of a page of the KV cache: PAGE positions, all layers, keys and values."""
    return config.n_layers * config.n_kv_heads * head_bytes(KV_KINDS[kv_type], config.head_dim)


def describe(path: Path) -> EngineInfo:
    """Describe a model file.

    Raises:
        EngineError: the file is damaged, or its model is not supported.
    """
    with open_gguf(path, lists=False) as file:
        return engine_info(file, read_config(file))
