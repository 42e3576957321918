"""Activations as int8: what the matrices of quantized types are multiplied with.

Each block of 32 activations x becomes x ≈ scale·q with q = round(x / scale), |q| ≤ 127 and
scale = max|x| / 127 (ggml's Q8_0 without its rounding of the scale to half precision). The sums
of x over a block and its halves are kept too: a weight w = d·q_w + m needs Σ x for its m.

The bytes lie in the order of the weights of a quad (unpack.py), so that both are plain loads:

    quad  │ elements 0-15 of blocks 0, 1, 2, 3 │ elements 16-31 of blocks 0, 1, 2, 3 │

Blocks past the end are zero, with scale zero.
"""

import numpy as np

from engine import simd as v
from engine.jit import inline
from engine.job import Activations


@inline
def own_rows(act, x, first):
    """Activations of the rows from `first` on, with this x."""
    return Activations(
        x,
        act.q[first:],
        act.scale[first:],
        act.sums[first:],
        act.low_sums[first:],
        act.high_sums[first:],
        act.factors[first:],
    )


@inline
def byte_scale(peak):
    """(scale, 1 / scale) of signed bytes for numbers of at most `peak`; both 0 for zeros."""
    scale = peak / np.float32(127.0)
    inverse = np.float32(0.0)
    if scale > np.float32(0.0):
        inverse = np.float32(1.0) / scale
    return scale, inverse


@inline
def _four_times(table, t, block, value):
    v.store_f32x4(table[t].ctypes.data + 16 * block, v.splat_f32x4(value))


@inline
def quantize_row(act, t):
    """Fill the int8 form of row t from its x. A tail of fewer than 32 has none."""
    x, q = act.x[t].ctypes.data, act.q[t].ctypes.data
    for block in range(act.x.shape[1] // 32):
        low = v.load_f32x16(x + 128 * block)
        high = v.load_f32x16(x + 128 * block + 64)
        peak = v.max_lanes(v.maximum(v.absolute(low), v.absolute(high)))
        scale, inverse = byte_scale(peak)
        low = v.rounded(v.multiply(low, v.splat_f32x16(inverse)))
        high = v.rounded(v.multiply(high, v.splat_f32x16(inverse)))
        at = q + 128 * (block >> 2) + 16 * (block & 3)
        v.store_i8x16(at, v.to_i32(low))
        v.store_i8x16(at + 64, v.to_i32(high))
        low_sum, high_sum = v.sum_lanes(low), v.sum_lanes(high)
        total, low_sum, high_sum = scale * (low_sum + high_sum), scale * low_sum, scale * high_sum
        _four_times(act.scale, t, block, scale)
        _four_times(act.sums, t, block, total)
        _four_times(act.low_sums, t, block, low_sum)
        _four_times(act.high_sums, t, block, high_sum)
        factors = act.factors[t, block & 3, block >> 2].ctypes.data
        v.store_f32(factors, scale)
        v.store_f32(factors + 4, total)
        v.store_f32(factors + 8, low_sum)
        v.store_f32(factors + 12, high_sum)
