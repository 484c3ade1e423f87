"""Names of the migration stream's own numbers.

Source: QEMU migration/savevm.h and savevm.c, migration/ram.c, migration/vmstate-types.c.
"""

from __future__ import annotations

from cprformats.migration.wire import COMMANDS, MultifdFlag, RamFlag, SectionType
from cprformats.names import Bits, Enum, Table

__all__ = ["TABLES"]

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

SECTION_TYPES = Enum("section-type", {int(member): member.name for member in SectionType})

COMMAND_NAMES = Enum("command", dict(COMMANDS))

RAM_FLAGS = Bits("ram-flags", {int(flag).bit_length() - 1: flag.name or "" for flag in RamFlag})

MULTIFD_FLAGS = Bits(
    "multifd-flags", {int(flag).bit_length() - 1: flag.name or "" for flag in MultifdFlag}
)

#: The byte is an ASCII digit (VMS_NULLPTR_MARKER '0', VMS_MARKER_PTR_VALID '1').
POINTER_MARKERS = Enum("pointer-marker", {0x30: "NULL", 0x31: "present"})

#: POSTCOPY_ADVISE: the sizes of all RAM's pages, or-ed together (ram_pagesize_summary).
PAGE_SIZES = Bits("page-sizes", {bit: f"{1 << bit % 10} {_UNITS[bit // 10]}" for bit in range(64)})

TABLES: tuple[Table, ...] = (
    SECTION_TYPES,
    COMMAND_NAMES,
    RAM_FLAGS,
    MULTIFD_FLAGS,
    POINTER_MARKERS,
    PAGE_SIZES,
)
