"""Handlers for disks: ``block`` (their contents) and ``dirty-bitmap``.

::

    block   = word* EOS          word: sector << 9 | flags, be64
    word    = DEVICE_BLOCK: len:u8 name [data: 1 MiB, unless ZERO_BLOCK]
            | PROGRESS: nothing (the sector is a percentage) | EOS: nothing

    bitmap  = chunk* EOS
    chunk   = flags:u8 [len:u8 node, if DEVICE_NAME] [len:u8 bitmap, if BITMAP_NAME]
              START: granularity:be32 flags:u8
            | BITS: sector:be64 sectors:be32 [size:be64 data, unless ZEROES]
            | COMPLETE, EOS: nothing

Source: QEMU migration/block.c (5.2 to 9.0, removed in 9.1; blk_send,
block_save_iterate); migration/block-dirty-bitmap.c (qemu_get_bitmap_flags,
send_bitmap_header, send_bitmap_start, send_bitmap_bits), 5.2 to 11.1.
"""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING

from cprformats.fields import Kind
from cprformats.reader import Reader

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder

__all__ = ["BitmapFlag", "BlockFlag", "block", "dirty_bitmap"]

_SECTOR = 512
_BLOCK_BYTES = 1 << 20
#: A bitmap's flags have more bytes if their highest bit is set.
_MORE_FLAGS = 0x80


class BlockFlag(IntFlag):
    """Low bits of a word of ``block``."""

    DEVICE_BLOCK = 0x01
    EOS = 0x02
    PROGRESS = 0x04
    ZERO_BLOCK = 0x08


class BitmapFlag(IntFlag):
    """Flags of a chunk of ``dirty-bitmap``."""

    EOS = 0x01
    ZEROES = 0x02
    BITMAP_NAME = 0x04
    DEVICE_NAME = 0x08
    START = 0x10
    COMPLETE = 0x20
    BITS = 0x40


def block(decoder: Decoder, reader: Reader) -> None:
    """Read the contents of disks up to the end mark."""
    flags, index = 0, 0
    while not flags & BlockFlag.EOS:
        decoder.count(reader)
        flags = int.from_bytes(reader.peek(8)) % _SECTOR
        if not flags or flags & ~0x0F:
            raise reader.mismatch("block flags", "some of 0xf", hex(flags))
        with reader.group(f"[{index}]", "block"):
            reader.number("sector_flags", "u64be", meaning="block-flags")
            if flags & BlockFlag.DEVICE_BLOCK:
                reader.counted_text("device")
                if not flags & BlockFlag.ZERO_BLOCK:
                    reader.blob("data", _BLOCK_BYTES, kind=Kind.PAYLOAD)
        index += 1


def dirty_bitmap(decoder: Decoder, reader: Reader) -> None:
    """Read chunks of bitmaps up to the end mark."""
    flags, index = 0, 0
    while not flags & BitmapFlag.EOS:
        decoder.count(reader)
        with reader.group(f"[{index}]", "bitmap chunk"):
            flags = _bitmap_flags(reader)
            if not flags & 0x7F:
                raise reader.mismatch("bitmap flags", "some of 0x7f", hex(flags))
            _bitmap_chunk(reader, flags)
        index += 1


def _bitmap_flags(reader: Reader) -> int:
    """Read one byte of flags, two if bit 7 is set, four if bit 7 of the second is too."""
    first, second = (*reader.peek(2), 0, 0)[:2]
    if not first & _MORE_FLAGS:
        return reader.number("flags", "u8", meaning="bitmap-flags")
    long = second & _MORE_FLAGS
    return reader.number("flags", "u32be" if long else "u16be", meaning="bitmap-flags")


def _bitmap_chunk(reader: Reader, flags: int) -> None:
    if flags & BitmapFlag.DEVICE_NAME:
        reader.counted_text("node")
    if flags & BitmapFlag.BITMAP_NAME:
        reader.counted_text("bitmap")
    if flags & BitmapFlag.START:
        reader.number("granularity", "u32be")
        reader.number("bitmap_flags", "u8", meaning="bitmap-start-flags")
    elif flags & BitmapFlag.BITS:
        reader.number("first_sector", "u64be")
        reader.number("sectors", "u32be")
        if not flags & BitmapFlag.ZEROES:
            size = reader.number("size", "u64be")
            reader.blob("data", size, kind=Kind.BUFFER)
