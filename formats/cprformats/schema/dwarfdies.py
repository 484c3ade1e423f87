"""The entries of DWARF debug information, one at a time and never a whole unit.

A QEMU has a few hundred MB of it, of which two structures are of use. pyelftools
parses entries and their forms; which to parse is decided here, because it would
keep all of a unit, and follow siblings that lead backwards for ever.

Source: DWARF Debugging Information Format, version 5, sections 7.5 and 7.28;
GNU extensions DW_FORM_GNU_ref_alt and DW_FORM_GNU_strp_alt (dwz).
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import IO, Any, Final, cast

from elftools.common.exceptions import DWARFError
from elftools.dwarf.die import DIE
from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo

from cprformats.errors import Damaged
from cprformats.schema.elf import BAD_ELF
from cprformats.schema.elfstream import SourceStream
from cprformats.schema.sections import read_sections, section_source
from cprformats.source import Source

__all__ = ["BAD_DWARF", "Entries"]

_HEADER_BYTES: Final = 64
_CHUNK_BYTES: Final = 1 << 20
_MAX_UNITS: Final = 1 << 17
#: Entries parsed in all: some five seconds.
_MAX_ENTRIES: Final = 200_000
#: Places of a name that are looked at.
_MAX_HITS: Final = 64
_LOCAL: Final = frozenset(f"DW_FORM_ref{end}" for end in ("1", "2", "4", "8", "_udata"))
_OTHER_FILE: Final = frozenset({"DW_FORM_GNU_ref_alt", "DW_FORM_ref_sup4", "DW_FORM_ref_sup8"})
#: Sections that pyelftools is given, by the name of its argument.
_SECTIONS: Final = {
    "debug_info_sec": "info",
    "debug_abbrev_sec": "abbrev",
    "debug_str_sec": "str",
    "debug_line_str_sec": "line_str",
    "debug_str_offsets_sec": "str_offsets",
    "debug_addr_sec": "addr",
}
_NONE: Final = (
    *("debug_aranges_sec", "debug_frame_sec", "eh_frame_sec", "debug_loc_sec"),
    *("debug_ranges_sec", "debug_line_sec", "debug_pubtypes_sec", "debug_pubnames_sec"),
    *("debug_loclists_sec", "debug_rnglists_sec", "debug_sup_sec", "gnu_debugaltlink_sec"),
    "debug_types_sec",
)
#: What pyelftools lets through on bad entries.
BAD_DWARF: Final = (
    *BAD_ELF,
    DWARFError,
    RecursionError,
    NotImplementedError,
    struct.error,
)


class Entries:
    """The debugging entries of one file.

    Args:
        source: an ELF file with .debug_info.
        other: that of dwz, which it refers to.

    Raises:
        FormatError: its sections can't be read, or it has no .debug_info.
    """

    def __init__(self, source: Source, other: Entries | None = None) -> None:
        self.other = other
        self._left = _MAX_ENTRIES
        self.sources = _sources(source)
        if "info" not in self.sources or "abbrev" not in self.sources:
            raise Damaged("expected .debug_info and .debug_abbrev, found none", path=("DWARF",))
        streams = {name: SourceStream(one) for name, one in self.sources.items()}
        given = {argument: _section(streams, name) for argument, name in _SECTIONS.items()}
        config = DwarfConfig(little_endian=True, default_address_size=8, machine_arch="x64")
        self.dwarf = DWARFInfo(config=config, **given, **dict.fromkeys(_NONE))
        self.dwarf.supplementary_dwarfinfo = other.dwarf if other else None
        self._stream = cast(IO[bytes], streams["info"])
        self._units = list(self._unit_offsets())

    def named(self, tag: str, name: str) -> Iterator[DIE]:
        """Complete entries of this tag whose name comes first, as compilers write it."""
        text = name.encode()
        for place in self._places(text + b"\0"):
            found = self._entry_before(place, tag, text)
            if found is not None:
                yield found

    def searched(self, tag: str, name: str) -> Iterator[DIE]:
        """Complete entries of this tag and name, looked for unit by unit.

        Units that mention the name come first.

        Raises:
            Damaged: more entries than are looked at.
        """
        text = name.encode()
        likely = (self._unit_before(place) for place in self._places(text + b"\0"))
        for unit in dict.fromkeys([*likely, *self._units]):
            cu = self.dwarf.get_CU_at(unit)
            yield from (one for one in self.children(cu.get_top_DIE()) if _is(one, tag, text))

    def children(self, parent: DIE) -> Iterator[DIE]:
        """The direct children of an entry, in order.

        Raises:
            Damaged: more entries than are looked at.
        """
        if not parent.has_children:
            return
        cu = parent.cu
        at, end, depth = parent.offset + parent.size, cu.cu_offset + cu.size, 0
        while at < end:
            one = self._entry(cu, at)
            if depth == 0 and not one.is_null():
                yield one
            at += one.size
            if one.is_null():
                depth -= 1
                if depth < 0:
                    return
            elif one.has_children:
                sibling = _sibling(one)
                depth, at = (depth, sibling) if sibling > at else (depth + 1, at)

    def type_of(self, one: DIE) -> tuple[Entries, DIE] | None:
        """The type that an entry has, and the file that it is in; None for void.

        Raises:
            Damaged: it leads nowhere.
        """
        attribute = one.attributes.get("DW_AT_type")
        if attribute is None:
            return None
        if attribute.form in _LOCAL:
            return self, self._entry(one.cu, one.cu.cu_offset + attribute.value)
        if attribute.form in _OTHER_FILE and self.other is not None:
            return self.other, self.other.entry_at(attribute.value)
        if attribute.form == "DW_FORM_ref_addr":
            return self, self.entry_at(attribute.value)
        raise Damaged(f"a type by {attribute.form}, which is not followed", path=("DWARF",))

    def entry_at(self, offset: int) -> DIE:
        """The entry at an offset of .debug_info."""
        return self._entry(self.dwarf.get_CU_at(self._unit_before(offset)), offset)

    def _entry(self, cu: Any, offset: int) -> DIE:
        self._left -= 1
        if self._left < 0:
            raise Damaged(f"expected what is needed among {_MAX_ENTRIES} entries", path=("DWARF",))
        if not cu.cu_die_offset <= offset < cu.cu_offset + cu.size:
            raise Damaged(
                f"expected an entry inside its unit, found one at {offset:#x}", path=("DWARF",)
            )
        cu.get_top_DIE()  # strings by index need its base
        return DIE(cu=cu, stream=self._stream, offset=offset)

    def _entry_before(self, place: int, tag: str, name: bytes) -> DIE | None:
        """The entry whose name lies at a place: one, two or three bytes behind its start."""
        cu = self.dwarf.get_CU_at(self._unit_before(place))
        for code_bytes in (1, 2, 3):
            try:
                one = self._entry(cu, place - code_bytes)
            except (*BAD_DWARF, Damaged):
                continue
            if _is(one, tag, name):
                return one
        return None

    def _places(self, text: bytes) -> Iterator[int]:
        """Where .debug_info names a text: by its offset among the strings, or as it is."""
        wanted = [text]
        for home in (self, self.other):
            strings = home.sources.get("str") if home else None
            if strings is not None:
                wanted += [struct.pack("<I", at) for at in _find(strings, text, 8)]
        for one in wanted:
            yield from _find(self.sources["info"], one, _MAX_HITS)

    def _unit_before(self, offset: int) -> int:
        return self._units[max(bisect_right(self._units, offset) - 1, 0)]

    def _unit_offsets(self) -> Iterator[int]:
        info = self.sources["info"]
        at = 0
        for _ in range(_MAX_UNITS):
            head = info.read_at(at, 12)
            if len(head) < 12:
                return
            yield at
            size, long_size = struct.unpack("<IQ", head)
            at += 12 + long_size if size == 0xFFFFFFFF else 4 + size


def _sources(source: Source) -> dict[str, Source]:
    header = source.read_at(0, _HEADER_BYTES)
    if len(header) < _HEADER_BYTES or header[:6] != b"\x7fELF\x02\x01":
        raise Damaged("expected a 64-bit little-endian ELF file", path=("DWARF",))
    sections = read_sections(source, header)
    found = {}
    for name in _SECTIONS.values():
        section = sections.get(f".debug_{name}") or sections.get(f".zdebug_{name}")
        if section is not None:
            found[name] = section_source(source, section)
    return found


def _section(streams: dict[str, SourceStream], name: str) -> DebugSectionDescriptor | None:
    stream = streams.get(name)
    if stream is None:
        return None
    size = stream.seek(0, 2)
    return DebugSectionDescriptor(
        stream=cast(IO[bytes], stream), name=f".debug_{name}", global_offset=0, size=size, address=0
    )


def _find(source: Source, pattern: bytes, most: int) -> Iterator[int]:
    """The first places of a pattern."""
    at = 0
    while most > 0:
        chunk = source.read_at(at, _CHUNK_BYTES + len(pattern) - 1)
        found = chunk.find(pattern)
        while found >= 0 and most > 0:
            most -= 1
            yield at + found
            found = chunk.find(pattern, found + 1)
        if len(chunk) < _CHUNK_BYTES:
            return
        at += _CHUNK_BYTES


def _is(one: DIE, tag: str, name: bytes) -> bool:
    attributes = one.attributes
    return (
        one.tag == tag
        and "DW_AT_name" in attributes
        and attributes["DW_AT_name"].value == name
        and "DW_AT_declaration" not in attributes
    )


def _sibling(one: DIE) -> int:
    attribute = one.attributes.get("DW_AT_sibling")
    if attribute is None or attribute.form not in _LOCAL:
        return 0
    return int(one.cu.cu_offset + attribute.value)
