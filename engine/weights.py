"""Where each tensor lives, as records that kernels can read: address, type, shape.

Weights are used in place through the map of the file; nothing is dequantized or copied but the
vectors (norms and biases), which are kept as float32. The GGUFFile must outlive the Weights.
"""

import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig, layer_matrices
from engine.formats import TensorType
from engine.gguf import GGUFFile, Tensor
from engine.job import MATRIX, WeightViews


def read_vector(file: GGUFFile, name: str) -> npt.NDArray[np.float32]:
    """A tensor of a float type as f32, copied."""
    tensor, raw = file.tensors[name], file.tensor_bytes(name)
    if tensor.type == TensorType.F32:
        return raw.view(np.float32).copy()
    if tensor.type == TensorType.F16:
        return raw.view(np.float16).astype(np.float32)
    return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)  # BF16


class Weights:
    """The weights of a model, in place.

    Attributes:
        views: what the kernels read.
        n_bytes: bytes of all tensors used.
    """

    def __init__(self, file: GGUFFile, config: ModelConfig) -> None:
        self._file = file
        self._base = file.data.ctypes.data
        self._biases: list[npt.NDArray[np.float32]] = []  # kept alive for their addresses
        layers = range(config.n_layers)
        matrices = {
            name: np.array([self._matrix(f"blk.{i}.{name}") for i in layers], MATRIX)
            for name in layer_matrices(config)
        }
        norms = {
            name: np.stack([read_vector(file, f"blk.{i}.{name}.weight") for i in layers])
            for name in ("attn_norm", "ffn_norm")
        }
        token_embd = np.array([self._matrix("token_embd")], MATRIX)
        tied = "output.weight" not in file.tensors
        self.views = WeightViews(
            **matrices,
            **norms,
            token_embd=token_embd,
            output_norm=read_vector(file, "output_norm.weight"),
            output=token_embd if tied else np.array([self._matrix("output")], MATRIX),
        )
        self.rope_factors = (
            read_vector(file, "rope_freqs.weight") if "rope_freqs.weight" in file.tensors else None
        )
        self.n_bytes = sum(tensor.n_bytes for tensor in file.tensors.values())

    def _matrix(self, name: str) -> tuple[int, ...]:
        tensor: Tensor = self._file.tensors[f"{name}.weight"]
        bias = 0
        if f"{name}.bias" in self._file.tensors:
            self._biases.append(read_vector(self._file, f"{name}.bias"))
            bias = self._biases[-1].ctypes.data
        return (
            self._base + tensor.offset,
            int(tensor.type),
            tensor.n_rows,
            tensor.n_cols,
            tensor.n_bytes // tensor.n_rows,
            bias,
        )
