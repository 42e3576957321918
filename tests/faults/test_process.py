"""A daemon that is stopped and goes on, one with many connections, one with no memory left."""

import resource
import signal
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from assistantd import protocol
from benchmarks.process_figures import figures_of
from clients import Client
from clients.errors import AssistantError
from tests.running import RunningDaemon

EVER = {"2": -100.0}


def pass_time(seconds: float) -> None:
    """What is tested is that so much time goes by."""
    threading.Event().wait(seconds)


def test_clients_wait_for_a_daemon_that_is_stopped_for_a_while(own_daemon: RunningDaemon) -> None:
    """As by a debugger, a suspended laptop, or a machine that swaps."""
    own_daemon.start()
    assert own_daemon.process is not None
    with own_daemon.client() as client, own_daemon.client() as other:
        answer = client.ask("Go on.", session="s", max_tokens=60, logit_bias=EVER)
        hurried = client.ask("Go on.", max_tokens=2000, logit_bias=EVER, deadline_ms=4000)
        next(iter(answer))
        next(iter(hurried))
        own_daemon.process.send_signal(signal.SIGSTOP)
        late = other.ask("Hello", session="t", max_tokens=4)
        pass_time(5)
        own_daemon.process.send_signal(signal.SIGCONT)
        answer.wait()
        assert answer.finish_reason == "length"
        assert late.wait().text
        # its time was over meanwhile: it ends with what it has, and nothing is lost
        assert hurried.wait().text and hurried.finish_reason == "deadline"
        assert [m.answered for m in client.session("s").messages or []] == [True, True]
    assert own_daemon.stop() == 0


def test_many_connections(own_daemon: RunningDaemon) -> None:
    """More than the soft limit that it was started with: ZeroMQ would end the process there."""
    own_daemon.within = ["prlimit", "--nofile=64:4096"]
    own_daemon.start()
    path = own_daemon.endpoint.removeprefix("ipc://")
    with own_daemon.client() as client, ExitStack() as crowd:
        for _ in range(300):
            connection = crowd.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(path)  # waits while many others wait to be accepted
        assert client.ask("Hello", session="s", max_tokens=2).wait().text
        assert own_daemon.process is not None
        crowded = figures_of(own_daemon.process.pid).descriptors
        assert crowded > 64
        crowd.close()
        with own_daemon.client() as again:
            assert again.ask("Hello", session="s", max_tokens=2).wait().text
    assert own_daemon.stop() == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_who_does_not_read_costs_a_bounded_amount_and_is_dropped(own_daemon: RunningDaemon) -> None:
    """Others get their answers; its memory is given back; the log says why it was dropped."""
    own_daemon.start()
    assert own_daemon.process is not None
    pid = own_daemon.process.pid

    def beside_the_cache(client: Client) -> int:
        """Memory without the conversations', which grow up to their own bound."""
        return figures_of(pid).rss_anon_bytes - client.status().memory["kv_used"]

    with own_daemon.client() as client:
        assert client.ask("Hello", session="s", max_tokens=4).wait().text
        before = beside_the_cache(client)
        most, n_answers = before, 0
        with zmq.Context() as context, context.socket(zmq.DEALER) as deaf:
            deaf.linger = 0
            deaf.rcvhwm = 1
            deaf.connect(own_daemon.endpoint)
            request = protocol.Chat(text="Go on.", max_tokens=1000, logit_bias=EVER)
            for number in range(24):
                deaf.send_multipart(protocol.encode_request(b"%d" % number, request))
            while "it does not read" not in own_daemon.log.read_text():
                assert client.ask("Hello", session="s", max_tokens=4).wait().text
                n_answers += 1
                most = max(most, beside_the_cache(client))
        assert client.ask("Hello", session="s", max_tokens=4).wait().text
        status = client.status()
        assert status.queue.waiting == 0
        print(f"{(most - before) / 1e6:.1f} MB more at most; {n_answers} answers for others")
        assert most - before < 20_000_000
    assert own_daemon.stop() == 0


def test_a_request_that_needs_more_memory_than_there_is(own_daemon: RunningDaemon) -> None:
    """The address space is limited to what is used: the daemon may refuse, but goes on after it."""
    own_daemon.start()
    assert own_daemon.process is not None
    pid = own_daemon.process.pid
    with own_daemon.client() as client:
        used = next(
            int(line.split()[1]) * 1024
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("VmSize:")
        )
        limits = resource.prlimit(pid, resource.RLIMIT_AS)
        # room for the message itself, not for what is made of it
        resource.prlimit(pid, resource.RLIMIT_AS, (used + (3 << 20), limits[1]))
        try:
            client.ask("word " * 50_000, session="s", max_tokens=2).wait()
        except AssistantError as problem:
            print(problem)
        resource.prlimit(pid, resource.RLIMIT_AS, limits)
        assert client.ask("Hello", session="s", max_tokens=2).wait().text
    assert own_daemon.stop() == 0
