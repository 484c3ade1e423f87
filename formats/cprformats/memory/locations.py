"""Where each page of a block lies: one number a page, or a few for many pages in a row.

A location is ``source << 53 | offset << 3 | code``: which file, the absolute
offset of the page's contents in it, and a `Code`. Pages whose locations grow by
the same step are kept as first location and step, so that memory that was sent
in order costs next to nothing; of mixed pages that came in order only the kinds
are kept, a byte a page, and locations are worked out when they are asked for.
A chunk of which pages came again, or in many pieces, takes 8 bytes a page.
Nothing is kept of pages that never came.
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
#: A chunk of more pieces than this becomes an array.
_MOST_PIECES = 16


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


class _Even:
    """Pages whose locations grow by one step."""

    __slots__ = ("count", "location", "step")

    def __init__(self, count: int, location: int, step: int) -> None:
        self.count = count
        self.location = location
        self.step = step

    def part(self, low: int, high: int) -> _Even:
        """Give pages `low` to `high` - 1 of these."""
        return _Even(high - low, self.location + low * self.step, self.step)

    def at(self, first: int, low: int, count: int) -> Part:
        """Give `count` pages from `low` on, the first of which is page `first` of the block."""
        return first, count, self.location + low * self.step, self.step, None

    def each(self) -> array[int]:
        """Give all locations."""
        return _series(self.location, self.count, self.step)


class _Mixed:
    """Records of data and zero pages that follow each other in a file."""

    __slots__ = ("count", "data_step", "kinds", "start", "zero_step")

    def __init__(self, start: int, kinds: bytes, data_step: int, zero_step: int) -> None:
        self.count = len(kinds)
        self.start = start
        self.kinds = kinds
        self.data_step = data_step
        self.zero_step = zero_step

    def part(self, low: int, high: int) -> _Mixed:
        """Give pages `low` to `high` - 1 of these."""
        data = self.kinds.count(PageCode.DATA, 0, low)
        start = self.start + data * self.data_step + (low - data) * self.zero_step
        return _Mixed(start, self.kinds[low:high], self.data_step, self.zero_step)

    def at(self, first: int, low: int, count: int) -> Part:
        """Give `count` pages from `low` on, the first of which is page `first` of the block."""
        whole = count == self.count
        return first, count, 0, None, (self if whole else self.part(low, low + count)).each()

    def each(self) -> array[int]:
        """Give all locations."""
        steps: dict[int, int] = {PageCode.DATA: self.data_step, PageCode.ZERO: self.zero_step}
        offsets = accumulate(map(steps.__getitem__, self.kinds[:-1]), initial=self.start)
        return array("Q", map(add, offsets, map(_CODE_OF.__getitem__, self.kinds)))


class _Each:
    """Pages of any locations."""

    __slots__ = ("count", "locations")

    def __init__(self, locations: array[int]) -> None:
        self.count = len(locations)
        self.locations = locations

    def at(self, first: int, low: int, count: int) -> Part:
        """Give `count` pages from `low` on, the first of which is page `first` of the block."""
        return first, count, 0, None, self.locations[low : low + count]

    def each(self) -> array[int]:
        """Give all locations."""
        return self.locations


#: Pieces of a chunk in order, each with its first page's number in the chunk. An `_Each`
#: stands for its whole chunk.
_Chunk = list[tuple[int, "_Even | _Mixed | _Each"]]


class Locations:
    """Locations that a stream tells page by page.

    Args:
        pages: number of pages of the block.
        page_size: in bytes.
    """

    def __init__(self, pages: int, page_size: int) -> None:
        self.pages = pages
        self._page_size = page_size
        self._chunks: dict[int, _Chunk] = {}
        self._current = -1

    def add(self, batch: RamBatch, first: int) -> None:
        """Note the pages of a batch, the first of which is page `first` of the block."""
        kinds, start = batch.kinds, batch.offset + batch.head
        data_step = (self._page_size + batch.stride_head) << CODE_BITS
        zero_step = (1 + batch.stride_head) << CODE_BITS
        code = kinds[0]
        if kinds.count(code) == len(kinds):
            step = data_step if code == PageCode.DATA else zero_step
            if code not in (PageCode.DATA, PageCode.ZERO):
                step = 0
            location = pack(Code(_CODE_OF.get(code, Code.COMPRESSED)), start, batch.source)
            self.put(first, len(kinds), location, step)
            return
        begin = pack(Code.NEVER, start, batch.source)
        self._put(first, _Mixed(begin, kinds, data_step, zero_step))

    def put(self, first: int, count: int, location: int, step: int) -> None:
        """Note `count` pages whose locations grow by `step`."""
        if location == Code.NEVER and not step:
            self._forget(first, count)
        else:
            self._put(first, _Even(count, location, step))

    def _put(self, first: int, piece: _Even | _Mixed) -> None:
        done = 0
        while done < piece.count:
            number, begin = divmod(first + done, _CHUNK_PAGES)
            size = min(piece.count - done, _CHUNK_PAGES - begin)
            part = piece if size == piece.count else piece.part(done, done + size)
            if size == self._size(number):
                self._chunks[number] = [(0, part)]
            elif not self._append(number, begin, part):
                self._open(number)[begin : begin + size] = part.each()
            done += size

    def _append(self, number: int, begin: int, piece: _Even | _Mixed) -> bool:
        """Add a piece to a chunk, if it comes behind all that is there."""
        chunk = self._chunks.setdefault(number, [])
        if not chunk:
            chunk.append((begin, piece))
            return True
        start, last = chunk[-1]
        end = start + last.count
        if begin < end or isinstance(last, _Each):
            return False
        if isinstance(last, _Even) and isinstance(piece, _Even) and begin == end:
            step = last.step
            if step == piece.step and last.location + last.count * step == piece.location:
                chunk[-1] = start, _Even(last.count + piece.count, last.location, step)
                return True
        if len(chunk) == _MOST_PIECES:
            return False
        chunk.append((begin, piece))
        return True

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
            base = number * _CHUNK_PAGES
            for begin, piece in self._chunks[number]:
                start = max(base + begin, first)
                count = min(base + begin + piece.count, end) - start
                if count <= 0:
                    continue
                if start > first:
                    yield first, start - first, Code.NEVER, 0, None
                yield piece.at(start, start - base - begin, count)
                first = start + count
        if first < end:
            yield first, end - first, Code.NEVER, 0, None

    def _numbers(self, first: int, end: int) -> Iterator[int]:
        """Give the numbers of the chunks there are in a range."""
        low, high = first // _CHUNK_PAGES, -(-end // _CHUNK_PAGES)
        if high - low < len(self._chunks):
            return (number for number in range(low, high) if number in self._chunks)
        return iter(sorted(number for number in self._chunks if low <= number < high))

    def _size(self, number: int) -> int:
        return min(_CHUNK_PAGES, self.pages - number * _CHUNK_PAGES)

    def _open(self, number: int) -> array[int]:
        """Give a chunk to write to; the one before is packed if it can be."""
        if number != self._current:
            self._pack(self._current)
            self._current = number
        chunk = self._chunks.get(number, [])
        if chunk and isinstance(chunk[0][1], _Each):
            return chunk[0][1].locations
        locations = array("Q", bytes(8 * self._size(number)))
        for begin, piece in chunk:
            locations[begin : begin + piece.count] = piece.each()
        self._chunks[number] = [(0, _Each(locations))]
        return locations

    def _pack(self, number: int) -> None:
        chunk = self._chunks.get(number)
        if not chunk or not isinstance(chunk[0][1], _Each):
            return
        locations = chunk[0][1].locations
        start, count = locations[0], len(locations)
        step = locations[1] - start if count > 1 else 0
        # A step that changes the code is none: readers look at the first page's only.
        fits = step >= 0 and not step & _CODE_MASK
        fits = fits and start + (count - 1) * step == locations[-1]
        if fits and locations == _series(start, count, step):
            self._chunks[number] = [(0, _Even(count, start, step))]


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
