"""The SIMD vocabulary of the kernels: vector types and some thirty operations on them.

A value of these types is an LLVM vector that ordinary @njit code passes around, so a kernel reads
like the algorithm. Everything here lowers to portable LLVM vector code, which the backend turns
into AVX-512, AVX2 or NEON; only `dot` has a lowering of its own where the CPU has the instruction
(x86 VNNI). Loads and stores take an address (int64) and need no alignment.

    u8x16 u8x32 u8x64    unsigned or signed bytes (the operation says which)
    i32x8 i32x16         32-bit integers
    f32x8 f32x16         single precision

Kernels that use these types belong to engine/kernels/.
"""

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic

_I8, _I16, _I32, _I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_F16, _F32 = ir.HalfType(), ir.FloatType()


class Vector(types.Type):
    """Numba type of an LLVM vector of `count` lanes."""

    def __init__(self, name: str, lane: ir.Type, count: int) -> None:
        self.vector = ir.VectorType(lane, count)
        super().__init__(name=name)


@register_default(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, fe_type.vector)


u8x16 = Vector("u8x16", _I8, 16)
u8x32 = Vector("u8x32", _I8, 32)
u8x64 = Vector("u8x64", _I8, 64)
i32x8 = Vector("i32x8", _I32, 8)
i32x16 = Vector("i32x16", _I32, 16)
f32x8 = Vector("f32x8", _F32, 8)
f32x16 = Vector("f32x16", _F32, 16)


def host_has_vnni() -> bool:
    """Whether this CPU multiplies and sums bytes in one instruction (AVX-512 VNNI)."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("avx512vnni") and features.get("avx512vl"))


_VNNI = host_has_vnni()
TARGET = "avx512-vnni" if _VNNI else "generic"


def _constant(vector: ir.VectorType, value: int | float) -> ir.Constant:
    return ir.Constant(vector, [value] * vector.count)


def _splat(builder, scalar, vector: ir.VectorType):
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(_I32, 0))
    mask = ir.Constant(ir.VectorType(_I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)


def _pick(builder, vector, lanes: list[int]):
    """The given lanes of a vector, as a vector."""
    mask = ir.Constant(ir.VectorType(_I32, len(lanes)), lanes)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


def _pick2(builder, low, high, lanes: list[int]):
    """The given lanes of two vectors laid end to end."""
    mask = ir.Constant(ir.VectorType(_I32, len(lanes)), lanes)
    return builder.shuffle_vector(low, high, mask)


def _call(builder, name: str, result: ir.Type, args: list[ir.Value]):
    function_type = ir.FunctionType(result, [a.type for a in args])
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, function_type, name)
    return builder.call(function, args)


# --- loads and stores --------------------------------------------------------------------------


def _loader(name: str, memory: ir.Type, result: types.Type, convert=None):
    """An intrinsic address → value that loads `memory` and converts it."""

    def load(typingctx, address):
        def codegen(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], memory.as_pointer())
            value = builder.load(pointer, align=1)
            return convert(builder, value) if convert else value

        return result(types.int64), codegen

    load.__name__ = load.__qualname__ = name
    load.__doc__ = f"Load {memory} at an address as {result}."
    return intrinsic(load)


def _bf16_to_f32(builder, value):
    wide_type = ir.VectorType(_I32, 8)
    wide = builder.shl(builder.zext(value, wide_type), _constant(wide_type, 16))
    return builder.bitcast(wide, ir.VectorType(_F32, 8))


load_u8 = _loader("load_u8", _I8, types.int64, lambda b, v: b.zext(v, _I64))
load_i8 = _loader("load_i8", _I8, types.int64, lambda b, v: b.sext(v, _I64))
load_u32 = _loader("load_u32", _I32, types.int64, lambda b, v: b.zext(v, _I64))
load_f32 = _loader("load_f32", _F32, types.float32)
load_f16 = _loader("load_f16", _F16, types.float32, lambda b, v: b.fpext(v, _F32))
load_bf16 = _loader(
    "load_bf16",
    _I16,
    types.float32,
    lambda b, v: b.bitcast(b.shl(b.zext(v, _I32), ir.Constant(_I32, 16)), _F32),
)
load_u8x16 = _loader("load_u8x16", u8x16.vector, u8x16)
load_u8x32 = _loader("load_u8x32", u8x32.vector, u8x32)
load_u8x64 = _loader("load_u8x64", u8x64.vector, u8x64)
load_f32x8 = _loader("load_f32x8", f32x8.vector, f32x8)
load_f32x16 = _loader("load_f32x16", f32x16.vector, f32x16)
load_f16x8 = _loader(
    "load_f16x8", ir.VectorType(_F16, 8), f32x8, lambda b, v: b.fpext(v, f32x8.vector)
)
load_bf16x8 = _loader("load_bf16x8", ir.VectorType(_I16, 8), f32x8, _bf16_to_f32)
# Four bytes, repeated sixteen times: the activations that all rows of a tile share.
load_4u8_x16 = _loader(
    "load_4u8_x16",
    _I32,
    u8x64,
    lambda b, v: b.bitcast(_splat(b, v, i32x16.vector), u8x64.vector),
)


def _storer(name: str, value_type: types.Type, memory: ir.Type, convert=None):
    """An intrinsic (address, value) that converts the value and stores it."""

    def store(typingctx, address, value):
        def codegen(context, builder, signature, args):
            stored = convert(builder, args[1]) if convert else args[1]
            pointer = builder.inttoptr(args[0], memory.as_pointer())
            builder.store(stored, pointer, align=1)
            return context.get_dummy_value()

        return types.void(types.int64, value_type), codegen

    store.__name__ = store.__qualname__ = name
    store.__doc__ = f"Store {value_type} at an address as {memory}."
    return intrinsic(store)


store_f32x8 = _storer("store_f32x8", f32x8, f32x8.vector)
store_f32x16 = _storer("store_f32x16", f32x16, f32x16.vector)
store_u8x32 = _storer("store_u8x32", u8x32, u8x32.vector)
store_f16 = _storer("store_f16", types.float32, _F16, lambda b, v: b.fptrunc(v, _F16))
store_f32 = _storer("store_f32", types.float32, _F32)


@intrinsic
def store_interleaved(typingctx, address, value, stride):
    """Store the eight 4-byte groups of a u8x32 at address, address + stride, …"""

    def codegen(context, builder, signature, args):
        address, value, stride = args
        groups = builder.bitcast(value, i32x8.vector)
        for lane in range(8):
            pointer = builder.inttoptr(address, _I32.as_pointer())
            builder.store(
                builder.extract_element(groups, ir.Constant(_I32, lane)), pointer, align=1
            )
            address = builder.add(address, stride)
        return context.get_dummy_value()

    return types.void(types.int64, u8x32, types.int64), codegen


# --- bytes -------------------------------------------------------------------------------------


@intrinsic
def nibbles(typingctx, value):
    """u8x16 → u8x32: the low nibbles, then the high ones (ggml's order within a block of 32)."""

    def codegen(context, builder, signature, args):
        low = builder.and_(args[0], _constant(u8x16.vector, 15))
        high = builder.lshr(args[0], _constant(u8x16.vector, 4))
        mask = ir.Constant(ir.VectorType(_I32, 32), list(range(32)))
        return builder.shuffle_vector(low, high, mask)

    return u8x32(u8x16), codegen


@intrinsic
def bits_at(typingctx, value, shift, mask):
    """(value >> shift) & mask for each byte of a u8x32."""

    def codegen(context, builder, signature, args):
        value, shift, mask = args
        shifts = _splat(builder, builder.trunc(shift, _I8), u8x32.vector)
        masks = _splat(builder, builder.trunc(mask, _I8), u8x32.vector)
        # the shift is done on 16-bit lanes where there is no byte shift; the mask cleans up
        return builder.and_(builder.lshr(value, shifts), masks)

    return u8x32(u8x32, types.int64, types.int64), codegen


@intrinsic
def or_shifted(typingctx, low, high, shift):
    """low | (high << shift) for each byte of two u8x32."""

    def codegen(context, builder, signature, args):
        low, high, shift = args
        shifts = _splat(builder, builder.trunc(shift, _I8), u8x32.vector)
        return builder.or_(low, builder.shl(high, shifts))

    return u8x32(u8x32, u8x32, types.int64), codegen


@intrinsic
def spread_bits(typingctx, bits):
    """The 32 low bits of an integer as bytes 0 or 1: u8x32."""

    def codegen(context, builder, signature, args):
        flags = builder.bitcast(builder.trunc(args[0], _I32), ir.VectorType(ir.IntType(1), 32))
        return builder.zext(flags, u8x32.vector)

    return u8x32(types.int64), codegen


@intrinsic
def flip_sign(typingctx, value):
    """Signed bytes as unsigned bytes 128 larger (u8x32)."""

    def codegen(context, builder, signature, args):
        return builder.xor(args[0], _constant(u8x32.vector, 0x80))

    return u8x32(u8x32), codegen


# --- the dot product ---------------------------------------------------------------------------


def _dot_codegen(acc_type: Vector, byte_type: Vector):
    lanes = acc_type.vector.count

    def codegen(context, builder, signature, args):
        acc, unsigned, signed = args
        if _VNNI:
            bits = 32 * lanes
            name = f"llvm.x86.avx512.vpdpbusd.{bits}"
            return _call(builder, name, acc_type.vector, [acc, unsigned, signed])
        wide = ir.VectorType(_I16, 4 * lanes)
        products_type = ir.VectorType(_I32, 4 * lanes)
        products = builder.mul(
            builder.sext(builder.zext(unsigned, wide), products_type),
            builder.sext(builder.sext(signed, wide), products_type),
        )
        for part in range(4):
            acc = builder.add(acc, _pick(builder, products, list(range(part, 4 * lanes, 4))))
        return acc

    return acc_type(acc_type, byte_type, byte_type), codegen


@intrinsic
def dot(typingctx, acc, unsigned, signed):
    """acc[i] + Σ unsigned[4i+j] · signed[4i+j], j = 0…3: i32x8 of u8x32, or i32x16 of u8x64."""
    if acc == i32x8:
        return _dot_codegen(i32x8, u8x32)
    return _dot_codegen(i32x16, u8x64)


# --- arithmetic --------------------------------------------------------------------------------


def _nullary(name: str, result: Vector):
    def zero(typingctx):
        def codegen(context, builder, signature, args):
            return ir.Constant(result.vector, None)

        return result(), codegen

    zero.__name__ = zero.__qualname__ = name
    zero.__doc__ = f"A {result} of zeros."
    return intrinsic(zero)


zero_i32x8 = _nullary("zero_i32x8", i32x8)
zero_i32x16 = _nullary("zero_i32x16", i32x16)
zero_f32x8 = _nullary("zero_f32x8", f32x8)
zero_f32x16 = _nullary("zero_f32x16", f32x16)


@intrinsic
def add_i32(typingctx, a, b):
    """a + b, lane by lane, of two integer vectors."""

    def codegen(context, builder, signature, args):
        return builder.add(args[0], args[1])

    return a(a, a), codegen


@intrinsic
def to_f32(typingctx, value):
    """i32x8 → f32x8, i32x16 → f32x16."""
    result = f32x8 if value == i32x8 else f32x16

    def codegen(context, builder, signature, args):
        return builder.sitofp(args[0], result.vector)

    return result(value), codegen


def _splat_f32(name: str, result: Vector):
    def splat(typingctx, value):
        def codegen(context, builder, signature, args):
            return _splat(builder, args[0], result.vector)

        return result(types.float32), codegen

    splat.__name__ = splat.__qualname__ = name
    splat.__doc__ = f"One float32 in all lanes of a {result}."
    return intrinsic(splat)


splat_f32x8 = _splat_f32("splat_f32x8", f32x8)
splat_f32x16 = _splat_f32("splat_f32x16", f32x16)


@intrinsic
def pack_f32x8(typingctx, a, b, c, d, e, f, g, h):
    """Eight float32 as one f32x8."""

    def codegen(context, builder, signature, args):
        vector = ir.Constant(f32x8.vector, ir.Undefined)
        for lane, value in enumerate(args):
            vector = builder.insert_element(vector, value, ir.Constant(_I32, lane))
        return vector

    return f32x8(*[types.float32] * 8), codegen


@intrinsic
def row_sums(typingctx, a, b, c, d, e, f, g, h):
    """Sums within eight i32x8, as two i32x8: of their lanes 0-3, and of their lanes 4-7.

    Lane i of both results belongs to the i-th argument.
    """

    def interleaved_sum(builder, x, y, first, second):
        # integer sums may be taken in any order, so shuffles that stay within 128 bits do
        return builder.add(_pick2(builder, x, y, first), _pick2(builder, x, y, second))

    def codegen(context, builder, signature, args):
        low32, high32 = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
        low64, high64 = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
        quads = []
        for i in (0, 4):
            ab = interleaved_sum(builder, args[i], args[i + 1], low32, high32)
            cd = interleaved_sum(builder, args[i + 2], args[i + 3], low32, high32)
            quads.append(interleaved_sum(builder, ab, cd, low64, high64))
        low = _pick2(builder, quads[0], quads[1], [0, 1, 2, 3, 8, 9, 10, 11])
        high = _pick2(builder, quads[0], quads[1], [4, 5, 6, 7, 12, 13, 14, 15])
        return context.make_tuple(builder, signature.return_type, (low, high))

    return types.UniTuple(i32x8, 2)(*[i32x8] * 8), codegen  # type: ignore[attr-defined]


@intrinsic
def multiply(typingctx, a, b):
    """a · b, lane by lane, of two float vectors."""

    def codegen(context, builder, signature, args):
        return builder.fmul(args[0], args[1])

    return a(a, a), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """a · b + c with one rounding, lane by lane (f32x8, f32x16)."""

    def codegen(context, builder, signature, args):
        vector = args[0].type
        return _call(builder, f"llvm.fma.v{vector.count}f32", vector, list(args))

    return a(a, a, a), codegen


@intrinsic
def exp(typingctx, value):
    """e to the power of each lane of an f32x8, to within 2 units in the last place.

    x = n·ln 2 + r with |r| ≤ ln 2 / 2; e^r by its Taylor series to r⁷ / 7!, then n is added to
    the exponent. Below -87 the result is 0, above 88 it stays at e^88.
    """

    def codegen(context, builder, signature, args):
        vector, integers = f32x8.vector, i32x8.vector
        x = args[0]
        n_lanes = vector.count

        def constant(number: float):
            return _constant(vector, number)

        def fused(a, b, c):
            return _call(builder, f"llvm.fma.v{n_lanes}f32", vector, [a, b, c])

        too_small = builder.fcmp_ordered("<", x, constant(-87.0))
        x = _call(builder, f"llvm.minnum.v{n_lanes}f32", vector, [x, constant(88.0)])
        x = _call(builder, f"llvm.maxnum.v{n_lanes}f32", vector, [x, constant(-87.0)])
        n = _call(
            builder,
            f"llvm.rint.v{n_lanes}f32",
            vector,
            [builder.fmul(x, constant(1.4426950216293335))],
        )
        # ln 2 in two parts, so that n·ln 2 is exact enough
        r = fused(n, constant(-0.693145751953125), x)
        r = fused(n, constant(-1.428606765330187e-06), r)
        factorials = (5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0)
        result = constant(1.0 / factorials[0])
        for factorial in factorials[1:]:
            result = fused(result, r, constant(1.0 / factorial))
        exponent = builder.shl(builder.fptosi(n, integers), _constant(integers, 23))
        bits = builder.add(builder.bitcast(result, integers), exponent)
        return builder.select(too_small, constant(0.0), builder.bitcast(bits, vector))

    return f32x8(f32x8), codegen


@intrinsic
def divide(typingctx, a, b):
    """a / b, lane by lane, of two float vectors."""

    def codegen(context, builder, signature, args):
        return builder.fdiv(args[0], args[1])

    return a(a, a), codegen


@intrinsic
def sum_lanes(typingctx, value):
    """The sum of a float vector's lanes, pairwise."""

    def codegen(context, builder, signature, args):
        vector = args[0]
        lanes = vector.type.count
        while lanes > 1:
            lanes //= 2
            low = _pick(builder, vector, list(range(lanes)))
            high = _pick(builder, vector, list(range(lanes, 2 * lanes)))
            vector = builder.fadd(low, high)
        return builder.extract_element(vector, ir.Constant(_I32, 0))

    return types.float32(value), codegen


# --- addresses, and threads that meet inside a kernel --------------------------------------------


@intrinsic
def atomic_add(typingctx, address, amount):
    """Add to the int64 at an address, return its old value; sequentially consistent."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_load(typingctx, address):
    """The int64 at an address, with acquire ordering."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def atomic_store(typingctx, address, value):
    """Set the int64 at an address, with release ordering."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        builder.store_atomic(args[1], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def yield_cpu(typingctx):
    """Let another thread of the machine run: sched_yield(2)."""

    def codegen(context, builder, signature, args):
        _call(builder, "sched_yield", _I32, [])
        return context.get_dummy_value()

    return types.void(), codegen
