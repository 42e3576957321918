"""What the operations of simd.py become in LLVM: builder helpers, and the byte dot product.

The dot product is the one operation with instructions of its own on most targets (target.py).
Each entry of DOTS takes (builder, acc, unsigned, signed, small), of 16 i32 and twice 64 bytes, and
gives acc[i] + Σ unsigned[4i+j] · signed[4i+j], j = 0…3, exactly. `small` promises that no unsigned
byte is above 127.
"""

from llvmlite import ir

I8, I16, I32, I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)


def constant(vector: ir.VectorType, value: int | float) -> ir.Constant:
    return ir.Constant(vector, [value] * vector.count)


def splat(builder, scalar, vector: ir.VectorType):
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0))
    mask = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)


def pick(builder, vector, lanes: list[int]):
    """The given lanes of a vector, as a vector."""
    mask = ir.Constant(ir.VectorType(I32, len(lanes)), lanes)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


def pick2(builder, low, high, lanes: list[int]):
    """The given lanes of two vectors laid end to end."""
    mask = ir.Constant(ir.VectorType(I32, len(lanes)), lanes)
    return builder.shuffle_vector(low, high, mask)


def call(builder, name: str, result: ir.Type, args: list[ir.Value]):
    function_type = ir.FunctionType(result, [a.type for a in args])
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, function_type, name)
    return builder.call(function, args)


# --- the byte dot product, for each target -------------------------------------------------------


def _split(builder, vector, n_parts: int):
    size = vector.type.count // n_parts
    return [pick(builder, vector, list(range(i * size, (i + 1) * size))) for i in range(n_parts)]


def _join(builder, parts):
    while len(parts) > 1:
        lanes = list(range(2 * parts[0].type.count))
        parts = [pick2(builder, a, b, lanes) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _by_parts(n_parts: int):
    """Make a dot product of narrower vectors one of 512 bits."""

    def decorate(narrow):
        def dot(builder, acc, unsigned, signed, small: bool):
            parts = zip(
                *(_split(builder, a, n_parts) for a in (acc, unsigned, signed)), strict=True
            )
            return _join(builder, [narrow(builder, *part, small) for part in parts])

        return dot

    return decorate


def _dot_vnni_512(builder, acc, unsigned, signed, small: bool):
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", acc.type, [acc, unsigned, signed])


@_by_parts(2)
def _dot_vnni_256(builder, acc, unsigned, signed, small: bool):
    return call(builder, "llvm.x86.avx512.vpdpbusd.256", acc.type, [acc, unsigned, signed])


@_by_parts(2)
def _dot_avx2(builder, acc, unsigned, signed, small: bool):
    words, bytes_ = ir.VectorType(I16, 16), unsigned.type

    def sums(weights):
        pairs = call(builder, "llvm.x86.avx2.pmadd.ub.sw", words, [weights, signed])
        ones = constant(words, 1)
        return call(builder, "llvm.x86.avx2.pmadd.wd", acc.type, [pairs, ones])

    if small:  # the sum of two products fits 16 bits
        return builder.add(acc, sums(unsigned))
    even = ir.Constant(bytes_, [255, 0] * 16)
    odd = ir.Constant(bytes_, [0, 255] * 16)
    acc = builder.add(acc, sums(builder.and_(unsigned, even)))
    return builder.add(acc, sums(builder.and_(unsigned, odd)))


@_by_parts(4)
def _dot_usdot(builder, acc, unsigned, signed, small: bool):
    name = "llvm.aarch64.neon.usdot.v4i32.v16i8"
    return call(builder, name, acc.type, [acc, unsigned, signed])


@_by_parts(4)
def _dot_sdot(builder, acc, unsigned, signed, small: bool):
    def sdot(acc, a):
        return call(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", acc.type, [acc, a, signed])

    if small:
        return sdot(acc, unsigned)
    # w = (w − 128) + 64 + 64, each of which is a signed byte
    acc = sdot(acc, builder.xor(unsigned, constant(unsigned.type, 128)))
    half = constant(unsigned.type, 64)
    return sdot(sdot(acc, half), half)


@_by_parts(4)
def _dot_neon(builder, acc, unsigned, signed, small: bool):
    words = ir.VectorType(I16, 8)

    def sums(weights):
        products = [
            call(builder, "llvm.aarch64.neon.smull.v8i16", words, [a, b])
            for a, b in zip(_split(builder, weights, 2), _split(builder, signed, 2), strict=True)
        ]
        pairs = call(builder, "llvm.aarch64.neon.addp.v8i16", words, products)
        return call(builder, "llvm.aarch64.neon.saddlp.v4i32.v8i16", acc.type, [pairs])

    if small:
        return builder.add(acc, sums(unsigned))
    acc = builder.add(acc, sums(builder.xor(unsigned, constant(unsigned.type, 128))))
    of_ones = sums(constant(unsigned.type, 1))
    return builder.add(acc, builder.shl(of_ones, constant(acc.type, 7)))


def _dot_portable(builder, acc, unsigned, signed, small: bool):
    lanes = acc.type.count
    wide, products_type = ir.VectorType(I16, 4 * lanes), ir.VectorType(I32, 4 * lanes)
    products = builder.mul(
        builder.sext(builder.zext(unsigned, wide), products_type),
        builder.sext(builder.sext(signed, wide), products_type),
    )
    for part in range(4):
        acc = builder.add(acc, pick(builder, products, list(range(part, 4 * lanes, 4))))
    return acc


DOTS = {
    "avx512-vnni": _dot_vnni_512,
    "avx2-vnni": _dot_vnni_256,
    "avx2": _dot_avx2,
    "neon-i8mm": _dot_usdot,
    "neon-dotprod": _dot_sdot,
    "neon": _dot_neon,
    "portable": _dot_portable,
}
