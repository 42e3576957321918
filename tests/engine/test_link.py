"""The linker: objects of both processors become libraries, and what is unknown is refused."""

import ctypes
import math
import platform
import struct
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from engine.link import LinkError, shared_library

# calls to the C library and to a function in here, constants of 16 and 64 bytes, a jump table, and
# data that holds addresses, of what is in here and of what is not
SOURCE = """
target triple = "{triple}"
declare float @expf(float)
declare i32 @sched_yield()
@numbers = internal constant [5 x i64] [i64 3, i64 1, i64 4, i64 1, i64 5]
@places = internal constant [2 x ptr] [ptr @half, ptr @sched_yield]
@written = internal global i64 7
define internal i64 @half(i64 %n) noinline {{
  %r = sdiv i64 %n, 2
  ret i64 %r
}}
define internal i64 @chosen(i64 %n) noinline {{
  switch i64 %n, label %other [
    i64 0, label %a
    i64 1, label %b
    i64 2, label %c
    i64 3, label %d
    i64 4, label %e
  ]
a: ret i64 100
b: ret i64 7
c: ret i64 %n
d: ret i64 -5
e: %y = call i32 @sched_yield()
  %z = sext i32 %y to i64
  ret i64 %z
other: ret i64 99
}}
define i64 @assistantd_digits(i64 %i) {{
  %p = getelementptr [5 x i64], ptr @numbers, i64 0, i64 %i
  %v = load i64, ptr %p
  ret i64 %v
}}
define i64 @assistantd_indirect(i64 %n) {{
  %f = load volatile ptr, ptr @places
  %r = call i64 %f(i64 %n)
  %before = load i64, ptr @written
  store i64 %r, ptr @written
  %sum = add i64 %r, %before
  ret i64 %sum
}}
define i64 @assistantd_chosen(i64 %n) {{
  %r = call i64 @chosen(i64 %n)
  ret i64 %r
}}
define double @assistantd_exp(double %x) {{
  %f = fptrunc double %x to float
  %e = call float @expf(float %f)
  %d = fpext float %e to double
  %s = fmul double %d, 0x3FF3C0CA428C59FB
  ret double %s
}}
"""


def compiled(triple: str, source: str = SOURCE, codemodel: str = "small") -> bytes:
    """An object file for a processor, as engine.compile has it made."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(
        opt=2, reloc="pic", codemodel=codemodel
    )
    code: bytes = machine.emit_object(llvm.parse_assembly(source.format(triple=triple)))
    return code


HERE = f"{platform.machine()}-unknown-linux-gnu"


@pytest.mark.skipif(sys.platform != "linux", reason="loads an ELF library")
def test_a_library_of_this_processor_runs(tmp_path: Path) -> None:
    path = tmp_path / "library"
    path.write_bytes(shared_library(compiled(HERE)) + b"\nwhat a loader does not look at")
    library = ctypes.CDLL(str(path))
    word = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    digits = word(("assistantd_digits", library))
    assert [digits(i) for i in range(5)] == [3, 1, 4, 1, 5]
    indirect = word(("assistantd_indirect", library))
    assert indirect(10) == 5 + 7 and indirect(6) == 3 + 5
    chosen = word(("assistantd_chosen", library))
    assert [chosen(n) for n in range(6)] == [100, 7, 2, -5, 0, 99]
    exp = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(("assistantd_exp", library))
    assert math.isclose(exp(1.5), math.exp(1.5) * 1.2345678901234567, rel_tol=1e-6)
    # nothing else can be found in it
    with pytest.raises(AttributeError):
        _ = library.half
    rights = {
        line.split()[1][:3]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(path))
    }
    assert "rwx" not in rights and "r-x" in rights


@pytest.mark.parametrize("triple", ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"])
def test_every_address_of_both_processors_is_known(triple: str) -> None:
    """That they are right is known by running them: here, and by tests/arm64.sh."""
    library = shared_library(compiled(triple))
    assert library[:4] == b"\x7fELF" and struct.unpack_from("<H", library, 16) == (3,)


def test_what_it_does_not_know_it_refuses() -> None:
    whole = compiled("x86_64-unknown-linux-gnu")
    for code in (b"", b"MZ" + whole[2:], whole[:18] + b"\x28" + whole[19:]):
        with pytest.raises(LinkError):
            shared_library(code)
    with pytest.raises(LinkError, match=r"relocation|absolute"):
        shared_library(compiled("x86_64-unknown-linux-gnu", codemodel="large"))
    thread_local = 'target triple = "{triple}"\n@t = thread_local global i64 1\n' + (
        "define i64 @assistantd_t() {{ %v = load i64, ptr @t ret i64 %v }}"
    )
    with pytest.raises(LinkError):
        shared_library(compiled("x86_64-unknown-linux-gnu", thread_local))
