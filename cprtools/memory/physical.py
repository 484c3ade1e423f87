"""Guest-physical memory: read it, and write it to a file as it lies or as an ELF core."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from cprformats.guest import (
    CpuState,
    ElfCore,
    PhysicalLayout,
    PhysicalRange,
    elf_core,
    layout_by_hand,
    physical_layout,
    vmcoreinfo_note,
)
from cprformats.memory.block import MemoryBlock
from cprformats.migration import MigrationStream
from cprformats.migration.ramparts import RamBlock
from cprtools.memory.writing import Target

__all__ = ["CoreFile", "PhysicalFile", "PhysicalMemory", "find_layout"]

#: The contents of Linux's note fit one page, so that is what a core file keeps free.
_ROOM_BYTES = 4096
_NOTE = ("VMCOREINFO", 0)
_FILLER = ("CPRTOOLS", 0)
_FILLER_HEAD = 24
_PIECE_BYTES = 1 << 20
_OVERLAP_BYTES = 8192


def find_layout(
    stream: MigrationStream, ram: Sequence[str] = (), by_hand: Sequence[str] = ()
) -> PhysicalLayout:
    """Give the layout by hand if there is one, else by the machine's rule.

    Raises:
        NoLayout: no rule for this machine.
        BadLayout: what was given does not fit the stream.
    """
    return layout_by_hand(by_hand, stream) if by_hand else physical_layout(stream, ram)


class PhysicalMemory:
    """The blocks as the guest's CPUs address them.

    Args:
        layout: where they are.
        blocks: by idstr.
    """

    def __init__(self, layout: PhysicalLayout, blocks: Mapping[str, MemoryBlock]) -> None:
        self.layout = layout
        self._blocks = blocks

    def read(self, address: int, length: int) -> Iterator[tuple[int, int, bytes | None]]:
        """Give the contents in pieces: address, size, bytes; None where no memory is.

        Raises:
            FormatError: a page can't be read.
        """
        end = address + length
        for one in self.layout.ranges:
            start, stop = max(one.start, address), min(one.end, end)
            if start >= stop:
                continue
            if start > address:
                yield address, start - address, None
            block = self._blocks[one.block]
            for at in range(start, stop, _PIECE_BYTES):
                count = min(_PIECE_BYTES, stop - at)
                yield at, count, block.read(one.offset + at - one.start, count)
            address = stop
        if address < end:
            yield address, end - address, None

    def address_of(self, block: str, offset: int) -> int | None:
        """Give the address at which a byte of a block is seen, or None."""
        for one in self.layout.ranges:
            if one.block == block and one.offset <= offset < one.offset + one.size:
                return one.start + offset - one.offset
        return None


class PhysicalFile:
    """A plan that puts guest-physical memory at its own addresses in a file.

    Args:
        layout: where blocks are.
        fd: the file; it becomes as long as the highest address.
    """

    def __init__(self, layout: PhysicalLayout, fd: int) -> None:
        self._layout = layout
        self._fd = fd
        self.size = max((one.end for one in layout.ranges), default=0)
        os.ftruncate(fd, self.size)

    def __call__(self, _blocks: Sequence[RamBlock]) -> Mapping[str, Sequence[Target]]:
        """Give the targets."""
        return _targets(((one.start, one) for one in self._layout.ranges), self._fd)


class CoreFile:
    """A plan that makes an ELF core of guest memory and registers.

    Args:
        layout: where blocks are.
        cpus: registers.
        arch: what the CPUs are, if `cpus` is empty.
        fd: the file.
    """

    def __init__(
        self, layout: PhysicalLayout, cpus: Sequence[CpuState], arch: str, fd: int
    ) -> None:
        self._make: Callable[[bytes], ElfCore] = lambda contents: elf_core(
            layout, cpus, arch=arch, extra_notes=_notes(contents)
        )
        self._core = self._make(b"")
        self._fd = fd
        os.ftruncate(fd, self._core.size)

    def __call__(self, _blocks: Sequence[RamBlock]) -> Mapping[str, Sequence[Target]]:
        """Give the targets."""
        return _targets(((x.file_offset, x.range) for x in self._core.segments), self._fd)

    def finish(self) -> bool:
        """Write the headers, once the memory is there; say whether Linux's own note was found.

        With the note (VMCOREINFO) crash and drgn find the kernel.
        """
        found = self._vmcoreinfo()
        core = self._make(found or b"")
        assert core.segments == self._core.segments
        os.pwrite(self._fd, core.head, 0)
        return found is not None

    def _vmcoreinfo(self) -> bytes | None:
        for segment in self._core.segments:
            if segment.range.kind == "ram":
                start = segment.file_offset
                found = _search(self._fd, start, start + segment.range.size)
                if found is not None:
                    return found
        return None


def _notes(vmcoreinfo: bytes) -> list[tuple[str, int, bytes]]:
    """Give the notes behind those of CPUs, always of the same size."""
    size = -(-len(vmcoreinfo) // 4) * 4
    if not vmcoreinfo:
        return [(*_FILLER, bytes(_ROOM_BYTES))]
    return [(*_NOTE, vmcoreinfo), (*_FILLER, bytes(_ROOM_BYTES - size - _FILLER_HEAD))]


def _search(fd: int, start: int, end: int) -> bytes | None:
    """Look for Linux's note in a range of a sparse file."""
    while start < end:
        try:
            start = os.lseek(fd, start, os.SEEK_DATA)
        except OSError:  # nothing but a hole to the end
            return None
        stop = min(os.lseek(fd, start, os.SEEK_HOLE), end)
        for at in range(start, stop, _PIECE_BYTES):
            data = os.pread(fd, min(_PIECE_BYTES + _OVERLAP_BYTES, stop - at), at)
            found = vmcoreinfo_note(data)
            if found is not None and len(found) <= _ROOM_BYTES - _FILLER_HEAD:
                return found
        start = max(stop, start + 1)
    return None


def _targets(
    places: Iterator[tuple[int, PhysicalRange]], fd: int
) -> Mapping[str, Sequence[Target]]:
    targets: dict[str, list[Target]] = {}
    for offset, one in places:
        targets.setdefault(one.block, []).append(Target(one.offset, one.size, fd, offset))
    return targets
