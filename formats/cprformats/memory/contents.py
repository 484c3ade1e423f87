"""Turn the records of a stream into pages: `Expander` decodes what was encoded.

It takes what a reader of RAM hands over and calls a `PageWriter` with plain
contents in the order in which they count, so that the last one wins. A page
that can't be decoded is an error, or, with `keep_going`, a hole that is noted.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cprformats.errors import Damaged, FormatError
from cprformats.memory.batch import PageCode, RamBatch
from cprformats.memory.states import PageStates
from cprformats.memory.xbzrle import apply_delta

if TYPE_CHECKING:
    from cprformats.migration.ramparts import RamBlock, RamContext
    from cprformats.migration.wire import RamFlag
    from cprformats.source import Source

__all__ = [
    "BadPage",
    "Expander",
    "PageWriter",
    "data_views",
    "decode_page",
    "page_views",
    "write_batch",
]

_UNIFORM = re.compile(rb"(?s)(.)\1*")
_DATA_RUN = re.compile(b"%c+" % PageCode.DATA)
_XBZRLE_HEAD, _ZLIB_HEAD = 3, 4
_XBZRLE_FLAG = 1
#: More than this is kept of no file: it is damaged from end to end.
_MAX_BAD_PAGES = 100_000


class PageWriter(Protocol):
    """Takes plain contents; all places are byte offsets in a block."""

    def restart(self) -> None:
        """Forget everything: the stream is read again from its beginning."""

    def begin(self, blocks: Sequence[RamBlock], source: Source) -> None:
        """Take the blocks; with mapped-ram the pages are in the source where they say."""

    def pages(self, batch: RamBatch, page_size: int, *, fresh: bool) -> None:
        """Take data and zero pages; `fresh` if none of them came before: see `write_batch`."""

    def write(self, block: str, address: int, views: list[memoryview]) -> None:
        """Take pages that follow each other from `address` on; views are valid in the call."""

    def zero(self, block: str, address: int, length: int) -> None:
        """Make zeros of pages that were written before."""

    def read(self, block: str, address: int, length: int) -> bytes:
        """Give a page as it was written last; zeros if it never was."""


@dataclass(frozen=True, slots=True)
class BadPage:
    """A page that could not be decoded.

    Attributes:
        block: idstr.
        address: of the page in the block, in bytes.
        length: in bytes.
        error: what is wrong, and where.
    """

    block: str
    address: int
    length: int
    error: FormatError


class Expander:
    """A `RamSink` that decodes pages for a `PageWriter`.

    Args:
        writer: takes the contents.
        keep_going: note pages that can't be decoded, and go on.
    """

    def __init__(self, writer: PageWriter, *, keep_going: bool = False) -> None:
        self._bad: dict[tuple[str, int], BadPage] = {}
        self._writer = writer
        self._keep_going = keep_going
        self._page_size = 0
        self._states: dict[str, PageStates] = {}

    @property
    def bad(self) -> tuple[BadPage, ...]:
        """The pages that could not be decoded and did not come again since."""
        return tuple(self._bad.values())

    def restart(self) -> None:
        """Forget everything."""
        self._bad.clear()
        self._states.clear()
        self._writer.restart()

    def blocks(self, blocks: Sequence[RamBlock], context: RamContext, source: Source) -> None:
        """Take a block list."""
        self._page_size = context.page_size
        for block in blocks:
            if (old := self._states.get(block.idstr)) is not None:
                self._writer.zero(block.idstr, 0, old.pages * self._page_size)
            self._states[block.idstr] = PageStates(-(-block.used_length // context.page_size))
        self._writer.begin(blocks, source)

    def pages(self, batch: RamBatch) -> None:
        """Decode and pass on."""
        if batch.kinds[0] not in (PageCode.DATA, PageCode.ZERO):
            self._encoded(batch)
            return
        if self._bad:
            self._heal(batch.block, batch.address, len(batch.kinds) * self._page_size)
        self._writer.pages(batch, self._page_size, fresh=self._note(batch))

    def mark(self, flag: RamFlag) -> None:
        """Nothing to decode."""

    def discard(self, block: str, start: int, length: int) -> None:
        """Make zeros of what is thrown away, as far as the block goes."""
        states = self._states.get(block)
        if states is None:
            return
        first = start // self._page_size
        end = min(-(-(start + length) // self._page_size), states.pages)
        if not length or first >= end:
            return
        start, length = first * self._page_size, (end - first) * self._page_size
        if self._bad:
            self._heal(block, start, length)
        states.forget(first, end - first)
        self._writer.zero(block, start, length)

    def _note(self, batch: RamBatch) -> bool:
        """Note that pages came; say whether none of them came before."""
        states = self._states[batch.block]
        first, count = batch.address // self._page_size, len(batch.kinds)
        fresh = states.untouched(first, count)
        states.mark(first, batch.kinds)
        return fresh

    def _encoded(self, batch: RamBatch) -> None:
        place, before = (batch.block, batch.address), b""
        is_delta = batch.kinds[0] == PageCode.XBZRLE
        if is_delta and place in self._bad:
            return
        if is_delta:
            before = self._writer.read(batch.block, batch.address, self._page_size)
        try:
            page = decode_page(batch, self._page_size, before)
        except Damaged as error:
            if not self._keep_going or len(self._bad) >= _MAX_BAD_PAGES:
                raise
            self._bad[place] = BadPage(batch.block, batch.address, self._page_size, error)
            return
        self._bad.pop(place, None)
        self._note(batch)
        self._writer.write(batch.block, batch.address, [memoryview(page)])

    def _heal(self, block: str, start: int, length: int) -> None:
        """Take back what was noted of pages that come whole now."""
        for place in [p for p in self._bad if p[0] == block and start <= p[1] < start + length]:
            del self._bad[place]


def write_batch(writer: PageWriter, batch: RamBatch, page_size: int, *, fresh: bool) -> None:
    """Write a batch of data and zero pages, run by run.

    Args:
        writer: takes the runs.
        batch: the pages.
        page_size: in bytes.
        fresh: none of the pages came before, so the zeros are there.
    """
    address = batch.address
    if fresh:
        for page, views in data_views(batch, page_size):
            writer.write(batch.block, address + page * page_size, views)
        return
    for data, count, views in page_views(batch, page_size):
        if data:
            writer.write(batch.block, address, views)
        else:
            writer.zero(batch.block, address, count * page_size)
        address += count * page_size


def page_views(batch: RamBatch, page_size: int) -> Iterator[tuple[bool, int, list[memoryview]]]:
    """Split a batch of data and zero pages into runs: is it data, how many, their contents."""
    place, data, stride = batch.head, batch.data, page_size + batch.stride_head
    for match in _UNIFORM.finditer(batch.kinds):
        count = match.end() - match.start()
        if match[0][0] == PageCode.DATA:
            end = place + count * stride
            if batch.stride_head:
                yield True, count, [data[at : at + page_size] for at in range(place, end, stride)]
            else:
                yield True, count, [data[place:end]]
            place = end
        else:
            yield False, count, []
            place += count * (1 + batch.stride_head)


def data_views(batch: RamBatch, page_size: int) -> Iterator[tuple[int, list[memoryview]]]:
    """Give the runs of data pages of a batch of data and zero pages: first page, contents."""
    place, data, stride = batch.head, batch.data, page_size + batch.stride_head
    zero_size = 1 + batch.stride_head
    done = 0
    for match in _DATA_RUN.finditer(batch.kinds):
        first, behind = match.span()
        place += (first - done) * zero_size
        end, done = place + (behind - first) * stride, behind
        if batch.stride_head:
            yield first, [data[at : at + page_size] for at in range(place, end, stride)]
        else:
            yield first, [data[place:end]]
        place = end


def decode_page(batch: RamBatch, page_size: int, before: bytes = b"") -> bytes:
    """Decode a page that comes alone: XBZRLE, compressed, or filled with one byte.

    Args:
        batch: of one page.
        page_size: in bytes.
        before: the page's contents until now, for XBZRLE.

    Raises:
        Damaged: the record does not give one page.
    """
    code, contents = batch.kinds[0], batch.data[batch.head :]
    try:
        if code == PageCode.XBZRLE:
            return _xbzrle(contents, before)
        if code == PageCode.COMPRESSED:
            return _inflate(contents[_ZLIB_HEAD:], page_size)
    except (ValueError, zlib.error) as problem:
        raise Damaged(
            f"page {batch.address:#x}: {problem}", offset=batch.offset, path=("ram", batch.block)
        ) from problem
    return bytes(contents[:1]) * page_size


def _xbzrle(contents: memoryview, before: bytes) -> bytes:
    if contents[0] != _XBZRLE_FLAG:
        raise ValueError(f"XBZRLE: expected encoding {_XBZRLE_FLAG}, found {contents[0]}")
    return apply_delta(before, bytes(contents[_XBZRLE_HEAD:]))


def _inflate(contents: memoryview, page_size: int) -> bytes:
    inflater = zlib.decompressobj()
    page = inflater.decompress(contents, page_size)
    if len(page) != page_size:
        raise ValueError(f"compressed page: expected {page_size} bytes, found {len(page)}")
    if inflater.decompress(inflater.unconsumed_tail, 1):
        raise ValueError(f"compressed page: expected {page_size} bytes, found more")
    return page
