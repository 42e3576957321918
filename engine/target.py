"""Which instructions the kernels use: chosen once, from the processor or by ASSISTANTD_SIMD.

    avx512-vnni    512-bit vectors, byte dot product         (servers since 2019, Zen 4)
    avx2-vnni      256-bit vectors, byte dot product         (laptops since 2021)
    avx2           256-bit vectors                           (x86 since 2013)
    neon-i8mm      dot product of unsigned and signed bytes  (Apple M2, Graviton 3)
    neon-dotprod   dot product of signed bytes               (Raspberry Pi 5, Apple M1)
    neon           128-bit vectors                           (Raspberry Pi 3 and 4)
    portable       whatever LLVM makes of plain vector code

An override compiles for a processor that has no more than the named target needs, so that each
can be tried on a machine that has more.
"""

import ctypes
import os
import platform
import sys
from dataclasses import dataclass

from engine.errors import EngineError
from engine.host import host
from engine.i18n import _


@dataclass(frozen=True)
class _Target:
    features: frozenset[str]
    """Features that the processor must have."""
    cpu: str | None
    """What to compile for, in LLVM's names, when the target was asked for; None: this machine."""
    cpu_features: str = ""


_X86 = {
    "avx512-vnni": _Target(frozenset({"avx512vnni", "avx512vl", "avx512bw"}), None),
    "avx2-vnni": _Target(frozenset({"avxvnni", "avx2", "fma", "f16c"}), "alderlake"),
    "avx2": _Target(frozenset({"avx2", "fma", "f16c"}), "haswell"),
}
_ARM = {
    "neon-i8mm": _Target(frozenset({"neon", "dotprod", "i8mm"}), None),
    "neon-dotprod": _Target(frozenset({"neon", "dotprod"}), "cortex-a76"),
    "neon": _Target(frozenset({"neon"}), "cortex-a72"),
}
PORTABLE = "portable"


# What LLVM may not see: Linux tells it by bits of the auxiliary vector, macOS by sysctl.
_AT_HWCAP, _AT_HWCAP2 = 16, 26
_HWCAP = {"neon": (_AT_HWCAP, 1), "dotprod": (_AT_HWCAP, 20), "i8mm": (_AT_HWCAP2, 13)}
_SYSCTL = {"dotprod": b"hw.optional.arm.FEAT_DotProd", "i8mm": b"hw.optional.arm.FEAT_I8MM"}


def _arm_features() -> set[str]:
    """Of the features that targets ask for, those that the system says an ARM processor has."""
    libc = ctypes.CDLL(None)
    if sys.platform == "darwin":
        found = {"neon"}
        for feature, name in _SYSCTL.items():
            value, size = ctypes.c_int(0), ctypes.c_size_t(4)
            failed = libc.sysctlbyname(name, ctypes.byref(value), ctypes.byref(size), None, 0)
            if not failed and value.value:
                found.add(feature)
        return found
    libc.getauxval.restype, libc.getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return {name for name, (word, bit) in _HWCAP.items() if libc.getauxval(word) >> bit & 1}


def features() -> set[str]:
    """What the processor has, in LLVM's names."""
    found = set(host().features)
    if platform.machine().lower() in ("aarch64", "arm64"):
        found |= _arm_features()
    return found


def available() -> list[str]:
    """The targets that this machine can run, the best first."""
    machine = platform.machine().lower()
    known = _X86 if machine in ("x86_64", "amd64") else _ARM
    if machine not in ("x86_64", "amd64", "aarch64", "arm64"):
        known = {}
    found = features()
    return [*(name for name, t in known.items() if t.features <= found), PORTABLE]


def _choose() -> tuple[str, str | None, str | None]:
    usable = available()
    # LLVM does not know all features of ARM processors
    own = ",".join(f"+{name}" for name in sorted(features())) if usable[0] in _ARM else None
    wanted = os.environ.get("ASSISTANTD_SIMD")
    if not wanted:
        return usable[0], None, own
    if wanted not in usable:
        raise EngineError(
            _("ASSISTANTD_SIMD is {value!r}; this machine has {names}").format(
                value=wanted, names=", ".join(usable)
            )
        )
    target = {**_X86, **_ARM}.get(wanted)
    if target is not None and target.cpu is not None:
        return wanted, target.cpu, target.cpu_features
    return wanted, None, own


TARGET, CPU, CPU_FEATURES = _choose()
"""The target; and what to compile for in LLVM's names, None: what LLVM finds this machine to be."""
