"""Relocation tables, read in bulk.

A QEMU has some 140,000 relocations: each table is one read and one
`struct.iter_unpack`, never an object for each entry.

Source: the System V ABI, its supplements for x86-64 and AArch64, and the
generic ABI's text on SHT_RELR.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cprformats.errors import Damaged, Unsupported
from cprformats.schema.elf import Elf

__all__ = ["Relocations", "read_relocations"]

_DT_RELA, _DT_RELASZ = 7, 8
_DT_REL, _DT_RELSZ = 17, 18
_DT_RELRSZ, _DT_RELR = 35, 36
#: Bytes of one table; the largest QEMU has some 4 MB.
_MAX_TABLE_BYTES: Final = 32 << 20
_MAX_SYMBOLIC: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class _Types:
    relative: int
    symbolic: frozenset[int]


#: Relocations of a whole pointer: R_*_RELATIVE; R_X86_64_64 and GLOB_DAT, ABS64 and GLOB_DAT.
_TYPES: Final = {
    "x86_64": _Types(8, frozenset((1, 6))),
    "aarch64": _Types(1027, frozenset((257, 1025))),
}


@dataclass(slots=True)
class Relocations:
    """Where pointers lie, and what they are.

    Attributes:
        slots: addresses of relative relocations, in the tables' order.
        values: what each of them points to.
        in_place: addresses of relative relocations whose value is in the file (REL, RELR).
        symbolic: (address, symbol index, addend); addend None: it is in the file.
        strange: how many entries were of other types.
    """

    slots: array[int] = field(default_factory=lambda: array("Q"))
    values: array[int] = field(default_factory=lambda: array("Q"))
    in_place: array[int] = field(default_factory=lambda: array("Q"))
    symbolic: list[tuple[int, int, int | None]] = field(default_factory=list)
    strange: int = 0


def read_relocations(elf: Elf) -> Relocations:
    """Read all relocations of pointers but those of the PLT.

    Raises:
        Damaged: a table lies outside the segments.
        Truncated: a table is cut.
        Unsupported: a table is larger than any QEMU's.
    """
    result = Relocations()
    types = _TYPES[elf.arch]
    readers: tuple[tuple[int, int, Callable[[bytes, _Types, Relocations], None]], ...] = (
        (_DT_RELA, _DT_RELASZ, _read_rela),
        (_DT_REL, _DT_RELSZ, _read_rel),
    )
    for where, how_much, read in readers:
        table = _table(elf, where, how_much)
        if table:
            read(table, types, result)
    table = _table(elf, _DT_RELR, _DT_RELRSZ)
    if table:
        _read_relr(table, elf, result)
    return result


def _table(elf: Elf, where: int, how_much: int) -> bytes:
    address, count = elf.dynamic.get(where), elf.dynamic.get(how_much, 0)
    if address is None or not count:
        return b""
    if count > _MAX_TABLE_BYTES:
        raise Unsupported(
            f"a relocation table: expected at most {_MAX_TABLE_BYTES} bytes, found {count}",
            path=("ELF",),
        )
    return elf.file_range(address, count, "a relocation table")


def _read_rela(table: bytes, types: _Types, result: Relocations) -> None:
    """24 bytes each: address, type and symbol, addend."""
    relative, symbolic = types.relative, types.symbolic
    add_slot, add_value = result.slots.append, result.values.append
    whole = memoryview(table)[: len(table) // 24 * 24]
    for address, info, addend in struct.iter_unpack("<QQQ", whole):
        if info == relative:
            add_slot(address)
            add_value(addend)
        elif info & 0xFFFFFFFF in symbolic:
            _add_symbolic(result, address, info >> 32, addend)
        else:
            result.strange += 1


def _add_symbolic(result: Relocations, address: int, index: int, addend: int | None) -> None:
    if len(result.symbolic) >= _MAX_SYMBOLIC:
        raise Unsupported(
            f"relocations by symbol: expected at most {_MAX_SYMBOLIC}, found more", path=("ELF",)
        )
    result.symbolic.append((address, index, addend))


def _read_rel(table: bytes, types: _Types, result: Relocations) -> None:
    """16 bytes each: address, type and symbol; the addend is in the file."""
    whole = memoryview(table)[: len(table) // 16 * 16]
    for address, info in struct.iter_unpack("<QQ", whole):
        if info == types.relative:
            result.in_place.append(address)
        elif info & 0xFFFFFFFF in types.symbolic:
            _add_symbolic(result, address, info >> 32, None)
        else:
            result.strange += 1


def _read_relr(table: bytes, elf: Elf, result: Relocations) -> None:
    """8 bytes each: an address (even), or a bitmap of the 63 words behind the last."""
    room = sum(segment.file_bytes for segment in elf.segments) // 8
    slots = result.in_place
    base = 0
    for (entry,) in struct.iter_unpack("<Q", memoryview(table)[: len(table) // 8 * 8]):
        if not entry & 1:
            slots.append(entry)
            base = entry + 8
            continue
        bits, address = entry >> 1, base
        while bits:
            if bits & 1:
                slots.append(address & 0xFFFFFFFFFFFFFFFF)
            bits >>= 1
            address += 8
        base += 63 * 8
        if len(slots) > room:
            raise Damaged.mismatch(
                "RELR relocations",
                f"at most {room}",
                f"{len(slots)} and more",
                offset=0,
                path=("ELF",),
            )
