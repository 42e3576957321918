"""Numba kernels, one small file per job; and the sizes that others must know of them."""

PAGE = 16
"""Positions in a page of the KV cache."""
CHUNK = 256
"""Positions whose scores attention computes at a time."""
BLOCK_ROWS = 8
"""Rows of a sequence that attention computes together."""
KV_F16, KV_Q8 = 0, 1
"""How the cache keeps keys and values: half precision, or bytes with a scale per position."""


def padded_head(head_dim: int) -> int:
    """Dimensions of a value in the cache: whole vectors."""
    return -(-head_dim // 32) * 32


def head_bytes(kind: int, head_dim: int) -> int:
    """Bytes of the keys and values of one page, layer and key head (see attention.py)."""
    n = PAGE * (head_dim + padded_head(head_dim))
    return 2 * n if kind == KV_F16 else n + 2 * 4 * PAGE
