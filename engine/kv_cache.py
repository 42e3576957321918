"""Keys and values of all sequences in one pool of pages, with reuse of common beginnings.

A page holds PAGE consecutive positions of one sequence, all layers, keys and values. Pages form a
tree: a page's parent holds the positions before it. A new sequence walks the tree as far as its
tokens agree and starts there; what nobody uses stays as a cache until its page is needed.

Owns pages and tokens. Leaves the arithmetic to kernels/attention.py.
"""

import itertools
import mmap
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.disk import anonymous
from engine.errors import OutOfCacheError
from engine.info import KV_KINDS, KvType, page_bytes
from engine.kernels import PAGE, head_bytes


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


class _Page:
    """A node of the tree: a page and the tokens whose keys and values it holds."""

    __slots__ = ("children", "index", "last_used", "parent", "refs", "tokens")

    def __init__(self, index: int, parent: "_Page | None") -> None:
        self.index = index
        self.parent = parent
        self.tokens: list[int] = []  # at most PAGE
        self.children: list[_Page] = []  # sealed pages that follow
        self.refs = 0  # sequences that use it
        self.last_used = 0


class KVCache:
    """The pool and its tree.

    Args:
        n_tokens: capacity in positions, rounded up to whole pages.
        kv_type: "f16", or "q8" for half the memory.
    Attributes:
        pool: (n_pages, n_layers, n_kv_heads, head_bytes) u8, see kernels/attention.py. The memory
            is taken from the system page by page, as it is first written.
        kind: what kernels call the kv_type.
    """

    def __init__(self, config: ModelConfig, n_tokens: int, kv_type: KvType = "f16") -> None:
        self.kind = KV_KINDS[kv_type]
        self.n_pages = -(-n_tokens // PAGE)
        shape = (
            self.n_pages,
            config.n_layers,
            config.n_kv_heads,
            head_bytes(self.kind, config.head_dim),
        )
        self.page_bytes = page_bytes(config, kv_type)
        self._map = anonymous(self.n_pages * self.page_bytes)
        self.pool: npt.NDArray[np.uint8] = np.frombuffer(self._map, np.uint8).reshape(shape)
        self._root = _Page(-1, None)
        self._free = list(range(self.n_pages - 1, -1, -1))
        self._unused: dict[int, _Page] = {}  # sealed pages without users, by index
        self._withheld: list[int] = []  # above the limit
        self._clock = itertools.count(1)

    @property
    def pages_available(self) -> int:
        """Pages that can be had: free ones, and those kept only as a cache."""
        return len(self._free) + len(self._unused)

    @property
    def pages_used(self) -> int:
        """Pages that hold something, cached beginnings included."""
        return self.limit - len(self._free)

    @property
    def limit(self) -> int:
        """Pages that may be in memory, of n_pages."""
        return self.n_pages - len(self._withheld)

    def set_limit(self, n_pages: int) -> int:
        """Keep at most n_pages in memory from now on, or as few as running sequences allow.

        Cached beginnings give way, the least recently used first, and their memory goes back to
        the system. A limit may be raised again, up to the size of the pool.

        Returns:
            the limit there is now.
        """
        while self._withheld and self.limit < n_pages:
            self._free.append(self._withheld.pop())
        while self.limit > n_pages and (self._free or self._unused):
            index = self._take()
            self._withheld.append(index)
            self._give_back(index)
        return self.limit

    def open(self, tokens: Sequence[int]) -> "SequenceCache":
        """A cache for a sequence that begins with `tokens`; `length` says how many it has already.

        At least the last token is left to compute, because its logits are wanted.
        """
        sequence = SequenceCache(self)
        sequence._match(tokens[: len(tokens) - 1])
        return sequence

    def clear(self) -> None:
        """Forget all cached beginnings that nobody uses, and give their memory back."""
        for page in list(self._unused.values()):
            if page.index in self._unused and not page.children:
                self._evict_branch(page)
        for index in self._free:
            self._give_back(index)

    def _give_back(self, index: int) -> None:
        """Return a page's memory to the system, as far as it shares none with its neighbours."""
        start = index * self.page_bytes
        whole = start + (-start) % mmap.PAGESIZE
        length = (start + self.page_bytes - whole) // mmap.PAGESIZE * mmap.PAGESIZE
        if length > 0:
            self._map.madvise(mmap.MADV_DONTNEED, whole, length)

    def _evict_branch(self, page: _Page | None) -> None:
        while page is not None and page.index in self._unused and not page.children:
            parent = page.parent
            self._forget(page)
            page = parent

    def _forget(self, page: _Page) -> None:
        del self._unused[page.index]
        if page.parent is not None:
            page.parent.children.remove(page)
        self._free.append(page.index)

    def _take(self) -> int:
        """Index of an empty page; the least recently used cached leaf gives way if need be."""
        if not self._free:
            leaves: Iterator[_Page] = (p for p in self._unused.values() if not p.children)
            oldest = min(leaves, key=lambda p: p.last_used, default=None)
            if oldest is None:
                raise OutOfCacheError("all pages of the KV cache are in use")
            self._forget(oldest)
        return self._free.pop()

    def _retain(self, page: _Page) -> None:
        page.refs += 1
        page.last_used = next(self._clock)
        self._unused.pop(page.index, None)

    def _release(self, page: _Page) -> None:
        page.refs -= 1
        page.last_used = next(self._clock)
        if page.refs == 0:
            self._unused[page.index] = page


class SequenceCache:
    """The pages of one sequence.

    Attributes:
        length: positions whose keys and values are there.
        page_table: (n_pages of the cache,) i32, the first ceil(length / PAGE) entries are set.
    """

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._pages: list[_Page] = []
        self.length = 0
        self.page_table = np.zeros(cache.n_pages, np.int32)

    def _match(self, tokens: Sequence[int]) -> None:
        cache = self._cache
        parent = cache._root
        while self.length < len(tokens):
            wanted = tokens[self.length : self.length + PAGE]
            best, n_common = None, 0
            for child in parent.children:
                n = common_prefix(child.tokens, wanted)
                if n > n_common:
                    best, n_common = child, n
            if best is None:
                return
            if n_common == PAGE:
                cache._retain(best)
                self._add(best)
                self.length += PAGE
                parent = best
                continue
            # only the beginning of that page agrees: it is copied, since we shall write after it
            cache._retain(best)
            try:
                page = self._new_page()
            except OutOfCacheError:
                return  # every other page is in use: better computed again than not at all
            finally:
                cache._release(best)
            cache.pool[page.index] = cache.pool[best.index]
            page.tokens = list(best.tokens[:n_common])
            self.length += n_common
            return

    def _add(self, page: _Page) -> None:
        self.page_table[len(self._pages)] = page.index
        self._pages.append(page)

    def _new_page(self) -> _Page:
        parent = self._pages[-1] if self._pages else self._cache._root
        page = _Page(self._cache._take(), parent)
        page.refs = 1
        page.last_used = next(self._cache._clock)
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
                self._seal(page)

    def _seal(self, page: _Page) -> None:
        # a page whose parent is not in the tree itself cannot be found, but does no harm
        if page.parent is not None:
            page.parent.children.append(page)

    def close(self) -> None:
        """Give the pages up; they stay as a cache until others need them."""
        if self._pages and self.length < len(self._pages) * PAGE:
            last = self.length // PAGE
            for page in self._pages[last + 1 :]:
                self._cache._free.append(page.index)
            partial = self._pages[last]
            del self._pages[last:]
            if partial.tokens:
                self._seal(partial)
                self._pages.append(partial)
            else:
                self._cache._free.append(partial.index)
        for page in self._pages:
            self._cache._release(page)
        self._pages, self.length = [], 0
