"""What the body of a RAM section consists of: block list, runs of pages, marks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from cprformats.fields import Field
from cprformats.memory.batch import PageCode, RamBatch
from cprformats.migration.mapped import MappedRam
from cprformats.migration.wire import RamFlag

__all__ = [
    "KINDS",
    "PageKind",
    "RamBlock",
    "RamBlocks",
    "RamContext",
    "RamEvent",
    "RamMark",
    "RamPart",
    "RamRun",
    "merge_runs",
]

_UNIFORM = re.compile(rb"(?s)(.)\1*")


class PageKind(StrEnum):
    """How a page's contents were sent."""

    ZERO = "zero"
    DATA = "data"
    XBZRLE = "xbzrle"
    COMPRESSED = "compressed"
    #: A ZERO record whose byte is not 0; loaders of today refuse it.
    FILL = "fill"


@dataclass(frozen=True, slots=True)
class RamBlock:
    """One RAMBlock of the block list.

    Attributes:
        idstr: the block's name.
        used_length: in bytes.
        page_size: of the backing memory, where it was sent (postcopy).
        address: of the memory region, where it was sent (x-ignore-shared).
        mapped: where its pages lie in the file (mapped-ram), if there.
    """

    idstr: str
    used_length: int
    page_size: int | None = None
    address: int | None = None
    mapped: MappedRam | None = None


@dataclass(frozen=True, slots=True)
class RamRun:
    """Page records of one block that follow each other, pages and bytes both.

    Attributes:
        block: idstr of the block.
        address: offset of the first page in the block, in bytes.
        count: pages.
        kind: how they were sent.
        offset: of the first record, absolute.
        size: bytes of the records, heads included.
        named: the first record carries the block's name.
    """

    block: str
    address: int
    count: int
    kind: PageKind
    offset: int
    size: int
    named: bool


@dataclass(frozen=True, slots=True)
class RamBlocks:
    """The block list (MEM_SIZE).

    Attributes:
        blocks: in file order.
        field: the list decoded, with bitmaps and pages under mapped-ram.
    """

    blocks: tuple[RamBlock, ...]
    field: Field


@dataclass(frozen=True, slots=True)
class RamMark:
    """A record without a page: EOS, HOOK, MULTIFD_FLUSH.

    Attributes:
        flag: which.
        field: the record decoded.
    """

    flag: RamFlag
    field: Field


RamPart = RamBlocks | RamRun | RamMark


@dataclass(frozen=True, slots=True)
class RamContext:
    """What the rest of the stream says about how to read RAM.

    Attributes:
        page_size: target page size in bytes.
        ignore_shared: x-ignore-shared is on: blocks carry an address.
        mapped_ram: mapped-ram is on: blocks carry a bitmap and all their pages.
        postcopy: POSTCOPY_ADVISE was seen: blocks of large pages carry their size.
    """

    page_size: int
    ignore_shared: bool = False
    mapped_ram: bool = False
    postcopy: bool = False


RamEvent = RamBlocks | RamBatch | RamMark

KINDS = {
    PageCode.ZERO: PageKind.ZERO,
    PageCode.DATA: PageKind.DATA,
    PageCode.XBZRLE: PageKind.XBZRLE,
    PageCode.COMPRESSED: PageKind.COMPRESSED,
    PageCode.FILL: PageKind.FILL,
}


def merge_runs(events: Iterable[RamEvent], page_size: int) -> Iterator[RamPart]:
    """Make parts of events: pages of one kind become one run, as long as it gets."""
    run: RamRun | None = None
    for event in events:
        if not isinstance(event, RamBatch):
            if run is not None:
                yield run
            run = None
            yield event
            continue
        for more in _runs(event, page_size):
            if run is not None and _joins(run, more, page_size):
                count, size = run.count + more.count, run.size + more.size
                run = RamRun(run.block, run.address, count, run.kind, run.offset, size, run.named)
                continue
            if run is not None:
                yield run
            run = more
    if run is not None:
        yield run


def _runs(batch: RamBatch, page_size: int) -> Iterator[RamRun]:
    """Split a batch into runs of one kind."""
    offset, address, named = batch.offset, batch.address, batch.head > 8
    end = batch.offset + batch.size
    for match in _UNIFORM.finditer(batch.kinds):
        code, count = PageCode(batch.kinds[match.start()]), match.end() - match.start()
        if match.end() == len(batch.kinds):
            size = end - offset
        else:
            size = count * (8 + (page_size if code is PageCode.DATA else 1))
            size += batch.head - 8 if named else 0
        yield RamRun(batch.block, address, count, KINDS[code], offset, size, named)
        offset, address, named = offset + size, address + count * page_size, False


def _joins(run: RamRun, more: RamRun, page_size: int) -> bool:
    return (
        run.kind is more.kind
        and run.kind in (PageKind.DATA, PageKind.ZERO)
        and not more.named
        and run.address + run.count * page_size == more.address
        and run.offset + run.size == more.offset
        and run.block == more.block
    )
