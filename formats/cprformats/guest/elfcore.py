"""An ELF core file of a guest: registers, and memory by guest-physical address.

::

    file     = header program-header* note* padding (memory padding)*

One PT_NOTE, then one PT_LOAD for each range of addresses. Its virtual address
is the physical one, so that a debugger without page tables reads physical
memory. Only the head is made here, and where memory goes in the file; whoever
writes it copies the memory.

It is always an ELF64 file: 32-bit x86 CPUs are written as x86-64 ones, whose
upper halves are 0.

Source: System V ABI, "ELF Header" and "Program Header"; QEMU dump/dump.c
(write_elf_header, write_elf_phdr_load, write_elf_phdr_note), 5.2 to 11.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cprformats.errors import Unsupported
from cprformats.guest.cpus import CpuState
from cprformats.guest.notes import cpu_notes, note
from cprformats.guest.ranges import PhysicalLayout, PhysicalRange, joined

__all__ = ["MACHINES", "ElfCore", "ElfSegment", "elf_core"]

#: ELF's number of each CPU architecture that is written.
MACHINES = {"x86_64": 62, "i386": 62, "aarch64": 183}
_PAGE = 4096
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_IDENT = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # ELF64, little-endian, version 1
_ET_CORE = 4
_PT_LOAD, _PT_NOTE = 1, 4
_FLAGS = {"rom": 5}  # readable and executable; all else is writable too
_ALL_FLAGS = 7
#: 0xffff says that the count is elsewhere, which few programs know.
_MOST_HEADERS = 0xFFFE


@dataclass(frozen=True, slots=True)
class ElfSegment:
    """A range of memory and its place in the file.

    Attributes:
        file_offset: of the first byte, a multiple of 4096.
        range: which addresses, of which block.
    """

    file_offset: int
    range: PhysicalRange


@dataclass(frozen=True, slots=True)
class ElfCore:
    """A core file, but for the memory itself.

    Attributes:
        head: what comes before the first segment: headers and notes, padded.
        segments: by file offset, which is by address.
        size: of the file in bytes.
    """

    head: bytes
    segments: tuple[ElfSegment, ...]
    size: int


def elf_core(
    layout: PhysicalLayout,
    cpus: Sequence[CpuState],
    *,
    arch: str = "",
    extra_notes: Sequence[tuple[str, int, bytes]] = (),
) -> ElfCore:
    """Lay out a core file.

    Args:
        layout: the guest's memory.
        cpus: its CPUs.
        arch: what they are if `cpus` is empty: one of `MACHINES`.
        extra_notes: more notes: name, type, contents.

    Raises:
        Unsupported: no such architecture, or too many ranges.
    """
    machine = _machine([cpu.arch for cpu in cpus] or [arch])
    ranges = joined(layout.ranges)
    notes = cpu_notes(cpus)
    notes += b"".join(note(*extra) for extra in extra_notes)
    headers = len(ranges) + 1
    if headers > _MOST_HEADERS:
        raise Unsupported(f"{len(ranges)} ranges of memory: ELF has {_MOST_HEADERS - 1} at most")
    notes_at = _EHDR.size + headers * _PHDR.size
    segments = tuple(_segments(ranges, _up(notes_at + len(notes))))
    head = b"".join(
        (
            _header(machine, headers),
            _note_header(notes_at, len(notes)),
            *map(_load_header, segments),
            notes,
        )
    )
    head += bytes(-len(head) % _PAGE)
    end = segments[-1].file_offset + segments[-1].range.size if segments else len(head)
    return ElfCore(head, segments, end)


def _machine(archs: Sequence[str]) -> int:
    for arch in archs:
        if arch not in MACHINES:
            what = f"CPUs of {arch}" if arch else "a guest whose CPUs are unknown"
            known = ", ".join(MACHINES)
            raise Unsupported(f"no core file of {what}: it is made for {known}")
    return MACHINES[archs[0]]


def _up(offset: int) -> int:
    return offset + -offset % _PAGE


def _segments(ranges: Sequence[PhysicalRange], at: int) -> Iterator[ElfSegment]:
    for one in ranges:
        yield ElfSegment(at, one)
        at = _up(at + one.size)


def _header(machine: int, headers: int) -> bytes:
    sizes = (_EHDR.size, _PHDR.size, headers, 0, 0, 0)
    return _EHDR.pack(_IDENT, _ET_CORE, machine, 1, 0, _EHDR.size, 0, 0, *sizes)


def _note_header(offset: int, size: int) -> bytes:
    return _PHDR.pack(_PT_NOTE, 0, offset, 0, 0, size, 0, 0)


def _load_header(segment: ElfSegment) -> bytes:
    start, size = segment.range.start, segment.range.size
    flags = _FLAGS.get(segment.range.kind, _ALL_FLAGS)
    return _PHDR.pack(_PT_LOAD, flags, segment.file_offset, start, start, size, size, 0)
