"""Every SIMD target that this machine can run computes the same; each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.target import available

# Byte dot products are exact; a difference of one anywhere fails.
DOTS = """
import numpy as np, numba
from engine import simd as v
from engine.aligned import aligned_zeros
from engine.target import TARGET

@numba.njit
def run(w, x, acc, small, out):
    for i in range(w.shape[0]):
        start = v.to_i32(v.load_f32x16(acc[i].ctypes.data))
        a, b = v.load_u8x64(w[i].ctypes.data), v.load_u8x64(x[i].ctypes.data)
        dots = v.dot_small(start, a, b) if small else v.dot(start, a, b)
        v.store_f32x16(out[i].ctypes.data, v.to_f32(dots))

rng = np.random.default_rng(0)
for small in (False, True):
    w = rng.integers(0, 128 if small else 256, (500, 64), dtype=np.uint8)
    x = rng.integers(-127, 128, (500, 64), dtype=np.int8)
    w[:2], x[0], x[1] = 127 if small else 255, 127, -127
    acc = rng.integers(-1000, 1000, (500, 16)).astype(np.float32)
    out = np.zeros((500, 16), np.float32)
    run(w, x, acc, small, out)
    expected = acc + (w.astype(int) * x).reshape(500, 16, 4).sum(-1)
    assert np.array_equal(out, expected), (TARGET, small)

@numba.njit
def others(x, out, halves):
    v.store_f32x16(out[0].ctypes.data, v.exp(v.load_f32x16(x[0].ctypes.data)))
    v.transpose_16x16(x.ctypes.data, 64, out[1:].ctypes.data)
    v.store_f16x16(halves[0].ctypes.data, v.load_f32x16(x[0].ctypes.data))
    for lane in range(16):
        v.store_f16(halves[1, lane:].ctypes.data, x[0, lane])
    v.store_f32x16(out[17].ctypes.data, v.one_of_four(v.load_f32x16(x[1].ctypes.data), 0))
    v.store_f32x16(out[18].ctypes.data, v.one_of_four(v.load_f32x16(x[1].ctypes.data), 3))

x = np.linspace(-90, 80, 256).astype(np.float32).reshape(16, 16)
x[0] = np.linspace(-20, 20, 16)
out = np.zeros((19, 16), np.float32)
halves = np.zeros((2, 16), np.uint16)
others(x, out, halves)
assert np.allclose(out[0], np.exp(x[0].astype(float)), rtol=5e-7)
assert np.array_equal(out[1:17], x.T)
assert np.array_equal(halves.view(np.float16), np.stack([x[0], x[0]]).astype(np.float16))
assert np.array_equal(out[17], x[1, ::4].repeat(4))
assert np.array_equal(out[18], x[1, 3::4].repeat(4))
assert v.TARGET == TARGET
print(TARGET)
"""

# Prints the mnemonics of the byte dot products in the code of a matvec.
MNEMONICS = """
import re, numba
from engine.aligned import aligned_zeros
from engine.job import MATRIX, allocate
from engine.kernels import unpack
from engine.kernels.matvec import _quantized_rows

@numba.njit
def run(matrices, act, out):
    _quantized_rows(unpack.Q4_0, 1, matrices[0], act, 1, out, 0, 4, 0)

signature = tuple(numba.typeof(a) for a in (
    aligned_zeros((1,), MATRIX), allocate(1, 128), aligned_zeros((1, 4), "f4")))
run.compile(signature)
words = re.findall(r"^\\s+(?:\\{vex\\}\\s+)?([a-z0-9]+)", run.inspect_asm(signature), re.M)
print(*sorted({w for w in words if w in DOTS}))
""".replace("DOTS", "('vpdpbusd', 'vpmaddubsw', 'usdot', 'sdot', 'udot', 'smull', 'smull2')")

EXPECTED = {
    "avx512-vnni": {"vpdpbusd"},
    "avx2-vnni": {"vpdpbusd"},
    "avx2": {"vpmaddubsw"},
    "neon-i8mm": {"usdot"},
    "neon-dotprod": {"sdot"},
    "neon": {"smull", "smull2"},
}


def run(target: str, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "ASSISTANTD_SIMD": target}
    return subprocess.run([sys.executable, *args], env=env, capture_output=True, text=True)


@pytest.mark.parametrize("target", available())
def test_a_target_multiplies_bytes_exactly(target: str) -> None:
    done = run(target, "-c", DOTS)
    assert done.stdout.strip() == target, done.stderr[-2000:]


@pytest.mark.parametrize("target", [t for t in available() if t in EXPECTED])
def test_a_target_has_its_instructions_and_no_others(target: str) -> None:
    done = run(target, "-c", MNEMONICS)
    assert set(done.stdout.split()) == EXPECTED[target], done.stdout + done.stderr[-2000:]


def test_an_unknown_target_is_refused() -> None:
    done = run("sse9", "-m", "assistantd", "--warm")
    assert done.returncode == 2
    assert "ASSISTANTD_SIMD is 'sse9'; this machine has" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("target", available()[1:])
def test_a_target_passes_the_oracle(target: str) -> None:
    """The forward pass against the oracle, compiled for each target: a minute or two each."""
    tests = str(Path(__file__).with_name("test_model.py"))
    done = run(target, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests)
    assert done.returncode == 0, done.stdout[-3000:]
