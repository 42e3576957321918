"""Clients for benchmarks/load.py: each asks its questions, and notes what became of every one.

They speak the protocol themselves, so that a message too many is seen and not swallowed.
"""

import asyncio
import random
import signal
import sys
import time
from dataclasses import dataclass, field

import zmq
import zmq.asyncio

from assistantd import protocol

LONG_TEXT = "The harbour lay still, and the boats moved a little with the tide. "
ANSWER_TIMEOUT_S = 900.0
"""A request that is neither answered nor refused for so long is lost."""
MESSAGES_PER_SESSION = 6


@dataclass(frozen=True)
class Task:
    """One request to make.

    Attributes:
        fate: "answered", "cancelled", "closed" (the socket is closed), "killed" (the process is).
    """

    number: int
    fate: str
    session: str | None
    text: str
    max_tokens: int
    chat: bool


@dataclass
class Outcome:
    """What became of a request; times are monotonic seconds, the same in all processes."""

    client: int
    task: Task
    first_sent: float = 0.0
    refused: int = 0
    started: float | None = None
    first_token: float | None = None
    ended: float = 0.0
    queued_ms: float | None = None
    finish_reason: str | None = None
    text: str = ""
    problem: str | None = None


@dataclass
class Report:
    """Of one client process."""

    outcomes: list[Outcome] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    """Messages that came for a request that had ended."""


def make_tasks(
    rng: random.Random, prefix: str, first: int, count: int, cancelled: float, vanishing: float
) -> list[Task]:
    """A client's requests: mixed prompts and lengths, fates by their shares.

    Args:
        prefix: of its sessions' names.
    """
    tasks = []
    for number in range(first, first + count):
        dice = rng.random()
        fate = "answered"
        if dice < cancelled:
            fate = "cancelled"
        elif dice < cancelled + vanishing:
            # a process of its own is dear: one in ten
            fate = "killed" if rng.random() < 0.1 else "closed"
        low, high = rng.choices(((1, 4), (5, 16), (17, 64), (65, 200)), (70, 20, 8, 2))[0]
        if fate != "answered":
            low, high = 150, 200  # there must be time for it
        kind = rng.random()
        text = f"Question {number}. " + ("Say something short." if kind < 0.95 else LONG_TEXT * 25)
        session = None
        if kind < 0.5 and fate != "killed":
            session = f"{prefix}-{(number - first) // MESSAGES_PER_SESSION}"
        tasks.append(Task(number, fate, session, text, rng.randint(low, high), kind < 0.75))
    return tasks


def to_request(task: Task) -> protocol.Request:
    """The request; one that is to be cut off does not end by itself."""
    bias = {"2": -100.0} if task.fate != "answered" else None
    if task.chat:
        return protocol.Chat(
            text=task.text, session=task.session, max_tokens=task.max_tokens, logit_bias=bias
        )
    return protocol.Complete(prompt=task.text, max_tokens=task.max_tokens, logit_bias=bias)


class LoadClient:
    """One connection, with up to `width` requests under way, until its tasks are done.

    Args:
        think_s: mean of the pause before each request.
    """

    def __init__(
        self,
        context: zmq.asyncio.Context,
        endpoint: str,
        number: int,
        tasks: list[Task],
        report: Report,
        *,
        width: int = 1,
        think_s: float = 0.0,
    ) -> None:
        self.context, self.endpoint, self.number = context, endpoint, number
        self.tasks, self.report, self.width, self.think_s = tasks[::-1], report, width, think_s
        self.rng = random.Random(number)
        self.ended: set[bytes] = set()
        self.inboxes: dict[bytes, asyncio.Queue[protocol.Reply]] = {}
        self.n_ids = 0
        self.connect()

    def connect(self) -> None:
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(self.endpoint)
        self.reader = asyncio.create_task(self.read(self.socket))

    async def read(self, socket: "zmq.asyncio.Socket") -> None:
        while True:
            request_id, reply = protocol.decode_reply(await socket.recv_multipart())
            inbox = self.inboxes.get(request_id)
            if inbox is None:
                self.report.strays.append(f"{self.number}: {request_id!r} {reply!r:.200}")
                continue
            inbox.put_nowait(reply)

    async def run(self) -> None:
        """Do all tasks."""
        await asyncio.gather(*(self.work() for _ in range(self.width)))
        # what is still on its way comes before the answer to this
        await asyncio.wait_for(self.request(protocol.Ping()), ANSWER_TIMEOUT_S)
        self.reader.cancel()
        self.socket.close()

    async def work(self) -> None:
        while self.tasks:
            task = self.tasks.pop()
            if self.think_s:
                await asyncio.sleep(self.rng.expovariate(1 / self.think_s))
            outcome = Outcome(self.number, task, first_sent=time.monotonic())
            self.report.outcomes.append(outcome)
            try:
                if task.fate == "killed":
                    await self.be_killed(outcome)
                else:
                    await self.ask(outcome)
            except TimeoutError:
                outcome.problem = "no answer"
            except (protocol.ProtocolError, zmq.ZMQError, OSError) as problem:
                outcome.problem = repr(problem)
            outcome.ended = time.monotonic()

    def send(self, request: protocol.Request) -> bytes:
        self.n_ids += 1
        request_id = b"%d-%d" % (self.number, self.n_ids)
        self.inboxes[request_id] = asyncio.Queue()
        self.socket.send_multipart(protocol.encode_request(request_id, request))
        return request_id

    async def request(self, request: protocol.Request) -> protocol.Reply:
        request_id = self.send(request)
        reply = await self.inboxes[request_id].get()
        del self.inboxes[request_id]
        return reply

    async def ask(self, outcome: Outcome) -> None:
        """Ask until it is taken, and follow the answer."""
        task = outcome.task
        while True:
            sent = time.monotonic()
            request_id = self.send(to_request(task))
            last = await self.follow(outcome, request_id)
            if last is None:
                return  # gone
            del self.inboxes[request_id]
            if isinstance(last, protocol.Done):
                break
            if last.error.code != "busy" or not last.error.retry_after_ms:
                outcome.problem = f"{last.error.code}: {last.error.message}"
                return
            outcome.refused += 1
            outcome.first_token = None
            await asyncio.sleep(last.error.retry_after_ms / 1000)
        outcome.finish_reason = last.finish_reason
        timings = last.timings
        if timings is None or last.text is None:
            outcome.problem = "an end without text or timings"
            return
        if last.text != outcome.text:
            outcome.problem = f"pieces {outcome.text!r:.100} but in all {last.text!r:.100}"
        outcome.queued_ms = timings.queued_ms
        outcome.started = sent + timings.queued_ms / 1000
        outcome.first_token = sent + timings.first_token_ms / 1000
        expected = ("cancelled",) if task.fate == "cancelled" else ("stop", "length")
        if outcome.finish_reason not in expected:
            outcome.problem = f"ended with {outcome.finish_reason}"

    async def follow(
        self, outcome: Outcome, request_id: bytes
    ) -> protocol.Done | protocol.Error | None:
        """Read to the end, or to the piece after which the task's fate is due; None then."""
        inbox, task = self.inboxes[request_id], outcome.task
        outcome.text, after = "", self.rng.randint(1, 20)
        n_pieces = 0
        while True:
            reply = await asyncio.wait_for(inbox.get(), ANSWER_TIMEOUT_S)
            if isinstance(reply, protocol.Done | protocol.Error):
                return reply
            if isinstance(reply, protocol.Progress):
                continue
            n_pieces += 1
            outcome.text += reply.text
            if outcome.started is None and task.fate == "closed":
                outcome.started = time.monotonic()  # about: nobody will tell more exactly
            if n_pieces != after:
                continue
            if task.fate == "cancelled":
                self.spawn_cancel(request_id)
            if task.fate == "closed":
                self.vanish()
                return None

    def spawn_cancel(self, request_id: bytes) -> None:
        task = asyncio.create_task(self.request(protocol.Cancel(target=request_id.decode())))
        self.background = task  # a task that nothing holds may be collected

    def vanish(self) -> None:
        """Close the socket in the middle of an answer, and come back as somebody else."""
        self.reader.cancel()
        self.socket.close()
        self.inboxes.clear()
        self.connect()

    async def be_killed(self, outcome: Outcome) -> None:
        """The same by a process of its own, which is killed at its first word."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            self.endpoint,
            str(outcome.task.number),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), ANSWER_TIMEOUT_S)
        outcome.started = time.monotonic()
        if line != b"speaking\n":
            outcome.problem = f"the process that was to be killed said {line!r}"
        else:
            process.send_signal(signal.SIGKILL)
        await process.wait()


def victim(endpoint: str, number: int) -> None:
    """Ask, say so at the first word, and go on until killed."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(endpoint)
        task = Task(number, "killed", None, f"Question {number}.", 200, True)
        while True:
            dealer.send_multipart(protocol.encode_request(b"v", to_request(task)))
            reply: protocol.Reply | None = None
            while not isinstance(reply, protocol.Done | protocol.Error):
                reply = protocol.decode_reply(dealer.recv_multipart())[1]
                if isinstance(reply, protocol.Delta):
                    print("speaking", flush=True)
            if isinstance(reply, protocol.Error):
                time.sleep((reply.error.retry_after_ms or 1000) / 1000)


if __name__ == "__main__":
    victim(sys.argv[1], int(sys.argv[2]))
