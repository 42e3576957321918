"""Pages of the KV cache in a file of slots, and an index that lets them outlive the process.

    pages.kv      slot 0, slot 1, …; a slot is a page, padded to whole blocks of 4096 bytes
    pages.index   SHA-256 of the rest, in hex, a newline, then Index as JSON

The index exists only while no process writes to pages.kv: `open_disk` removes it, and
`PageFile.finish` puts it back when all is written. So it never speaks of pages that were
overwritten since.

Owns the two files. Leaves to kv_cache.py which page is worth a slot.
"""

import errno
import fcntl
import hashlib
import heapq
import logging
import mmap
import os
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from engine.disk import anonymous
from engine.gguf import GGUFFile
from engine.kernels import PAGE

log = logging.getLogger(__name__)

DATA_NAME, INDEX_NAME = "pages.kv", "pages.index"
FORMAT = 1
"""To be raised whenever kernels/attention.py arranges a page in another way."""
BLOCK = 4096
MAX_SLOTS = 1 << 16
"""Bounds what the tree of pages on disk takes in memory: about 50 MB at most."""
MAX_INDEX_BYTES = 32 << 20


class SavedPage(Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A page in the index.

    Attributes:
        parent: which page of the list holds the positions before, an earlier one; -1 for none.
        checksum: CRC-32 of the slot's bytes.
    """

    parent: Annotated[int, Meta(ge=-1, lt=MAX_SLOTS)]
    slot: Annotated[int, Meta(ge=0, lt=MAX_SLOTS)]
    checksum: Annotated[int, Meta(ge=0, lt=1 << 32)]
    tokens: Annotated[
        list[Annotated[int, Meta(ge=0, lt=1 << 31)]], Meta(min_length=1, max_length=PAGE)
    ]


class Index(Struct, frozen=True, forbid_unknown_fields=True):
    """What pages.kv holds, the latest used first.

    Attributes:
        fingerprint: of the model and the layout, see `fingerprint`.
    """

    fingerprint: Annotated[str, Meta(max_length=64)]
    pages: Annotated[list[SavedPage], Meta(max_length=MAX_SLOTS)]


class DamagedIndexError(Exception):
    """The index is damaged; the message says where."""


def fingerprint(file: GGUFFile, kv_type: str, page_bytes: int) -> str:
    """Hex digest of all that a saved page depends on: the model's file and the page's layout."""
    header_end = min((t.offset for t in file.tensors.values()), default=0)
    stat = file.path.stat()
    layout = f"{FORMAT} {PAGE} {page_bytes} {kv_type} {file.size} {stat.st_mtime_ns}\n"
    digest = hashlib.sha256(layout.encode())
    digest.update(file.data[:header_end].data)
    return digest.hexdigest()


class PageFile:
    """The file of slots; locked, and readable by its owner only.

    Reads and writes go around the system's page cache where the file system allows it, since
    what is kept here is here because memory was short.

    Attributes:
        n_slots: how many there are at most.
        fingerprint: of the model and layout whose pages these are.
        seconds_per_page: running mean of what reading one has taken; None before the first.
    Raises:
        OSError: the file cannot be made, or another process has it.
    """

    def __init__(self, folder: Path, page_bytes: int, max_bytes: int, fingerprint: str) -> None:
        self.page_bytes = page_bytes
        self.slot_bytes = -(-page_bytes // BLOCK) * BLOCK
        self.n_slots = min(MAX_SLOTS, max_bytes // self.slot_bytes)
        self.seconds_per_page: float | None = None
        self.folder, self.fingerprint = folder, fingerprint
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._direct = getattr(os, "O_DIRECT", 0)
        path = folder / DATA_NAME
        try:
            self._fd = os.open(path, flags | self._direct, 0o600)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._direct:
                raise
            self._direct = 0
            self._fd = os.open(path, flags, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(self._fd, 0o600)
        except OSError:
            os.close(self._fd)
            raise
        self._buffer = anonymous(self.slot_bytes)  # aligned, as direct reads and writes want
        self._page = np.frombuffer(self._buffer, np.uint8)[:page_bytes]
        self._free = list(range(self.n_slots))  # a heap: low slots first, so the file stays short
        self._reported: set[str] = set()

    # --- slots -------------------------------------------------------------------------------

    def take(self) -> int | None:
        """A slot that holds nothing, or None."""
        return heapq.heappop(self._free) if self._free else None

    def give(self, slot: int) -> None:
        """Say that a slot's page is not needed any more."""
        heapq.heappush(self._free, slot)

    def occupy(self, slots: set[int]) -> None:
        """Say which slots hold something, of a file written earlier; all others are free."""
        self._free = [slot for slot in range(self.n_slots) if slot not in slots]

    # --- pages -------------------------------------------------------------------------------

    def write(self, slot: int, page: npt.NDArray[np.uint8]) -> int | None:
        """Write a page of page_bytes; its checksum, or None if the disk refused it.

        A slot that could not be written is not to be given back: the disk is full at that
        place, or bad.
        """
        self._page[:] = page.reshape(-1)
        try:
            n = self._transfer(os.pwritev, slot)
            if n != self.slot_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._report(f"cannot write to {self.folder / DATA_NAME}", error)
            return None
        return zlib.crc32(self._buffer)

    def read(self, slot: int, checksum: int, out: npt.NDArray[np.uint8]) -> bool:
        """Read a page into `out`, page_bytes in any shape; False if it is not what was written."""
        started = time.perf_counter()
        try:
            n = self._transfer(os.preadv, slot)
        except OSError as error:
            self._report(f"cannot read {self.folder / DATA_NAME}", error)
            return False
        if n != self.slot_bytes or zlib.crc32(self._buffer) != checksum:
            self._report("saved state of conversations is damaged and computed again")
            return False
        out.reshape(-1)[:] = self._page
        seconds = time.perf_counter() - started
        before = seconds if self.seconds_per_page is None else self.seconds_per_page
        self.seconds_per_page = 0.7 * before + 0.3 * seconds
        return True

    def skipped(self) -> None:
        """Say that a page was not read for being slow to read.

        The mean falls a little, so that a disk that was busy once is tried again some day.
        """
        if self.seconds_per_page is not None:
            self.seconds_per_page *= 0.95

    def _transfer(self, call: Callable[[int, list[mmap.mmap], int], int], slot: int) -> int:
        offset = slot * self.slot_bytes
        try:
            n = call(self._fd, [self._buffer], offset)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._direct:
                raise
            # opened directly, but this file system or its blocks do not work that way
            flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~self._direct)
            self._direct = 0
            n = call(self._fd, [self._buffer], offset)
        if not self._direct and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, offset, self.slot_bytes, os.POSIX_FADV_DONTNEED)
        return n

    def _report(self, problem: str, error: OSError | None = None) -> None:
        """Log a trouble once: the requests go on without the disk, and there may be many."""
        if problem not in self._reported:
            self._reported.add(problem)
            log.warning("%s: %s", problem, error.strerror if error else self.folder / DATA_NAME)

    # --- the file ----------------------------------------------------------------------------

    def cut(self, n_slots: int) -> OSError | None:
        """Shorten the file to so many slots; logged and returned if that fails."""
        size = n_slots * self.slot_bytes
        try:
            if os.fstat(self._fd).st_size > size:
                os.ftruncate(self._fd, size)
        except OSError as error:
            self._report(f"cannot shorten {self.folder / DATA_NAME}", error)
            return error
        return None

    def clear(self) -> OSError | None:
        """Forget all pages, and have them gone from the disk; what it refused, if it did."""
        self.occupy(set())
        refused = self.cut(0)
        try:
            os.fsync(self._fd)  # or they would be back after a power cut
        except OSError as error:
            self._report(f"cannot write {self.folder / DATA_NAME}", error)
            return refused or error
        return refused

    def finish(self, saved: list[SavedPage]) -> None:
        """Make the pages durable, then their index, and close; logged if the disk refuses."""
        try:
            self.cut(max((page.slot for page in saved), default=-1) + 1)
            os.fsync(self._fd)
            if saved:
                self._write_index(Index(self.fingerprint, saved))
        except OSError as error:
            self._report(f"cannot save conversations' state in {self.folder}", error)
        finally:
            os.close(self._fd)

    def _write_index(self, index: Index) -> None:
        body = msgspec.json.encode(index)
        part = self.folder / f"{INDEX_NAME}.part"
        part.unlink(missing_ok=True)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.folder / INDEX_NAME)
        _sync_folder(self.folder)


@dataclass(frozen=True)
class OpenDisk:
    """A file of slots, and the pages that an earlier process left in it, the latest used first."""

    file: PageFile
    saved: Sequence[SavedPage]


def open_disk(folder: Path, page_bytes: int, max_bytes: int, wanted: str) -> OpenDisk | None:
    """Open a folder of saved pages, or start one; None, logged, if it cannot be used.

    Args:
        wanted: fingerprint of the pages that can be used; others are deleted.

    The index is removed: from now on the file changes.
    """
    try:
        file = PageFile(folder, page_bytes, max_bytes, wanted)
    except OSError as error:
        log.warning("cannot keep conversations' state in %s: %s", folder, error.strerror)
        return None
    saved: Sequence[SavedPage] = ()
    try:
        index = _read_index(folder / INDEX_NAME)
        if index is not None and index.fingerprint == wanted:
            saved = within(index.pages, file.n_slots)
        _remove_index(folder)
    except DamagedIndexError as error:
        log.warning("%s is damaged, its conversations are computed again: %s", folder, error)
        _remove_index(folder)
    except OSError as error:
        file.finish([])
        log.warning("cannot keep conversations' state in %s: %s", folder, error.strerror)
        return None
    slots = {page.slot for page in saved}
    file.occupy(slots)
    file.cut(max(slots, default=-1) + 1)
    return OpenDisk(file, saved)


def discard(folder: Path) -> None:
    """Delete what is saved in a folder, if anything is; for when no process has it open.

    Raises:
        OSError: the disk refused.
    """
    if folder.is_dir():
        _remove_index(folder)
        (folder / DATA_NAME).unlink(missing_ok=True)


def _remove_index(folder: Path) -> None:
    (folder / f"{INDEX_NAME}.part").unlink(missing_ok=True)
    (folder / INDEX_NAME).unlink(missing_ok=True)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_index(path: Path) -> Index | None:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_INDEX_BYTES + 1)
    except FileNotFoundError:
        return None
    return parse_index(raw)


def parse_index(raw: bytes) -> Index:
    """Check an index completely: its digest, its types, and that its pages form a tree.

    Raises:
        DamagedIndexError: with what is wrong.
    """
    if len(raw) > MAX_INDEX_BYTES:
        raise DamagedIndexError(f"it has more than {MAX_INDEX_BYTES} bytes")
    digest, _, body = raw.partition(b"\n")
    if digest != hashlib.sha256(body).hexdigest().encode():
        raise DamagedIndexError("its checksum is wrong")
    try:
        index = msgspec.json.decode(body, type=Index)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedIndexError(str(error)) from error
    slots: set[int] = set()
    for number, page in enumerate(index.pages):
        if page.parent >= number:
            raise DamagedIndexError(f"page {number} comes before its parent {page.parent}")
        if page.parent >= 0 and len(index.pages[page.parent].tokens) < PAGE:
            raise DamagedIndexError(f"page {number} follows page {page.parent}, which is not full")
        if page.slot in slots:
            raise DamagedIndexError(f"slot {page.slot} is used twice")
        slots.add(page.slot)
    return index


def within(pages: Sequence[SavedPage], n_slots: int) -> list[SavedPage]:
    """Those pages that lie in the first n_slots, and whose ancestors do."""
    kept: list[SavedPage] = []
    numbers: dict[int, int] = {-1: -1}  # old → new
    for number, page in enumerate(pages):
        if page.slot < n_slots and page.parent in numbers:
            numbers[number] = len(kept)
            kept.append(msgspec.structs.replace(page, parent=numbers[page.parent]))
    return kept
