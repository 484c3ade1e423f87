"""A `Source` as the seekable stream that pyelftools reads headers from."""

from __future__ import annotations

import io

from cprformats.source import Source

__all__ = ["SourceStream", "without_sections"]


class SourceStream(io.RawIOBase):
    """A `Source` as the seekable stream that pyelftools wants.

    Args:
        source: the file.
        header: bytes to show instead of its first ones.
    """

    def __init__(self, source: Source, header: bytes = b"") -> None:
        super().__init__()
        self._source = source
        self._header = header
        self._at = 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be moved about in."""
        return True

    def tell(self) -> int:
        """Where the next read starts."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset, and give it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size()}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, all that is left for a negative one."""
        wanted = self._source.size() - self._at if size is None or size < 0 else size
        data = self._source.read_at(self._at, max(wanted, 0))
        head = self._header[self._at : self._at + len(data)]
        data = head + data[len(head) :]
        self._at += len(data)
        return data


def without_sections(header: bytes) -> bytes:
    """The ELF header of a file that has no sections (e_shoff, e_shnum, e_shstrndx 0).

    pyelftools follows section counts and names wherever they lead; segments are enough.
    """
    return header[:0x28] + bytes(8) + header[0x30:0x3C] + bytes(4)
