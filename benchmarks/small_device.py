"""A day on a small device, faster: does anything grow, does anything stop?

    python -m benchmarks.small_device MODEL.gguf [--minutes 45] [--json docs/small-device.json]

Daemon and gateway together have 512 MB of memory, and a disk of 20 MB/s. Two clients ask now and
then, one of them with a new connection each time; a page is connected through the gateway, asks
seldom, and comes and goes; `assistant voice` listens to a silent room (with a limit of its own: the
Korean recogniser alone takes 600 MB). Meanwhile nobody asks for longer than idle_unload_s, models
are unloaded and loaded, the budget is changed, old sessions are deleted, the wall clock jumps.

Linux, as root, with PulseAudio and libfaketime; without the last two, without what needs them.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from assistantd.protocol import Devices
from benchmarks.device import SmallDevice, small_device, with_own_mounts
from benchmarks.process_figures import Figures, figures_of, slope
from clients import Client
from clients.errors import AssistantError, Busy
from tests.e2e.voice.sound_server import (
    VIRTUAL_MICROPHONE,
    VIRTUAL_SPEAKER,
    SoundServer,
    missing_programs,
)
from tests.e2e.web.gateway.process import RunningGateway
from tests.memory.limits import KernelLimit
from tests.running import RunningDaemon, short_folder

MEMORY = 512 << 20
VOICE_MEMORY = 1 << 30
DISK = 800 << 20
BYTES_PER_SECOND = 20_000_000
BUDGETS = (300 << 20, 260 << 20)
IDLE_UNLOAD_S = 8
SAMPLE_EVERY_S = 5.0
WARM_UP_SHARE = 1 / 3
BLOCKS = 15
KEPT_SESSIONS = 20
ANSWER_TIMEOUT_S = 300.0
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
CLOCKS = ("+0", "+2d", "-5h", "+400d", "-30d")
QUESTIONS = (
    "What is the capital of France?",
    "Tell me about the sea in one sentence.",
    "How do I boil an egg?",
    "Name three animals of the forest.",
    "Why is the sky blue? " + "Think about light and air. " * 12,
)


@dataclass
class Sample:
    """Everything that might grow, at one moment; bytes where not said otherwise."""

    at_s: float
    processes: dict[str, Figures]
    cgroup: int
    database: int
    kv: int
    logs: int
    questions: int


@dataclass
class Day:
    """What happened so far; shared by threads."""

    until: float
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def pause(self, seconds: float) -> bool:
        """Wait, at most to the end of the day; whether it goes on."""
        self.over.wait(max(0.0, min(seconds, self.until - time.monotonic())))
        return not self.over.is_set() and time.monotonic() < self.until


# --- who lives there -------------------------------------------------------------------------


def ask_once(day: Day, client: Client, session: str, rng: random.Random) -> None:
    """One question; `busy` is tried again."""
    started = time.monotonic()
    while True:
        try:
            answer = client.ask(
                rng.choice(QUESTIONS), session=session, max_tokens=rng.randint(4, 40)
            ).wait()
        except Busy as busy:
            day.counts["busy"] += 1
            day.pause((busy.retry_after_ms or 1000) / 1000)
            continue
        break
    day.counts["questions"] += 1
    day.waits_s.append(time.monotonic() - started)
    if answer.finish_reason not in ("stop", "length"):
        day.problems.append(f"an answer ended with {answer.finish_reason}")


def steady_client(day: Day, daemon: RunningDaemon) -> None:
    """Keeps its connection all day."""
    rng = random.Random(1)
    with Client(daemon.endpoint, timeout=ANSWER_TIMEOUT_S) as client:
        for number in itertools.count():
            if not day.pause(pause_of(rng)):
                return
            ask_once(day, client, f"steady-{number // 8}", rng)


def passing_client(day: Day, daemon: RunningDaemon) -> None:
    """A new connection for each question, as `assistant "…"` has; now and then it hangs up."""
    rng = random.Random(2)
    for number in itertools.count():
        if not day.pause(pause_of(rng)):
            return
        with Client(daemon.endpoint, timeout=ANSWER_TIMEOUT_S) as client:
            if number % 10 == 9:
                answer = client.ask("Go on for ever.", max_tokens=200, logit_bias={"2": -100})
                next(iter(answer))
                day.counts["hung up"] += 1
            else:
                ask_once(day, client, f"passing-{number // 5}", rng)


def pause_of(rng: random.Random) -> float:
    """Between two questions; one in 12 is long enough for the weights to be given back."""
    return rng.uniform(12, 20) if rng.random() < 1 / 12 else rng.expovariate(1 / 3.5)


def page(day: Day, gateway: RunningGateway) -> None:
    """A page that is open, asks seldom, and is loaded anew now and then."""
    import websockets

    async def live() -> None:
        rng = random.Random(3)
        ids = itertools.count()
        async with gateway.browser() as browser:
            await gateway.pair(browser)
            cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
            while not day.over.is_set():
                (await browser.get("/")).raise_for_status()
                day.counts["pages loaded"] += 1
                async with websockets.connect(
                    f"ws://localhost:{gateway.port}/ws",
                    origin=websockets.Origin(gateway.plain),
                    additional_headers={"cookie": cookie},
                    proxy=None,
                ) as socket:
                    for _question in range(rng.randint(1, 6)):
                        if not await asyncio.to_thread(day.pause, rng.uniform(5, 25)):
                            return
                        await ask(socket, f"day-{next(ids)}", rng)

    async def ask(socket: "websockets.ClientConnection", name: str, rng: random.Random) -> None:
        frame = {"type": "chat", "id": name, "text": rng.choice(QUESTIONS), "max_tokens": 24}
        await socket.send(json.dumps(frame))
        reply = {"type": "", "id": ""}
        while reply["type"] not in ("done", "error") or reply.get("id") != name:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                reply = json.loads(await socket.recv())
        day.counts["questions of the page"] += 1
        if reply["type"] == "error":
            day.problems.append(f"the page was told {reply}")

    asyncio.run(live())


def housekeeper(day: Day, daemon: RunningDaemon, clock: Path | None) -> None:
    """What an owner does, and what happens to a device."""
    rng = random.Random(4)
    with Client(daemon.endpoint, timeout=ANSWER_TIMEOUT_S) as client:
        for number in itertools.count():
            if not day.pause(rng.uniform(10, 20)):
                return
            match number % 5:
                case 0:
                    old = client.sessions()[KEPT_SESSIONS:]
                    for session in old:
                        client.delete_session(session.id)
                    day.counts["sessions deleted"] += len(old)
                case 1:
                    client.set_budget(BUDGETS[number // 5 % 2])
                    day.counts["budget changes"] += 1
                case 2 if clock is not None:
                    clock.write_text(CLOCKS[number // 5 % len(CLOCKS)] + "\n")
                    day.counts["clock jumps"] += 1
                case 3:
                    client.load(str(daemon.model))
                    day.counts["reloads"] += 1
                case _:
                    client.status(), client.models(), client.request(Devices(op="list"))
                    day.counts["looks"] += 1


@contextlib.contextmanager
def voice(daemon: RunningDaemon) -> Iterator[subprocess.Popen[bytes] | None]:
    """`assistant voice` in a silent room, ready to hear; None if there is no PulseAudio here."""
    if missing_programs():
        yield None
        return
    with KernelLimit(VOICE_MEMORY) as limit, SoundServer() as server:
        environment = {
            **server.environment,
            "ASSISTANTD_ENDPOINT": daemon.endpoint,
            "ASSISTANT_VOICE_ENDPOINT": f"ipc://{server.folder}/button",
        }
        command = [*limit.within, sys.executable, "-m", "clients.cli", "voice", "--json"]
        command += ["--answer-language", "en", "--voice", "espeak-ng:en-us"]
        command += ["--microphone", VIRTUAL_MICROPHONE, "--speaker", VIRTUAL_SPEAKER]
        log = (daemon.folder / "voice.log").open("wb")
        with (
            log,
            subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            ) as process,
        ):
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if json.loads(line).get("text") == "waiting":
                        break
                drain = threading.Thread(target=process.stdout.read)
                drain.start()
                yield process
                if process.poll() is None:
                    process.terminate()
                process.wait(60)
                drain.join()
            finally:
                process.kill()


# --- watching --------------------------------------------------------------------------------


def watch(day: Day, device: SmallDevice, folder: Path, pids: dict[str, int]) -> None:
    """Take samples until the day is over."""
    started = time.monotonic()
    while day.pause(SAMPLE_EVERY_S):
        data = device.disk / "data"
        day.samples.append(
            Sample(
                at_s=round(time.monotonic() - started, 1),
                processes={name: figures_of(pid) for name, pid in pids.items()},
                cgroup=int((device.memory.folder / "memory.usage_in_bytes").read_text()),
                database=sum(file.stat().st_size for file in data.glob("**/*.db*")),
                kv=sum(file.stat().st_size for file in data.glob("kv/*")),
                logs=sum(file.stat().st_size for file in folder.glob("*log")),
                questions=day.counts["questions"],
            )
        )


def guarded(day: Day, work: Callable[..., None], *args: object) -> Callable[[], None]:
    """Work whose end by an exception is a problem, not a thread that is missing."""

    def run() -> None:
        try:
            work(day, *args)
        except (AssistantError, OSError, AssertionError, TimeoutError) as problem:
            day.problems.append(f"{work.__name__} ended: {problem!r}")

    return run


def lows(at: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The least of each of BLOCKS parts of the time: what is taken and given back is no growth."""
    n = max(1, len(values) // BLOCKS)
    starts = range(0, len(values) - n + 1, n)
    return [at[start] for start in starts], [min(values[start : start + n]) for start in starts]


def growth(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Of each series after warm-up: its mean, and what the line of its lows rises by."""
    settled = samples[int(len(samples) * WARM_UP_SHARE) :]
    at = [sample.at_s for sample in settled]
    series: dict[str, list[float]] = {
        "cgroup, MB": [s.cgroup / 1e6 for s in settled],
        "databases, MB": [s.database / 1e6 for s in settled],
        "saved state, MB": [s.kv / 1e6 for s in settled],
    }
    for name in settled[0].processes:
        figures = [s.processes[name] for s in settled]
        series[f"{name}: RssAnon, MB"] = [f.rss_anon_bytes / 1e6 for f in figures]
        series[f"{name}: RSS, MB"] = [f.rss_bytes / 1e6 for f in figures]
        series[f"{name}: descriptors"] = [float(f.descriptors) for f in figures]
        series[f"{name}: threads"] = [float(f.threads) for f in figures]
    return {
        name: {
            "mean": round(sum(values) / len(values), 2),
            "most": round(max(values), 2),
            "grown": round(slope(*lows(at, values)) * (at[-1] - at[0]), 2),
        }
        for name, values in series.items()
    }


def judge(day: Day, grown: dict[str, dict[str, float]]) -> None:
    """Add to the problems what grew by more than it goes up and down."""
    for name, figures in grown.items():
        if name.startswith("cgroup") or "RSS" in name:
            continue  # with what the page cache holds, which the kernel takes back
        allowed = max(0.05 * figures["mean"], 4.0 if "MB" in name else 1.5)
        if figures["grown"] > allowed:
            day.problems.append(f"{name} grew by {figures['grown']}")


def live_a_day(model: Path, minutes: float) -> dict[str, object]:
    """All of it; figures and problems."""
    with contextlib.ExitStack() as closing:
        device = closing.enter_context(small_device(MEMORY, DISK, BYTES_PER_SECOND))
        folder = short_folder()
        own_model = device.disk / "model.gguf"
        with own_model.open("wb") as file:
            file.write(model.read_bytes())
            file.flush()
            os.fsync(file.fileno())
            # what stays in the page cache would be charged to who wrote it, not to the device
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        settings = {
            "ASSISTANTD_DATA_DIR": str(device.disk / "data"),
            "ASSISTANTD_MEMORY_BUDGET": f"{BUDGETS[0] >> 20}M",
            "ASSISTANTD_IDLE_UNLOAD_S": str(IDLE_UNLOAD_S),
            "ASSISTANTD_ENGINE_KV_DISK": "64M",
        }
        clock: Path | None = None
        if FAKETIME.exists():
            clock = folder / "clock"
            clock.write_text("+0\n")
            settings |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        daemon = RunningDaemon(folder, own_model, settings, device.within).start()
        closing.callback(lambda: daemon.process.kill() if daemon.process else None)
        gateway = RunningGateway(daemon, folder)
        gateway.within = device.within
        gateway.start()
        closing.callback(lambda: gateway.process.kill())
        speaking = closing.enter_context(voice(daemon))
        assert daemon.process is not None
        pids = {"daemon": daemon.process.pid, "gateway": gateway.process.pid}
        if speaking is not None:
            pids["voice"] = speaking.pid
        day = Day(until=time.monotonic() + 60 * minutes)
        residents = (
            guarded(day, steady_client, daemon),
            guarded(day, passing_client, daemon),
            guarded(day, page, gateway),
            guarded(day, housekeeper, daemon, clock),
            guarded(day, watch, device, folder, pids),
        )
        threads = [threading.Thread(target=resident) for resident in residents]
        for thread in threads:
            thread.start()
        while day.pause(60):
            print(f"{day.until - time.monotonic():.0f} s left", dict(day.counts), flush=True)
        day.over.set()
        for thread in threads:
            thread.join()
        for name, pid in pids.items():
            if not Path(f"/proc/{pid}").exists():
                day.problems.append(f"{name} is gone")
        kills = device.memory.kills
        if kills:
            day.problems.append(f"the kernel killed {kills} times for want of memory")
        grown = growth(day.samples)
        judge(day, grown)
        codes = [gateway.stop(), daemon.stop()]
        log = daemon.log.read_text()
        if codes != [0, 0] or "Traceback" in log:
            day.problems.append(f"ended with {codes}: {log[-1500:]}")
        waits = sorted(day.waits_s)
        last = day.samples[-1]
        return {
            "minutes": minutes,
            "counts": dict(day.counts),
            "answer_s": {p: round(waits[int(p / 100 * (len(waits) - 1))], 2) for p in (50, 95, 99)},
            "longest_answer_s": round(waits[-1], 2),
            "log_bytes_per_question": round(last.logs / max(1, last.questions)),
            "memory_peak_mb": round(device.memory.peak / 1e6, 1),
            "growth": grown,
            "problems": day.problems,
            "samples": [asdict(sample) for sample in day.samples[::3]],
        }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with_own_mounts()
    os.nice(2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    result = live_a_day(options.model, options.minutes)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    del result["samples"]
    print(json.dumps(result, indent=1))
    sys.exit(bool(result["problems"]))


if __name__ == "__main__":
    main()
