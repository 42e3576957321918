"""Keys and values of all sequences in one pool of pages, with reuse of common beginnings.

A page holds PAGE consecutive positions of one sequence, all layers, keys and values. Pages form a
tree: a page's parent holds the positions before it. A new sequence walks the tree as far as its
tokens agree and starts there; what nobody uses stays as a cache until its page is needed. With a
disk attached it then goes there, stays in the tree, and comes back when a sequence begins with it.

Pages leave memory in the order in which they were last used, children before their parents, so
whatever is in memory has all its ancestors there, and the oldest on disk has no children.

Owns pages and tokens. Leaves the arithmetic to kernels/attention.py, the files to kv_disk.py.
"""

import heapq
import mmap
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.disk import anonymous
from engine.errors import OutOfCacheError
from engine.info import KV_KINDS, KvType, page_bytes
from engine.kernels import PAGE, head_bytes
from engine.kv_disk import PageFile, SavedPage

SAVE_SECONDS = 10.0
"""What saving may take at most; a service manager does not wait for ever."""


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


class _Page:
    """A node of the tree: the tokens whose keys and values it holds, and where these are.

    Attributes:
        index: page of the pool, -1 if it is on disk only.
        slot, checksum: of the copy on disk; slot is -1 if there is none.
        root: of its tree, which is another one after KVCache.clear.
    """

    __slots__ = ("checksum", "children", "index", "parent", "refs", "root", "slot", "tokens")

    def __init__(self, index: int, parent: "_Page | None") -> None:
        self.index = index
        self.parent = parent
        self.root: _Page = parent.root if parent else self
        self.tokens: list[int] = []  # at most PAGE
        self.children: list[_Page] = []  # sealed pages that follow
        self.refs = 0  # sequences that use it
        self.slot = -1
        self.checksum = 0


class KVCache:
    """The pool and its tree.

    Args:
        n_tokens: capacity in positions, rounded up to whole pages.
        kv_type: "f16", or "q8" for half the memory.
    Attributes:
        pool: (n_pages, n_layers, n_kv_heads, head_bytes) u8, see kernels/attention.py. The memory
            is taken from the system page by page, as it is first written.
        kind: what kernels call the kv_type.
        limit: how many pages it may hold now, at most n_pages; see `set_limit`.
    """

    def __init__(self, config: ModelConfig, n_tokens: int, kv_type: KvType = "f16") -> None:
        self.kind = KV_KINDS[kv_type]
        self.n_pages = self.limit = -(-n_tokens // PAGE)
        shape = (
            self.n_pages,
            config.n_layers,
            config.n_kv_heads,
            head_bytes(self.kind, config.head_dim),
        )
        self.page_bytes = page_bytes(config, kv_type)
        n_bytes = self.n_pages * self.page_bytes
        self._map = anonymous(n_bytes)
        pool = np.frombuffer(self._map, np.uint8, n_bytes)
        self.pool: npt.NDArray[np.uint8] = pool.reshape(shape)
        self._root = _Page(-1, None)
        self._free = list(range(self.n_pages))  # a heap: low pages first, to stay compact
        # the least recently used first; see _release for why children come before parents
        self._unused: dict[int, _Page] = {}  # sealed pages in memory without users, by index
        self._on_disk: dict[int, _Page] = {}  # pages on disk only, by slot
        self._copies: dict[int, _Page] = {}  # pages in memory with a copy on disk, by slot
        self._disk: PageFile | None = None

    @property
    def pages_available(self) -> int:
        """Pages that can be had: free ones, and those kept only as a cache."""
        return max(0, self.limit - self.pages_used + len(self._unused))

    @property
    def pages_used(self) -> int:
        """Pages that hold something, cached beginnings included."""
        return self.n_pages - len(self._free)

    def open(self, tokens: Sequence[int], seconds_per_row: float | None = None) -> "SequenceCache":
        """A cache for a sequence that begins with `tokens`; `length` says how many it has already.

        At least the last token is left to compute, because its logits are wanted.

        Args:
            seconds_per_row: what computing a token takes, if it is known: what takes longer to
                read from the disk is left to compute.
        """
        sequence = SequenceCache(self)
        sequence._match(tokens[: len(tokens) - 1], seconds_per_row)
        return sequence

    def clear(self) -> OSError | None:
        """Forget all beginnings, in memory and on disk, and give their memory back.

        Pages that sequences use stay theirs; nobody else finds them, and they go with the last.

        Returns what the disk refused, if it did; nothing of that is found again either.
        """
        self._root = _Page(-1, None)
        for page in self._copies.values():
            page.slot = -1
        self._copies.clear()
        self._on_disk.clear()
        for index in self._unused:
            heapq.heappush(self._free, index)
        self._unused.clear()
        for index in self._free:
            self._give_back(index)
        return None if self._disk is None else self._disk.clear()

    def set_limit(self, n_pages: int) -> int:
        """Hold at most n_pages from now on, and give the memory of others back to the system.

        Pages that nobody uses go to disk, the least recently used first. Those that sequences
        use stay, and go as they are released.

        Returns:
            The pages that may be held now: the limit, or those in use if they are more.
        """
        self.limit = max(0, min(n_pages, self.n_pages))
        self._trim()
        if self.limit < self.n_pages:
            for index in self._free:
                self._give_back(index)
        return max(self.limit, self.pages_used)

    def _trim(self) -> None:
        while self.pages_used > self.limit and self._unused:
            self._set_free(self._evict())

    def _set_free(self, index: int) -> None:
        heapq.heappush(self._free, index)
        if self.limit < self.n_pages:
            self._give_back(index)

    def _give_back(self, index: int) -> None:
        start = index * self.page_bytes
        whole = start + (-start) % mmap.PAGESIZE
        length = (start + self.page_bytes - whole) // mmap.PAGESIZE * mmap.PAGESIZE
        if length > 0:
            self._map.madvise(mmap.MADV_DONTNEED, whole, length)

    def _take(self) -> int:
        """Index of an empty page; the least recently used cached one gives way if need be."""
        if self.pages_used < self.limit:
            return heapq.heappop(self._free)
        if not self._unused:
            raise OutOfCacheError("all pages of the KV cache are in use")
        return self._evict()

    def _evict(self) -> int:
        """Put the least recently used page on disk, or forget it. Returns its index."""
        index = next(iter(self._unused))
        page = self._unused.pop(index)
        kept = self._spill(page)
        page.index = -1
        if not kept:
            self._forget(page)
        return index

    def _forget(self, page: _Page) -> None:
        """Take a page that is not in memory out of the tree, with all that follow it."""
        if page.parent is not None:
            page.parent.children.remove(page)
        branch = [page]
        while branch:
            node = branch.pop()
            branch += node.children
            if node.slot >= 0:
                self._drop_copy(node)

    def _retain(self, page: _Page) -> None:
        page.refs += 1
        self._unused.pop(page.index, None)

    def _release(self, page: _Page) -> None:
        """Note that a sequence uses a page no more.

        A sequence releases its last page first, so that in `_unused`, and in `_on_disk` where
        pages go from there, children come before their parents.
        """
        page.refs -= 1
        if page.refs:
            return
        if page.root is not self._root:
            if page.index >= 0:
                self._set_free(page.index)
        elif page.index < 0:
            if page.slot >= 0:  # else it was damaged, and is forgotten
                self._on_disk[page.slot] = self._on_disk.pop(page.slot)
        else:
            self._unused[page.index] = page
            self._trim()

    # --- the disk ----------------------------------------------------------------------------

    def attach(self, disk: PageFile, saved: Sequence[SavedPage] = ()) -> None:
        """Let pages go to a file from now on.

        Args:
            saved: what the file holds already, the latest used first, parents before children.
        """
        self._disk = disk
        pages: list[_Page] = []
        for entry in saved:
            page = _Page(-1, pages[entry.parent] if entry.parent >= 0 else self._root)
            page.tokens, page.slot, page.checksum = entry.tokens, entry.slot, entry.checksum
            pages.append(page)
            self._seal(page)
        self._on_disk = {page.slot: page for page in reversed(pages)}

    def save(self, seconds: float = SAVE_SECONDS) -> int:
        """Write what is in memory to disk, and an index of all; then close the disk.

        No sequence is in use any more. What does not fit, or cannot be written in time, is left
        out, the least recently used first; trouble is logged.

        Returns:
            The pages that the next process will find.
        """
        disk = self._disk
        if disk is None:
            return 0
        until = time.monotonic() + seconds
        in_memory = list(reversed(self._unused.values()))  # the latest used first
        for page in in_memory:
            if page.slot < 0 and not self._superseded(page):
                slot = self._find_slot(copies=False) if time.monotonic() < until else None
                if slot is None or not (self._write(page, slot) or self._overwrite(page)):
                    break
        numbers: dict[_Page, int] = {self._root: -1}
        saved: list[SavedPage] = []
        for page in (*in_memory, *reversed(self._on_disk.values())):
            assert page.parent is not None
            if page.slot >= 0 and page.parent in numbers:
                numbers[page] = len(saved)
                entry = SavedPage(numbers[page.parent], page.slot, page.checksum, page.tokens)
                saved.append(entry)
        self._disk = None
        disk.finish(saved)
        return len(saved)

    def _spill(self, page: _Page) -> bool:
        """Have a copy of a page that leaves memory on disk; False if that is not to be had."""
        if self._disk is None or self._superseded(page):
            return False
        if page.slot < 0:
            slot = self._find_slot()
            # a disk that is full has room where it was written before
            if slot is None or not (self._write(page, slot) or self._overwrite(page)):
                return False
        del self._copies[page.slot]
        self._on_disk[page.slot] = page
        return True

    def _overwrite(self, page: _Page) -> bool:
        slot = self._oldest_slot()
        return slot is not None and self._write(page, slot)

    def _write(self, page: _Page, slot: int) -> bool:
        assert self._disk is not None
        checksum = self._disk.write(slot, self.pool[page.index])
        if checksum is None:
            return False  # and the slot is not tried again
        page.slot, page.checksum = slot, checksum
        self._copies[slot] = page
        return True

    def _superseded(self, page: _Page) -> bool:
        """Whether another page holds the same and more, as an answer's page does its prompt's."""
        if page.children or page.parent is None:
            return False
        n = len(page.tokens)
        return any(
            p is not page
            and p.tokens[:n] == page.tokens
            and (len(p.tokens) > n or p.slot >= 0 or p.children)  # of two equals one is kept
            for p in page.parent.children
        )

    def _find_slot(self, *, copies: bool = True) -> int | None:
        """A slot to write to; of pages that are also in memory, then of the oldest on disk."""
        assert self._disk is not None
        slot = self._disk.take()
        if slot is None and copies and self._copies:
            slot = next(iter(self._copies))
            self._copies.pop(slot).slot = -1
        return self._oldest_slot() if slot is None else slot

    def _oldest_slot(self) -> int | None:
        oldest = next((p for p in self._on_disk.values() if not p.refs), None)
        if oldest is None or self._disk is None:
            return None
        self._forget(oldest)
        return self._disk.take()

    def _drop_copy(self, page: _Page) -> None:
        assert self._disk is not None
        self._disk.give(page.slot)
        self._on_disk.pop(page.slot, None)
        self._copies.pop(page.slot, None)
        page.slot = -1

    def _read(self, page: _Page, index: int) -> bool:
        """Read a page on disk into one of the pool; if that fails it is forgotten."""
        assert self._disk is not None
        if self._disk.read(page.slot, page.checksum, self.pool[index]):
            return True
        self._forget(page)
        return False

    def _rows_to_read(self, seconds_per_row: float | None) -> float:
        """How many tokens could be computed while one page is read; 0 while that is not known."""
        if self._disk is None or not seconds_per_row:
            return 0.0
        return (self._disk.seconds_per_page or 0.0) / seconds_per_row

    def _seal(self, page: _Page) -> None:
        """Let a page be found, and take over what the disk has of the same tokens."""
        parent = page.parent
        if parent is None or page.root is not self._root:
            return
        parent.children.append(page)
        if self._disk is None or page.index < 0:
            return
        for other in list(parent.children):
            if other.index >= 0 or other.tokens != page.tokens[: len(other.tokens)]:
                continue
            if len(other.tokens) == len(page.tokens) and page.slot < 0:
                # it was computed again, to the same bits
                slot, page.checksum, page.children = other.slot, other.checksum, other.children
                for child in page.children:
                    child.parent = page
                other.children, other.slot = [], -1
                page.slot = slot
                del self._on_disk[slot]
                self._copies[slot] = page
            self._forget(other)


class SequenceCache:
    """The pages of one sequence.

    Attributes:
        length: positions whose keys and values are there.
        page_table: (n_pages of the cache,) i32, the first ceil(length / PAGE) entries are set.
    """

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._root = cache._root
        self._pages: list[_Page] = []
        self.length = 0
        self.page_table = np.zeros(cache.n_pages, np.int32)

    def _match(self, tokens: Sequence[int], seconds_per_row: float | None) -> None:
        cache = self._cache
        parent = self._root
        while self.length < len(tokens):
            wanted = tokens[self.length : self.length + PAGE]
            cost = cache._rows_to_read(seconds_per_row)
            best, n_common, most_saved, slow = None, 0, 0.0, False
            for child in parent.children:
                n = common_prefix(child.tokens, wanted)
                saved = n - cost if child.index < 0 else float(n)
                slow = slow or saved <= 0 < n
                if saved > most_saved:
                    best, n_common, most_saved = child, n, saved
            if slow and cache._disk is not None:
                cache._disk.skipped()
            if best is None:
                return
            cache._retain(best)  # so that it is not what gives way
            try:
                if n_common < PAGE:
                    self._copy(best, n_common)
                    return
                if best.index < 0 and not self._bring_back(best):
                    continue
            except OutOfCacheError:
                return  # every other page is in use: better computed again than not at all
            finally:
                if n_common < PAGE or best.index < 0:
                    cache._release(best)
            self._add(best)
            self.length += PAGE
            parent = best

    def _copy(self, source: _Page, n_tokens: int) -> None:
        """Copy a page of which only the beginning agrees, since we shall write after it."""
        cache = self._cache
        page = self._new_page()
        if source.index < 0:
            if not cache._read(source, page.index):
                return  # the page stays, empty
        else:
            cache.pool[page.index] = cache.pool[source.index]
        page.tokens = list(source.tokens[:n_tokens])
        self.length += n_tokens

    def _bring_back(self, page: _Page) -> bool:
        """Read a page on disk into a free one; False if it is damaged, and forgotten then."""
        cache = self._cache
        index = cache._take()
        if not cache._read(page, index):
            cache._set_free(index)
            return False
        page.index = index
        del cache._on_disk[page.slot]
        cache._copies[page.slot] = page
        return True

    def _add(self, page: _Page) -> None:
        self.page_table[len(self._pages)] = page.index
        self._pages.append(page)

    def _new_page(self) -> _Page:
        parent = self._pages[-1] if self._pages else self._root
        page = _Page(self._cache._take(), parent)
        page.refs = 1
        self._add(page)
        return page

    def reserve(self, n_tokens: int) -> None:
        """Have pages ready for n_tokens positions in all.

        Raises:
            OutOfCacheError: not enough pages; those already taken stay with the sequence.
        """
        while len(self._pages) * PAGE < n_tokens:
            self._new_page()

    def extend(self, tokens: Sequence[int]) -> None:
        """Note that keys and values of these tokens now follow; their pages must be reserved."""
        for token in tokens:
            page = self._pages[self.length // PAGE]
            page.tokens.append(token)
            self.length += 1
            if len(page.tokens) == PAGE:
                self._cache._seal(page)

    def close(self) -> None:
        """Give the pages up; they stay as a cache until others need them."""
        if self._pages and self.length < len(self._pages) * PAGE:
            last = self.length // PAGE
            for page in self._pages[last + 1 :]:
                self._cache._set_free(page.index)
            partial = self._pages[last]
            del self._pages[last:]
            if partial.tokens:
                self._cache._seal(partial)
                self._pages.append(partial)
            else:
                self._cache._set_free(partial.index)
        for page in reversed(self._pages):
            self._cache._release(page)
        self._pages, self.length = [], 0
