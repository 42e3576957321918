"""What kernels need of the system: atomics for threads that meet, pipes, and a clock.

Intrinsics like those of simd.py. Addresses and file descriptors are int64.
"""

import platform

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from engine.lowering import I8, I32, I64
from engine.lowering import call as _call


@intrinsic
def atomic_add(typingctx, address, amount):
    """Add to the int64 at an address, return its old value; sequentially consistent."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], I64.as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_load(typingctx, address):
    """The int64 at an address, with acquire ordering."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], I64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def atomic_store(typingctx, address, value):
    """Set the int64 at an address, with release ordering."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], I64.as_pointer())
        builder.store_atomic(args[1], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def yield_cpu(typingctx):
    """Let another thread of the machine run: sched_yield(2)."""

    def codegen(context, builder, signature, args):
        _call(builder, "sched_yield", I32, [])
        return context.get_dummy_value()

    return types.void(), codegen


def _byte_call(name):
    """Build a call of read(2) or write(2) for one byte; again until it has been done."""

    def build(builder, descriptor, buffer):
        again = builder.append_basic_block("again")
        done = builder.append_basic_block("done")
        builder.branch(again)
        builder.position_at_end(again)
        count = _call(builder, name, I64, [descriptor, buffer, ir.Constant(I64, 1)])
        # a signal may interrupt it: −1
        builder.cbranch(builder.icmp_signed("<", count, ir.Constant(I64, 0)), again, done)
        builder.position_at_end(done)

    return build


_read_one, _write_one = _byte_call("read"), _byte_call("write")


@intrinsic
def read_byte(typingctx, descriptor):
    """Take a byte from a pipe, and sleep until there is one."""

    def codegen(context, builder, signature, args):
        with builder.goto_entry_block():
            buffer = builder.alloca(I8)
        _read_one(builder, builder.trunc(args[0], I32), buffer)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def write_byte(typingctx, descriptor, value):
    """Put a byte into a pipe."""

    def codegen(context, builder, signature, args):
        with builder.goto_entry_block():
            buffer = builder.alloca(I8)
        builder.store(builder.trunc(args[1], I8), buffer)
        _write_one(builder, builder.trunc(args[0], I32), buffer)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def clock(typingctx):
    """Ticks of a clock that all cores share (TSC, or the ARM virtual counter): int64."""

    def codegen(context, builder, signature, args):
        if platform.machine().lower() in ("aarch64", "arm64"):
            register = builder.module.add_metadata(["cntvct_el0"])
            read = builder.module.declare_intrinsic(
                "llvm.read_volatile_register.i64", (), ir.FunctionType(I64, [ir.MetaDataType()])
            )
            return builder.call(read, [register])
        return _call(builder, "llvm.readcyclecounter", I64, [])

    return types.int64(), codegen


# --- for a signal handler (kernels/bus_error.py): only what may be called in one ---

_PROT_READ, _MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS = 1, 0x02, 0x10, 0x20  # Linux'


@intrinsic
def map_zeros(typingctx, address, n_bytes):
    """Put zeros in the place of what is mapped there; the address, or -1."""

    def codegen(context, builder, signature, args):
        flags = _MAP_PRIVATE | _MAP_FIXED | _MAP_ANONYMOUS
        arguments = [
            builder.inttoptr(args[0], I8.as_pointer()),
            args[1],
            ir.Constant(I32, _PROT_READ),
            ir.Constant(I32, flags),
            ir.Constant(I32, -1),
            ir.Constant(I64, 0),
        ]
        return builder.ptrtoint(_call(builder, "mmap", I8.as_pointer(), arguments), I64)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def raise_as_before(typingctx, number, action):
    """Give a signal the action (a struct sigaction) that it had, and raise it again.

    Once: that action may raise it again to be rid of it, and then the default is meant.
    """

    def codegen(context, builder, signature, args):
        signal = builder.trunc(args[0], I32)
        pointer = builder.inttoptr(args[1], I8.as_pointer())
        nothing = ir.Constant(I8.as_pointer(), None)
        _call(builder, "sigaction", I32, [signal, pointer, nothing])
        builder.store(ir.Constant(I64, 0), builder.inttoptr(args[1], I64.as_pointer()))
        _call(builder, "raise", I32, [signal])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


def _kept(builder):
    """A word of the object file's own, which outlives the call."""
    name = "assistantd_kept"
    word = builder.module.globals.get(name)
    if word is None:
        word = ir.GlobalVariable(builder.module, I64, name)
        word.linkage = "internal"
        word.initializer = ir.Constant(I64, 0)
    return word


@intrinsic
def keep(typingctx, value):
    """Remember an int64; a handler is given nothing but its signal."""

    def codegen(context, builder, signature, args):
        builder.store(args[0], _kept(builder))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def kept(typingctx):
    """What was remembered; 0 if nothing was. Only by the function that has `keep` in it."""

    def codegen(context, builder, signature, args):
        return builder.load(_kept(builder))

    return types.int64(), codegen
