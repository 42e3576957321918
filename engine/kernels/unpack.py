"""From blocks of any quantized type to bytes and scales: the one place that knows the layouts.

Whatever the type, a weight is w = d·q + m with an unsigned byte q, in blocks of 32. Kernels take
four blocks of a row at a time, a quad: 128 weights.

    low, high  u8x64 each      elements 0-15 of the four blocks, and elements 16-31
    scales     f32x16          those of the four blocks of each of four rows: lane 4·block + row

Elements 0-15 and 16-31 may have scales of their own (only Q6_K's differ). The last quad of a row
may be short: then its spare blocks repeat the last, and count for nothing since the activations
there are zero. Layouts: engine/formats.py.
"""

import numpy as np

from engine import simd as v
from engine.formats import TensorType
from engine.jit import inline, routine
from engine.kernels import QUAD

BLOCK = 32

F32 = int(TensorType.F32)
F16 = int(TensorType.F16)
BF16 = int(TensorType.BF16)
Q4_0 = int(TensorType.Q4_0)
Q4_1 = int(TensorType.Q4_1)
Q5_0 = int(TensorType.Q5_0)
Q5_1 = int(TensorType.Q5_1)
Q8_0 = int(TensorType.Q8_0)
Q4_K = int(TensorType.Q4_K)
Q5_K = int(TensorType.Q5_K)
Q6_K = int(TensorType.Q6_K)

Q4_0_BYTES = TensorType.Q4_0.block_bytes
Q4_1_BYTES = TensorType.Q4_1.block_bytes
Q5_0_BYTES = TensorType.Q5_0.block_bytes
Q5_1_BYTES = TensorType.Q5_1.block_bytes
Q8_0_BYTES = TensorType.Q8_0.block_bytes
Q4_K_BYTES = TensorType.Q4_K.block_bytes
Q5_K_BYTES = TensorType.Q5_K.block_bytes
Q6_K_BYTES = TensorType.Q6_K.block_bytes


@inline
def block_bytes(kind):
    """Bytes of a block of 32, of the types that have one scale for each."""
    if kind == Q4_0:
        return Q4_0_BYTES
    elif kind == Q4_1:
        return Q4_1_BYTES
    elif kind == Q5_0:
        return Q5_0_BYTES
    elif kind == Q5_1:
        return Q5_1_BYTES
    elif kind == Q8_0:
        return Q8_0_BYTES
    return 0


@inline
def k_bytes(kind):
    """Bytes of a super-block."""
    return Q4_K_BYTES if kind == Q4_K else Q5_K_BYTES if kind == Q5_K else Q6_K_BYTES


@inline
def dot(kind, acc, unsigned, signed):
    """The byte dot product for weights of this type."""
    if kind == Q8_0:
        return v.dot(acc, unsigned, signed)
    return v.dot_small(acc, unsigned, signed)


@inline
def quad_bytes(kind, row, quad, second, third, fourth):
    """(low, high) of a quad of the row at address `row`.

    `kind` is a TensorType as a constant, so that only its branch is compiled.
    second, third, fourth: offsets in bytes of these blocks from the first (not of K types).
    """
    if kind == Q4_0 or kind == Q4_1:
        p = row + quad * 4 * block_bytes(kind) + (2 if kind == Q4_0 else 4)
        both = v.load_4x16(p, second, third, fourth)
        return v.low_nibbles(both), v.high_nibbles(both)
    elif kind == Q5_0 or kind == Q5_1:
        p = row + quad * 4 * block_bytes(kind) + (2 if kind == Q5_0 else 4)
        both = v.load_4x16(p + 4, second, third, fourth)
        b0, b1 = v.load_u32(p), v.load_u32(p + second)
        b2, b3 = v.load_u32(p + third), v.load_u32(p + fourth)
        # the fifth bits of elements 0-15 of all four blocks, and of elements 16-31
        bits = (b0 & 0xFFFF) | (b1 & 0xFFFF) << 16 | (b2 & 0xFFFF) << 32 | (b3 & 0xFFFF) << 48
        low = v.or_shifted(v.low_nibbles(both), v.spread_bits(bits), 4)
        bits = b0 >> 16 | b1 >> 16 << 16 | b2 >> 16 << 32 | b3 >> 16 << 48
        return low, v.or_shifted(v.high_nibbles(both), v.spread_bits(bits), 4)
    elif kind == Q8_0:
        p = row + quad * 4 * Q8_0_BYTES + 2
        low = v.load_4x16(p, second, third, fourth)
        high = v.load_4x16(p + 16, second, third, fourth)
        return v.flip_sign(low), v.flip_sign(high)
    p = row + (quad >> 1) * k_bytes(kind)
    half = quad & 1
    if kind == Q4_K or kind == Q5_K:
        # 32 bytes hold block 0 in their low and block 1 in their high nibbles, the next 32 2 and 3
        qs = p + (16 if kind == Q4_K else 48) + 64 * half
        both = v.load_u8x64(qs)
        even, odd = v.low_nibbles(both), v.high_nibbles(both)
        low, high = v.quarters_0426(even, odd), v.quarters_1537(even, odd)
        if kind == Q5_K:  # bit j of byte i is the fifth of element i of block j
            low = v.or_shifted(low, v.bit_fields(v.load_u8x16(p + 16), 4 * half, 1, 1), 4)
            high = v.or_shifted(high, v.bit_fields(v.load_u8x16(p + 32), 4 * half, 1, 1), 4)
        return low, high
    # Q6_K: 64 bytes hold blocks 0 and 1 in their low, 2 and 3 in their high nibbles; two bits more
    both = v.load_u8x64(p + 64 * half)
    first, second_pair = v.low_nibbles(both), v.high_nibbles(both)
    low, high = v.quarters_0246(first, second_pair), v.quarters_1357(first, second_pair)
    qh = p + 128 + 32 * half
    low = v.or_shifted(low, v.bit_fields(v.load_u8x16(qh), 0, 2, 3), 4)
    return low, v.or_shifted(high, v.bit_fields(v.load_u8x16(qh + 16), 0, 2, 3), 4)


@inline
def k_scales(scales, half):
    """Four 6-bit scales and four mins, as the bytes of two 32-bit integers (Q4_K and Q5_K)."""
    w0, w1, w2 = v.load_u32(scales), v.load_u32(scales + 4), v.load_u32(scales + 8)
    if half == 0:
        return w0 & 0x3F3F3F3F, w1 & 0x3F3F3F3F
    scale = w2 & 0x0F0F0F0F | w0 >> 2 & 0x30303030
    return scale, w2 >> 4 & 0x0F0F0F0F | w1 >> 2 & 0x30303030


@inline
def quad_scales(kind, row, row1, row2, row3, quad, offsets):
    """(d_low, d_high, m_low, m_high) of a quad in each of four rows.

    row…row3  addresses of the rows
    offsets   v.quad_offsets of the rows, relative to the first, and of the blocks; not of K types
    """
    if kind == Q4_0 or kind == Q5_0 or kind == Q8_0:
        d = v.low_f16(v.gather_u32(row + quad * 4 * block_bytes(kind), offsets))
        zero = -8.0 if kind == Q4_0 else -16.0 if kind == Q5_0 else -128.0
        m = v.multiply(d, v.splat_f32x16(np.float32(zero)))
        return d, d, m, m
    elif kind == Q4_1 or kind == Q5_1:
        pairs = v.gather_u32(row + quad * 4 * block_bytes(kind), offsets)
        d, m = v.low_f16(pairs), v.high_f16(pairs)
        return d, d, m, m
    at, half = (quad >> 1) * k_bytes(kind), quad & 1
    p0, p1, p2, p3 = row + at, row1 + at, row2 + at, row3 + at
    if kind == Q4_K or kind == Q5_K:
        pairs = v.repeat_4(v.load_u32(p0), v.load_u32(p1), v.load_u32(p2), v.load_u32(p3))
        s0, n0 = k_scales(p0 + 4, half)
        s1, n1 = k_scales(p1 + 4, half)
        s2, n2 = k_scales(p2 + 4, half)
        s3, n3 = k_scales(p3 + 4, half)
        d = v.multiply(v.low_f16(pairs), v.bytes_by_row(s0, s1, s2, s3))
        minus_min = v.multiply(v.high_f16(pairs), v.splat_f32x16(np.float32(-1.0)))
        m = v.multiply(minus_min, v.bytes_by_row(n0, n1, n2, n3))
        return d, d, m, m
    d = v.low_f16(
        v.repeat_4(
            v.load_u16(p0 + 208), v.load_u16(p1 + 208), v.load_u16(p2 + 208), v.load_u16(p3 + 208)
        )
    )
    s = 192 + 8 * half
    low, high = v.byte_pairs_by_row(p0 + s, p1 + s, p2 + s, p3 + s)
    d_low, d_high = v.multiply(d, low), v.multiply(d, high)
    zero = v.splat_f32x16(np.float32(-32.0))
    return d_low, d_high, v.multiply(d_low, zero), v.multiply(d_high, zero)


@inline
def short_blocks(kind, n_cols):
    """Offsets of blocks 1-3 of a short last quad, and its number of blocks (0: not short)."""
    rest = n_cols % QUAD // BLOCK
    size = block_bytes(kind)
    return size * min(1, rest - 1), size * min(2, rest - 1), size * min(3, rest - 1), rest


@inline
def _dequantize(kind, row, n_cols, out):
    d_lows = v.on_stack(6 * 64)
    d_highs, m_lows, m_highs = d_lows + 64, d_lows + 128, d_lows + 192
    low_bytes, high_bytes = d_lows + 256, d_lows + 320
    size = block_bytes(kind)
    s1, s2, s3, rest = short_blocks(kind, n_cols)
    for quad in range((n_cols + QUAD - 1) // QUAD):
        o1, o2, o3, n_blocks = size, 2 * size, 3 * size, 4
        if (quad + 1) * QUAD > n_cols:
            o1, o2, o3, n_blocks = s1, s2, s3, rest
        low, high = quad_bytes(kind, row, quad, o1, o2, o3)
        offsets = v.quad_offsets(0, 0, 0, 0, 0, o1, o2, o3)
        d_low, d_high, m_low, m_high = quad_scales(kind, row, row, row, row, quad, offsets)
        v.store_u8x64(low_bytes, low)
        v.store_u8x64(high_bytes, high)
        v.store_f32x16(d_lows, d_low)
        v.store_f32x16(d_highs, d_high)
        v.store_f32x16(m_lows, m_low)
        v.store_f32x16(m_highs, m_high)
        for b in range(n_blocks):
            at, lane = quad * QUAD + b * BLOCK, 16 * b
            low_d, high_d = v.load_f32(d_lows + lane), v.load_f32(d_highs + lane)
            low_m, high_m = v.load_f32(m_lows + lane), v.load_f32(m_highs + lane)
            for j in range(16):
                q_low, q_high = v.load_u8(low_bytes + lane + j), v.load_u8(high_bytes + lane + j)
                out[at + j] = low_d * np.float32(q_low) + low_m
                out[at + 16 + j] = high_d * np.float32(q_high) + high_m


@routine
def dequantize_row_of(matrix, index, out):
    """Write row `index` of a matrix to out, (n_cols,) f32. For embedding rows, not for weights."""
    kind, n_cols = matrix.kind, matrix.n_cols
    row = matrix.address + index * matrix.row_bytes
    if kind == F32:
        for j in range(n_cols):
            out[j] = v.load_f32(row + 4 * j)
    elif kind == F16:
        for j in range(n_cols):
            out[j] = v.load_f16(row + 2 * j)
    elif kind == BF16:
        for j in range(n_cols):
            out[j] = v.load_bf16(row + 2 * j)
    elif kind == Q4_0:
        _dequantize(Q4_0, row, n_cols, out)
    elif kind == Q4_1:
        _dequantize(Q4_1, row, n_cols, out)
    elif kind == Q5_0:
        _dequantize(Q5_0, row, n_cols, out)
    elif kind == Q5_1:
        _dequantize(Q5_1, row, n_cols, out)
    elif kind == Q8_0:
        _dequantize(Q8_0, row, n_cols, out)
    elif kind == Q4_K:
        _dequantize(Q4_K, row, n_cols, out)
    elif kind == Q5_K:
        _dequantize(Q5_K, row, n_cols, out)
    elif kind == Q6_K:
        _dequantize(Q6_K, row, n_cols, out)
