"""A model ready to compute: weights, buffers and threads, around the compiled forward pass.

Makes a batch into a job (job.py) and runs it on the team. What is computed is in model.py, as a
library when this runs (native.py).
"""

import itertools
import math

import numpy as np
import numpy.typing as npt

from engine import native
from engine.aligned import CACHE_LINE, aligned_zeros
from engine.config import ModelConfig, rope_frequencies
from engine.job import LAYOUT, PHASES, Batch, Make, Shape, State, allocate, n_words, words_of
from engine.kernels import BLOCK_ROWS, CHUNK, part_floats, scratch_bytes, scratch_floats
from engine.kv_cache import KVCache
from engine.threads import Team
from engine.weights import Weights

_FIRST = 3  # members of a job that change from pass to pass


def blocks_of(sequences: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """(n_blocks, 2) i32: runs of at most BLOCK_ROWS rows of the same sequence."""
    changes = np.flatnonzero(np.diff(sequences)) + 1
    bounds = [0, *changes.tolist(), len(sequences)]
    blocks = [
        (row, min(BLOCK_ROWS, last - row))
        for first, last in itertools.pairwise(bounds)
        for row in range(first, last, BLOCK_ROWS)
    ]
    return np.array(blocks, np.int32)


def allocate_state(
    config: ModelConfig,
    *,
    max_rows: int,
    max_outputs: int,
    max_context: int,
    n_threads: int,
    make: Make = aligned_zeros,
) -> State:
    """The buffers of passes; see Model for the arguments."""
    group = config.n_heads // config.n_kv_heads
    n_copies = max(max_rows, n_threads)
    widest = max(config.dim, config.q_dim, config.hidden_dim)
    return State(
        x=make((max_rows, config.dim), np.float32),
        normed=allocate(n_copies, config.dim, make),
        q=make((max_rows, config.q_dim), np.float32),
        k=make((max_rows, config.kv_dim), np.float32),
        v=make((max_rows, config.kv_dim), np.float32),
        attended=allocate(n_copies, config.q_dim, make),
        gate=make((max_rows, config.hidden_dim), np.float32),
        up=make((max_rows, config.hidden_dim), np.float32),
        hidden=allocate(n_copies, config.hidden_dim, make),
        last=allocate(max_outputs, config.dim, make),
        logits=make((max_outputs, config.vocab_size), np.float32),
        scratch=make((n_threads, scratch_bytes(widest)), np.uint8),
        attention=make(
            (n_threads, scratch_floats(BLOCK_ROWS * group, config.head_dim)), np.float32
        ),
        parts=make(
            (4 * n_threads, -(-max_context // CHUNK), part_floats(group, config.head_dim)),
            np.float32,
        ),
        ticks=make((n_threads, len(PHASES)), np.int64),
    )


def buffer_bytes(config: ModelConfig, **sizes: int) -> int:
    """Bytes of `allocate_state` with the same arguments, without allocating."""

    def size(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
        return math.prod(shape) * np.dtype(dtype).itemsize + CACHE_LINE

    def total(part: object) -> int:
        return part if isinstance(part, int) else sum(map(total, part))  # type: ignore[call-overload, no-any-return]

    return total(allocate_state(config, make=size, **sizes))


class Model:
    """Weights, buffers and the thread team: computes batches.

    Args:
        weights: in place, see weights.py.
        max_rows: the largest batch, in rows.
        max_outputs: the most rows of a batch whose logits are asked for.
        max_context: the most positions a sequence can have.
        n_threads: size of the worker team.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        *,
        max_rows: int,
        max_outputs: int,
        max_context: int,
        n_threads: int,
    ) -> None:
        self.config = config
        self.max_rows, self.max_outputs = max_rows, max_outputs
        self._weights = weights
        self._team = Team(n_threads)
        self._frequencies = rope_frequencies(config, weights.rope_factors)
        self._signs = np.tile([-1.0, 1.0], len(self._frequencies))
        shape = Shape(
            config.n_layers,
            config.n_heads,
            config.n_kv_heads,
            config.head_dim,
            config.dim,
            config.q_dim,
            config.kv_dim,
            config.hidden_dim,
            config.vocab_size,
            np.float32(config.norm_eps),
        )
        self._state = allocate_state(
            config,
            max_rows=max_rows,
            max_outputs=max_outputs,
            max_context=max_context,
            n_threads=n_threads,
        )
        # batch and cache, which come first, are put in front before each pass
        fixed = words_of((shape, weights.views, weights.stream, self._state), LAYOUT[_FIRST:])
        self._job = np.array([*[0] * n_words(LAYOUT[:_FIRST]), *fixed], np.int64)

    def forward(
        self,
        tokens: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int32],
        sequences: npt.NDArray[np.int32],
        page_tables: npt.NDArray[np.int32],
        outputs: npt.NDArray[np.int32],
        cache: KVCache,
    ) -> npt.NDArray[np.float32]:
        """Compute T rows; see Batch for the arguments.

        Returns:
            logits (n_outputs, vocab_size) f32, valid until the next call.

        Raises:
            ReadError: streamed weights could not be read; what was computed is not to be used.
        """
        assert len(tokens) <= self.max_rows and len(outputs) <= self.max_outputs
        rows = self._weights.before_pass(tokens)
        angles = positions[:, None].astype(np.float64) * self._frequencies
        batch = Batch(
            rows,
            positions,
            sequences,
            page_tables,
            blocks_of(sequences),
            np.cos(angles).repeat(2, axis=1).astype(np.float32),
            (np.sin(angles).repeat(2, axis=1) * self._signs).astype(np.float32),
            outputs,
        )
        words = words_of((batch, cache.pool, cache.kind), LAYOUT[:_FIRST])
        self._job[: len(words)] = words
        forward_pass = native.function("forward_pass")
        self._weights.announce(with_output=len(outputs) > 0)
        self._team.run(forward_pass, self._job.ctypes.data)
        self._weights.after_pass()
        logits: npt.NDArray[np.float32] = self._state.logits[: len(outputs)]
        return logits

    @property
    def ticks(self) -> npt.NDArray[np.int64]:
        """(n_threads, len(PHASES)): clock ticks spent since the start; set to 0 at will."""
        ticks: npt.NDArray[np.int64] = self._state.ticks
        return ticks

    def close(self) -> None:
        """End the worker threads."""
        self._team.close()
