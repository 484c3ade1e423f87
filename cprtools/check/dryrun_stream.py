"""Write a stream again without its RAM, for a target that is only to say whether it loads.

Header, configuration, the block list, all device sections and the vmdesc stay
as they are, byte for byte, so that the target meets what it would meet. Pages
are left out but for those that devices read (`dryrun_pages`), and for one of
each kind that a target may refuse. A stream that is damaged is given whole:
what breaks a load must break it here too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cprformats.errors import FormatError
from cprformats.migration.mapped import MappedRam
from cprformats.migration.model import Command, Item, Section
from cprformats.migration.ramparts import PageKind, RamBlocks, RamRun
from cprformats.migration.wire import RamFlag, SectionType
from cprformats.source import Source
from cprtools.check.dryrun_pages import Pages, wanted_pages
from cprtools.memory.opening import Memory

__all__ = ["Reduced", "reduce_state"]

_PIECE = 1 << 20
_JOINED = 1 << 16
#: Kinds of pages that a target may refuse as such.
_REFUSABLE = (PageKind.FILL, PageKind.COMPRESSED)
_MOST_COPY = 16 << 30
#: migration/ram.c: MAPPED_RAM_LOAD_BUF_SIZE.
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Reduced:
    """How a state is given to the target.

    Attributes:
        memory: the state.
        pages: pages to give, by block; None for the stream as it is.
        why_whole: why all of it is given, "" where it is not.
        left_out: idstrs of sections that are not given.
    """

    memory: Memory
    pages: Pages | None
    why_whole: str = ""
    left_out: re.Pattern[str] | None = field(default=None)

    def pieces(self) -> Iterator[bytes]:
        """Give the stream for a pipe."""
        if self.pages is None:
            stream = self.memory.stream
            end = stream.source.size()
            for at in range(stream.offset, end, _PIECE):
                yield stream.source.read_at(at, min(_PIECE, end - at))
            return
        yield from _joined(_Writer(self, self.pages).stream())

    def write(self, path: Path) -> int:
        """Write the stream to a file for a target that wants one; give where it begins.

        With mapped-ram each byte stays at its place, and pages become holes.

        Raises:
            FormatError: the state is damaged and too large to be copied.
            OSError: there is no room.
        """
        stream = self.memory.stream
        mapped = any(one.mapped is not None for one in stream.ram.blocks.values())
        with path.open("wb") as file:
            if not mapped or self.pages is None:
                start = stream.offset if mapped else 0
                file.seek(start)
                for piece in self.pieces():
                    if piece.strip(b"\0") or not mapped:
                        file.write(piece)
                    else:
                        file.seek(len(piece), 1)
                    if file.tell() > _MOST_COPY:
                        raise FormatError("it is damaged, and too large to be tried whole")
                file.truncate()
                return start
            _write_mapped(self, self.pages, path)
        return stream.offset


def reduce_state(memory: Memory, left_out: re.Pattern[str] | None = None) -> Reduced:
    """Say how a state is given."""
    stream = memory.stream
    error = memory.error or stream.error
    if error is not None:
        return Reduced(memory, None, f"the stream is damaged: {error}")
    if stream.version != 3:
        return Reduced(memory, None, "it is of an old form")
    if any(map(_has_inner, stream.items)):
        return Reduced(memory, None, "a part of it is packed for postcopy")
    try:
        pages, why = wanted_pages(memory)
    except FormatError as error:
        pages, why = None, str(error)
    if pages is None:
        pages = {name: set(range(block.pages)) for name, block in memory.items()}
    return Reduced(memory, pages, why, left_out)


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Put small pieces together."""
    held = bytearray()
    for piece in pieces:
        held += piece
        if len(held) >= _JOINED:
            yield bytes(held)
            held.clear()
    yield bytes(held)


def _has_inner(item: Item) -> bool:
    return isinstance(item, Command) and bool(item.inner)


class _Writer:
    """Writes the parts of a stream; RAM in few records."""

    def __init__(self, reduced: Reduced, pages: Pages) -> None:
        self.memory = reduced.memory
        self.stream_ = reduced.memory.stream
        self.source = self.stream_.source
        self.pages = pages
        self.left_out = reduced.left_out
        self.kept = {
            kind
            for kind in _REFUSABLE
            if any(stats.pages.get(kind) for stats in self.stream_.ram.per_block)
        }

    def stream(self) -> Iterator[bytes]:
        """Give all parts."""
        at = self.stream_.offset
        for item in self.stream_.items:
            start, end = _extent(item)
            if start > at:
                yield from self._raw(at, start)
            at = end
            if not isinstance(item, Section):
                yield from self._raw(start, end)
            elif item.holds_ram:
                yield from self._ram(item)
            elif self.left_out is None or not self.left_out.search(item.idstr):
                yield from self._raw(start, end)
        yield from self._raw(at, self.stream_.end)

    def _raw(self, start: int, end: int) -> Iterator[bytes]:
        for at in range(start, end, _PIECE):
            yield self.source.read_at(at, min(_PIECE, end - at))

    def _ram(self, section: Section) -> Iterator[bytes]:
        """Give the block list and what must stay; a section of pages alone goes."""
        if section.type is SectionType.PART and not self.kept:
            return
        yield from self._raw(section.offset, section.body_offset)
        lists = section.type is not SectionType.END
        if lists or self.kept:
            yield from self._parts(section)
        else:
            yield int(RamFlag.EOS).to_bytes(8)
        yield from self._raw(section.body_end, section.end)

    def _parts(self, section: Section) -> Iterator[bytes]:
        for part in self.stream_.ram_parts(section):
            if isinstance(part, RamBlocks):
                yield from self._raw(part.field.offset, part.field.end)
                yield from self._pages()
            elif isinstance(part, RamRun):
                if part.kind in self.kept:
                    self.kept.discard(part.kind)
                    yield self._refusable(part)
            else:
                yield from self._raw(part.field.offset, part.field.end)

    def _refusable(self, run: RamRun) -> bytes:
        """Give one page as it was sent, with its block's name."""
        record = self.source.read_at(run.offset, run.size)
        if run.named:
            return record
        word = int.from_bytes(record[:8]) & ~int(RamFlag.CONTINUE)
        return word.to_bytes(8) + _counted(run.block) + record[8:]

    def _pages(self) -> Iterator[bytes]:
        """Give the chosen pages that are not zero."""
        for name, numbers in self.pages.items():
            block = self.memory[name]
            for number in sorted(numbers):
                page = block.read(number * block.page_size, block.page_size)
                if page.strip(b"\0"):
                    word = number * block.page_size | int(RamFlag.PAGE)
                    data = page.ljust(block.page_size, b"\0")
                    yield word.to_bytes(8) + _counted(name) + data


def _counted(name: str) -> bytes:
    raw = name.encode("utf-8", "surrogateescape")
    return bytes([len(raw)]) + raw


def _extent(item: Item) -> tuple[int, int]:
    if isinstance(item, Section):
        return item.offset, item.end
    if isinstance(item, Command):
        return item.offset, item.offset + item.size
    return item.field.offset, item.field.end


def _write_mapped(reduced: Reduced, pages: Pages, path: Path) -> None:
    """Copy a mapped-ram file: bitmaps with the chosen pages only, and these pages."""
    stream = reduced.memory.stream
    holes = sorted(
        (start, size)
        for block in stream.ram.blocks.values()
        if block.mapped is not None and block.mapped.pages_offset
        for start, size in (
            (block.mapped.bitmap_offset, block.mapped.bitmap_size),
            (block.mapped.pages_offset, block.used_length),
        )
    )
    with path.open("r+b") as file:
        at = stream.offset
        for start, size in [*holes, (stream.end, 0)]:
            for piece in range(at, start, _PIECE):
                file.seek(piece)
                file.write(stream.source.read_at(piece, min(_PIECE, start - piece)))
            at = max(at, start + size)
        for name, block in stream.ram.blocks.items():
            mapped = block.mapped
            if mapped is None or not mapped.pages_offset:
                continue
            for number in sorted({*pages.get(name, ()), *_last_read(stream.source, mapped)}):
                place = mapped.pages_offset + number * mapped.page_size
                data = reduced.memory[name].read(number * mapped.page_size, mapped.page_size)
                if not data.strip(b"\0"):
                    continue
                file.seek(place)
                file.write(data)
                _set_bit(file.fileno(), mapped.bitmap_offset, number)
                file.flush()
        file.flush()


def _last_read(source: Source, mapped: MappedRam) -> tuple[int, ...]:
    """Give the page where a target's last read of a block begins: none, or one.

    It does not compare sizes of blocks, but refuses to begin a read outside of its own. It reads
    each run of pages in steps (migration/ram.c: read_ramblock_mapped_ram).
    """
    bitmap = source.read_at(mapped.bitmap_offset, mapped.bitmap_size).rstrip(b"\0")
    if not bitmap:
        return ()
    last = 8 * len(bitmap) - 9 + bitmap[-1].bit_length()
    # Where the run begins: behind the last bit that is not set, of the bits below.
    below = int.from_bytes(bitmap, "little") & ((1 << last) - 1)
    first = (~below & ((1 << last) - 1)).bit_length()
    step = _READ_BYTES // mapped.page_size
    return (first + (last - first) // max(step, 1) * max(step, 1),)


def _set_bit(fd: int, offset: int, number: int) -> None:
    """Set one bit of a bitmap; longs of a little-endian host have their bytes in this order."""
    place = offset + number // 8
    before = os.pread(fd, 1, place) or b"\0"
    os.pwrite(fd, bytes([before[0] | 1 << number % 8]), place)
