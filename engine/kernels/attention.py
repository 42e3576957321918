"""Attention of one query head over a paged cache.

    pool[page][layer][k, v][kv_head][slot 0…PAGE-1][head_dim]   f16 as u16

The positions of a sequence lie in the slots of the pages that its page table names, in order, so
the keys of one head and page are contiguous.
"""

import numpy as np

from engine import simd as v
from engine.jit import inline
from engine.kernels import PAGE


@inline
def _dot_f16(q, row, head_dim):
    """q · k for a q of f32 and a k of f16, both by address."""
    acc = v.zero_f32x8()
    whole = head_dim - head_dim % 8
    for j in range(0, whole, 8):
        acc = v.fma(v.load_f32x8(q + 4 * j), v.load_f16x8(row + 2 * j), acc)
    total = v.sum_lanes(acc)
    for j in range(whole, head_dim):
        total += v.load_f32(q + 4 * j) * v.load_f16(row + 2 * j)
    return total


@inline
def attend(q, pool, page_table, layer, kv_head, n_positions, scores, out):
    """out = softmax(q · Kᵀ / √head_dim) · V over the first n_positions of a sequence.

    q, out      (head_dim,) f32
    pool        see above
    page_table  (n_pages,) i32
    scores      (n_positions rounded up to 8,) f32 at least, scratch
    Source: Vaswani et al. 2017, eq. 1.
    """
    head_dim = q.shape[0]
    scale = np.float32(1.0) / np.sqrt(np.float32(head_dim))
    q_address = q.ctypes.data
    peak = np.float32(-np.inf)
    for start in range(0, n_positions, PAGE):
        keys = pool[page_table[start // PAGE], layer, 0, kv_head].ctypes.data
        for slot in range(min(PAGE, n_positions - start)):
            score = _dot_f16(q_address, keys + 2 * slot * head_dim, head_dim) * scale
            scores[start + slot] = score
            peak = max(peak, score)
    for p in range(n_positions, n_positions + -n_positions % 8):
        scores[p] = -np.inf  # up to a whole vector, where they weigh nothing
    scores_address = scores.ctypes.data
    sums = v.zero_f32x8()
    one, minus_peak = v.splat_f32x8(np.float32(1.0)), v.splat_f32x8(-peak)
    for p in range(0, n_positions, 8):
        weights = v.exp(v.fma(v.load_f32x8(scores_address + 4 * p), one, minus_peak))
        v.store_f32x8(scores_address + 4 * p, weights)
        sums = v.fma(weights, one, sums)
    total = v.sum_lanes(sums)
    inverse = np.float32(1.0) / total
    out_address = out.ctypes.data
    # 32 dimensions at a time stay in registers while the positions pass
    first = 0
    while first + 32 <= head_dim:
        acc0 = acc1 = acc2 = acc3 = v.zero_f32x8()
        for start in range(0, n_positions, PAGE):
            values = pool[page_table[start // PAGE], layer, 1, kv_head].ctypes.data + 2 * first
            for slot in range(min(PAGE, n_positions - start)):
                row = values + 2 * slot * head_dim
                weight8 = v.splat_f32x8(scores[start + slot])
                acc0 = v.fma(weight8, v.load_f16x8(row), acc0)
                acc1 = v.fma(weight8, v.load_f16x8(row + 16), acc1)
                acc2 = v.fma(weight8, v.load_f16x8(row + 32), acc2)
                acc3 = v.fma(weight8, v.load_f16x8(row + 48), acc3)
        inverse8 = v.splat_f32x8(inverse)
        v.store_f32x8(out_address + 4 * first, v.multiply(acc0, inverse8))
        v.store_f32x8(out_address + 4 * first + 32, v.multiply(acc1, inverse8))
        v.store_f32x8(out_address + 4 * first + 64, v.multiply(acc2, inverse8))
        v.store_f32x8(out_address + 4 * first + 96, v.multiply(acc3, inverse8))
        first += 32
    for j in range(first, head_dim):
        total_j = np.float32(0.0)
        for start in range(0, n_positions, PAGE):
            values = pool[page_table[start // PAGE], layer, 1, kv_head].ctypes.data + 2 * j
            for slot in range(min(PAGE, n_positions - start)):
                total_j += scores[start + slot] * v.load_f16(values + 2 * slot * head_dim)
        out[j] = total_j * inverse
