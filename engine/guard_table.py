"""The table that guard.py and the handler in kernels/bus_error.py share: 8-byte words.

PAGE_BYTES   of the system
ACTION …     the struct sigaction that SIGBUS had before
FIRST …      N_SLOTS times: start and end of a map, and whether a page of it was missing
"""

PAGE_BYTES = 0
ACTION = 1
ACTION_WORDS = 32
"""More than a struct sigaction takes anywhere."""
FIRST = ACTION + ACTION_WORDS
SLOT_WORDS = 3
N_SLOTS = 16
"""Files that are mapped at the same time; the daemon has one, and two while it changes."""
N_WORDS = FIRST + N_SLOTS * SLOT_WORDS
ADDRESS_IN_INFO = 16
"""Where Linux has si_addr in siginfo_t, with 64 bits."""
