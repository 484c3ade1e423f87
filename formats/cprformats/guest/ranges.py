"""Ranges of guest-physical addresses, and what lies over what.

QEMU builds an address space of regions with priorities; here it is layers of
ranges that are laid one over the other, each hiding what is below it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from cprformats.errors import FormatError, Unsupported

__all__ = [
    "BadLayout",
    "NoLayout",
    "PhysicalLayout",
    "PhysicalRange",
    "clipped",
    "cut",
    "joined",
    "overlaid",
    "overlap",
]


class NoLayout(Unsupported):
    """Where the blocks lie in the guest's address space can't be told from the stream."""

    def __str__(self) -> str:
        """The message alone: it has no place in the file."""
        return self.message


class BadLayout(FormatError):
    """What the user said of blocks and addresses does not fit the stream."""

    def __str__(self) -> str:
        """The message alone: it has no place in the file."""
        return self.message


@dataclass(frozen=True, slots=True)
class PhysicalRange:
    """Guest-physical addresses that show a part of one RAMBlock.

    Attributes:
        start: guest-physical address of the first byte.
        size: in bytes.
        block: idstr of the block.
        offset: of the first byte in the block, in bytes.
        kind: ``ram``, ``rom``, ``flash``, ``device`` (memory of a PCI device) or
            ``hotplug`` (a DIMM or virtio-mem).
    """

    start: int
    size: int
    block: str
    offset: int
    kind: str = "ram"

    @property
    def end(self) -> int:
        """Address behind the last byte."""
        return self.start + self.size

    def part(self, start: int, end: int) -> PhysicalRange:
        """Give the part between two addresses that lie in the range."""
        offset = self.offset + start - self.start
        return replace(self, start=start, size=end - start, offset=offset)

    def continued_by(self, other: PhysicalRange) -> bool:
        """Say whether the other follows at once, in the addresses and in the same block."""
        return (
            self.end == other.start
            and self.offset + self.size == other.offset
            and (self.block, self.kind) == (other.block, other.kind)
        )


@dataclass(frozen=True, slots=True)
class PhysicalLayout:
    """Which guest-physical addresses show which bytes of which RAMBlock.

    Attributes:
        machine: the machine type's name, as in the stream.
        ranges: by address, without overlap.
        notes: what was assumed or left out, in plain words.
    """

    machine: str
    ranges: tuple[PhysicalRange, ...]
    notes: tuple[str, ...] = ()


def _pieces(
    one: PhysicalRange, holes: Sequence[PhysicalRange], starts: Sequence[int]
) -> Iterator[PhysicalRange]:
    at = one.start
    index = max(bisect_right(starts, at) - 1, 0)
    while index < len(holes) and holes[index].start < one.end:
        hole = holes[index]
        if hole.start > at:
            yield one.part(at, hole.start)
        at = max(at, hole.end)
        index += 1
    if at < one.end:
        yield one.part(at, one.end)


def _under(below: Iterable[PhysicalRange], above: Sequence[PhysicalRange]) -> list[PhysicalRange]:
    starts = [one.start for one in above]
    return [piece for one in below for piece in _pieces(one, above, starts)]


def overlaid(
    below: Iterable[PhysicalRange], *layers: Iterable[PhysicalRange]
) -> tuple[PhysicalRange, ...]:
    """Lay ranges over others, the last on top; no side overlaps itself.

    What is outside of 64-bit addresses, or empty, is dropped. The result is by address.
    """
    result = sorted(filter(_is_sane, below), key=_start)
    for layer in layers:
        above = sorted(filter(_is_sane, layer), key=_start)
        result = sorted((*_under(result, above), *above), key=_start)
    return tuple(result)


def _is_sane(one: PhysicalRange) -> bool:
    return 0 <= one.start < one.end <= 1 << 64


def _start(one: PhysicalRange) -> int:
    return one.start


def cut(ranges: Iterable[PhysicalRange], start: int, size: int) -> tuple[PhysicalRange, ...]:
    """Take some addresses out."""
    return tuple(_under(ranges, [PhysicalRange(start, size, "", 0)]))


def clipped(ranges: Iterable[PhysicalRange], start: int, size: int) -> tuple[PhysicalRange, ...]:
    """Keep some addresses only."""
    end = start + size
    inside = (one for one in ranges if one.start < end and start < one.end)
    return tuple(one.part(max(one.start, start), min(one.end, end)) for one in inside)


def joined(ranges: Sequence[PhysicalRange]) -> tuple[PhysicalRange, ...]:
    """Make one of ranges that continue each other in a block; they come by address."""
    result: list[PhysicalRange] = []
    for one in ranges:
        if result and result[-1].continued_by(one):
            result[-1] = replace(result[-1], size=result[-1].size + one.size)
        else:
            result.append(one)
    return tuple(result)


def overlap(ranges: Sequence[PhysicalRange]) -> tuple[PhysicalRange, PhysicalRange] | None:
    """Find two ranges that overlap; they come by address."""
    ends = [one.end for one in ranges]
    for index, one in enumerate(ranges[1:], 1):
        if one.start < ends[index - 1]:
            return ranges[index - 1], one
    return None
