"""Maps that may lose their file: a page that is not there reads as zeros, and is reported.

The system tells a process by SIGBUS that a page of a mapped file is gone: somebody has cut the
file off, or the disk cannot read it. By default that ends the process. For the maps watched here
the handler puts zeros there instead, the pass under way goes on with them, and whoever started it
asks `Watch.is_whole` before it uses what came out. Any other SIGBUS does what it did before.

Linux only; elsewhere nothing is watched, and a file that shrinks ends the process.
"""

import ctypes
import mmap
import signal
import sys
import threading

import numpy as np

from engine import native
from engine.guard_table import ACTION, FIRST, N_SLOTS, N_WORDS, PAGE_BYTES, SLOT_WORDS

AVAILABLE = sys.platform == "linux" and ctypes.sizeof(ctypes.c_void_p) == 8
_SA_SIGINFO, _SA_ONSTACK, _SA_RESTART = 0x4, 0x08000000, 0x10000000


class _Sigaction(ctypes.Structure):
    """struct sigaction of Linux' C libraries."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_uint64 * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_changing = threading.Lock()
_table = np.zeros(N_WORDS, np.int64)


class Watch:
    """A map that may lose pages of its file, until `close`.

    Args:
        address, n_bytes: of the map.
    """

    def __init__(self, address: int, n_bytes: int) -> None:
        self._entry: int | None = None
        if not AVAILABLE:
            return
        with _changing:
            _install()
            free = (FIRST + SLOT_WORDS * slot for slot in range(N_SLOTS))
            self._entry = next((at for at in free if _table[at + 1] == 0), None)
            if self._entry is None:
                return  # more than a process has use for; these die as they always did
            _table[self._entry + 2] = 0
            _table[self._entry] = address
            _table[self._entry + 1] = address + n_bytes  # last: the handler looks at any time

    @property
    def is_whole(self) -> bool:
        """Whether no page was missing so far."""
        return self._entry is None or not _table[self._entry + 2]

    def close(self) -> None:
        """To be called before the map is closed."""
        with _changing:
            if self._entry is not None:
                _table[self._entry + 1] = 0
                self._entry = None


def _install() -> None:
    """Make ours the handler, if it is not; what was there before is for all other errors."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = native.function("bus_error")
    ours = ctypes.cast(handle, ctypes.c_void_p).value  # type: ignore[arg-type]
    now = _Sigaction()
    if libc.sigaction(signal.SIGBUS, None, ctypes.byref(now)) == 0 and now.handler == ours:
        return
    _table[PAGE_BYTES] = mmap.PAGESIZE
    before = _table[ACTION:].ctypes.data
    ctypes.memmove(before, ctypes.byref(now), ctypes.sizeof(now))
    handle(0, _table.ctypes.data, 0)
    action = _Sigaction(handler=ours, flags=_SA_SIGINFO | _SA_ONSTACK | _SA_RESTART)
    if libc.sigaction(signal.SIGBUS, ctypes.byref(action), None) != 0:
        raise OSError(ctypes.get_errno(), "sigaction")
