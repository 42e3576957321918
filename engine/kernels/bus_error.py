"""The handler of SIGBUS: a mapped file that has become shorter, or cannot be read, reads as zeros.

Compiled as the kernels are, because it runs in the middle of them: without the interpreter, and
with nothing that may not be called in a signal handler. guard.py installs it and asks what it saw.
"""

from engine import system
from engine.guard_table import ACTION, ADDRESS_IN_INFO, FIRST, N_SLOTS, PAGE_BYTES, SLOT_WORDS


def bus_error(number, info, context):
    """Handle the signal of this number. An entry (native.py).

    number   0 is no signal: then `info` is the address of the table (guard_table.py) to use
    info     address of its siginfo
    context  of the thread; not used
    """
    if number == 0:
        system.keep(info)
        return
    table = system.kept()
    address = system.atomic_load(info + ADDRESS_IN_INFO)
    page_bytes = system.atomic_load(table + 8 * PAGE_BYTES)
    for slot in range(N_SLOTS):
        entry = table + 8 * (FIRST + SLOT_WORDS * slot)
        start, end = system.atomic_load(entry), system.atomic_load(entry + 8)
        if start <= address and address < end:
            # all that follows: who reads a file that was cut off would come here for each page
            page = address - address % page_bytes
            if system.map_zeros(page, end - page) == page:
                system.atomic_store(entry + 16, 1)
                return
    system.raise_as_before(number, table + 8 * ACTION)
