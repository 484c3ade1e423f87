"""Dynamic symbols: those that relocations name, and those that an object brings.

Source: the System V ABI; for DT_GNU_HASH the layout that glibc reads (elf/dl-lookup.c).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cprformats.errors import Damaged
from cprformats.schema.elf import Elf

__all__ = ["Symbol", "exported", "read_symbols"]

_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ = 4, 5, 6, 10
_DT_GNU_HASH: Final = 0x6FFFFEF5
_ENTRY: Final = struct.Struct("<IBBHQQ")
_MAX_NAME_BYTES: Final = 512
_MAX_CHAIN: Final = 1 << 12
_MAX_SYMBOLS: Final = 1 << 18
#: Of a hash table: some four for each symbol.
_MAX_BUCKETS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Symbol:
    """A dynamic symbol; `address` is None where another object must bring it."""

    name: str
    address: int | None


def read_symbols(elf: Elf, indexes: Iterable[int]) -> dict[int, Symbol]:
    """The dynamic symbols of these indexes; one outside the table is left out.

    Raises:
        Damaged: the strings lie outside the segments.
        Truncated: the file ends before a symbol.
    """
    wanted = sorted(indexes)
    tables = _tables(elf) if wanted else None
    if tables is None:
        return {}
    at, names = tables
    result = {}
    for index in wanted:
        try:
            entry = elf.file_range(at + index * _ENTRY.size, _ENTRY.size, "a symbol")
        except Damaged:
            continue
        result[index] = _symbol(entry, names)
    return result


def exported(elf: Elf) -> dict[str, int]:
    """Address of each symbol that the object itself brings, by name.

    Raises:
        Damaged: a table lies outside the segments.
        Truncated: the file ends before its tables do.
    """
    tables = _tables(elf)
    if tables is None:
        return {}
    at, names = tables
    count = _symbol_count(elf)
    if count > _MAX_SYMBOLS:
        raise Damaged.mismatch(
            "dynamic symbols", f"at most {_MAX_SYMBOLS}", count, offset=0, path=("ELF",)
        )
    table = elf.file_range(at, count * _ENTRY.size, "the dynamic symbols")
    size = _ENTRY.size
    found = (_symbol(table[start : start + size], names) for start in range(0, len(table), size))
    return {symbol.name: symbol.address for symbol in found if symbol.address is not None}


def _tables(elf: Elf) -> tuple[int, bytes] | None:
    """Address of the symbols, and the strings."""
    symbols, strings = elf.dynamic.get(_DT_SYMTAB), elf.dynamic.get(_DT_STRTAB)
    if symbols is None or strings is None:
        return None
    names = elf.file_range(strings, elf.dynamic.get(_DT_STRSZ, 0), "the dynamic strings")
    return symbols, names


def _symbol_count(elf: Elf) -> int:
    """The table has no length of its own: its hash table knows."""
    plain = elf.dynamic.get(_DT_HASH)
    if plain is not None:
        return int(struct.unpack("<II", elf.file_range(plain, 8, "the hash table"))[1])
    gnu = elf.dynamic.get(_DT_GNU_HASH)
    return 0 if gnu is None else _gnu_count(elf, gnu)


def _gnu_count(elf: Elf, table: int) -> int:
    """The last chain of the GNU hash table ends with the last symbol."""
    buckets, first, bloom, _ = struct.unpack("<IIII", elf.file_range(table, 16, "the hash table"))
    if buckets > _MAX_BUCKETS:
        raise Damaged.mismatch(
            "hash buckets", f"at most {_MAX_BUCKETS}", buckets, offset=0, path=("ELF",)
        )
    buckets_at = table + 16 + 8 * bloom
    starts = elf.file_range(buckets_at, 4 * buckets, "the hash buckets")
    last = max(array("I", starts), default=0)
    if last < first:
        return int(first)
    return _chain_end(elf, buckets_at + 4 * buckets, int(last), int(first)) + 1


def _chain_end(elf: Elf, chains: int, last: int, first: int) -> int:
    """The chain entry with bit 0 set ends a chain."""
    for _ in range(_MAX_CHAIN):
        if elf.file_range(chains + 4 * (last - first), 4, "a hash chain")[0] & 1:
            return last
        last += 1
    raise Damaged(f"a hash chain: expected at most {_MAX_CHAIN} entries", path=("ELF",))


def _symbol(entry: bytes, names: bytes) -> Symbol:
    name_at, _, _, section, value, _ = _ENTRY.unpack(entry)
    end = names.find(b"\0", name_at, name_at + _MAX_NAME_BYTES)
    name = names[name_at : max(end, name_at)].decode("ascii", "replace")
    return Symbol(name, value if section else None)
