"""Activations as int8: what the matrices of quantized types are multiplied with.

Each group of 32 activations x becomes x ≈ scale·q with q = round(x / scale), |q| ≤ 127 and
scale = max|x| / 127 (ggml's Q8_0 without its rounding of the scale to half precision). The sums
of x over 16 are kept too: a weight block w = d·q_w + m needs Σ x for its m.
"""

from collections import namedtuple

import numpy as np

from engine.jit import inline

Activations = namedtuple("Activations", "x q scale sums")
"""A batch of T vectors of n activations, as float and as int8.

x      (T, n) f32
q      (T, n) i8
scale  (T, n // 32) f32
sums   (T, n // 16) f32, scale · Σ q over 16
"""


def allocate(n_rows, n):  # type: ignore[no-untyped-def]
    """Buffers for n_rows vectors of n activations."""
    return Activations(
        np.zeros((n_rows, n), np.float32),
        np.zeros((n_rows, n), np.int8),
        np.zeros((n_rows, n // 32), np.float32),
        np.zeros((n_rows, n // 16), np.float32),
    )


@inline
def quantize_row(act, t):
    """Fill q, scale and sums of row t from its x. A tail of fewer than 32 has no int8 form."""
    x, q = act.x[t], act.q[t]
    for block in range(act.scale.shape[1]):
        start = block * 32
        peak = np.float32(0.0)
        for j in range(start, start + 32):
            peak = max(peak, abs(x[j]))
        scale = peak / np.float32(127.0)
        inverse = np.float32(0.0)
        if scale > np.float32(0.0):
            inverse = np.float32(1.0) / scale
        for half in range(2):
            total = np.int32(0)
            for j in range(start + 16 * half, start + 16 * half + 16):
                rounded = np.int32(np.rint(x[j] * inverse))
                q[j] = rounded
                total += rounded
            act.sums[t, 2 * block + half] = scale * np.float32(total)
        act.scale[t, block] = scale
