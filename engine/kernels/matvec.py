"""One vector times a matrix: the kernel of decoding, bound by the reading of the weights.

Four rows are multiplied at a time, a quad (four blocks of 32, see unpack.py) of each per step:

    row 0  │ block 0 │ block 1 │ block 2 │ block 3 │   two byte dot products: 16 sums, 4 a block
    row 1  │    …
    row 2, row 3                                       then 4 × 4 sums: one for each row and block

so that one vector of scales, one conversion and two fma serve 16 blocks. The rows that come later
are prefetched meanwhile.

Every row is summed in the order in which matmul.py sums it (blocks 0, 4, 8, … then 1, 5, 9, …),
so both give the same bits: a token's logits do not depend on what else was in the batch.
"""

import numpy as np

from engine import simd as v
from engine.jit import inline
from engine.kernels import unpack as u

ROWS = 4
_AHEAD = 4096
"""Bytes by which the prefetch leads, at least: what is read while one access to memory waits."""

# What becomes of the result. Integers, as numba compiles a function again for each literal boolean.
OVERWRITE, ADD = np.int64(0), np.int64(1)


@inline
def _row_dots(kind, row, quad, o1, o2, o3, x):
    """Sums of four for the blocks of a quad of one row, (low, high) halves of blocks together."""
    low, high = u.quad_bytes(kind, row, quad, o1, o2, o3)
    dots = u.dot(kind, v.zero_i32x16(), low, v.load_u8x64(x))
    return u.dot(kind, dots, high, v.load_u8x64(x + 64))


@inline
def _half_dots(kind, row, quad, o1, o2, o3, x):
    """The same, but halves of blocks apart: for Q6_K."""
    low, high = u.quad_bytes(kind, row, quad, o1, o2, o3)
    zero = v.zero_i32x16()
    return u.dot(kind, zero, low, v.load_u8x64(x)), u.dot(kind, zero, high, v.load_u8x64(x + 64))


@inline
def _quad(kind, rows, offsets, quad, o1, o2, o3, act, t, acc):
    """Add a quad of four rows to their sums, lane 4·block + row."""
    row0, row1, row2, row3 = rows
    x = act.q[t].ctypes.data + u.QUAD * quad
    d_low, d_high, m_low, m_high = u.quad_scales(kind, row0, row1, row2, row3, quad, offsets)
    scale = v.load_each_4_times(act.scale[t].ctypes.data + 16 * quad)
    if kind == u.Q6_K:
        low0, high0 = _half_dots(kind, row0, quad, o1, o2, o3, x)
        low1, high1 = _half_dots(kind, row1, quad, o1, o2, o3, x)
        low2, high2 = _half_dots(kind, row2, quad, o1, o2, o3, x)
        low3, high3 = _half_dots(kind, row3, quad, o1, o2, o3, x)
        low = v.to_f32(v.sum_fours(low0, low1, low2, low3))
        high = v.to_f32(v.sum_fours(high0, high1, high2, high3))
        acc = v.fma(low, v.multiply(d_low, scale), acc)
        acc = v.fma(m_low, v.load_each_4_times(act.low_sums[t].ctypes.data + 16 * quad), acc)
        acc = v.fma(high, v.multiply(d_high, scale), acc)
        sums = act.high_sums[t].ctypes.data
        return v.fma(m_high, v.load_each_4_times(sums + 16 * quad), acc)
    dots0 = _row_dots(kind, row0, quad, o1, o2, o3, x)
    dots1 = _row_dots(kind, row1, quad, o1, o2, o3, x)
    dots2 = _row_dots(kind, row2, quad, o1, o2, o3, x)
    dots3 = _row_dots(kind, row3, quad, o1, o2, o3, x)
    dots = v.to_f32(v.sum_fours(dots0, dots1, dots2, dots3))
    acc = v.fma(dots, v.multiply(d_low, scale), acc)
    return v.fma(m_low, v.load_each_4_times(act.sums[t].ctypes.data + 16 * quad), acc)


@inline
def _quantized_rows(kind, matrix, act, t, out, first_row, last_row, mode):
    row_bytes, size = matrix.row_bytes, u.block_bytes(kind)
    n_quads = matrix.n_cols // u.QUAD  # whole ones
    quad_bytes = 4 * size if size > 0 else u.k_bytes(kind) // 2
    s1, s2, s3, rest = u.short_blocks(kind, matrix.n_cols)
    ahead = ROWS * row_bytes * (_AHEAD // (ROWS * row_bytes) + 1)
    r1, r2, r3 = row_bytes, 2 * row_bytes, 3 * row_bytes
    offsets = v.quad_offsets(0, r1, r2, r3, 0, size, 2 * size, 3 * size)
    short = v.quad_offsets(0, r1, r2, r3, 0, s1, s2, s3)
    for r in range(first_row, last_row, ROWS):
        n = min(ROWS, last_row - r)
        if n < ROWS:
            # the spare rows repeat the last, and are not stored
            r1, r2, r3 = min(1, n - 1) * row_bytes, min(2, n - 1) * row_bytes, (n - 1) * row_bytes
            offsets = v.quad_offsets(0, r1, r2, r3, 0, size, 2 * size, 3 * size)
            short = v.quad_offsets(0, r1, r2, r3, 0, s1, s2, s3)
        row = matrix.address + r * row_bytes
        rows = (row, row + r1, row + r2, row + r3)
        acc = v.zero_f32x16()
        for quad in range(n_quads):
            soon = row + ahead + quad * quad_bytes
            v.prefetch(soon)
            v.prefetch(soon + r1)
            v.prefetch(soon + r2)
            v.prefetch(soon + r3)
            if quad_bytes > 64:
                v.prefetch(soon + 64)
                v.prefetch(soon + r1 + 64)
                v.prefetch(soon + r2 + 64)
                v.prefetch(soon + r3 + 64)
            acc = _quad(kind, rows, offsets, quad, size, 2 * size, 3 * size, act, t, acc)
        if rest > 0:
            acc = _quad(kind, rows, short, n_quads, s1, s2, s3, act, t, acc)
        results = v.sum_quarters(acc)
        address = out[t, r:].ctypes.data
        if n == ROWS:
            if mode == ADD:
                results = v.add(results, v.load_f32x4(address))
            v.store_f32x4(address, results)
        else:
            for i in range(n):
                _store(out, t, r + i, v.lane(results, i), mode)


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
def _float_rows(kind, matrix, act, t, out, first_row, last_row, mode):
    size = 4 if kind == u.F32 else 2
    x = act.x[t]
    x_address = x.ctypes.data
    n_cols = matrix.n_cols
    whole = n_cols - n_cols % 16
    for r in range(first_row, last_row):
        row = matrix.address + r * matrix.row_bytes
        acc = v.zero_f32x16()
        for c in range(0, whole, 16):
            acc = v.fma(_load_weights(kind, row + size * c), v.load_f32x16(x_address + 4 * c), acc)
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
