"""The oracle: a LLaMA forward pass in plain float32 numpy, over dequantized weights.

It shares nothing with the engine: the file is read and dequantized by the `gguf` package, and the
arithmetic is written from the papers, whole sequences at once. Two of the engine's deliberate
roundings can be switched on, so that the rest can be compared closely: int8 activations before a
quantized matrix, and keys and values in half precision.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

Array = npt.NDArray[np.float32]


def round_to_int8(x: Array) -> Array:
    """x as int8 with a scale for every 32, and back."""
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    scale = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
    q = np.rint(blocks / np.where(scale == 0, np.float32(1), scale))
    return (q * scale).astype(np.float32).reshape(x.shape)


@dataclass
class Oracle:
    """A model, dequantized into float32."""

    path: Path
    int8_activations: bool = False
    f16_cache: bool = False

    def __post_init__(self) -> None:
        reader = GGUFReader(self.path)
        self.weights: dict[str, Array] = {}
        self.quantized: set[str] = set()
        for tensor in reader.tensors:
            values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            self.weights[tensor.name] = values.reshape(tensor.shape[::-1])
            if tensor.tensor_type not in (
                GGMLQuantizationType.F32,
                GGMLQuantizationType.F16,
                GGMLQuantizationType.BF16,
            ):
                self.quantized.add(tensor.name)

        def field(name: str, default: float | None = None) -> float:
            found = reader.get_field(f"llama.{name}")
            if found is None:
                assert default is not None, name
                return default
            return found.contents()

        self.n_layers = int(field("block_count"))
        self.n_heads = int(field("attention.head_count"))
        self.n_kv_heads = int(field("attention.head_count_kv", self.n_heads))
        self.dim = int(field("embedding_length"))
        self.head_dim = int(field("attention.key_length", self.dim // self.n_heads))
        self.eps = float(field("attention.layer_norm_rms_epsilon"))
        self.rope_dim = int(field("rope.dimension_count", self.head_dim))
        self.theta = float(field("rope.freq_base", 10000.0))
        self.rope_scale = float(field("rope.scaling.factor", 1.0))

    def linear(self, x: Array, name: str) -> Array:
        weight = self.weights[f"{name}.weight"]
        if self.int8_activations and f"{name}.weight" in self.quantized:
            x = round_to_int8(x)
        y = x @ weight.T
        return y + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else y

    def norm(self, x: Array, name: str) -> Array:
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + np.float32(self.eps)) * self.weights[f"{name}.weight"]

    def rope(self, x: Array) -> Array:
        """x (n_tokens, heads, head_dim): rotate neighbouring pairs by position."""
        pair = np.arange(0, self.rope_dim, 2)
        frequencies = self.theta ** (-pair / self.rope_dim) / self.rope_scale
        if "rope_freqs.weight" in self.weights:
            frequencies = frequencies / self.weights["rope_freqs.weight"]
        angle = np.arange(len(x))[:, None, None] * frequencies
        turned = (x[..., 0 : self.rope_dim : 2] + 1j * x[..., 1 : self.rope_dim : 2]) * np.exp(
            1j * angle
        )
        out = x.copy()
        out[..., 0 : self.rope_dim : 2] = turned.real
        out[..., 1 : self.rope_dim : 2] = turned.imag
        return out

    def logits(self, tokens: list[int]) -> Array:
        """Logits after every token: (n_tokens, vocab_size)."""
        n = len(tokens)
        x = self.weights["token_embd.weight"][tokens]
        mask = np.where(np.arange(n)[:, None] >= np.arange(n)[None, :], 0.0, -np.inf)
        for i in range(self.n_layers):
            h = self.norm(x, f"blk.{i}.attn_norm")
            q = self.rope(self.linear(h, f"blk.{i}.attn_q").reshape(n, self.n_heads, -1))
            k = self.rope(self.linear(h, f"blk.{i}.attn_k").reshape(n, self.n_kv_heads, -1))
            value = self.linear(h, f"blk.{i}.attn_v").reshape(n, self.n_kv_heads, -1)
            if self.f16_cache:
                k, value = k.astype(np.float16).astype("f4"), value.astype(np.float16).astype("f4")
            k = np.repeat(k, self.n_heads // self.n_kv_heads, axis=1)
            value = np.repeat(value, self.n_heads // self.n_kv_heads, axis=1)
            scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(self.head_dim) + mask
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            mixed = np.einsum("hqk,khd->qhd", scores, value).reshape(n, -1).astype(np.float32)
            x = x + self.linear(mixed, f"blk.{i}.attn_output")
            h = self.norm(x, f"blk.{i}.ffn_norm")
            gate, up = self.linear(h, f"blk.{i}.ffn_gate"), self.linear(h, f"blk.{i}.ffn_up")
            x = x + self.linear(gate / (1 + np.exp(-gate)) * up, f"blk.{i}.ffn_down")
        x = self.norm(x, "output_norm")
        tied = "output.weight" not in self.weights
        return self.linear(x, "token_embd" if tied else "output")


def log_softmax(logits: Array) -> npt.NDArray[np.float64]:
    """Natural logarithms of the probabilities, in double precision."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def perplexity(logits: Array, tokens: list[int]) -> float:
    """exp of the mean negative log-probability of each token after the first."""
    scores = log_softmax(logits[:-1])
    return float(np.exp(-np.mean(scores[np.arange(len(tokens) - 1), tokens[1:]])))
