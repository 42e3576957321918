"""Small files that only their user may read, written whole or not at all."""

import contextlib
import os
import tempfile
from pathlib import Path

from assistantd.durable import durable_folder, sync_folder


def private_folder(folder: Path) -> Path:
    """Make a folder, and see to it that only its owner can look into it; returns it.

    Raises:
        OSError: it cannot be made, or belongs to somebody else.
    """
    durable_folder(folder)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600, or replace it, so that it is whole after a power cut, too.

    Raises:
        OSError: it cannot be written; what was there is unchanged.
    """
    # made by mkstemp with mode 0600: nobody else may read it at any moment
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".new")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    sync_folder(path.parent)
