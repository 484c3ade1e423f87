"""Decompress gzip, bzip2, xz, LZMA and lz4: streams behind each other, piece by piece.

The libraries find damage in the piece that they were fed, so an error's
offset is that of a piece of 16 KiB in which it showed.

Source: RFC 1952 (gzip members), the xz file format 1.2.1 (streams, padding of
four zero bytes), the bzip2 manual and the lz4 frame format 1.6.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from cprformats.detect import FileKind, is_skippable
from cprformats.errors import Damaged, FormatError, Truncated, Unsupported
from cprformats.source import Source

__all__ = ["Input", "inflate"]

_IN_BYTES = 1 << 14
_OUT_BYTES = 1 << 20
_SKIP_BYTES = 1 << 20
#: xz files may ask for 4 GiB; `xz -9` makes files that need 65 MiB.
_XZ_MEMORY_BYTES = 100 << 20


class Input:
    """Compressed bytes, read forward.

    Attributes:
        offset: of the next byte, absolute.
        rest: where bytes begin that are not compressed data, once they were met.
    """

    def __init__(self, source: Source, offset: int) -> None:
        self._source = source
        self.offset = offset
        self.rest: int | None = None

    def peek(self, count: int) -> bytes:
        """Look at up to `count` bytes."""
        return self._source.read_at(self.offset, count)

    def take(self, count: int) -> bytes:
        """Read up to `count` bytes; fewer only at the end."""
        data = self._source.read_at(self.offset, count)
        self._source.drop(self.offset, len(data))
        self.offset += len(data)
        return data

    def exactly(self, what: str, count: int) -> bytes:
        """Read `count` bytes.

        Raises:
            Truncated: there are fewer.
        """
        data = self.peek(count)
        if len(data) < count:
            raise Truncated(what, count, len(data), offset=self.offset)
        return self.take(count)

    def skip_zeros(self) -> None:
        """Go behind zero bytes: padding to a block's or a tape record's size."""
        while data := self.peek(_IN_BYTES):
            zeros = len(data) - len(data.lstrip(b"\0"))
            self.take(zeros)
            if zeros < len(data):
                return

    def skip_frames(self) -> None:
        """Go behind skippable frames, which zstd and lz4 share: 50..5f 2a 4d 18 size:le32 data.

        Raises:
            Truncated: one is cut.
        """
        while is_skippable(self.peek(4)):
            left = int.from_bytes(self.exactly("skippable frame", 8)[4:], "little")
            while left:
                left -= len(self.exactly("skippable frame", min(left, _SKIP_BYTES)))


class _Decoder(Protocol):
    """How the standard library's decompressors look, and lz4's."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


class _GzipDecoder:
    """zlib's decompressor for one gzip member, with the interface of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _lz4_decoder() -> _Decoder:
    try:
        import lz4.frame  # noqa: PLC0415 (optional, and slow to import)
    except ImportError as error:
        raise Unsupported(
            "lz4 data needs the package lz4: install cprtools[lz4], or decompress with lz4 -d"
        ) from error
    decoder: _Decoder = lz4.frame.LZ4FrameDecompressor()
    return decoder


_DECODERS: dict[FileKind, tuple[bytes, Callable[[], _Decoder]]] = {
    FileKind.GZIP: (b"\x1f\x8b", _GzipDecoder),
    FileKind.BZIP2: (b"BZh", bz2.BZ2Decompressor),
    FileKind.XZ: (
        b"\xfd7zXZ\x00",
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY_BYTES),
    ),
    FileKind.LZMA: (b"", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, _XZ_MEMORY_BYTES)),
    FileKind.LZ4: (b"\x04\x22\x4d\x18", _lz4_decoder),
}
_ERRORS = (zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, ValueError)


def inflate(kind: FileKind, data: Input) -> Iterator[bytes]:
    """Give the decompressed data in pieces of at most 1 MiB (lz4: 4 MiB).

    Raises:
        Truncated: the data ends inside a stream.
        Damaged: a stream contradicts itself or its checksum.
        Unsupported: it asks for more memory than is sensible, or a package is missing.
    """
    magic, make = _DECODERS[kind]
    while True:
        if kind is FileKind.LZ4:
            data.skip_frames()
        yield from _stream(kind, data, make)
        start = data.offset
        data.skip_zeros()
        if kind is FileKind.LZ4:
            data.skip_frames()
        head = data.peek(len(magic) or 1)
        if not head:
            return
        if not magic or head != magic:
            data.rest = start
            return


def _stream(kind: FileKind, data: Input, make: Callable[[], _Decoder]) -> Iterator[bytes]:
    start = data.offset
    try:
        decoder = make()
    except Unsupported as error:
        raise Unsupported(error.message, offset=start) from error
    while not decoder.eof:
        place, piece = data.offset, b""
        if decoder.needs_input:
            piece = data.peek(_IN_BYTES)
            if not piece:
                raise Truncated(f"{kind} stream that begins at {start:#x}", 1, 0, offset=place)
        try:
            out = decoder.decompress(piece, _OUT_BYTES)
        except _ERRORS as error:
            raise _wrong(kind, error, place) from error
        # Bytes behind the stream's end stay where they are, for what follows.
        data.take(len(piece) - (len(decoder.unused_data or b"") if decoder.eof else 0))
        if out:
            yield out


def _wrong(kind: FileKind, error: Exception, place: int) -> FormatError:
    if isinstance(error, lzma.LZMAError) and "emory" in str(error):
        return Unsupported(
            f"{kind} data that needs more than {_XZ_MEMORY_BYTES >> 20} MiB of memory",
            offset=place,
        )
    return Damaged(f"{kind} data: {error}", offset=place)
