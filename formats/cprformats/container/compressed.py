"""Data in one of the usual compressions, as a layer around other data.

::

    file = stream+ [padding]     gzip members, bzip2 and xz streams, zstd and lz4 frames

Decompression goes forward, as far as the layer inside asks; memory is bounded
whatever the data says of itself. Damage ends the data inside: that layer then
says what it lacks, this one why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cprformats.codecs import DataRef
from cprformats.container.inflate import Input, inflate
from cprformats.container.lzop import inflate_lzop
from cprformats.container.replay import ReplaySource
from cprformats.container.zstd import inflate_zstd
from cprformats.detect import FileKind
from cprformats.errors import FormatError
from cprformats.fields import Field, Kind, Tally, tally
from cprformats.source import Source

__all__ = ["Compressed", "read_compressed"]

_INFLATERS: dict[FileKind, Callable[[Input], Iterator[bytes]]] = {
    FileKind.ZSTD: inflate_zstd,
    FileKind.LZOP: inflate_lzop,
}


class Compressed:
    """A compressed file, or the compressed rest of one.

    `warnings` and `error` grow while `inner` is read: they are whole once it
    was read to its end.

    Attributes:
        kind: which compression.
        source: the compressed bytes.
        offset: where they begin, absolute.
        inner: the data inside, its offsets from 0.
    """

    def __init__(self, kind: FileKind, source: Source, offset: int, *, keep_all: bool) -> None:
        self.kind = kind
        self.source = source
        self.offset = offset
        self._first = Input(source, offset)
        self._error: FormatError | None = None
        # A source that flows once drops what the decompressor has read.
        self.inner = ReplaySource(
            self._pieces, can_replay=source.known_size is not None, keep_all=keep_all
        )

    @property
    def end(self) -> int:
        """Offset behind the last compressed byte."""
        return self.source.size()

    @property
    def consumed(self) -> int:
        """Compressed bytes read so far."""
        return self._first.offset - self.offset

    @property
    def warnings(self) -> tuple[str, ...]:
        """Oddities that don't stop a reader."""
        if self._first.rest is None:
            return ()
        left = self.end - self._first.rest
        return (f"{left} bytes behind the {self.kind} data, at {self._first.rest:#x}",)

    @property
    def error(self) -> FormatError | None:
        """What ended the decompression early, if something did."""
        return self._error

    def _pieces(self) -> Iterator[bytes]:
        data = self._next_input()
        run = _INFLATERS.get(self.kind)
        try:
            yield from run(data) if run else inflate(self.kind, data)
        except FormatError as error:
            self._error = error

    def _next_input(self) -> Input:
        fresh = self._first.offset == self.offset
        return self._first if fresh else Input(self.source, self.offset)

    def walk(self) -> Iterator[Field]:
        """Give the compressed bytes as one span, and what lies behind them as another."""
        end = self.end
        middle = end if self._first.rest is None else self._first.rest
        yield _span(self.kind, Kind.CONTAINER, self.source, self.offset, middle)
        if middle < end:
            yield _span("rest", Kind.UNKNOWN, self.source, middle, end)

    def tally(self) -> Tally:
        """Count the compressed bytes."""
        return tally(self.walk())


def read_compressed(
    kind: FileKind, source: Source, offset: int = 0, *, keep_all: bool = False
) -> Compressed:
    """Open compressed data that begins at `offset` and goes to the source's end.

    Args:
        kind: which compression, from `detect`.
        source: the compressed bytes.
        offset: of the first of them.
        keep_all: keep what readers drop too, for a source that flows once.
    """
    return Compressed(kind, source, offset, keep_all=keep_all)


def _span(name: str, kind: Kind, source: Source, offset: int, end: int) -> Field:
    size = end - offset
    return Field(name, name, "bytes", kind, offset, size, DataRef(source, offset, size))
