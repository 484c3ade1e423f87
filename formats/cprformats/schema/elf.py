"""What an ELF file says of itself: machine, segments, dynamic table, build id.

pyelftools reads the headers. The tables with many entries (relocations,
symbols) are only located here; `cprformats.schema.relocs` reads them in bulk.
Segments decide, not section headers: those may be stripped.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO, Any, Final, cast

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from cprformats.errors import Damaged, FormatError, Truncated, Unsupported, WrongFormat
from cprformats.schema.elfstream import SourceStream, without_sections
from cprformats.schema.identity import gnu_build_id
from cprformats.schema.sections import read_sections
from cprformats.source import Source

__all__ = ["ARCHITECTURES", "Elf", "Segment", "read_elf"]

#: e_machine by the name of the ABI -> the name that we give the architecture.
ARCHITECTURES: Final = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}
_HEADER_BYTES: Final = 64
_SEGMENT_BYTES: Final = 56
_MAX_SEGMENTS: Final = 256
#: No QEMU lies higher, and objects are told apart by the bits above.
_MAX_ADDRESS: Final = 1 << 40
#: The largest QEMU has some 50 MB; all segments are held in memory.
_MAX_LOADED_BYTES: Final = 1 << 28
_MAX_DYNAMIC_BYTES: Final = 1 << 16
_MAX_NOTE_BYTES: Final = 1 << 16
#: What pyelftools lets through on bad headers, seen by fuzzing it.
BAD_ELF: Final = (
    ELFError,
    ConstructError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    OverflowError,
)


@dataclass(frozen=True, slots=True)
class Segment:
    """A loadable segment: addresses and file offsets in bytes."""

    address: int
    offset: int
    file_bytes: int
    memory_bytes: int
    executable: bool
    writable: bool


@dataclass(frozen=True, slots=True)
class Elf:
    """The structure of one ELF file.

    Attributes:
        source: the file.
        arch: "x86_64" or "aarch64".
        kind: "exec" (fixed addresses) or "dyn" (PIE or shared object).
        segments: loadable segments by address.
        dynamic: the first value of each tag of the dynamic table.
        build_id: in hexadecimal, empty where there is none.
        stripped: no symbol table besides the dynamic one.
        debug: DWARF is inside.
    """

    source: Source
    arch: str
    kind: str
    segments: tuple[Segment, ...]
    dynamic: dict[int, int]
    build_id: str
    stripped: bool
    debug: bool

    def segment_at(self, address: int) -> Segment | None:
        """The segment that holds an address."""
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.memory_bytes:
                return segment
        return None

    def file_range(self, address: int, count: int, what: str) -> bytes:
        """Bytes of the file by address.

        Raises:
            Damaged: no segment's file part holds the range.
            Truncated: the file ends before it.
        """
        segment = self.segment_at(address)
        start = address - segment.address if segment else 0
        if segment is None or start + count > segment.file_bytes:
            raise Damaged(
                f"{what}: expected {count} bytes inside a loadable segment, "
                f"found address {address:#x} outside",
                path=("ELF",),
            )
        return _exactly(self.source, segment.offset + start, count, what)


def read_elf(source: Source) -> Elf:
    """Read the structure of an ELF file.

    Raises:
        WrongFormat: it is not an ELF file.
        Unsupported: not 64 bits, not little-endian, or for another machine.
        Truncated: it ends before what its headers name.
        Damaged: its headers contradict themselves.
    """
    header = source.read_at(0, _HEADER_BYTES)
    if header[:4] != b"\x7fELF":
        found = header[:4].hex(" ") or "nothing"
        raise WrongFormat(f"not an ELF file: expected 7f 45 4c 46, found {found}", path=("ELF",))
    if len(header) < _HEADER_BYTES:
        raise Truncated("the ELF header", _HEADER_BYTES, len(header), offset=0, path=("ELF",))
    _check_class(header)
    _check_tables(source, header)
    try:
        bare = without_sections(header)
        return _structure(source, header, ELFFile(cast(IO[bytes], SourceStream(source, bare))))
    except FormatError:
        raise
    except BAD_ELF as problem:
        raise Damaged(f"headers that contradict themselves: {problem}", path=("ELF",)) from None


def _check_class(header: bytes) -> None:
    if header[4] != 2 or header[5] != 1:
        raise Unsupported(
            "expected 64-bit little-endian (class 2, data 1), "
            f"found class {header[4]}, data {header[5]}",
            offset=4,
            path=("ELF",),
        )


def _check_tables(source: Source, header: bytes) -> None:
    """Hold the program headers to the file before pyelftools walks them."""
    (table,) = struct.unpack_from("<Q", header, 0x20)
    entry_bytes, count = struct.unpack_from("<HH", header, 0x36)
    if entry_bytes != _SEGMENT_BYTES or not 0 < count <= _MAX_SEGMENTS:
        raise Damaged(
            f"program headers: expected 1 to {_MAX_SEGMENTS} of {_SEGMENT_BYTES} bytes, "
            f"found {count} of {entry_bytes}",
            offset=0x36,
            path=("ELF",),
        )
    _exactly(source, table, count * entry_bytes, "the table of program headers")


def _structure(source: Source, header: bytes, file: ELFFile) -> Elf:
    machine = file.header["e_machine"]
    if machine not in ARCHITECTURES:
        wanted = ", ".join(ARCHITECTURES)
        raise Unsupported(
            f"machine: expected {wanted}, found {machine}", offset=0x12, path=("ELF",)
        )
    kinds = {"ET_EXEC": "exec", "ET_DYN": "dyn"}
    kind = kinds.get(file.header["e_type"])
    if kind is None:
        found = file.header["e_type"]
        raise Unsupported(
            f"type: expected an executable or shared object, found {found}",
            offset=0x10,
            path=("ELF",),
        )
    headers = [segment.header for segment in file.iter_segments()]
    segments = _loadable(source, headers)
    names = read_sections(source, header).keys()
    return Elf(
        source=source,
        arch=ARCHITECTURES[machine],
        kind=kind,
        segments=segments,
        dynamic=_dynamic(source, headers),
        build_id=_build_id(source, headers),
        stripped=".symtab" not in names,
        debug=bool(names & {".debug_info", ".zdebug_info"}),
    )


def _loadable(source: Source, headers: list[Any]) -> tuple[Segment, ...]:
    """The loadable segments, each inside the file, together no larger than it."""
    segments = []
    for header in headers:
        if header["p_type"] != "PT_LOAD":
            continue
        offset, count = header["p_offset"], header["p_filesz"]
        available = max(source.size() - offset, 0)
        if available < count:
            raise Truncated("a segment", count, available, offset=offset, path=("ELF",))
        memory = max(header["p_memsz"], count)
        flags = header["p_flags"]
        address = header["p_vaddr"]
        if address + memory > _MAX_ADDRESS:
            raise Damaged.mismatch(
                "the end of a segment",
                f"at most {_MAX_ADDRESS:#x}",
                f"{address + memory:#x}",
                offset=offset,
                path=("ELF",),
            )
        segments.append(Segment(address, offset, count, memory, bool(flags & 1), bool(flags & 2)))
    segments.sort(key=lambda segment: segment.address)
    total = sum(segment.file_bytes for segment in segments)
    most = min(2 * source.size(), _MAX_LOADED_BYTES)
    if total > most:
        raise Damaged.mismatch(
            "bytes in all segments", f"at most {most}", total, offset=0, path=("ELF",)
        )
    return tuple(segments)


def _dynamic(source: Source, headers: list[Any]) -> dict[int, int]:
    tags: dict[int, int] = {}
    for header in headers:
        if header["p_type"] == "PT_DYNAMIC":
            count = min(header["p_filesz"], _MAX_DYNAMIC_BYTES) & ~15
            table = _exactly(source, header["p_offset"], count, "the dynamic table")
            for tag, value in struct.iter_unpack("<QQ", table):
                if tag == 0:
                    break
                tags.setdefault(tag, value)
    return tags


def _build_id(source: Source, headers: list[Any]) -> str:
    for header in headers:
        if header["p_type"] == "PT_NOTE":
            count = min(header["p_filesz"], _MAX_NOTE_BYTES)
            notes = source.read_at(header["p_offset"], count)
            found = gnu_build_id(notes)
            if found:
                return found
    return ""


def _exactly(source: Source, offset: int, count: int, what: str) -> bytes:
    available = max(source.size() - offset, 0)
    if available < count:
        raise Truncated(what, count, available, offset=offset, path=("ELF",))
    return source.read_at(offset, count)
