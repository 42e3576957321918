"""The compiled kernels: made once by another process, loaded without numba, and nothing else."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from engine import native
from engine.pages import drop_clean_pages

LIBC_AND_LIBM = {"read", "sched_yield", "write", "expf", "memcpy", "memmove", "memset"}


def run(code: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({"ASSISTANTD_KERNEL_CACHE": str(cache)} if cache else {})}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def undefined_symbols(code: bytes) -> set[str]:
    """Of a 64-bit little-endian ELF object."""
    (sections_at,) = struct.unpack_from("<Q", code, 40)
    (n_sections,) = struct.unpack_from("<H", code, 60)
    sections = [
        struct.unpack_from("<IIQQQQIIQQ", code, sections_at + 64 * i) for i in range(n_sections)
    ]
    found = set()
    for _, kind, _, _, offset, size, link, *_ in sections:
        for at in range(offset, offset + size, 24) if kind == 2 else ():
            name, _, _, section, _, _ = struct.unpack_from("<IBBHQQ", code, at)
            if section == 0 and name:
                start = sections[link][4] + name
                found.add(code[start : code.index(b"\0", start)].decode())
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF")
@pytest.mark.parametrize("name", native.ENTRIES)
def test_objects_need_neither_numba_nor_python(name: str) -> None:
    native.function(name)
    code = native.read(name)
    assert code is not None
    assert undefined_symbols(code) <= LIBC_AND_LIBM


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


CLOCK = "from engine import native; print(native.function('clock')() > 0)"


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
