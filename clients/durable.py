"""Files that are written whole or not at all, and what makes them survive a power cut."""

import os
import tempfile
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Write a folder's names to the disk. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(root: Path) -> None:
    """Write the names of a folder and of all folders below it. Raises OSError."""
    for folder, _folders, _files in os.walk(root):
        sync_folder(Path(folder))


def write_file(path: Path, text: str, *, replace: bool = False) -> None:
    """Write a file whole or not at all, for the user alone to read, and make it durable.

    Args:
        replace: a file of that name may go.

    Raises:
        FileExistsError: there is one of that name, and it is to stay.
        OSError: it cannot be written.
    """
    folder = path.parent
    descriptor, part = tempfile.mkstemp(dir=folder, prefix=f".{path.name[:100]}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(part, path)
        else:
            _move_to_new(part, path)
        sync_folder(folder)
    finally:
        if os.path.exists(part):
            os.unlink(part)


def _move_to_new(part: str, path: Path) -> None:
    try:
        os.link(part, path)  # unlike a rename it fails if the name is taken
    except FileExistsError:
        raise
    except OSError:
        # no second names here, as on a USB stick's FAT: take the name first, then fill it
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.replace(part, path)
