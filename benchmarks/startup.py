"""From nothing to an answer: time until ready, memory then, and the first token of a long prompt.

    pip install -e .[bench]          # builds llama-cpp-python for this machine
    python -m benchmarks.startup MODEL.gguf [--prompt 500] [--rounds 5]

Each engine starts in a process of its own, in turns, with warm kernel and page caches. Ready is
when it has computed a token. Memory is split: `private` is the process's own, `file` the pages of
the model that it has mapped and the system could drop.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.peer import Theirs

ENGINES = ("assistantd", "llama.cpp")


def memory() -> dict[str, float]:
    """Megabytes of this process, from the kernel: private and file-backed."""
    fields = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.startswith("Rss"):
            fields[name] = int(value.split()[0]) / 1000
    return {"private": fields["RssAnon"], "file": fields["RssFile"] + fields["RssShmem"]}


def child(engine: str, path: Path, n_prompt: int, n_threads: int) -> None:
    """Start one engine and print what it took, as JSON."""
    prompt = list(range(1000, 1000 + n_prompt))
    n_context = n_prompt + 64
    if engine == "assistantd":
        from engine.bench import Bench

        running: Bench | Theirs = Bench(path, n_threads, n_context)
    else:
        running = Theirs(path, n_threads, n_context)
    running.eval([0])
    ready, used = time.time(), memory()
    running.reset()
    start = time.perf_counter()
    running.eval(prompt)
    print(json.dumps({"ready": ready, "first_token": time.perf_counter() - start, **used}))


def measure(engine: str, path: Path, n_prompt: int, n_threads: int) -> dict[str, float]:
    """Run one engine in a new process."""
    start = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.startup", str(path), "--child", engine,
         "--prompt", str(n_prompt), "--threads", str(n_threads)],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    figures["ready"] -= start
    return figures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="a GGUF file of the llama architecture")
    parser.add_argument("--prompt", type=int, default=500, help="tokens of the prompt (500)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each engine (2)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each engine (5)")
    parser.add_argument("--child", choices=ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.model, args.prompt, args.threads)
        return
    measure(ENGINES[0], args.model, args.prompt, args.threads)  # compile, if that is to be done
    runs = [
        {engine: measure(engine, args.model, args.prompt, args.threads) for engine in ENGINES}
        for _ in range(args.rounds)
    ]
    print(f"{args.model.name}, {args.threads} threads, medians of {args.rounds} rounds")
    print(f"{'':34}{ENGINES[0]:>12}{ENGINES[1]:>12}{'ratio':>8}")
    for key, label, unit in (
        ("ready", "process start to ready", "s"),
        ("first_token", f"first token after {args.prompt}", "s"),
        ("private", "private memory at ready", "MB"),
        ("file", "mapped file pages at ready", "MB"),
    ):
        ours, theirs = (statistics.median(run[engine][key] for run in runs) for engine in ENGINES)
        print(f"{label + ', ' + unit:34}{ours:12.3f}{theirs:12.3f}{ours / theirs:8.2f}")


if __name__ == "__main__":
    main()
