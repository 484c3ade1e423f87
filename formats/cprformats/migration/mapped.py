"""mapped-ram: each block's bitmap and pages at fixed places of the file.

::

    header  = version:be32 page_size:be64 bitmap_offset:be64 pages_offset:be64
    block   = header ... bitmap ... pages       next block at pages_offset + used_length

Both offsets are absolute in the file that QEMU wrote, a libvirt header before
the stream included. The bitmap is an array of the *host's* unsigned long in
host byte order; a set bit means that the page's bytes count. Shared blocks
under x-ignore-shared have both offsets 0 and no pages.

Source: QEMU migration/ram.c (mapped_ram_setup_ramblock, parse_ramblock_mapped_ram), since 9.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cprformats.errors import Damaged, Unsupported
from cprformats.fields import Kind
from cprformats.layout import read_record
from cprformats.memory.batch import PageCode
from cprformats.migration.wire import MAPPED_RAM_HEADER
from cprformats.reader import Reader
from cprformats.source import Source

__all__ = ["MappedRam", "read_mapped"]

_LONG_BITS = 64
_PIECE_BYTES = 1 << 16
#: Runs are looked for in pieces of so many bytes of bitmap.
_STEP_BYTES = 4096
_UNIFORM = re.compile(rb"(?s)(.)\1*")
#: Eight pages for each byte of a bitmap: bit 0 is the first.
_KINDS = tuple(
    bytes(PageCode.DATA if byte >> bit & 1 else PageCode.ZERO for bit in range(8))
    for byte in range(256)
)


@dataclass(frozen=True, slots=True)
class MappedRam:
    """Where a block's pages lie.

    Attributes:
        page_size: bytes a bit of the bitmap stands for.
        bitmap_offset: absolute, in bytes.
        bitmap_size: in bytes.
        pages_offset: absolute, in bytes; page n lies n page sizes behind it.
    """

    page_size: int
    bitmap_offset: int
    bitmap_size: int
    pages_offset: int

    def present(self, source: Source, first: int = 0, end: int | None = None) -> int:
        """Count the pages that the bitmap marks, of pages `first` to `end` - 1."""
        end = 8 * self.bitmap_size if end is None else end
        found = 0
        while first < end:
            stop = min((first // (8 * _PIECE_BYTES) + 1) * 8 * _PIECE_BYTES, end)
            bits = int.from_bytes(self._bitmap(source, first // 8, -(-stop // 8)), "little")
            bits = bits >> first % 8 & (1 << stop - first) - 1
            found += bits.bit_count()
            first = stop
        return found

    def check(self, source: Source, pages: int, block: str) -> None:
        """Check that no bit is set behind the last page.

        Raises:
            Damaged: one is.
        """
        tail = int.from_bytes(self._bitmap(source, pages // 8, self.bitmap_size), "little")
        extra = tail >> pages % 8
        if extra:
            page = pages + (extra & -extra).bit_length() - 1
            raise Damaged.mismatch(
                "page that the bitmap marks",
                f"below {pages:#x}",
                f"{page:#x}",
                offset=self.bitmap_offset + page // 8,
                path=("ram", block),
            )

    def kinds(self, source: Source, first: int, count: int) -> bytes:
        """Give `PageCode.DATA` for each page that the bitmap marks, else `PageCode.ZERO`."""
        low = first // 8
        bitmap = self._bitmap(source, low, -(-(first + count) // 8))
        return b"".join(map(_KINDS.__getitem__, bitmap))[first - 8 * low :][:count]

    def runs(self, source: Source, first: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Give runs of pages that are marked or not: first page, number, marked."""
        start, count, there = first, 0, False
        for begin, size, marked in self._pieces(source, first, end):
            if marked == there:
                count += size
                continue
            if count:
                yield start, count, there
            start, count, there = begin, size, marked
        if count:
            yield start, count, there

    def _pieces(self, source: Source, first: int, end: int) -> Iterator[tuple[int, int, bool]]:
        while first < end:
            stop = min((first // (8 * _STEP_BYTES) + 1) * 8 * _STEP_BYTES, end)
            bitmap = self._bitmap(source, first // 8, -(-stop // 8))
            if bitmap.count(bitmap[0]) == len(bitmap) and bitmap[0] in (0, 255):
                yield first, stop - first, bitmap[0] == 255
            else:
                kinds = b"".join(map(_KINDS.__getitem__, bitmap))[first % 8 :][: stop - first]
                for match in _UNIFORM.finditer(kinds):
                    marked = match[0][0] == PageCode.DATA
                    yield first + match.start(), match.end() - match.start(), marked
            first = stop

    def _bitmap(self, source: Source, low: int, high: int) -> bytes:
        data = source.read_at(self.bitmap_offset + low, high - low)
        if len(data) < high - low:
            raise Damaged.mismatch(
                "bytes of bitmap", high - low, len(data), offset=self.bitmap_offset + low
            )
        return data


def read_mapped(reader: Reader, used_length: int) -> MappedRam:
    """Read a block's header and go behind its pages.

    Raises:
        Unsupported: a version other than 1.
        Damaged: offsets that lie before the header or don't hold the bitmap.
        Truncated: the file ends before the last page.
    """
    head = read_record(reader, "mapped_ram", MAPPED_RAM_HEADER)
    version, page_size = _number(head["version"]), _number(head["page_size"])
    bitmap_offset, pages_offset = _number(head["bitmap_offset"]), _number(head["pages_offset"])
    if version != 1:
        raise reader.error(Unsupported, f"mapped-ram version: expected 1, found {version}")
    if page_size < 512 or page_size & (page_size - 1):
        raise reader.mismatch("mapped-ram page size", "a power of two", page_size)
    pages = -(-used_length // page_size)
    bitmap_size = -(-pages // _LONG_BITS) * 8
    mapped = MappedRam(page_size, bitmap_offset, bitmap_size, pages_offset)
    if pages_offset:
        _skip_to(reader, "bitmap_offset", bitmap_offset)
        reader.blob("bitmap", bitmap_size)
        _skip_to(reader, "pages_offset", pages_offset)
        reader.blob("pages", used_length, kind=Kind.PAGE)
    return mapped


def _skip_to(reader: Reader, what: str, offset: int) -> None:
    if offset < reader.offset:
        raise reader.mismatch(what, f"at least {reader.offset:#x}", hex(offset))
    if offset > reader.offset:
        reader.blob("padding", offset - reader.offset, kind=Kind.PADDING)


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value
