"""How kernels are compiled: the decorators of their pieces, and what numba is told.

compile.py makes libraries of the functions that are called from outside (native.ENTRIES);
everything those call is decorated here. Kernels have no reference counting (`_nrt`): arrays are
views of memory that others keep, and an array that a kernel made itself would not compile.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

from engine.target import CPU, CPU_FEATURES

F = TypeVar("F", bound=Callable[..., Any])

# Read by numba when it compiles its first function.
if CPU is not None:
    numba.config.CPU_NAME = CPU
if CPU_FEATURES is not None:
    numba.config.CPU_FEATURES = CPU_FEATURES
# numba's -O3 takes half again as long to compile as -O2, for kernels that are no faster: what
# there is to vectorise and unroll is written out.
numba.config.OPT = type(numba.config.OPT)("2")

OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}


def inline(function: F) -> F:
    """A piece of a kernel, always inlined, so that constant arguments specialise it."""
    compiled: F = numba.njit(
        function, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS
    )
    return compiled


def routine(function: F) -> F:
    """A part of a kernel that is called rather than inlined: compiled once, used in many places."""
    compiled: F = numba.njit(function, no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)
    return compiled
