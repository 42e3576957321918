"""What the process has in memory, and giving back what a library will not need again."""

import ctypes
import os
import resource
import sys

_MADV_DONTNEED = 4


def resident_bytes() -> int:
    """Bytes of this process in memory, mapped files included; on macOS the most there ever were."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def trim() -> None:
    """Have the C library return what it keeps of freed memory (glibc only)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def drop_clean_pages(library: str) -> int:
    """Unmap for now what is in memory of shared libraries of this name. Returns the bytes.

    Only mappings of which no page was ever written to: what is dropped is read from the file
    again when it is touched. Does nothing where there is no /proc.
    """
    if sys.platform != "linux":
        return 0
    libc, dropped = ctypes.CDLL(None), 0
    try:
        with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return 0
    start = end = resident = 0
    for line in lines:
        words = line.split()
        if not words[0].endswith(":"):  # address perms offset device inode path
            name = words[5].rpartition("/")[2] if len(words) > 5 else ""
            is_code = library in name and words[1] in ("r-xp", "r--p")
            start, end = (int(x, 16) for x in words[0].split("-")) if is_code else (0, 0)
        elif words[0] == "Rss:":
            resident = int(words[1]) * 1024
        elif words[0] == "Anonymous:" and start and words[1] == "0":
            # (a relocated table is read-only, but a copy: it has anonymous pages)
            size = ctypes.c_size_t(end - start)
            if libc.madvise(ctypes.c_void_p(start), size, _MADV_DONTNEED) == 0:
                dropped += resident
    return dropped
