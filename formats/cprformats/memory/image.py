"""Guest memory as it was when the stream ended: blocks that are read like a sequence of bytes.

A `MemoryImage` is a `RamSink`: while a stream is framed it notes where the last
version of each page lies, and later reads it from there. Pages that can't be
read again in place (XBZRLE deltas, multifd channels that are compressed) are
copied to an unnamed temporary file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cprformats.errors import FormatError
from cprformats.memory.batch import PageCode, RamBatch
from cprformats.memory.block import COPIES, MemoryBlock
from cprformats.memory.contents import BadPage, decode_page
from cprformats.memory.copies import Copies
from cprformats.memory.locations import Code, Locations, MappedLocations, Places, pack
from cprformats.source import Source

if TYPE_CHECKING:
    from cprformats.migration.ramparts import RamBlock, RamContext
    from cprformats.migration.wire import RamFlag

__all__ = ["MemoryImage"]


class MemoryImage(Mapping[str, MemoryBlock]):
    """The blocks of a stream, by idstr in the order of its list; a `RamSink`.

    Args:
        sources: the files of multifd channels, from 1 on.
        keep_going: note pages that can't be decoded, and go on.
    """

    def __init__(self, sources: Sequence[Source] = (), *, keep_going: bool = False) -> None:
        self._channels = dict(enumerate(sources, 1))
        self._keep_going = keep_going
        self._copies = Copies()
        self._sources: dict[int, Source] = {**self._channels, COPIES: self._copies}
        self._blocks: dict[str, MemoryBlock] = {}
        self._places: dict[str, Locations] = {}
        self._bad: dict[tuple[str, int], BadPage] = {}
        self._page_size = 0

    # -- as a mapping ---------------------------------------------------------------

    def __getitem__(self, idstr: str) -> MemoryBlock:
        return self._blocks[idstr]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def bad(self) -> tuple[BadPage, ...]:
        """Pages that could not be decoded and did not come again."""
        return tuple(self._bad.values())

    def close(self) -> None:
        """Give the temporary file back."""
        self._copies.close()

    # -- as a sink --------------------------------------------------------------------

    def restart(self) -> None:
        """Forget everything."""
        self._blocks.clear()
        self._places.clear()
        self._bad.clear()
        self._copies.clear()

    def blocks(self, blocks: Sequence[RamBlock], context: RamContext, source: Source) -> None:
        """Take a block list."""
        self._page_size = context.page_size
        self._sources[0] = source
        for block in blocks:
            places, page_size = self._places_of(block, context.page_size, source)
            self._blocks[block.idstr] = MemoryBlock(
                block.idstr, block.used_length, page_size, places, self._sources
            )

    def _places_of(self, block: RamBlock, page_size: int, source: Source) -> tuple[Places, int]:
        mapped = block.mapped
        if mapped is not None and mapped.pages_offset:
            pages = -(-block.used_length // mapped.page_size)
            mapped.check(source, pages, block.idstr)
            return MappedLocations(source, mapped), mapped.page_size
        places = Locations(-(-block.used_length // page_size), page_size)
        self._places[block.idstr] = places
        return places, page_size

    def pages(self, batch: RamBatch) -> None:
        """Note where pages are."""
        code = batch.kinds[0]
        first = batch.address // self._page_size
        if code == PageCode.XBZRLE:
            self._delta(batch, first)
            return
        if self._bad:
            for page in range(first, first + len(batch.kinds)):
                self._bad.pop((batch.block, page), None)
        if not batch.kept and PageCode.DATA in batch.kinds:
            self._copy(batch, first)
        else:
            self._places[batch.block].add(batch, first)

    def mark(self, flag: RamFlag) -> None:
        """Nothing to note."""

    def discard(self, block: str, start: int, length: int) -> None:
        """Note that pages were thrown away."""
        places = self._places.get(block)
        if places is None:
            return
        first = start // self._page_size
        end = min(-(-(start + length) // self._page_size), places.pages)
        if length and first < end:
            places.put(first, end - first, Code.NEVER, 0)

    def _delta(self, batch: RamBatch, first: int) -> None:
        block = self._blocks[batch.block]
        if (batch.block, first) in self._bad:
            return
        try:
            size = block.page_size
            # The last page may reach behind the block.
            before = block.read(batch.address, size).ljust(size, b"\0")
            page = decode_page(batch, size, before)
        except FormatError as error:
            if not self._keep_going:
                raise
            self._bad[batch.block, first] = BadPage(
                batch.block, batch.address, block.page_size, error
            )
            return
        self._put_copy(batch.block, first, page)

    def _copy(self, batch: RamBatch, first: int) -> None:
        """Copy the pages of a batch whose bytes are there only now."""
        size = self._page_size
        for number, kind in enumerate(batch.kinds):
            if kind == PageCode.DATA:
                page = batch.data[batch.head + number * size :][:size]
                self._put_copy(batch.block, first + number, bytes(page))
            else:
                self._places[batch.block].put(first + number, 1, Code.ZERO, 0)

    def _put_copy(self, block: str, first: int, page: bytes) -> None:
        offset = self._copies.put(block, first, page)
        self._places[block].put(first, 1, pack(Code.DATA, offset, COPIES), 0)
