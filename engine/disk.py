"""Reading a file past the page cache, so that what is read is in memory once.

Linux: O_DIRECT, where the file system can. macOS: F_NOCACHE. Otherwise ordinary reads whose pages
are given back at once.
"""

import errno
import fcntl
import mmap
import os
import sys
from pathlib import Path

from engine.errors import ReadError
from engine.i18n import _

SECTOR = 4096
"""Files are read past the page cache in multiples of this, at multiples of it."""


def anonymous(n_bytes: int, *, huge: bool = False) -> mmap.mmap:
    """Memory of one's own: zeros, aligned to pages, taken from the system as it is written.

    Args:
        huge: in large pages where the system has them: for what is filled at once, and read fast.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, max(n_bytes, mmap.PAGESIZE), flags=flags)
    if huge and hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            memory.madvise(mmap.MADV_HUGEPAGE)
        except OSError as problem:
            if problem.errno != errno.EINVAL:  # a kernel without large pages
                raise
    return memory


class DirectFile:
    """A file opened for reading without the page cache; may be read by several threads at once.

    Attributes:
        size: bytes of the file when it was opened.
        identity: device and inode.
        is_direct: whether reads go past the page cache altogether.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        flags = os.O_RDONLY | os.O_CLOEXEC
        direct = getattr(os, "O_DIRECT", 0)
        try:
            try:
                self._fd = os.open(path, flags | direct)
                self.is_direct = bool(direct)
            except OSError as problem:
                if problem.errno != errno.EINVAL:
                    raise
                self._fd = os.open(path, flags)  # no direct reads here, as on tmpfs
                self.is_direct = False
        except OSError as problem:
            raise ReadError(
                _("cannot open {path}: {problem}").format(path=path, problem=problem.strerror)
            ) from problem
        status = os.fstat(self._fd)
        self.size, self.identity = status.st_size, (status.st_dev, status.st_ino)
        if sys.platform == "darwin":
            fcntl.fcntl(self._fd, fcntl.F_NOCACHE, 1)
            self.is_direct = True

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill a view with the bytes from `offset`; past the end of the file it is left as it is.

        Offset and length must be multiples of SECTOR, and the view's address one of the page size.

        Raises:
            ReadError: the system could not read, or the file is shorter than it was.
        """
        done = 0
        while done < len(view):
            try:
                n = os.preadv(self._fd, [view[done:]], offset + done)
            except OSError as problem:
                if problem.errno == errno.EINVAL and self.is_direct and sys.platform == "linux":
                    self._go_buffered()  # it could be opened so, but not be read
                    continue
                raise ReadError(
                    _("cannot read {path}: {problem}").format(
                        path=self._path, problem=problem.strerror
                    )
                ) from problem
            done += n
            if n == 0 or (self.is_direct and done % SECTOR):  # the end may be within a sector
                break
        if offset + done < min(offset + len(view), self.size):
            raise ReadError(
                _("{path} was cut off while it was in use; fetch it again").format(path=self._path)
            )
        if not self.is_direct and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, offset, len(view), os.POSIX_FADV_DONTNEED)

    def _go_buffered(self) -> None:
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        self.is_direct = False

    def drop_cached(self) -> None:
        """Put the file out of the page cache, where the system takes such advice."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
