"""How fast disk and memory are here: two short measurements, to tell what a plan will bring."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from engine import native
from engine.disk import SECTOR, DirectFile, anonymous
from engine.stream import PIECE_BYTES, READERS

_DISK_BYTES = 64 << 20


def disk_speed(path: Path, n_bytes: int = _DISK_BYTES) -> float:
    """Bytes per second that are read from a file as streaming does, from its middle on.

    Raises:
        ReadError: it cannot be read.
    """
    file = DirectFile(path)
    try:
        n_pieces = max(1, min(n_bytes, file.size) // PIECE_BYTES)
        first = max(0, file.size // 2 - n_pieces * PIECE_BYTES // 2) // SECTOR * SECTOR
        # in large pages like the ring, into which a request is split less
        memory = anonymous(2 * READERS * PIECE_BYTES, huge=True)
        places: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(2 * READERS):
            places.put(number * PIECE_BYTES)

        def read(number: int) -> int:
            at = places.get()
            with memoryview(memory) as whole, whole[at : at + PIECE_BYTES] as view:
                file.read_into(view, first + number * PIECE_BYTES)
            places.put(at)
            return PIECE_BYTES

        start = time.perf_counter()
        with ThreadPoolExecutor(READERS) as pool:
            total = sum(pool.map(read, range(n_pieces)))
        return total / (time.perf_counter() - start)
    finally:
        file.close()


def memory_speed(n_threads: int, n_bytes: int = 256 << 20, rounds: int = 10) -> float:
    """Bytes per second that n_threads plain loops read from memory together; the best round.

    Args:
        n_bytes: memory that is taken for it, for all threads; less than caches hold tells of them.

    Raises:
        EngineError: the kernels had to be compiled, and that failed.
    """
    read: Callable[[int, int], float] = native.function("read_memory")
    size = max(1 << 20, n_bytes // n_threads) // 256 * 256
    buffers = [anonymous(size) for _ in range(n_threads)]
    addresses = []
    for buffer in buffers:
        array = np.frombuffer(buffer, np.float32)
        array[:] = 1.0  # its own memory, not the shared page of zeros
        addresses.append(array.ctypes.data)
        del array
    best = 0.0
    for _ in range(rounds):
        threads = [threading.Thread(target=read, args=(a, size)) for a in addresses]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, n_threads * size / (time.perf_counter() - start))
    return best
