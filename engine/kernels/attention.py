"""Attention over a paged cache: grouped by key head, in chunks of positions, with one softmax.

The cache of one page, layer and key head lies in one piece, keys with the positions side by side
and values with the dimensions side by side, so that neither needs a sum across a vector:

    keys    [dimension][slot 0…15]        values  [slot 0…15][dimension, padded to 32]
            16 scores at a time                   32 dimensions of the answer at a time

in half precision ("f16"), or as bytes with a scale per slot ("q8", half the memory): then the
keys are followed by their 16 scales, and so are the values.

The query heads that share a key head, of up to BLOCK_ROWS rows of one sequence, are computed
together: each key and value is read and converted once for all of them. Positions are taken in
chunks of CHUNK. A chunk gives, for each query, the largest score m, the sum l of e^(score − m) and
the values weighted by these; chunks are then merged in order (Milakov & Gimelshein 2018; Dao et
al. 2022). Chunks begin at fixed positions, so a row's result does not depend on who computed
them, or with which other rows.
"""

import numpy as np

from engine import simd as v
from engine.jit import inline, routine
from engine.kernels import (
    BLOCK_ROWS,
    CHUNK,
    KV_F16,
    KV_Q8,
    PAGE,
    QUERIES,
    padded_head,
    whole_groups,
)
from engine.kernels.barrier import barrier
from engine.kernels.norm_rope import rope
from engine.kernels.quantize import byte_scale

_F32 = 2  # a page converted into scratch
_LOWEST = np.float32(-1e30)  # below any score, and finite: differences to it stay numbers


# the same for kernels, which call compiled functions only
_whole, _padded = inline(whole_groups), inline(padded_head)


@inline
def _page_bytes(kind, head_dim):
    """Bytes of the keys of a page; what follows is its values."""
    return PAGE * head_dim * 2 if kind == KV_F16 else PAGE * head_dim + PAGE * 4


@inline
def _load16(kind, address, index):
    """Elements index … index + 15 as f32x16."""
    if kind == KV_F16:
        return v.load_f16x16(address + 2 * index)
    elif kind == KV_Q8:
        return v.load_i8x16(address + index)
    return v.load_f32x16(address + 4 * index)


# --- writing -----------------------------------------------------------------------------------


@inline
def cache_rows(kind, thread, n_threads, pool, shape, layer, batch, keys, values):
    """Put the keys, rotated, and the values of all rows into the cache.

    Rows of one page are left to one thread: the slots of a dimension share a cache line, for which
    threads would wait in turn.

    keys, values  (T, n_kv_heads · head_dim) f32; keys are rotated in place
    """
    n_rows = batch.tokens.shape[0]
    first = task = 0
    while first < n_rows:
        last = _end_of_page(batch, first)
        for head in range(shape.n_kv_heads):
            if task % n_threads == thread:
                for t in range(first, last):
                    cache_key_value(kind, pool, shape, layer, head, batch, t, keys, values)
            task += 1
        first = last


@inline
def _end_of_page(batch, row):
    """The first row after this one that goes to another page."""
    space = PAGE - batch.positions[row] % PAGE
    last = min(row + space, batch.tokens.shape[0])
    end = row + 1
    while end < last and batch.sequences[end] == batch.sequences[row]:
        end += 1
    return end


@inline
def cache_key_value(kind, pool, shape, layer, head, batch, t, keys, values):
    """Put row t's key of this head, rotated, and its value into the cache.

    keys, values  (T, n_kv_heads · head_dim) f32; the key is rotated in place
    """
    head_dim = shape.head_dim
    k = keys[t, head * head_dim : (head + 1) * head_dim]
    rope(k, batch.cos[t], batch.sin[t], k.ctypes.data)
    value = values[t, head * head_dim : (head + 1) * head_dim]
    position = batch.positions[t]
    page, slot = batch.page_tables[batch.sequences[t], position // PAGE], position % PAGE
    if kind == KV_F16:
        _store_key_value(KV_F16, pool, page, layer, head, slot, k, value)
    else:
        _store_key_value(KV_Q8, pool, page, layer, head, slot, k, value)


@inline
def _store_key_value(kind, pool, page, layer, head, slot, k, value):
    """Put the key and the value, (head_dim,) f32 each, of one position into the cache."""
    head_dim = k.shape[0]
    keys = pool[page, layer, head].ctypes.data
    values = keys + _page_bytes(kind, head_dim)
    padded = _padded(head_dim)
    if kind == KV_F16:
        for j in range(head_dim):
            v.store_f16(keys + 2 * (j * PAGE + slot), k[j])
        _store_value(kind, values, slot * padded, value, np.float32(1.0))
    else:
        key_scale, key_inverse = byte_scale(_peak(k))
        value_scale, value_inverse = byte_scale(_peak(value))
        for j in range(head_dim):
            v.store_i8(keys + j * PAGE + slot, np.int64(np.rint(k[j] * key_inverse)))
        _store_value(kind, values, slot * padded, value, value_inverse)
        v.store_f32(keys + PAGE * head_dim + 4 * slot, key_scale)
        v.store_f32(values + PAGE * padded + 4 * slot, value_scale)


@inline
def _store_value(kind, values, index, value, inverse):
    """A value as elements index … of `values`; bytes are multiplied with `inverse`."""
    n = value.shape[0]
    for j in range(0, n - n % 16, 16):
        part = v.load_f32x16(value.ctypes.data + 4 * j)
        if kind == KV_F16:
            v.store_f16x16(values + 2 * (index + j), part)
        else:
            part = v.rounded(v.multiply(part, v.splat_f32x16(inverse)))
            v.store_i8x16(values + index + j, v.to_i32(part))
    for j in range(n - n % 16, n):
        if kind == KV_F16:
            v.store_f16(values + 2 * (index + j), value[j])
        else:
            v.store_i8(values + index + j, np.int64(np.rint(value[j] * inverse)))


@inline
def _peak(x):
    """The largest |x|."""
    n = x.shape[0]
    peaks = v.zero_f32x16()
    for j in range(0, n - n % 16, 16):
        peaks = v.maximum(peaks, v.absolute(v.load_f32x16(x.ctypes.data + 4 * j)))
    peak = v.max_lanes(peaks)
    for j in range(n - n % 16, n):
        peak = max(peak, abs(x[j]))
    return peak


# --- a page ------------------------------------------------------------------------------------


@inline
def _convert(kind, source, n, target):
    """n elements, a multiple of 16, to float32."""
    for j in range(0, n, 16):
        v.store_f32x16(target + 4 * j, _load16(kind, source, j))


@inline
def _score_page(kind, keys, queries, head_dim, lane_scale, scores):
    """Scores of four queries for the 16 keys of a page; even and odd dimensions apart."""
    stride = 4 * _padded(head_dim)
    q0, q1, q2, q3 = queries, queries + stride, queries + 2 * stride, queries + 3 * stride
    even0 = even1 = even2 = even3 = odd0 = odd1 = odd2 = odd3 = v.zero_f32x16()
    paired = head_dim - head_dim % 2
    for d in range(0, paired, 2):
        k = _load16(kind, keys, PAGE * d)
        even0 = v.fma(v.splat_f32x16(v.load_f32(q0 + 4 * d)), k, even0)
        even1 = v.fma(v.splat_f32x16(v.load_f32(q1 + 4 * d)), k, even1)
        even2 = v.fma(v.splat_f32x16(v.load_f32(q2 + 4 * d)), k, even2)
        even3 = v.fma(v.splat_f32x16(v.load_f32(q3 + 4 * d)), k, even3)
        k = _load16(kind, keys, PAGE * d + PAGE)
        odd0 = v.fma(v.splat_f32x16(v.load_f32(q0 + 4 * d + 4)), k, odd0)
        odd1 = v.fma(v.splat_f32x16(v.load_f32(q1 + 4 * d + 4)), k, odd1)
        odd2 = v.fma(v.splat_f32x16(v.load_f32(q2 + 4 * d + 4)), k, odd2)
        odd3 = v.fma(v.splat_f32x16(v.load_f32(q3 + 4 * d + 4)), k, odd3)
    if paired < head_dim:
        k = _load16(kind, keys, PAGE * paired)
        even0 = v.fma(v.splat_f32x16(v.load_f32(q0 + 4 * paired)), k, even0)
        even1 = v.fma(v.splat_f32x16(v.load_f32(q1 + 4 * paired)), k, even1)
        even2 = v.fma(v.splat_f32x16(v.load_f32(q2 + 4 * paired)), k, even2)
        even3 = v.fma(v.splat_f32x16(v.load_f32(q3 + 4 * paired)), k, even3)
    v.store_f32x16(scores, v.multiply(v.add(even0, odd0), lane_scale))
    v.store_f32x16(scores + 4 * CHUNK, v.multiply(v.add(even1, odd1), lane_scale))
    v.store_f32x16(scores + 8 * CHUNK, v.multiply(v.add(even2, odd2), lane_scale))
    v.store_f32x16(scores + 12 * CHUNK, v.multiply(v.add(even3, odd3), lane_scale))


@inline
def _add_values(kind, values, weights, padded, out):
    """Add the 16 values of a page, weighted, to the answers of four queries."""
    for d in range(0, padded, 32):
        o0 = out + 4 * d
        o1, o2, o3 = o0 + 4 * padded, o0 + 8 * padded, o0 + 12 * padded
        low0, high0 = v.load_f32x16(o0), v.load_f32x16(o0 + 64)
        low1, high1 = v.load_f32x16(o1), v.load_f32x16(o1 + 64)
        low2, high2 = v.load_f32x16(o2), v.load_f32x16(o2 + 64)
        low3, high3 = v.load_f32x16(o3), v.load_f32x16(o3 + 64)
        for slot in range(PAGE):
            low = _load16(kind, values, slot * padded + d)
            high = _load16(kind, values, slot * padded + d + 16)
            w = v.splat_f32x16(v.load_f32(weights + 4 * slot))
            low0, high0 = v.fma(w, low, low0), v.fma(w, high, high0)
            w = v.splat_f32x16(v.load_f32(weights + 4 * (CHUNK + slot)))
            low1, high1 = v.fma(w, low, low1), v.fma(w, high, high1)
            w = v.splat_f32x16(v.load_f32(weights + 4 * (2 * CHUNK + slot)))
            low2, high2 = v.fma(w, low, low2), v.fma(w, high, high2)
            w = v.splat_f32x16(v.load_f32(weights + 4 * (3 * CHUNK + slot)))
            low3, high3 = v.fma(w, low, low3), v.fma(w, high, high3)
        v.store_f32x16(o0, low0)
        v.store_f32x16(o0 + 64, high0)
        v.store_f32x16(o1, low1)
        v.store_f32x16(o1 + 64, high1)
        v.store_f32x16(o2, low2)
        v.store_f32x16(o2 + 64, high2)
        v.store_f32x16(o3, low3)
        v.store_f32x16(o3 + 64, high3)


# --- a chunk -----------------------------------------------------------------------------------


@inline
def _softmax(scores, start, n_positions):
    """Scores of a chunk to e^(score − m), those from n_positions on to 0; returns m and the sum."""
    n = min(CHUNK, max(0, n_positions - start))
    n_vectors = (n + 15) // 16
    lowest = v.splat_f32x16(_LOWEST)
    peaks = lowest
    for i in range(n_vectors):
        at = scores + 64 * i
        s = v.keep_first(v.load_f32x16(at), n - 16 * i, lowest)
        v.store_f32x16(at, s)
        peaks = v.maximum(peaks, s)
    peak = v.max_lanes(peaks)
    one, minus_peak = v.splat_f32x16(np.float32(1.0)), v.splat_f32x16(-peak)
    sums = v.zero_f32x16()
    for i in range(n_vectors):
        at = scores + 64 * i
        weights = v.exp(v.fma(v.load_f32x16(at), one, minus_peak))
        v.store_f32x16(at, weights)
        sums = v.add(sums, weights)
    for i in range(n_vectors, CHUNK // 16):
        v.store_f32x16(scores + 64 * i, v.zero_f32x16())
    return peak, v.sum_lanes(sums)


@inline
def _chunk(kind, pool, table, layer, head, head_dim, start, position, group, n_queries, work, part):
    """The part of one chunk, for all queries of a task.

    position   of the first row; query i belongs to row i // group
    work       address of queries, one page and scores, one after the other
    part       address of the result, see part_floats
    """
    padded = _padded(head_dim)
    n_whole = _whole(n_queries)
    queries, page_f32 = work, work + 4 * n_whole * padded
    scores = page_f32 + 4 * PAGE * padded
    deepest = position + (n_queries - 1) // group + 1  # what the last row may look at
    n_pages = (min(CHUNK, deepest - start) + PAGE - 1) // PAGE
    scale = np.float32(1.0) / np.sqrt(np.float32(head_dim))
    key_bytes = _page_bytes(kind, head_dim)
    for p in range(n_pages):
        keys = pool[table[start // PAGE + p], layer, head].ctypes.data
        lane_scale = v.splat_f32x16(scale)
        if kind == KV_Q8:
            lane_scale = v.multiply(lane_scale, v.load_f32x16(keys + PAGE * head_dim))
        if n_queries > QUERIES:
            _convert(kind, keys, PAGE * head_dim, page_f32)
        for i in range(0, n_queries, QUERIES):
            q, s = queries + 4 * i * padded, scores + 4 * (i * CHUNK + PAGE * p)
            if n_queries > QUERIES:
                _score_page(_F32, page_f32, q, head_dim, lane_scale, s)
            else:
                _score_page(kind, keys, q, head_dim, lane_scale, s)
    peaks = part + 4 * n_whole * padded
    for i in range(n_whole):
        # the spare queries at the end are copies of the last: what they give is not read
        row = min(i, n_queries - 1) // group
        peak, total = _softmax(scores + 4 * i * CHUNK, start, position + row + 1)
        v.store_f32(peaks + 4 * i, peak)
        v.store_f32(peaks + 4 * (n_whole + i), total)
    for j in range(0, n_whole * padded, 16):
        v.store_f32x16(part + 4 * j, v.zero_f32x16())
    for p in range(n_pages):
        values = pool[table[start // PAGE + p], layer, head].ctypes.data + key_bytes
        if kind == KV_Q8:
            value_scale = v.load_f32x16(values + PAGE * padded)
            for i in range(n_whole):
                w = scores + 4 * (i * CHUNK + PAGE * p)
                v.store_f32x16(w, v.multiply(v.load_f32x16(w), value_scale))
        if n_queries > QUERIES:
            _convert(kind, values, PAGE * padded, page_f32)
        for i in range(0, n_queries, QUERIES):
            w, answers = scores + 4 * (i * CHUNK + PAGE * p), part + 4 * i * padded
            if n_queries > QUERIES:
                _add_values(_F32, page_f32, w, padded, answers)
            else:
                _add_values(kind, values, w, padded, answers)


@inline
def _merge(part, total, n_queries, head_dim):
    """Add a part to what earlier chunks gave, both relative to the larger of their peaks."""
    padded = _padded(head_dim)
    n_whole = _whole(n_queries)
    stats = 4 * n_whole * padded
    for i in range(n_queries):
        old, new = v.load_f32(total + stats + 4 * i), v.load_f32(part + stats + 4 * i)
        peak = max(old, new)
        keep, take = v.splat_f32x16(old - peak), v.splat_f32x16(new - peak)
        keep, take = v.exp(keep), v.exp(take)
        for j in range(4 * i * padded, 4 * (i + 1) * padded, 64):
            kept = v.multiply(v.load_f32x16(total + j), keep)
            v.store_f32x16(total + j, v.fma(v.load_f32x16(part + j), take, kept))
        old_sum = v.load_f32(total + stats + 4 * (n_whole + i))
        new_sum = v.load_f32(part + stats + 4 * (n_whole + i))
        kept = v.multiply(v.splat_f32x16(old_sum), keep)
        merged = v.fma(v.splat_f32x16(new_sum), take, kept)
        v.store_f32(total + stats + 4 * i, peak)
        v.store_f32(total + stats + 4 * (n_whole + i), v.max_lanes(merged))


@inline
def _clear(total, n_queries, head_dim):
    """A part of no positions."""
    padded = _padded(head_dim)
    n_whole = _whole(n_queries)
    for j in range(0, n_whole * padded, 16):
        v.store_f32x16(total + 4 * j, v.zero_f32x16())
    for i in range(n_whole):
        v.store_f32(total + 4 * (n_whole * padded + i), _LOWEST)
        v.store_f32(total + 4 * (n_whole * padded + n_whole + i), np.float32(0.0))


@inline
def _finish(total, row, head, group, n_queries, head_dim, out):
    """Divide by the sums and hand over to `out`, (T, n_heads · head_dim) f32."""
    padded = _padded(head_dim)
    n_whole = _whole(n_queries)
    for i in range(n_queries):
        inverse = np.float32(1.0) / v.load_f32(total + 4 * (n_whole * padded + n_whole + i))
        first = (head * group + i % group) * head_dim
        for j in range(head_dim):
            answer = v.load_f32(total + 4 * (i * padded + j))
            out[row + i // group, first + j] = answer * inverse


@inline
def _gather_queries(batch, q, row, head, group, n_queries, head_dim, queries):
    """The queries of a task, rotated, the last repeated up to a multiple of four."""
    n_whole = _whole(n_queries)
    for i in range(n_whole):
        n = min(i, n_queries - 1)
        t, first = row + n // group, (head * group + n % group) * head_dim
        query = q[t, first : first + head_dim]
        rope(query, batch.cos[t], batch.sin[t], queries + 4 * i * _padded(head_dim))


# --- all rows ----------------------------------------------------------------------------------


@routine
def _attend(
    kind, thread, n_threads, sync, shape, layer, batch, q, k, values, pool, scratch, parts, out
):  # fmt: skip
    head_dim, n_kv_heads = shape.head_dim, shape.n_kv_heads
    group = shape.n_heads // n_kv_heads  # query heads that share a key head
    padded = _padded(head_dim)
    n_rows = batch.tokens.shape[0]
    work = scratch[thread].ctypes.data
    if n_rows * n_kv_heads > parts.shape[0] or n_rows > BLOCK_ROWS:
        # enough tasks for all threads: rows of a sequence together, one chunk after another
        n_tasks = batch.blocks.shape[0] * n_kv_heads
        for task in range(thread, n_tasks, n_threads):
            block, head = task // n_kv_heads, task % n_kv_heads
            row, n_queries = batch.blocks[block, 0], batch.blocks[block, 1] * group
            n_whole = _whole(n_queries)
            part = work + 4 * (n_whole * padded + PAGE * padded + n_whole * CHUNK)
            total = part + 4 * n_whole * (padded + 2)
            table, position = batch.page_tables[batch.sequences[row]], batch.positions[row]
            _gather_queries(batch, q, row, head, group, n_queries, head_dim, work)
            _clear(total, n_queries, head_dim)
            for start in range(0, position + batch.blocks[block, 1], CHUNK):
                _chunk(
                    kind, pool, table, layer, head, head_dim, start, position, group, n_queries,
                    work, part,
                )  # fmt: skip
                _merge(part, total, n_queries, head_dim)
            _finish(total, row, head, group, n_queries, head_dim, out)
        return
    # few rows: threads share out their chunks, and merge when all are there
    n_chunks = 0
    for row in range(n_rows):
        n_chunks = max(n_chunks, batch.positions[row] // CHUNK + 1)
    n_whole = _whole(group)
    total = work + 4 * (n_whole * padded + PAGE * padded + n_whole * CHUNK)
    for task in range(thread, n_rows * n_kv_heads * n_chunks, n_threads):
        number, chunk = task // n_chunks, task % n_chunks
        row, head = number // n_kv_heads, number % n_kv_heads
        table, position = batch.page_tables[batch.sequences[row]], batch.positions[row]
        if chunk * CHUNK <= position:
            if n_rows == 1 and chunk == n_chunks - 1:
                cache_key_value(kind, pool, shape, layer, head, batch, row, k, values)
            _gather_queries(batch, q, row, head, group, group, head_dim, work)
            part = total if n_chunks == 1 else parts[number, chunk].ctypes.data
            _chunk(
                kind, pool, table, layer, head, head_dim, chunk * CHUNK, position, group, group,
                work, part,
            )  # fmt: skip
            if n_chunks == 1:
                _finish(total, row, head, group, group, head_dim, out)
    if n_chunks == 1:
        return
    barrier(sync, n_threads)
    for number in range(thread, n_rows * n_kv_heads, n_threads):
        row, head = number // n_kv_heads, number % n_kv_heads
        _clear(total, group, head_dim)
        for chunk in range(batch.positions[row] // CHUNK + 1):
            _merge(parts[number, chunk].ctypes.data, total, group, head_dim)
        _finish(total, row, head, group, group, head_dim, out)


@inline
def attend(
    kind, thread, n_threads, sync, shape, layer, batch, q, k, values, pool, scratch, parts, out
):  # fmt: skip
    """out = softmax(q · Kᵀ / √head_dim) · V, each row over its sequence up to itself.

    kind       KV_F16 or KV_Q8
    batch      see job.py; `blocks` are rows of one sequence that are computed together
    q, out     (T, n_heads · head_dim) f32; q not yet rotated
    k, values  (T, n_kv_heads · head_dim) f32: of a single row, they are put into the cache here,
               by the thread that needs them there; of several they are already
    scratch    (n_threads, scratch_floats(BLOCK_ROWS · group, head_dim)) f32
    parts      (n_tasks, n_chunks, part_floats(group, head_dim)) f32, for batches of few rows
    Source: Vaswani et al. 2017, eq. 1.
    """
    if kind == KV_F16:
        _attend(
            KV_F16, thread, n_threads, sync, shape, layer, batch, q, k, values, pool, scratch,
            parts, out,
        )  # fmt: skip
    else:
        _attend(
            KV_Q8, thread, n_threads, sync, shape, layer, batch, q, k, values, pool, scratch,
            parts, out,
        )  # fmt: skip
