"""Models larger than the memory they may use, beside llama.cpp, each within a kernel limit.

    sudo python -m benchmarks.low_memory MODEL.gguf 400M 550M [--llama-bench PATH] [--json FILE]

Ours is the real daemon, its budget and the cgroup's limit the same. llama.cpp maps the file and
does not repack it, which is its best setting here (--repack tries the other, too); it is
`llama-bench` if its path is given, or llama-cpp-python in a process of its own. Each run begins
with the model's file out of the page cache. Medians of the rounds; a run that brings nothing
within --patience seconds counts as none.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from assistantd.sizes import parse_size
from clients import Client
from tests.memory.limits import KernelLimit
from tests.running import RunningDaemon, short_folder

PROMPT = "w1 w2 w3 w4 w5 w6 w7 w8"


def forget(path: Path) -> None:
    """Put the file out of the page cache."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def ours(
    model: Path, limit: int, n_tokens: int, n_clients: int, **settings: str
) -> dict[str, float]:
    """Decoding speed of clients together, and the kernel's peak."""
    forget(model)
    folder = short_folder()
    environment = {
        "ASSISTANTD_MEMORY_BUDGET": str(limit),
        "ASSISTANTD_ENGINE_PROMPT_LOOKUP": "false",
        "ASSISTANTD_ENGINE_THREADS": "2",
        **settings,
    }
    with KernelLimit(limit) as group:
        daemon = RunningDaemon(folder, model, environment, group.within)
        try:
            daemon.start()
            with daemon.client() as client:
                plan = client.status().plan
            assert plan is not None

            def ask(number: int) -> int:
                with Client(daemon.endpoint, timeout=3600) as client:
                    answer = client.complete(
                        f"{PROMPT} w{number}", max_tokens=n_tokens, temperature=0,
                        repeat_penalty=1.0, logit_bias={"2": -100.0},
                    ).wait()  # fmt: skip
                    assert answer.timings is not None
                    speeds.append(answer.timings.tokens_per_second)
                    return answer.timings.completion_tokens

            speeds: list[float] = []
            started = time.perf_counter()
            with ThreadPoolExecutor(n_clients) as pool:
                total = sum(pool.map(ask, range(n_clients)))
            took = time.perf_counter() - started
            # alone: of decoding, as llama-bench counts; together: all tokens over all the time
            speed = speeds[0] if n_clients == 1 else total / took
            return {
                "tokens_per_second": speed,
                "peak": group.peak,
                "kills": group.kills,
                "streamed": plan.streamed_bytes,
                "resident": plan.resident_bytes,
            }
        finally:
            daemon.stop()
            shutil.rmtree(folder)


def theirs(
    model: Path, limit: int, n_tokens: int, llama_bench: Path | None, repack: bool, patience: float
) -> float | None:
    """llama.cpp's decoding speed; None if it does not get there."""
    forget(model)
    if llama_bench:
        command = [str(llama_bench), "-m", str(model), "-p", "0", "-n", str(n_tokens), "-r", "1"]
        command += ["-t", "2", "--no-warmup", "-o", "json", "-lm", "mmap"]
        command += ["--repack", str(int(repack))]
    else:
        command = [sys.executable, "-m", "benchmarks.low_memory", "--peer", str(model)]
        command += [str(n_tokens), *(["--repack"] if repack else [])]
    with KernelLimit(limit) as group:
        try:
            done = subprocess.run(
                [*group.within, *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=patience,
            )
        except subprocess.TimeoutExpired:
            return None
    if done.returncode:
        return None
    return float(json.loads(done.stdout)[0]["avg_ts"])


def peer(model: Path, n_tokens: int, repack: bool) -> None:
    """In a process of its own: llama-bench's output, from llama-cpp-python."""
    from benchmarks.peer import Theirs

    engine = Theirs(model, 2, n_tokens + 16, repack=repack)
    started = time.perf_counter()
    for token in range(n_tokens):
        engine.eval([100 + token])
    print(json.dumps([{"avg_ts": n_tokens / (time.perf_counter() - started)}]))


def main() -> None:
    """Command line."""
    if sys.argv[1:2] == ["--peer"]:
        peer(Path(sys.argv[2]), int(sys.argv[3]), "--repack" in sys.argv)
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="a GGUF file of the llama architecture")
    parser.add_argument("limits", nargs="+", help="budgets, like 400M")
    parser.add_argument("--tokens", type=int, default=16, help="tokens to decode (16)")
    parser.add_argument("--clients", type=int, default=1, help="together, of ours (1)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--llama-bench", type=Path, help="llama.cpp's own program")
    parser.add_argument("--repack", action="store_true", help="let llama.cpp repack, too")
    parser.add_argument("--no-peer", action="store_true", help="only ours")
    parser.add_argument("--patience", type=float, default=120, help="seconds for a run (120)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    rows = []
    print(f"{args.model.name}, 2 threads, medians of {args.rounds} rounds, tokens/s")
    print(f"{'budget':>8}{'assistantd':>12}{'llama.cpp':>12}{'ratio':>8}{'peak':>8}{'of disk':>9}")
    for text in args.limits:
        limit = parse_size(text)
        own, other = [], []
        disk = 0.0
        for _ in range(args.rounds):
            own.append(ours(args.model, limit, args.tokens, args.clients))
            if not args.no_peer:
                tries = [False, True] if args.repack else [False]
                found = [
                    theirs(args.model, limit, args.tokens, args.llama_bench, r, args.patience)
                    for r in tries
                ]
                other.append(max((speed or 0.0 for speed in found), default=0.0))
            disk = max(disk, disk_speed_of(args.model))
        speed = statistics.median(run["tokens_per_second"] for run in own)
        peer_speed = statistics.median(other) if other else None
        peak = max(run["peak"] for run in own)
        assert not any(run["kills"] for run in own)
        streamed = own[0]["streamed"]
        share = speed * streamed / disk / args.clients if streamed else None
        rows.append(
            {
                "model": args.model.name,
                "budget": limit,
                "clients": args.clients,
                "ours": speed,
                "theirs": peer_speed,
                "peak": peak,
                "streamed": streamed,
                "disk": disk,
                "ours_rounds": own,
                "theirs_rounds": other,
            }
        )
        ratio = f"{speed / peer_speed:.1f}" if peer_speed else "–"
        theirs_text = f"{peer_speed:.2f}" if peer_speed else "none" if other else "–"
        print(
            f"{text:>8}{speed:12.2f}{theirs_text:>12}{ratio:>8}{peak / 2**20:7.0f}M"
            + (f"{100 * share:7.0f} %" if share else ""),
            flush=True,
        )
        if args.json:
            args.json.write_text(json.dumps(rows, indent=2) + "\n")


def disk_speed_of(model: Path) -> float:
    """Bytes per second in the same minute as the runs, of bytes that were read before.

    Passes read the same bytes again and again, which a disk or the host of a virtual machine may
    have in a cache of its own; so the measurement reads twice, too.
    """
    from engine.probe import disk_speed

    return max(disk_speed(model, 4 << 30) for _ in range(2))


if __name__ == "__main__":
    main()
