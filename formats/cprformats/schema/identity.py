"""Which build a file is of, found in its first pages: the build id of an ELF file.

No table is checked here and nothing is raised: this only finds the name under
which a schema was kept. `cprformats.schema.elf` reads the file in earnest.

Source: the System V ABI (program headers, notes); ld's --build-id.
"""

from __future__ import annotations

import struct
from typing import Final

from cprformats.source import Source

__all__ = ["build_id", "gnu_build_id"]

_PT_NOTE: Final = 4
_NT_GNU_BUILD_ID: Final = 3
_MAX_SEGMENTS: Final = 256
_MAX_NOTE_BYTES: Final = 1 << 16
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")


def build_id(source: Source) -> str:
    """The build id of a 64-bit little-endian ELF file, in hexadecimal; "" without one."""
    header = source.read_at(0, 64)
    if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
        return ""
    (table,) = struct.unpack_from("<Q", header, 0x20)
    entry_bytes, count = struct.unpack_from("<HH", header, 0x36)
    if entry_bytes != _SEGMENT.size or count > _MAX_SEGMENTS or table >= 1 << 62:
        return ""
    entries = source.read_at(table, count * entry_bytes)
    for kind, _, offset, _, _, size, _, _ in _SEGMENT.iter_unpack(
        entries[: len(entries) // entry_bytes * entry_bytes]
    ):
        if kind == _PT_NOTE and offset < 1 << 62:
            found = gnu_build_id(source.read_at(offset, min(size, _MAX_NOTE_BYTES)))
            if found:
                return found
    return ""


def gnu_build_id(notes: bytes) -> str:
    """The build id in the bytes of a note segment, in hexadecimal; "" without one."""
    at = 0
    while at + 12 <= len(notes):
        name_bytes, size, kind = struct.unpack_from("<III", notes, at)
        name_at = at + 12
        data_at = name_at + ((name_bytes + 3) & ~3)
        if kind == _NT_GNU_BUILD_ID and notes[name_at : name_at + 4] == b"GNU\0":
            return notes[data_at : data_at + size].hex()
        at = data_at + ((size + 3) & ~3)
    return ""
