"""Count how the pages of each RAMBlock were sent, while the stream is framed."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

from cprformats.fields import Kind, Tally, tally
from cprformats.memory.batch import PageCode, RamBatch
from cprformats.migration.ramparts import (
    KINDS,
    PageKind,
    RamBlock,
    RamBlocks,
    RamContext,
    RamEvent,
)
from cprformats.migration.wire import RamFlag
from cprformats.source import Source

__all__ = ["BlockStats", "RamCounter", "RamStats"]


@dataclass(frozen=True, slots=True)
class BlockStats:
    """One RAMBlock and its pages.

    Attributes:
        block: the block.
        pages: page records by kind; a page sent twice counts twice. Under
            mapped-ram: pages present, and the others as zero.
        stream_bytes: bytes of its records, heads included.
    """

    block: RamBlock
    pages: dict[PageKind, int]
    stream_bytes: int


@dataclass(frozen=True, slots=True)
class RamStats:
    """The RAM of a stream.

    Attributes:
        context: what decided how the records were read.
        blocks: by idstr, in the order of the block list.
        entries: offset of a RAM section, and the block that CONTINUE stood for
            from there on; only where it changed.
        per_block: counts, in the same order.
        tally: bytes of all RAM bodies by kind.
        flushes: there is a MULTIFD_FLUSH: pages are in other channels.
    """

    context: RamContext
    blocks: dict[str, RamBlock]
    entries: tuple[tuple[int, str], ...]
    per_block: tuple[BlockStats, ...]
    tally: Tally
    flushes: bool = False

    def block_at(self, offset: int) -> str:
        """Give the block that CONTINUE stood for where a section begins."""
        number = bisect_right(self.entries, offset, key=lambda entry: entry[0])
        return self.entries[number - 1][1] if number else ""


@dataclass(slots=True)
class RamCounter:
    """Gathers `RamStats` part by part."""

    source: Source
    context: RamContext
    blocks: dict[str, RamBlock] = field(default_factory=dict)
    _entries: list[tuple[int, str]] = field(default_factory=list)
    _pages: dict[str, Counter[PageKind]] = field(default_factory=dict)
    _bytes: Counter[str] = field(default_factory=Counter)
    _kinds: Counter[Kind] = field(default_factory=Counter)
    _flushes: bool = False

    def enter(self, offset: int, block: str) -> None:
        """Note which block CONTINUE stands for where a section begins."""
        if not self._entries or self._entries[-1][1] != block:
            self._entries.append((offset, block))

    def add_marks(self, size: int) -> None:
        """Count the bytes of records without pages."""
        self._kinds[Kind.RAM_HEAD] += size

    def add(self, event: RamEvent) -> None:
        """Count one event."""
        if isinstance(event, RamBatch):
            self._add_batch(event)
            return
        for kind, size in tally([event.field]).by_kind.items():
            self._kinds[kind] += size
        if isinstance(event, RamBlocks):
            for block in event.blocks:
                self._add_mapped(block)
        else:
            self._flushes = self._flushes or event.flag is RamFlag.MULTIFD_FLUSH

    def _add_batch(self, batch: RamBatch) -> None:
        pages = self._pages.setdefault(batch.block, Counter())
        data, zero = batch.kinds.count(PageCode.DATA), batch.kinds.count(PageCode.ZERO)
        if data:
            pages[PageKind.DATA] += data
        if zero:
            pages[PageKind.ZERO] += zero
        self._bytes[batch.block] += batch.size
        payload = data * self.context.page_size + zero
        if not payload:
            payload = self._odd(batch, pages)
        self._kinds[Kind.PAGE] += payload
        self._kinds[Kind.RAM_HEAD] += batch.size - payload

    def _odd(self, batch: RamBatch, pages: Counter[PageKind]) -> int:
        """Count a page of the kinds that come alone; give the size of its contents."""
        code = PageCode(batch.kinds[0])
        pages[KINDS[code]] += 1
        # In front of the contents: XBZRLE has 3 bytes, a compressed page 4, a fill byte none.
        own_head = {PageCode.XBZRLE: 3, PageCode.COMPRESSED: 4}.get(code, 0)
        return batch.size - batch.head - own_head

    def _add_mapped(self, block: RamBlock) -> None:
        mapped = block.mapped
        if mapped is None or not mapped.pages_offset:
            return
        present = mapped.present(self.source)
        pages = -(-block.used_length // mapped.page_size)
        counts = {PageKind.DATA: present, PageKind.ZERO: max(pages - present, 0)}
        self._pages[block.idstr] = Counter(counts)
        self._bytes[block.idstr] = block.used_length

    def freeze(self) -> RamStats:
        """Give the counts as a value."""
        per_block = tuple(
            BlockStats(block, dict(self._pages.get(name, {})), self._bytes[name])
            for name, block in self.blocks.items()
        )
        return RamStats(
            self.context,
            dict(self.blocks),
            tuple(self._entries),
            per_block,
            Tally(dict(self._kinds)),
            self._flushes,
        )
