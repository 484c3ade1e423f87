"""What ``cprtools ram`` says after it wrote files: blocks, ranges, holes."""

from __future__ import annotations

from collections.abc import Sequence

from cprtools.memory.outcome import Hole, Outcome
from cprtools.report.output import Column, Output
from cprtools.report.words import count, size_words

__all__ = ["write_outcome"]

_MOST_LINES = 40
_WHY = {
    "never": "not in the file",
    "bad": "can't be decoded",
    "lost": "in damaged bytes",
}


def write_outcome(out: Output, outcome: Outcome) -> None:
    """Write what was made, and what is not whole in it."""
    out.table(
        (
            Column("block", style="name", fold=True),
            Column("size", right=True),
            Column("data", right=True),
            Column("zero", right=True),
            Column("never sent", right=True),
            Column("file", fold=True),
        ),
        (
            [
                block.idstr,
                size_words(block.size),
                *(
                    size_words(pages * block.page_size)
                    for pages in (block.data, block.zero, block.never)
                ),
                outcome.files[block.idstr],
            ]
            for block in outcome.blocks
        ),
    )
    if outcome.ranges:
        _ranges(out, outcome)
    _holes(out, outcome.holes, more=outcome.more_holes)
    for gap in outcome.gaps:
        out.line(("  passed over ", "warn"), f"{gap.size} bytes of the stream at {gap.offset:#x}")
    for note in outcome.notes:
        out.line(("  note: ", "dim"), note)


def _ranges(out: Output, outcome: Outcome) -> None:
    out.line()
    columns = ("from", "to", "kind", "block", "offset")
    out.table(
        [Column(name, right=name in ("from", "to", "offset")) for name in columns],
        (
            [f"{one.start:#x}", f"{one.end - 1:#x}", one.kind, one.block, f"{one.offset:#x}"]
            for one in outcome.ranges
        ),
    )


def _holes(out: Output, holes: Sequence[Hole], *, more: bool) -> None:
    if not holes:
        return
    out.line()
    total = size_words(sum(hole.size for hole in holes))
    known = "more than " if more else ""
    out.line(("Holes  ", "head"), f"{known}{count(len(holes), 'range')}, {total}")
    for hole in holes[:_MOST_LINES]:
        place = f"  {hole.block}  {hole.address:#x} to {hole.address + hole.size - 1:#x}  "
        words = f": {hole.words}" if hole.words else ""
        out.line(place, (_WHY[hole.why], "warn"), words)
    if len(holes) > _MOST_LINES:
        out.line(("  …", "dim"))
