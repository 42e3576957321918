"""Many clients at once, some of which cancel or vanish: is every request answered, once, in turn?

    python -m benchmarks.load MODEL.gguf [--clients 200] [--requests 10000] [--json docs/load.json]

Two runs with the real daemon: clients that are all alike, and greedy clients (16 requests under way
each) beside modest ones. Checked of each: every request ended exactly once and as it should; the
sessions hold exactly what was acknowledged; the queue stayed within its bound; who vanished was
given up; memory, descriptors and threads stay flat. Measured: queueing, first token, fairness.

Fairness. A client waits while it has requests that were not begun, and none under way. If R
clients wait at the moment when it begins to, round robin gives each of the others at most one turn
before it: R is its share of turns to wait for. The ratio is the turns of others that it waited for,
over R. Requests that were refused as `busy` wait from when they were first made.
"""

import argparse
import asyncio
import bisect
import contextlib
import json
import multiprocessing
import random
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import zmq.asyncio

from assistantd.protocol import SessionInfo
from benchmarks.load_client import LoadClient, Outcome, Report, Task, make_tasks
from benchmarks.process_figures import Figures, figures_of, slope
from clients import Client
from clients.errors import NotFound
from tests.running import RunningDaemon, short_folder

MAX_QUEUE = 32
SAMPLE_EVERY_S = 0.5
SAME_MOMENT_S = 0.1
"""Clients do not see in which order the daemon gets what they send within so short a time."""
GREEDY_WIDTH = 16
WARM_UP_SHARE = 0.4
"""Of a run, after which memory should not grow: caches have their size by then."""


@dataclass(frozen=True)
class Run:
    """One run's clients."""

    name: str
    clients: int
    requests: int
    greedy: int = 0
    think_s: float = 0.0
    """Of those that are not greedy."""
    cancelled: float = 0.05
    vanishing: float = 0.05

    def fates(self, client: int) -> tuple[float, float]:
        """A client's shares of what is cancelled, and in the middle of which it vanishes."""
        # with several requests on one connection all would go with it
        return self.cancelled, 0.0 if client < self.greedy else self.vanishing


@dataclass
class Result:
    """What one run gave."""

    name: str
    clients: int
    requests: int
    seconds: float
    answered: int
    cancelled: int
    vanished: int
    refusals: int
    queue_peak: int
    queueing_s: dict[str, float]
    first_token_s: dict[str, float]
    fairness: dict[str, float]
    rss_anon_mb: dict[str, float]
    descriptors: dict[str, int]
    threads: dict[str, int]
    sessions: int
    stored_answers: int
    problems: list[str]


# --- running ---------------------------------------------------------------------------------


def drive(endpoint: str, run: Run, clients: Sequence[tuple[int, list[Task]]]) -> Report:
    """The clients of one process."""

    async def work() -> Report:
        report = Report()
        context = zmq.asyncio.Context()
        loaded = [
            LoadClient(
                context,
                endpoint,
                number,
                tasks,
                report,
                width=GREEDY_WIDTH if number < run.greedy else 1,
                think_s=0.0 if number < run.greedy else run.think_s,
            )
            for number, tasks in clients
        ]
        await asyncio.gather(*(client.run() for client in loaded))
        context.destroy(linger=0)
        return report

    return asyncio.run(work())


@contextlib.contextmanager
def sampled(daemon: RunningDaemon, samples: list[tuple[Figures, int]]) -> Iterator[None]:
    """Note the daemon's figures and its queue's length while the block runs."""
    over = threading.Event()
    assert daemon.process is not None
    pid = daemon.process.pid

    def sample() -> None:
        with daemon.client() as client:
            while not over.wait(SAMPLE_EVERY_S):
                samples.append((figures_of(pid), client.status().queue.waiting))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def measure(daemon: RunningDaemon, run: Run, processes: int, seed: int) -> Result:
    """Do one run and look at what came of it."""
    rng = random.Random(seed)
    each = run.requests // run.clients
    clients = [
        (
            number,
            make_tasks(
                rng,
                f"{run.name.replace(' ', '-')}-{number}",
                number * each,
                each,
                *run.fates(number),
            ),
        )
        for number in range(run.clients)
    ]
    samples: list[tuple[Figures, int]] = []
    started = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with sampled(daemon, samples), ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        parts = [
            pool.submit(drive, daemon.endpoint, run, clients[index::processes])
            for index in range(processes)
        ]
        reports = [part.result() for part in parts]
    seconds = time.monotonic() - started
    outcomes = [outcome for report in reports for outcome in report.outcomes]
    problems = [f"stray message: {stray}" for report in reports for stray in report.strays]
    problems += [f"{o.task}: {o.problem}" for o in outcomes if o.problem]
    planned = {task.number for _, tasks in clients for task in tasks}
    if sorted(planned) != sorted(o.task.number for o in outcomes):
        problems.append("not every planned request has an outcome")
    n_sessions, n_stored = 0, 0
    with daemon.client() as client:
        problems += still_busy(client)
        n_sessions, n_stored = check_sessions(client, outcomes, problems)
    peak = max((waiting for _, waiting in samples), default=0)
    if peak > MAX_QUEUE:
        problems.append(f"{peak} requests waited at once")
    settled = [figures for figures, _ in samples[int(len(samples) * WARM_UP_SHARE) :]]
    first, last = settled[0], settled[-1]
    rss = [figures.rss_anon_bytes / 2**20 for figures in settled]
    n_requests = run.requests * (1 - WARM_UP_SHARE)
    growth = slope([f.at for f in settled], rss) * (last.at - first.at) / n_requests * 1000
    kept = [o for o in outcomes if o.task.fate in ("answered", "cancelled") and not o.problem]
    return Result(
        name=run.name,
        clients=run.clients,
        requests=len(outcomes),
        seconds=round(seconds, 1),
        answered=sum(o.finish_reason in ("stop", "length") for o in outcomes),
        cancelled=sum(o.finish_reason == "cancelled" for o in outcomes),
        vanished=sum(o.task.fate in ("closed", "killed") for o in outcomes),
        refusals=sum(o.refused for o in outcomes),
        queue_peak=peak,
        queueing_s=percentiles([(o.started or 0) - o.first_sent for o in kept]),
        first_token_s=percentiles([(o.first_token or 0) - o.first_sent for o in kept]),
        fairness=fairness(outcomes),
        rss_anon_mb={
            "first": round(rss[0], 1),
            "last": round(rss[-1], 1),
            "most": round(max(rss), 1),
            "slope_per_1000_requests": round(growth, 3),
        },
        descriptors={"first": first.descriptors, "last": last.descriptors},
        threads={"first": first.threads, "last": last.threads},
        sessions=n_sessions,
        stored_answers=n_stored,
        problems=problems,
    )


# --- checking --------------------------------------------------------------------------------


def still_busy(client: Client) -> list[str]:
    """Wait until the answers of those who vanished have been given up."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        queue = client.status().queue
        if queue.active == queue.waiting == 0:
            return []
    return [f"{queue.active} answers under way and {queue.waiting} waiting for nobody"]


def check_sessions(
    client: Client, outcomes: Sequence[Outcome], problems: list[str]
) -> tuple[int, int]:
    """Compare the sessions with what the clients were told; (sessions, answers) that were seen."""
    by_session: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.task.session:
            by_session.setdefault(outcome.task.session, []).append(outcome)
    n_answers = 0
    for name, asked in by_session.items():
        try:
            stored = client.session(name)
        except NotFound:
            stored = SessionInfo(name, "", 0.0, 0.0, 0, [])
        n_answers += check_session(name, stored, asked, problems)
    return len(by_session), n_answers


def check_session(
    name: str, stored: SessionInfo, asked: Sequence[Outcome], problems: list[str]
) -> int:
    messages = [(m.role, m.content) for m in stored.messages or []]
    known = {outcome.task.text for outcome in asked}
    extra = [text for role, text in messages if role == "user" and text not in known]
    problems += [f"{name} holds what nobody asked: {text!r:.80}" for text in extra]
    n_answers = 0
    for outcome in asked:
        times = messages.count(("user", outcome.task.text))
        acknowledged = outcome.finish_reason is not None
        if times > 1 or (acknowledged and times != 1):
            problems.append(f"{name} holds a question {times} times: {outcome.task}")
        elif acknowledged and outcome.text:
            at = messages.index(("user", outcome.task.text))
            n_answers += 1
            if ("assistant", outcome.text) not in messages[at + 1 :]:
                problems.append(f"{name} lacks an answer: {outcome.task}")
    roles = [role for role, _ in messages]
    if roles.count("assistant") > sum(o.finish_reason is not None for o in asked) + sum(
        o.task.fate in ("closed", "killed") for o in asked
    ):
        problems.append(f"{name} holds more answers than were given")
    return n_answers


def fairness(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Turns that clients waited for, over their share; see the module."""
    begun = [o for o in outcomes if o.started is not None]
    # whose daemon told when they were begun; of the others it is only known that they were
    told = [o for o in begun if o.queued_ms is not None]
    starts = sorted((o.started, o.client) for o in begun if o.started is not None)
    moments = [moment for moment, _ in starts]
    waits: list[tuple[float, float, int]] = []
    for client in {o.client for o in told}:
        own = [o for o in told if o.client == client]
        waits += [(a, b, client) for a, b in waits_of(own)]
    waits.sort()
    begins = [a for a, _, _ in waits]
    ratios = []
    for a, b, client in waits:
        turns = sum(
            who != client
            for _, who in starts[bisect.bisect_right(moments, a) : bisect.bisect_left(moments, b)]
        )
        # who waits at that moment: began to before, or then, and was not begun yet
        upto = bisect.bisect_right(begins, a + SAME_MOMENT_S)
        share = len({who for begin, end, who in waits[max(0, upto - 2000) : upto] if end > a})
        ratios.append(turns / max(1, share))
    ratios.sort()
    return {
        "waits": len(ratios),
        "median": round(statistics.median(ratios), 2),
        "p99": round(ratios[int(0.99 * (len(ratios) - 1))], 2),
        "most": round(ratios[-1], 2),
    }


def waits_of(own: Sequence[Outcome]) -> Iterator[tuple[float, float]]:
    """The times in which a client waits and has nothing under way: from, to its next turn."""
    by_start = sorted(own, key=lambda o: o.started or 0.0)
    for index, outcome in enumerate(by_start):
        assert outcome.started is not None
        free_from = max((o.ended for o in by_start[:index]), default=0.0)
        first_waiting = min(o.first_sent for o in by_start[index:])
        begin = max(first_waiting, free_from)
        if begin < outcome.started:
            yield begin, outcome.started


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the most, in seconds."""
    ordered = sorted(values)
    if not ordered:
        return {}
    found = {f"p{p}": ordered[int(p / 100 * (len(ordered) - 1))] for p in (50, 95, 99)}
    return {name: round(value, 3) for name, value in {**found, "most": ordered[-1]}.items()}


# --- command line ----------------------------------------------------------------------------


def table(result: Result) -> str:
    """A run's figures as Markdown."""
    lines = [f"| {result.name} | |", "|---|---|"]
    for key, value in asdict(result).items():
        if key in ("name", "problems"):
            continue
        shown = (
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        )
        lines.append(f"| {key.replace('_', ' ')} | {shown} |")
    lines.append(f"| problems | {len(result.problems)} |")
    return "\n".join(lines)


def runs(clients: int, requests: int) -> list[Run]:
    """The two runs of the benchmark."""
    greedy = max(1, clients // 25)
    return [
        Run("all alike", clients, requests),
        Run("greedy beside modest", clients // 5 + greedy, requests // 5, greedy, think_s=1.0),
    ]


def run_all(model: Path, planned: Sequence[Run], processes: int = 2, seed: int = 0) -> list[Result]:
    """Each run, on one daemon."""
    folder = short_folder()
    daemon = RunningDaemon(folder, model, {"ASSISTANTD_LIMITS_MAX_QUEUE": str(MAX_QUEUE)}).start()
    try:
        results = [measure(daemon, run, processes, seed + i) for i, run in enumerate(planned)]
        log = daemon.log.read_text()
        if daemon.stop() != 0 or "Traceback" in log:
            results[-1].problems.append(f"the daemon did not end well: {log[-2000:]}")
        return results
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()
        shutil.rmtree(folder)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("model", type=Path)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    planned = runs(options.clients, options.requests)
    results = run_all(options.model, planned, options.processes, options.seed)
    for result in results:
        print(table(result), end="\n\n")
        for problem in result.problems[:20]:
            print("PROBLEM", problem)
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
    sys.exit(any(result.problems for result in results))


if __name__ == "__main__":
    main()
