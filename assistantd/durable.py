"""What it takes for files and folders to be there after a power cut.

A file's data is on disk after its fsync, and its name after that of its folder.
"""

import contextlib
import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make what was made, renamed or removed in a folder survive a power cut.

    Raises:
        OSError: the disk refuses.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def durable_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for its owner only.

    Raises:
        OSError: it cannot be made.
    """
    if folder.is_dir():
        return
    durable_folder(folder.parent)
    with contextlib.suppress(FileExistsError):  # made by another process at this moment
        folder.mkdir(mode=0o700)
    sync_folder(folder.parent)


def write_durable(path: Path, data: bytes) -> None:
    """Replace a file, so that after a power cut the old one is there or the new one.

    Raises:
        OSError: the disk refuses; the old one is there.
    """
    part = path.with_name(f"{path.name}.new")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
