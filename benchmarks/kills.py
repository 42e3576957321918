"""kill -9 at random points: is everything that was acknowledged still there, every time?

    python -m benchmarks.kills MODEL.gguf [--kills 1000] [--seed 0] [--json docs/kills.json]

One folder of data is used by one daemon after the other. Each is asked for something (PHASES) and
killed in the middle: at a random moment, at the n-th reply, or at the n-th change of a file, so
also within a commit, between a file and its rename, or while it starts. Then its files are looked
at as they are, the next daemon is started, and must be ready without help and know all that any
before it has acknowledged.

Killing a process loses nothing that it has handed to the kernel; for that see power_cuts.py.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from assistantd import protocol
from assistantd.durable import write_durable
from benchmarks.kill_ledger import Ledger, half_models, unreadable
from benchmarks.kill_triggers import Trigger
from tests.assistantd.web import FileServer
from tests.running import short_folder

PHASES = ("chat", "chat", "pull", "save", "sessions", "network", "load", "reload", "start")
READY_S = 120.0
PULLED = "pulled"
SESSIONS_CHECKED = 12
"""After each kill, the latest; all of them at the end."""


class GoneError(Exception):
    """The daemon was killed before it answered."""


class RefusedError(Exception):
    """The daemon answered with an error."""


class Nursery:
    """Starts daemons quickly; see daemon_nursery.py."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.daemon_nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._changed = threading.Condition()
        self._started: list[int] = []
        self._ended: dict[int, int] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            with self._changed:
                if "started" in told:
                    self._started.append(told["started"])
                    self._ended.pop(told["started"], None)  # the system gives numbers again
                else:
                    self._ended[told["ended"]] = told["status"]
                self._changed.notify_all()

    def start(self, environment: dict[str, str], log: Path) -> int:
        """Start a daemon; its process id."""
        assert self._process.stdin is not None
        order = {"environment": environment, "log": str(log)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        with self._changed:
            self._changed.wait_for(lambda: self._started, READY_S)
            return self._started.pop()

    def status(self, pid: int) -> int | None:
        """How it ended; None if it runs."""
        with self._changed:
            return self._ended.get(pid)

    def wait(self, pid: int) -> int:
        """How it ended, once it has."""
        with self._changed:
            assert self._changed.wait_for(lambda: pid in self._ended, READY_S), "it does not end"
            return self._ended[pid]

    def close(self) -> None:
        """Kill what runs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._reader.join()  # it ends with the pipe
        assert self._process.stdout is not None
        self._process.stdout.close()


class Line:
    """A connection that knows when its daemon is gone, and repeats nothing."""

    def __init__(
        self,
        endpoint: str,
        gone: Callable[[], bool],
        on_reply: Callable[[], None] | None = None,
        void: Callable[[], bool] = lambda: False,
    ) -> None:
        self._gone, self._on_reply, self._void = gone, on_reply or (lambda: None), void
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(endpoint)
        self._n = 0

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def ask(self, request: protocol.Request) -> protocol.Done:
        """Send a request, wait for its end.

        Raises:
            GoneError, RefusedError.
        """
        self._n += 1
        name = b"%d" % self._n
        self._socket.send_multipart(protocol.encode_request(name, request))
        until = time.monotonic() + READY_S
        while True:
            # what it said before it died counts
            if not self._socket.poll(20):
                if self._gone():
                    raise GoneError
                if time.monotonic() > until:
                    raise RefusedError(f"no answer to {request!r}")
                continue
            _id, reply = protocol.decode_reply(self._socket.recv_multipart())
            if self._void():
                raise GoneError
            self._on_reply()
            if isinstance(reply, protocol.Error):
                raise RefusedError(f"{reply.error.code}: {reply.error.message}")
            if isinstance(reply, protocol.Done):
                return reply


@dataclass
class Totals:
    """What the whole run gave."""

    kills: Counter[str] = field(default_factory=Counter)
    """By phase and kind of moment."""
    ended_before: int = 0
    """It had ended by itself when it was to be killed."""
    problems: list[str] = field(default_factory=list)
    lost: int = 0
    unreadable: int = 0
    not_ready: int = 0
    ready_s: list[float] = field(default_factory=list)


class Kills:
    """The run.

    Args:
        folder: short, and empty.
    """

    def __init__(self, model: Path, folder: Path, seed: int, data: Path | None = None) -> None:
        self.model, self.folder = model, folder
        self.rng = random.Random(seed)
        self.endpoint = f"ipc://{folder}/a.sock"
        self.data, self.log = data or folder / "data", folder / "log"
        self.environment = {
            "ASSISTANTD_ENDPOINT": self.endpoint,
            "ASSISTANTD_DATA_DIR": str(self.data),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "ASSISTANTD_ENGINE_KV_DISK": "32M",
            "NOTIFY_SOCKET": "",
        }
        # two names, so that a reload has another model to load
        self.models = [folder / "one.gguf", folder / "two.gguf"]
        for name in self.models:
            shutil.copyfile(model, name)
        self.configure(self.models[0])
        self.ledger, self.totals = Ledger(), Totals()
        self.nursery = Nursery()
        content = model.read_bytes()
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.web = FileServer(content)
        self.ledger.changed(("network", "on"), "False")
        self.port = 20000 + os.getpid() % 20000

    # --- one kill ----------------------------------------------------------------------------

    def cycle(self, number: int) -> None:
        """Start, check what came before, ask, kill, look at the files."""
        phase = self.rng.choice(PHASES)
        kind = self.rng.choice(("random", "reply", "file"))
        if phase in ("start", "save") and kind == "reply":
            kind = "file"
        folders = [self.data, *(self.data / name for name in ("kv", "models", "network"))]
        started = time.monotonic()
        pid = self.nursery.start(self.environment, self.log)
        if phase == "start":
            with self.trigger(kind, pid, folders, self.rng, 0.4, 25):
                status = self.nursery.wait(pid)
        else:
            if not self.ready(pid):
                return
            self.totals.ready_s.append(time.monotonic() - started)
            self.check(pid, self.ledger.sessions()[-SESSIONS_CHECKED:])
            spread_s, spread = (0.2, 12) if phase == "save" else (0.5, 60)
            if phase == "save":
                self.talk(f"k{number}", lambda: False, lambda: None, 2)
                os.kill(pid, signal.SIGTERM)
            with self.trigger(kind, pid, folders, self.rng, spread_s, spread) as trigger:
                self.work(phase, number, trigger)
                status = self.nursery.wait(pid)
                trigger.gone.set()
                trigger.reply()
        self.after(status)
        if status == -signal.SIGKILL:
            self.totals.kills[f"{phase}, {kind}"] += 1
        else:
            self.totals.ended_before += 1
            if not self.is_well(phase, status):
                self.problem(f"it ended with {status} in {phase}")
        for found in unreadable(self.data):
            self.totals.unreadable += 1
            self.problem(found)
        for found in half_models(self.data, self.sha256):
            self.problem(found)

    def trigger(
        self,
        kind: str,
        pid: int,
        folders: Sequence[Path],
        rng: random.Random,
        spread_s: float,
        spread: int,
    ) -> Trigger:
        """What ends a daemon."""
        return Trigger(kind, pid, folders, rng, spread_s, spread)

    def after(self, status: int) -> None:
        """A daemon has ended, with this status."""

    def is_well(self, phase: str, status: int) -> bool:
        """Whether a daemon that was not killed may have ended so."""
        return status == 0

    def expected(self, refused: RefusedError) -> bool:
        """Whether a refusal is right at the end of a daemon."""
        return False

    def log_problems(self) -> list[str]:
        """What must not be in the log."""
        return ["there is a traceback in the log"] if "Traceback" in self.log.read_text() else []

    def problem(self, text: str) -> None:
        """Note one."""
        print("PROBLEM", text, flush=True)
        self.totals.problems.append(text)

    def ready(self, pid: int) -> bool:
        """Wait until a daemon has computed a token."""
        try:
            with self.line(pid) as line:
                line.ask(protocol.Complete(prompt="a", max_tokens=1))
            return True
        except (GoneError, RefusedError) as problem:
            self.totals.not_ready += 1
            self.problem(f"not ready: {problem!r}, {self.log.read_text()[-1500:]}")
            if self.nursery.status(pid) is None:
                os.kill(pid, signal.SIGKILL)
                self.nursery.wait(pid)
            return False

    def line(self, pid: int, on_reply: Callable[[], None] | None = None) -> Line:
        """A connection to a daemon."""
        return Line(self.endpoint, lambda: self.nursery.status(pid) is not None, on_reply)

    # --- what is asked for -------------------------------------------------------------------

    def work(self, phase: str, number: int, trigger: Trigger) -> None:
        """Ask for things until the daemon is gone."""
        gone, on_reply, void = trigger.gone.is_set, trigger.reply, trigger.void.is_set
        jobs: list[Callable[[], None]] = [
            lambda: self.talk(f"k{number}-a", gone, on_reply, void=void),
        ]
        other = {
            "chat": lambda: self.talk(f"k{number}-b", gone, on_reply, void=void),
            "pull": lambda: self.guarded(self.pull, gone, on_reply, void),
            "sessions": lambda: self.guarded(self.tidy, gone, on_reply, void),
            "network": lambda: self.guarded(self.devices, gone, on_reply, void),
            "load": lambda: self.guarded(self.load, gone, on_reply, void),
            "reload": lambda: self.guarded(self.reload, gone, on_reply, void),
        }.get(phase)
        if other is not None:
            jobs.append(other)
        if phase == "save":
            jobs.clear()
        threads = [threading.Thread(target=self.watched, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def watched(self, job: Callable[[], None]) -> None:
        """A thread that fails is a problem, not a thread less."""
        try:
            job()
        except Exception as problem:
            self.problem(f"a client failed: {problem!r}")

    def talk(
        self,
        session: str,
        gone: Callable[[], bool],
        on_reply: Callable[[], None],
        most: int = 1 << 30,
        void: Callable[[], bool] = lambda: False,
    ) -> None:
        """Ask one question after the other in a session."""
        with Line(self.endpoint, gone, on_reply, void) as line:
            for number in range(most):
                question = f"{session}-{number}: count to five."
                self.ledger.asking(session, question)
                request = protocol.Chat(text=question, session=session, max_tokens=6)
                try:
                    done = line.ask(request)
                except GoneError:
                    return
                except RefusedError as refused:
                    if not self.expected(refused):
                        self.problem(f"a question was refused: {refused}")
                    continue
                if not done.message:  # which says that it is not saved
                    self.ledger.answered(session, question, done.text or "")

    def guarded(
        self,
        work: Callable[[Line], None],
        gone: Callable[[], bool],
        on_reply: Callable[[], None],
        void: Callable[[], bool],
    ) -> None:
        """Do something again and again until the daemon is gone."""
        with Line(self.endpoint, gone, on_reply, void) as line:
            try:
                while True:
                    work(line)
            except GoneError:
                return
            except RefusedError as refused:
                if not self.expected(refused):
                    self.problem(f"{work.__name__} was refused: {refused}")

    def change(
        self, line: Line, kind: str, name: str, value: str | None, request: protocol.Request
    ) -> protocol.Done:
        """A request that changes a fact."""
        self.ledger.changing((kind, name), value)
        done = line.ask(request)
        self.ledger.changed((kind, name), value)
        return done

    def pull(self, line: Line) -> None:
        """Fetch a model over HTTP, remove it."""
        there = protocol.Models(op="pull", name=f"{self.web.url}/{PULLED}.gguf")
        if not (self.data / "models" / f"{PULLED}.gguf").exists():
            self.change(line, "model", PULLED, "there", there)
        self.change(line, "model", PULLED, None, protocol.Models(op="remove", name=PULLED))

    def tidy(self, line: Line) -> None:
        """Rename a session of an earlier daemon's, or delete one."""
        done = line.ask(protocol.Sessions(op="list"))
        mine = [s.id for s in done.sessions or [] if "-" in s.id and s.n_messages]
        if len(mine) < 4:
            line.ask(protocol.Ping())
            return
        name = self.rng.choice(mine[2:])  # the first is spoken in just now
        if self.rng.random() < 0.3 and len(mine) > 30:
            request = protocol.Sessions(op="delete", session=name)
            self.change(line, "session", name, "deleted", request)
            return
        title = f"title {self.rng.randrange(10**9)}"
        self.change(
            line, "title", name, title, protocol.Sessions(op="rename", session=name, title=title)
        )

    def devices(self, line: Line) -> None:
        """Let devices in and out, and listen on the network or not."""
        name = f"device {self.rng.randrange(10**9)}"
        added = line.ask(protocol.Devices(op="add", name=name)).device
        assert added is not None
        self.ledger.changed(("device", added.id), name)
        new = f"{name} renamed"
        self.change(
            line, "device", added.id, new, protocol.Devices(op="rename", id=added.id, name=new)
        )
        on = self.rng.random() < 0.5
        self.change(
            line,
            "network",
            "on",
            str(on),
            protocol.Network(op="on", address="127.0.0.1", port=self.port)
            if on
            else protocol.Network(op="off"),
        )
        known = self.ledger.keys("device")
        if len(known) > 5:
            other = self.rng.choice(known)
            if self.ledger.is_sure(("device", other)):
                done = line.ask(protocol.Devices(op="list"))
                if any(device.id == other for device in done.devices or []):
                    revoke = protocol.Devices(op="revoke", id=other)
                    self.change(line, "device", other, None, revoke)

    def load(self, line: Line) -> None:
        """Load a model, give it another budget."""
        line.ask(protocol.Models(op="load", name=str(self.rng.choice(self.models))))
        line.ask(protocol.Budget(bytes=self.rng.choice((0, 400 << 20, 500 << 20))))

    def reload(self, line: Line) -> None:
        """Change the configuration, and have it read again."""
        self.configure(self.rng.choice(self.models))
        line.ask(protocol.Reload())

    def configure(self, model: Path) -> None:
        """Write the configuration."""
        text = f'model = "{model}"\nmemory_budget = "{self.rng.choice((400, 500, 600))}M"\n'
        file = self.folder / "config" / "assistantd" / "config.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_durable(file, text.encode())

    # --- checking ----------------------------------------------------------------------------

    def check(self, pid: int, sessions: list[str]) -> None:
        """Compare what a daemon says with what was acknowledged."""
        with self.line(pid) as line:
            found = list(self.differences(line, sessions))
        for text in found:
            self.totals.lost += 1
            self.problem(text)

    def differences(self, line: Line, sessions: list[str]) -> list[str]:
        """All of them."""
        found: list[str] = []
        ledger = self.ledger
        listed = {s.id: s for s in line.ask(protocol.Sessions(op="list")).sessions or []}
        for name in ledger.keys("title"):
            if name in listed:
                title = listed[name].title
                # what it is called at first is its first question
                given = title if title.startswith("title ") else None
                found += ledger.check_fact(("title", name), given)
        for name in sessions:
            messages = None
            if name in listed:
                session = line.ask(protocol.Sessions(op="show", session=name)).session
                assert session is not None and session.messages is not None
                messages = [(m.role, m.content, m.answered) for m in session.messages]
            found += ledger.check_session(name, messages)
        for name in ledger.keys("session"):
            if name in listed and ledger.is_sure(("session", name)):
                found.append(f"{name} is back from the dead")
        devices = {d.id: d.name for d in line.ask(protocol.Devices(op="list")).devices or []}
        for name in ledger.keys("device"):
            found += ledger.check_fact(("device", name), devices.get(name))
        network = line.ask(protocol.Network(op="status")).network
        if ledger.keys("network") and network is not None:
            found += ledger.check_fact(("network", "on"), str(network.on))
        models = {m.name: m for m in line.ask(protocol.Models(op="list")).models or []}
        if ledger.keys("model"):
            there = "there" if PULLED in models else None
            found += ledger.check_fact(("model", PULLED), there)
            if there and models[PULLED].problem:
                found.append(f"the model that was pulled: {models[PULLED].problem}")
        return found

    # --- all ---------------------------------------------------------------------------------

    def run(self, kills: int) -> dict[str, object]:
        """So many kills; what came of them."""
        try:
            with self.web.running():
                self.cycles(kills)
        finally:
            self.nursery.close()
        for found in self.log_problems():
            self.problem(found)
        return self.result()

    def cycles(self, kills: int) -> None:
        """The kills, and one more start, after which everything is looked at."""
        number = 0
        while sum(self.totals.kills.values()) < kills and len(self.totals.problems) < 50:
            self.cycle(number)
            number += 1
            if number % 25 == 0:
                print(time.strftime("%H:%M:%S"), json.dumps(self.result()), flush=True)
        pid = self.nursery.start(self.environment, self.log)
        if self.ready(pid):
            self.check(pid, self.ledger.sessions())
            os.kill(pid, signal.SIGTERM)
            if self.nursery.wait(pid) != 0:
                self.problem("the last one did not end well")

    def result(self) -> dict[str, object]:
        """The figures."""
        totals, ready = self.totals, sorted(self.totals.ready_s)
        phases: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        for name, n in totals.kills.items():
            phase, kind = name.split(", ")
            phases[phase] += n
            kinds[kind] += n
        return {
            "kills": sum(totals.kills.values()),
            "by_phase": dict(sorted(phases.items())),
            "by_moment": dict(sorted(kinds.items())),
            "ended_before": totals.ended_before,
            "acknowledged": self.ledger.n_acknowledged,
            "lost": totals.lost,
            "unreadable": totals.unreadable,
            "starts_without_ready": totals.not_ready,
            "ready_s": {p: round(ready[int(p / 100 * (len(ready) - 1))], 2) for p in (50, 99)}
            if ready
            else {},
            "problems": totals.problems,
        }


def kill_many(model: Path, kills: int, seed: int = 0) -> dict[str, object]:
    """All of it, in a folder that is removed if nothing went wrong."""
    folder = short_folder()
    result = Kills(model, folder, seed).run(kills)
    if result["problems"]:
        print(f"the files are left in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    result = kill_many(options.model.resolve(), options.kills, options.seed)
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(bool(result["problems"]))


if __name__ == "__main__":
    main()
