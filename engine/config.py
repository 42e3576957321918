"""What a LLaMA is made of, read from a GGUF's metadata and checked; no arithmetic here.

This module and gguf.py are all that `describe` needs, so they import neither numba nor a kernel.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ModelFormatError, UnsupportedModelError
from engine.gguf import GGUFFile, Tensor
from engine.i18n import _

MAX_LAYERS = 1024
MAX_WIDTH = 1 << 20
MAX_CONTEXT = 1 << 24
MAX_VOCABULARY = 1 << 21
MAX_FREQUENCY = 1e6
"""Radians per position: sound models turn by one at most, and `cos` of more says nothing."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a LLaMA, named as in the field (llama2.c, Hugging Face)."""

    n_layers: int
    dim: int
    """Width of the residual stream."""
    hidden_dim: int
    """Width of the feed-forward."""
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    max_context: int
    norm_eps: float
    rope_dim: int
    """Dimensions of a head that are rotated; the rest pass."""
    rope_theta: float
    rope_scale: float
    """Positions are divided by this (linear scaling)."""

    @property
    def q_dim(self) -> int:
        """Width of all query heads."""
        return self.n_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of all key heads."""
        return self.n_kv_heads * self.head_dim


class _Metadata:
    """Typed, bounded reading of the `llama.*` keys."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self.metadata.get(key, default)
        if value is None:
            raise ModelFormatError(_("the model lacks the key {key}").format(key=key))
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ModelFormatError(f"{key} is {_brief(value)}, expected an integer {low}…{high}")
        return value

    def number(self, key: str, default: float | None = None, high: float = math.inf) -> float:
        value = self.metadata.get(key, default)
        if value is None:
            raise ModelFormatError(_("the model lacks the key {key}").format(key=key))
        if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise ModelFormatError(f"{key} is {_brief(value)}, expected a number above 0")
        if value > high:
            raise ModelFormatError(f"{key} is {_brief(value)}, expected at most {high:g}")
        return float(value)


def _brief(value: Any) -> str:
    if isinstance(value, list | np.ndarray):
        return f"a list of {len(value)}"
    text = repr(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_config(file: GGUFFile) -> ModelConfig:
    """Read and check the configuration, and that every tensor it calls for has its shape.

    Raises:
        ModelFormatError: a key is missing or senseless, a tensor missing or of the wrong shape.
        UnsupportedModelError: another architecture, experts, or a rope scaling not implemented.
    """
    meta = _Metadata(file.metadata)
    architecture = file.metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture != "llama":
        raise UnsupportedModelError(
            _("{file} is a {architecture} model; this engine runs `llama`").format(
                file=file.path.name, architecture=_brief(architecture)
            )
        )
    if meta.integer("llama.expert_count", 0, 1 << 16, 0):
        raise UnsupportedModelError(
            _("{file} is a mixture of experts; only dense models run").format(file=file.path.name)
        )
    dim = meta.integer("llama.embedding_length", 1, MAX_WIDTH)
    n_heads = meta.integer("llama.attention.head_count", 1, 4096)
    n_kv_heads = meta.integer("llama.attention.head_count_kv", 1, 4096, n_heads)
    head_dim = meta.integer("llama.attention.key_length", 1, 4096, max(1, dim // n_heads))
    if meta.integer("llama.attention.value_length", 1, 4096, head_dim) != head_dim:
        raise UnsupportedModelError("keys and values of different length are not supported")
    if n_heads % n_kv_heads:
        raise ModelFormatError(f"{n_heads} query heads cannot share {n_kv_heads} key heads evenly")
    rope_dim = meta.integer("llama.rope.dimension_count", 2, 4096, head_dim)
    if rope_dim > head_dim or rope_dim % 2:
        raise ModelFormatError(f"rope.dimension_count is {rope_dim}, heads have {head_dim}")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelFormatError(
            _("the model lacks the tensor {name}").format(name="token_embd.weight")
        )
    config = ModelConfig(
        n_layers=meta.integer("llama.block_count", 1, MAX_LAYERS),
        dim=dim,
        hidden_dim=meta.integer("llama.feed_forward_length", 1, MAX_WIDTH),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        vocab_size=embedding.n_rows,
        max_context=meta.integer("llama.context_length", 1, MAX_CONTEXT),
        norm_eps=meta.number("llama.attention.layer_norm_rms_epsilon", high=1.0),
        rope_dim=rope_dim,
        rope_theta=meta.number("llama.rope.freq_base", 10000.0),
        rope_scale=_rope_scale(meta),
    )
    for what, width, most in (
        ("all query heads together", config.q_dim, MAX_WIDTH),
        ("the vocabulary", config.vocab_size, MAX_VOCABULARY),
    ):
        if width > most:
            raise ModelFormatError(f"{what} take {width}, at most {most} are allowed")
    _check_shapes(file.tensors, config)
    with np.errstate(all="ignore"):
        fastest = float(np.max(rope_frequencies(config, None)))
    if not fastest <= MAX_FREQUENCY:
        raise ModelFormatError(
            f"rope.freq_base {config.rope_theta:g} and scaling {config.rope_scale:g} turn heads "
            f"by {fastest:g} radians per position, at most {MAX_FREQUENCY:g} are allowed"
        )
    return config


def _rope_scale(meta: _Metadata) -> float:
    kind = meta.metadata.get("llama.rope.scaling.type", "none")
    if not isinstance(kind, str):
        raise ModelFormatError(f"llama.rope.scaling.type is {_brief(kind)}, expected a text")
    if kind == "linear":
        return meta.number("llama.rope.scaling.factor", 1.0)
    if kind != "none":
        raise UnsupportedModelError(f"rope scaling {_brief(kind)} is not supported; linear is")
    return meta.number("llama.rope.scale_linear", 1.0)


def layer_matrices(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """The matrices of a layer by GGUF name, with their shape (rows out, columns in)."""
    return {
        "attn_q": (config.q_dim, config.dim),
        "attn_k": (config.kv_dim, config.dim),
        "attn_v": (config.kv_dim, config.dim),
        "attn_output": (config.dim, config.q_dim),
        "ffn_gate": (config.hidden_dim, config.dim),
        "ffn_up": (config.hidden_dim, config.dim),
        "ffn_down": (config.dim, config.hidden_dim),
    }


def _check_shapes(tensors: Mapping[str, Tensor], config: ModelConfig) -> None:
    def check(name: str, shape: tuple[int, ...], *, needed: bool = True) -> None:
        tensor = tensors.get(name)
        if tensor is None:
            if needed:
                raise ModelFormatError(_("the model lacks the tensor {name}").format(name=name))
            return
        if tensor.shape != shape:
            raise ModelFormatError(f"{name} has the shape {tensor.shape}, expected {shape}")
        if len(shape) == 1 and not tensor.type.is_float:
            raise UnsupportedModelError(f"{name} is {tensor.type.name}; vectors must be floats")

    check("token_embd.weight", (config.vocab_size, config.dim))
    check("output.weight", (config.vocab_size, config.dim), needed=False)
    check("output_norm.weight", (config.dim,))
    check("rope_freqs.weight", (config.rope_dim // 2,), needed=False)
    for layer in range(config.n_layers):
        for norm in ("attn_norm", "ffn_norm"):
            check(f"blk.{layer}.{norm}.weight", (config.dim,))
        for name, (rows, cols) in layer_matrices(config).items():
            check(f"blk.{layer}.{name}.weight", (rows, cols))
            check(f"blk.{layer}.{name}.bias", (rows,), needed=False)


def rope_frequencies(
    config: ModelConfig, factors: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float64]:
    """Radians per position for each rotated pair, (rope_dim // 2,) f64.

    factors: LLaMA 3's per-pair divisors (the tensor rope_freqs.weight), or None.
    Source: Su et al. 2021, θ_i = base^(−2i/d); linear scaling divides positions (Chen et al. 2023).
    """
    pair = np.arange(config.rope_dim // 2, dtype=np.float64)
    frequencies = config.rope_theta ** (-2.0 * pair / config.rope_dim) / config.rope_scale
    return frequencies if factors is None else frequencies / factors
