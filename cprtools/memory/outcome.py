"""What came of taking memory out: which files were made, and where the holes are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from cprformats.memory.contents import BadPage

if TYPE_CHECKING:
    from cprformats.errors import FormatError
    from cprformats.guest import PhysicalRange
    from cprformats.memory.census import BlockCensus, Census
    from cprformats.migration import MigrationStream
    from cprformats.migration.resync import Gap

__all__ = ["Hole", "Outcome", "make_outcome"]

#: More is counted and not listed.
_MOST_HOLES = 10_000
_UNTOLD = (
    "which pages were in the bytes passed over can't be told: "
    "some may be as an earlier pass sent them"
)


@dataclass(frozen=True, slots=True)
class Hole:
    """Pages whose contents are not what the guest had.

    Attributes:
        block: idstr.
        address: of the first page in the block, in bytes.
        size: in bytes.
        why: ``never`` (not in the file), ``bad`` (could not be decoded), or ``lost``
            (in a part of the stream that was passed over: they have what an earlier
            pass sent, or zeros).
        words: what is wrong, if something is.
    """

    block: str
    address: int
    size: int
    why: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        blocks: the counts of each block.
        files: path of the file that has a block, by idstr.
        holes: in no special order; at most 10,000.
        more_holes: there are more.
        gaps: bytes of the stream that were passed over.
        notes: what was assumed or left out, in plain words.
        ranges: where the blocks are in guest-physical memory, if that was asked for.
        error: of the first page that could not be decoded.
    """

    blocks: tuple[BlockCensus, ...]
    files: Mapping[str, str]
    holes: tuple[Hole, ...]
    more_holes: bool
    gaps: tuple[Gap, ...] = ()
    notes: tuple[str, ...] = ()
    ranges: tuple[PhysicalRange, ...] = ()
    error: FormatError | None = None


def make_outcome(
    stream: MigrationStream,
    census: Census,
    bad: Sequence[BadPage],
    files: Mapping[str, str],
    notes: tuple[str, ...] = (),
    ranges: tuple[PhysicalRange, ...] = (),
) -> Outcome:
    """Gather the holes of the blocks that were written."""
    blocks = tuple(block for block in census.report() if block.idstr in files)
    found = tuple(islice(_holes(stream, census, blocks, bad), _MOST_HOLES + 1))
    more = len(found) > _MOST_HOLES
    error = bad[0].error if bad else None
    notes = (*notes, *stream.warnings)
    if any(gap.pages is None and gap.size for gap in stream.gaps):
        notes = (*notes, _UNTOLD)
    return Outcome(blocks, files, found[:_MOST_HOLES], more, stream.gaps, notes, ranges, error)


def _holes(
    stream: MigrationStream,
    census: Census,
    blocks: Sequence[BlockCensus],
    bad: Sequence[BadPage],
) -> Iterator[Hole]:
    names = {block.idstr for block in blocks}
    for page in bad:
        if page.block in names:
            yield Hole(page.block, page.address, page.length, "bad", str(page.error))
    for gap in stream.gaps:
        if gap.block in names and gap.pages:
            size = gap.pages * stream.page_size
            yield Hole(gap.block, gap.address, size, "lost", str(gap.error))
    for block in blocks:
        for first, count in census.missing(block.idstr):
            address, size = first * block.page_size, count * block.page_size
            yield Hole(block.idstr, address, min(size, block.size - address), "never")
