"""Count what a file has of each RAMBlock: `Census`, a sink that keeps no page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cprformats.memory.batch import RamBatch
from cprformats.memory.states import NEVER, PageStates, came_again, is_data, is_zero

if TYPE_CHECKING:
    from cprformats.migration.mapped import MappedRam
    from cprformats.migration.ramparts import RamBlock, RamContext
    from cprformats.migration.wire import RamFlag
    from cprformats.source import Source

__all__ = ["BlockCensus", "Cell", "Census"]


@dataclass(frozen=True, slots=True)
class Cell:
    """Some pages in a row, counted.

    Attributes:
        data: with contents.
        zero: told to be zero.
        never: not in the file.
    """

    data: int
    zero: int
    never: int


@dataclass(frozen=True, slots=True)
class BlockCensus:
    """What a file has of one block.

    Attributes:
        idstr: the block's name.
        size: used length in bytes.
        page_size: that its pages are counted in, in bytes.
        address: of the memory region in its container, where it was sent.
        data: pages whose last version has contents.
        zero: pages whose last version is zero.
        never: pages that are not in the file.
        again: pages that came more than once.
        stream_bytes: bytes of the block's records, heads included; under mapped-ram,
            of the pages that are there.
        mapped: the pages are at fixed places (mapped-ram).
    """

    idstr: str
    size: int
    page_size: int
    address: int | None
    data: int
    zero: int
    never: int
    again: int
    stream_bytes: int
    mapped: bool

    @property
    def pages(self) -> int:
        """All pages of the block."""
        return self.data + self.zero + self.never


class Census:
    """A `RamSink` that counts."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self._blocks: dict[str, RamBlock] = {}
        self._states: dict[str, PageStates] = {}
        self._mapped: dict[str, MappedRam] = {}
        self._bytes: Counter[str] = Counter()
        self._page_size = 0
        self._source: Source | None = None

    def blocks(self, blocks: Sequence[RamBlock], context: RamContext, source: Source) -> None:
        """Take a block list."""
        self._page_size, self._source = context.page_size, source
        for block in blocks:
            self._blocks[block.idstr] = block
            if block.mapped is not None and block.mapped.pages_offset:
                pages = -(-block.used_length // block.mapped.page_size)
                block.mapped.check(source, pages, block.idstr)
                self._mapped[block.idstr] = block.mapped
            else:
                pages = -(-block.used_length // context.page_size)
                self._states[block.idstr] = PageStates(pages)

    def pages(self, batch: RamBatch) -> None:
        """Count pages."""
        self._bytes[batch.block] += batch.size
        self._states[batch.block].mark(batch.address // self._page_size, batch.kinds)

    def mark(self, flag: RamFlag) -> None:
        """Nothing to count."""

    def discard(self, block: str, start: int, length: int) -> None:
        """Count pages that were thrown away as not there."""
        if length and block in self._states:
            first, end = start // self._page_size, -(-(start + length) // self._page_size)
            self._states[block].forget(first, end - first)

    def report(self) -> tuple[BlockCensus, ...]:
        """Give the counts, in the order of the block list."""
        return tuple(map(self._report, self._blocks.values()))

    def _report(self, block: RamBlock) -> BlockCensus:
        idstr, size = block.idstr, block.used_length
        mapped = self._mapped.get(idstr)
        if mapped is not None:
            cell, page_size = self._mapped_cell(mapped, 0, self._pages(idstr)), mapped.page_size
            again, used = 0, cell.data * page_size
        else:
            counts = self._states[idstr].counts()
            again = sum(n for state, n in counts.items() if came_again(state))
            cell, page_size, used = _cell(counts), self._page_size, self._bytes[idstr]
        parts = (cell.data, cell.zero, cell.never, again, used)
        return BlockCensus(idstr, size, page_size, block.address, *parts, mapped is not None)

    def missing(self, idstr: str) -> Iterator[tuple[int, int]]:
        """Give the runs of pages that are not in the file: first page, number."""
        states = self._states.get(idstr)
        runs = () if states is None else states.runs()
        return ((first, count) for first, count, state in runs if state == NEVER)

    def cells(self, idstr: str, count: int) -> list[Cell]:
        """Give a block in at most `count` cells of the same number of pages each."""
        pages = self._pages(idstr)
        step = max(-(-pages // count), 1)
        return [self._cell(idstr, at, min(at + step, pages)) for at in range(0, pages, step)]

    def _cell(self, idstr: str, first: int, end: int) -> Cell:
        mapped = self._mapped.get(idstr)
        if mapped is not None:
            return self._mapped_cell(mapped, first, end)
        return _cell(self._states[idstr].counts(first, end))

    def _mapped_cell(self, mapped: MappedRam, first: int, end: int) -> Cell:
        assert self._source is not None
        data = mapped.present(self._source, first, end)
        return Cell(data, end - first - data, 0)

    def _pages(self, idstr: str) -> int:
        mapped = self._mapped.get(idstr)
        page_size = self._page_size if mapped is None else mapped.page_size
        return -(-self._blocks[idstr].used_length // page_size)


def _cell(counts: Counter[int]) -> Cell:
    data = sum(n for state, n in counts.items() if is_data(state))
    zero = sum(n for state, n in counts.items() if is_zero(state))
    return Cell(data, zero, counts[NEVER])
