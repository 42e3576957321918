"""The LLaMA forward pass, in the order in which the data flows.

`forward_pass` is one compiled function that every thread of the team runs: each does its share of
a step, and they meet at a barrier where the next step needs all of it. A batch is T rows, each a
token with its own sequence and position, so that prompt chunks and several clients' next tokens
go through the weights together.

Left to others: which rows make up a batch (generate.py), where weights and cache live
(weights.py, kv_cache.py), the arithmetic of a step (kernels/).
"""

import itertools
from collections import namedtuple

import numpy as np
import numpy.typing as npt

from engine import simd as v
from engine.aligned import aligned_zeros
from engine.config import ModelConfig, rope_frequencies
from engine.jit import inline, kernel
from engine.kernels import BLOCK_ROWS, CHUNK, quantize
from engine.kernels.attention import attend, cache_rows, part_floats, scratch_floats
from engine.kernels.matmul import project, scratch_bytes
from engine.kernels.matvec import ADD, OVERWRITE
from engine.kernels.norm_rope import rms_norm, silu_multiply
from engine.kernels.quantize import own_rows, quantize_row
from engine.kernels.unpack import dequantize_row_of
from engine.kv_cache import KVCache
from engine.threads import Team, barrier
from engine.weights import Weights

Shape = namedtuple(
    "Shape", "n_layers n_heads n_kv_heads head_dim dim q_dim kv_dim hidden_dim vocab_size norm_eps"
)
"""ModelConfig as kernels take it: integers, and norm_eps as f32."""

Batch = namedtuple("Batch", "tokens positions sequences page_tables blocks cos sin outputs")
"""T rows to compute; those of a sequence follow one another.

tokens       (T,) i32
positions    (T,) i32, of the row in its sequence
sequences    (T,) i32, the row of page_tables that is its sequence's
page_tables  (n_sequences, max_pages) i32
blocks       (n_blocks, 2) i32: first row and number of rows, at most BLOCK_ROWS of one sequence
cos, sin     (T, rope_dim) f32, see kernels/norm_rope.py
outputs      (n_outputs,) i32, rows whose logits are wanted
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
)
"""What the time of a pass is spent on; see docs/kernels.md."""
(EMBEDDING, NORM, QKV, CACHE, ATTENTION, ATTN_OUTPUT, GATE_UP, SILU, FFN_DOWN, LOGITS, BARRIER) = (
    range(len(PHASES))
)


@inline
def spent(ticks, phase, since):
    """Book the time since `since` on a phase; returns now."""
    now = v.clock()
    ticks[phase] += now - since
    return now


@inline
def meet(sync, n_threads, ticks, phase, since):
    """End a phase: book its time, and that of waiting for the others. Returns now."""
    since = spent(ticks, phase, since)
    barrier(sync, n_threads)
    return spent(ticks, BARRIER, since)


@kernel
def forward_pass(thread, n_threads, sync, shape, weights, batch, state, pool, kv_kind):
    """Compute the batch: keys and values into the pool, logits of `outputs` into state.logits.

    thread, n_threads  which of the team this is
    sync               address of the team's barrier
    pool               (n_pages, n_layers, n_kv_heads, head_bytes) u8, see kernels/attention.py
    kv_kind            KV_F16 or KV_Q8: how the pool keeps keys and values
    """
    n_rows = batch.tokens.shape[0]
    x, scratch = state.x, state.scratch
    ticks, now = state.ticks[thread], v.clock()
    # Rows are shared out to prepare the input of matrices. A single one every thread prepares for
    # itself, in a copy of its own: that takes less time than to meet.
    me, team, own = thread, n_threads, 0
    if n_rows == 1:
        me, team, own = 0, 1, thread
    normed = own_rows(state.normed, state.normed.x[own:], own)
    attended = own_rows(state.attended, state.attended.x, own)
    hidden = own_rows(state.hidden, state.hidden.x, own)

    # rows of the embedding become the residual stream
    for t in range(thread, n_rows, n_threads):
        dequantize_row_of(weights.token_embd[0], batch.tokens[t], x[t])
    now = meet(sync, n_threads, ticks, EMBEDDING, now)

    for i in range(shape.n_layers):
        # attention: norm, then queries, keys and values from the same quantized input
        for t in range(me, n_rows, team):
            rms_norm(x[t], weights.attn_norm[i], shape.norm_eps, normed.x[t])
            quantize_row(normed, t)
        now = meet(sync, team, ticks, NORM, now)
        project(thread, n_threads, weights.attn_q[i], normed, n_rows, state.q, OVERWRITE, scratch)
        project(thread, n_threads, weights.attn_k[i], normed, n_rows, state.k, OVERWRITE, scratch)
        project(thread, n_threads, weights.attn_v[i], normed, n_rows, state.v, OVERWRITE, scratch)
        now = meet(sync, n_threads, ticks, QKV, now)

        # keys, rotated by position, and values go to the cache; every head of every row looks at
        # its sequence up to and including itself
        if n_rows > 1:
            cache_rows(kv_kind, thread, n_threads, pool, shape, i, batch, state.k, state.v)
            now = meet(sync, n_threads, ticks, CACHE, now)
        attend(
            kv_kind,
            thread,
            n_threads,
            sync,
            shape,
            i,
            batch,
            state.q,
            state.k,
            state.v,
            pool,
            state.attention,
            state.parts,
            state.attended.x,
        )
        now = meet(sync, n_threads, ticks, ATTENTION, now)
        for t in range(me, n_rows, team):
            quantize_row(attended, t)
        now = meet(sync, team, ticks, NORM, now)
        project(thread, n_threads, weights.attn_output[i], attended, n_rows, x, ADD, scratch)
        now = meet(sync, n_threads, ticks, ATTN_OUTPUT, now)

        # feed-forward: down(silu(gate) · up); a thread finishes its own rows of gate and up
        for t in range(me, n_rows, team):
            rms_norm(x[t], weights.ffn_norm[i], shape.norm_eps, normed.x[t])
            quantize_row(normed, t)
        now = meet(sync, team, ticks, NORM, now)
        project(
            thread, n_threads, weights.ffn_gate[i], normed, n_rows, state.gate, OVERWRITE, scratch
        )
        first, last = project(
            thread, n_threads, weights.ffn_up[i], normed, n_rows, state.up, OVERWRITE, scratch
        )
        now = spent(ticks, GATE_UP, now)
        for t in range(n_rows):
            silu_multiply(
                state.gate[t, first:last], state.up[t, first:last], state.hidden.x[t, first:last]
            )
        now = meet(sync, n_threads, ticks, SILU, now)
        for t in range(me, n_rows, team):
            quantize_row(hidden, t)
        now = meet(sync, team, ticks, NORM, now)
        project(thread, n_threads, weights.ffn_down[i], hidden, n_rows, x, ADD, scratch)
        now = meet(sync, n_threads, ticks, FFN_DOWN, now)

    # logits, only of the rows that are asked for
    n_outputs = batch.outputs.shape[0]
    for o in range(thread, n_outputs, n_threads):
        row = batch.outputs[o]
        rms_norm(x[row], weights.output_norm, shape.norm_eps, state.last.x[o])
        quantize_row(state.last, o)
    now = meet(sync, n_threads, ticks, NORM, now)
    project(
        thread,
        n_threads,
        weights.output[0],
        state.last,
        n_outputs,
        state.logits,
        OVERWRITE,
        scratch,
    )
    now = meet(sync, n_threads, ticks, LOGITS, now)


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
        self._shape = Shape(
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
            normed=quantize.allocate(n_copies, config.dim),
            q=aligned_zeros((max_rows, config.q_dim), np.float32),
            k=aligned_zeros((max_rows, config.kv_dim), np.float32),
            v=aligned_zeros((max_rows, config.kv_dim), np.float32),
            attended=quantize.allocate(n_copies, config.q_dim),
            gate=aligned_zeros((max_rows, config.hidden_dim), np.float32),
            up=aligned_zeros((max_rows, config.hidden_dim), np.float32),
            hidden=quantize.allocate(n_copies, config.hidden_dim),
            last=quantize.allocate(max_outputs, config.dim),
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
        views, state = self._weights.views, self._state
        self._team.run(forward_pass, self._shape, views, batch, state, cache.pool, cache.kind)
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
