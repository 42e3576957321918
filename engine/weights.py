"""Where each tensor lives, as records that kernels can read: address, type, shape.

    mapped   every matrix is used in place, through the map of the file
    held     some units of matrices are in memory of our own, read past the page cache; the others
             are streamed through a ring in every pass, embedding rows read as they are needed

Either way one copy of a byte is in memory, and nothing is dequantized but the vectors (norms and
biases), which are kept as float32. Which units are held is residency.py's choice; it can be
changed between two passes. The GGUFFile must outlive the Weights.
"""

import mmap
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.aligned import aligned_zeros
from engine.config import ModelConfig, layer_matrices
from engine.disk import SECTOR, DirectFile, anonymous
from engine.errors import ReadError
from engine.formats import TensorType
from engine.gguf import GGUFFile
from engine.guard import Watch
from engine.i18n import _
from engine.job import MATRIX, Stream, WeightViews
from engine.residency import OUTPUT, STEPS, Extent, Residency, Unit, units_of
from engine.stream import PIECE_BYTES, READERS, Streamer

Progress = Callable[[int, int], None]
"""Told the bytes read so far, and all."""


def read_vector(file: GGUFFile, name: str) -> npt.NDArray[np.float32]:
    """A tensor of a float type as f32."""
    tensor, raw = file.tensors[name], file.tensor_bytes(name)
    if tensor.type == TensorType.F32:
        return raw.view(np.float32)
    if tensor.type == TensorType.F16:
        return raw.view(np.float16).astype(np.float32)
    return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)  # BF16


class _Held(NamedTuple):
    """Memory of a unit, and its address."""

    memory: mmap.mmap
    address: int


def _hold(n_bytes: int) -> _Held:
    memory = anonymous(n_bytes, huge=True)
    return _Held(memory, np.frombuffer(memory, np.uint8).ctypes.data)


class Weights:
    """The weights of a model, mapped until `hold` is called.

    Args:
        n_threads: of the team that will compute with them.
        max_rows: the most rows of a pass.
    Attributes:
        views: what the kernels read.
        stream: what of it is streamed, likewise. Both are changed in place.
        units: what can be held or streamed, see residency.py.
        residency: what is; None while mapped.
    """

    def __init__(self, file: GGUFFile, config: ModelConfig, n_threads: int, max_rows: int) -> None:
        self._file, self._config, self._n_threads = file, config, n_threads
        self.units = units_of(file, config)
        self.residency: Residency | None = None
        self._disk: DirectFile | None = None
        self._held: dict[int, _Held] = {}  # by index of the unit
        self._streamer: Streamer | None = None
        self._streamed_before = 0  # bytes, by streamers that are closed
        self._resting = False
        self._biases: dict[str, npt.NDArray[np.float32]] = {}  # kept alive for their addresses
        self._watch = Watch(file.data.ctypes.data, file.size)
        try:
            self._build(file, config, n_threads, max_rows)
            self.check()
        except BaseException:
            self._watch.close()
            raise

    def _build(self, file: GGUFFile, config: ModelConfig, n_threads: int, max_rows: int) -> None:
        """Read the vectors, and make the records."""
        layers = range(config.n_layers)
        norms = {
            name: np.stack([read_vector(file, f"blk.{i}.{name}.weight") for i in layers])
            for name in ("attn_norm", "ffn_norm")
        }
        n_parts = sum(unit.layer == config.n_layers for unit in self.units)
        self.views = WeightViews(
            **{name: np.zeros(config.n_layers, MATRIX) for name in layer_matrices(config)},
            **norms,
            token_embd=np.zeros(1, MATRIX),
            output_norm=read_vector(file, "output_norm.weight"),
            output=np.zeros(n_parts, MATRIX),
        )
        self.stream = Stream(
            steps=np.zeros((config.n_layers, len(STEPS)), np.uint8),
            output=np.zeros(n_parts, np.uint8),
            ready=np.zeros(n_threads, np.int64),
            done=np.zeros(1, np.int64),
        )
        self.rope_factors = (
            read_vector(file, "rope_freqs.weight") if "rope_freqs.weight" in file.tensors else None
        )
        embedding = file.tensors["token_embd.weight"]
        self._row_bytes = embedding.n_bytes // embedding.n_rows
        self._rows = aligned_zeros((max_rows, self._row_bytes), np.uint8)  # of a pass, if held
        self._row_sectors = anonymous(2 * SECTOR + self._row_bytes // SECTOR * SECTOR)
        self._map()

    # --- mapped or held ----------------------------------------------------------------------

    @property
    def streamed_bytes(self) -> int:
        """Bytes that were read from the disk for passes so far; for any thread."""
        streamer = self._streamer
        return self._streamed_before + (streamer.n_bytes if streamer is not None else 0)

    @property
    def is_mapped(self) -> bool:
        """Whether all matrices are used through the map of the file."""
        return self.residency is None

    def _map(self) -> None:
        base = self._file.data.ctypes.data
        for unit in self.units:
            for extent in unit.extents:
                self._place(unit, extent, base + self._tensor_offset(unit, extent))
        self.views.token_embd[0] = self._record(
            "token_embd", base + self._file.tensors["token_embd.weight"].offset
        )
        self.stream.steps[:] = 0
        self.stream.output[:] = 0

    def hold(self, residency: Residency, progress: Progress | None = None) -> None:
        """Keep these units in memory and stream the rest, from the next pass on.

        Raises:
            ReadError: the file cannot be read; the next pass tries again.
        """
        self.residency = residency
        if self._resting:
            return  # the next pass reads them
        try:
            self._hold(residency, progress or (lambda done, total: None))
        except BaseException:
            self.rest()  # within the budget, and the next pass tries again
            raise

    def _hold(self, residency: Residency, progress: Progress) -> None:
        self._close_streamer()
        self.drop_map()  # or what is read now would be in memory twice
        if self._disk is None:
            self._disk = DirectFile(self._file.path)
            if self._disk.identity != self._file.identity or self._disk.size < self._file.size:
                self._disk.close()
                self._disk = None
                raise ReadError(
                    _("{path} is another file now; load the model again").format(
                        path=self._file.path
                    )
                )
        self._disk.drop_cached()
        wanted = {i for i, resident in enumerate(residency.resident) if resident}
        for i in set(self._held) - wanted:
            del self._held[i]
        self._read_units(sorted(wanted - set(self._held)), progress)
        if residency.ring_bytes:
            self._streamer = Streamer(self._disk, residency, self._n_threads)
            self.stream.ready[:] = self._streamer.ready
            self.stream.done[0] = self._streamer.done
        for i, unit in enumerate(self.units):
            if residency.resident[i]:
                address = self._held[i].address
            else:
                assert self._streamer is not None
                address = self._streamer.address + residency.places[i]
            for extent in unit.extents:
                self._place(unit, extent, address + extent.row0)
            is_output = unit.layer == self._config.n_layers
            flags = self.stream.output if is_output else self.stream.steps[unit.layer]
            flags[unit.step] = not residency.resident[i]
        self.views.token_embd[0] = self._record("token_embd", self._rows.ctypes.data)

    def unhold(self) -> None:
        """Give the memory of held units and the ring back; from here on all is mapped."""
        self._close_streamer()
        self._held.clear()
        self.residency, self._resting = None, False
        self._map()

    def check(self) -> None:
        """See whether the file is still what it was.

        Raises:
            FileChangedError: what was computed since the last time may be nonsense.
        """
        if not self._watch.is_whole:
            raise self._file.changed()
        self._file.check()

    def rest(self) -> None:
        """Give the memory of all weights back for now; the next pass reads them again."""
        self._close_streamer()
        self._held.clear()
        self.drop_map()
        self._resting = self.residency is not None

    def drop_map(self) -> None:
        """Give back what of the file is in memory through its map; it is read again on demand."""
        self._file.map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """End the readers, close the file."""
        self.unhold()
        self._watch.close()
        if self._disk is not None:
            self._disk.close()
            self._disk = None

    def _close_streamer(self) -> None:
        streamer = self._streamer
        if streamer is not None:
            streamer.close()
            self._streamer = None
            self._streamed_before += streamer.n_bytes

    def _read_units(self, indexes: list[int], progress: Progress) -> None:
        """Read units into memory of their own, a few requests at a time."""
        assert self._disk is not None
        disk, total = self._disk, sum(self.units[i].n_bytes for i in indexes)
        done = 0

        def read(piece: tuple[mmap.mmap, int, int, int]) -> int:
            memory, to, offset, n_bytes = piece
            with memoryview(memory) as whole, whole[to : to + n_bytes] as view:
                disk.read_into(view, offset)
            return n_bytes

        with ThreadPoolExecutor(READERS, thread_name_prefix="reader") as pool:
            for i in indexes:
                self._held[i] = _hold(self.units[i].n_bytes)
                for n_bytes in pool.map(read, self._pieces(i)):
                    done += n_bytes
                progress(done, total)

    def _pieces(self, index: int) -> Iterable[tuple[mmap.mmap, int, int, int]]:
        memory = self._held[index].memory
        for extent in self.units[index].extents:
            for at in range(0, extent.n_bytes, PIECE_BYTES):
                n_bytes = min(PIECE_BYTES, extent.n_bytes - at)
                yield memory, extent.at + at, extent.start + at, n_bytes

    # --- passes ------------------------------------------------------------------------------

    def before_pass(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Get ready for a pass over these tokens, (T,) i32.

        Returns:
            for each the row of views.token_embd that is its embedding, (T,) i32.

        Raises:
            ReadError: an embedding row, or weights after a rest, cannot be read.
        """
        if self.residency is None:
            return tokens
        if self._resting:
            self._resting = False
            self.hold(self.residency)
        rows, numbers = np.unique(tokens, return_inverse=True)
        for number, row in enumerate(rows.tolist()):
            self._read_row(row, self._rows[number])
        return numbers.astype(np.int32)

    def announce(self, *, with_output: bool) -> None:
        """Say that a pass begins now, and whether it computes logits."""
        if self._streamer is not None:
            self._streamer.announce(with_output=with_output)

    def after_pass(self) -> None:
        """To be called after each pass.

        Raises:
            ReadError: something could not be read, so that the pass computed nonsense.
        """
        self.check()
        if self._streamer is None:
            return
        try:
            self._streamer.check()
        except BaseException:
            assert self.residency is not None
            self.hold(self.residency)  # what was read ahead may be wrong, too
            raise

    def _read_row(self, row: int, into: npt.NDArray[np.uint8]) -> None:
        assert self._disk is not None
        first = self._file.tensors["token_embd.weight"].offset + row * self._row_bytes
        start = first // SECTOR * SECTOR
        end = -(-(first + self._row_bytes) // SECTOR) * SECTOR
        with memoryview(self._row_sectors) as whole, whole[: end - start] as view:
            self._disk.read_into(view, start)
            into[:] = np.frombuffer(view, np.uint8)[first - start : first - start + len(into)]

    # --- records -----------------------------------------------------------------------------

    def _name(self, unit: Unit, extent: Extent) -> str:
        if unit.layer < self._config.n_layers:
            return f"blk.{unit.layer}.{extent.matrix}"
        return OUTPUT if "output.weight" in self._file.tensors else "token_embd"

    def _tensor_offset(self, unit: Unit, extent: Extent) -> int:
        return self._file.tensors[f"{self._name(unit, extent)}.weight"].offset

    def _place(self, unit: Unit, extent: Extent, row0: int) -> None:
        """Tell the kernels that row 0 of an extent's tensor is (or would be) at this address."""
        record = self._record(self._name(unit, extent), row0, extent.first_row, extent.end_row)
        if unit.layer == self._config.n_layers:
            self.views.output[unit.step] = record
        else:
            getattr(self.views, extent.matrix)[unit.layer] = record

    def _record(
        self, name: str, address: int, first_row: int = 0, end_row: int | None = None
    ) -> tuple[int, ...]:
        tensor = self._file.tensors[f"{name}.weight"]
        bias = 0
        if f"{name}.bias" in self._file.tensors:
            if name not in self._biases:
                self._biases[name] = read_vector(self._file, f"{name}.bias")
            bias = self._biases[name].ctypes.data
        return (
            address,
            int(tensor.type),
            first_row,
            tensor.n_rows if end_row is None else end_row,
            tensor.n_cols,
            tensor.n_bytes // tensor.n_rows,
            bias,
        )
