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

from dataclasses import dataclass

from cprformats.errors import Unsupported
from cprformats.fields import Kind
from cprformats.layout import read_record
from cprformats.migration.wire import MAPPED_RAM_HEADER
from cprformats.reader import Reader
from cprformats.source import Source

__all__ = ["MappedRam", "read_mapped"]

_LONG_BITS = 64
_PIECE_BYTES = 1 << 16


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

    def present(self, source: Source) -> int:
        """Count the pages that the bitmap marks."""
        end = self.bitmap_offset + self.bitmap_size
        return sum(
            int.from_bytes(source.read_at(at, min(_PIECE_BYTES, end - at))).bit_count()
            for at in range(self.bitmap_offset, end, _PIECE_BYTES)
        )


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
