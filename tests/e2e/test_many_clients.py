"""Ten clients at once, some of them badly behaved; and memory that comes back."""

import threading
from pathlib import Path

import zmq

from assistantd import protocol
from clients import Client
from tests.running import RunningDaemon

GARBAGE = (
    [b""],
    [b"assistant/1"],
    [b"assistant/2", b"1", b"{}"],
    [b"assistant/1", b"", b"{}"],
    [b"assistant/1", b"x" * 65, b"{}"],
    [b"assistant/1", b"1", b"\xff\xfe"],
    [b"assistant/1", b"2", b'{"type":"chat","text":"\\ud800"}'],
    [b"assistant/1", b"3", b'{"type":"chat"' + b"[" * 10_000],
    [b"assistant/1", b"4", b'{"type":"chat","text":"a","temperature":1e999}'],
    [b"assistant/1", b"5", b"x" * (protocol.MAX_BODY_BYTES + 1)],
    [b"", b"", b"", b"", b""],
    [b"\0" * 1000] * 20,
)


def ask(daemon: RunningDaemon, number: int, answers: dict[int, protocol.Done]) -> None:
    prompts = ("Say hello.", "Name five animals.", "Write about the sea. " * 40)
    with daemon.client() as client:
        answer = client.ask(
            prompts[number % 3], seed=number, max_tokens=10 + 10 * (number % 4), temperature=0.8
        )
        answer.wait()
        assert answer.done is not None
        answers[number] = answer.done


def cancel(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        answer = client.ask("Count to a thousand.", max_tokens=500, logit_bias={"2": -100})
        next(iter(answer))
        answer.cancel()
        answer.wait()
        assert answer.finish_reason == "cancelled"


def vanish(daemon: RunningDaemon) -> None:
    """Ask, read one piece, and be gone without a word."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(daemon.endpoint)
        request = protocol.Chat(text="Go on for ever.", max_tokens=4000, logit_bias={"2": -100})
        dealer.send_multipart(protocol.encode_request(b"v", request))
        dealer.recv_multipart()


def send_garbage(daemon: RunningDaemon) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(daemon.endpoint)
        for frames in GARBAGE:
            dealer.send_multipart(frames)
        # the connection still works
        dealer.send_multipart(protocol.encode_request(b"ping", protocol.Ping()))
        while True:
            assert dealer.poll(30_000)
            frames = dealer.recv_multipart()
            # some garbage begins like a REQ's envelope, and is answered in one
            request_id, reply = protocol.decode_reply(frames[1:] if not frames[0] else frames)
            if request_id == b"ping":
                assert isinstance(reply, protocol.Done)
                return
            assert isinstance(reply, protocol.Error)


def wave(daemon: RunningDaemon) -> dict[int, protocol.Done]:
    """Seven good clients with three bad ones; the good ones' answers."""
    answers: dict[int, protocol.Done] = {}
    problems: list[BaseException] = []

    def guarded(work: object, *args: object) -> None:
        try:
            work(*args)  # type: ignore[operator]
        except BaseException as problem:
            problems.append(problem)

    jobs: list[tuple[object, ...]] = [(ask, daemon, i, answers) for i in range(7)]
    jobs += [(cancel, daemon), (vanish, daemon), (send_garbage, daemon)]
    threads = [threading.Thread(target=guarded, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not problems, problems
    return answers


def wait_until_idle(client: Client) -> protocol.StatusInfo:
    """Ask for the status until nothing is under way: the vanished client's answer has ended."""
    for _ in range(100_000):
        status = client.status()
        if status.queue.active == 0 and status.queue.waiting == 0:
            return status
    raise AssertionError("the daemon is still busy")


def anonymous_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def test_ten_clients_and_memory(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        for _ in range(2):  # buffers and the heap grow to their size
            wave(daemon)
        before = wait_until_idle(client)
        base = anonymous_bytes(before.pid)
        for _ in range(3):
            answers = wave(daemon)
            assert len(answers) == 7
            for done in answers.values():
                assert done.text and done.finish_reason in ("stop", "length")
                assert done.timings is not None and done.timings.completion_tokens > 0
        after = wait_until_idle(client)
        now = anonymous_bytes(after.pid)
    print(f"anonymous memory {base / 1e6:.1f} MB before, {now / 1e6:.1f} MB after")
    grown_cache = max(0, after.memory["kv_used"] - before.memory["kv_used"])
    assert now - base - grown_cache < 8_000_000


def test_neighbours_do_not_change_an_answer(daemon: RunningDaemon) -> None:
    """The same seed gives the same text alone and among nine others."""
    alone: dict[int, protocol.Done] = {}
    for number in range(4):
        ask(daemon, number, alone)
    together = wave(daemon)
    assert {i: done.text for i, done in alone.items()} == {i: together[i].text for i in alone}
