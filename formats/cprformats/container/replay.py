"""Give a decompressor's output by offset, and start it again where that is needed.

What a reader drops (guest pages) is not kept: a `SpoolSource` does that. Who
asks for such a range later, to write the file again or to look at a page,
gets it from a second run, which goes forward with a window of a few MiB.
Reading in file order costs one more run in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cprformats.errors import NotKept
from cprformats.source import SpoolSource

__all__ = ["ReplaySource"]

#: How far back a second run can be asked: a reader's groups of pages are 4 MiB.
_BACK_BYTES = 16 << 20


class ReplaySource:
    """A source made of pieces that can be made again.

    Args:
        pieces: starts a run that gives the data in pieces of a few MiB at most.
        can_replay: whether a second run gives the same; not where it reads a pipe.
        keep_all: keep dropped ranges too, in the temporary file.
    """

    def __init__(
        self,
        pieces: Callable[[], Iterator[bytes]],
        *,
        can_replay: bool = True,
        keep_all: bool = False,
    ) -> None:
        run = pieces()
        self._pieces = pieces
        self._can_replay = can_replay
        self._spool = SpoolSource(lambda _: next(run, b""), keep_all=keep_all)
        self._again: _Window | None = None

    def close(self) -> None:
        """Give the temporary file back."""
        self._spool.close()

    @property
    def known_size(self) -> int | None:
        """Size in bytes, where it is known."""
        return self._spool.known_size

    def size(self) -> int:
        """Read to the end and give the size in bytes."""
        return self._spool.size()

    def read_at(self, offset: int, count: int) -> bytes:
        """Give up to `count` bytes from `offset`, by a second run if they were dropped.

        Raises:
            NotKept: they were dropped, and there is no second run.
        """
        try:
            return self._spool.read_at(offset, count)
        except NotKept:
            if not self._can_replay:
                raise
        if self._again is None or offset < self._again.base:
            self._again = _Window(self._pieces())
        return self._again.read_at(offset, count)

    def drop(self, offset: int, count: int) -> None:
        """Keep no copy of this range once it leaves the memory."""
        self._spool.drop(offset, count)


class _Window:
    """The last few MiB of a run that goes forward."""

    def __init__(self, run: Iterator[bytes]) -> None:
        self._run = run
        self._held = bytearray()
        self.base = 0

    def read_at(self, offset: int, count: int) -> bytes:
        """Give a range that does not begin before `base`."""
        while self.base + len(self._held) < offset + count:
            piece = next(self._run, b"")
            if not piece:
                break
            self._held += piece
            self._trim(offset)
        return bytes(self._held[offset - self.base : offset - self.base + count])

    def _trim(self, offset: int) -> None:
        keep_from = min(offset - _BACK_BYTES, self.base + len(self._held))
        if keep_from - self.base > _BACK_BYTES:
            del self._held[: keep_from - self.base]
            self.base = keep_from
