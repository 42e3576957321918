"""The budget: what the system allows, and a watch that calls for help, and stops calling."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistantd import budget
from assistantd.budget import Cgroup, Machine, Watch, human_mib, plan_info, plan_lines, resolve
from assistantd.sizes import parse_size
from engine.plan import MemoryPlan

MIB = 1 << 20
WAIT_S = 20


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.procs").touch()
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")
    return folder


def proc(tmp_path: Path, line: str) -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "cgroup").write_text(line + "\n")
    return folder


def test_version_2_takes_the_smallest_limit_above(tmp_path: Path) -> None:
    root = write(tmp_path / "fs")
    write(root / "a", memory__max=500 * MIB, memory__high="max", memory__current=1)
    write(
        root / "a" / "b",
        memory__max="max",
        memory__high=600 * MIB,
        memory__current=100 * MIB,
        memory__stat="anon 1\ninactive_file 20971520\nactive_file 10485760",
        memory__pressure="some avg10=12.50 avg60=1.00 avg300=0.10 total=5\nfull avg10=0.00",
    )
    found = Cgroup.find(proc(tmp_path, "0::/a/b"), root)
    assert found is not None and found.version == 2
    assert found.limit == 500 * MIB
    assert found.usage == 70 * MIB  # page cache can be dropped
    assert found.pressure == 12.5


def test_version_1_and_no_limit(tmp_path: Path) -> None:
    root = tmp_path / "fs"
    write(
        root / "memory" / "x",
        memory__limit_in_bytes=9223372036854771712,
        memory__usage_in_bytes=5 * MIB,
        memory__stat="cache 1\ntotal_inactive_file 1048576\ntotal_active_file 0",
    )
    found = Cgroup.find(proc(tmp_path, "5:cpu:/\n4:memory:/x"), root)
    assert found is not None and found.version == 1
    assert found.limit is None and found.usage == 4 * MIB and found.pressure == 0.0


def test_in_a_container_the_folder_is_the_root(tmp_path: Path) -> None:
    root = write(tmp_path / "fs", memory__max=64 * MIB, memory__current=1)
    found = Cgroup.find(proc(tmp_path, "0::/docker/abc"), root)
    assert found is not None and found.folder == root and found.limit == 64 * MIB


def test_a_system_without_cgroups(tmp_path: Path) -> None:
    assert Cgroup.find(tmp_path / "nowhere", tmp_path) is None


def test_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert resolve("none") is None and resolve("0") is None
    assert resolve("400M") == 400 * MIB
    with pytest.raises(ValueError, match="400M"):
        resolve("lots")
    root = write(tmp_path / "fs", memory__max=100 * MIB, memory__current=1)
    monkeypatch.setattr(Cgroup, "find", lambda: Cgroup(root, 2))
    assert resolve("auto") == 90 * MIB


@given(st.integers(1, 1 << 40))
def test_a_budget_that_is_shown_is_no_smaller(n_bytes: int) -> None:
    assert 0 <= parse_size(human_mib(n_bytes)) - n_bytes < MIB


def test_a_watch_calls_until_there_is_room_and_then_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(budget, "CALM_S", 0.05)
    relieved, relaxed = threading.Semaphore(0), threading.Semaphore(0)
    watch = Watch(relieved.release, relaxed.release)
    watch.cgroup = None
    watch.start()
    try:
        assert not relieved.acquire(timeout=0.1)  # no budget, nothing to call for
        watch.budget = 1
        for _ in range(3):
            assert relieved.acquire(timeout=WAIT_S)
        assert not relaxed.acquire(blocking=False)
        watch.budget = 1 << 50
        assert relaxed.acquire(timeout=WAIT_S)
        assert not relaxed.acquire(timeout=0.2)
    finally:
        watch.close()


def test_a_cgroup_that_is_nearly_full_is_too_much(tmp_path: Path) -> None:
    files = {"memory__max": 100 * MIB, "memory__current": 98 * MIB, "memory__stat": "anon 1"}
    watch = Watch(lambda: None, lambda: None)
    watch.cgroup = Cgroup(write(tmp_path / "fs", **files), 2)
    assert watch.excess() == 1 * MIB
    (tmp_path / "fs" / "memory.current").write_text("50")
    assert watch.excess() == 0
    (tmp_path / "fs" / "memory.pressure").write_text("some avg10=50.0 avg60=0 avg300=0 total=0\n")
    assert watch.excess() == 2 * MIB


def test_a_plan_in_words() -> None:
    plan = MemoryPlan(400 * MIB, None, {"weights": 300 * MIB}, 512, 512, "q8", 10**9, 16, 2)
    info = plan_info(plan, Machine(1e9, 1e10))
    assert info.tokens_per_second == 10.0
    text = "\n".join(plan_lines(info, Machine(1e9, 1e10)))
    assert "budget 400M" in text and "all stay in memory" in text and "512 tokens (q8)" in text
    assert plan_info(plan, None).tokens_per_second is None
