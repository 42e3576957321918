"""Makes a shared library of an object file, so that the system's loader can map the kernels.

LLVM's own loader writes code into memory and then makes it executable, which a process that may
not do so (systemd's MemoryDenyWriteExecute=, SELinux) cannot. A library is mapped from its file.
There is no linker on most devices; this one does what kernels need: ELF, 64 bits, x86-64 and
AArch64, position-independent code, functions of the C library and nothing else from outside.

    R X   headers, tables for the loader, constants, code, stubs that jump to what is outside
    R W   data with addresses in it, the loader's table of contents, a slot for each outside address
"""

import struct
from dataclasses import dataclass, field

_SEGMENT = 1 << 16
"""Largest page of any such processor."""
_EM_X86_64, _EM_AARCH64 = 62, 183
_STUB_BYTES = 16
_NEEDED = ("libm.so.6", "libc.so.6")
_EXPORTED = "assistantd_"
"""What symbols that are wanted begin with."""
# section types and flags, and special section numbers
_SYMTAB, _RELA, _NOBITS = 2, 4, 8
_WRITE, _ALLOC = 1, 2
_UNDEFINED, _ABSOLUTE, _COMMON = 0, 0xFFF1, 0xFFF2


class LinkError(Exception):
    """The object has something that this linker does not know."""


@dataclass
class _Section:
    name: str
    kind: int
    flags: int
    data: bytes
    link: int
    info: int
    align: int
    size: int
    address: int = -1
    """In the library; −1: left out."""


@dataclass(frozen=True)
class _Symbol:
    name: str
    section: int
    value: int
    """Offset in its section; for common data, its alignment."""
    size: int
    is_global: bool


@dataclass
class _Outside:
    """What is known of an address that only the loader knows, or that has a slot."""

    slot: int = -1
    stub: int = -1


@dataclass
class _Linker:
    machine: int
    sections: list[_Section]
    symbols: list[_Symbol]
    image: bytearray = field(default_factory=bytearray)
    outside: dict[int, _Outside] = field(default_factory=dict)
    """By number of the symbol."""
    relocations: list[tuple[int, int, int, int]] = field(default_factory=list)
    """For the loader: place, kind, symbol of the object (−1: none), addend."""

    # --- laying out --------------------------------------------------------------------------

    def place(self, section: _Section) -> None:
        """Put a section behind what is there."""
        section.address = self.reserve(section.size, section.align)
        self.image[section.address : section.address + len(section.data)] = section.data

    def reserve(self, n_bytes: int, align: int = 8) -> int:
        """Zeros behind what is there; returns their address."""
        address = -(-len(self.image) // max(1, align)) * max(1, align)
        self.image.extend(bytes(address + n_bytes - len(self.image)))
        return address

    def address_of(self, number: int) -> int | None:
        """Address of a symbol; None if only the loader knows it."""
        symbol = self.symbols[number]
        if symbol.section == _UNDEFINED:
            return None
        if symbol.section in (_ABSOLUTE, _COMMON) or symbol.section >= len(self.sections):
            raise LinkError(f"symbol {symbol.name!r} is in section {symbol.section:#x}")
        section = self.sections[symbol.section]
        if section.address < 0:
            raise LinkError(f"symbol {symbol.name!r} is in {section.name}, which is left out")
        return section.address + symbol.value

    def relocations_of(self, section: _Section) -> list[tuple[int, int, int, int]]:
        """(place, kind, symbol, addend) for each address that is to be put into a section."""
        found = []
        for rela in self.sections:
            if rela.kind == _RELA and self.sections[rela.info] is section:
                for offset, info, addend in struct.iter_unpack("<QQq", rela.data):
                    kind, number = info & 0xFFFFFFFF, info >> 32
                    found.append((section.address + offset, kind, number, addend))
        return found

    # --- addresses ---------------------------------------------------------------------------

    def resolve(self, place: int, kind: int, number: int, addend: int, *, writable: bool) -> None:
        """Put an address into its place, or leave that to the loader."""
        known = self.address_of(number)
        absolute = 1 if self.machine == _EM_X86_64 else 257
        if kind == absolute:
            if not writable:
                raise LinkError("an absolute address in what is not written to")
            relative = 8 if self.machine == _EM_X86_64 else 1027
            if known is None:
                self.relocations.append((place, absolute, number, addend))
            else:
                self.relocations.append((place, relative, -1, known + addend))
        elif self.machine == _EM_X86_64:
            self._resolve_x86(place, kind, number, known, addend)
        else:
            self._resolve_arm(place, kind, number, known, addend)

    def _target(self, number: int, known: int | None) -> int:
        """Where a call goes: to a function in here, or to the stub of one outside."""
        return self.outside[number].stub if known is None else known

    def _resolve_x86(
        self, place: int, kind: int, number: int, known: int | None, addend: int
    ) -> None:
        if kind in (2, 4):  # PC32, PLT32
            self._put("<i", place, self._target(number, known) + addend - place)
        elif kind == 24 and known is not None:  # PC64
            self._put("<q", place, known + addend - place)
        elif kind in (9, 41, 42):  # GOTPCREL and its variants
            self._put("<i", place, self.outside[number].slot + addend - place)
        else:
            raise LinkError(f"relocation {kind}")

    def _resolve_arm(
        self, place: int, kind: int, number: int, known: int | None, addend: int
    ) -> None:
        if kind in (282, 283):  # JUMP26, CALL26
            distance = self._target(number, known) + addend - place
            if not -(1 << 27) <= distance < 1 << 27:
                raise LinkError("a jump that is too far")
            self._patch(place, 0x03FFFFFF, distance >> 2)
        elif kind in (311, 312):  # ADR_GOT_PAGE, LD64_GOT_LO12_NC
            slot = self.outside[number].slot + addend
            if kind == 311:
                self._put_page(place, slot)
            else:
                self._patch(place, 0xFFF << 10, (slot & 0xFFF) >> 3 << 10)
        elif known is None:
            raise LinkError(f"relocation {kind} of {self.symbols[number].name!r}, which is outside")
        elif kind == 275:  # ADR_PREL_PG_HI21
            self._put_page(place, known + addend)
        elif kind in _SHIFTS:  # ADD_ABS_LO12_NC, LDST*_ABS_LO12_NC
            self._patch(place, 0xFFF << 10, ((known + addend) & 0xFFF) >> _SHIFTS[kind] << 10)
        elif kind == 261:  # PREL32
            self._put("<i", place, known + addend - place)
        elif kind == 260:  # PREL64
            self._put("<q", place, known + addend - place)
        else:
            raise LinkError(f"relocation {kind}")

    def _put(self, form: str, place: int, value: int) -> None:
        try:
            struct.pack_into(form, self.image, place, value)
        except struct.error as problem:
            raise LinkError("an address that is too far away") from problem

    def _patch(self, place: int, mask: int, bits: int) -> None:
        """Replace the bits of an instruction that hold an address."""
        (word,) = struct.unpack_from("<I", self.image, place)
        struct.pack_into("<I", self.image, place, (word & ~mask & 0xFFFFFFFF) | (bits & mask))

    def _put_page(self, place: int, address: int) -> None:
        """The operand of ADRP: how many pages of 4 KiB an address is away."""
        pages = (address >> 12) - (place >> 12)
        self._patch(
            place, 3 << 29 | 0x7FFFF << 5, (pages & 3) << 29 | ((pages >> 2) & 0x7FFFF) << 5
        )

    def write_stub(self, outside: _Outside) -> None:
        """Jump to where the slot says."""
        at = outside.stub
        if self.machine == _EM_X86_64:
            self.image[at : at + 2] = b"\xff\x25"  # jmp *slot(%rip)
            self._put("<i", at + 2, outside.slot - (at + 6))
        else:  # adrp x16, slot; ldr x16, [x16, slot's low bits]; br x16
            struct.pack_into("<III", self.image, at, 0x90000010, 0xF9400210, 0xD61F0200)
            self._put_page(at, outside.slot)
            self._patch(at + 4, 0xFFF << 10, (outside.slot & 0xFFF) >> 3 << 10)


_SHIFTS = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4}
_CALLS = {_EM_X86_64: (4, 2), _EM_AARCH64: (282, 283)}
_SLOTTED = {_EM_X86_64: (9, 41, 42), _EM_AARCH64: (311, 312)}


def shared_library(code: bytes) -> bytes:
    """Link an object file.

    Raises:
        LinkError: it is of another kind, or has something that kernels do not have.
    """
    linker = _read(code)
    kept = [s for s in linker.sections if s.flags & _ALLOC and s.size and s.name != ".eh_frame"]
    fixed = [s for s in kept if not s.flags & _WRITE]
    written = [s for s in kept if s.flags & _WRITE]
    needed = [relocation for s in kept for relocation in linker.relocations_of(s)]

    # what has to have a slot, and what a stub; numbers of the loader's symbols
    for _place, kind, number, _addend in needed:
        is_outside = linker.symbols[number].section == _UNDEFINED
        if kind in _SLOTTED[linker.machine] or (is_outside and kind in _CALLS[linker.machine]):
            linker.outside.setdefault(number, _Outside())
    exported = [
        number
        for number, symbol in enumerate(linker.symbols)
        if symbol.is_global and symbol.section and symbol.name.startswith(_EXPORTED)
    ]
    absent = sorted(
        {number for _p, _k, number, _a in needed if linker.symbols[number].section == _UNDEFINED}
    )
    numbers = {number: i + 1 for i, number in enumerate([*exported, *absent])}

    # R X
    n_relocations = len(needed) + len(linker.outside)  # at most
    strings, offsets = _strings([*_NEEDED, *(linker.symbols[n].name for n in numbers)])
    linker.reserve(64 + 4 * 56)
    symbols_at = linker.reserve(24 * (len(numbers) + 1))
    hash_at = linker.reserve(4 * (2 + 1 + len(numbers) + 1))
    strings_at = linker.reserve(len(strings))
    linker.image[strings_at:] = strings
    relocations_at = linker.reserve(24 * n_relocations)
    for section in fixed:
        linker.place(section)
    for outside in linker.outside.values():
        outside.stub = linker.reserve(_STUB_BYTES, _STUB_BYTES)
    code_end = len(linker.image)

    # R W
    data_at = linker.reserve(0, _SEGMENT)
    for section in written:
        linker.place(section)
    for outside in linker.outside.values():
        outside.slot = linker.reserve(8)
    dynamic_at = linker.reserve(16 * 16)

    glob_dat, relative = (6, 8) if linker.machine == _EM_X86_64 else (1025, 1027)
    for number, outside in linker.outside.items():
        linker.write_stub(outside)
        known = linker.address_of(number)
        if known is None:
            linker.relocations.append((outside.slot, glob_dat, number, 0))
        else:
            linker.relocations.append((outside.slot, relative, -1, known))
    for section in kept:
        for place, kind, number, addend in linker.relocations_of(section):
            writable = bool(section.flags & _WRITE)
            linker.resolve(place, kind, number, addend, writable=writable)

    _write_symbols(linker, symbols_at, numbers, offsets)
    # one bucket, whose chain goes through all symbols: there are few
    last = len(numbers)
    chain = [0, *range(2, last + 1), 0] if last else [0]
    struct.pack_into(
        f"<{3 + len(chain)}I", linker.image, hash_at, 1, last + 1, min(1, last), *chain
    )
    for i, (place, kind, number, addend) in enumerate(linker.relocations):
        symbol = numbers[number] if number >= 0 else 0
        at = relocations_at + 24 * i
        struct.pack_into("<QQq", linker.image, at, place, symbol << 32 | kind, addend)
    dynamic = [
        *((1, offsets[name]) for name in _NEEDED),
        (4, hash_at),
        (5, strings_at),
        (6, symbols_at),
        (10, len(strings)),
        (11, 24),
        (7, relocations_at),
        (8, 24 * len(linker.relocations)),
        (9, 24),
        (30, 8),  # BIND_NOW
        (0, 0),
    ]
    for i, entry in enumerate(dynamic):
        struct.pack_into("<QQ", linker.image, dynamic_at + 16 * i, *entry)
    _write_headers(linker, code_end, data_at, dynamic_at, 16 * len(dynamic))
    return bytes(linker.image)


def _read(code: bytes) -> _Linker:
    """The parts of an object file."""
    if code[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", code, 16)[0] != 1:
        raise LinkError("no ELF object of 64 bits")
    (machine,) = struct.unpack_from("<H", code, 18)
    if machine not in (_EM_X86_64, _EM_AARCH64):
        raise LinkError(f"processor {machine}")
    (table,) = struct.unpack_from("<Q", code, 40)
    size, count, names = struct.unpack_from("<HHH", code, 58)
    heads = [struct.unpack_from("<IIQQQQIIQQ", code, table + size * i) for i in range(count)]
    names_at = heads[names][4]
    sections = [
        _Section(
            name=_text(code, names_at + name),
            kind=kind,
            flags=flags,
            data=b"" if kind == _NOBITS else code[offset : offset + n_bytes],
            link=link,
            info=info,
            align=align,
            size=n_bytes,
        )
        for name, kind, flags, _address, offset, n_bytes, link, info, align, _entry in heads
    ]
    symbols = []
    for section in sections:
        if section.kind == _SYMTAB:
            texts = sections[section.link].data
            for name, info, _other, index, value, n_bytes in struct.iter_unpack(
                "<IBBHQQ", section.data
            ):
                symbols.append(_Symbol(_text(texts, name), index, value, n_bytes, info >> 4 != 0))
    return _Linker(machine, sections, symbols)


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def _strings(names: list[str]) -> tuple[bytes, dict[str, int]]:
    """A table of strings, and where each begins."""
    table, offsets = bytearray(b"\0"), {}
    for name in names:
        offsets[name] = len(table)
        table += name.encode() + b"\0"
    return bytes(table), offsets


def _write_symbols(
    linker: _Linker, at: int, numbers: dict[int, int], offsets: dict[str, int]
) -> None:
    for number, index in numbers.items():
        symbol = linker.symbols[number]
        address = linker.address_of(number)
        # global functions; those in here say so by any section but 0
        entry = (offsets[symbol.name], 0x12, 0, int(address is not None), address or 0, symbol.size)
        struct.pack_into("<IBBHQQ", linker.image, at + 24 * index, *entry)


def _write_headers(
    linker: _Linker, code_end: int, data_at: int, dynamic_at: int, dynamic_bytes: int
) -> None:
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    kind, version, entry_point, segments_at, flags = 3, 1, 0, 64, 0
    head = (ident, kind, linker.machine, version, entry_point, segments_at, 0, flags)
    sizes = (64, 56, 4, 64, 0, 0)  # this header, that of a segment and how many; no sections
    struct.pack_into("<16sHHIQQQIHHHHHH", linker.image, 0, *head, *sizes)
    n_data = len(linker.image) - data_at
    segments = [  # type, rights (X 1, W 2, R 4), where, bytes, alignment
        (1, 5, 0, code_end, _SEGMENT),
        (1, 6, data_at, n_data, _SEGMENT),
        (2, 6, dynamic_at, dynamic_bytes, 8),
        (0x6474E551, 6, 0, 0, 16),  # GNU_STACK: the stack stays without the right to be run
    ]
    for i, (kind, rights, where, n_bytes, align) in enumerate(segments):
        entry = (kind, rights, where, where, where, n_bytes, n_bytes, align)
        struct.pack_into("<IIQQQQQQ", linker.image, 64 + 56 * i, *entry)
