"""Writing and removing the files of a service: whole or not at all."""

import contextlib
import os
import tempfile
from pathlib import Path

from clients.service.units import File


def write(file: File) -> None:
    """Put a file in place, readable for all, once it is on the disk.

    Raises:
        OSError: that is not possible; the old one is as it was.
    """
    file.path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.path.parent, prefix=f".{file.path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as part:
            part.write(file.text)
            part.flush()
            os.fchmod(part.fileno(), _mode(file.path))
            os.fsync(part.fileno())
        os.replace(name, file.path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _mode(path: Path) -> int:
    """That of the file that is replaced, which its owner may have closed."""
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        return 0o644


def remove(path: Path) -> bool:
    """Remove a file, and a folder of parts (.d) that is empty then. Whether it was there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    if path.parent.name.endswith(".d"):
        with contextlib.suppress(OSError):  # there is something of somebody else in it
            path.parent.rmdir()
    return True
