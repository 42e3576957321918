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

SCALE, SUM, LOW_SUM, HIGH_SUM = range(4)
"""Which factor is which."""


@inline
def own_rows(act, x, first):
    """Activations of the rows from `first` on, with this x."""
    return Activations(x, act.q[first:], act.factors[first:], act.by_block[first:])


@inline
def byte_scale(peak):
    """(scale, 1 / scale) of signed bytes for numbers of at most `peak`; both 0 for zeros."""
    scale = peak / np.float32(127.0)
    inverse = np.float32(0.0)
    if scale > np.float32(0.0):
        inverse = np.float32(1.0) / scale
    return scale, inverse


@inline
def _store_factors(address, scale, low_sum, high_sum):
    v.store_f32(address + 4 * SCALE, scale)
    v.store_f32(address + 4 * SUM, scale * (low_sum + high_sum))
    v.store_f32(address + 4 * LOW_SUM, scale * low_sum)
    v.store_f32(address + 4 * HIGH_SUM, scale * high_sum)


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
        quad, within = block >> 2, block & 3
        at = q + 128 * quad + 16 * within
        v.store_i8x16(at, v.to_i32(low))
        v.store_i8x16(at + 64, v.to_i32(high))
        low_sum, high_sum = v.sum_lanes(low), v.sum_lanes(high)
        _store_factors(act.factors[t, quad, within].ctypes.data, scale, low_sum, high_sum)
        _store_factors(act.by_block[t, within, quad].ctypes.data, scale, low_sum, high_sum)
