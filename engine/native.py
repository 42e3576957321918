"""The compiled kernels: object files, made once by compile.py and loaded here. No numba here.

An object belongs to the sources, the compiler and the processor that it was made with and for; so
its folder is named after a digest of them all.
"""

import ctypes
import functools
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from engine.errors import EngineError
from engine.pages import drop_clean_pages
from engine.target import CPU, CPU_FEATURES, TARGET

_I64 = ctypes.c_int64
ENTRIES: dict[str, tuple[str, Any]] = {
    "forward_pass": ("engine.model", ctypes.CFUNCTYPE(None, _I64, _I64, _I64, _I64)),
    "read_memory": ("engine.kernels.probes", ctypes.CFUNCTYPE(ctypes.c_float, _I64, _I64)),
    "clock": ("engine.kernels.probes", ctypes.CFUNCTYPE(_I64)),
}
"""What Python calls: the module of the function of this name, and its C type."""

_SOURCES = (
    "compile.py formats.py jit.py job.py lowering.py model.py native.py simd.py system.py target.py"
)


@functools.cache
def cache_dir() -> Path:
    """Folder of the compiled kernels for exactly these sources, this compiler and this CPU."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for source in [*map(here.joinpath, _SOURCES.split()), *sorted(here.glob("kernels/*.py"))]:
        digest.update(source.read_bytes())
    features = ",".join(sorted(name for name, on in llvm.get_host_cpu_features().items() if on))
    for part in (
        *(version(package) for package in ("numba", "llvmlite", "numpy")),
        sys.version,
        llvm.get_host_cpu_name(),
        features,
        TARGET,
        str(CPU),
        str(CPU_FEATURES),
    ):
        digest.update(part.encode() + b"\0")
    root = os.environ.get("ASSISTANTD_KERNEL_CACHE")
    if root is None:
        root = str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "assistantd")
    return Path(root) / "kernels" / digest.hexdigest()[:16]


def path_of(name: str) -> Path:
    """File of an entry: a line with the SHA-256 of what follows, the object file."""
    return cache_dir() / f"{name}.kernel"


def symbol_of(name: str) -> str:
    """What an entry is called in its object file."""
    return f"assistantd_{name}"


def read(name: str) -> bytes | None:
    """The object file of an entry; None if it is missing or damaged."""
    try:
        digest, _, code = path_of(name).read_bytes().partition(b"\n")
    except OSError:
        return None
    return code if hashlib.sha256(code).hexdigest().encode() == digest else None


def is_warm() -> bool:
    """Whether the forward pass is compiled, so that loading it takes a moment only."""
    return read("forward_pass") is not None


def warm() -> Path:
    """Compile what is not compiled yet. Returns the folder.

    Raises:
        EngineError: compiling failed.
    """
    missing = [name for name in ENTRIES if read(name) is None]
    if missing:
        _compile(missing)
    return cache_dir()


def _compile(names: list[str]) -> None:
    """Have entries compiled by another process; several that do the same do no harm."""
    # it looks for modules where this process does, whatever the current folder is
    program = "import runpy, sys; n = int(sys.argv.pop(1)); sys.path[:] = sys.argv[1 : n + 1]; "
    program += "del sys.argv[1 : n + 1]; runpy.run_module('engine.compile', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(len(sys.path)), *sys.path, *names],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise EngineError(f"cannot compile the kernels: {last}")


@functools.cache
def function(name: str) -> Callable[..., Any]:
    """A compiled entry, ready to be called; it runs without the GIL.

    Raises:
        EngineError: it had to be compiled, and that failed.
    """
    code = read(name)
    if code is None:
        _compile([name])
        code = read(name)
        if code is None:
            raise EngineError(f"cannot compile the kernels: {path_of(name)} is missing or damaged")
    llvm.initialize_native_target()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    linker = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    linker.add_object_file(llvm.ObjectFileRef.from_data(code))
    call = ENTRIES[name][1](linker.get_function_address(symbol_of(name)))
    call.owner = linker  # of the memory that holds the code
    drop_clean_pages("llvmlite")  # LLVM has done its part
    return call  # type: ignore[no-any-return]
