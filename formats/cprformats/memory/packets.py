"""Unpack the contents of multifd packets: none, zlib, zstd, qpl, uadk.

zlib and zstd are one stream for the whole life of a channel, flushed at the end
of each packet; so packets are unpacked in order, and none of them alone. qpl
and uadk compress each page by itself: a be32 length for each page, then the
pages; a length of a whole page means that it is not compressed.

Source: QEMU migration/multifd-zlib.c, multifd-zstd.c (since 5.0), multifd-qpl.c
and multifd-uadk.c (since 9.1), multifd.h (the flags).
"""

from __future__ import annotations

import zlib
from typing import Protocol

from cprformats.migration.wire import MultifdFlag

__all__ = ["Unpacker"]

_METHODS = (
    MultifdFlag.ZLIB | MultifdFlag.ZSTD | MultifdFlag.QPL | MultifdFlag.UADK | MultifdFlag.QATZIP
)
_RAW_DEFLATE = -15
#: A channel's window is that of the level QEMU was told, 8 MiB at most.
_ZSTD_WINDOW_BYTES = 1 << 27


class _Stream(Protocol):
    def unpack(self, contents: memoryview, size: int) -> bytes:
        """Give exactly `size` bytes of the next packet.

        Raises:
            ValueError: it has another number of them, or is damaged.
        """


class Unpacker:
    """Unpacks one channel's packets in their order."""

    def __init__(self) -> None:
        self._streams: dict[int, _Stream] = {}

    def pages(
        self, flags: int, contents: memoryview, count: int, page_size: int
    ) -> tuple[memoryview, bool]:
        """Give a packet's plain pages, and whether these are the file's bytes as they are.

        Args:
            flags: the packet's.
            contents: what follows its header.
            count: pages with contents.
            page_size: in bytes.

        Raises:
            ValueError: the contents do not give so many pages.
            NotImplementedError: a method that is not read.
        """
        size, method = count * page_size, flags & _METHODS
        if not count:
            return contents[:0], True
        if not method:
            if len(contents) != size:
                raise ValueError(f"contents: expected {size} bytes, found {len(contents)}")
            return contents, True
        if method in (MultifdFlag.QPL, MultifdFlag.UADK):
            wbits = _RAW_DEFLATE if method == MultifdFlag.QPL else zlib.MAX_WBITS
            return memoryview(_page_by_page(contents, count, page_size, wbits)), False
        stream = self._streams.get(method)
        if stream is None:
            stream = self._streams[method] = _stream(method)
        return memoryview(stream.unpack(contents, size)), False


def _stream(method: int) -> _Stream:
    if method == MultifdFlag.ZLIB:
        return _Zlib()
    if method == MultifdFlag.ZSTD:
        return _Zstd()
    raise NotImplementedError(f"multifd compression of flags {method:#x}")


class _Zlib:
    def __init__(self) -> None:
        self._inflater = zlib.decompressobj()

    def unpack(self, contents: memoryview, size: int) -> bytes:
        try:
            data = self._inflater.decompress(contents, size + 1)
        except zlib.error as problem:
            raise ValueError(f"zlib: {problem}") from problem
        if len(data) != size:
            raise ValueError(f"zlib: expected {size} bytes of pages, found {_amount(data, size)}")
        return data


class _Zstd:
    def __init__(self) -> None:
        import zstandard  # noqa: PLC0415 (few files need it)

        self._error = zstandard.ZstdError
        self._input = _Feed()
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        self._reader = decompressor.stream_reader(self._input)  # type: ignore[arg-type]

    def unpack(self, contents: memoryview, size: int) -> bytes:
        left = self._input.rest
        self._input.rest = memoryview(bytes(left) + bytes(contents)) if left else contents
        data = bytearray()
        try:
            while len(data) <= size and (more := self._reader.read1(size + 1 - len(data))):
                data += more
        except _Starved:
            pass  # the packet has no more
        except self._error as problem:
            raise ValueError(f"zstd: {problem}") from problem
        if len(data) != size:
            raise ValueError(f"zstd: expected {size} bytes of pages, found {_amount(data, size)}")
        return bytes(data)


class _Starved(ValueError):
    """A packet has nothing more to read."""


class _Feed:
    """Gives a zstd reader one packet, and an error if it wants more."""

    def __init__(self) -> None:
        self.rest = memoryview(b"")

    def read(self, count: int) -> bytes:
        """Give the next bytes of the packet."""
        if not self.rest:
            raise _Starved
        data, self.rest = bytes(self.rest[:count]), self.rest[count:]
        return data


def _page_by_page(contents: memoryview, count: int, page_size: int, wbits: int) -> bytes:
    lengths = [int.from_bytes(contents[4 * n : 4 * n + 4]) for n in range(count)]
    if 4 * count + sum(lengths) != len(contents):
        raise ValueError(
            f"contents: expected {4 * count + sum(lengths)} bytes, found {len(contents)}"
        )
    at, pages = 4 * count, []
    for length in lengths:
        page = bytes(contents[at : at + length])
        pages.append(page if length == page_size else _inflate(page, page_size, wbits))
        at += length
    return b"".join(pages)


def _inflate(data: bytes, size: int, wbits: int) -> bytes:
    try:
        page = zlib.decompressobj(wbits).decompress(data, size + 1)
    except zlib.error as problem:
        raise ValueError(f"page: {problem}") from problem
    if len(page) != size:
        raise ValueError(f"page: expected {size} bytes, found {_amount(page, size)}")
    return page


def _amount(data: bytes | bytearray, size: int) -> str:
    return "more" if len(data) > size else str(len(data))
