"""Count how the pages of each RAMBlock were sent, while the stream is framed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cprformats.fields import Kind, Tally, tally
from cprformats.migration.ram import (
    PageKind,
    RamBlock,
    RamBlocks,
    RamContext,
    RamPart,
    RamRun,
)
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
        entry_block: offset of a RAM section -> block that CONTINUE stood for.
        per_block: counts, in the same order.
        tally: bytes of all RAM bodies by kind.
    """

    context: RamContext
    blocks: dict[str, RamBlock]
    entry_block: dict[int, str]
    per_block: tuple[BlockStats, ...]
    tally: Tally


@dataclass(slots=True)
class RamCounter:
    """Gathers `RamStats` part by part."""

    source: Source
    context: RamContext
    blocks: dict[str, RamBlock] = field(default_factory=dict)
    entry_block: dict[int, str] = field(default_factory=dict)
    _pages: dict[str, Counter[PageKind]] = field(default_factory=dict)
    _bytes: Counter[str] = field(default_factory=Counter)
    _kinds: Counter[Kind] = field(default_factory=Counter)

    def add(self, part: RamPart) -> None:
        """Count one part."""
        if isinstance(part, RamRun):
            self._add_run(part)
            return
        for kind, size in tally([part.field]).by_kind.items():
            self._kinds[kind] += size
        if isinstance(part, RamBlocks):
            for block in part.blocks:
                self._add_mapped(block)

    def _add_run(self, run: RamRun) -> None:
        self._pages.setdefault(run.block, Counter())[run.kind] += run.count
        self._bytes[run.block] += run.size
        if run.kind is PageKind.DATA:
            payload = run.count * self.context.page_size
        elif run.kind is PageKind.ZERO:
            payload = run.count
        else:
            # A run of this kind is one record: 8 bytes, the name, then its own head.
            name = 1 + len(run.block.encode("utf-8", "surrogateescape")) if run.named else 0
            payload = run.size - 8 - name - (3 if run.kind is PageKind.XBZRLE else 4)
        self._kinds[Kind.PAGE] += payload
        self._kinds[Kind.RAM_HEAD] += run.size - payload

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
            dict(self.entry_block),
            per_block,
            Tally(dict(self._kinds)),
        )
