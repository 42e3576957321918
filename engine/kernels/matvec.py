"""A vector, or a few, times a matrix: the kernel of decoding, bound by the reading of the weights.

Four rows are multiplied at a time, a quad (four blocks of 32, see unpack.py) of each per step:

    row 0  │ block 0 │ block 1 │ block 2 │ block 3 │   two byte dot products: 16 sums, 4 a block
    row 1  │    …
    row 2, row 3                                       then 4 × 4 sums: one for each row and block

so that one vector of scales, one conversion and two fma serve 16 blocks. Of several vectors, four
share what is unpacked. The rows that come later are prefetched meanwhile.

Every row is summed in the order in which matmul.py sums it (blocks 0, 4, 8, … then 1, 5, 9, …),
so both give the same bits: a token's logits do not depend on what else was in the batch.
"""

import numpy as np

from engine import simd as v
from engine.jit import inline
from engine.kernels import QUAD
from engine.kernels import unpack as u
from engine.kernels.quantize import HIGH_SUM, LOW_SUM, SCALE, SUM

ROWS = 4
_AHEAD = 4096
"""Bytes by which the prefetch leads, at least: what is read while one access to memory waits."""

_GROUP = 4
"""Vectors that are multiplied at once, if there are several."""

# What becomes of the result. Integers, as numba compiles a function again for each literal boolean.
OVERWRITE, ADD = np.int64(0), np.int64(1)


@inline
def _unpack(kind, rows, offsets, quad, o1, o2, o3):
    """A quad of four rows as bytes, and its scales."""
    row0, row1, row2, row3 = rows
    low0, high0 = u.quad_bytes(kind, row0, quad, o1, o2, o3)
    low1, high1 = u.quad_bytes(kind, row1, quad, o1, o2, o3)
    low2, high2 = u.quad_bytes(kind, row2, quad, o1, o2, o3)
    low3, high3 = u.quad_bytes(kind, row3, quad, o1, o2, o3)
    scales = u.quad_scales(kind, row0, row1, row2, row3, quad, offsets)
    return (low0, low1, low2, low3), (high0, high1, high2, high3), scales


@inline
def _block_sums(kind, low, x_low, high, x_high):
    """Sums of the blocks of a row each, as numbers in lane 4·block + row; halves together."""
    zero = v.zero_i32x16()
    dots0 = u.dot(kind, u.dot(kind, zero, low[0], x_low), high[0], x_high)
    dots1 = u.dot(kind, u.dot(kind, zero, low[1], x_low), high[1], x_high)
    dots2 = u.dot(kind, u.dot(kind, zero, low[2], x_low), high[2], x_high)
    dots3 = u.dot(kind, u.dot(kind, zero, low[3], x_low), high[3], x_high)
    return v.to_f32(v.sum_fours(dots0, dots1, dots2, dots3))


@inline
def _half_sums(kind, half, x):
    """The same for one half of the blocks."""
    zero = v.zero_i32x16()
    dots0, dots1 = u.dot(kind, zero, half[0], x), u.dot(kind, zero, half[1], x)
    dots2, dots3 = u.dot(kind, zero, half[2], x), u.dot(kind, zero, half[3], x)
    return v.to_f32(v.sum_fours(dots0, dots1, dots2, dots3))


@inline
def _add_quad(kind, weights, act, t, quad, acc):
    """Add an unpacked quad, times vector t, to the sums of four rows."""
    low, high, (d_low, d_high, m_low, m_high) = weights
    x = act.q[t].ctypes.data + QUAD * quad
    x_low, x_high = v.load_u8x64(x), v.load_u8x64(x + 64)
    factors = v.load_f32x16(act.factors[t].ctypes.data + 64 * quad)
    scale = v.one_of_four(factors, SCALE)
    if kind == u.Q6_K:  # the halves of a block have scales of their own
        acc = v.fma(_half_sums(kind, low, x_low), v.multiply(d_low, scale), acc)
        acc = v.fma(m_low, v.one_of_four(factors, LOW_SUM), acc)
        acc = v.fma(_half_sums(kind, high, x_high), v.multiply(d_high, scale), acc)
        return v.fma(m_high, v.one_of_four(factors, HIGH_SUM), acc)
    dots = _block_sums(kind, low, x_low, high, x_high)
    acc = v.fma(dots, v.multiply(d_low, scale), acc)
    return v.fma(m_low, v.one_of_four(factors, SUM), acc)


@inline
def _prefetch_quad(address, r1, r2, r3, n_bytes):
    v.prefetch(address)
    v.prefetch(address + r1)
    v.prefetch(address + r2)
    v.prefetch(address + r3)
    if n_bytes > 64:
        v.prefetch(address + 64)
        v.prefetch(address + r1 + 64)
        v.prefetch(address + r2 + 64)
        v.prefetch(address + r3 + 64)


@inline
def _store_rows(out, t, row, n, acc, mode):
    """The sums of n ≤ 4 rows."""
    results = v.sum_quarters(acc)
    address = out[t, row:].ctypes.data
    if n == ROWS:
        if mode == ADD:
            results = v.add(results, v.load_f32x4(address))
        v.store_f32x4(address, results)
    else:
        for i in range(n):
            _store(out, t, row + i, v.lane(results, i), mode)


@inline
def _quantized_rows(kind, group, matrix, act, n_tokens, out, first_row, last_row, mode):
    """`group` vectors at once, 1 or 4, so that one unpacking serves them all."""
    row_bytes, size = matrix.row_bytes, u.block_bytes(kind)
    n_quads = matrix.n_cols // QUAD  # whole ones
    quad_bytes = 4 * size if size > 0 else u.k_bytes(kind) // 2
    o1, o2, o3 = size, 2 * size, 3 * size
    s1, s2, s3, rest = u.short_blocks(kind, matrix.n_cols)
    ahead = ROWS * row_bytes * (_AHEAD // (ROWS * row_bytes) + 1)
    r1, r2, r3 = row_bytes, 2 * row_bytes, 3 * row_bytes
    offsets = v.quad_offsets(0, r1, r2, r3, 0, o1, o2, o3)
    short = v.quad_offsets(0, r1, r2, r3, 0, s1, s2, s3)
    for r in range(first_row, last_row, ROWS):
        n = min(ROWS, last_row - r)
        if n < ROWS:
            # the spare rows repeat the last, and are not stored
            r1, r2, r3 = min(1, n - 1) * row_bytes, min(2, n - 1) * row_bytes, (n - 1) * row_bytes
            offsets = v.quad_offsets(0, r1, r2, r3, 0, o1, o2, o3)
            short = v.quad_offsets(0, r1, r2, r3, 0, s1, s2, s3)
        row = matrix.address + r * row_bytes
        rows = (row, row + r1, row + r2, row + r3)
        for t in range(0, n_tokens, group):
            # so do the spare vectors of a short group
            t1, t2 = min(t + 1, n_tokens - 1), min(t + 2, n_tokens - 1)
            t3 = min(t + 3, n_tokens - 1)
            acc0 = acc1 = acc2 = acc3 = v.zero_f32x16()
            for quad in range(n_quads):
                _prefetch_quad(row + ahead + quad * quad_bytes, r1, r2, r3, quad_bytes)
                weights = _unpack(kind, rows, offsets, quad, o1, o2, o3)
                acc0 = _add_quad(kind, weights, act, t, quad, acc0)
                if group > 1:
                    acc1 = _add_quad(kind, weights, act, t1, quad, acc1)
                    if t2 > t1:
                        acc2 = _add_quad(kind, weights, act, t2, quad, acc2)
                        acc3 = _add_quad(kind, weights, act, t3, quad, acc3)
            if rest > 0:
                weights = _unpack(kind, rows, short, n_quads, s1, s2, s3)
                acc0 = _add_quad(kind, weights, act, t, n_quads, acc0)
                if group > 1:
                    acc1 = _add_quad(kind, weights, act, t1, n_quads, acc1)
                    acc2 = _add_quad(kind, weights, act, t2, n_quads, acc2)
                    acc3 = _add_quad(kind, weights, act, t3, n_quads, acc3)
            _store_rows(out, t, r, n, acc0, mode)
            if group > 1:
                if t1 > t:
                    _store_rows(out, t1, r, n, acc1, mode)
                if t2 > t1:
                    _store_rows(out, t2, r, n, acc2, mode)
                if t3 > t2:
                    _store_rows(out, t3, r, n, acc3, mode)


@inline
def _store(out, t, row, value, mode):
    out[t, row] = out[t, row] + value if mode == ADD else value


@inline
def _load_weights(kind, address):
    """Sixteen weights of a float type as f32x16."""
    if kind == u.F32:
        return v.load_f32x16(address)
    elif kind == u.F16:
        return v.load_f16x16(address)
    return v.load_bf16x16(address)


@inline
def _load_weight(kind, address):
    if kind == u.F32:
        return v.load_f32(address)
    elif kind == u.F16:
        return v.load_f16(address)
    return v.load_bf16(address)


@inline
def _float_rows(kind, matrix, act, n_tokens, out, first_row, last_row, mode):
    size = 4 if kind == u.F32 else 2
    n_cols = matrix.n_cols
    whole = n_cols - n_cols % 16
    for r in range(first_row, last_row):
        row = matrix.address + r * matrix.row_bytes
        for t in range(n_tokens):
            x = act.x[t].ctypes.data
            acc = v.zero_f32x16()
            for c in range(0, whole, 16):
                acc = v.fma(_load_weights(kind, row + size * c), v.load_f32x16(x + 4 * c), acc)
            total = v.sum_lanes(acc)
            for c in range(whole, n_cols):
                total += _load_weight(kind, row + size * c) * act.x[t, c]
            _store(out, t, r, total, mode)


@inline
def _any_rows(group, matrix, act, n_tokens, out, first_row, last_row, mode):
    kind = matrix.kind
    if kind == u.Q4_0:
        _quantized_rows(u.Q4_0, group, matrix, act, n_tokens, out, first_row, last_row, mode)
    elif kind == u.Q4_1:
        _quantized_rows(u.Q4_1, group, matrix, act, n_tokens, out, first_row, last_row, mode)
    elif kind == u.Q5_0:
        _quantized_rows(u.Q5_0, group, matrix, act, n_tokens, out, first_row, last_row, mode)
    elif kind == u.Q5_1:
        _quantized_rows(u.Q5_1, group, matrix, act, n_tokens, out, first_row, last_row, mode)
    elif kind == u.Q8_0:
        _quantized_rows(u.Q8_0, group, matrix, act, n_tokens, out, first_row, last_row, mode)
    elif kind == u.Q4_K:
        _quantized_rows(u.Q4_K, group, matrix, act, n_tokens, out, first_row, last_row, mode)
    elif kind == u.Q5_K:
        _quantized_rows(u.Q5_K, group, matrix, act, n_tokens, out, first_row, last_row, mode)
    elif kind == u.Q6_K:
        _quantized_rows(u.Q6_K, group, matrix, act, n_tokens, out, first_row, last_row, mode)


@inline
def matvec(matrix, act, n_tokens, out, first_row, last_row, mode):
    """out[t, r] (+)= W[r] · x[t] for t < n_tokens and rows first_row ≤ r < last_row.

    matrix  a MATRIX record: address, kind, n_cols, row_bytes
    act     Activations; quantized types read its int8 form, float types its x
    out     (T, n_rows) f32
    mode    OVERWRITE out, or ADD to it (the residual)
    """
    kind = matrix.kind
    if kind == u.F32:
        _float_rows(u.F32, matrix, act, n_tokens, out, first_row, last_row, mode)
    elif kind == u.F16:
        _float_rows(u.F16, matrix, act, n_tokens, out, first_row, last_row, mode)
    elif kind == u.BF16:
        _float_rows(u.BF16, matrix, act, n_tokens, out, first_row, last_row, mode)
    elif n_tokens == 1:
        _any_rows(1, matrix, act, 1, out, first_row, last_row, mode)
    else:
        _any_rows(_GROUP, matrix, act, n_tokens, out, first_row, last_row, mode)
