"""One vector times a matrix: the kernel of decoding, bound by the reading of the weights.

Eight rows go side by side so that a load of activations serves eight loads of weights. Per block
of 32 weights: unpack to bytes, one byte dot product into eight int32 lanes; the lanes of the
eight rows are then summed together, so that one conversion and two fma serve all eight.

    row r…r+7  │ block 0 │ block 1 │ …      each: d, m, q[32]
    x          │  q[32]  │  q[32]  │ …      scale, sums over 16

Every row is summed in the order in which matmul.py sums it, so both give the same bits: a token's
logits do not depend on what else was in the batch.
"""

import numpy as np

from engine import simd as v
from engine.jit import inline
from engine.kernels import unpack as u

ROWS = 8

# What becomes of the result. Integers, as numba compiles a function again for each literal boolean.
OVERWRITE, ADD = np.int64(0), np.int64(1)


@inline
def _block(kind, row, block, x):
    """One block of a row times x, still as eight int32, with the block's scales."""
    q, d_low, d_high, m_low, m_high = u.unpack(kind, row, block)
    return v.dot(v.zero_i32x8(), q, x), d_low, d_high, m_low, m_high


@inline
def _quantized_rows(kind, matrix, act, t, out, first_row, last_row, mode):
    n_blocks = matrix.n_cols // u.BLOCK
    x_address = act.q[t].ctypes.data
    scales, sums = act.scale[t], act.sums[t]
    row_bytes = matrix.row_bytes
    results = np.empty(ROWS, np.float32)
    for r in range(first_row, last_row, ROWS):
        # the last group may be short: its spare lanes repeat the last row and are not stored
        last = min(ROWS, last_row - r) - 1
        row0 = matrix.address + r * row_bytes
        row1 = row0 + min(1, last) * row_bytes
        row2 = row0 + min(2, last) * row_bytes
        row3 = row0 + min(3, last) * row_bytes
        row4 = row0 + min(4, last) * row_bytes
        row5 = row0 + min(5, last) * row_bytes
        row6 = row0 + min(6, last) * row_bytes
        row7 = row0 + min(7, last) * row_bytes
        acc = v.zero_f32x8()
        for b in range(n_blocks):
            x = v.load_u8x32(x_address + u.BLOCK * b)
            dots0, d0, e0, m0, n0 = _block(kind, row0, b, x)
            dots1, d1, e1, m1, n1 = _block(kind, row1, b, x)
            dots2, d2, e2, m2, n2 = _block(kind, row2, b, x)
            dots3, d3, e3, m3, n3 = _block(kind, row3, b, x)
            dots4, d4, e4, m4, n4 = _block(kind, row4, b, x)
            dots5, d5, e5, m5, n5 = _block(kind, row5, b, x)
            dots6, d6, e6, m6, n6 = _block(kind, row6, b, x)
            dots7, d7, e7, m7, n7 = _block(kind, row7, b, x)
            low, high = v.row_sums(dots0, dots1, dots2, dots3, dots4, dots5, dots6, dots7)
            scale = v.splat_f32x8(scales[b])
            d = v.pack_f32x8(d0, d1, d2, d3, d4, d5, d6, d7)
            m = v.pack_f32x8(m0, m1, m2, m3, m4, m5, m6, m7)
            sum_low, sum_high = sums[2 * b], sums[2 * b + 1]
            if kind == u.Q6_K:  # the two halves of a block have scales of their own
                e = v.pack_f32x8(e0, e1, e2, e3, e4, e5, e6, e7)
                n = v.pack_f32x8(n0, n1, n2, n3, n4, n5, n6, n7)
                acc = v.fma(v.to_f32(low), v.multiply(d, scale), acc)
                acc = v.fma(m, v.splat_f32x8(sum_low), acc)
                acc = v.fma(v.to_f32(high), v.multiply(e, scale), acc)
                acc = v.fma(n, v.splat_f32x8(sum_high), acc)
            else:
                acc = v.fma(v.to_f32(v.add_i32(low, high)), v.multiply(d, scale), acc)
                acc = v.fma(m, v.splat_f32x8(sum_low + sum_high), acc)
        v.store_f32x8(results.ctypes.data, acc)
        for i in range(last + 1):
            _store(out, t, r + i, results[i], mode)


@inline
def _store(out, t, row, value, mode):
    out[t, row] = out[t, row] + value if mode == ADD else value


@inline
def _load_weights(kind, address):
    """Eight weights of a float type as f32x8."""
    if kind == u.F32:
        return v.load_f32x8(address)
    elif kind == u.F16:
        return v.load_f16x8(address)
    return v.load_bf16x8(address)


@inline
def _load_weight(kind, address):
    if kind == u.F32:
        return v.load_f32(address)
    elif kind == u.F16:
        return v.load_f16(address)
    return v.load_bf16(address)


@inline
def _float_rows(kind, matrix, act, t, out, first_row, last_row, mode):
    size = 4 if kind == u.F32 else 2
    x = act.x[t]
    x_address = x.ctypes.data
    n_cols = matrix.n_cols
    whole = n_cols - n_cols % 8
    for r in range(first_row, last_row):
        row = matrix.address + r * matrix.row_bytes
        acc = v.zero_f32x8()
        for c in range(0, whole, 8):
            acc = v.fma(_load_weights(kind, row + size * c), v.load_f32x8(x_address + 4 * c), acc)
        total = v.sum_lanes(acc)
        for c in range(whole, n_cols):
            total += _load_weight(kind, row + size * c) * x[c]
        _store(out, t, r, total, mode)


@inline
def matvec(matrix, act, t, out, first_row, last_row, mode):
    """out[t, r] (+)= W[r] · x[t] for rows first_row ≤ r < last_row.

    matrix  a MATRIX record: address, kind, n_cols, row_bytes
    act     Activations; quantized types read its int8 form, float types its x
    out     (T, n_rows) f32
    mode    OVERWRITE out, or ADD to it (the residual)
    """
    kind = matrix.kind
    if kind == u.Q4_0:
        _quantized_rows(u.Q4_0, matrix, act, t, out, first_row, last_row, mode)
    elif kind == u.Q4_1:
        _quantized_rows(u.Q4_1, matrix, act, t, out, first_row, last_row, mode)
    elif kind == u.Q5_0:
        _quantized_rows(u.Q5_0, matrix, act, t, out, first_row, last_row, mode)
    elif kind == u.Q5_1:
        _quantized_rows(u.Q5_1, matrix, act, t, out, first_row, last_row, mode)
    elif kind == u.Q8_0:
        _quantized_rows(u.Q8_0, matrix, act, t, out, first_row, last_row, mode)
    elif kind == u.Q4_K:
        _quantized_rows(u.Q4_K, matrix, act, t, out, first_row, last_row, mode)
    elif kind == u.Q5_K:
        _quantized_rows(u.Q5_K, matrix, act, t, out, first_row, last_row, mode)
    elif kind == u.Q6_K:
        _quantized_rows(u.Q6_K, matrix, act, t, out, first_row, last_row, mode)
    elif kind == u.F32:
        _float_rows(u.F32, matrix, act, t, out, first_row, last_row, mode)
    elif kind == u.F16:
        _float_rows(u.F16, matrix, act, t, out, first_row, last_row, mode)
    elif kind == u.BF16:
        _float_rows(u.BF16, matrix, act, t, out, first_row, last_row, mode)
