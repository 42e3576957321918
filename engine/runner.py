"""A model ready to compute: weights, buffers and threads, around the compiled forward pass.

Makes a batch into a job (job.py) and runs it on the team. What is computed is in model.py, as an
object file when this runs (native.py).
"""

import itertools

import numpy as np
import numpy.typing as npt

from engine import native
from engine.aligned import aligned_zeros
from engine.config import ModelConfig, rope_frequencies
from engine.job import LAYOUT, PHASES, Batch, Shape, State, allocate, n_words, words_of
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
        group = config.n_heads // config.n_kv_heads
        n_copies = max(max_rows, n_threads)
        widest = max(config.dim, config.q_dim, config.hidden_dim)
        self._state = State(
            x=aligned_zeros((max_rows, config.dim), np.float32),
            normed=allocate(n_copies, config.dim),
            q=aligned_zeros((max_rows, config.q_dim), np.float32),
            k=aligned_zeros((max_rows, config.kv_dim), np.float32),
            v=aligned_zeros((max_rows, config.kv_dim), np.float32),
            attended=allocate(n_copies, config.q_dim),
            gate=aligned_zeros((max_rows, config.hidden_dim), np.float32),
            up=aligned_zeros((max_rows, config.hidden_dim), np.float32),
            hidden=allocate(n_copies, config.hidden_dim),
            last=allocate(max_outputs, config.dim),
            logits=aligned_zeros((max_outputs, config.vocab_size), np.float32),
            scratch=aligned_zeros((n_threads, scratch_bytes(widest)), np.uint8),
            attention=aligned_zeros(
                (n_threads, scratch_floats(BLOCK_ROWS * group, config.head_dim)), np.float32
            ),
            parts=aligned_zeros(
                (4 * n_threads, -(-max_context // CHUNK), part_floats(group, config.head_dim)),
                np.float32,
            ),
            ticks=aligned_zeros((n_threads, len(PHASES)), np.int64),
        )
        # batch and cache, which come first, are put in front before each pass
        fixed = words_of((shape, weights.views, self._state), LAYOUT[_FIRST:])
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
        """
        assert len(tokens) <= self.max_rows and len(outputs) <= self.max_outputs
        angles = positions[:, None].astype(np.float64) * self._frequencies
        batch = Batch(
            tokens,
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
        self._team.run(native.function("forward_pass"), self._job.ctypes.data)
        logits: npt.NDArray[np.float32] = self._state.logits[: len(outputs)]
        return logits

    @property
    def ticks(self) -> npt.NDArray[np.int64]:
        """(n_threads, len(PHASES)): clock ticks spent since the start; set to 0 at will."""
        ticks: npt.NDArray[np.int64] = self._state.ticks
        return ticks

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the buffers of a pass."""
        total = 0
        for part in self._state:
            total += sum(a.nbytes for a in part) if isinstance(part, tuple) else part.nbytes
        return total

    def close(self) -> None:
        """End the worker threads."""
        self._team.close()
