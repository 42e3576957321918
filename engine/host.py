"""What LLVM says of this processor, kept beside the kernels.

Asking loads LLVM: a tenth of a second, and 36 MB of memory or three times as much, as the system
maps what it has of the file. What was asked once for a processor and an LLVM holds for good.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

_TELLING = {
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("Features", "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
}
"""Lines of /proc/cpuinfo that are the same at each start, on x86 and on ARM."""


@dataclass(frozen=True)
class Host:
    """A processor, in LLVM's names."""

    name: str
    features: frozenset[str]


def cache_root() -> Path:
    """Folder of the compiled kernels of all versions and processors."""
    root = os.environ.get("ASSISTANTD_KERNEL_CACHE")
    if root is None:
        root = str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "assistantd")
    return Path(root) / "kernels"


@functools.cache
def host() -> Host:
    """This machine's processor."""
    path = _path()
    kept = None if path is None else _read(path)
    if kept is not None:
        return kept
    import llvmlite.binding as llvm

    found = Host(
        llvm.get_host_cpu_name(),
        frozenset(name for name, on in llvm.get_host_cpu_features().items() if on),
    )
    if path is not None:
        with contextlib.suppress(OSError):  # read-only for a daemon in its sandbox: asked each time
            _write(path, found)
    return found


def _path() -> Path | None:
    """Where it is kept; None where the system does not describe processors (macOS)."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = {line for line in file if line.partition(":")[0].strip() in _TELLING}
    except OSError:
        return None
    told = "".join((version("llvmlite"), platform.machine(), *sorted(lines)))
    return cache_root() / f"host-{hashlib.sha256(told.encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> Host | None:
    try:
        kept = json.loads(path.read_bytes())
        name, features = kept["name"], kept["features"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if not isinstance(name, str) or not isinstance(features, list):
        return None
    return Host(name, frozenset(map(str, features)))


def _write(path: Path, found: Host) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"name": found.name, "features": sorted(found.features)}
    handle, part = tempfile.mkstemp(dir=path.parent)
    with open(handle, "w", encoding="utf-8") as file:
        json.dump(kept, file)
    os.replace(part, path)
