"""The tensor types of GGUF that the engine reads: their numbers and block layouts.

A row is a sequence of blocks; a block holds `block_size` elements in `block_bytes` bytes. Fields
in file order, d and m half precision (ggml's block_* structs,
https://github.com/ggml-org/llama.cpp/blob/b4600/ggml/src/ggml-common.h):

    Q4_0  d:2 qs:16                          w = d·(q − 8)
    Q4_1  d:2 m:2 qs:16                      w = d·q + m
    Q5_0  d:2 qh:4 qs:16                     w = d·(q − 16), fifth bits in qh
    Q5_1  d:2 m:2 qh:4 qs:16                 w = d·q + m
    Q8_0  d:2 qs:32                          w = d·q, q signed
    Q4_K  d:2 dmin:2 scales:12 qs:128        w = d·sc·q − dmin·mn, a 6-bit sc and mn for every 32
    Q5_K  d:2 dmin:2 scales:12 qh:32 qs:128  the same with 5-bit q
    Q6_K  ql:128 qh:64 scales:16 d:2         w = d·sc·(q − 32), a signed 8-bit sc for every 16

In blocks of 32, byte j of qs holds element j in its low and element j + 16 in its high nibble.
"""

from enum import IntEnum


class TensorType(IntEnum):
    """A tensor type by its number in the file."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    BF16 = 30

    @property
    def block_size(self) -> int:
        """Elements in a block."""
        return _BLOCKS[self][0]

    @property
    def block_bytes(self) -> int:
        """Bytes in a block."""
        return _BLOCKS[self][1]

    @property
    def is_float(self) -> bool:
        """Whether elements are stored one by one as floating-point numbers."""
        return self.block_size == 1


_BLOCKS: dict[TensorType, tuple[int, int]] = {
    TensorType.F32: (1, 4),
    TensorType.F16: (1, 2),
    TensorType.BF16: (1, 2),
    TensorType.Q4_0: (32, 18),
    TensorType.Q4_1: (32, 20),
    TensorType.Q5_0: (32, 22),
    TensorType.Q5_1: (32, 24),
    TensorType.Q8_0: (32, 34),
    TensorType.Q4_K: (256, 144),
    TensorType.Q5_K: (256, 176),
    TensorType.Q6_K: (256, 210),
}
