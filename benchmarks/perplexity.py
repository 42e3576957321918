"""Perplexity of this engine beside llama.cpp's: the same file, tokens and windows.

    pip install -e .[bench]          # builds llama-cpp-python for this machine
    python -m benchmarks.perplexity MODEL.gguf… [--text FILE]

Both see windows of 512 tokens; the later half of each window is scored, as llama-perplexity does.
Without --text they read the Python manual that every Python has (pydoc's topics).
"""

import argparse
import math
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import numpy.typing as npt

from benchmarks.peer import Theirs
from engine.config import read_config
from engine.gguf import open_gguf
from engine.info import MAX_ROWS
from engine.kv_cache import KVCache
from engine.model import Model
from engine.tokenizer import load_tokenizer
from engine.weights import Weights

WINDOW = 512


class Ours:
    """This engine, with all logits of a window."""

    def __init__(self, path: Path, n_threads: int, kv_type: str) -> None:
        file = open_gguf(path)
        config = read_config(file)
        self.tokenizer = load_tokenizer(file.metadata)
        self._model = Model(
            config,
            Weights(file, config),
            max_rows=MAX_ROWS,
            max_outputs=MAX_ROWS,
            max_context=WINDOW,
            n_threads=n_threads,
        )
        self._cache = KVCache(config, WINDOW, kv_type)

    def logits(self, tokens: list[int]) -> npt.NDArray[np.float32]:
        """(T, vocab_size) f32 of at most WINDOW tokens from the start."""
        self._cache.clear()
        sequence = self._cache.open(tokens)
        sequence.reserve(len(tokens))
        parts = []
        for start in range(0, len(tokens), MAX_ROWS):
            part = np.array(tokens[start : start + MAX_ROWS], np.int32)
            rows = np.arange(len(part), dtype=np.int32)
            sequences = np.zeros(len(part), np.int32)
            table = sequence.page_table[None]
            parts.append(
                self._model.forward(
                    part, start + rows, sequences, table, rows, self._cache
                ).copy()
            )  # fmt: skip
        sequence.close()
        return np.concatenate(parts)


def surprise(logits: npt.NDArray[np.float32], tokens: list[int]) -> float:
    """Σ −ln p of the later half of a window's tokens, in nats."""
    first = WINDOW // 2
    scores = logits[first:-1].astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return -float(log_p[np.arange(len(scores)), tokens[first + 1 :]].sum())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", type=Path, nargs="+", help="GGUF files of the llama architecture")
    parser.add_argument("--text", type=Path, help="what to read, instead of Python's manual")
    parser.add_argument("--kv-type", choices=["f16", "q8"], default="f16", help="of this engine")
    parser.add_argument("--threads", type=int, default=2, help="threads of each engine (2)")
    parser.add_argument("--windows", type=int, default=16, help="at most so many (16)")
    args = parser.parse_args()
    text = args.text.read_text() if args.text else "\n\n".join(topics.values())[:200_000]
    print(f"{'':34}{'tokens':>7}{'assistantd':>12}{'llama.cpp':>12}{'difference':>12}")
    for path in args.models:
        ours = Ours(path, args.threads, args.kv_type)
        theirs = Theirs(path, args.threads, WINDOW)
        ids = ours.tokenizer.encode(text)
        starts = range(0, len(ids) - WINDOW + 1, WINDOW)[: args.windows]
        if not starts:
            raise SystemExit(f"the text has {len(ids)} tokens; give at least {WINDOW}")
        nats, n = [0.0, 0.0], 0
        for start in starts:
            window = ids[start : start + WINDOW]
            for i, engine in enumerate((ours, theirs)):
                nats[i] += surprise(engine.logits(window), window)
            n += WINDOW - 1 - WINDOW // 2
        a, b = (math.exp(total / n) for total in nats)
        print(f"{path.name[:33]:34}{n:7}{a:12.4f}{b:12.4f}{100 * (a / b - 1):+11.2f}%")


if __name__ == "__main__":
    main()
