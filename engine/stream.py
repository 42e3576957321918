"""Reading streamed weights into the ring while others are computed with.

A few threads read pieces of the file in the order in which passes need them, and go on into the
next pass. Two kinds of pipe are all that connects them with the compiled forward pass:

    ready[thread]   a byte for each unit that is in memory; a thread of the team takes one before
                    it multiplies with the next unit (and sleeps until there is one)
    done            a thread's number, whenever it needs a unit no more; and before each pass a
                    word of whether it will compute logits (the output matrix is skipped otherwise)

A unit may be overwritten once every thread is done with all units that overlap its place. Pipes,
because both sides can wait on them without the GIL, without polling, and on any POSIX system.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.disk import DirectFile, anonymous
from engine.errors import ReadError
from engine.i18n import _
from engine.residency import OUTPUT, Residency, Unit
from engine.threads import name_thread

PIECE_BYTES = 1 << 20
"""What one request to the disk reads, at most."""
READERS = 4
"""Requests under way: one at a time leaves a solid-state disk idle in between."""
_PASS_WITH_OUTPUT, _PASS_WITHOUT, _CLOSE = 253, 254, 255
MAX_THREADS = 253
"""Threads of a team that can stream: their numbers share a byte with the three words above."""


@dataclass(eq=False)
class _InFlight:
    """A unit that is being read, or being multiplied with."""

    start: int
    end: int
    """Its place in the ring."""
    n_left: int
    """Pieces not yet read."""
    users: set[int] = field(default_factory=set)
    """Threads of the team that still need it."""


@dataclass(frozen=True)
class _Piece:
    """One request to the disk."""

    unit: _InFlight
    offset: int
    """In the file."""
    to: int
    """In the ring."""
    n_bytes: int


class Streamer:
    """The ring, its readers, and the pipes.

    Args:
        file: closed by the caller, after `close`.
        n_threads: of the team, at most MAX_THREADS.
    Attributes:
        address: of the ring.
        ready: (n_threads,) i64 file descriptors to read from, and
        done: one to write to, for the forward pass.
        n_bytes: of weights that were read for passes, up to now.
    """

    def __init__(self, file: DirectFile, residency: Residency, n_threads: int) -> None:
        self._file, self._residency, self._n_threads = file, residency, n_threads
        self._ring = anonymous(residency.ring_bytes, huge=True)
        self._view = memoryview(self._ring)
        self.address = np.frombuffer(self._ring, np.uint8).ctypes.data
        pipes: list[tuple[int, int]] = []
        try:
            for _pipe in range(n_threads + 1):
                pipes.append(os.pipe())
        except OSError as problem:
            for fd in (fd for pipe in pipes for fd in pipe):
                os.close(fd)
            raise ReadError(
                _("cannot stream weights: {problem}").format(problem=problem.strerror)
            ) from problem
        self._take_done, self.done = pipes.pop()
        self.ready: npt.NDArray[np.int64] = np.array([r for r, _write in pipes], np.int64)
        self._tell_ready = [w for _read, w in pipes]
        self.n_bytes = 0
        self._error: ReadError | None = None
        self._closing = False
        self._taking = threading.Lock()  # held by the reader that takes the next piece
        self._booking = threading.Lock()  # guards what follows
        self._in_flight: deque[_InFlight] = deque()  # in order; those told ready come first
        self._n_told = 0
        self._passes: deque[bool] = deque()  # announced: whether they compute logits
        self._pieces = self._all_pieces()
        self._threads = [
            threading.Thread(target=self._read, name=f"reader-{i}", daemon=True)
            for i in range(READERS)
        ]
        for thread in self._threads:
            thread.start()

    def announce(self, *, with_output: bool) -> None:
        """Say that a pass follows, and whether it computes logits."""
        self._write_byte(_PASS_WITH_OUTPUT if with_output else _PASS_WITHOUT)

    def check(self) -> None:
        """To be asked after a pass.

        Raises:
            ReadError: something could not be read: the pass computed nonsense.
        """
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the readers, between two passes, and give the ring back."""
        self._write_byte(_CLOSE)
        for thread in self._threads:
            thread.join()
        for fd in (*self.ready.tolist(), *self._tell_ready, self._take_done, self.done):
            os.close(fd)
        self._view.release()
        self._ring.close()  # at once: the generator of pieces keeps this object for a while

    def _write_byte(self, value: int) -> None:
        os.write(self.done, bytes([value]))

    # --- readers -----------------------------------------------------------------------------

    def _read(self) -> None:
        name_thread()
        while True:
            with self._taking:
                piece = next(self._pieces, None)
            if piece is None:
                return
            try:
                with self._view[piece.to : piece.to + piece.n_bytes] as view:
                    self._file.read_into(view, piece.offset)
            except ReadError as problem:
                # the pass must end all the same; `check` tells whoever started it
                self._error = self._error or problem
            with self._booking:
                self.n_bytes += piece.n_bytes
                piece.unit.n_left -= 1
                self._tell()

    def _tell(self) -> None:
        """Say of units that they are in memory: in order, though pieces come as they like."""
        while self._n_told < len(self._in_flight) and not self._in_flight[self._n_told].n_left:
            self._n_told += 1
            for pipe in self._tell_ready:
                os.write(pipe, b".")

    def _all_pieces(self) -> Iterator[_Piece]:
        """Pieces of one pass after the other; waits until there is room for each."""
        residency = self._residency
        streamed = [
            (unit, place)
            for unit, place in zip(residency.units, residency.places, strict=True)
            if place >= 0
        ]
        layers = [(u, place) for u, place in streamed if u.extents[0].matrix != OUTPUT]
        output = streamed[len(layers) :]
        while not self._closing:
            for unit, place in layers:
                yield from self._pieces_of(unit, place)
            while not self._passes:
                if not self._hear():
                    return
            if self._passes.popleft():
                for unit, place in output:
                    yield from self._pieces_of(unit, place)

    def _pieces_of(self, unit: Unit, place: int) -> Iterator[_Piece]:
        """Pieces of a unit, once its place is free; none when the readers are to end."""
        end = place + unit.n_bytes
        while any(f.start < end and place < f.end for f in self._in_flight):
            if not self._hear():
                return
        if self._closing:
            return
        pieces = [
            (extent.start + at, place + extent.at + at, min(PIECE_BYTES, extent.n_bytes - at))
            for extent in unit.extents
            for at in range(0, extent.n_bytes, PIECE_BYTES)
        ]
        flight = _InFlight(place, end, len(pieces), set(range(self._n_threads)))
        with self._booking:
            self._in_flight.append(flight)
        for offset, to, n_bytes in pieces:
            yield _Piece(flight, offset, to, n_bytes)

    def _hear(self) -> bool:
        """Wait for what the forward pass has to say; False if there is nothing more to read."""
        if self._closing:
            return False
        for word in os.read(self._take_done, 4096):
            if word == _CLOSE:
                self._closing = True
            elif word in (_PASS_WITH_OUTPUT, _PASS_WITHOUT):
                self._passes.append(word == _PASS_WITH_OUTPUT)
            else:
                with self._booking:
                    next(f for f in self._in_flight if word in f.users).users.remove(word)
                    while self._in_flight and not self._in_flight[0].users:
                        self._in_flight.popleft()
                        self._n_told -= 1
        return not self._closing
