"""Where each page of a block lies: one number a page, or three for many pages in a row.

A location is ``source << 53 | offset << 3 | code``: which file, the absolute
offset of the page's contents in it, and a `Code`. A chunk of pages whose
locations grow by the same step is kept as first location and step, so that
memory that was sent in order costs next to nothing; any other chunk takes 8
bytes a page. Nothing is kept of pages that never came.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from enum import IntEnum
from itertools import accumulate
from operator import add
from typing import Protocol

from cprformats.memory.batch import PageCode, RamBatch
from cprformats.migration.mapped import MappedRam
from cprformats.source import Source

__all__ = ["CODE_BITS", "Code", "Locations", "MappedLocations", "Places", "pack", "unpack"]

CODE_BITS = 3
_CODE_MASK = (1 << CODE_BITS) - 1
_SOURCE_SHIFT = 53
_OFFSET_MASK = (1 << _SOURCE_SHIFT - CODE_BITS) - 1
_CHUNK_PAGES = 1024


class Code(IntEnum):
    """What is at a location."""

    NEVER = 0
    ZERO = 1
    #: The page itself.
    DATA = 2
    #: One byte that fills the page.
    FILL = 3
    #: A be32 length and zlib data.
    COMPRESSED = 4


_CODE_OF: dict[int, int] = {
    PageCode.ZERO: Code.ZERO,
    PageCode.DATA: Code.DATA,
    PageCode.FILL: Code.FILL,
}

#: First page, number of pages, location of the first, step from one to the next;
#: for single locations the step is None and the array has them.
Part = tuple[int, int, int, int, None] | tuple[int, int, int, None, "array[int]"]


def pack(code: Code, offset: int = 0, source: int = 0) -> int:
    """Make a location."""
    return source << _SOURCE_SHIFT | offset << CODE_BITS | code


def unpack(location: int) -> tuple[int, int, int]:
    """Give code, offset and source of a location."""
    return (
        location & _CODE_MASK,
        location >> CODE_BITS & _OFFSET_MASK,
        location >> _SOURCE_SHIFT,
    )


class Places(Protocol):
    """The locations of a block's pages."""

    def take(self, first: int, count: int) -> array[int]:
        """Give the locations of some pages."""

    def parts(self, first: int, end: int) -> Iterator[Part]:
        """Give the locations of pages `first` to `end` - 1 in parts, in order."""


class Locations:
    """Locations that a stream tells page by page.

    Args:
        pages: number of pages of the block.
        page_size: in bytes.
    """

    def __init__(self, pages: int, page_size: int) -> None:
        self.pages = pages
        self._page_size = page_size
        self._chunks: dict[int, array[int] | tuple[int, int]] = {}
        self._current = -1

    def add(self, batch: RamBatch, first: int) -> None:
        """Note the pages of a batch, the first of which is page `first` of the block."""
        kinds, start = batch.kinds, batch.offset + batch.head
        steps: dict[int, int] = {
            PageCode.DATA: (self._page_size + batch.stride_head) << CODE_BITS,
            PageCode.ZERO: (1 + batch.stride_head) << CODE_BITS,
        }
        code = kinds[0]
        if kinds.count(code) == len(kinds):
            step = steps.get(code, 0)
            location = pack(Code(_CODE_OF.get(code, Code.COMPRESSED)), start, batch.source)
            self.put(first, len(kinds), location, step)
            return
        begin = pack(Code.NEVER, start, batch.source)
        offsets = accumulate(map(steps.__getitem__, kinds[:-1]), initial=begin)
        self._put_each(first, array("Q", map(add, offsets, map(_CODE_OF.__getitem__, kinds))))

    def put(self, first: int, count: int, location: int, step: int) -> None:
        """Note `count` pages whose locations grow by `step`."""
        if location == Code.NEVER and not step:
            self._forget(first, count)
            return
        done = 0
        while done < count:
            number, begin = divmod(first + done, _CHUNK_PAGES)
            size = min(count - done, _CHUNK_PAGES - begin)
            start = location + done * step
            if size == self._size(number):
                self._chunks[number] = (start, step)
            else:
                self._open(number)[begin : begin + size] = _series(start, size, step)
            done += size

    def _forget(self, first: int, count: int) -> None:
        """Drop what is known: of a range that may be much longer than what is."""
        end = min(first + count, self.pages)
        for number in list(self._numbers(first, end)):
            start = number * _CHUNK_PAGES
            begin, stop = max(start, first), min(start + self._size(number), end)
            if stop - begin == self._size(number):
                del self._chunks[number]
            elif begin < stop:
                self._open(number)[begin - start : stop - start] = _series(0, stop - begin, 0)

    def take(self, first: int, count: int) -> array[int]:
        """Give the locations of some pages."""
        found = array("Q")
        for _, size, location, step, each in self.parts(first, first + count):
            if step is not None:
                found += _series(location, size, step)
            elif each is not None:
                found += each
        return found

    def parts(self, first: int, end: int) -> Iterator[Part]:
        """Give the locations of pages `first` to `end` - 1 in parts, in order."""
        if end <= first:
            return
        for number in self._numbers(first, end):
            begin = max(number * _CHUNK_PAGES, first)
            if begin > first:
                yield first, begin - first, Code.NEVER, 0, None
            first = min((number + 1) * _CHUNK_PAGES, end)
            chunk, place = self._chunks[number], begin - number * _CHUNK_PAGES
            if isinstance(chunk, tuple):
                yield begin, first - begin, chunk[0] + place * chunk[1], chunk[1], None
            else:
                yield begin, first - begin, 0, None, chunk[place : place + first - begin]
        if first < end:
            yield first, end - first, Code.NEVER, 0, None

    def _numbers(self, first: int, end: int) -> Iterator[int]:
        """Give the numbers of the chunks there are in a range."""
        low, high = first // _CHUNK_PAGES, -(-end // _CHUNK_PAGES)
        if high - low < len(self._chunks):
            return (number for number in range(low, high) if number in self._chunks)
        return iter(sorted(number for number in self._chunks if low <= number < high))

    def _put_each(self, first: int, locations: array[int]) -> None:
        done = 0
        while done < len(locations):
            number, begin = divmod(first + done, _CHUNK_PAGES)
            size = min(len(locations) - done, _CHUNK_PAGES - begin)
            self._open(number)[begin : begin + size] = locations[done : done + size]
            done += size

    def _size(self, number: int) -> int:
        return min(_CHUNK_PAGES, self.pages - number * _CHUNK_PAGES)

    def _open(self, number: int) -> array[int]:
        """Give a chunk to write to; the one before is packed if it can be."""
        chunk = self._chunks.get(number)
        if number != self._current:
            self._pack(self._current)
            self._current = number
        if chunk is None:
            chunk = array("Q", bytes(8 * self._size(number)))
        elif isinstance(chunk, tuple):
            chunk = _series(chunk[0], self._size(number), chunk[1])
        self._chunks[number] = chunk
        return chunk

    def _pack(self, number: int) -> None:
        chunk = self._chunks.get(number)
        if not isinstance(chunk, array):
            return
        step = chunk[1] - chunk[0] if len(chunk) > 1 else 0
        # A step that changes the code is none: readers look at the first page's only.
        fits = step >= 0 and not step & _CODE_MASK
        fits = fits and chunk[0] + (len(chunk) - 1) * step == chunk[-1]
        if fits and chunk == _series(chunk[0], len(chunk), step):
            self._chunks[number] = (chunk[0], step)


class MappedLocations:
    """Locations that a mapped-ram bitmap tells; it is read anew each time.

    Args:
        source: the file.
        mapped: where bitmap and pages are.
    """

    def __init__(self, source: Source, mapped: MappedRam) -> None:
        self._source = source
        self._mapped = mapped

    def take(self, first: int, count: int) -> array[int]:
        """Give the locations of some pages."""
        kinds = self._mapped.kinds(self._source, first, count)
        start, step = self._location(first), self._mapped.page_size << CODE_BITS
        each = zip(range(start, start + count * step, step), kinds, strict=True)
        return array("Q", (at if kind == PageCode.DATA else Code.ZERO for at, kind in each))

    def parts(self, first: int, end: int) -> Iterator[Part]:
        """Give the locations of pages `first` to `end` - 1 in parts, in order."""
        step = self._mapped.page_size << CODE_BITS
        for start, count, present in self._mapped.runs(self._source, first, end):
            if present:
                yield start, count, self._location(start), step, None
            else:
                yield start, count, Code.ZERO, 0, None

    def _location(self, page: int) -> int:
        return pack(Code.DATA, self._mapped.pages_offset + page * self._mapped.page_size)


def _series(start: int, count: int, step: int) -> array[int]:
    if step:
        return array("Q", range(start, start + count * step, step))
    return array("Q", [start]) * count
