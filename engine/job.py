"""What a pass of the model is given, and how it lies in memory: no numba here.

The process that serves has the compiled forward pass as a library and calls it with one
address, that of a job: 8-byte words which say where the arrays are and how large. LAYOUT describes
a job once, for the side that writes it (`words_of`) and the side that reads it
(kernels/reading.py, numba). Arrays are C-contiguous, so address and dimensions say it all.
"""

from collections import namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.aligned import aligned_zeros

MATRIX = np.dtype(
    [
        ("address", np.int64),  # of row 0, whether or not it is there
        ("kind", np.int64),  # a TensorType
        ("first_row", np.int64),  # rows that are there: first_row ≤ r < n_rows
        ("n_rows", np.int64),
        ("n_cols", np.int64),
        ("row_bytes", np.int64),
        ("bias", np.int64),  # address of (n_rows,) f32, or 0
    ]
)

WeightViews = namedtuple(
    "WeightViews",
    "token_embd attn_norm attn_q attn_k attn_v attn_output "
    "ffn_norm ffn_gate ffn_up ffn_down output_norm output",
)
"""The weights, by GGUF's names.

token_embd            (1,) MATRIX
output                (n_parts,) MATRIX, ranges of its rows
attn_q … ffn_down     (n_layers,) MATRIX
attn_norm, ffn_norm   (n_layers, dim) f32
output_norm           (dim,) f32
"""

Stream = namedtuple("Stream", "steps output ready done")
"""Which weights are read while passes run, and the pipes to their readers (stream.py).

steps    (n_layers, 4) u8: whether the weights of a step are streamed; steps as in residency.py
output   (n_parts,) u8: whether a part of the output matrix is
ready    (n_threads,) i64, file descriptors: a thread takes a byte for each streamed unit
done     (1,) i64, file descriptor: a thread writes its number when it needs a unit no more
"""

Shape = namedtuple(
    "Shape", "n_layers n_heads n_kv_heads head_dim dim q_dim kv_dim hidden_dim vocab_size norm_eps"
)
"""ModelConfig as kernels take it: integers, and norm_eps as f32."""

Batch = namedtuple("Batch", "tokens positions sequences page_tables blocks cos sin outputs")
"""T rows to compute; those of a sequence follow one another.

tokens       (T,) i32, rows of weights.token_embd
positions    (T,) i32, of the row in its sequence
sequences    (T,) i32, the row of page_tables that is its sequence's
page_tables  (n_sequences, max_pages) i32
blocks       (n_blocks, 2) i32: first row and number of rows, at most BLOCK_ROWS of one sequence
cos, sin     (T, rope_dim) f32, see kernels/norm_rope.py
outputs      (n_outputs,) i32, rows whose logits are wanted
"""

Activations = namedtuple("Activations", "x q factors by_block")
"""A batch of T vectors of n activations, as float and as int8; n_quads = n / 128, rounded up.

x         (T, n) f32
q         (T, 128 · n_quads) i8, in the order of kernels/quantize.py
factors   (T, n_quads, 4, 4) f32, of each block: scale, scale · Σ q, and this sum over elements
          0-15 and 16-31 alone; as matvec takes them, a quad at a time
by_block  (T, 4, n_quads, 4) f32, the same with block 0 of all quads first, then block 1 …: as
          matmul takes them
"""

State = namedtuple(
    "State", "x normed q k v attended gate up hidden last logits scratch attention parts ticks"
)
"""Buffers of a pass, allocated once.

x                  (T, dim) f32, the residual stream
normed             Activations (T, dim); these and the next have a row for each thread at least
q, k, v            (T, q_dim), (T, kv_dim), (T, kv_dim) f32
attended           Activations (T, q_dim)
gate, up           (T, hidden_dim) f32
hidden             Activations (T, hidden_dim)
last               Activations (max_outputs, dim), the rows of `outputs`
logits             (max_outputs, vocab_size) f32
scratch            (n_threads, …) u8, for matmul
attention, parts   scratch of attention, see kernels/attention.py
ticks              (n_threads, len(PHASES)) i64, time spent, in clock ticks
"""

PHASES = (
    "embedding",
    "norm",
    "qkv",
    "cache",
    "attention",
    "attn_output",
    "gate_up",
    "silu",
    "ffn_down",
    "logits",
    "barrier",
    "disk",
)
"""What the time of a pass is spent on; see docs/kernels.md."""

Job = namedtuple("Job", "batch pool kv_kind shape weights stream state")
"""Arguments of forward_pass. What changes from pass to pass comes first."""


Make = Callable[[tuple[int, ...], npt.DTypeLike], Any]
"""Makes an array of a shape and a type; or only looks at what it would take."""


def allocate(n_rows: int, n: int, make: Make = aligned_zeros) -> Activations:
    """Buffers for n_rows vectors of n activations."""
    n_quads = -(-n // 128)
    return Activations(
        x=make((n_rows, n), np.float32),
        q=make((n_rows, 128 * n_quads), np.int8),
        factors=make((n_rows, n_quads, 4, 4), np.float32),
        by_block=make((n_rows, 4, n_quads, 4), np.float32),
    )


# --- layout --------------------------------------------------------------------------------------


class Array(NamedTuple):
    """An array of a job: a word for its address and one for each dimension."""

    dtype: np.dtype[Any]
    n_dims: int


class Number(NamedTuple):
    """A number of a job, in a word of its own."""

    dtype: np.dtype[Any]


def _floats(n_dims: int) -> Array:
    return Array(np.dtype(np.float32), n_dims)


def _integers(n_dims: int) -> Array:
    return Array(np.dtype(np.int32), n_dims)


_BYTES, _INTEGER = np.dtype(np.uint8), Number(np.dtype(np.int64))
_MATRICES = Array(MATRIX, 1)
_ACTIVATIONS = Activations(
    x=_floats(2), q=Array(np.dtype(np.int8), 2), factors=_floats(4), by_block=_floats(4)
)
LAYOUT = Job(
    batch=Batch(
        tokens=_integers(1),
        positions=_integers(1),
        sequences=_integers(1),
        page_tables=_integers(2),
        blocks=_integers(2),
        cos=_floats(2),
        sin=_floats(2),
        outputs=_integers(1),
    ),
    pool=Array(_BYTES, 4),
    kv_kind=_INTEGER,
    shape=Shape._make([*[_INTEGER] * (len(Shape._fields) - 1), Number(np.dtype(np.float32))]),
    weights=WeightViews(
        **{name: _MATRICES for name in WeightViews._fields if "norm" not in name},
        attn_norm=_floats(2),
        ffn_norm=_floats(2),
        output_norm=_floats(1),
    ),
    stream=Stream(
        steps=Array(_BYTES, 2),
        output=Array(_BYTES, 1),
        ready=Array(np.dtype(np.int64), 1),
        done=Array(np.dtype(np.int64), 1),
    ),
    state=State(
        x=_floats(2),
        normed=_ACTIVATIONS,
        q=_floats(2),
        k=_floats(2),
        v=_floats(2),
        attended=_ACTIVATIONS,
        gate=_floats(2),
        up=_floats(2),
        hidden=_ACTIVATIONS,
        last=_ACTIVATIONS,
        logits=_floats(2),
        scratch=Array(_BYTES, 2),
        attention=_floats(2),
        parts=_floats(3),
        ticks=Array(np.dtype(np.int64), 2),
    ),
)


def n_words(layout: Any) -> int:
    """Words that a part of a job takes."""
    if isinstance(layout, Array):
        return 1 + layout.n_dims
    return 1 if isinstance(layout, Number) else sum(n_words(part) for part in layout)


def words_of(value: Any, layout: Any) -> list[int]:
    """A part of a job as words. They hold addresses: the caller keeps the arrays alive."""
    if isinstance(layout, Array):
        assert value.dtype is layout.dtype and value.ndim == layout.n_dims, (value.dtype, layout)
        assert value.flags.c_contiguous
        return [value.ctypes.data, *value.shape]
    if isinstance(layout, Number):
        return [int.from_bytes(layout.dtype.type(value).tobytes(), "little", signed=True)]
    return [w for own, part in zip(value, layout, strict=True) for w in words_of(own, part)]
