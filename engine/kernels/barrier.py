"""Where the threads of a team meet (threads.py)."""

from engine import system
from engine.jit import inline

_GENERATION = 64  # bytes from the arrival count: a cache line of its own
_SPINS_BEFORE_YIELD = 2000


@inline
def barrier(sync, n_threads):
    """Wait until all threads of the team are here; what they wrote before is visible after.

    sync  address of 128 zeroed bytes, shared by the team

    A waiting thread spins briefly and then gives its core away between looks, so that a busy
    machine is slowed rather than stalled.
    """
    if n_threads > 1:
        generation = system.atomic_load(sync + _GENERATION)
        if system.atomic_add(sync, 1) == n_threads - 1:
            system.atomic_store(sync, 0)
            system.atomic_add(sync + _GENERATION, 1)
        else:
            spins = 0
            while system.atomic_load(sync + _GENERATION) == generation:
                spins += 1
                if spins > _SPINS_BEFORE_YIELD:
                    system.yield_cpu()
