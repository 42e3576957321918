"""How kernels are compiled: one decorator, and an on-disk cache that is honest about its inputs.

numba keys its cache on the file of the decorated function only: a change in a file it calls, or
another CPU, would go unnoticed. So the cache folder is named after a digest of every kernel
source, the compiler's version and the CPU with its features.
"""

import functools
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np

from engine.target import TARGET

F = TypeVar("F", bound=Callable[..., Any])


def _kernel_sources() -> list[Path]:
    here = Path(__file__).parent
    names = (
        "jit.py",
        "simd.py",
        "lowering.py",
        "target.py",
        "formats.py",
        "threads.py",
        "model.py",
    )
    return [*(here / name for name in names), *sorted((here / "kernels").glob("*.py"))]


@functools.cache
def cache_dir() -> Path:
    """Folder of the compiled kernels for exactly these sources, this compiler and this CPU."""
    digest = hashlib.sha256()
    for source in _kernel_sources():
        digest.update(source.read_bytes())
    features = ",".join(sorted(name for name, on in llvm.get_host_cpu_features().items() if on))
    for part in (
        numba.__version__,
        llvmlite.__version__,
        np.__version__,
        sys.version,
        llvm.get_host_cpu_name(),
        features,
        TARGET,
    ):
        digest.update(part.encode() + b"\0")
    root = os.environ.get("ASSISTANTD_KERNEL_CACHE")
    if root is None:
        root = str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "assistantd")
    return Path(root) / "kernels" / digest.hexdigest()[:16]


def is_warm() -> bool:
    """Whether the forward pass is in the on-disk cache, so that loading it takes a moment only."""
    return any(cache_dir().glob("**/model.forward_pass-*.nbc"))


# Read by numba when a function with cache=True is decorated, that is, after this line.
numba.config.CACHE_DIR = str(cache_dir())


def kernel(function: F) -> F:
    """Compile for threads that run without the GIL; kept on disk."""
    compiled: F = numba.njit(function, nogil=True, cache=True, error_model="numpy")
    return compiled


def inline(function: F) -> F:
    """A piece of a kernel, always inlined, so that constant arguments specialise it."""
    compiled: F = numba.njit(
        function,
        nogil=True,
        error_model="numpy",
        forceinline=True,
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
    )
    return compiled


def routine(function: F) -> F:
    """A part of a kernel that is called rather than inlined: compiled once, used in many places."""
    compiled: F = numba.njit(
        function, nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
    )
    return compiled
