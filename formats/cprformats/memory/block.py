"""One RAMBlock as it was when the stream ended: a sequence of bytes, and runs of pages."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import TYPE_CHECKING, overload

from cprformats.errors import Truncated
from cprformats.memory.batch import PageCode, RamBatch
from cprformats.memory.contents import decode_page
from cprformats.memory.locations import (
    CODE_BITS,
    Code,
    Places,
    unpack,
)
from cprformats.source import Source

if TYPE_CHECKING:
    pass

__all__ = ["COPIES", "MemoryBlock", "PageRun", "RunKind"]

#: Number of the temporary file among the sources of locations.
COPIES = (1 << 11) - 1
#: Pages of a legacy stream lie this close, and are read together.
_NEAR_BYTES = 1 << 17
_MOST_BYTES = 1 << 18
_CODE = (1 << CODE_BITS) - 1
_ZLIB_HEAD = 4

Buffers = Iterable[bytes | memoryview]


class RunKind(StrEnum):
    """What is known of a run of pages."""

    DATA = "data"
    ZERO = "zero"
    #: Not in the file: never sent, or thrown away and not sent again.
    NEVER = "never"


_PLAIN = frozenset(map(int, (Code.NEVER, Code.ZERO, Code.DATA)))
#: In a loop over pages the name of an enum's member costs more than the page.
_DATA = int(Code.DATA)
_RUN_KINDS = {Code.NEVER: RunKind.NEVER, Code.ZERO: RunKind.ZERO}


@dataclass(frozen=True, slots=True)
class PageRun:
    """Pages that follow each other in a block and, if they have contents, in a file.

    Attributes:
        start: number of the first page.
        count: pages.
        kind: what they are.
        offset: of the first page's contents, absolute in the file that holds them;
            None if they have none there (zeros, never sent, or kept in a copy).
        stride: bytes from one page's contents to the next one's.
    """

    start: int
    count: int
    kind: RunKind
    offset: int | None
    stride: int


class MemoryBlock(Sequence[int]):
    """One RAMBlock; as a sequence it is its bytes.

    Attributes:
        idstr: the block's name.
        size: in bytes.
        page_size: in bytes.
    """

    def __init__(
        self,
        idstr: str,
        size: int,
        page_size: int,
        places: Places,
        sources: Mapping[int, Source],
    ) -> None:
        self.idstr = idstr
        self.size = size
        self.page_size = page_size
        self._places = places
        self._sources = sources

    @property
    def pages(self) -> int:
        """Number of pages."""
        return -(-self.size // self.page_size)

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> bytes: ...
    def __getitem__(self, index: int | slice) -> int | bytes:
        if isinstance(index, slice):
            start, stop, step = index.indices(self.size)
            if step != 1:
                raise ValueError(f"step of a slice: expected 1, found {step}")
            return self.read(start, max(stop - start, 0))
        place = index + self.size if index < 0 else index
        if not 0 <= place < self.size:
            raise IndexError(f"{self.idstr}: expected an offset below {self.size}, found {index}")
        return self.read(place, 1)[0]

    def read(self, offset: int, length: int) -> bytes:
        """Give `length` bytes from `offset`, fewer only at the block's end.

        Pages that are not in the file read as zeros: `runs` tells which these are.

        Raises:
            ValueError: a negative offset or length.
            Truncated: the file has become shorter since.
            Damaged: a compressed page does not unpack.
        """
        if offset < 0 or length < 0:
            raise ValueError(f"expected no negative place, found {offset}, {length}")
        end = min(offset + length, self.size)
        if end <= offset:
            return b""
        first = offset // self.page_size
        last = (end - 1) // self.page_size
        # Written into one buffer as they come: less memory in flight is much less time.
        data = BytesIO(bytes((last + 1 - first) * self.page_size))
        for more in self._pieces(first, last + 1):
            data.writelines(more)
        if offset % self.page_size or end % self.page_size:
            return data.getvalue()[offset - first * self.page_size :][: end - offset]
        return data.getvalue()

    def runs(self, start: int = 0, end: int | None = None) -> Iterator[PageRun]:
        """Give all pages from `start` to `end` - 1 in runs, in order, as long as they get."""
        end = self.pages if end is None else min(end, self.pages)
        run: PageRun | None = None
        for first, count, location, step in self._steps(start, end):
            more = _page_run(first, count, location, step)
            joined = None if run is None else _join(run, more)
            if joined is None and run is not None:
                yield run
            run = joined or more
        if run is not None:
            yield run

    def _steps(self, first: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Give first page, number, location and step of pages with a common step."""
        for begin, count, location, step, each in self._places.parts(first, end):
            if step is not None:
                yield begin, count, location, step
                continue
            assert each is not None
            for page, found in enumerate(each, begin):
                yield page, 1, found, 0

    # -- contents -----------------------------------------------------------------

    def _pieces(self, first: int, end: int) -> Iterator[Buffers]:
        """Give the contents of pages `first` to `end` - 1, some pages at a time."""
        for begin, count, location, step, each in self._places.parts(first, end):
            if each is not None:
                yield from self._scattered(begin, each)
                continue
            code = location & _CODE
            if code in (Code.NEVER, Code.ZERO):
                yield [bytes(count * self.page_size)]
            elif code == Code.DATA and step and self._is_near(step):
                yield from self._strided(begin, location, count, step >> CODE_BITS)
            else:
                assert step is not None
                locations = range(location, location + count * step, step) if step else [location]
                yield map(self._one, range(begin, begin + count), locations)

    def _is_near(self, step: int) -> bool:
        return self.page_size <= step >> CODE_BITS <= _NEAR_BYTES

    def _strided(self, first: int, location: int, count: int, stride: int) -> Iterator[Buffers]:
        """Give pages whose contents lie `stride` bytes apart."""
        _, offset, source = unpack(location)
        size = self.page_size
        if stride == size:
            # A mapped-ram file need not go on behind the block's last byte.
            length = min(count * size, self.size - first * size)
            yield [self._bytes(source, offset, length)]
            return
        most = max(_MOST_BYTES // stride, 1)
        for done in range(0, count, most):
            pages = min(most, count - done)
            length = (pages - 1) * stride + size
            data = memoryview(self._bytes(source, offset + done * stride, length))
            yield [data[at : at + size] for at in range(0, length, stride)]

    def _scattered(self, first: int, locations: array[int]) -> Iterator[Buffers]:
        """Give pages each of which has a place of its own; most lie close together."""
        codes = {location & _CODE for location in locations}
        if not codes <= _PLAIN:
            yield map(self._one, range(first, first + len(locations)), locations)
            return
        if _DATA not in codes:
            yield [bytes(len(locations) * self.page_size)]
            return
        data = [location for location in locations if location & _CODE == _DATA]
        size, low = self.page_size, min(data)
        length = (max(data) - low >> CODE_BITS) + size
        if length > 2 * size * len(data) + _NEAR_BYTES:
            yield map(self._one, range(first, first + len(locations)), locations)
            return
        _, offset, source = unpack(low)
        there, zeros = memoryview(self._bytes(source, offset, length)), bytes(size)
        yield [
            there[at : at + size] if location & _CODE == _DATA else zeros
            for location in locations
            for at in (location - low >> CODE_BITS,)
        ]

    def _one(self, page: int, location: int) -> bytes:
        code, offset, source = unpack(location)
        if code in (Code.NEVER, Code.ZERO):
            return bytes(self.page_size)
        if code == Code.DATA:
            length = min(self.page_size, self.size - page * self.page_size)
            return self._bytes(source, offset, length)
        return self._encoded(location, page)

    def _encoded(self, location: int, page: int) -> bytes:
        code, offset, source = unpack(location)
        kind, size, head = PageCode.FILL, 1, 0
        if code == Code.COMPRESSED:
            length = int.from_bytes(self._bytes(source, offset, _ZLIB_HEAD))
            kind, size, head = PageCode.COMPRESSED, _ZLIB_HEAD + length, 0
        data = memoryview(self._bytes(source, offset, size))
        address = page * self.page_size
        kinds = bytes([kind])
        return decode_page(
            RamBatch(self.idstr, address, kinds, offset, size, head, data), self.page_size
        )

    def _bytes(self, source: int, offset: int, count: int) -> bytes:
        data = self._sources[source].read_at(offset, count)
        if len(data) < count:
            raise Truncated("pages", count, len(data), offset=offset, path=("ram", self.idstr))
        return data


def _page_run(first: int, count: int, location: int, step: int) -> PageRun:
    code, offset, source = unpack(location)
    kind = _RUN_KINDS.get(Code(code), RunKind.DATA)
    in_place = kind is RunKind.DATA and source != COPIES
    stride = step >> CODE_BITS if in_place else 0
    return PageRun(first, count, kind, offset if in_place else None, stride)


def _join(run: PageRun, more: PageRun) -> PageRun | None:
    """Give both runs as one, if they are one."""
    if run.kind is not more.kind:
        return None
    stride = 0
    if run.offset is not None and more.offset is not None:
        stride = (more.offset - run.offset) // run.count
        if (
            stride <= 0
            or run.offset + run.count * stride != more.offset
            or (run.count > 1 and run.stride != stride)
            or (more.count > 1 and more.stride != stride)
        ):
            return None
    elif run.offset is not more.offset:
        return None
    return PageRun(run.start, run.count + more.count, run.kind, run.offset, stride)
