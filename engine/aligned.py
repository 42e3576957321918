"""Buffers that begin at a cache line: 512-bit loads that cross one cost two."""

from typing import Any

import numpy as np
import numpy.typing as npt

CACHE_LINE = 64


def aligned_zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """numpy.zeros whose first element is at a multiple of 64 bytes."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(n_bytes + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + n_bytes].view(dtype).reshape(shape)
