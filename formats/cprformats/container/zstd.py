"""Decompress zstd, frame by frame and block by block.

::

    file  = frame+
    frame = magic descriptor [window:u8] [dictionary] [size] block* [checksum:le32]
          | 50..5f 2a 4d 18 size:le32 data                        skippable
    block = head:le24 contents        head = last:1 type:2 size:21 bits

The frame's outline is walked here, and the library is fed one block at a time:
so a block's 128 KiB bound what comes out at once, an error has its block's
offset, and a frame cut between blocks is seen.

Source: RFC 8878.
"""

from __future__ import annotations

from collections.abc import Iterator

import zstandard

from cprformats.container.inflate import Input
from cprformats.errors import Damaged, FormatError, Unsupported

__all__ = ["inflate_zstd"]

_MAGIC = b"\x28\xb5\x2f\xfd"
#: The default limit of the zstd tool; a frame made with --long=31 needs 2 GiB.
_WINDOW_BYTES = 1 << 27
_MAX_BLOCK_BYTES = 1 << 17
_RLE = 1
_RESERVED = 3


def inflate_zstd(data: Input) -> Iterator[bytes]:
    """Give the decompressed data in pieces of at most 128 KiB.

    Raises:
        Truncated: the data ends inside a frame.
        Damaged: a frame contradicts itself or its checksum.
        Unsupported: a dictionary or more memory than is sensible is needed.
    """
    data.skip_frames()
    while data.peek(4) == _MAGIC:
        yield from _frame(data)
        data.skip_frames()
    start = data.offset
    data.skip_zeros()
    if data.peek(1):
        data.rest = start


def _frame(data: Input) -> Iterator[bytes]:
    start = data.offset
    head, has_checksum = _frame_head(data)
    decoder = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).decompressobj()
    yield from _feed(decoder, head, start)
    last = False
    while not last:
        place = data.offset
        block, last = _block(data)
        yield from _feed(decoder, block, place)
    if has_checksum:
        place = data.offset
        yield from _feed(decoder, data.exactly("checksum", 4), place)


def _frame_head(data: Input) -> tuple[bytes, bool]:
    descriptor = data.exactly("frame header", 5)
    flags = descriptor[4]
    single_segment = bool(flags & 0x20)
    size_bytes = (1 if single_segment else 0, 2, 4, 8)[flags >> 6]
    dictionary_bytes = (0, 1, 2, 4)[flags & 3]
    place = data.offset
    rest = data.exactly("frame header", (not single_segment) + dictionary_bytes + size_bytes)
    dictionary = rest[not single_segment :][:dictionary_bytes]
    if dictionary.strip(b"\0"):
        number = int.from_bytes(dictionary, "little")
        raise Unsupported(f"zstd frame that needs the dictionary {number}", offset=place)
    return descriptor + rest, bool(flags & 4)


def _block(data: Input) -> tuple[bytes, bool]:
    place = data.offset
    raw = data.exactly("block header", 3)
    word = int.from_bytes(raw, "little")
    kind, size = word >> 1 & 3, word >> 3
    if kind == _RESERVED or size > _MAX_BLOCK_BYTES:
        raise Damaged(
            f"zstd block: expected at most {_MAX_BLOCK_BYTES} bytes of a known type, "
            f"found {size} of type {kind}",
            offset=place,
        )
    return raw + data.exactly("block", 1 if kind == _RLE else size), bool(word & 1)


def _feed(decoder: zstandard.ZstdDecompressionObj, data: bytes, place: int) -> Iterator[bytes]:
    try:
        out = decoder.decompress(data)
    except zstandard.ZstdError as error:
        raise _wrong(error, place) from error
    if out:
        yield out


def _wrong(error: zstandard.ZstdError, place: int) -> FormatError:
    if "memory" in str(error):
        return Unsupported(
            f"zstd frame that needs more than {_WINDOW_BYTES >> 20} MiB of memory", offset=place
        )
    return Damaged(f"zstd data: {error}", offset=place)
