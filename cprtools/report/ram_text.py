"""The pages of ``cprtools ram``: a table of blocks, and the picture of memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cprformats.memory.census import BlockCensus, Census
from cprtools.report.heat import heat_lines, legend
from cprtools.report.output import Column, Output
from cprtools.report.words import size_words

if TYPE_CHECKING:
    from cprformats.migration import MigrationStream

__all__ = ["write_table"]

_CELLS_PER_LINE = 64
_MOST_LINES = 16
_LEAST_LINE_BYTES = 4 << 20
_PICTURE_BYTES = 1 << 20


def write_table(
    out: Output,
    name: str,
    stream: MigrationStream,
    census: Census,
    only: Sequence[str] = (),
    *,
    picture: bool = True,
) -> None:
    """Write a row for each block, then a picture of those that are not small."""
    blocks = [b for b in census.report() if not only or b.idstr in only]
    machine = stream.machine or "machine type not in the stream"
    total = sum(block.size for block in blocks)
    out.line((f"{name}: ", "title"), f"{size_words(total)} in {len(blocks)} blocks, {machine}")
    out.line()
    out.table(_columns(blocks), [_row(block) for block in blocks])
    for text in stream.warnings:
        out.line(("  warning: ", "warn"), text)
    if picture:
        for block in blocks:
            if block.size >= _PICTURE_BYTES:
                _picture(out, census, block)
        out.line()
        out.line(("  " + legend(unicode=_unicode(out)), "dim"))


def _columns(blocks: Sequence[BlockCensus]) -> list[Column]:
    columns = [
        Column("block", style="name", fold=True),
        Column("size", right=True),
        Column("page", right=True),
        Column("data", right=True),
        Column("zero", right=True),
        Column("never sent", right=True),
        Column("sent again", right=True),
        Column("in file", right=True),
    ]
    if any(block.address is not None for block in blocks):
        columns.insert(1, Column("address", right=True))
    return columns


def _row(block: BlockCensus) -> list[str]:
    row = [block.idstr, size_words(block.size), size_words(block.page_size)]
    row += [str(n) for n in (block.data, block.zero, block.never, block.again)]
    row.append(size_words(block.stream_bytes))
    if block.address is not None:
        row.insert(1, f"{block.address:#x}")
    return row


def _picture(out: Output, census: Census, block: BlockCensus) -> None:
    lines = min(max(block.size // _LEAST_LINE_BYTES, 1), _MOST_LINES)
    cells = census.cells(block.idstr, lines * _CELLS_PER_LINE)
    step = -(-block.pages // len(cells)) * block.page_size
    out.line()
    out.line("  ", (block.idstr, "name"), (f"  {size_words(step)} a character", "dim"))
    out.lines(heat_lines(cells, step, _CELLS_PER_LINE, unicode=_unicode(out)))


def _unicode(out: Output) -> bool:
    encoding = getattr(out.file, "encoding", None) or "utf-8"
    return "utf" in encoding.lower() and os.environ.get("TERM") != "dumb"
