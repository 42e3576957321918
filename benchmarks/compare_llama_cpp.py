"""Speed of this engine beside llama.cpp's, alternately in one process on the same file.

    pip install -e .[bench]          # builds llama-cpp-python for this machine
    python -m benchmarks.compare_llama_cpp MODEL.gguf [--prompt 512] [--decode 64] [--depth 4096]

Machines are noisy, so the two take turns and the ratio of their medians is what counts. Both
compute the same tokens: a prompt of N, and M one at a time, from the start and at a depth.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.peer import Theirs
from engine.bench import Bench, seconds


@dataclass
class Row:
    """One phase, in tokens per second: medians over the rounds, and all rounds."""

    phase: str
    ours: float
    theirs: float
    ratio: float
    ours_rounds: list[float]
    theirs_rounds: list[float]


def compare(
    path: Path, n_prompt: int, n_decode: int, depth: int, n_threads: int, rounds: int
) -> list[Row]:
    """Run both engines in turns."""
    n_context = max(n_prompt, depth) + n_decode + 64
    engines: dict[str, Bench | Theirs] = {
        "ours": Bench(path, n_threads, n_context),
        "theirs": Theirs(path, n_threads, n_context),
    }
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, engines["ours"].vocab_size, n_context).tolist()
    phases = [f"prompt {n_prompt}", f"decode {n_decode}"]
    if depth:
        phases.append(f"decode {n_decode} @ {depth}")
    speeds: dict[str, dict[str, list[float]]] = {p: {"ours": [], "theirs": []} for p in phases}
    for engine in engines.values():  # compile, map, warm the caches
        engine.eval(tokens[:32])
        engine.eval(tokens[:1])
    for number in range(rounds):
        for name, engine in engines.items():
            if sys.stderr.isatty():
                print(f"\rround {number + 1} of {rounds}: {name:7}", end="", file=sys.stderr)

            def decode(engine: Bench | Theirs = engine) -> None:
                for token in tokens[:n_decode]:
                    engine.eval([token])

            engine.reset()
            took = seconds(lambda e=engine: e.eval(tokens[:n_prompt]))  # type: ignore[misc]
            speeds[phases[0]][name].append(n_prompt / took)
            engine.reset()
            speeds[phases[1]][name].append(n_decode / seconds(decode))
            if depth:
                engine.reset()
                engine.eval(tokens[:depth])
                speeds[phases[2]][name].append(n_decode / seconds(decode))
    if sys.stderr.isatty():
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
    rows = []
    for phase in phases:
        ours, theirs = speeds[phase]["ours"], speeds[phase]["theirs"]
        medians = statistics.median(ours), statistics.median(theirs)
        rows.append(Row(phase, *medians, medians[0] / medians[1], ours, theirs))
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="a GGUF file of the llama architecture")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt (512)")
    parser.add_argument("--decode", type=int, default=64, help="tokens to decode (64)")
    parser.add_argument("--depth", type=int, default=0, help="decode after so many tokens, too")
    parser.add_argument("--threads", type=int, default=2, help="threads of each engine (2)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each engine (5)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    rows = compare(args.model, args.prompt, args.decode, args.depth, args.threads, args.rounds)
    print(f"{args.model.name}, {args.threads} threads, medians of {args.rounds} rounds, tokens/s")
    print(f"{'':20}{'assistantd':>12}{'llama.cpp':>12}{'ratio':>8}")
    for row in rows:
        print(f"{row.phase:20}{row.ours:12.1f}{row.theirs:12.1f}{row.ratio:8.2f}")
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
