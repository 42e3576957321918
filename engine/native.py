"""The compiled kernels: made once by compile.py and loaded here. No numba here.

On Linux they are shared libraries, which the system's loader maps from their files: the process
needs no right to make memory that is run. On macOS, and on processors that link.py does not know,
they are object files, which LLVM loads.

A file belongs to the sources, the compiler and the processor that it was made with and for; so its
folder is named after a digest of them all.
"""

import ctypes
import functools
import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.host import cache_root, host
from engine.i18n import _
from engine.pages import drop_clean_pages
from engine.target import CPU, CPU_FEATURES, TARGET

_I64 = ctypes.c_int64
ENTRIES: dict[str, tuple[str, Any]] = {
    "forward_pass": ("engine.model", ctypes.CFUNCTYPE(None, _I64, _I64, _I64, _I64)),
    "read_memory": ("engine.kernels.probes", ctypes.CFUNCTYPE(ctypes.c_float, _I64, _I64)),
    "clock": ("engine.kernels.probes", ctypes.CFUNCTYPE(_I64)),
    "bus_error": ("engine.kernels.bus_error", ctypes.CFUNCTYPE(None, _I64, _I64, _I64)),
}
"""What Python calls: the module of the function of this name, and its C type."""

NEEDED = ("forward_pass", "bus_error")
"""What a model cannot do without."""

_SHARED = 3  # ET_DYN
_SOURCES = (
    "compile.py formats.py guard_table.py jit.py job.py link.py lowering.py model.py native.py "
    "simd.py system.py target.py"
)


@functools.cache
def cache_dir() -> Path:
    """Folder of the compiled kernels for exactly these sources, this compiler and this CPU."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for source in [*map(here.joinpath, _SOURCES.split()), *sorted(here.glob("kernels/*.py"))]:
        digest.update(source.read_bytes())
    for part in (
        *(version(package) for package in ("numba", "llvmlite", "numpy")),
        sys.version,
        host().name,
        ",".join(sorted(host().features)),
        TARGET,
        str(CPU),
        str(CPU_FEATURES),
    ):
        digest.update(part.encode() + b"\0")
    return cache_root() / digest.hexdigest()[:16]


def path_of(name: str) -> Path:
    """File of an entry: its code, and its SHA-256 in the last line; see `sealed`."""
    return cache_dir() / f"{name}.kernel"


def symbol_of(name: str) -> str:
    """What an entry is called in its file."""
    return f"assistantd_{name}"


def sealed(code: bytes) -> bytes:
    """What the file of an entry holds. Loaders do not look at what follows a library."""
    return code + b"\n" + hashlib.sha256(code).hexdigest().encode()


def read(name: str) -> bytes | None:
    """The code of an entry; None if it is missing or damaged."""
    try:
        content = path_of(name).read_bytes()
    except OSError:
        return None
    code = content.rpartition(b"\n")[0]
    return code if content == sealed(code) else None


def is_warm() -> bool:
    """Whether what a model needs is compiled, so that loading it takes a moment only."""
    return all(read(name) is not None for name in NEEDED)


def warm(names: Iterable[str] = tuple(ENTRIES)) -> Path:
    """Compile what is not compiled yet. Returns the folder.

    Raises:
        EngineError: compiling failed.
    """
    missing = [name for name in names if read(name) is None]
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
        raise EngineError(_("cannot compile the kernels: {problem}").format(problem=last))


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
            raise EngineError(
                _("cannot compile the kernels: {path} is missing or damaged").format(
                    path=path_of(name)
                )
            )
    return _load(name, code)


def _load(name: str, code: bytes) -> Callable[..., Any]:
    symbol, kind = symbol_of(name), ENTRIES[name][1]
    if code[:4] == b"\x7fELF" and code[16] == _SHARED:
        call = kind((symbol, ctypes.CDLL(str(path_of(name)))))
        return call  # type: ignore[no-any-return]
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    linker = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    linker.add_object_file(llvm.ObjectFileRef.from_data(code))
    call = kind(linker.get_function_address(symbol))
    call.owner = linker  # of the memory that holds the code
    drop_clean_pages("llvmlite")  # LLVM has done its part
    return call  # type: ignore[no-any-return]
