"""The element-wise steps between the matrices: rms_norm, rope, silu."""

import numpy as np

from engine import simd as v
from engine.jit import inline


@inline
def rms_norm(x, weight, eps, out):
    """out = x / sqrt(mean(x²) + eps) · weight, all (n,) f32 (Zhang & Sennrich 2019, eq. 4)."""
    n = x.shape[0]
    whole = n - n % 16
    x_address, weight_address, out_address = x.ctypes.data, weight.ctypes.data, out.ctypes.data
    squares = v.zero_f32x16()
    for at in range(0, 4 * whole, 64):
        part = v.load_f32x16(x_address + at)
        squares = v.fma(part, part, squares)
    total = v.sum_lanes(squares)
    for j in range(whole, n):
        total += x[j] * x[j]
    scale = np.float32(1.0) / np.sqrt(total / np.float32(n) + eps)
    scales = v.splat_f32x16(scale)
    for at in range(0, 4 * whole, 64):
        scaled = v.multiply(v.load_f32x16(x_address + at), scales)
        v.store_f32x16(out_address + at, v.multiply(scaled, v.load_f32x16(weight_address + at)))
    for j in range(whole, n):
        out[j] = x[j] * scale * weight[j]


@inline
def rope(x, cos, sin, out):
    """Rotate the pairs (x[2i], x[2i+1]) of one head (Su et al. 2021, eq. 34).

    GGUF `llama` files have the rows of q and k permuted so that pairs are neighbours.

    x         (head_dim,) f32; dimensions past len(cos) stay as they are
    cos, sin  (rope_dim,) f32, of this position, each angle twice
    out       address of (head_dim,) f32; may be that of x
    """
    n = cos.shape[0]
    whole = n - n % 16
    x_address, cos_address, sin_address = x.ctypes.data, cos.ctypes.data, sin.ctypes.data
    for at in range(0, 4 * whole, 64):
        part, c = v.load_f32x16(x_address + at), v.load_f32x16(cos_address + at)
        turned = v.multiply(v.swap_pairs(part), v.load_f32x16(sin_address + at))
        v.store_f32x16(out + at, v.fma(part, c, turned))
    for i in range(whole, n, 2):
        a, b = x[i], x[i + 1]
        v.store_f32(out + 4 * i, a * cos[i] + b * sin[i])
        v.store_f32(out + 4 * i + 4, a * sin[i + 1] + b * cos[i + 1])
    for i in range(n, x.shape[0]):
        v.store_f32(out + 4 * i, x[i])


@inline
def silu_multiply(gate, up, out):
    """out = gate · sigmoid(gate) · up, all (n,) f32 (Shazeer 2020, SwiGLU)."""
    n = gate.shape[0]
    gate_address, up_address, out_address = gate.ctypes.data, up.ctypes.data, out.ctypes.data
    one, minus_one = v.splat_f32x16(np.float32(1.0)), v.splat_f32x16(np.float32(-1.0))
    for at in range(0, 4 * (n - n % 16), 64):
        g = v.load_f32x16(gate_address + at)
        sigmoid = v.divide(one, v.fma(v.exp(v.multiply(g, minus_one)), one, one))
        swish = v.multiply(g, sigmoid)
        v.store_f32x16(out_address + at, v.multiply(swish, v.load_f32x16(up_address + at)))
    for j in range(n - n % 16, n):
        out[j] = gate[j] * (np.float32(1.0) / (np.float32(1.0) + np.exp(-gate[j]))) * up[j]
