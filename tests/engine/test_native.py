"""The compiled kernels: made once by another process, loaded without numba, and nothing else."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from engine import native
from engine.pages import drop_clean_pages
from tests.engine.test_link import HERE, compiled

LIBC_AND_LIBM = {"read", "sched_yield", "write", "expf", "memcpy", "memmove", "memset"}
LIBC_AND_LIBM |= {"mmap", "raise", "sigaction"}  # of the handler


def run(code: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({"ASSISTANTD_KERNEL_CACHE": str(cache)} if cache else {})}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def undefined_symbols(code: bytes) -> set[str]:
    """What a 64-bit little-endian ELF library wants of others, by its loader's tables."""
    (segments_at,) = struct.unpack_from("<Q", code, 32)
    (n_segments,) = struct.unpack_from("<H", code, 56)
    segments = [
        struct.unpack_from("<IIQQQQQQ", code, segments_at + 56 * i) for i in range(n_segments)
    ]
    # addresses are offsets in the file, in what this project links
    assert all(segment[2] == segment[3] for segment in segments)
    (at, size) = next((segment[2], segment[5]) for segment in segments if segment[0] == 2)
    dynamic = dict(struct.iter_unpack("<QQ", code[at : at + size]))
    strings, symbols, hashes = dynamic[5], dynamic[6], dynamic[4]
    (n_symbols,) = struct.unpack_from("<I", code, hashes + 4)
    found, defined = set(), 0
    for i in range(1, n_symbols):
        name, _, _, section, _, _ = struct.unpack_from("<IBBHQQ", code, symbols + 24 * i)
        start = strings + name
        if section == 0:
            found.add(code[start : code.index(b"\0", start)].decode())
        defined += section != 0
    assert defined == 1  # the entry
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF")
@pytest.mark.parametrize("name", native.ENTRIES)
def test_objects_need_neither_numba_nor_python(name: str) -> None:
    native.function(name)
    code = native.read(name)
    assert code is not None
    wanted = undefined_symbols(code)
    assert wanted <= LIBC_AND_LIBM
    assert (name == "forward_pass") == ("sched_yield" in wanted)


def test_generating_does_not_import_numba(smollm2_path: Path) -> None:
    native.function("forward_pass")  # compiled by now
    done = run(
        "import sys; from pathlib import Path; from engine.generate import Engine; "
        "from engine.sampler import SamplingParams; "
        f"engine = Engine.load(Path({str(smollm2_path)!r}), n_threads=1); "
        "ids = engine.tokenizer.encode('The capital of France is'); "
        "print(''.join(engine.generate(ids, SamplingParams(temperature=0.0, max_tokens=3)))); "
        "engine.close(); print('numba' in sys.modules)"
    )
    assert "Paris" in done.stdout, done.stderr[-2000:]
    assert done.stdout.endswith("False\n")


REFUSE_EXECUTABLE_MEMORY = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(65, 1, 0, 0, 0) == 0, ctypes.get_errno()  # PR_SET_MDWE: from Linux 6.3
"""


def may_refuse_executable_memory() -> bool:
    return sys.platform == "linux" and run(REFUSE_EXECUTABLE_MEMORY).returncode == 0


@pytest.mark.skipif(not may_refuse_executable_memory(), reason="needs Linux 6.3")
def test_kernels_need_no_memory_that_is_written_and_run() -> None:
    """As under systemd's MemoryDenyWriteExecute=: LLVM's own loader ends the process there."""
    native.function("forward_pass")  # compiled by now
    program = REFUSE_EXECUTABLE_MEMORY + (
        "import mmap\n"
        "try:\n    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
        "except PermissionError:\n    pass\nelse:\n    raise AssertionError\n"
        "from engine import native\n"
        "for name in native.ENTRIES: native.function(name)\n"
        "print(native.function('clock')() > 0)"
    )
    done = run(program)
    assert done.stdout == "True\n", done.stderr[-2000:]


CLOCK = "from engine import native; print(native.function('clock')() > 0)"


@pytest.mark.skipif(sys.platform != "linux", reason="loads an ELF object")
def test_an_object_that_could_not_be_linked_is_loaded_too(tmp_path: Path) -> None:
    """As on a processor that link.py does not know."""
    source = 'target triple = "{triple}"\ndefine i64 @assistantd_clock() {{ ret i64 42 }}'
    program = "from engine import native; print(native.path_of('clock'))"
    path = Path(run(program, tmp_path).stdout.strip())
    path.parent.mkdir(parents=True)
    path.write_bytes(native.sealed(compiled(HERE, source)))
    assert run(f"{CLOCK.removesuffix(' > 0)')})", tmp_path).stdout == "42\n"


def test_a_missing_or_damaged_object_is_compiled(tmp_path: Path) -> None:
    assert run(CLOCK, tmp_path).stdout == "True\n"
    (path,) = tmp_path.glob("kernels/*/*")
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]):
        path.write_bytes(damaged)
        done = run(CLOCK, tmp_path)
        assert done.stdout == "True\n", done.stderr[-2000:]
        assert len(path.read_bytes()) == len(whole)
    assert list(path.parent.iterdir()) == [path]


def test_compiling_twice_at_once_does_no_harm(tmp_path: Path) -> None:
    env = {**os.environ, "ASSISTANTD_KERNEL_CACHE": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", CLOCK], env=env, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in both] == [b"True\n"] * 2


def test_failing_to_compile_is_an_engine_error(tmp_path: Path) -> None:
    (tmp_path / "kernels").touch()
    done = run(CLOCK, tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("engine.errors.EngineError: cannot compile the kernels: ")
    assert str(tmp_path) in last


def test_llvm_works_after_its_pages_are_dropped(tmp_path: Path) -> None:
    """Objects can be loaded again, and functions compiled."""
    native.function.cache_clear()
    clock = native.function("clock")
    assert clock() <= clock()
    drop_clean_pages("llvmlite")
    native.function.cache_clear()
    assert clock() <= native.function("clock")()
    done = run(f"{CLOCK}; import numba; print(numba.njit(lambda x: x + 1)(1))")
    assert done.stdout == "True\n2\n", done.stderr[-2000:]
