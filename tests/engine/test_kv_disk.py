"""Pages that go to disk and come back: the file, its index, and the tree that uses both.

A page holds the tokens it stands for, as in test_kv_cache.py, so that what comes back can be read.
"""

import errno
import hashlib
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.errors import OutOfCacheError
from engine.kernels import PAGE
from engine.kv_cache import KVCache, SequenceCache, _Page
from engine.kv_disk import (
    BLOCK,
    DATA_NAME,
    INDEX_NAME,
    DamagedIndexError,
    Index,
    PageFile,
    SavedPage,
    discard,
    open_disk,
    parse_index,
    within,
)
from tests.engine.test_kv_cache import CONFIG, read, write


def cache_with_disk(folder: Path, n_pages: int, n_slots: int, print_: str = "f") -> KVCache:
    cache = KVCache(CONFIG, n_pages * PAGE)
    disk = open_disk(folder, cache.page_bytes, n_slots * BLOCK, print_)
    assert disk is not None
    cache.attach(disk.file, disk.saved)
    return cache


def say(cache: KVCache, tokens: list[int], seconds_per_row: float | None = None) -> int:
    """Compute a sequence; returns how much of it was there already."""
    sequence = cache.open(tokens, seconds_per_row)
    found = sequence.length
    assert read(sequence) == tokens[:found]
    write(sequence, tokens[found:])
    assert read(sequence) == tokens
    sequence.close()
    return found


def conversation(first: int, n_pages: int) -> list[int]:
    return [first, *range(100, 100 + n_pages * PAGE - 1), 7]


# --- pages that leave memory and come back -----------------------------------------------------


def test_what_had_to_leave_comes_back(tmp_path: Path) -> None:
    cache = cache_with_disk(tmp_path, n_pages=4, n_slots=20)
    talks = [conversation(i, 3) for i in range(5)]
    for talk in talks:
        assert say(cache, talk) == 0
    for _ in range(2):
        for talk in talks:
            assert say(cache, talk) == 3 * PAGE
    assert (tmp_path / DATA_NAME).stat().st_size <= 20 * BLOCK
    assert (tmp_path / DATA_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("call", ["ftruncate", "fsync"])
def test_what_cannot_be_deleted_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    cache = cache_with_disk(tmp_path, n_pages=4, n_slots=20)
    for i in range(3):
        say(cache, conversation(i, 3))
    problem = OSError(errno.EIO, os.strerror(errno.EIO))

    def refuse(*args: int) -> None:
        raise problem

    with monkeypatch.context() as broken:
        broken.setattr(os, call, refuse)
        assert cache.clear() is problem
    assert say(cache, conversation(0, 3)) == 0  # found again it is not, all the same
    assert cache.clear() is None
    assert (tmp_path / DATA_NAME).stat().st_size == 0


def test_the_beginning_of_a_page_on_disk(tmp_path: Path) -> None:
    cache = cache_with_disk(tmp_path, n_pages=4, n_slots=8)
    say(cache, [*range(40), 7])
    say(cache, [9] * 60)
    assert say(cache, [*range(25), 500, 501]) == 25


def test_the_oldest_on_disk_gives_way(tmp_path: Path) -> None:
    cache = cache_with_disk(tmp_path, n_pages=2, n_slots=4)
    talks = [[i] * (2 * PAGE) for i in range(4)]
    for talk in talks:
        say(cache, talk)
    found = [cache.open([*talk, 0]).length for talk in talks[:0:-1]]
    assert found[:2] == [2 * PAGE, 0] or found[:2] == [2 * PAGE, 2 * PAGE]
    assert cache.open([0] * 40).length == 0  # nothing is left of the first


def test_what_is_slow_to_read_is_computed(tmp_path: Path) -> None:
    cache = cache_with_disk(tmp_path, n_pages=4, n_slots=12)
    talks = [conversation(i, 3) for i in range(2)]
    for talk in talks:
        say(cache, talk)
    assert cache._disk is not None
    cache._disk.seconds_per_page = 1.0
    assert say(cache, talks[0], seconds_per_row=0.01) == 0
    assert cache._disk.seconds_per_page < 1.0  # so that it is tried again one day
    # computed twice, it is in the tree once
    assert len(cache._root.children) == 2
    cache._disk.seconds_per_page = 1.0
    assert say(cache, talks[1], seconds_per_row=1.0) == 3 * PAGE


def test_an_answer_replaces_its_prompt_on_disk(tmp_path: Path) -> None:
    cache = cache_with_disk(tmp_path, n_pages=8, n_slots=20)
    talk: list[int] = []
    for turn in range(10):
        talk += [turn] * 3
        say(cache, talk)
    cache.set_limit(0)
    assert [len(page.tokens) for page in cache._on_disk.values()] == [14, 16]  # not one per turn


def test_damaged_pages_are_forgotten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = cache_with_disk(tmp_path, n_pages=4, n_slots=12)
    talks = [conversation(i, 3) for i in range(3)]
    for talk in talks:
        say(cache, talk)
    with (tmp_path / DATA_NAME).open("r+b") as file:
        for slot in range(12):
            file.seek(slot * BLOCK + 100)
            file.write(b"\xff\x00\xff")
    assert say(cache, talks[0]) == 0
    assert len([r for r in caplog.records if "damaged" in r.message]) == 1
    os.truncate(tmp_path / DATA_NAME, BLOCK)
    assert say(cache, talks[1]) == 0
    for talk in talks:
        say(cache, talk)
    assert sum(say(cache, talk) for talk in talks) > 0  # what is written anew is found


# --- the limit ---------------------------------------------------------------------------------


def resident_bytes() -> int:
    """Memory of this process, as the system counts it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_lower_limit_gives_memory_back(tmp_path: Path) -> None:
    config = replace(CONFIG, n_layers=32)
    cache = KVCache(config, 1000 * PAGE)
    disk = open_disk(tmp_path, cache.page_bytes, 1000 * cache.page_bytes, "f")
    assert disk is not None
    cache.attach(disk.file)
    talk = [i % 997 for i in range(900 * PAGE)]
    say(cache, talk)
    cache.pool[:900] |= 1  # touch all of it
    before = resident_bytes()
    assert cache.set_limit(100) == 100
    assert cache.pages_used == cache.pages_available == 100
    assert before - resident_bytes() > 750 * cache.page_bytes
    cache.set_limit(10_000)
    assert cache.limit == cache.n_pages
    assert cache.open(talk).length >= 899 * PAGE


def test_pages_in_use_stay_until_they_are_released(tmp_path: Path) -> None:
    cache = cache_with_disk(tmp_path, n_pages=10, n_slots=20)
    say(cache, conversation(1, 3))
    live = cache.open([2])
    write(live, conversation(2, 5))
    assert cache.set_limit(2) == 6
    assert read(live) == conversation(2, 5)
    with pytest.raises(OutOfCacheError):
        live.reserve(7 * PAGE)
    live.close()
    assert cache.pages_used == 2 == cache.limit
    cache.set_limit(10)
    assert say(cache, conversation(2, 5)) == 5 * PAGE
    assert say(cache, conversation(1, 3)) == 3 * PAGE


def test_low_pages_are_used_first() -> None:
    cache = KVCache(CONFIG, 100 * PAGE)
    for i in range(3):
        sequence = cache.open([i])
        write(sequence, conversation(i, 2))
        assert max(page.index for page in sequence._pages) == 2
        sequence.close()
        cache.clear()


# --- forgetting --------------------------------------------------------------------------------


def test_clear_forgets_what_is_on_disk_and_in_use(tmp_path: Path) -> None:
    cache = cache_with_disk(tmp_path, n_pages=10, n_slots=20)
    talks = [conversation(i, 3) for i in range(4)]
    for talk in talks:
        say(cache, talk)
    live = cache.open(conversation(3, 3))
    assert live.length > 0
    cache.clear()
    assert (tmp_path / DATA_NAME).stat().st_size == 0
    other = cache.open(talks[3])
    assert other.length == 0
    write(other, talks[3])
    write(live, [5] * (PAGE * 2))  # goes on undisturbed
    assert read(live)[: 3 * PAGE] == talks[3][: 3 * PAGE]
    live.close()
    other.close()
    assert say(cache, talks[3]) == 3 * PAGE
    assert cache.save() == 4
    saved = parse_index((tmp_path / INDEX_NAME).read_bytes()).pages
    assert 5 not in [token for page in saved for token in page.tokens]


# --- from one process to the next --------------------------------------------------------------


def test_saved_and_found_again(tmp_path: Path) -> None:
    cache = cache_with_disk(tmp_path, n_pages=4, n_slots=20)
    talks = [conversation(i, 3) for i in range(4)]
    for talk in talks:
        say(cache, talk)
    n_saved = cache.save()
    assert n_saved == 4 * 3 + 4
    for _ in range(3):  # again and again, with more said each time
        cache = cache_with_disk(tmp_path, n_pages=4, n_slots=20)
        assert not (tmp_path / INDEX_NAME).exists()
        for talk in talks:
            assert say(cache, talk) == len(talk) - 1
        assert cache.save() == n_saved


def test_with_few_slots_the_latest_is_saved(tmp_path: Path) -> None:
    cache = cache_with_disk(tmp_path, n_pages=20, n_slots=4)
    for i in range(4):
        say(cache, conversation(i, 3))
    assert cache.save() == 4
    cache = cache_with_disk(tmp_path, n_pages=20, n_slots=4)
    assert say(cache, conversation(3, 3)) == 3 * PAGE


def test_saving_has_a_time_limit(tmp_path: Path) -> None:
    cache = cache_with_disk(tmp_path, n_pages=20, n_slots=40)
    say(cache, conversation(0, 3))
    assert cache.save(seconds=-1) == 0
    assert not (tmp_path / INDEX_NAME).exists()


def test_a_smaller_file_keeps_what_fits(tmp_path: Path) -> None:
    cache = cache_with_disk(tmp_path, n_pages=20, n_slots=40)
    for i in range(4):
        say(cache, conversation(i, 3))
    cache.save()
    cache = cache_with_disk(tmp_path, n_pages=20, n_slots=5)
    assert (tmp_path / DATA_NAME).stat().st_size <= 5 * BLOCK
    assert sum(say(cache, conversation(i, 3)) for i in range(4)) >= PAGE


def test_another_model_finds_nothing(tmp_path: Path) -> None:
    cache = cache_with_disk(tmp_path, n_pages=4, n_slots=20)
    say(cache, conversation(1, 3))
    cache.save()
    cache = cache_with_disk(tmp_path, n_pages=4, n_slots=20, print_="g")
    assert (tmp_path / DATA_NAME).stat().st_size == 0
    assert say(cache, conversation(1, 3)) == 0


def test_after_a_crash_the_file_starts_empty(tmp_path: Path) -> None:
    cache = cache_with_disk(tmp_path, n_pages=2, n_slots=20)
    say(cache, conversation(1, 1))
    say(cache, conversation(2, 1))
    assert (tmp_path / DATA_NAME).stat().st_size > 0
    assert cache._disk is not None
    os.close(cache._disk._fd)  # as a killed process leaves it
    cache = cache_with_disk(tmp_path, n_pages=2, n_slots=20)
    assert (tmp_path / DATA_NAME).stat().st_size == 0


def test_two_processes_do_not_share_a_file(tmp_path: Path) -> None:
    cache = cache_with_disk(tmp_path, n_pages=2, n_slots=20)
    assert open_disk(tmp_path, cache.page_bytes, 20 * BLOCK, "f") is None


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert open_disk(tmp_path / "file" / "kv", 1000, 20 * BLOCK, "f") is None
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / DATA_NAME).symlink_to(tmp_path / "file")
    assert open_disk(tmp_path / "linked", 1000, 20 * BLOCK, "f") is None
    assert (tmp_path / "file").read_text() == ""


def test_discard(tmp_path: Path) -> None:
    discard(tmp_path / "none")
    cache = cache_with_disk(tmp_path, n_pages=2, n_slots=20)
    say(cache, conversation(1, 1))
    cache.save()
    discard(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- a disk that is full -----------------------------------------------------------------------

FULL_DISK = """
import logging, resource, sys
from pathlib import Path
from tests.engine.test_kv_disk import BLOCK, cache_with_disk, conversation, say
logging.basicConfig(stream=sys.stdout, format="%(message)s")
folder = Path(sys.argv[1])
cache = cache_with_disk(folder, n_pages=4, n_slots=100)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]) * BLOCK + 100,) * 2)
for _ in range(2):
    for i in range(6):
        say(cache, conversation(i, 3))
print("found", say(cache, conversation(4, 3)))
print("saved", cache.save())
"""


def run_full_disk(folder: Path, n_slots: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder), str(n_slots)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_a_full_disk_fails_nothing(tmp_path: Path) -> None:
    output = run_full_disk(tmp_path, 0)
    assert output.count("cannot write") == 1
    assert "saved 0" in output


def test_a_disk_that_fills_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    output = run_full_disk(tmp_path, 5)
    assert output.count("cannot write") == 1
    assert "found 48" in output and "saved" in output


# --- the index ---------------------------------------------------------------------------------


def with_digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def encode(pages: list[SavedPage]) -> bytes:
    return with_digest(msgspec.json.encode(Index("f", pages)))


FULL = list(range(PAGE))
GOOD = [SavedPage(-1, 0, 1, FULL), SavedPage(0, 2, 5, [1, 2]), SavedPage(0, 1, 9, [4])]


def test_a_good_index() -> None:
    assert parse_index(encode(GOOD)).pages == GOOD


@pytest.mark.parametrize(
    "pages",
    [
        [SavedPage(0, 0, 1, FULL)],  # its own parent
        [SavedPage(1, 0, 1, FULL), SavedPage(0, 1, 1, FULL)],  # a circle
        [SavedPage(-1, 0, 1, [1]), SavedPage(0, 1, 1, [2])],  # after a page that is not full
        [SavedPage(-1, 0, 1, FULL), SavedPage(0, 0, 1, FULL)],  # two pages in a slot
        [SavedPage(-1, 0, 1, [])],
        [SavedPage(-1, 0, 1, [*FULL, 1])],
        [SavedPage(-1, -1, 1, FULL)],
        [SavedPage(-1, 1 << 40, 1, FULL)],
        [SavedPage(-1, 0, 1 << 32, FULL)],
        [SavedPage(-2, 0, 1, FULL)],
        [SavedPage(-1, 0, 1, [-1])],
        [SavedPage(-1, 0, 1, [1 << 40])],
    ],
)
def test_an_index_that_makes_no_sense(pages: list[SavedPage]) -> None:
    with pytest.raises(DamagedIndexError):
        parse_index(encode(pages))


@given(st.data())
def test_any_damage_to_an_index_is_seen(data: st.DataObject) -> None:
    raw = bytearray(encode(GOOD))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedIndexError):
        parse_index(bytes(raw))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["fingerprint", "pages", "x"]), inner, max_size=3)
    ),
    max_leaves=20,
)
entries = st.tuples(
    st.integers(-2, 4), st.integers(-1, 5), st.integers(-1, 1 << 33), st.lists(st.integers(-1, 3))
)


@settings(max_examples=300)
@given(
    st.binary(max_size=200)
    | st.binary(max_size=200).map(with_digest)
    | json_values.map(msgspec.json.encode).map(with_digest)
    | st.lists(entries, max_size=5).map(
        lambda pages: with_digest(msgspec.json.encode({"fingerprint": "f", "pages": pages}))
    )
    | st.integers(1, 100_000).map(lambda n: with_digest(b'{"pages":' + b"[" * n))
)
def test_a_hostile_index_is_refused_or_a_tree(raw: bytes) -> None:
    try:
        index = parse_index(raw)
    except DamagedIndexError:
        return
    for number, page in enumerate(index.pages):
        assert -1 <= page.parent < number
        assert 1 <= len(page.tokens) <= PAGE
    for n_slots in range(4):
        kept = within(index.pages, n_slots)
        assert all(page.slot < n_slots and page.parent < i for i, page in enumerate(kept))


def test_a_damaged_index_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = cache_with_disk(tmp_path, n_pages=4, n_slots=20)
    say(cache, conversation(1, 3))
    cache.save()
    raw = bytearray((tmp_path / INDEX_NAME).read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / INDEX_NAME).write_bytes(raw)
    cache = cache_with_disk(tmp_path, n_pages=4, n_slots=20)
    assert "damaged" in caplog.text
    assert say(cache, conversation(1, 3)) == 0


# --- whatever is done, what is found is right --------------------------------------------------


def nodes(page: _Page) -> list[_Page]:
    return [page, *(node for child in page.children for node in nodes(child))]


short = st.lists(st.integers(0, 1), min_size=1, max_size=45)


class Tree(RuleBasedStateMachine):
    """A tiny pool and a tiny file under random use; the pages say whether a match was right."""

    @initialize(n_pages=st.integers(3, 8), n_slots=st.integers(0, 12))
    def start(self, n_pages: int, n_slots: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kv-"))
        self.n_pages, self.n_slots = n_pages, n_slots
        self.cache = cache_with_disk(self.folder, n_pages, n_slots)
        self.live: list[tuple[SequenceCache, list[int]]] = []

    @rule(prompt=short, slow=st.booleans())
    def begin(self, prompt: list[int], slow: bool) -> None:
        disk = self.cache._disk
        assert disk is not None
        if slow and disk.seconds_per_page is not None:
            disk.seconds_per_page = 1.0
        sequence = self.cache.open(prompt, 0.1 if slow else 1e3)
        assert sequence.length < len(prompt)
        assert read(sequence) == prompt[: sequence.length]
        self.live.append((sequence, prompt[: sequence.length]))
        self.extend_(len(self.live) - 1, prompt[sequence.length :])

    def extend_(self, which: int, tokens: list[int]) -> None:
        sequence, said = self.live[which]
        try:
            write(sequence, tokens)
        except OutOfCacheError:
            return
        said.extend(tokens)

    @rule(which=st.integers(0, 5), tokens=short)
    def extend(self, which: int, tokens: list[int]) -> None:
        if which < len(self.live):
            self.extend_(which, tokens)

    @rule(which=st.integers(0, 5))
    def end(self, which: int) -> None:
        if which < len(self.live):
            self.live.pop(which)[0].close()

    @rule(n_pages=st.integers(0, 9))
    def limit(self, n_pages: int) -> None:
        assert self.cache.set_limit(n_pages) >= min(n_pages, self.n_pages)

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        assert self.cache.open([0, 0, 0]).length == 0

    @rule(slot=st.integers(0, 11))
    def damage(self, slot: int) -> None:
        path = self.folder / DATA_NAME
        if slot * BLOCK < path.stat().st_size:
            with path.open("r+b") as file:
                file.seek(slot * BLOCK)
                file.write(b"\xfe" * 50)

    @rule()
    def restart(self) -> None:
        for sequence, _ in self.live:
            sequence.close()
        self.live.clear()
        n_saved = self.cache.save()
        assert n_saved <= self.n_slots
        self.cache = cache_with_disk(self.folder, self.n_pages, self.n_slots)
        assert len(self.cache._on_disk) == n_saved

    @invariant()
    def is_sound(self) -> None:
        cache = self.cache
        for sequence, said in self.live:
            assert read(sequence) == said
        found = nodes(cache._root)[1:]
        assert {p.slot: p for p in found if p.index < 0} == cache._on_disk
        assert {p.slot: p for p in found if p.index >= 0 and p.slot >= 0} == cache._copies
        for page in found:
            assert page.index >= 0 or all(child.index < 0 for child in page.children)
            assert not page.children or len(page.tokens) == PAGE
        order = list(cache._unused.values())
        assert all(p.parent not in order[:i] for i, p in enumerate(order))
        assert cache._disk is not None
        used = [*cache._on_disk, *cache._copies]
        assert sorted([*used, *cache._disk._free]) == list(range(self.n_slots))
        in_use = {id(page): page.index for s, _ in self.live for page in s._pages}
        indexes = [*in_use.values(), *cache._unused, *cache._free]
        assert sorted(indexes) == list(range(self.n_pages))
        assert cache.pages_used <= max(cache.limit, len(in_use))

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.cache.save()
            shutil.rmtree(self.folder)


Tree.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
TestTree = Tree.TestCase


def test_a_file_that_cannot_be_read_directly(tmp_path: Path) -> None:
    """Some file systems open a file for direct access, and then refuse it."""
    page = np.arange(1000, dtype=np.uint32).view(np.uint8)
    file = PageFile(tmp_path, page.nbytes, 4 * BLOCK, "f")
    checksum = file.write(1, page)
    assert checksum is not None
    back = np.zeros_like(page)
    file._direct = 0
    assert file.read(1, checksum, back) and np.array_equal(page, back)
    assert not file.read(0, checksum, back)
    file.finish([])
