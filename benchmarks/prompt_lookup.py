"""What prompt lookup gains where an answer repeats its prompt: decoding speed with and without.

    python -m benchmarks.prompt_lookup MODEL.gguf [--rounds 5]

The tasks quote, correct and translate nothing that is not in the prompt. Both ways must give the
same text; the two take turns, and the ratio of their medians is what counts.
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from engine.generate import Engine, Phase
from engine.sampler import SamplingParams

PASSAGE = """The lighthouse at Cape Wrath was built in 1828 by Robert Stevenson. Its tower is \
twenty metres high and stands on a cliff of more than a hundred metres. Until 1998 three keepers \
lived there with their families, four hours from the nearest shop. A lorry brought coal and flour \
twice a year, and a boat brought letters when the sea allowed it. Since then the lamp has been \
watched by a computer in Edinburgh, and the keepers' house is a small café that is always open, \
because nobody would walk so far to find it closed."""

TASKS = {
    "quote": f"Repeat this text exactly, word for word:\n\n{PASSAGE}",
    "edit": f"Write this text again, with 1828 changed to 1830:\n\n{PASSAGE}",
    "summarise": f"Summarise this text in two sentences, in its own words:\n\n{PASSAGE}",
}


@dataclass
class Result:
    """One task: its decoded tokens per second both ways, and how many guesses were right."""

    task: str
    with_lookup: float
    without: float
    n_tokens: int
    guesses_right: int
    same_text: bool


def decode(engine: Engine, prompt: list[int], max_tokens: int) -> tuple[list[int], float]:
    """Tokens of a greedy answer, and the seconds they took after the first."""
    sequence = engine.start(prompt, SamplingParams(temperature=0, max_tokens=max_tokens))
    while not sequence.completion_ids:
        engine.step()
    start = time.perf_counter()
    while sequence.phase is not Phase.FINISHED:
        engine.step()
    return sequence.completion_ids, time.perf_counter() - start


def compare(path: Path, n_threads: int, rounds: int, max_tokens: int) -> list[Result]:
    """Run all tasks both ways."""
    engines = {on: Engine.load(path, n_threads=n_threads, prompt_lookup=on) for on in (True, False)}
    results = []
    for task, question in TASKS.items():
        speeds: dict[bool, list[float]] = {True: [], False: []}
        answers = {}
        right = 0
        for _ in range(rounds):
            for on, engine in engines.items():
                prompt = engine.chat.encode([{"role": "user", "content": question}])
                before = engine.guesses_right
                answers[on], took = decode(engine, prompt, max_tokens)
                speeds[on].append((len(answers[on]) - 1) / took)
                right = max(right, engine.guesses_right - before)
        results.append(
            Result(
                task,
                statistics.median(speeds[True]),
                statistics.median(speeds[False]),
                len(answers[True]),
                right,
                answers[True] == answers[False],
            )
        )
    for engine in engines.values():
        engine.close()
    return results


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="a GGUF file of the llama architecture")
    parser.add_argument("--threads", type=int, default=2, help="threads (2)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way (5)")
    parser.add_argument("--max-tokens", type=int, default=160, help="of an answer (160)")
    args = parser.parse_args()
    results = compare(args.model, args.threads, args.rounds, args.max_tokens)
    print(f"{args.model.name}, {args.threads} threads, medians of {args.rounds} rounds, tokens/s")
    print(f"{'':12}{'lookup':>9}{'without':>9}{'ratio':>7}{'tokens':>8}{'guessed':>9}")
    for r in results:
        print(
            f"{r.task:12}{r.with_lookup:9.1f}{r.without:9.1f}{r.with_lookup / r.without:7.2f}"
            f"{r.n_tokens:8}{r.guesses_right:9}"
        )
    if not all(r.same_text for r in results):
        sys.exit("the texts differ: prompt lookup is not exact")


if __name__ == "__main__":
    main()
