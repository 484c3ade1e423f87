"""Pages that a file does not have as they are, copied to an unnamed temporary file."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable
from typing import IO

__all__ = ["Copies"]


class Copies:
    """Pages in an unnamed temporary file; each has one place, whatever its version."""

    def __init__(self) -> None:
        self._offsets: dict[tuple[str, int], int] = {}
        self._file: IO[bytes] | None = None
        self._finalizer: Callable[[], object] = lambda: None
        self._end = 0

    @property
    def known_size(self) -> int:
        """Bytes in all; a page that was replaced counts once."""
        return self._end

    def size(self) -> int:
        """Bytes in all."""
        return self._end

    def read_at(self, offset: int, count: int) -> bytes:
        """Give up to `count` bytes from `offset`."""
        return b"" if self._file is None else os.pread(self._file.fileno(), count, offset)

    def drop(self, offset: int, count: int) -> None:
        """Nothing to do: the file is there anyhow."""

    def put(self, block: str, page: int, data: bytes) -> int:
        """Keep a version of a page; gives its offset."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (as long as we)
            self._finalizer = weakref.finalize(self, self._file.close)
        offset = self._offsets.get((block, page))
        if offset is None:
            offset = self._offsets[block, page] = self._end
            self._end += len(data)
        os.pwrite(self._file.fileno(), data, offset)
        return offset

    def clear(self) -> None:
        """Forget all pages."""
        self._offsets.clear()
        self._end = 0

    def close(self) -> None:
        """Give the file back."""
        self._finalizer()
