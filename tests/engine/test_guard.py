"""A mapped file that shrinks is an error of the pass; any other SIGBUS still ends the process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.errors import FileChangedError, ReadError
from engine.generate import Engine
from engine.gguf import open_gguf
from engine.guard import AVAILABLE, N_SLOTS, Watch
from engine.sampler import SamplingParams
from tests.engine.tiny_models import Spec, Type, write_model

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="the handler is for 64-bit Linux")

PAGE = 4096
PROGRAM = """
import mmap, os, sys
import numpy as np
from engine.guard import Watch

def mapped(path, pages):
    with open(path, "w+b") as file:
        file.truncate(pages * 4096)
        return mmap.mmap(file.fileno(), pages * 4096, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)

watched, other = mapped(sys.argv[1] + "/a", 8), mapped(sys.argv[1] + "/b", 8)
seen = np.frombuffer(watched, np.uint8)
watch = Watch(seen.ctypes.data, len(seen))
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + code, str(folder)], capture_output=True, text=True
    )


def test_what_is_gone_reads_as_zeros_and_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\1" * (8 * PAGE))
    data = np.memmap(path, np.uint8, "r")
    watch = Watch(data.ctypes.data, len(data))
    assert data[-1] == 1 and watch.is_whole
    os.truncate(path, 3 * PAGE)
    assert data[4 * PAGE] == 0
    assert not watch.is_whole
    assert data[3 * PAGE - 1] == 1  # what is there is still the file's
    assert data[8 * PAGE - 1] == 0
    watch.close()


def test_more_maps_than_slots_are_no_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(PAGE))
    data = np.memmap(path, np.uint8, "r")
    watches = [Watch(data.ctypes.data, len(data)) for _n in range(N_SLOTS + 3)]
    assert all(watch.is_whole for watch in watches)
    for watch in watches:
        watch.close()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("os.truncate(sys.argv[1] + '/b', 0); other[0]", "another map"),
        ("watch.close(); os.truncate(sys.argv[1] + '/a', 0); seen[0]", "a map no longer watched"),
        ("os.kill(os.getpid(), 7)", "sent by somebody"),
    ],
)
def test_any_other_ends_the_process(tmp_path: Path, code: str, why: str) -> None:
    done = run(code, tmp_path)
    assert done.returncode == -signal.SIGBUS, (why, done.stderr)


def test_a_handler_that_was_there_before_hears_of_the_others(tmp_path: Path) -> None:
    done = run(
        "import faulthandler, ctypes, engine.guard as g; faulthandler.enable(); g._install(); "
        "os.truncate(sys.argv[1] + '/a', 0); assert seen[0] == 0 and not watch.is_whole; "
        "os.truncate(sys.argv[1] + '/b', 0); other[0]",
        tmp_path,
    )
    assert done.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in done.stderr


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "m.gguf", Spec(type=Type.Q4_0, n_layers=4, vocab_size=1024))


def test_a_model_cut_off_while_it_answers(model: Path) -> None:
    engine = Engine.load(model, n_threads=2, kv_tokens=512)
    try:
        pieces = engine.generate([1, 300, 301], SamplingParams(max_tokens=40, ignore_eos=True))
        next(pieces)
        os.truncate(model, model.stat().st_size // 3)
        with pytest.raises(FileChangedError, match=r"m\.gguf has changed"):
            list(pieces)
    finally:
        engine.close()


def test_a_page_that_cannot_be_read_though_nothing_changed(model: Path) -> None:
    """As a bad disk has it: the watch alone tells."""
    engine = Engine.load(model, n_threads=2, kv_tokens=512)
    try:
        size, times = model.stat().st_size, model.stat()
        os.truncate(model, size // 3)
        output = engine._file.tensors["output.weight"]
        engine._file.data[output.offset :][: output.n_bytes].sum()  # zeros now, by the handler
        os.truncate(model, size)
        os.utime(model, ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.raises(FileChangedError):
            list(engine.generate([1, 300], SamplingParams(max_tokens=2)))
    finally:
        engine.close()


def test_a_model_written_to_in_place(model: Path) -> None:
    engine = Engine.load(model, n_threads=2, kv_tokens=512)
    try:
        with model.open("r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"\xff" * 50)
        os.utime(model)  # the clock of a file may be coarser than this test is quick
        with pytest.raises(FileChangedError):
            list(engine.generate([1, 300], SamplingParams(max_tokens=2)))
    finally:
        engine.close()


def test_a_model_that_was_replaced_goes_on(model: Path, tmp_path: Path) -> None:
    engine = Engine.load(model, n_threads=2, kv_tokens=512)
    try:
        other = tmp_path / "other"
        other.write_bytes(b"not a model")
        other.replace(model)
        params = SamplingParams(max_tokens=3, ignore_eos=True)
        list(engine.generate([1, 300], params))
    finally:
        engine.close()


def test_a_streamed_model_cut_off(model: Path) -> None:
    whole = Engine.load(model, n_threads=1, kv_tokens=256)
    budget = whole.plan.total - (1 << 20)
    whole.close()
    engine = Engine.load(model, n_threads=1, kv_tokens=256)
    try:
        residency = engine._planner.units
        from engine.residency import choose, smallest_ring

        ring = smallest_ring(residency)
        engine._weights.hold(choose(residency, 0, ring))
        assert budget > 0 and engine._weights.residency is not None
        os.truncate(model, model.stat().st_size // 2)
        with pytest.raises(ReadError):
            list(engine.generate([1, 300], SamplingParams(max_tokens=2)))
    finally:
        engine.close()


def test_cut_off_while_it_is_loaded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_then_open(path: Path) -> object:
        file = open_gguf(path)
        os.truncate(path, path.stat().st_size // 3)
        return file

    monkeypatch.setattr("engine.generate.open_gguf", cut_then_open)
    with pytest.raises(FileChangedError):
        Engine.load(model, n_threads=1, kv_tokens=256)
