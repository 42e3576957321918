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
from engine.tokenizer import load_tokenizer
from tests.engine.running import Runner

WINDOW = 512


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
        ours = Runner(path, n_threads=args.threads, kv_type=args.kv_type)
        theirs = Theirs(path, args.threads, WINDOW)
        ids = load_tokenizer(ours.file.metadata).encode(text)
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
