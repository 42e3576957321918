"""Small random LLaMA models, written with the `gguf` package's writer."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import quantize

Type = GGMLQuantizationType

BYTE_TOKENS = [f"<0x{i:02X}>" for i in range(256)]
PIECES = ["<unk>", "<s>", "</s>", *BYTE_TOKENS, "▁", "e", "t", "▁t", "h", "▁th", "▁the", "a", "▁a"]


@dataclass
class Spec:
    """Shape and types of a random model."""

    type: Type = Type.F32
    n_layers: int = 2
    dim: int = 256
    hidden_dim: int = 512
    n_heads: int = 8
    n_kv_heads: int = 4
    head_dim: int | None = None
    rope_dim: int | None = None
    vocab_size: int = len(PIECES)
    tied: bool = False
    context: int = 512
    biases: bool = False
    rope_factors: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    """Further metadata: number → float32, int → uint32, str → string."""
    seed: int = 0


def random_rows(
    rng: np.random.Generator, kind: Type, shape: tuple[int, int], scale: float
) -> npt.NDArray[Any]:
    """Random weights of about the given standard deviation, as raw blocks of a type."""
    block_size, block_bytes = GGML_QUANT_SIZES[kind]
    if kind not in (Type.Q4_K, Type.Q5_K, Type.Q6_K):
        return quantize(rng.normal(0, scale, shape).astype(np.float32), kind)
    # the gguf package cannot quantize to these: random codes with sensible scales do as well
    n_blocks = shape[0] * shape[1] // block_size
    raw = rng.integers(0, 256, (n_blocks, block_bytes), dtype=np.uint8)
    if kind == Type.Q6_K:  # ql:128 qh:64 scales:16 d:2, w = d·sc·(q − 32)
        raw[:, 192:208] = rng.integers(-64, 64, (n_blocks, 16)).astype(np.int8).view(np.uint8)
        d = np.full((n_blocks, 1), scale / (37 * 18.5), np.float16)
        raw[:, 208:210] = d.view(np.uint8)
    else:  # d:2 dmin:2 …, w = d·sc·q − dmin·mn; centred when dmin·mn is the mean of d·sc·q
        top = 15 if kind == Type.Q4_K else 31
        d = np.full((n_blocks, 1), scale / (31.5 * top * 0.29), np.float16)
        raw[:, 0:2] = d.view(np.uint8)
        raw[:, 2:4] = (d * np.float16(top / 2)).astype(np.float16).view(np.uint8)
    return raw.reshape(shape[0], -1)


def write_model(path: Path, spec: Spec) -> Path:
    """Write a model of this shape with random weights and a small SentencePiece vocabulary."""
    rng = np.random.default_rng(spec.seed)
    head_dim = spec.head_dim or spec.dim // spec.n_heads
    writer = GGUFWriter(path, "llama")
    writer.add_name("random")
    writer.add_block_count(spec.n_layers)
    writer.add_context_length(spec.context)
    writer.add_embedding_length(spec.dim)
    writer.add_feed_forward_length(spec.hidden_dim)
    writer.add_head_count(spec.n_heads)
    writer.add_head_count_kv(spec.n_kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(spec.rope_dim or head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in spec.extra.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    pieces = PIECES + [f"w{i}" for i in range(spec.vocab_size - len(PIECES))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(i) for i in range(len(pieces))])
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (len(pieces) - 259)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    def matrix(name: str, rows: int, cols: int) -> None:
        data = random_rows(rng, spec.type, (rows, cols), cols**-0.5)
        raw_type = None if spec.type in (Type.F32, Type.F16) else spec.type
        writer.add_tensor(f"{name}.weight", data, raw_dtype=raw_type)
        if spec.biases:
            writer.add_tensor(f"{name}.bias", rng.normal(0, 0.1, rows).astype(np.float32))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", rng.normal(1, 0.1, spec.dim).astype(np.float32))

    embedding = rng.normal(0, 1, (spec.vocab_size, spec.dim)).astype(np.float32)
    if spec.dim % 32:
        writer.add_tensor("token_embd.weight", embedding)
    else:
        raw = quantize(embedding, Type.Q8_0)
        writer.add_tensor("token_embd.weight", raw, raw_dtype=Type.Q8_0)
    for i in range(spec.n_layers):
        norm(f"blk.{i}.attn_norm")
        matrix(f"blk.{i}.attn_q", spec.n_heads * head_dim, spec.dim)
        matrix(f"blk.{i}.attn_k", spec.n_kv_heads * head_dim, spec.dim)
        matrix(f"blk.{i}.attn_v", spec.n_kv_heads * head_dim, spec.dim)
        matrix(f"blk.{i}.attn_output", spec.dim, spec.n_heads * head_dim)
        norm(f"blk.{i}.ffn_norm")
        matrix(f"blk.{i}.ffn_gate", spec.hidden_dim, spec.dim)
        matrix(f"blk.{i}.ffn_up", spec.hidden_dim, spec.dim)
        matrix(f"blk.{i}.ffn_down", spec.dim, spec.hidden_dim)
    norm("output_norm")
    if not spec.tied:
        biases, spec.biases = spec.biases, False
        matrix("output", spec.vocab_size, spec.dim)
        spec.biases = biases
    if spec.rope_factors:
        factors = np.linspace(1, 8, head_dim // 2).astype(np.float32)
        writer.add_tensor("rope_freqs.weight", factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
