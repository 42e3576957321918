"""Compiles kernels: python -m engine.compile ENTRY…

A program of its own, so that numba and the memory that compiling takes are gone when it ends
(native.py starts it). It reaches into numba, which keeps object code only for its own cache.
"""

import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import config, types
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import _FunctionCompiler  # type: ignore[attr-defined]
from numba.core.registry import cpu_target
from numba.core.typing.ctypes_utils import from_ctypes

from engine.jit import OPTIONS
from engine.link import LinkError, shared_library
from engine.native import ENTRIES, path_of, sealed, symbol_of


class _BareCompiler(_FunctionCompiler):  # type: ignore[misc]
    """Compiles a function without wrappers, and leaves its library open for more."""

    def _customize_flags(self, flags: Any) -> Any:
        flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
        flags.enable_pyobject = False
        return flags


@global_compiler_lock  # type: ignore[untyped-decorator]
def object_code(name: str) -> bytes:
    """Compile an entry with all that it calls: a shared library on Linux, else an object file.

    numba's own C wrapper (cfunc) would print exceptions, for which it needs numba and Python to
    be there; kernels raise none, so that the wrapper made here only calls.
    """
    module_name, prototype = ENTRIES[name]
    function = getattr(import_module(module_name), name)
    arguments = tuple(from_ctypes(kind) for kind in prototype._argtypes_)
    result = types.void if prototype._restype_ is None else from_ctypes(prototype._restype_)
    compiler = _BareCompiler(function, cpu_target, OPTIONS, {}, Compiler)
    compiled = compiler.compile(arguments, result)
    context, library, of = compiled.target_context, compiled.library, compiled.fndesc

    module = context.create_module(symbol_of(name))
    callee_type = context.call_conv.get_function_type(of.restype, of.argtypes)
    callee = ir.Function(module, callee_type, of.llvm_func_name)
    c_result = ir.VoidType() if result == types.void else context.get_value_type(result)
    c_type = ir.FunctionType(c_result, [context.get_value_type(kind) for kind in arguments])
    wrapper = ir.Function(module, c_type, symbol_of(name))
    builder = ir.IRBuilder(wrapper.append_basic_block())
    _, value = context.call_conv.call_function(
        builder, callee, of.restype, of.argtypes, wrapper.args, attrs=("noinline",)
    )
    if result == types.void:
        builder.ret_void()
    else:
        builder.ret(value)

    library.add_ir_module(module)
    if sys.platform == "linux":
        return _linked(library)
    library.enable_object_caching()
    library.finalize()
    code: bytes = library._get_compiled_object()
    return code


def _linked(library: Any) -> bytes:
    """A library's code, wherever it is put: numba itself makes code for fixed addresses."""
    library._finalize_final_module = lambda: None  # which would compile it for this process
    library.finalize()
    codegen = library.codegen
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=codegen._get_host_cpu_name(),
        features=codegen._tm_features,
        opt=int(config.OPT),
        reloc="pic",
        codemodel="small",
    )
    code: bytes = machine.emit_object(library._final_module)
    try:
        return shared_library(code)
    except LinkError:  # another kind of processor: LLVM loads it as it is
        return code


def compile_to(path: Path, name: str) -> None:
    """Put an entry's code into a file, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # opened first: a folder that cannot be written to should not cost a minute to find out
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            code = object_code(name)
            file.write(sealed(code))
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # others may use what root has compiled
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise


if __name__ == "__main__":
    for entry in sys.argv[1:]:
        compile_to(path_of(entry), entry)
