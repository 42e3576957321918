"""Reading a job: from the words of job.py back to arrays, numbers and named tuples."""

from llvmlite import ir
from numba import from_dtype
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from engine.job import LAYOUT, Array, Number
from engine.lowering import I64


def _type_of(layout):
    """The numba type of a part of a job."""
    if isinstance(layout, Array):
        return types.Array(from_dtype(layout.dtype), layout.n_dims, "C")
    if isinstance(layout, Number):
        return from_dtype(layout.dtype)
    parts = [_type_of(part) for part in layout]
    return types.NamedTuple(parts, type(layout))  # type: ignore[attr-defined]


def _read(context, builder, words, at, layout):
    """The value of the part that begins at words[at], and where the next begins."""

    def word(i, kind=I64):
        pointer = builder.gep(words, [ir.Constant(I64, i)])
        return builder.load(builder.bitcast(pointer, kind.as_pointer()))

    kind = _type_of(layout)
    if isinstance(layout, Number):
        return word(at, context.get_data_type(kind)), at + 1
    if isinstance(layout, Array):
        array = make_array(kind)(context, builder)
        shape = [word(at + 1 + i) for i in range(layout.n_dims)]
        strides = [ir.Constant(I64, context.get_abi_sizeof(context.get_data_type(kind.dtype)))]
        for size in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], size))
        populate_array(
            array,
            data=builder.inttoptr(word(at), array.data.type),
            shape=cgutils.pack_array(builder, shape),
            strides=cgutils.pack_array(builder, strides),
            itemsize=strides[-1],
            meminfo=None,
        )
        return array._getvalue(), at + 1 + layout.n_dims
    values = []
    for part in layout:
        value, at = _read(context, builder, words, at, part)
        values.append(value)
    return context.make_tuple(builder, kind, values), at


@intrinsic
def read_job(typingctx, address):
    """The Job whose words begin at an address."""

    def codegen(context, builder, signature, args):
        words = builder.inttoptr(args[0], I64.as_pointer())
        return _read(context, builder, words, 0, LAYOUT)[0]

    return _type_of(LAYOUT)(types.int64), codegen
