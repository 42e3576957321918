"""Compiling the kernels ahead of the first start, for packaging and images."""

from typing import cast

import numpy as np

from engine.config import ModelConfig
from engine.formats import TensorType
from engine.jit import cache_dir, is_warm
from engine.kv_cache import KVCache
from engine.model import Model
from engine.weights import MATRIX, Weights, WeightViews

_DIM = 32


class _TinyWeights:
    """One layer of zeros. Kernels are compiled for the types of arguments, not for their shapes."""

    rope_factors = None

    def __init__(self) -> None:
        self._zeros = np.zeros(_DIM * _DIM, np.float32)
        address, size = self._zeros.ctypes.data, 4 * _DIM
        matrix = np.array([(address, int(TensorType.F32), _DIM, _DIM, size, 0)], MATRIX)
        ones = np.ones((1, _DIM), np.float32)
        self.views = WeightViews(
            **{name: matrix for name in WeightViews._fields if "norm" not in name},
            attn_norm=ones,
            ffn_norm=ones,
            output_norm=ones[0],
        )


def warm() -> str:
    """Compile every kernel into the on-disk cache, if it is not there. Returns the folder."""
    if not is_warm():
        config = ModelConfig(
            n_layers=1,
            dim=_DIM,
            hidden_dim=_DIM,
            n_heads=1,
            n_kv_heads=1,
            head_dim=_DIM,
            vocab_size=_DIM,
            max_context=64,
            norm_eps=1e-5,
            rope_dim=_DIM,
            rope_theta=1e4,
            rope_scale=1.0,
        )
        weights = cast(Weights, _TinyWeights())
        model = Model(config, weights, max_rows=1, max_outputs=1, max_context=64, n_threads=1)
        cache = KVCache(config, 64)
        sequence = cache.open([0])
        sequence.reserve(1)
        zero = np.zeros(1, np.int32)
        model.forward(zero, zero, zero, sequence.page_table[None], zero, cache)
        model.close()
    return str(cache_dir())
