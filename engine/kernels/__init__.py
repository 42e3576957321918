"""Numba kernels, one small file per job; and the sizes that others must know of them."""

PAGE = 16
"""Positions in a page of the KV cache."""
CHUNK = 256
"""Positions whose scores attention computes at a time."""
BLOCK_ROWS = 8
"""Rows of a sequence that attention computes together."""
QUERIES = 4
"""Queries that attention computes together in registers."""
QUAD = 128
"""Weights of a row that matrix kernels take at a time: four blocks of 32."""
TILE_ROWS = 16
"""Rows that matmul unpacks at a time."""
KV_F16, KV_Q8 = 0, 1
"""How the cache keeps keys and values: half precision, or bytes with a scale per position."""


def padded_head(head_dim: int) -> int:
    """Dimensions of a value in the cache: whole vectors."""
    return -(-head_dim // 32) * 32


def head_bytes(kind: int, head_dim: int) -> int:
    """Bytes of the keys and values of one page, layer and key head (see attention.py)."""
    n = PAGE * (head_dim + padded_head(head_dim))
    return 2 * n if kind == KV_F16 else n + 2 * 4 * PAGE


def whole_groups(n_queries: int) -> int:
    """n_queries rounded up to whole groups of QUERIES."""
    return (n_queries + QUERIES - 1) // QUERIES * QUERIES


def scratch_floats(n_queries: int, head_dim: int) -> int:
    """float32 of scratch that a thread needs for attention of n_queries queries."""
    n = whole_groups(n_queries)
    padded = padded_head(head_dim)
    return n * padded + PAGE * padded + n * CHUNK + 2 * part_floats(n_queries, head_dim)


def part_floats(n_queries: int, head_dim: int) -> int:
    """float32 of a part: answers [query][dimension, padded], then all m, then all l."""
    return whole_groups(n_queries) * (padded_head(head_dim) + 2)


def scratch_bytes(n_cols: int) -> int:
    """Scratch that `project` needs per thread for matrices of at most n_cols columns."""
    n_quads = -(-n_cols // QUAD)
    # the tile, d and m of both halves, and the bytes of 16 rows of a quad before transposing
    return n_quads * TILE_ROWS * (QUAD + 4 * 4 * 4) + TILE_ROWS * QUAD
