"""Which weights stay in memory, and which are read from the disk in every pass.

A forward pass reads the weights in the same order every time. Of a cyclic scan that is larger than
the memory for it, the least recently used page is always the one needed next, so a page cache
keeps nothing of use. The best policy for such a scan is to keep a fixed part and to read the rest
past it (Belady 1966, for a loop): of S bytes with B resident, S − B are read in a pass.

A unit is what one step of the pass multiplies with; it is resident or streamed as a whole.
Streamed units go through a ring buffer, each at a place of its own that is the same in every pass,
so the kernels' addresses never change. Embedding rows are read one by one, and belong to no unit.

Owns the choice and the layout. Leaves reading to stream.py, addresses to weights.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.config import ModelConfig
from engine.disk import SECTOR
from engine.gguf import GGUFFile

STEPS = (("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_gate", "ffn_up"), ("ffn_down",))
"""The matrices that a layer multiplies with at a time, in order."""
OUTPUT = "output"

SLACK = 256
"""Bytes after a unit that kernels may load, and ignore."""


def aligned(n_bytes: int) -> int:
    """n_bytes rounded up to whole sectors."""
    return -(-n_bytes // SECTOR) * SECTOR


@dataclass(frozen=True)
class Extent:
    """Rows of a tensor, and where they are put within their unit.

    Attributes:
        matrix: GGUF's name without the layer, like attn_q, or "output".
        first_row, end_row: the rows.
        start, n_bytes: what is read of the file: whole sectors around the rows.
        at: offset of `start` in the unit.
        row0: offset of row 0 of the tensor in the unit; negative if that row is not in it.
    """

    matrix: str
    first_row: int
    end_row: int
    start: int
    n_bytes: int
    at: int
    row0: int


@dataclass(frozen=True)
class Unit:
    """The weights of one step.

    Attributes:
        layer: which; n_layers for parts of the output matrix.
        step: index in STEPS, or the part of the output matrix.
        n_bytes: of its extents, slack included; a multiple of SECTOR.
    """

    layer: int
    step: int
    extents: tuple[Extent, ...]
    n_bytes: int


def _unit(file: GGUFFile, layer: int, step: int, rows: Iterable[tuple[str, str, int, int]]) -> Unit:
    extents, at = [], 0
    for matrix, name, first_row, end_row in rows:
        tensor = file.tensors[f"{name}.weight"]
        row_bytes = tensor.n_bytes // tensor.n_rows
        first = tensor.offset + first_row * row_bytes
        start = first // SECTOR * SECTOR
        n_bytes = aligned(tensor.offset + end_row * row_bytes + SLACK - start)
        extents.append(
            Extent(matrix, first_row, end_row, start, n_bytes, at, at + tensor.offset - start)
        )
        at += n_bytes
    return Unit(layer, step, tuple(extents), at)


def units_of(file: GGUFFile, config: ModelConfig) -> list[Unit]:
    """All units in the order in which a pass needs them.

    The output matrix is cut into parts no larger than the largest unit of a layer, so that the
    ring need not be larger for it.
    """
    units = []
    for layer in range(config.n_layers):
        for step, matrices in enumerate(STEPS):
            rows = []
            for matrix in matrices:
                name = f"blk.{layer}.{matrix}"
                rows.append((matrix, name, 0, file.tensors[f"{name}.weight"].n_rows))
            units.append(_unit(file, layer, step, rows))
    name = "output" if "output.weight" in file.tensors else "token_embd"
    output = file.tensors[f"{name}.weight"]
    largest = max(unit.n_bytes for unit in units)
    n_parts = max(1, -(-output.n_bytes // largest))
    # whole tiles of rows, see kernels/matmul.py
    part_rows = -(-output.n_rows // n_parts // 16) * 16
    for part, first in enumerate(range(0, output.n_rows, part_rows)):
        end = min(first + part_rows, output.n_rows)
        units.append(_unit(file, config.n_layers, part, [(OUTPUT, name, first, end)]))
    return units


@dataclass(frozen=True)
class Residency:
    """Where each unit is.

    Attributes:
        units: all of the model, in the order of a pass.
        resident: for each, whether it stays in memory.
        places: for each streamed unit its offset in the ring, for a resident one −1.
        ring_bytes: size of the ring; 0 if nothing is streamed.
    """

    units: tuple[Unit, ...]
    resident: tuple[bool, ...]
    places: tuple[int, ...]
    ring_bytes: int

    @property
    def resident_bytes(self) -> int:
        """Bytes of the units that stay in memory."""
        return sum(u.n_bytes for u, r in zip(self.units, self.resident, strict=True) if r)

    @property
    def streamed_bytes(self) -> int:
        """Bytes read in a pass that computes logits."""
        return sum(u.n_bytes for u, r in zip(self.units, self.resident, strict=True) if not r)


def smallest_ring(units: Sequence[Unit]) -> int:
    """The ring that just works: reading and computing take turns."""
    return max(unit.n_bytes for unit in units)


def comfortable_ring(units: Sequence[Unit]) -> int:
    """A ring into which the next unit is read while one is multiplied."""
    return 2 * smallest_ring(units)


def choose(units: Sequence[Unit], resident_bytes: int, ring_bytes: int) -> Residency:
    """Keep units of at most resident_bytes together, spread evenly over the pass.

    Evenly, because the disk reads while resident units are computed, and the ring is only so
    large. The output matrix is the last to be kept: chunks of a prompt do without it.

    Args:
        ring_bytes: size of the ring if anything is streamed, at least smallest_ring(units).
    """
    resident = [False] * len(units)
    in_layers = [i for i, unit in enumerate(units) if unit.extents[0].matrix != OUTPUT]
    total = sum(units[i].n_bytes for i in in_layers)
    left = resident_bytes
    # walk the pass with the share that may stay, and keep a unit whenever a whole one has come up
    share, credit = min(1.0, resident_bytes / max(1, total)), 0.0
    for i in in_layers:
        credit += share * units[i].n_bytes
        if credit >= units[i].n_bytes and units[i].n_bytes <= left:
            resident[i] = True
            credit -= units[i].n_bytes
            left -= units[i].n_bytes
    # what is left over takes the largest that fit
    rest = [i for i in in_layers if not resident[i]]
    rest.sort(key=lambda i: -units[i].n_bytes)
    rest += [i for i in range(len(units)) if i not in set(in_layers)]
    for i in rest:
        if units[i].n_bytes <= left:
            resident[i] = True
            left -= units[i].n_bytes
    places, at = [], 0
    for i, unit in enumerate(units):
        if resident[i]:
            places.append(-1)
            continue
        if at + unit.n_bytes > ring_bytes:
            at = 0
        places.append(at)
        at += unit.n_bytes
    if all(resident):
        ring_bytes = 0
    return Residency(tuple(units), tuple(resident), tuple(places), ring_bytes)
