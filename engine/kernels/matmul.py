"""Several vectors times a matrix: the kernel of prefill and of batched decoding.

Sixteen rows at a time are unpacked into scratch that stays in cache, with the rows interleaved in
groups of four columns, and then multiplied with every vector of the batch. One byte dot product
serves 16 rows × 4 columns of one vector; one conversion and two fma serve 16 rows of a block.
Nothing is repacked in memory: the weights stay mapped.

    tile    [quad][half][block 0…3][column / 4][row 0…15][4]   u8    64 bytes = 16 rows × 4 columns
    d, m    [block][row 0…15]                                  f32   w = d·q + m
            of Q6_K for the lower and the upper half of each block; otherwise they are the same

Blocks are summed in the order 0, 4, 8, … then 1, 5, 9, … like in matvec.py: the same bits.
"""

from engine import simd as v
from engine.jit import inline, routine
from engine.kernels import QUAD, TILE_ROWS
from engine.kernels import unpack as u
from engine.kernels.matvec import ADD, matvec
from engine.kernels.quantize import HIGH_SUM, LOW_SUM, SCALE, SUM

_QUAD_BYTES = TILE_ROWS * QUAD
_GROUP = 64  # bytes of a tile that one dot product takes


FEW = 12
"""Vectors for which matvec's way takes less time than to unpack and transpose a tile."""


@inline
def _unpack_quad(kind, matrix, first_row, quad, offsets, o1, o2, o3, tile, scales, raw):
    """One quad of 16 rows; raw is scratch."""
    n_quads = (matrix.n_cols + QUAD - 1) // QUAD
    row_bytes = matrix.row_bytes
    row = matrix.address + first_row * row_bytes
    for r in range(TILE_ROWS):
        low, high = u.quad_bytes(kind, row + r * row_bytes, quad, o1, o2, o3)
        v.store_u8x64(raw + 64 * r, low)
        v.store_u8x64(raw + 64 * (TILE_ROWS + r), high)
    v.transpose_16x16(raw, 64, tile + _QUAD_BYTES * quad)
    v.transpose_16x16(raw + 64 * TILE_ROWS, 64, tile + _QUAD_BYTES * quad + _QUAD_BYTES // 2)
    part = n_quads * 4 * TILE_ROWS * 4  # bytes of each of the four tables of scales
    for r in range(0, TILE_ROWS, 4):
        at = row + r * row_bytes
        d_low, d_high, m_low, m_high = u.quad_scales(
            kind, at, at + row_bytes, at + 2 * row_bytes, at + 3 * row_bytes, quad, offsets
        )
        to = scales + (4 * quad * TILE_ROWS + r) * 4
        v.store_quarters(to, d_low, 4 * TILE_ROWS)
        v.store_quarters(to + part, m_low, 4 * TILE_ROWS)
        if kind == u.Q6_K:
            v.store_quarters(to + 2 * part, d_high, 4 * TILE_ROWS)
            v.store_quarters(to + 3 * part, m_high, 4 * TILE_ROWS)


@inline
def _unpack_tile(kind, matrix, first_row, tile, scales, raw):
    size, row_bytes = u.block_bytes(kind), matrix.row_bytes
    r1, r2, r3 = row_bytes, 2 * row_bytes, 3 * row_bytes
    offsets = v.quad_offsets(0, r1, r2, r3, 0, size, 2 * size, 3 * size)
    n_quads = matrix.n_cols // QUAD
    for quad in range(n_quads):
        _unpack_quad(
            kind, matrix, first_row, quad, offsets, size, 2 * size, 3 * size, tile, scales, raw
        )
    s1, s2, s3, rest = u.short_blocks(kind, matrix.n_cols)
    if rest > 0:
        offsets = v.quad_offsets(0, r1, r2, r3, 0, s1, s2, s3)
        _unpack_quad(kind, matrix, first_row, n_quads, offsets, s1, s2, s3, tile, scales, raw)


@inline
def _store_tile(out, t, first_row, acc, mode):
    address = out[t, first_row:].ctypes.data
    if mode == ADD:
        acc = v.add(acc, v.load_f32x16(address))
    v.store_f32x16(address, acc)


@inline
def _dots(kind, w, x, dots):
    """Add four groups of four columns: half a block."""
    dots = u.dot(kind, dots, v.load_u8x64(w), v.load_4u8_x16(x))
    dots = u.dot(kind, dots, v.load_u8x64(w + _GROUP), v.load_4u8_x16(x + 4))
    dots = u.dot(kind, dots, v.load_u8x64(w + 2 * _GROUP), v.load_4u8_x16(x + 8))
    return u.dot(kind, dots, v.load_u8x64(w + 3 * _GROUP), v.load_4u8_x16(x + 12))


@inline
def _add_block(dots, d, m, factors, sums, acc):
    """Add a block, or half of one: `factors` is the address of its, `sums` which is its sum."""
    scale = v.splat_f32x16(v.load_f32(factors + 4 * SCALE))
    acc = v.fma(v.to_f32(dots), v.multiply(d, scale), acc)
    return v.fma(m, v.splat_f32x16(v.load_f32(factors + 4 * sums)), acc)


@inline
def _multiply_four(kind, tile, scales, n_quads, act, t, t1, t2, t3, out, first_row, mode):
    """Four vectors at once, so that a load of weights serves four dot products."""
    x0, x1 = act.q[t].ctypes.data, act.q[t1].ctypes.data
    x2, x3 = act.q[t2].ctypes.data, act.q[t3].ctypes.data
    f0, f1 = act.by_block[t].ctypes.data, act.by_block[t1].ctypes.data
    f2, f3 = act.by_block[t2].ctypes.data, act.by_block[t3].ctypes.data
    part = n_quads * 4 * TILE_ROWS * 4
    total0 = total1 = total2 = total3 = v.zero_f32x16()
    for block in range(4):
        acc0 = acc1 = acc2 = acc3 = v.zero_f32x16()
        for quad in range(n_quads):
            w = tile + _QUAD_BYTES * quad + 4 * _GROUP * block
            at, f = QUAD * quad + 16 * block, 16 * (n_quads * block + quad)
            s = scales + 64 * (4 * quad + block)
            dots0 = dots1 = dots2 = dots3 = v.zero_i32x16()
            dots0 = _dots(kind, w, x0 + at, dots0)
            dots1 = _dots(kind, w, x1 + at, dots1)
            dots2 = _dots(kind, w, x2 + at, dots2)
            dots3 = _dots(kind, w, x3 + at, dots3)
            d, m = v.load_f32x16(s), v.load_f32x16(s + part)
            if kind == u.Q6_K:  # the two halves of a block have scales of their own
                acc0 = _add_block(dots0, d, m, f0 + f, LOW_SUM, acc0)
                acc1 = _add_block(dots1, d, m, f1 + f, LOW_SUM, acc1)
                acc2 = _add_block(dots2, d, m, f2 + f, LOW_SUM, acc2)
                acc3 = _add_block(dots3, d, m, f3 + f, LOW_SUM, acc3)
                d, m = v.load_f32x16(s + 2 * part), v.load_f32x16(s + 3 * part)
                dots0 = dots1 = dots2 = dots3 = v.zero_i32x16()
            w, at = w + _QUAD_BYTES // 2, at + 64
            dots0 = _dots(kind, w, x0 + at, dots0)
            dots1 = _dots(kind, w, x1 + at, dots1)
            dots2 = _dots(kind, w, x2 + at, dots2)
            dots3 = _dots(kind, w, x3 + at, dots3)
            sums = HIGH_SUM if kind == u.Q6_K else SUM
            acc0 = _add_block(dots0, d, m, f0 + f, sums, acc0)
            acc1 = _add_block(dots1, d, m, f1 + f, sums, acc1)
            acc2 = _add_block(dots2, d, m, f2 + f, sums, acc2)
            acc3 = _add_block(dots3, d, m, f3 + f, sums, acc3)
        total0, total1 = v.add(total0, acc0), v.add(total1, acc1)
        total2, total3 = v.add(total2, acc2), v.add(total3, acc3)
    _store_tile(out, t, first_row, total0, mode)
    if t1 > t:
        _store_tile(out, t1, first_row, total1, mode)
    if t2 > t1:
        _store_tile(out, t2, first_row, total2, mode)
    if t3 > t2:
        _store_tile(out, t3, first_row, total3, mode)


@inline
def _multiply_all(kind, tile, scales, n_quads, act, n_tokens, out, first_row, mode):
    last = n_tokens - 1
    for t in range(0, n_tokens, 4):
        # a short group at the end repeats its last vector, and stores it once
        t1, t2, t3 = min(t + 1, last), min(t + 2, last), min(t + 3, last)
        _multiply_four(kind, tile, scales, n_quads, act, t, t1, t2, t3, out, first_row, mode)


@inline
def _unpack_any(matrix, first_row, tile, scales, raw):
    kind = matrix.kind
    if kind == u.Q4_0:
        _unpack_tile(u.Q4_0, matrix, first_row, tile, scales, raw)
    elif kind == u.Q4_1:
        _unpack_tile(u.Q4_1, matrix, first_row, tile, scales, raw)
    elif kind == u.Q5_0:
        _unpack_tile(u.Q5_0, matrix, first_row, tile, scales, raw)
    elif kind == u.Q5_1:
        _unpack_tile(u.Q5_1, matrix, first_row, tile, scales, raw)
    elif kind == u.Q8_0:
        _unpack_tile(u.Q8_0, matrix, first_row, tile, scales, raw)
    elif kind == u.Q4_K:
        _unpack_tile(u.Q4_K, matrix, first_row, tile, scales, raw)
    elif kind == u.Q5_K:
        _unpack_tile(u.Q5_K, matrix, first_row, tile, scales, raw)
    elif kind == u.Q6_K:
        _unpack_tile(u.Q6_K, matrix, first_row, tile, scales, raw)


@inline
def share(n, unit, thread, n_threads):
    """The range of 0…n that a thread works on, cut at multiples of `unit`."""
    n_units = (n + unit - 1) // unit
    first = n_units * thread // n_threads * unit
    last = n_units * (thread + 1) // n_threads * unit
    return min(first, n), min(last, n)


@routine
def project(thread, n_threads, matrix, act, n_tokens, out, mode, scratch):
    """out[t, r] (+)= W[r] · x[t] + bias[r] for t < n_tokens and this thread's share of the rows.

    Few vectors, rows past the last whole tile, and float types are left to matvec. Not split
    into smaller routines: numba optimises a routine again with each one that calls it.

    matrix   a MATRIX record, see job.py
    act      Activations, at least n_tokens rows
    out      (T, n_rows) f32
    mode     OVERWRITE out, or ADD to it (the residual)
    scratch  (n_threads, scratch_bytes(n_cols)) u8
    Returns the first row of the share, and the one past its last.
    """
    kind, start = matrix.kind, matrix.first_row
    first_row, last_row = share(matrix.n_rows - start, TILE_ROWS, thread, n_threads)
    first_row, last_row = first_row + start, last_row + start
    first_single = first_row
    if n_tokens > FEW and kind != u.F32 and kind != u.F16 and kind != u.BF16:
        first_single = last_row - (last_row - first_row) % TILE_ROWS
        n_quads = (matrix.n_cols + QUAD - 1) // QUAD
        tile = scratch[thread].ctypes.data
        scales = tile + n_quads * _QUAD_BYTES
        raw = scales + n_quads * 4 * 4 * TILE_ROWS * 4
        for r in range(first_row, first_single, TILE_ROWS):
            _unpack_any(matrix, r, tile, scales, raw)
            # once unpacked, most types are alike
            if kind == u.Q6_K:
                _multiply_all(u.Q6_K, tile, scales, n_quads, act, n_tokens, out, r, mode)
            elif kind == u.Q8_0:
                _multiply_all(u.Q8_0, tile, scales, n_quads, act, n_tokens, out, r, mode)
            else:
                _multiply_all(u.Q4_0, tile, scales, n_quads, act, n_tokens, out, r, mode)
    if first_single < last_row:
        matvec(matrix, act, n_tokens, out, first_single, last_row, mode)
    if matrix.bias != 0:
        for t in range(n_tokens):
            for r in range(first_row, last_row):
                out[t, r] += v.load_f32(matrix.bias + 4 * r)
    return first_row, last_row
