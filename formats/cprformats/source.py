"""Where bytes come from: a file, a buffer, or something that flows only once.

All readers ask a `Source` for ranges by absolute offset. A pipe or a
decompressor is made to look the same by `SpoolSource`, which keeps what it
has read in a temporary file, without the ranges that a reader dropped
(the pages of guest RAM): so it is one pass, with bounded memory.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable
from typing import IO, Protocol

from cprformats.errors import NotKept

__all__ = ["BytesSource", "FileSource", "Source", "SpoolSource"]

_CHUNK_BYTES = 1 << 20
_HELD_BYTES = 3 << 20
#: A reader looks at this much at once: it is not moved while it is being read.
_NEW_BYTES = 2 << 20
#: Zeros are left out of the temporary file in blocks of this size.
_BLOCK_BYTES = 1 << 16


class Source(Protocol):
    """Bytes by absolute offset; a short answer means the end was reached."""

    @property
    def known_size(self) -> int | None:
        """Size in bytes where it is known without reading on, else None."""

    def size(self) -> int:
        """Size in bytes; a pipe is read to its end for it."""

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer only at the end.

        Raises:
            NotKept: the range was dropped before, on a source that flows once.
        """

    def drop(self, offset: int, count: int) -> None:
        """Say that this range will not be asked for again."""


class BytesSource:
    """A buffer in memory; `base` is the absolute offset of its first byte."""

    def __init__(self, data: bytes, base: int = 0) -> None:
        self._data = data
        self._base = base

    @property
    def known_size(self) -> int | None:
        """Size in bytes, where it is known."""
        return self._base + len(self._data)

    def size(self) -> int:
        """Size in bytes."""
        return self._base + len(self._data)

    def read_at(self, offset: int, count: int) -> bytes:
        """Give up to `count` bytes from `offset`."""
        start = offset - self._base
        if start < 0:
            return b""
        return self._data[start : start + max(count, 0)]

    def drop(self, offset: int, count: int) -> None:
        """Nothing to do: the buffer is there anyhow."""


class FileSource:
    """A regular file or block device, read with pread; the file is not mapped.

    A mapping would count the whole file as this process's memory, and a file
    that shrinks while it is mapped kills the reader with SIGBUS.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._fd = file.fileno()
        self._size = os.lseek(self._fd, 0, os.SEEK_END)

    @property
    def fd(self) -> int:
        """The descriptor, for who copies inside the kernel."""
        return self._fd

    @property
    def known_size(self) -> int | None:
        """Size in bytes, where it is known."""
        return self._size

    def size(self) -> int:
        """Size in bytes."""
        return self._size

    def read_at(self, offset: int, count: int) -> bytes:
        """Give up to `count` bytes from `offset`; a file that shrank gives less."""
        count = min(count, self._size - offset)
        if count <= 0:
            return b""
        data = os.pread(self._fd, count, offset)
        while len(data) < count:
            more = os.pread(self._fd, count - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def drop(self, offset: int, count: int) -> None:
        """Nothing to do: the file can be read again."""


class SpoolSource:
    """A source that flows once: stdin, or the output of a decompressor.

    `read` gives the next bytes, up to the count asked for, and b"" at the end.
    What was read is held in memory up to a few MiB, then in an unnamed
    temporary file in which dropped ranges stay holes. With `keep_all` nothing
    is dropped: then pages can be read again, at the price of the disk.
    """

    def __init__(self, read: Callable[[int], bytes], *, keep_all: bool = False) -> None:
        self._read = read
        self._keep_all = keep_all
        self._held = bytearray()
        self._base = 0  # offset of the first held byte; all before it is in the file
        self._dropped: list[tuple[int, int]] = []  # sorted, disjoint
        self._file: IO[bytes] | None = None
        self._finalizer: Callable[[], object] = lambda: None
        self._ended = False

    def close(self) -> None:
        """Give the temporary file back now, not only when the source is forgotten."""
        self._finalizer()

    @property
    def known_size(self) -> int | None:
        """Size in bytes, where it is known."""
        return self._base + len(self._held) if self._ended else None

    def size(self) -> int:
        """Read to the end and give the size in bytes."""
        while not self._ended:
            self._pull(_CHUNK_BYTES)
        return self._base + len(self._held)

    def read_at(self, offset: int, count: int) -> bytes:
        """Give up to `count` bytes from `offset`, reading on as far as needed."""
        while not self._ended and self._base + len(self._held) < offset + count:
            self._pull(_CHUNK_BYTES)
        end = min(offset + count, self._base + len(self._held))
        if end <= offset:
            return b""
        self._refuse_dropped(offset, end)
        if offset >= self._base:
            return bytes(self._held[offset - self._base : end - self._base])
        from_file = self._from_file(offset, min(end, self._base))
        return from_file + bytes(self._held[: max(end - self._base, 0)])

    def drop(self, offset: int, count: int) -> None:
        """Keep no copy of this range once it leaves the memory."""
        if self._keep_all or count <= 0:
            return
        start, end = offset, offset + count
        if self._dropped and self._dropped[-1][1] >= start >= self._dropped[-1][0]:
            start = self._dropped.pop()[0]
        self._dropped.append((start, end))

    def _pull(self, count: int) -> None:
        data = self._read(count)
        if not data:
            self._ended = True
            return
        self._held += data
        if len(self._held) > _HELD_BYTES + _CHUNK_BYTES:
            self._flush(len(self._held) - _NEW_BYTES)

    def _flush(self, count: int) -> None:
        """Move the first `count` held bytes to the file, all but what was dropped."""
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as we do)
            self._finalizer = weakref.finalize(self, self._file.close)
        position, end = self._base, self._base + count
        for start, stop in [*self._dropped, (end, end)]:
            keep_to = min(max(start, position), end)
            if keep_to > position:
                piece = self._held[position - self._base : keep_to - self._base]
                _write_sparse(self._file.fileno(), piece, position)
            position = min(max(position, stop), end)
        del self._held[:count]
        self._base += count
        os.ftruncate(self._file.fileno(), self._base)

    def _from_file(self, offset: int, end: int) -> bytes:
        assert self._file is not None
        return os.pread(self._file.fileno(), end - offset, offset)

    def _refuse_dropped(self, offset: int, end: int) -> None:
        for start, stop in self._dropped:
            # What is still held can be given, dropped or not.
            if start < end and offset < min(stop, self._base):
                raise NotKept("guest pages of a pipe are not kept", offset=max(start, offset))


def _write_sparse(fd: int, data: bytearray, offset: int) -> None:
    """Write at `offset`, and leave holes for blocks of zeros."""
    for start in range(0, len(data), _BLOCK_BYTES):
        block = data[start : start + _BLOCK_BYTES]
        if block.count(0) != len(block):
            os.pwrite(fd, block, offset + start)
