"""DWARF 4 made by hand, and section tables that carry it.

::

    made = Debug()
    made.structure("S", 16, {"a": (0, made.base("int", 4)), "b": (8, made.pointer())})
    data = with_sections(elf, made.sections())
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Number, tag, whether it has children, then pairs of attribute and form.
_ABBREVIATIONS = (
    (1, 0x11, 1, (0x03, 0x08)),  # compile_unit: name
    (2, 0x13, 1, (0x03, 0x0E, 0x0B, 0x05)),  # structure_type: name, byte_size
    (3, 0x0D, 0, (0x03, 0x08, 0x49, 0x13, 0x38, 0x05)),  # member: name, type, location
    (4, 0x24, 0, (0x03, 0x08, 0x0B, 0x0B)),  # base_type: name, byte_size
    (5, 0x0F, 0, (0x49, 0x13)),  # pointer_type: type
    (6, 0x0F, 0, ()),  # pointer_type to void
    (7, 0x15, 0, ()),  # subroutine_type
    (8, 0x04, 1, (0x0B, 0x0B)),  # enumeration_type: byte_size
    (9, 0x28, 0, (0x03, 0x08, 0x1C, 0x06)),  # enumerator: name, const_value
    (10, 0x16, 0, (0x03, 0x08, 0x49, 0x13)),  # typedef: name, type
    (11, 0x13, 1, (0x01, 0x13, 0x03, 0x08)),  # structure_type: sibling, name
)
_HEADER_BYTES = 11


@dataclass
class Debug:
    """One unit of debugging entries; each method gives the offset of its entry."""

    strings: bytearray = field(default_factory=lambda: bytearray(b"\0"))
    body: bytearray = field(default_factory=lambda: bytearray(b"\x01made.c\0"))

    @property
    def here(self) -> int:
        return _HEADER_BYTES + len(self.body)

    def add(self, data: bytes) -> int:
        at = self.here
        self.body += data
        return at

    def base(self, name: str, size: int) -> int:
        return self.add(b"\x04" + name.encode() + b"\0" + bytes([size]))

    def pointer(self, to: int = 0) -> int:
        return self.add(b"\x05" + struct.pack("<I", to) if to else b"\x06")

    def function(self) -> int:
        """A pointer to a function."""
        return self.pointer(self.add(b"\x07"))

    def alias(self, name: str, of: int) -> int:
        return self.add(b"\x0a" + name.encode() + b"\0" + struct.pack("<I", of))

    def enumeration(self, size: int, values: Mapping[str, int]) -> int:
        at = self.add(b"\x08" + bytes([size]))
        for name, value in values.items():
            self.add(b"\x09" + name.encode() + b"\0" + struct.pack("<I", value))
        self.add(b"\0")
        return at

    def structure(self, name: str, size: int, members: Mapping[str, tuple[int, int]]) -> int:
        """A structure with members by name: offset, and entry of the type."""
        at = self.add(b"\x02" + struct.pack("<IH", len(self.strings), size))
        self.strings += name.encode() + b"\0"
        for member, (offset, type_) in members.items():
            self.add(b"\x03" + member.encode() + b"\0" + struct.pack("<IH", type_, offset))
        self.add(b"\0")
        return at

    def sections(self) -> dict[str, bytes]:
        body = bytes(self.body) + b"\0"
        info = struct.pack("<IHIB", len(body) + 7, 4, 0, 8) + body
        return {
            ".debug_info": info,
            ".debug_abbrev": abbreviations(),
            ".debug_str": bytes(self.strings),
        }


def abbreviations() -> bytes:
    made = bytearray()
    for number, tag, children, pairs in _ABBREVIATIONS:
        made += bytes([number, tag, children, *pairs, 0, 0])
    return bytes(made) + b"\0"


def with_sections(
    elf: bytes, sections: Mapping[str, bytes], flags: Mapping[str, int] | None = None
) -> bytes:
    """An ELF file with a section table behind it; flags by name, 0x800 for packed ones."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*sections, ".shstrtab"))
    data = bytearray(elf)
    table = bytearray(64)
    for name, content in {**sections, ".shstrtab": names}.items():
        name_at = names.index(name.encode() + b"\0")
        flag = (flags or {}).get(name, 0)
        place = struct.pack("<QQ", len(data), len(content))
        table += struct.pack("<IIQQ", name_at, 1, flag, 0) + place + bytes(24)
        data += content
    count = len(table) // 64
    head = struct.pack("<Q", len(data))
    data[0x28:0x30] = head
    data[0x3A:0x40] = struct.pack("<HHH", 64, count, count - 1)
    return bytes(data + table)


def zlib_packed(content: bytes, size: int | None = None, way: int = 1) -> bytes:
    """A packed section, whose head may lie about the size."""
    head = struct.pack("<IIQQ", way, 0, len(content) if size is None else size, 1)
    return head + zlib.compress(content)
