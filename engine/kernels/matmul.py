"""Several vectors times a matrix: the kernel of prefill and of batched decoding.

Sixteen rows at a time are unpacked into scratch that stays in cache, with the rows interleaved in
groups of four columns, and then multiplied with every vector of the batch. One byte dot product
serves 16 rows × 4 columns of one vector; one conversion and one fma serve 16 rows of a group.
Nothing is repacked in memory: the weights stay mapped.

    tile    [column / 4][row 0…15][4]   u8     64 bytes = one load = 16 rows × 4 columns
    d, m    [group][row 0…15]           f32    w = d·q + m; a group is 32 columns, 16 for Q6_K
"""

from engine import simd as v
from engine.jit import inline, routine
from engine.kernels import unpack as u
from engine.kernels.matvec import ADD, matvec

TILE_ROWS = 16


def scratch_bytes(n_cols: int) -> int:
    """Scratch that `matmul` needs per thread for matrices of at most n_cols columns."""
    n_groups = -(-n_cols // 16)
    return TILE_ROWS * n_cols + 2 * n_groups * TILE_ROWS * 4


@inline
def _unpack_tile(kind, group, matrix, first_row, tile, d, m):
    n_blocks = matrix.n_cols // u.BLOCK
    for r in range(TILE_ROWS):
        row = matrix.address + (first_row + r) * matrix.row_bytes
        for b in range(n_blocks):
            q, d_low, d_high, m_low, m_high = u.unpack(kind, row, b)
            v.store_interleaved(tile + (8 * b * TILE_ROWS + r) * 4, q, 4 * TILE_ROWS)
            if group == 32:
                v.store_f32(d + (b * TILE_ROWS + r) * 4, d_low)
                v.store_f32(m + (b * TILE_ROWS + r) * 4, m_low)
            else:
                v.store_f32(d + (2 * b * TILE_ROWS + r) * 4, d_low)
                v.store_f32(m + (2 * b * TILE_ROWS + r) * 4, m_low)
                v.store_f32(d + ((2 * b + 1) * TILE_ROWS + r) * 4, d_high)
                v.store_f32(m + ((2 * b + 1) * TILE_ROWS + r) * 4, m_high)


@inline
def _group_sum(group, sums, g):
    return sums[2 * g] + sums[2 * g + 1] if group == 32 else sums[g]


@inline
def _store_tile(out, t, first_row, acc, mode):
    address = out[t, first_row:].ctypes.data
    if mode == ADD:
        one = v.splat_f32x16(1.0)
        v.store_f32x16(address, v.fma(v.load_f32x16(address), one, acc))
    else:
        v.store_f32x16(address, acc)


@inline
def _multiply_four(group, tile, d, m, n_cols, act, t, out, first_row, mode):
    """Four vectors at once, so that a load of weights serves four dot products."""
    x0, x1 = act.q[t].ctypes.data, act.q[t + 1].ctypes.data
    x2, x3 = act.q[t + 2].ctypes.data, act.q[t + 3].ctypes.data
    acc0 = acc1 = acc2 = acc3 = v.zero_f32x16()
    for g in range(n_cols // group):
        dots0 = dots1 = dots2 = dots3 = v.zero_i32x16()
        for j in range(group // 4):
            w = v.load_u8x64(tile + 64 * (g * (group // 4) + j))
            at = g * group + 4 * j
            dots0 = v.dot(dots0, w, v.load_4u8_x16(x0 + at))
            dots1 = v.dot(dots1, w, v.load_4u8_x16(x1 + at))
            dots2 = v.dot(dots2, w, v.load_4u8_x16(x2 + at))
            dots3 = v.dot(dots3, w, v.load_4u8_x16(x3 + at))
        dg, mg = v.load_f32x16(d + 64 * g), v.load_f32x16(m + 64 * g)
        acc0 = _add_group(group, dots0, dg, mg, act, t, g, acc0)
        acc1 = _add_group(group, dots1, dg, mg, act, t + 1, g, acc1)
        acc2 = _add_group(group, dots2, dg, mg, act, t + 2, g, acc2)
        acc3 = _add_group(group, dots3, dg, mg, act, t + 3, g, acc3)
    _store_tile(out, t, first_row, acc0, mode)
    _store_tile(out, t + 1, first_row, acc1, mode)
    _store_tile(out, t + 2, first_row, acc2, mode)
    _store_tile(out, t + 3, first_row, acc3, mode)


@inline
def _add_group(group, dots, dg, mg, act, t, g, acc):
    scale = v.splat_f32x16(act.scale[t, g * group // 32])
    acc = v.fma(v.to_f32(dots), v.multiply(dg, scale), acc)
    return v.fma(mg, v.splat_f32x16(_group_sum(group, act.sums[t], g)), acc)


@inline
def _multiply_one(group, tile, d, m, n_cols, act, t, out, first_row, mode):
    x = act.q[t].ctypes.data
    acc = v.zero_f32x16()
    for g in range(n_cols // group):
        dots = v.zero_i32x16()
        for j in range(group // 4):
            w = v.load_u8x64(tile + 64 * (g * (group // 4) + j))
            dots = v.dot(dots, w, v.load_4u8_x16(x + g * group + 4 * j))
        dg, mg = v.load_f32x16(d + 64 * g), v.load_f32x16(m + 64 * g)
        acc = _add_group(group, dots, dg, mg, act, t, g, acc)
    _store_tile(out, t, first_row, acc, mode)


@inline
def _multiply_tile(group, tile, d, m, n_cols, act, n_tokens, out, first_row, mode):
    whole = n_tokens - n_tokens % 4
    for t in range(0, whole, 4):
        _multiply_four(group, tile, d, m, n_cols, act, t, out, first_row, mode)
    for t in range(whole, n_tokens):
        _multiply_one(group, tile, d, m, n_cols, act, t, out, first_row, mode)


@inline
def _unpack_any(matrix, first_row, tile, d, m):
    kind = matrix.kind
    if kind == u.Q4_0:
        _unpack_tile(u.Q4_0, 32, matrix, first_row, tile, d, m)
    elif kind == u.Q4_1:
        _unpack_tile(u.Q4_1, 32, matrix, first_row, tile, d, m)
    elif kind == u.Q5_0:
        _unpack_tile(u.Q5_0, 32, matrix, first_row, tile, d, m)
    elif kind == u.Q5_1:
        _unpack_tile(u.Q5_1, 32, matrix, first_row, tile, d, m)
    elif kind == u.Q8_0:
        _unpack_tile(u.Q8_0, 32, matrix, first_row, tile, d, m)
    elif kind == u.Q4_K:
        _unpack_tile(u.Q4_K, 32, matrix, first_row, tile, d, m)
    elif kind == u.Q5_K:
        _unpack_tile(u.Q5_K, 32, matrix, first_row, tile, d, m)
    elif kind == u.Q6_K:
        _unpack_tile(u.Q6_K, 16, matrix, first_row, tile, d, m)


@routine
def matmul(matrix, act, n_tokens, out, first_row, last_row, mode, scratch):
    """out[t, r] (+)= W[r] · x[t] for t < n_tokens and rows first_row ≤ r < last_row.

    first_row must be a multiple of TILE_ROWS from the matrix's start or the range short; rows
    past the last whole tile, and float types, are multiplied vector by vector.

    scratch  address of scratch_bytes(n_cols) bytes that belong to this thread
    """
    is_float = matrix.kind == u.F32 or matrix.kind == u.F16 or matrix.kind == u.BF16
    first_single = first_row
    if n_tokens > 1 and not is_float:
        n_cols = matrix.n_cols
        tile = scratch
        d = tile + TILE_ROWS * n_cols
        m = d + (n_cols // 16) * TILE_ROWS * 4
        first_single = last_row - (last_row - first_row) % TILE_ROWS
        for r in range(first_row, first_single, TILE_ROWS):
            _unpack_any(matrix, r, tile, d, m)
            if matrix.kind == u.Q6_K:
                _multiply_tile(16, tile, d, m, n_cols, act, n_tokens, out, r, mode)
            else:
                _multiply_tile(32, tile, d, m, n_cols, act, n_tokens, out, r, mode)
    if first_single < last_row:
        for t in range(n_tokens):
            matvec(matrix, act, t, out, first_single, last_row, mode)
