"""From a block of any quantized type to bytes and scales: the one place that knows the layouts.

Whatever the type, 32 consecutive weights of a row become unsigned bytes q with
w = d·q + m, where elements 0-15 and 16-31 may have scales of their own (only Q6_K's differ).
Layouts: engine/formats.py.
"""

import numpy as np

from engine import simd as v
from engine.formats import TensorType
from engine.jit import inline, routine

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
def k_scale_min(scales, j):
    """The j-th (0-7) 6-bit scale and min of the 12 bytes that Q4_K and Q5_K pack them into."""
    if j < 4:
        return v.load_u8(scales + j) & 63, v.load_u8(scales + j + 4) & 63
    both = v.load_u8(scales + j + 4)
    scale = (both & 15) | ((v.load_u8(scales + j - 4) >> 6) << 4)
    minimum = (both >> 4) | ((v.load_u8(scales + j) >> 6) << 4)
    return scale, minimum


@inline
def unpack(kind, row, block):
    """Weights 32·block … 32·block + 31 of the row at address `row`.

    `kind` is a TensorType as a constant, so that only its branch is compiled.
    Returns (q u8x32, d_low, d_high, m_low, m_high): w = d·q + m.
    """
    if kind == Q4_0:
        p = row + block * Q4_0_BYTES
        d = v.load_f16(p)
        m = np.float32(-8.0) * d
        return v.nibbles(v.load_u8x16(p + 2)), d, d, m, m
    elif kind == Q4_1:
        p = row + block * Q4_1_BYTES
        d = v.load_f16(p)
        m = v.load_f16(p + 2)
        return v.nibbles(v.load_u8x16(p + 4)), d, d, m, m
    elif kind == Q5_0:
        p = row + block * Q5_0_BYTES
        d = v.load_f16(p)
        m = np.float32(-16.0) * d
        fifth = v.spread_bits(v.load_u32(p + 2))
        return v.or_shifted(v.nibbles(v.load_u8x16(p + 6)), fifth, 4), d, d, m, m
    elif kind == Q5_1:
        p = row + block * Q5_1_BYTES
        d = v.load_f16(p)
        m = v.load_f16(p + 2)
        fifth = v.spread_bits(v.load_u32(p + 4))
        return v.or_shifted(v.nibbles(v.load_u8x16(p + 8)), fifth, 4), d, d, m, m
    elif kind == Q8_0:
        p = row + block * Q8_0_BYTES
        d = v.load_f16(p)
        m = np.float32(-128.0) * d
        return v.flip_sign(v.load_u8x32(p + 2)), d, d, m, m
    elif kind == Q4_K:
        p = row + (block >> 3) * Q4_K_BYTES
        j = block & 7
        scale, minimum = k_scale_min(p + 4, j)
        d = v.load_f16(p) * np.float32(scale)
        m = -v.load_f16(p + 2) * np.float32(minimum)
        qs = v.load_u8x32(p + 16 + 32 * (j >> 1))
        return v.bits_at(qs, 4 * (j & 1), 15), d, d, m, m
    elif kind == Q5_K:
        p = row + (block >> 3) * Q5_K_BYTES
        j = block & 7
        scale, minimum = k_scale_min(p + 4, j)
        d = v.load_f16(p) * np.float32(scale)
        m = -v.load_f16(p + 2) * np.float32(minimum)
        fifth = v.bits_at(v.load_u8x32(p + 16), j, 1)
        qs = v.load_u8x32(p + 48 + 32 * (j >> 1))
        return v.or_shifted(v.bits_at(qs, 4 * (j & 1), 15), fifth, 4), d, d, m, m
    else:  # Q6_K: two halves of 128; in each, 64 bytes ql and 32 bytes qh serve four blocks
        p = row + (block >> 3) * Q6_K_BYTES
        half, j = (block >> 2) & 1, block & 3
        low = v.bits_at(v.load_u8x32(p + 64 * half + 32 * (j & 1)), 4 * (j >> 1), 15)
        high = v.bits_at(v.load_u8x32(p + 128 + 32 * half), 2 * j, 3)
        d = v.load_f16(p + 208)
        scales = p + 192 + 8 * half + 2 * j
        d_low = d * np.float32(v.load_i8(scales))
        d_high = d * np.float32(v.load_i8(scales + 1))
        offset = np.float32(-32.0)
        return v.or_shifted(low, high, 4), d_low, d_high, offset * d_low, offset * d_high


@inline
def _dequantize(kind, row, n_cols, out):
    q_bytes = np.empty(BLOCK, np.uint8)
    for block in range(n_cols // BLOCK):
        q, d_low, d_high, m_low, m_high = unpack(kind, row, block)
        v.store_u8x32(q_bytes.ctypes.data, q)
        for j in range(16):
            out[block * BLOCK + j] = d_low * np.float32(q_bytes[j]) + m_low
            out[block * BLOCK + 16 + j] = d_high * np.float32(q_bytes[16 + j]) + m_high


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
