"""Numba kernels, one small file per job."""

PAGE = 16
"""Positions in a page of the KV cache."""
