"""Decode the records of a run of pages into fields, when they are to be shown one by one."""

from __future__ import annotations

from collections.abc import Iterator

from cprformats.codecs import DataRef
from cprformats.fields import Field, Kind
from cprformats.migration.ramparts import PageKind, RamRun
from cprformats.reader import Reader
from cprformats.source import Source

__all__ = ["run_fields"]

_PAGES_PER_GROUP = 1024


def run_fields(source: Source, run: RamRun, page_size: int) -> Iterator[Field]:
    """Decode the records of a run again, page by page, in groups of bounded size."""
    reader = Reader(source, run.offset, run.offset + run.size, kind=Kind.RAM_HEAD)
    done = 0
    while done < run.count:
        start = reader.offset
        pages = min(run.count - done, _PAGES_PER_GROUP)
        reader = Reader(source, start, run.offset + run.size, kind=Kind.RAM_HEAD)
        for number in range(done, done + pages):
            _record(reader, run, named=run.named and number == 0, page_size=page_size)
        first = run.address + done * page_size
        done += pages
        yield reader.finish(f"{run.block}+{first:#x}", f"{run.kind} pages")


def _record(reader: Reader, run: RamRun, *, named: bool, page_size: int) -> None:
    reader.number("record", "u64be", meaning="ram-flags")
    if named:
        reader.counted_text("idstr")
    if run.kind in (PageKind.ZERO, PageKind.FILL):
        reader.number("fill", "u8", kind=Kind.PAGE)
    elif run.kind is PageKind.DATA:
        ref = DataRef(reader.source, reader.offset, page_size)
        offset = reader.offset
        reader.add(Field("page", "page", "bytes", Kind.PAGE, offset, page_size, ref))
    elif run.kind is PageKind.XBZRLE:
        reader.number("encoding", "u8")
        reader.blob("delta", reader.number("length", "u16be"), kind=Kind.PAGE)
    else:
        reader.blob("zlib", reader.number("length", "u32be"), kind=Kind.PAGE)
