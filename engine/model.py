"""The LLaMA forward pass, in the order in which the data flows.

`forward_pass` is one compiled function that every thread of the team runs: each does its share of
a step, and they meet at a barrier where the next step needs all of it. A batch is T rows, each a
token with its own sequence and position, so that prompt chunks and several clients' next tokens
go through the weights together.

Left to others: which rows make up a batch (generate.py), where weights and cache live
(weights.py, kv_cache.py), the arithmetic of a step (kernels/).
"""

from collections import namedtuple

import numpy as np
import numpy.typing as npt

from engine import simd as v
from engine.config import ModelConfig, rope_frequencies
from engine.jit import inline, kernel, routine
from engine.kernels import quantize
from engine.kernels.attention import attend
from engine.kernels.matmul import TILE_ROWS, matmul, scratch_bytes
from engine.kernels.matvec import ADD, OVERWRITE
from engine.kernels.norm_rope import rms_norm, rope, silu_multiply, store_f16_row
from engine.kernels.quantize import quantize_row
from engine.kernels.unpack import dequantize_row_of
from engine.threads import Team, barrier
from engine.weights import Weights

Shape = namedtuple(
    "Shape", "n_layers n_heads n_kv_heads head_dim dim q_dim kv_dim hidden_dim vocab_size norm_eps"
)
"""ModelConfig as kernels take it: integers, and norm_eps as f32."""

Batch = namedtuple("Batch", "tokens positions page_tables cos sin outputs")
"""T rows to compute.

tokens       (T,) i32
positions    (T,) i32, of the row in its sequence
page_tables  (T, max_pages) i32, pages of the row's sequence
cos, sin     (T, rope_dim // 2) f32
outputs      (n_outputs,) i32, rows whose logits are wanted
"""

State = namedtuple("State", "x normed q k v attended gate up hidden last logits scores scratch")
"""Buffers of a pass, allocated once.

x                  (T, dim) f32, the residual stream
normed             Activations (T, dim)
q, k, v            (T, q_dim), (T, kv_dim), (T, kv_dim) f32
attended           Activations (T, q_dim)
gate, up           (T, hidden_dim) f32
hidden             Activations (T, hidden_dim)
last               Activations (max_outputs, dim), the rows of `outputs`
logits             (max_outputs, vocab_size) f32
scores             (n_threads, max_context) f32
scratch            (n_threads, …) u8, for matmul
"""


@inline
def share(n, unit, thread, n_threads):
    """The range of 0…n that a thread works on, cut at multiples of `unit`."""
    n_units = (n + unit - 1) // unit
    first = n_units * thread // n_threads * unit
    last = n_units * (thread + 1) // n_threads * unit
    return min(first, n), min(last, n)


@routine
def project(thread, n_threads, matrix, act, n_rows, out, mode, state):
    """out (+)= act · Wᵀ + bias: this thread's share of the matrix's rows, for n_rows vectors."""
    first, last = share(matrix.n_rows, TILE_ROWS, thread, n_threads)
    matmul(matrix, act, n_rows, out, first, last, mode, state.scratch[thread].ctypes.data)
    if matrix.bias != 0:
        for t in range(n_rows):
            for r in range(first, last):
                out[t, r] += v.load_f32(matrix.bias + 4 * r)
    return first, last


@kernel
def forward_pass(thread, n_threads, sync, shape, weights, batch, state, pool):
    """Compute the batch: keys and values into the pool, logits of `outputs` into state.logits.

    thread, n_threads  which of the team this is
    sync               address of the team's barrier
    pool               (n_pages, n_layers, 2, n_kv_heads, PAGE, head_dim) f16 as u16
    """
    n_rows = batch.tokens.shape[0]
    x, normed = state.x, state.normed
    page_size = pool.shape[4]
    group = shape.n_heads // shape.n_kv_heads  # query heads that share a key head

    # rows of the embedding become the residual stream
    for t in range(thread, n_rows, n_threads):
        dequantize_row_of(weights.token_embd[0], batch.tokens[t], x[t])
    barrier(sync, n_threads)

    for i in range(shape.n_layers):
        # attention: norm, then queries, keys and values from the same quantized input
        for t in range(thread, n_rows, n_threads):
            rms_norm(x[t], weights.attn_norm[i], shape.norm_eps, normed.x[t])
            quantize_row(normed, t)
        barrier(sync, n_threads)
        project(thread, n_threads, weights.attn_q[i], normed, n_rows, state.q, OVERWRITE, state)
        project(thread, n_threads, weights.attn_k[i], normed, n_rows, state.k, OVERWRITE, state)
        project(thread, n_threads, weights.attn_v[i], normed, n_rows, state.v, OVERWRITE, state)
        barrier(sync, n_threads)

        # rotate by position; keys and values go to the cache
        for t in range(thread, n_rows, n_threads):
            position = batch.positions[t]
            page = batch.page_tables[t, position // page_size]
            slot = position % page_size
            for head in range(shape.n_heads):
                q = state.q[t, head * shape.head_dim : (head + 1) * shape.head_dim]
                rope(q, batch.cos[t], batch.sin[t])
            for head in range(shape.n_kv_heads):
                k = state.k[t, head * shape.head_dim : (head + 1) * shape.head_dim]
                rope(k, batch.cos[t], batch.sin[t])
                store_f16_row(k, pool[page, i, 0, head, slot])
                value = state.v[t, head * shape.head_dim : (head + 1) * shape.head_dim]
                store_f16_row(value, pool[page, i, 1, head, slot])
        barrier(sync, n_threads)

        # every head of every row looks at its sequence up to and including itself
        for task in range(thread, n_rows * shape.n_heads, n_threads):
            t, head = task // shape.n_heads, task % shape.n_heads
            lanes = slice(head * shape.head_dim, (head + 1) * shape.head_dim)
            attend(
                state.q[t, lanes],
                pool,
                batch.page_tables[t],
                i,
                head // group,
                batch.positions[t] + 1,
                state.scores[thread],
                state.attended.x[t, lanes],
            )
        barrier(sync, n_threads)
        for t in range(thread, n_rows, n_threads):
            quantize_row(state.attended, t)
        barrier(sync, n_threads)
        project(thread, n_threads, weights.attn_output[i], state.attended, n_rows, x, ADD, state)
        barrier(sync, n_threads)

        # feed-forward: down(silu(gate) · up); a thread finishes its own rows of gate and up
        for t in range(thread, n_rows, n_threads):
            rms_norm(x[t], weights.ffn_norm[i], shape.norm_eps, normed.x[t])
            quantize_row(normed, t)
        barrier(sync, n_threads)
        project(
            thread, n_threads, weights.ffn_gate[i], normed, n_rows, state.gate, OVERWRITE, state
        )
        first, last = project(
            thread, n_threads, weights.ffn_up[i], normed, n_rows, state.up, OVERWRITE, state
        )
        for t in range(n_rows):
            silu_multiply(
                state.gate[t, first:last], state.up[t, first:last], state.hidden.x[t, first:last]
            )
        barrier(sync, n_threads)
        for t in range(thread, n_rows, n_threads):
            quantize_row(state.hidden, t)
        barrier(sync, n_threads)
        project(thread, n_threads, weights.ffn_down[i], state.hidden, n_rows, x, ADD, state)
        barrier(sync, n_threads)

    # logits, only of the rows that are asked for
    n_outputs = batch.outputs.shape[0]
    for o in range(thread, n_outputs, n_threads):
        row = batch.outputs[o]
        rms_norm(x[row], weights.output_norm, shape.norm_eps, state.last.x[o])
        quantize_row(state.last, o)
    barrier(sync, n_threads)
    project(
        thread, n_threads, weights.output[0], state.last, n_outputs, state.logits, OVERWRITE, state
    )
    barrier(sync, n_threads)


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
        widest = max(config.dim, config.q_dim, config.hidden_dim)
        self._state = State(
            x=np.zeros((max_rows, config.dim), np.float32),
            normed=quantize.allocate(max_rows, config.dim),
            q=np.zeros((max_rows, config.q_dim), np.float32),
            k=np.zeros((max_rows, config.kv_dim), np.float32),
            v=np.zeros((max_rows, config.kv_dim), np.float32),
            attended=quantize.allocate(max_rows, config.q_dim),
            gate=np.zeros((max_rows, config.hidden_dim), np.float32),
            up=np.zeros((max_rows, config.hidden_dim), np.float32),
            hidden=quantize.allocate(max_rows, config.hidden_dim),
            last=quantize.allocate(max_outputs, config.dim),
            logits=np.zeros((max_outputs, config.vocab_size), np.float32),
            scores=np.zeros((n_threads, -(-max_context // 8) * 8), np.float32),
            scratch=np.zeros((n_threads, scratch_bytes(widest)), np.uint8),
        )

    def forward(
        self,
        tokens: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int32],
        page_tables: npt.NDArray[np.int32],
        outputs: npt.NDArray[np.int32],
        pool: npt.NDArray[np.uint16],
    ) -> npt.NDArray[np.float32]:
        """Compute T rows; see Batch for the arguments and kernels/attention.py for the pool.

        Returns:
            logits (n_outputs, vocab_size) f32, valid until the next call.
        """
        assert len(tokens) <= self.max_rows and len(outputs) <= self.max_outputs
        angles = positions[:, None].astype(np.float64) * self._frequencies
        batch = Batch(
            tokens,
            positions,
            page_tables,
            np.cos(angles).astype(np.float32),
            np.sin(angles).astype(np.float32),
            outputs,
        )
        self._team.run(forward_pass, self._shape, self._weights.views, batch, self._state, pool)
        logits: npt.NDArray[np.float32] = self._state.logits[: len(outputs)]
        return logits

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
