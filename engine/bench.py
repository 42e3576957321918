"""How fast a model runs here: prompt, decoding, several sequences, at several depths.

Only the engine is measured: no tokenizer, sampler or scheduler. Tokens are random, as speed does
not depend on which they are.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine import native
from engine.config import layer_matrices, read_config
from engine.gguf import open_gguf
from engine.info import MAX_ROWS, KvType
from engine.job import PHASES
from engine.kernels import PAGE
from engine.kv_cache import KVCache, SequenceCache
from engine.runner import Model
from engine.weights import Weights


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        test: pp512 (prompt), tg64 (decoding), tg64 x4 (four sequences), … @ d4096 (after as many).
        tokens_per_second, spread: mean and standard deviation over the rounds.
        gigabytes_per_second: weights and cache read for these tokens, or None for prompts, whose
            passes are not bound by reading.
        share_of_bandwidth: of what two plain loops read from memory at the same time.
    """

    test: str
    tokens_per_second: float
    spread: float
    gigabytes_per_second: float | None = None
    share_of_bandwidth: float | None = None


class Bench:
    """A model without the token loop."""

    def __init__(
        self, path: Path, n_threads: int, n_context: int, *, n_sequences: int = 1,
        kv_type: KvType = "f16",
    ) -> None:  # fmt: skip
        file = open_gguf(path)
        config = read_config(file)
        self.vocab_size = config.vocab_size
        self.model = Model(
            config,
            Weights(file, config, n_threads, MAX_ROWS),
            max_rows=MAX_ROWS,
            max_outputs=n_sequences,
            max_context=n_context,
            n_threads=n_threads,
        )
        used = ["output" if "output.weight" in file.tensors else "token_embd"]
        used += [
            f"blk.{i}.{name}" for name in layer_matrices(config) for i in range(config.n_layers)
        ]
        self.bytes_per_pass = sum(file.tensors[f"{name}.weight"].n_bytes for name in used)
        self.cache = KVCache(config, n_sequences * n_context, kv_type)
        self.sequences: list[SequenceCache] = [self.cache.open([0]) for _ in range(n_sequences)]

    def reset(self) -> None:
        """Forget all tokens."""
        for sequence in self.sequences:
            sequence.close()
        self.cache.clear()
        self.sequences = [self.cache.open([0]) for _ in self.sequences]

    def rewind(self, tokens: list[list[int]], depth: int) -> None:
        """Put every sequence to the first `depth` of its tokens; what is cached stays so."""
        for i, own in enumerate(tokens):
            self.sequences[i].close()
            self.sequences[i] = self.cache.open(own[: depth + 1])
            self.eval(own[self.sequences[i].length : depth], i)

    def eval(self, tokens: list[int], sequence: int = 0) -> None:
        """Compute tokens of one sequence, in chunks, with the last one's logits."""
        cache = self.sequences[sequence]
        for start in range(0, len(tokens), MAX_ROWS):
            part = tokens[start : start + MAX_ROWS]
            at = cache.length
            cache.reserve(at + len(part))
            self.model.forward(
                np.array(part, np.int32),
                np.arange(at, at + len(part), dtype=np.int32),
                np.zeros(len(part), np.int32),
                cache.page_table[None],
                np.array([len(part) - 1], np.int32),
                self.cache,
            )
            cache.extend(part)

    def decode_together(self, token: int) -> None:
        """One token of every sequence, in one pass."""
        n = len(self.sequences)
        for sequence in self.sequences:
            sequence.reserve(sequence.length + 1)
        self.model.forward(
            np.full(n, token, np.int32),
            np.array([s.length for s in self.sequences], np.int32),
            np.arange(n, dtype=np.int32),
            np.stack([s.page_table for s in self.sequences]),
            np.arange(n, dtype=np.int32),
            self.cache,
        )
        for sequence in self.sequences:
            sequence.extend([token])

    def kv_bytes(self, depth: int) -> int:
        """Bytes of keys and values that a token at this depth looks at."""
        return depth * self.cache.page_bytes // PAGE


def seconds(work: Callable[[], None]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(
    path: Path,
    *,
    n_threads: int,
    n_prompt: int = 512,
    n_decode: int = 64,
    n_together: int = 4,
    depths: tuple[int, ...] = (0,),
    rounds: int = 3,
    kv_type: KvType = "f16",
    bandwidth: float,
) -> Iterator[Figure]:
    """Figures, one after the other, as they are measured.

    Args:
        bandwidth: bytes per second, to put the reading in relation to.

    Raises:
        EngineError: the model cannot be used.
    """
    n_context = max(depths) + n_prompt + n_decode + 16
    bench = Bench(path, n_threads, n_context, n_sequences=n_together, kv_type=kv_type)
    shape = (n_together, max(*depths, n_prompt, n_decode) + 1)
    tokens = np.random.default_rng(0).integers(0, bench.vocab_size, shape).tolist()
    bench.eval(tokens[0][:32])
    bench.eval(tokens[0][:1])

    def figure(test: str, n: int, times: list[float], n_bytes: int | None) -> Figure:
        speeds = [n / t for t in times]
        read = n_bytes / statistics.mean(times) if n_bytes is not None else None
        return Figure(
            test,
            statistics.mean(speeds),
            statistics.stdev(speeds) if len(speeds) > 1 else 0.0,
            read / 1e9 if read is not None else None,
            read / bandwidth if read is not None else None,
        )

    def alone() -> None:
        for token in tokens[0][:n_decode]:
            bench.eval([token])

    def together() -> None:
        for token in tokens[0][:n_decode]:
            bench.decode_together(token)

    try:
        for depth in depths:
            at = f" @ d{depth}" if depth else ""
            prompts, decodes, batches = [], [], []
            for _ in range(rounds):
                if n_together > 1:
                    bench.rewind(tokens, depth)
                    batches.append(seconds(together))
                bench.rewind(tokens, depth)
                decodes.append(seconds(alone))
                bench.rewind(tokens, depth)
                prompts.append(seconds(lambda: bench.eval(tokens[0][:n_prompt])))
            kv = bench.kv_bytes(depth + n_decode // 2)
            yield figure(f"pp{n_prompt}{at}", n_prompt, prompts, None)
            n_bytes = n_decode * (bench.bytes_per_pass + kv)
            yield figure(f"tg{n_decode}{at}", n_decode, decodes, n_bytes)
            if n_together > 1:
                n_bytes = n_decode * (bench.bytes_per_pass + n_together * kv)
                test = f"tg{n_decode} x{n_together}{at}"
                yield figure(test, n_together * n_decode, batches, n_bytes)
    finally:
        bench.model.close()


def profile(path: Path, *, n_threads: int, n_prompt: int = 128, n_decode: int = 64,
            depth: int = 0) -> dict[str, dict[str, float]]:  # fmt: skip
    """Shares of the time of a prompt chunk and of decoded tokens, by phase; they add up to 1.

    "python" is what passes outside of forward_pass: the call, the angles of rope, page tables.
    """
    bench = Bench(path, n_threads, depth + n_prompt + n_decode + 80)
    tokens = np.random.default_rng(0).integers(0, bench.vocab_size, depth + n_prompt + 64).tolist()
    bench.eval(tokens[:32])
    bench.eval(tokens[:1])
    bench.reset()
    if depth:
        bench.eval(tokens[:depth])

    def decode() -> None:
        for token in tokens[:n_decode]:
            bench.eval([token])

    shares = {}
    for name, work in (("prompt", lambda: bench.eval(tokens[:n_prompt])), ("decode", decode)):
        bench.model.ticks[:] = 0
        took, ticks = _timed_ticks(work)
        by_phase = bench.model.ticks.mean(axis=0) / ticks
        shares[name] = {phase: float(share) for phase, share in zip(PHASES, by_phase, strict=True)}
        shares[name]["python"] = max(0.0, 1.0 - float(by_phase.sum()))
        shares[name]["milliseconds"] = 1000 * took
    bench.model.close()
    return shares


def _timed_ticks(work: Callable[[], None]) -> tuple[float, int]:
    clock = native.function("clock")
    started, ticks = time.perf_counter(), clock()
    work()
    now = clock()
    return time.perf_counter() - started, now - ticks
