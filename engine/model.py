"""The LLaMA forward pass, in the order in which the data flows.

`forward_pass` is one compiled function that every thread of the team runs: each does its share of
a step, and they meet at a barrier where the next step needs all of it. A batch is T rows, each a
token with its own sequence and position, so that prompt chunks and several clients' next tokens
go through the weights together.

Left to others: what a pass is given (job.py) and by whom (runner.py), where weights and cache live
(weights.py, kv_cache.py), the arithmetic of a step (kernels/). Imported only to be compiled
(compile.py): whoever serves has what it made, and no numba.
"""

from engine import system
from engine.jit import inline
from engine.job import PHASES
from engine.kernels.attention import attend, cache_rows
from engine.kernels.barrier import barrier
from engine.kernels.matmul import project
from engine.kernels.matvec import ADD, OVERWRITE
from engine.kernels.norm_rope import rms_norm, silu_multiply
from engine.kernels.quantize import own_rows, quantize_row
from engine.kernels.reading import read_job
from engine.kernels.unpack import dequantize_row_of

(EMBEDDING, NORM, QKV, CACHE, ATTENTION, ATTN_OUTPUT, GATE_UP, SILU, FFN_DOWN, LOGITS, BARRIER) = (
    range(len(PHASES) - 1)
)
DISK = len(PHASES) - 1
# the steps of a layer whose weights may be streamed: residency.STEPS
QKV_STEP, ATTN_OUTPUT_STEP, GATE_UP_STEP, FFN_DOWN_STEP = range(4)


@inline
def spent(ticks, phase, since):
    """Book the time since `since` on a phase; returns now."""
    now = system.clock()
    ticks[phase] += now - since
    return now


@inline
def meet(sync, n_threads, ticks, phase, since):
    """End a phase: book its time, and that of waiting for the others. Returns now."""
    since = spent(ticks, phase, since)
    barrier(sync, n_threads)
    return spent(ticks, BARRIER, since)


@inline
def take(streamed, stream, thread, ticks, since):
    """Wait for the weights that come next, if they are streamed. Returns now."""
    if streamed:
        system.read_byte(stream.ready[thread])
        return spent(ticks, DISK, since)
    return since


@inline
def give_back(streamed, stream, thread):
    """Streamed weights may be overwritten as far as this thread is concerned."""
    if streamed:
        system.write_byte(stream.done[0], thread)


def forward_pass(thread, n_threads, sync, job):
    """Compute the batch: keys and values into the pool, logits of `outputs` into state.logits.

    An entry (native.py): compiled as a whole, with all it calls.

    thread, n_threads  which of the team this is
    sync               address of the team's barrier
    job                address of a Job (job.py), of which
    pool               (n_pages, n_layers, n_kv_heads, head_bytes) u8, see kernels/attention.py
    kv_kind            KV_F16 or KV_Q8: how the pool keeps keys and values
    """
    batch, pool, kv_kind, shape, weights, stream, state = read_job(job)
    n_rows = batch.tokens.shape[0]
    x, scratch = state.x, state.scratch
    ticks, now = state.ticks[thread], system.clock()
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
        streamed = stream.steps[i]
        # attention: norm, then queries, keys and values from the same quantized input
        for t in range(me, n_rows, team):
            rms_norm(x[t], weights.attn_norm[i], shape.norm_eps, normed.x[t])
            quantize_row(normed, t)
        now = meet(sync, team, ticks, NORM, now)
        now = take(streamed[QKV_STEP], stream, thread, ticks, now)
        project(thread, n_threads, weights.attn_q[i], normed, n_rows, state.q, OVERWRITE, scratch)
        project(thread, n_threads, weights.attn_k[i], normed, n_rows, state.k, OVERWRITE, scratch)
        project(thread, n_threads, weights.attn_v[i], normed, n_rows, state.v, OVERWRITE, scratch)
        give_back(streamed[QKV_STEP], stream, thread)
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
        now = take(streamed[ATTN_OUTPUT_STEP], stream, thread, ticks, now)
        project(thread, n_threads, weights.attn_output[i], attended, n_rows, x, ADD, scratch)
        give_back(streamed[ATTN_OUTPUT_STEP], stream, thread)
        now = meet(sync, n_threads, ticks, ATTN_OUTPUT, now)

        # feed-forward: down(silu(gate) · up); a thread finishes its own rows of gate and up
        for t in range(me, n_rows, team):
            rms_norm(x[t], weights.ffn_norm[i], shape.norm_eps, normed.x[t])
            quantize_row(normed, t)
        now = meet(sync, team, ticks, NORM, now)
        now = take(streamed[GATE_UP_STEP], stream, thread, ticks, now)
        project(
            thread, n_threads, weights.ffn_gate[i], normed, n_rows, state.gate, OVERWRITE, scratch
        )
        first, last = project(
            thread, n_threads, weights.ffn_up[i], normed, n_rows, state.up, OVERWRITE, scratch
        )
        give_back(streamed[GATE_UP_STEP], stream, thread)
        now = spent(ticks, GATE_UP, now)
        for t in range(n_rows):
            silu_multiply(
                state.gate[t, first:last], state.up[t, first:last], state.hidden.x[t, first:last]
            )
        now = meet(sync, n_threads, ticks, SILU, now)
        for t in range(me, n_rows, team):
            quantize_row(hidden, t)
        now = meet(sync, team, ticks, NORM, now)
        now = take(streamed[FFN_DOWN_STEP], stream, thread, ticks, now)
        project(thread, n_threads, weights.ffn_down[i], hidden, n_rows, x, ADD, scratch)
        give_back(streamed[FFN_DOWN_STEP], stream, thread)
        now = meet(sync, n_threads, ticks, FFN_DOWN, now)

    # logits, only of the rows that are asked for
    n_outputs = batch.outputs.shape[0]
    for o in range(thread, n_outputs, n_threads):
        row = batch.outputs[o]
        rms_norm(x[row], weights.output_norm, shape.norm_eps, state.last.x[o])
        quantize_row(state.last, o)
    now = meet(sync, n_threads, ticks, NORM, now)
    if n_outputs > 0:
        for part in range(weights.output.shape[0]):
            now = take(stream.output[part], stream, thread, ticks, now)
            output = weights.output[part]
            project(
                thread,
                n_threads,
                output,
                state.last,
                n_outputs,
                state.logits,
                OVERWRITE,
                scratch,
            )
            give_back(stream.output[part], stream, thread)
    meet(sync, n_threads, ticks, LOGITS, now)
