"""The SIMD vocabulary of the kernels: five vector types and the operations on them.

A value of these types is an LLVM vector that ordinary @njit code passes around, so a kernel reads
like the algorithm. Vectors are 512 bits wide, or less; the backend makes two or four registers of
one where the processor's are narrower. Everything lowers to portable LLVM vector code, but for the
byte dot product, which has an instruction of its own on most targets (see target.py). Loads and
stores take an address (int64) and need no alignment.

    u8x16 u8x64    unsigned or signed bytes (the operation says which)
    i32x16         32-bit integers
    f32x4 f32x16   single precision

Kernels that use these types belong to engine/kernels/.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic

import engine.jit  # noqa: F401  (it tells numba the processor)
from engine.lowering import DOTS, I8, I16, I32, I64
from engine.lowering import call as _call
from engine.lowering import constant as _constant
from engine.lowering import pick as _pick
from engine.lowering import pick2 as _pick2
from engine.lowering import splat as _splat
from engine.target import TARGET

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


u8x16 = Vector("u8x16", I8, 16)
u8x64 = Vector("u8x64", I8, 64)
i32x16 = Vector("i32x16", I32, 16)
f32x4 = Vector("f32x4", _F32, 4)
f32x16 = Vector("f32x16", _F32, 16)


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
    wide = builder.shl(builder.zext(value, i32x16.vector), _constant(i32x16.vector, 16))
    return builder.bitcast(wide, f32x16.vector)


load_u8 = _loader("load_u8", I8, types.int64, lambda b, v: b.zext(v, I64))
load_u16 = _loader("load_u16", I16, types.int64, lambda b, v: b.zext(v, I64))
load_u32 = _loader("load_u32", I32, types.int64, lambda b, v: b.zext(v, I64))
load_f32 = _loader("load_f32", _F32, types.float32)
load_f16 = _loader("load_f16", _F16, types.float32, lambda b, v: b.fpext(v, _F32))
load_bf16 = _loader(
    "load_bf16",
    I16,
    types.float32,
    lambda b, v: b.bitcast(b.shl(b.zext(v, I32), ir.Constant(I32, 16)), _F32),
)
load_u8x16 = _loader("load_u8x16", u8x16.vector, u8x16)
load_u8x64 = _loader("load_u8x64", u8x64.vector, u8x64)
load_f32x4 = _loader("load_f32x4", f32x4.vector, f32x4)
load_f32x16 = _loader("load_f32x16", f32x16.vector, f32x16)
load_f16x16 = _loader(
    "load_f16x16", ir.VectorType(_F16, 16), f32x16, lambda b, v: b.fpext(v, f32x16.vector)
)
load_i8x16 = _loader(
    "load_i8x16",
    u8x16.vector,
    f32x16,
    lambda b, v: b.sitofp(b.sext(v, i32x16.vector), f32x16.vector),
)
load_bf16x16 = _loader("load_bf16x16", ir.VectorType(I16, 16), f32x16, _bf16_to_f32)
# Four bytes, repeated sixteen times: the activations that all rows of a tile share.
load_4u8_x16 = _loader(
    "load_4u8_x16",
    I32,
    u8x64,
    lambda b, v: b.bitcast(_splat(b, v, i32x16.vector), u8x64.vector),
)


@intrinsic
def load_4x16(typingctx, address, second, third, fourth):
    """Four u8x16 as one u8x64: at the address, and at three offsets from it."""

    def codegen(context, builder, signature, args):
        parts = []
        for offset in (None, *args[1:]):
            at = args[0] if offset is None else builder.add(args[0], offset)
            pointer = builder.inttoptr(at, u8x16.vector.as_pointer())
            parts.append(builder.load(pointer, align=1))
        low = _pick2(builder, parts[0], parts[1], list(range(32)))
        high = _pick2(builder, parts[2], parts[3], list(range(32)))
        return _pick2(builder, low, high, list(range(64)))

    return u8x64(*[types.int64] * 4), codegen


@intrinsic
def gather_u32(typingctx, address, offsets):
    """Sixteen 32-bit integers at the address plus each offset."""

    def codegen(context, builder, signature, args):
        address, offsets = args
        if TARGET.startswith("avx512"):
            base = builder.inttoptr(address, I8.as_pointer())
            ones = ir.Constant(ir.VectorType(ir.IntType(1), 16), [True] * 16)
            zero = ir.Constant(i32x16.vector, None)
            return _call(
                builder,
                "llvm.x86.avx512.mask.gather.dpi.512",
                i32x16.vector,
                [zero, base, offsets, ones, ir.Constant(I32, 1)],
            )
        result = ir.Constant(i32x16.vector, ir.Undefined)
        for lane in range(16):
            index = ir.Constant(I32, lane)
            at = builder.add(address, builder.sext(builder.extract_element(offsets, index), I64))
            word = builder.load(builder.inttoptr(at, I32.as_pointer()), align=1)
            result = builder.insert_element(result, word, index)
        return result

    return i32x16(types.int64, i32x16), codegen


@intrinsic
def prefetch(typingctx, address):
    """Ask for the cache line at an address; any address will do."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], I8.as_pointer())
        flags = [ir.Constant(I32, n) for n in (0, 3, 1)]  # read, keep in all caches, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *flags])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


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


store_f32x4 = _storer("store_f32x4", f32x4, f32x4.vector)
store_f32x16 = _storer("store_f32x16", f32x16, f32x16.vector)
store_u8x64 = _storer("store_u8x64", u8x64, u8x64.vector)
store_i8x16 = _storer("store_i8x16", i32x16, u8x16.vector, lambda b, v: b.trunc(v, u8x16.vector))
store_f16x16 = _storer(
    "store_f16x16",
    f32x16,
    ir.VectorType(_F16, 16),
    lambda b, v: b.fptrunc(v, ir.VectorType(_F16, 16)),
)
store_f16 = _storer("store_f16", types.float32, _F16, lambda b, v: b.fptrunc(v, _F16))
store_i8 = _storer("store_i8", types.int64, I8, lambda b, v: b.trunc(v, I8))
store_f32 = _storer("store_f32", types.float32, _F32)


@intrinsic
def store_quarters(typingctx, address, value, stride):
    """Store the four quarters of an f32x16 at address, address + stride, …"""

    def codegen(context, builder, signature, args):
        address, value, stride = args
        for quarter in range(4):
            pointer = builder.inttoptr(address, f32x4.vector.as_pointer())
            lanes = list(range(4 * quarter, 4 * quarter + 4))
            builder.store(_pick(builder, value, lanes), pointer, align=1)
            address = builder.add(address, stride)
        return context.get_dummy_value()

    return types.void(types.int64, f32x16, types.int64), codegen


@intrinsic
def transpose_16x16(typingctx, source, stride, target):
    """Transpose 16 rows of 16 four-byte groups: from source, source + stride, … to target."""

    def codegen(context, builder, signature, args):
        source, stride, target = args
        rows = []
        for _ in range(16):
            pointer = builder.inttoptr(source, i32x16.vector.as_pointer())
            rows.append(builder.load(pointer, align=1))
            source = builder.add(source, stride)
        # swap the off-diagonal halves of blocks twice as large each time
        for size in (1, 2, 4, 8):
            for i in (i for i in range(16) if not i & size):
                a, b = rows[i], rows[i + size]
                first = [16 + j - size if j & size else j for j in range(16)]
                second = [16 + j if j & size else j + size for j in range(16)]
                rows[i] = _pick2(builder, a, b, first)
                rows[i + size] = _pick2(builder, a, b, second)
        for i, row in enumerate(rows):
            at = builder.add(target, ir.Constant(I64, 64 * i))
            pointer = builder.inttoptr(at, i32x16.vector.as_pointer())
            builder.store(row, pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


def _unary(name: str, of: Vector, result: Vector, build, doc: str):
    """An intrinsic of one vector, from what it builds of it."""

    def operation(typingctx, value):
        def codegen(context, builder, signature, args):
            return build(builder, *args)

        return result(of), codegen

    operation.__name__ = operation.__qualname__ = name
    operation.__doc__ = doc
    return intrinsic(operation)


def _binary(name: str, build, doc: str):
    """An intrinsic of two float vectors of the same type, lane by lane."""

    def operation(typingctx, x, y):
        def codegen(context, builder, signature, args):
            return build(builder, *args)

        return x(x, x), codegen

    operation.__name__ = operation.__qualname__ = name
    operation.__doc__ = doc
    return intrinsic(operation)


def _larger(builder, x, y):
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


# --- bytes -------------------------------------------------------------------------------------


low_nibbles = _unary(
    "low_nibbles", u8x64, u8x64, lambda b, v: b.and_(v, _constant(v.type, 15)), "Each byte & 15."
)
high_nibbles = _unary(
    "high_nibbles", u8x64, u8x64, lambda b, v: b.lshr(v, _constant(v.type, 4)), "Each byte >> 4."
)
flip_sign = _unary(
    "flip_sign",
    u8x64,
    u8x64,
    lambda b, v: b.xor(v, _constant(v.type, 0x80)),
    "Signed bytes as unsigned bytes 128 larger.",
)


@intrinsic
def or_shifted(typingctx, low, high, shift):
    """low | (high << shift) for each byte of two u8x64; high << shift must fit a byte."""

    def codegen(context, builder, signature, args):
        low, high, shift = args
        shifts = _splat(builder, builder.trunc(shift, I8), u8x64.vector)
        return builder.or_(low, builder.shl(high, shifts))

    return u8x64(u8x64, u8x64, types.int64), codegen


@intrinsic
def spread_bits(typingctx, bits):
    """The 64 bits of an integer as bytes 0 or 1: u8x64."""

    def codegen(context, builder, signature, args):
        flags = builder.bitcast(args[0], ir.VectorType(ir.IntType(1), 64))
        return builder.zext(flags, u8x64.vector)

    return u8x64(types.int64), codegen


@intrinsic
def bit_fields(typingctx, value, first, step, mask):
    """A u8x16 four times, its bytes shifted right by first, first + step, … and masked: u8x64."""

    def codegen(context, builder, signature, args):
        value, first, step, mask = args
        words = ir.VectorType(I16, 32)
        four = builder.bitcast(_pick(builder, value, [i % 16 for i in range(64)]), words)
        quarter = ir.Constant(words, [i // 8 for i in range(32)])
        steps = _splat(builder, builder.trunc(step, I16), words)
        shifts = builder.add(
            builder.mul(quarter, steps), _splat(builder, builder.trunc(first, I16), words)
        )
        # shifted in pairs of bytes, as there is no byte shift: the mask cleans up
        shifted = builder.bitcast(builder.lshr(four, shifts), u8x64.vector)
        return builder.and_(shifted, _splat(builder, builder.trunc(mask, I8), u8x64.vector))

    return u8x64(u8x16, types.int64, types.int64, types.int64), codegen


def _quarter_picker(name: str, quarters: tuple[int, int, int, int]):
    """An intrinsic (a, b) → u8x64 of four of their eight quarters (those of b are 4-7)."""
    lanes = [16 * quarter + i for quarter in quarters for i in range(16)]

    def pick(typingctx, a, b):
        def codegen(context, builder, signature, args):
            return _pick2(builder, args[0], args[1], lanes)

        return u8x64(u8x64, u8x64), codegen

    pick.__name__ = pick.__qualname__ = name
    pick.__doc__ = f"Quarters {quarters} of two u8x64 laid end to end."
    return intrinsic(pick)


quarters_0426 = _quarter_picker("quarters_0426", (0, 4, 2, 6))
quarters_1537 = _quarter_picker("quarters_1537", (1, 5, 3, 7))
quarters_0246 = _quarter_picker("quarters_0246", (0, 2, 4, 6))
quarters_1357 = _quarter_picker("quarters_1357", (1, 3, 5, 7))


# --- scales: a quad's are sixteen lanes, four rows of each of four blocks ------------------------


@intrinsic
def quad_offsets(typingctx, r0, r1, r2, r3, b0, b1, b2, b3):
    """i32x16 with r[i % 4] + b[i / 4] in lane i."""

    def codegen(context, builder, signature, args):
        rows = columns = ir.Constant(i32x16.vector, ir.Undefined)
        words = [builder.trunc(a, I32) for a in args]
        for lane in range(16):
            index = ir.Constant(I32, lane)
            rows = builder.insert_element(rows, words[lane % 4], index)
            columns = builder.insert_element(columns, words[4 + lane // 4], index)
        return builder.add(rows, columns)

    return i32x16(*[types.int64] * 8), codegen


def _halves_to_f32(builder, words):
    halves = builder.trunc(words, ir.VectorType(I16, 16))
    return builder.fpext(builder.bitcast(halves, ir.VectorType(_F16, 16)), f32x16.vector)


low_f16 = _unary(
    "low_f16", i32x16, f32x16, _halves_to_f32, "The low halves of integers, as half precision."
)
high_f16 = _unary(
    "high_f16",
    i32x16,
    f32x16,
    lambda b, v: _halves_to_f32(b, b.lshr(v, _constant(v.type, 16))),
    "The high halves of integers, as half precision.",
)


def _four_words(builder, args):
    four = ir.Constant(ir.VectorType(I32, 4), ir.Undefined)
    for lane, value in enumerate(args):
        index = ir.Constant(I32, lane)
        four = builder.insert_element(four, builder.trunc(value, I32), index)
    return four


@intrinsic
def repeat_4(typingctx, a, b, c, d):
    """i32x16 with a, b, c, d in lanes 0-3, 4-7, …: what all blocks of a row share."""

    def codegen(context, builder, signature, args):
        four = _four_words(builder, args)
        return _pick(builder, four, [lane % 4 for lane in range(16)])

    return i32x16(*[types.int64] * 4), codegen


@intrinsic
def bytes_by_row(typingctx, a, b, c, d):
    """Unsigned bytes to f32x16: byte j of the 32-bit a, b, c, d to lanes 4j, 4j + 1, …"""

    def codegen(context, builder, signature, args):
        four = _four_words(builder, args)
        order = [4 * (lane % 4) + lane // 4 for lane in range(16)]
        ordered = _pick(builder, builder.bitcast(four, u8x16.vector), order)
        return builder.uitofp(builder.zext(ordered, i32x16.vector), f32x16.vector)

    return f32x16(*[types.int64] * 4), codegen


@intrinsic
def byte_pairs_by_row(typingctx, a, b, c, d):
    """Signed bytes at four addresses to two f32x16: bytes 2j of each to lanes 4j…, and 2j + 1."""

    def codegen(context, builder, signature, args):
        four = ir.Constant(ir.VectorType(I64, 4), ir.Undefined)
        for lane, address in enumerate(args):
            word = builder.load(builder.inttoptr(address, I64.as_pointer()), align=1)
            four = builder.insert_element(four, word, ir.Constant(I32, lane))
        raw = builder.bitcast(four, ir.VectorType(I8, 32))
        results = []
        for odd in (0, 1):
            order = [8 * (lane % 4) + 2 * (lane // 4) + odd for lane in range(16)]
            ordered = builder.sext(_pick(builder, raw, order), i32x16.vector)
            results.append(builder.sitofp(ordered, f32x16.vector))
        return context.make_tuple(builder, signature.return_type, results)

    return types.UniTuple(f32x16, 2)(*[types.int64] * 4), codegen  # type: ignore[attr-defined]


# --- the byte dot product (lowering.py has what it becomes) ---------------------------------------


def _dot_intrinsic(name: str, small: bool, doc: str):
    def dot(typingctx, acc, unsigned, signed):
        def codegen(context, builder, signature, args):
            return DOTS[TARGET](builder, *args, small)

        return i32x16(i32x16, u8x64, u8x64), codegen

    dot.__name__ = dot.__qualname__ = name
    dot.__doc__ = doc
    return intrinsic(dot)


dot = _dot_intrinsic(
    "dot", False, "acc[i] + Σ unsigned[4i+j] · signed[4i+j], j = 0…3: i32x16 of u8x64."
)
dot_small = _dot_intrinsic(
    "dot_small", True, "The same where no unsigned byte is above 127: cheaper on some targets."
)


@intrinsic
def sum_fours(typingctx, a, b, c, d):
    """Sums over four lanes each of four i32x16: that of a's lanes 4j… to lane 4j, b's to 4j + 1, …

    All shuffles stay within 128 bits.
    """

    def codegen(context, builder, signature, args):
        def interleaved_sum(x, y, first, second):
            lanes = [[16 * (k // 4) + 4 * q + k % 4 for q in range(4) for k in pattern]
                     for pattern in (first, second)]  # fmt: skip
            return builder.add(_pick2(builder, x, y, lanes[0]), _pick2(builder, x, y, lanes[1]))

        # in the patterns, 0-3 are the lanes of x and 4-7 those of y
        ab = interleaved_sum(args[0], args[1], [0, 4, 1, 5], [2, 6, 3, 7])
        cd = interleaved_sum(args[2], args[3], [0, 4, 1, 5], [2, 6, 3, 7])
        return interleaved_sum(ab, cd, [0, 1, 4, 5], [2, 3, 6, 7])

    return i32x16(*[i32x16] * 4), codegen


# --- arithmetic --------------------------------------------------------------------------------


def _nullary(name: str, result: Vector):
    def zero(typingctx):
        def codegen(context, builder, signature, args):
            return ir.Constant(result.vector, None)

        return result(), codegen

    zero.__name__ = zero.__qualname__ = name
    zero.__doc__ = f"A {result} of zeros."
    return intrinsic(zero)


zero_i32x16 = _nullary("zero_i32x16", i32x16)
zero_f32x16 = _nullary("zero_f32x16", f32x16)


def _splatter(name: str, result: Vector):
    def splat(typingctx, value):
        def codegen(context, builder, signature, args):
            return _splat(builder, args[0], result.vector)

        return result(types.float32), codegen

    splat.__name__ = splat.__qualname__ = name
    splat.__doc__ = f"One float32 in all lanes of an {result}."
    return intrinsic(splat)


splat_f32x4 = _splatter("splat_f32x4", f32x4)
splat_f32x16 = _splatter("splat_f32x16", f32x16)


to_f32 = _unary("to_f32", i32x16, f32x16, lambda b, v: b.sitofp(v, f32x16.vector), "i32 → f32.")
to_i32 = _unary(
    "to_i32", f32x16, i32x16, lambda b, v: b.fptosi(v, i32x16.vector), "Whole f32 → i32."
)
rounded = _unary(
    "rounded",
    f32x16,
    f32x16,
    lambda b, v: _call(b, "llvm.rint.v16f32", v.type, [v]),
    "The nearest whole number, still as f32.",
)
absolute = _unary(
    "absolute", f32x16, f32x16, lambda b, v: _call(b, "llvm.fabs.v16f32", v.type, [v]), "|value|."
)
swap_pairs = _unary(
    "swap_pairs",
    f32x16,
    f32x16,
    lambda b, v: _pick(b, v, [lane ^ 1 for lane in range(16)]),
    "Lanes 1, 0, 3, 2, …",
)
add = _binary("add", lambda b, x, y: b.fadd(x, y), "x + y.")
multiply = _binary("multiply", lambda b, x, y: b.fmul(x, y), "x · y.")
divide = _binary("divide", lambda b, x, y: b.fdiv(x, y), "x / y.")
maximum = _binary("maximum", _larger, "The larger of x and y.")


@intrinsic
def keep_first(typingctx, value, n, other):
    """The first n lanes of `value`, the others of `other` (float vectors)."""

    def codegen(context, builder, signature, args):
        value, n, other = args
        count = value.type.count
        integers = ir.VectorType(I32, count)
        limit = _splat(builder, builder.trunc(n, I32), integers)
        first = builder.icmp_signed("<", ir.Constant(integers, list(range(count))), limit)
        return builder.select(first, value, other)

    return value(value, types.int64, value), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """a · b + c with one rounding, lane by lane, of float vectors."""

    def codegen(context, builder, signature, args):
        vector = args[0].type
        return _call(builder, f"llvm.fma.v{vector.count}f32", vector, list(args))

    return a(a, a, a), codegen


@intrinsic
def exp(typingctx, value):
    """e to the power of each lane of a float vector, to within 2 units in the last place.

    x = n·ln 2 + r with |r| ≤ ln 2 / 2; e^r by its Taylor series to r⁷ / 7!, then n is added to
    the exponent. Below -87 the result is 0, above 88 it stays at e^88.
    """

    def codegen(context, builder, signature, args):
        x = args[0]
        vector, n_lanes = x.type, x.type.count
        integers = ir.VectorType(I32, n_lanes)

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

    return value(value), codegen


def _reduction(name: str, combine, doc: str):
    """An intrinsic float vector → float32 that combines the lanes pairwise."""

    def reduce(typingctx, value):
        def codegen(context, builder, signature, args):
            vector = args[0]
            lanes = vector.type.count
            while lanes > 1:
                lanes //= 2
                low = _pick(builder, vector, list(range(lanes)))
                high = _pick(builder, vector, list(range(lanes, 2 * lanes)))
                vector = combine(builder, low, high)
            return builder.extract_element(vector, ir.Constant(I32, 0))

        return types.float32(value), codegen

    reduce.__name__ = reduce.__qualname__ = name
    reduce.__doc__ = doc
    return intrinsic(reduce)


sum_lanes = _reduction(
    "sum_lanes", lambda b, x, y: b.fadd(x, y), "The sum of a float vector's lanes, pairwise."
)
max_lanes = _reduction(
    "max_lanes",
    _larger,
    "The largest lane of a float vector.",
)


@intrinsic
def lane(typingctx, value, index):
    """One lane of a float vector."""

    def codegen(context, builder, signature, args):
        return builder.extract_element(args[0], builder.trunc(args[1], I32))

    return types.float32(value, types.int64), codegen


@intrinsic
def one_of_four(typingctx, value, which):
    """Of every four lanes of an f32x16, the one at `which`, a constant, four times."""

    def codegen(context, builder, signature, args):
        def repeated(lane):
            return _pick(builder, args[0], [i // 4 * 4 + lane for i in range(16)])

        result = repeated(0)
        for lane in (1, 2, 3):
            chosen = builder.icmp_signed("==", args[1], ir.Constant(I64, lane))
            result = builder.select(chosen, repeated(lane), result)
        return result

    return f32x16(f32x16, types.int64), codegen


@intrinsic
def sum_quarters(typingctx, value):
    """The four quarters of an f32x16, added one after the other: f32x4."""

    def codegen(context, builder, signature, args):
        quarters = [_pick(builder, args[0], list(range(4 * q, 4 * q + 4))) for q in range(4)]
        total = quarters[0]
        for quarter in quarters[1:]:
            total = builder.fadd(total, quarter)
        return total

    return f32x4(f32x16), codegen


# --- addresses ---------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def on_stack(typingctx, n_bytes):
    """Address of n_bytes, a constant, on the stack; at a cache line."""

    def codegen(context, builder, signature, args):
        memory = cgutils.alloca_once(builder, ir.ArrayType(I8, signature.args[0].literal_value))
        memory.align = 64
        return builder.ptrtoint(memory, I64)

    return types.int64(n_bytes), codegen
