"""Open a GGUF file by mmap, check everything in it before use, and give typed views.

Owns: the container format. Leaves to others: what the metadata means (model.py, tokenizer), and
where a tensor's bytes live at run time (weights.py).

Layout, all little-endian (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md):

    magic "GGUF":4  version:u32  n_tensors:u64  n_metadata:u64
    n_metadata ×  key:string  type:u32  value
    n_tensors  ×  name:string  n_dims:u32  dims:u64 × n_dims  type:u32  offset:u64
    padding to general.alignment, then the tensors' data; offsets count from there

A string is a u64 length and UTF-8 bytes; an array is type:u32, count:u64, values. The first
dimension is the contiguous one, so `dims` is the reverse of a numpy shape.

The header is read, not mapped: a file that gets shorter meanwhile is then an error, and no SIGBUS.
What of the mapped tensors goes missing later is guard.py's matter.
"""

import contextlib
import mmap
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from engine.errors import FileChangedError, ModelFormatError, UnsupportedModelError
from engine.formats import TensorType
from engine.i18n import _

MAGIC = b"GGUF"
SUPPORTED_VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 20
MAX_METADATA = 1 << 16
MAX_TENSORS = 1 << 16
MAX_DIMS = 4
MAX_KEY_BYTES = 65_535  # the format's own limit
MAX_NAME_BYTES = 64  # the format's own limit
MAX_STRING_BYTES = 1 << 22
MAX_ARRAY_ITEMS = 1 << 22
MAX_LIST_ITEMS = 1 << 21
"""Strings in all lists together. The largest vocabularies of today have 2^18, and twice the
merges; in memory a short string takes six times what it takes in the file."""
MAX_HEADER_BYTES = 1 << 27
MAX_SHOWN = 80
"""Characters of a name in a message."""

_STRING, _ARRAY, _BOOL = 8, 9, 7
# value type → (struct code, numpy dtype)
_SCALARS: dict[int, tuple[str, str]] = {
    0: ("<B", "u1"),
    1: ("<b", "i1"),
    2: ("<H", "<u2"),
    3: ("<h", "<i2"),
    4: ("<I", "<u4"),
    5: ("<i", "<i4"),
    6: ("<f", "<f4"),
    7: ("<B", "u1"),
    10: ("<Q", "<u8"),
    11: ("<q", "<i8"),
    12: ("<d", "<f8"),
}


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies in the file."""

    name: str
    type: TensorType
    shape: tuple[int, ...]
    """As numpy has it: the contiguous dimension last."""
    offset: int
    """Bytes from the start of the file."""
    n_bytes: int

    @property
    def n_rows(self) -> int:
        """All dimensions but the contiguous one, multiplied."""
        return int(np.prod(self.shape[:-1], dtype=np.int64))

    @property
    def n_cols(self) -> int:
        """Elements in a row."""
        return self.shape[-1]


class GGUFFile:
    """A GGUF whose structure has been checked; use as a context manager, or `close` it.

    Attributes:
        metadata: key → int, float, bool, str, list[str], or a numpy array for arrays of numbers.
        tensors: name → Tensor.
        data: the whole file, u8 (size,), mapped read-only.
        identity: device and inode of the file.
    """

    def __init__(self, path: Path, *, lists: bool = True) -> None:
        self.path = path
        try:
            with _open_regular(path) as file:
                status = os.fstat(file.fileno())
                self.size, self.identity = status.st_size, (status.st_dev, status.st_ino)
                if self.size < 24:
                    raise ModelFormatError(
                        _("{path} is not a GGUF model: it has {n} bytes, a header needs 24").format(
                            path=path, n=self.size
                        )
                    )
                reader = _Reader(path, file, self.size, lists=lists)
                self.version, self.metadata, self.tensors = reader.read()
                self.map = mmap.mmap(
                    file.fileno(), self.size, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED
                )
                self._state = _state(status)
                self._fd: int | None = os.dup(file.fileno())
        except OSError as error:
            raise ModelFormatError(
                _("cannot open {path}: {problem}").format(
                    path=path, problem=error.strerror or error
                )
            ) from error
        except (ValueError, OverflowError) as error:  # mmap's: it is shorter now, or too long
            raise ModelFormatError(
                _("cannot open {path}: {problem}").format(path=path, problem=error)
            ) from error
        self.data: npt.NDArray[np.uint8] = np.frombuffer(self.map, np.uint8)

    def check(self) -> None:
        """See whether the file is still what it was when it was opened.

        Raises:
            FileChangedError: it was written to, or cut off. One that was put in its place by a
                rename does no harm: the old one stays until it is closed.
        """
        try:
            same = self._fd is None or _state(os.fstat(self._fd)) == self._state
        except OSError:  # of a network file system, whose file is gone
            same = False
        if not same:
            raise self.changed()

    def changed(self) -> FileChangedError:
        """The error that says so."""
        return FileChangedError(
            _(
                "{path} has changed, or cannot be read any more; "
                "if it is incomplete, fetch it again"
            ).format(path=self.path)
        )

    def tensor_bytes(self, name: str) -> npt.NDArray[np.uint8]:
        """A tensor's raw bytes, u8 (n_bytes,), read from the file.

        Not through the map: where the page cache holds the file in large pieces, a page that is
        touched brings its whole piece into this process, and small tensors lie all over the file.

        Raises:
            FileChangedError: it ends before, or cannot be read any more.
        """
        tensor = self.tensors[name]
        raw = np.empty(tensor.n_bytes, np.uint8)
        done = 0
        try:
            while done < raw.size:
                assert self._fd is not None, "the file is closed"
                n = os.preadv(self._fd, [raw.data[done:]], tensor.offset + done)
                if not n:
                    raise self.changed()
                done += n
        except OSError as error:
            raise self.changed() from error
        return raw

    def forget_lists(self) -> None:
        """Drop lists and arrays from the metadata, when the vocabulary has been read: megabytes."""
        self.metadata = {
            key: value
            for key, value in self.metadata.items()
            if not isinstance(value, list | np.ndarray)
        }

    def close(self) -> None:
        """Unmap the file. Views handed out earlier keep it mapped until they are gone."""
        self.data = np.empty(0, np.uint8)
        # BufferError: somebody still holds a view; the map goes with the last of them
        with contextlib.suppress(BufferError):
            self.map.close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> "GGUFFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _state(status: os.stat_result) -> tuple[int, int]:
    """What changes when a file is written to."""
    return status.st_size, status.st_mtime_ns


def open_gguf(path: Path | str, *, lists: bool = True) -> GGUFFile:
    """Open and check a GGUF file.

    Args:
        lists: keep lists of strings, that is, the vocabulary: megabytes, which not all need.

    Raises:
        ModelFormatError: damaged, truncated or hostile; the message names the place and value.
        UnsupportedModelError: sound, but big-endian, of another version, or with a tensor type
            that the engine does not know.
    """
    return GGUFFile(Path(path), lists=lists)


def _open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, if it is one: a pipe would be waited for, for ever.

    Raises:
        OSError: it cannot be opened.
        ModelFormatError: it is something else than a file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ModelFormatError(_("{path} is not a regular file").format(path=path))
        return open(fd, "rb", buffering=1 << 20)
    except BaseException:
        os.close(fd)
        raise


def shown(text: str) -> str:
    """Text of a model file for a message: short, and nothing that a terminal would act on."""
    if len(text) > MAX_SHOWN:
        text = text[: MAX_SHOWN - 1] + "…"
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


class _Reader:
    """A cursor over the header that refuses to leave the file."""

    def __init__(self, path: Path, file: BinaryIO, size: int, *, lists: bool = True) -> None:
        self.lists = lists
        self.path = path
        self.file = file
        self.size = size
        self.pos = 0
        self.n_listed = 0

    def bad(self, what: str) -> ModelFormatError:
        return ModelFormatError(
            _("{file} is damaged: {what} (at byte {n})").format(
                file=self.path.name, what=what, n=self.pos
            )
        )

    def take(self, n_bytes: int, what: str) -> bytes:
        if n_bytes > self.size - self.pos:
            raise self.bad(
                f"{what} needs {n_bytes} bytes, the file has {self.size - self.pos} left"
            )
        if self.pos + n_bytes > MAX_HEADER_BYTES:
            raise self.bad(f"the header is longer than {MAX_HEADER_BYTES} bytes")
        raw = self.file.read(n_bytes)
        if len(raw) != n_bytes:
            raise self.bad("the file has become shorter while it was read")
        self.pos += n_bytes
        return raw

    def u32(self, what: str) -> int:
        return int(struct.unpack("<I", self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(struct.unpack("<Q", self.take(8, what))[0])

    def count(self, limit: int, what: str) -> int:
        value = self.u64(what)
        if value > limit:
            raise self.bad(f"{what} is {value}, at most {limit} is allowed")
        return value

    def string(self, limit: int, what: str) -> str:
        length = self.count(limit, f"length of {what}")
        raw = self.take(length, what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.bad(f"{what} is not UTF-8") from error

    def value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self.string(MAX_STRING_BYTES, f"value of {key}")
        if kind == _ARRAY:
            return self.array(key)
        if kind not in _SCALARS:
            raise self.bad(f"{key} has value type {kind}, which does not exist")
        code, _ = _SCALARS[kind]
        (value,) = struct.unpack(code, self.take(struct.calcsize(code), f"value of {key}"))
        return bool(value) if kind == _BOOL else value

    def array(self, key: str) -> Any:
        kind = self.u32(f"item type of {key}")
        n_items = self.count(MAX_ARRAY_ITEMS, f"items of {key}")
        if kind == _STRING:
            # every string takes 8 bytes at least: refuse before building a list of them
            if n_items * 8 > self.size - self.pos:
                raise self.bad(f"{key} says it has {n_items} strings, the file is too short")
            self.n_listed += n_items
            if self.n_listed > MAX_LIST_ITEMS:
                raise self.bad(f"more than {MAX_LIST_ITEMS} strings are in lists, up to {key}")
            item = f"item of {key}"
            if not self.lists:
                for _ in range(n_items):
                    self.take(self.count(MAX_STRING_BYTES, item), item)
                return None
            return [self.string(MAX_STRING_BYTES, item) for _ in range(n_items)]
        if kind == _ARRAY:
            raise self.bad(f"{key} is an array of arrays")
        if kind not in _SCALARS:
            raise self.bad(f"{key} has item type {kind}, which does not exist")
        dtype = np.dtype(_SCALARS[kind][1])
        raw = self.take(n_items * dtype.itemsize, f"items of {key}")
        if not self.lists:
            return None
        values = np.frombuffer(raw, dtype)
        return values.astype(bool) if kind == _BOOL else values

    def read(self) -> tuple[int, Mapping[str, Any], Mapping[str, Tensor]]:
        magic = self.take(4, "magic")
        if magic != MAGIC:
            raise ModelFormatError(
                _("{file} is not a GGUF model: it starts with {magic!r}, not {wanted!r}").format(
                    file=self.path.name, magic=magic, wanted=MAGIC
                )
            )
        version = self.u32("version")
        if version not in SUPPORTED_VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            if swapped in SUPPORTED_VERSIONS:
                note = _("it is big-endian")
            else:
                note = _("version {n}").format(n=version)
            raise UnsupportedModelError(
                _("{file}: {what}; little-endian GGUF versions 2 and 3 are supported").format(
                    file=self.path.name, what=note
                )
            )
        n_tensors = self.count(MAX_TENSORS, "number of tensors")
        n_metadata = self.count(MAX_METADATA, "number of metadata entries")
        metadata: dict[str, Any] = {}
        for _entry in range(n_metadata):
            key = self.string(MAX_KEY_BYTES, "a metadata key")
            label = shown(key)
            if key in metadata:
                raise self.bad(f"the key {label!r} occurs twice")
            metadata[key] = self.value(self.u32(f"type of {label}"), label)

        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if (
            not isinstance(alignment, int)
            or not 8 <= alignment <= MAX_ALIGNMENT
            or alignment & (alignment - 1)
        ):
            raise self.bad(
                f"general.alignment is {shown(repr(alignment))}, not a power of two from 8"
            )
        entries = [self.tensor_entry() for _i in range(n_tensors)]
        data_start = -(-self.pos // alignment) * alignment
        return version, metadata, self.place(entries, data_start, alignment)

    def tensor_entry(self) -> tuple[str, TensorType, tuple[int, ...], int, int]:
        name = self.string(MAX_NAME_BYTES, "a tensor's name")
        label = shown(name)
        n_dims = self.u32(f"dimensions of {label}")
        if not 1 <= n_dims <= MAX_DIMS:
            raise self.bad(f"{label} has {n_dims} dimensions, 1 to {MAX_DIMS} are allowed")
        dims = [self.u64(f"a dimension of {label}") for _i in range(n_dims)]
        n_elements = 1
        for dim in dims:
            n_elements *= dim
            # no type takes less than 2 bits an element: a cheap bound before any arithmetic
            if dim == 0 or n_elements > 4 * self.size:
                raise self.bad(f"{label} has the shape {dims[::-1]}, which cannot be in this file")
        code = self.u32(f"type of {label}")
        offset = self.u64(f"offset of {label}")
        try:
            tensor_type = TensorType(code)
        except ValueError as error:
            raise UnsupportedModelError(
                _("{file}: {tensor} has the tensor type {n}; supported are {names}").format(
                    file=self.path.name,
                    tensor=label,
                    n=code,
                    names=", ".join(t.name for t in TensorType),
                )
            ) from error
        if dims[0] % tensor_type.block_size:
            raise self.bad(
                f"{label} has rows of {dims[0]}, {tensor_type.name} needs a multiple "
                f"of {tensor_type.block_size}"
            )
        n_bytes = n_elements // tensor_type.block_size * tensor_type.block_bytes
        return name, tensor_type, tuple(reversed(dims)), offset, n_bytes

    def place(
        self,
        entries: list[tuple[str, TensorType, tuple[int, ...], int, int]],
        data_start: int,
        alignment: int,
    ) -> Mapping[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, tensor_type, shape, offset, n_bytes in entries:
            if name in tensors:
                raise self.bad(f"the tensor {shown(name)!r} occurs twice")
            if offset % alignment:
                raise self.bad(
                    f"{shown(name)} lies at {offset}, which is not aligned to {alignment}"
                )
            if data_start + offset + n_bytes > self.size:
                raise self.bad(
                    f"{shown(name)} ends at byte {data_start + offset + n_bytes}, the file has "
                    f"{self.size}; it may have been cut off: fetch it again"
                )
            tensors[name] = Tensor(name, tensor_type, shape, data_start + offset, n_bytes)
        end, previous = 0, ""
        for tensor in sorted(tensors.values(), key=lambda t: t.offset):
            if tensor.offset < end:
                raise self.bad(f"{shown(tensor.name)} overlaps {shown(previous)}")
            end, previous = tensor.offset + tensor.n_bytes, tensor.name
        return tensors
