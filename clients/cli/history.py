"""What was typed in `assistant chat` before: prompt_toolkit's file, and forgetting parts of it.

# 2026-11-24 14:03:05.123456
+a line that was typed
+and another one of the same input
"""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path


def history_path() -> Path:
    """Where it is."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "assistantd" / "chat_history"


def forget_typed(meant: Callable[[float], bool]) -> int:
    """Delete what was typed at moments that are meant (Unix time); returns how many inputs.

    Raises:
        OSError: the file cannot be written.
    """
    path = history_path()
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return 0
    kept, n, going = list[bytes](), 0, True
    for line in lines:
        if line.startswith(b"# "):
            going = meant(_moment(line))
            n += going
        elif not line.strip():
            continue  # an empty line comes before each
        if not going:
            kept.append(b"\n" + line if line.startswith(b"# ") else line)
    if not kept:
        path.unlink()
    elif n:
        part = path.with_name(f"{path.name}.part")
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    return n


def _moment(line: bytes) -> float:
    """When an input was typed; 0.0 if that cannot be read, for the distant past."""
    try:
        return datetime.fromisoformat(line[2:].decode().strip()).timestamp()
    except (ValueError, OverflowError):
        return 0.0
