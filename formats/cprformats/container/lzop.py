"""Decompress lzop files, which libvirt can write; the block decoder is our own.

::

    file  = magic head checksum:be32 [extra] block* 00000000, and again
    head  = version:be16 library:be16 [needed:be16] method:u8 [level:u8] flags:be32
            [filter:be32] mode:be32 mtime:be32 [mtime_high:be32] len:u8 name
    extra = len:be32 data checksum:be32
    block = size:be32 packed_size:be32 [adler:be32] [crc:be32] [adler, crc of the packed] data

What stands in brackets depends on the version (0x0940 on) or on the flags. A
block as long packed as unpacked is not compressed.

Source: the lzop package's file(1) magic and manual (1.04), and its output.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from cprformats.container.inflate import Input
from cprformats.container.lzo1x import LzoError, lzo1x_decompress
from cprformats.errors import Damaged, Unsupported

__all__ = ["inflate_lzop"]

_MAGIC = b"\x89LZO\x00\r\n\x1a\n"
_WITH_NEEDED = 0x0940
_METHODS = (1, 2, 3)  # all three are LZO1X, packed with more or less effort
_ADLER, _PACKED_ADLER = 0x01, 0x02
_EXTRA = 0x40
_CRC, _PACKED_CRC = 0x100, 0x200
_FILTER = 0x800
_HEAD_CRC = 0x1000
#: lzop's own limit is 64 MiB, its blocks are 256 KiB.
_MAX_BLOCK_BYTES = 16 << 20


def inflate_lzop(data: Input) -> Iterator[bytes]:
    """Give the decompressed data block by block (256 KiB as lzop writes them).

    Raises:
        Truncated: the data ends inside a structure.
        Damaged: a block contradicts itself or a checksum.
        Unsupported: a method other than LZO1X, a filter, huge blocks.
    """
    while data.peek(len(_MAGIC)) == _MAGIC:
        flags = _Head(data).read()
        while block := _block(data, flags):
            yield block
    start = data.offset
    data.skip_zeros()
    if data.peek(1):
        data.rest = start


class _Head:
    """Reads one file's head, and gathers its bytes for the checksum."""

    def __init__(self, data: Input) -> None:
        self.data = data
        self.seen = b""

    def read(self) -> int:
        self.data.exactly("lzop magic", len(_MAGIC))
        start = self.data.offset
        version = self._number(2)
        self._number(2)
        is_new = version >= _WITH_NEEDED
        if is_new:
            self._number(2)
        method = self._number(1)
        if is_new:
            self._number(1)
        flags = self._number(4)
        if method not in _METHODS or flags & _FILTER:
            what = "filter" if method in _METHODS else f"method {method}"
            raise Unsupported(f"lzop {what}: expected plain LZO1X", offset=start)
        self._bytes(12 if is_new else 8)
        self._bytes(self._number(1))
        self._check(flags)
        if flags & _EXTRA:
            self.seen = b""
            self._bytes(min(self._number(4), 1 << 20))
            self._check(flags)
        return flags

    def _check(self, flags: int) -> None:
        place = self.data.offset
        found = int.from_bytes(self.data.exactly("lzop head", 4))
        wanted = zlib.crc32(self.seen) if flags & _HEAD_CRC else zlib.adler32(self.seen)
        if found != wanted:
            raise Damaged.mismatch(
                "checksum of the lzop head", hex(wanted), hex(found), offset=place
            )

    def _bytes(self, count: int) -> bytes:
        piece = self.data.exactly("lzop head", count)
        self.seen += piece
        return piece

    def _number(self, count: int) -> int:
        return int.from_bytes(self._bytes(count))


def _block(data: Input, flags: int) -> bytes:
    place = data.offset
    size = _number(data)
    if not size:
        return b""
    packed_size = _number(data)
    if not 0 < packed_size <= size <= _MAX_BLOCK_BYTES:
        raise Damaged(
            f"lzop block: expected sizes up to {_MAX_BLOCK_BYTES}, found {packed_size} bytes "
            f"that give {size}",
            offset=place,
        )
    sums = [_number(data) for flag in (_ADLER, _CRC) if flags & flag]
    if packed_size < size:
        packed_flags = [flag for flag in (_PACKED_ADLER, _PACKED_CRC) if flags & flag]
        packed_sums = [_number(data) for _ in packed_flags]
    packed = data.exactly("lzop block", packed_size)
    if packed_size == size:
        _verify(packed, sums, flags, _ADLER, place)
        return packed
    _verify(packed, packed_sums, flags, _PACKED_ADLER, place)
    try:
        block = lzo1x_decompress(packed, size)
    except LzoError as error:
        raise Damaged(f"lzop block: {error}", offset=place) from error
    _verify(block, sums, flags, _ADLER, place)
    return block


def _verify(block: bytes, sums: list[int], flags: int, adler: int, place: int) -> None:
    """Check what sums there are; the flag of an Adler sum tells which comes first."""
    ways: list[Callable[[bytes], int]] = [zlib.adler32, zlib.crc32]
    for found, way in zip(sums, ways if flags & adler else ways[1:], strict=False):
        wanted = way(block)
        if found != wanted:
            raise Damaged.mismatch(
                "checksum of an lzop block", hex(wanted), hex(found), offset=place
            )


def _number(data: Input) -> int:
    return int.from_bytes(data.exactly("lzop block head", 4))
