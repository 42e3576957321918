"""The element-wise steps between the matrices: rms_norm, rope, silu."""

import numpy as np

from engine import simd as v
from engine.jit import inline


@inline
def rms_norm(x, weight, eps, out):
    """out = x / sqrt(mean(x²) + eps) · weight, all (n,) f32 (Zhang & Sennrich 2019, eq. 4)."""
    n = x.shape[0]
    total = np.float32(0.0)
    for lane in range(0, n - n % 8, 8):
        chunk = np.float32(0.0)
        for j in range(lane, lane + 8):
            chunk += x[j] * x[j]
        total += chunk
    for j in range(n - n % 8, n):
        total += x[j] * x[j]
    scale = np.float32(1.0) / np.sqrt(total / np.float32(n) + eps)
    for j in range(n):
        out[j] = x[j] * scale * weight[j]


@inline
def rope(x, cos, sin):
    """Rotate the pairs (x[2i], x[2i+1]) of one head in place (Su et al. 2021, eq. 34).

    GGUF `llama` files have the rows of q and k permuted so that pairs are neighbours.

    x         (head_dim,) f32; dimensions past 2·len(cos) stay as they are
    cos, sin  (rope_dim // 2,) f32, of this position
    """
    for i in range(cos.shape[0]):
        a, b = x[2 * i], x[2 * i + 1]
        x[2 * i] = a * cos[i] - b * sin[i]
        x[2 * i + 1] = a * sin[i] + b * cos[i]


@inline
def store_f16_row(x, out):
    """Copy a row of f32 into a row of half precision, kept as u16."""
    address = out.ctypes.data
    for j in range(x.shape[0]):
        v.store_f16(address + 2 * j, x[j])


@inline
def silu_multiply(gate, up, out):
    """out = gate · sigmoid(gate) · up, all (n,) f32 (Shazeer 2020, SwiGLU)."""
    n = gate.shape[0]
    gate_address, up_address, out_address = gate.ctypes.data, up.ctypes.data, out.ctypes.data
    one, minus_one = v.splat_f32x8(np.float32(1.0)), v.splat_f32x8(np.float32(-1.0))
    for at in range(0, 4 * (n - n % 8), 32):
        g = v.load_f32x8(gate_address + at)
        sigmoid = v.divide(one, v.fma(v.exp(v.multiply(g, minus_one)), one, one))
        swish = v.multiply(g, sigmoid)
        v.store_f32x8(out_address + at, v.multiply(swish, v.load_f32x8(up_address + at)))
    for j in range(n - n % 8, n):
        out[j] = gate[j] * (np.float32(1.0) / (np.float32(1.0) + np.exp(-gate[j]))) * up[j]
