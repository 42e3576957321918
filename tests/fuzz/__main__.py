"""Fuzz one of the targets: python -m tests.fuzz TARGET [--seconds N] …

With atheris (the extra `fuzz`; x86-64 only) coverage of the reader's own lines decides what is
kept; without it a mutator of ours runs, which keeps what gives a message not seen before. Memory
and the time of each input are bounded: more of either is a crash, too. Crashes are written to
--artifacts, and the exit status is 1.
"""

import argparse
import hashlib
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import zlib
from importlib import import_module, util
from pathlib import Path
from types import FrameType

from tests.fuzz.target import Mutate, Target, outcome_of, own_mutator

TARGETS = {
    "gguf": ("tests.fuzz.gguf_reader", ["engine"]),
    "frames": ("tests.fuzz.frames", ["assistantd", "clients.web", "clients.voice.wyoming_server"]),
    "tokenizer": ("tests.fuzz.texts", ["engine.tokenizer"]),
    "templates": ("tests.fuzz.templates", ["engine.chat", "jinja2"]),
}
MEMORY_MB = 2048
OUTCOMES = 1 << 10
INPUT_S = 60
"""An input that takes longer is a crash; on a busy machine, ten times what the slowest takes."""


def main() -> int:
    """Run one target."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, default=None, help="grows; kept if it is given")
    parser.add_argument("--artifacts", type=Path, default=Path("."))
    parser.add_argument("--engine", choices=("auto", "atheris", "own"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    has_atheris = util.find_spec("atheris") is not None
    if asked.engine == "atheris" and not has_atheris:
        parser.error("atheris is not installed: pip install -e '.[fuzz]'")
    asked.artifacts.mkdir(parents=True, exist_ok=True)
    # threads' stacks and what is only mapped count, too; what is used is bounded by atheris
    resource.setrlimit(resource.RLIMIT_AS, (4 * MEMORY_MB << 20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if asked.engine == "own" or not has_atheris:
        return run_own(_target(asked.target), asked)
    return run_atheris(asked)


def _target(name: str) -> Target:
    target = import_module(TARGETS[name][0]).TARGET
    assert isinstance(target, Target)
    return target


# --- atheris ---


def run_atheris(asked: argparse.Namespace) -> int:
    """libFuzzer ends its process: so it gets one of its own, again until the time is over."""
    if asked.worker:
        return _atheris_worker(asked)
    command = [sys.executable, "-m", "tests.fuzz", *sys.argv[1:], "--worker"]
    return subprocess.run(command, check=False).returncode and 1


def _atheris_worker(asked: argparse.Namespace) -> int:
    import atheris  # type: ignore[import-not-found]

    module, instrumented = TARGETS[asked.target]
    with atheris.instrument_imports(include=instrumented):
        import_module(module)
    target = _target(asked.target)
    target.prepare()
    # much of what reads is C, whose lines atheris does not see: so what is said counts as a line
    lines = [atheris.instrument_func(lambda: None) for _outcome in range(OUTCOMES)]

    def one(data: bytes) -> None:
        outcome = outcome_of(target.one(data))
        lines[zlib.crc32(outcome.encode("utf-8", "replace")) % OUTCOMES]()

    corpus = asked.corpus or Path(f"/tmp/fuzz-{os.getpid()}")
    corpus.mkdir(parents=True, exist_ok=True)
    for name, seed in target.seeds().items():
        (corpus / f"seed-{re.sub('[^a-z0-9]+', '-', name)}").write_bytes(seed)
    dictionary = corpus.with_name(f"{corpus.name}.dict")
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        if target.mutate is None:
            return bytes(atheris.Mutate(data, longest))
        return target.mutate(data, longest, seed, lambda d, n: bytes(atheris.Mutate(d, n)))

    flags = [
        f"-max_total_time={asked.seconds}",
        f"-timeout={INPUT_S}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-max_len={target.longest}",
        f"-artifact_prefix={asked.artifacts}/{target.name}-",
        f"-seed={asked.seed or random.randrange(1 << 31)}",
        "-print_final_stats=1",
        "-reduce_inputs=0",
    ]
    if target.words:
        flags.append(f"-dict={dictionary}")
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()
    return 0


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02X}" for byte in word)


# --- our own ---


class _Slow(BaseException):
    """An input takes too long. Not an Exception, which a reader might take for its own."""


def _too_slow(_signal: int, _frame: FrameType | None) -> None:
    raise _Slow(f"it takes more than {INPUT_S} s")


def run_own(target: Target, asked: argparse.Namespace) -> int:
    """Change what is known, and keep what gives an outcome not seen before."""
    rng = random.Random(asked.seed)
    target.prepare()
    generic = own_mutator(target.words)(rng)
    pool = list(target.seeds().values())
    if asked.corpus is not None and asked.corpus.is_dir():
        pool += [file.read_bytes() for file in sorted(asked.corpus.iterdir()) if file.is_file()]
    outcomes: set[str] = set()
    n_runs, crashes, until = 0, 0, time.monotonic() + asked.seconds
    signal.signal(signal.SIGALRM, _too_slow)
    queue = list(pool)
    while queue or time.monotonic() < until:
        data = queue.pop() if queue else _changed(target, rng, generic, pool)
        n_runs += 1
        try:
            outcome = run_one(target, data)
        except BaseException as crash:
            if isinstance(crash, KeyboardInterrupt):
                raise
            name = f"{target.name}-crash-{hashlib.sha1(data).hexdigest()}"
            (asked.artifacts / name).write_bytes(data)
            print(f"crash: {name}: {type(crash).__name__}: {crash!s:.300}", flush=True)
            crashes += 1
            if crashes >= 20:
                break
            continue
        if outcome not in outcomes:
            outcomes.add(outcome)
            pool.append(data)
            if asked.corpus is not None:
                asked.corpus.mkdir(parents=True, exist_ok=True)
                (asked.corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
    print(
        f"{target.name}: {n_runs} runs, {len(outcomes)} outcomes, corpus {len(pool)}, "
        f"{crashes} crashes",
        flush=True,
    )
    return 1 if crashes else 0


def _changed(target: Target, rng: random.Random, generic: Mutate, pool: list[bytes]) -> bytes:
    data = rng.choice(pool)
    for _change in range(rng.choice((1, 1, 2, 5))):
        if target.mutate is None:
            data = generic(data, target.longest)
        else:
            data = target.mutate(data, target.longest, rng.randrange(1 << 31), generic)
    return data


def run_one(target: Target, data: bytes) -> str:
    """What comes of an input.

    Raises:
        Exception: a crash.
    """
    signal.alarm(INPUT_S)
    try:
        return outcome_of(target.one(data))
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    sys.exit(main())
