"""What is a sign of life, and what is none."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from assistantd import pulse
from assistantd.pulse import Pulse, signs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class Worker:
    """What the pulse sees of a scheduler."""

    def __init__(self, thread_ids: list[int] | None = None) -> None:
        self.turns, self.booked, self.is_loading = 0, 0, False
        self.ids = thread_ids or []

    def ticks(self) -> int:
        return self.booked

    def thread_ids(self) -> list[int]:
        return self.ids


def test_what_moves_is_alive_and_what_does_not_is_not() -> None:
    worker = Worker()
    beat = Pulse(worker)
    assert beat.moves()
    assert not beat.moves()
    worker.turns += 1
    assert beat.moves() and not beat.moves()
    worker.booked += 1
    assert beat.moves() and not beat.moves()
    worker.booked = 0  # set back: that is a move, too
    assert beat.moves() and not beat.moves()


class Thread:
    """A thread of this process that does what it is told, and then waits."""

    def __init__(self) -> None:
        self._work = lambda: None
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._thread.native_id is not None
        self.id = self._thread.native_id

    def _run(self) -> None:
        while True:
            self._go.acquire()
            self._work()
            self._done.release()

    def do(self, work) -> None:  # type: ignore[no-untyped-def]
        self._work = work
        self._go.release()
        self._done.acquire()


def burn() -> None:
    sum(range(3_000_000))


def test_bytes_that_a_thread_reads_are_a_sign_and_time_is_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(100_000))
    thread = Thread()
    thread.do(lambda: None)
    beat = Pulse(Worker([thread.id]))
    assert beat.moves()
    thread.do(burn)  # as an endless loop does
    assert not beat.moves()
    thread.do(file.read_bytes)
    assert beat.moves() and not beat.moves()


def test_another_threads_bytes_are_none(tmp_path: Path) -> None:
    thread, other = Thread(), Thread()
    beat = Pulse(Worker([thread.id]))
    assert beat.moves()
    other.do(lambda: (tmp_path / "file").write_bytes(bytes(1000)))
    assert not beat.moves()


def test_while_loading_time_is_a_sign_until_it_takes_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    thread = Thread()
    worker = Worker([thread.id])
    worker.is_loading = True
    beat = Pulse(worker)
    assert beat.moves()
    assert not beat.moves()  # it computes nothing
    thread.do(burn)
    assert beat.moves()
    monkeypatch.setattr(pulse, "LOADING_S", 0.0)
    thread.do(burn)
    assert not beat.moves()


def test_a_childs_time_counts_with_its_parents(tmp_path: Path) -> None:
    thread = Thread()
    before = signs([thread.id])
    children = []

    def start() -> None:
        program = "sum(range(20_000_000)); print(flush=True); input()"
        child = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()  # it has computed
        children.append(child)

    thread.do(start)
    assert signs([thread.id]).cpu >= before.cpu + os.sysconf("SC_CLK_TCK") // 10
    children[0].communicate(b"\n")


def test_a_wait_for_the_disk_is_a_sign(tmp_path: Path) -> None:
    """From what the kernel writes: state D cannot be had at will."""
    stat = "7 (name with ) in it) {} 1 1 1 0 -1 0 5 0 {} 0 10 20 0 0"
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "io").write_text("rchar: 3\nwchar: 4\nsyscr: 1\n")
    (folder / "children").write_text("")
    (folder / "stat").write_text(stat.format("D", 9))
    found = signs([7], tmp_path)
    assert found.waits and found.n_bytes == 7 and found.faults == 9 and found.cpu == 30
    (folder / "stat").write_text(stat.format("S", 9))
    assert not signs([7], tmp_path).waits
    assert signs([8], tmp_path) == pulse.Signs()  # it has ended
