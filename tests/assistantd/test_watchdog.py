"""What systemd is told: by a socket that takes its place."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assistantd.pulse import Pulse
from assistantd.watchdog import Watchdog, interval_s
from tests.assistantd.test_pulse import Worker


def test_the_watchdog_is_for_the_process_that_is_named() -> None:
    own = str(os.getpid())
    assert interval_s({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": own}) == 1.5
    assert interval_s({"WATCHDOG_USEC": "1500000"}) == 1.5
    assert interval_s({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}) is None
    assert interval_s({}) is None and interval_s({"WATCHDOG_USEC": "0"}) is None
    environ = {"WATCHDOG_USEC": "1", "WATCHDOG_PID": own, "HOME": "/"}
    interval_s(environ)
    assert environ == {"HOME": "/"}  # no child must believe that it is meant


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(60)

    def next(self) -> str:
        return self._socket.recv(4096).decode()

    def until(self, message: str) -> None:
        while self.next() != message:
            pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    path = tmp_path / "n"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setenv("WATCHDOG_USEC", "80000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    ours = Systemd(path)
    yield ours
    ours.close()


class Loops:
    """A serving thread and an engine, which answer or do not."""

    def __init__(self) -> None:
        self.serves = self.moves = True
        self.worker = Worker()
        self.questions: list[Callable[[], None]] = []
        self.looks = 0

    def ask_server(self, answer: Callable[[], None]) -> None:
        if self.serves:
            answer()
        else:
            self.questions.append(answer)

    def wake_engine(self) -> None:
        self.worker.turns += self.moves

    def status(self) -> str:
        self.looks += 1
        return f"look {self.looks}"


def test_it_is_fed_while_both_loops_move(systemd: Systemd) -> None:
    loops = Loops()
    dog = Watchdog(Pulse(loops.worker), loops.ask_server, loops.wake_engine, loops.status)
    dog.start()
    systemd.until("EXTEND_TIMEOUT_USEC=120000000")  # it is not ready yet
    dog.is_ready = True
    systemd.until("WATCHDOG=1")
    for loop in ("moves", "serves"):
        setattr(loops, loop, False)
        # a look that was under way may still feed it; two later ones do not
        systemd.until(f"STATUS=look {loops.looks + 3}")
        told = [systemd.next() for _ in range(4)]
        assert all(message.startswith("STATUS=look") for message in told), told
        assert len(loops.questions) <= 1  # they do not pile up
        setattr(loops, loop, True)
        for answer in loops.questions:
            answer()
        loops.questions.clear()
        systemd.until("WATCHDOG=1")
    dog.close()


def test_without_systemd_there_is_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    loops = Loops()
    dog = Watchdog(Pulse(loops.worker), loops.ask_server, loops.wake_engine, loops.status)
    dog.start()
    dog.close()
    assert loops.looks == 0
