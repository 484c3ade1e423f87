"""One address space, with a binary and its modules in it as a loader would put them.

Pointers are relocated, so a walk over structures sees what the running QEMU
would see. A symbol that no object here brings becomes an address of its own
far outside, so that it can be named.
"""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from cprformats.errors import Unsupported
from cprformats.schema.elf import Elf, Segment
from cprformats.schema.relocs import Relocations, read_relocations
from cprformats.schema.symbols import read_symbols

__all__ = ["Object", "Space"]

#: Objects lie this far apart; no QEMU is that large.
SPACING: Final = 1 << 40
_IMPORTS: Final = 0xFFFF_8000_0000_0000
_MASK: Final = (1 << 64) - 1
_MAX_TEXT_BYTES: Final = 256
#: Of one object; the largest QEMU has some 170,000.
_MAX_POINTERS: Final = 1 << 21
_MAX_TEXTS: Final = 1 << 17
_TEXT: Final = re.compile(rb"[\x20-\x7e]+")
_WORD: Final = struct.Struct("<Q")


@dataclass(slots=True)
class _Part:
    """A segment at its place; its bytes are read when first asked for."""

    start: int
    end: int
    segment: Segment
    elf: Elf
    data: bytearray | None = None

    def load(self) -> bytearray:
        if self.data is None:
            data = self.elf.source.read_at(self.segment.offset, self.segment.file_bytes)
            self.data = bytearray(data)
        return self.data


@dataclass(frozen=True, slots=True)
class Object:
    """A binary or module that was put into the space; `slots` are its pointers."""

    name: str
    elf: Elf
    base: int
    slots: array[int]


@dataclass(slots=True)
class Space:
    """Relocated memory of several objects; reads outside it give None."""

    objects: list[Object] = field(default_factory=list)
    _parts: list[_Part] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _imports: dict[str, int] = field(default_factory=dict)
    _import_names: dict[int, str] = field(default_factory=dict)
    _texts: dict[int, str | None] = field(default_factory=dict)

    def add(self, name: str, elf: Elf, exports: Mapping[str, int] | None = None) -> Object:
        """Load an object; `exports` are the addresses of symbols that others bring.

        Raises:
            Damaged: its tables contradict its segments.
            Truncated: its tables are cut.
            Unsupported: it has more pointers than any QEMU.
        """
        base = len(self.objects) * SPACING
        for segment in elf.segments:
            start = base + segment.address
            self._parts.append(_Part(start, start + segment.memory_bytes, segment, elf))
        self._parts.sort(key=lambda part: part.start)
        self._starts = [part.start for part in self._parts]
        slots = self._relocate(elf, base, read_relocations(elf), exports or {})
        if elf.kind == "exec":
            slots.extend(islice(self._pointer_like(base, elf), _MAX_POINTERS))
        if len(slots) >= _MAX_POINTERS:
            raise Unsupported(
                f"pointers: expected fewer than {_MAX_POINTERS}, found {len(slots)}", path=("ELF",)
            )
        self.objects.append(Object(name, elf, base, slots))
        return self.objects[-1]

    def object_at(self, address: int) -> Object:
        """The object that an address belongs to."""
        return self.objects[min(address // SPACING, len(self.objects) - 1)]

    def import_name(self, address: int) -> str:
        """The symbol that this address stands for, empty for real memory."""
        return self._import_names.get(address, "")

    def unpack(self, layout: struct.Struct, address: int) -> tuple[int, ...] | None:
        """Read a record; what a segment has beyond its file part is zero."""
        part = self._part(address)
        if part is None or address + layout.size > part.end:
            return None
        data = part.data if part.data is not None else part.load()
        at = address - part.start
        if at + layout.size <= len(data):
            return layout.unpack_from(data, at)
        return layout.unpack(bytes(data[at : at + layout.size]).ljust(layout.size, b"\0"))

    def word(self, address: int) -> int | None:
        """Read one pointer."""
        found = self.unpack(_WORD, address)
        return None if found is None else found[0]

    def text(self, address: int) -> str | None:
        """Read a string of printable ASCII, not empty, of at most 255 characters."""
        if address not in self._texts:
            if len(self._texts) >= _MAX_TEXTS:
                self._texts.clear()
            self._texts[address] = self._read_text(address)
        return self._texts[address]

    def is_code(self, address: int) -> bool:
        """Whether a function can be there: in an executable segment, or imported."""
        part = self._part(address)
        return part.segment.executable if part else address in self._import_names

    def is_data(self, address: int) -> bool:
        """Whether an address is inside a segment."""
        return self._part(address) is not None

    def pointers(self) -> Iterator[int]:
        """All addresses at which a pointer lies."""
        for one in self.objects:
            yield from one.slots

    def words_at(self, distance: int = 0) -> Iterator[tuple[int, int]]:
        """Each address at which a pointer lies, with the word at a distance from it."""
        start, end, data = 1, 0, bytearray()
        read = _WORD.unpack_from
        for slot in self.pointers():
            place = slot + distance
            if not start <= place <= end:
                part = self._part(place)
                if part is None:
                    continue
                data = part.load()
                start, end = part.start, part.start + len(data) - 8
                if place > end:
                    yield slot, self.word(place) or 0
                    continue
            yield slot, read(data, place - start)[0]

    def code(self, one: Object) -> Iterator[tuple[int, bytearray]]:
        """Address and bytes of the executable segments of an object."""
        for part in self._parts:
            if part.elf is one.elf and part.segment.executable:
                yield part.start, part.load()

    def _part(self, address: int) -> _Part | None:
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        part = self._parts[index]
        return part if address < part.end else None

    def _read_text(self, address: int) -> str | None:
        part = self._part(address)
        if part is None:
            return None
        data = part.load()
        at = address - part.start
        end = data.find(b"\0", at, at + _MAX_TEXT_BYTES)
        if end <= at or not _TEXT.fullmatch(data, at, end):
            return None
        return data[at:end].decode("ascii")

    def _relocate(
        self, elf: Elf, base: int, tables: Relocations, exports: Mapping[str, int]
    ) -> array[int]:
        """Write all pointers where they belong; give the addresses of those written."""
        slots = array("Q")
        self._write(slots, base, zip(tables.slots, tables.values, strict=True))
        if tables.in_place:
            self._write(slots, base, self._in_place(base, tables.in_place))
        symbols = read_symbols(elf, {index for _, index, _ in tables.symbolic})
        for address, index, addend in tables.symbolic:
            symbol = symbols.get(index)
            if symbol is None or not symbol.name:
                continue
            more = (self.word(base + address) or 0) if addend is None else addend
            if symbol.address is not None:
                target = base + symbol.address
            else:
                target = exports.get(symbol.name) or self._import(symbol.name)
            self._write(slots, 0, [(base + address, target + more)])
        return slots

    def _write(self, slots: array[int], base: int, pointers: Iterable[tuple[int, int]]) -> None:
        """Write (address, value) pairs, both to be moved by base, that lie in file parts."""
        start = end = 0
        data = bytearray()
        put = _WORD.pack_into
        for address, value in pointers:
            place = address + base
            if not start <= place <= end:
                part = self._part(place)
                if part is None:
                    continue
                data = part.load()
                start, end = part.start, part.start + len(data) - 8
                if place > end:
                    continue
            put(data, place - start, (value + base) & _MASK)
            slots.append(place)

    def _in_place(self, base: int, addresses: array[int]) -> Iterator[tuple[int, int]]:
        for address in addresses:
            value = self.word(base + address)
            if value is not None:
                yield address, value

    def _import(self, name: str) -> int:
        address = self._imports.get(name)
        if address is None:
            address = self._imports[name] = _IMPORTS + 4096 * len(self._imports)
            self._import_names[address] = name
        return address

    def _pointer_like(self, base: int, elf: Elf) -> Iterator[int]:
        """Words of a program at fixed addresses that could be pointers: all its data's."""
        low = min((segment.address for segment in elf.segments), default=0)
        high = max((s.address + s.memory_bytes for s in elf.segments), default=0)
        for segment in elf.segments:
            part = self._part(base + segment.address)
            if part is None:
                continue
            shift = -part.start % 8
            whole = memoryview(part.load())[shift:]
            words = array("Q")
            words.frombytes(whole[: len(whole) // 8 * 8])
            at = part.start + shift
            yield from (at + 8 * i for i, word in enumerate(words) if low <= word < high)
