"""Look into guest memory without taking it out: places, search, what changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cprformats.memory.block import MemoryBlock, RunKind

__all__ = [
    "Change",
    "Match",
    "Place",
    "changes",
    "parse_length",
    "parse_needle",
    "parse_place",
    "search",
]

_PIECE_BYTES = 1 << 20
_NUMBER = re.compile(r"(0x[0-9a-f]+|\d+)([kmgt]?)(?:i?b)?", re.IGNORECASE)
_HEX = re.compile(r"(?:0x)?((?:[0-9a-f]{2}[ :]?)+)", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


@dataclass(frozen=True, slots=True)
class Place:
    """A place in memory.

    Attributes:
        block: idstr, or None for guest-physical memory.
        offset: in the block, or the address.
    """

    block: str | None
    offset: int


@dataclass(frozen=True, slots=True)
class Match:
    """Where a search found something.

    Attributes:
        block: idstr.
        offset: of the first byte in the block.
    """

    block: str
    offset: int


@dataclass(frozen=True, slots=True)
class Change:
    """Pages of a block that differ between two files.

    Attributes:
        block: idstr.
        address: of the first page in the block, in bytes.
        size: in bytes.
        kind: ``changed``, or ``first only`` and ``second only`` where the other file
            does not have the pages.
    """

    block: str
    address: int
    size: int
    kind: str


def parse_length(text: str) -> int:
    """Read a number: decimal or 0x..., and K, M, G or T behind it.

    Raises:
        ValueError: it is none.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a number such as 4096, 0x1000 or 4K, found {text!r}")
    return int(match[1], 0) << _UNITS[match[2].lower()]


def parse_place(text: str, blocks: Mapping[str, object]) -> Place:
    """Read a place: a guest-physical address, BLOCK or BLOCK+OFFSET.

    Raises:
        ValueError: it is neither.
    """
    if text in blocks:
        return Place(text, 0)
    name, plus, offset = text.rpartition("+")
    if plus and name in blocks:
        return Place(name, parse_length(offset))
    try:
        return Place(None, parse_length(text))
    except ValueError:
        known = ", ".join(blocks)
        raise ValueError(
            f"expected an address or BLOCK+OFFSET with one of {known}, found {text!r}"
        ) from None


def parse_needle(text: str) -> bytes:
    """Read what to search for: hex digits in pairs, else text; ``hex:`` and ``text:`` decide.

    Raises:
        ValueError: nothing is left to search for, or ``hex:`` has no digits in pairs.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind == "text":
        needle = rest.encode("utf-8", "surrogateescape")
    elif colon and kind == "hex":
        needle = _hex(rest)
    else:
        match = _HEX.fullmatch(text)
        needle = _hex(match[1]) if match else text.encode("utf-8", "surrogateescape")
    if not needle:
        raise ValueError("expected bytes or text to search for, found nothing")
    return needle


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text.replace(":", " "))
    except ValueError:
        raise ValueError(f"expected hex digits in pairs, found {text!r}") from None


def search(block: MemoryBlock, needle: bytes) -> Iterator[Match]:
    """Give all places of a block where the bytes are, also those that overlap."""
    # Zeros may be anywhere; all else has at least a byte in a page with data.
    reach = len(needle) if any(needle) else block.size
    for start, end in _stretches(block, reach):
        at = start
        while at + len(needle) <= end:
            data = block.read(at, min(_PIECE_BYTES + len(needle) - 1, end - at))
            found = data.find(needle)
            while found >= 0:
                yield Match(block.idstr, at + found)
                found = data.find(needle, found + 1)
            at += _PIECE_BYTES


def _stretches(block: MemoryBlock, reach: int) -> Iterator[tuple[int, int]]:
    """Give the parts of a block that have data, with `reach` zeros around them."""
    start = end = -1
    for run in block.runs():
        if run.kind is not RunKind.DATA:
            continue
        first = max(run.start * block.page_size - reach, 0)
        last = min((run.start + run.count) * block.page_size + reach, block.size)
        if first <= end:
            end = last
            continue
        if start >= 0:
            yield start, end
        start, end = first, last
    if start >= 0:
        yield start, end
    elif reach >= block.size:
        yield 0, block.size


def changes(first: MemoryBlock, second: MemoryBlock) -> Iterator[Change]:
    """Give the pages that differ, in runs; the blocks are compared as far as both go."""
    size = first.page_size
    start = end = 0
    kind = ""
    for page, found in _differences(first, second):
        if page != end or found != kind:
            if end > start:
                yield Change(first.idstr, start * size, (end - start) * size, kind)
            start, kind = page, found
        end = page + 1
    if end > start:
        yield Change(first.idstr, start * size, (end - start) * size, kind)


def _differences(first: MemoryBlock, second: MemoryBlock) -> Iterator[tuple[int, str]]:
    size = first.page_size
    for start, count, kinds in _common_runs(first, second):
        if RunKind.NEVER in kinds:
            if kinds[0] is not kinds[1]:
                word = "second only" if kinds[0] is RunKind.NEVER else "first only"
                yield from ((page, word) for page in range(start, start + count))
        elif RunKind.DATA in kinds:
            for page in _unequal(first, second, start * size, count * size):
                yield page, "changed"


def _common_runs(
    first: MemoryBlock, second: MemoryBlock
) -> Iterator[tuple[int, int, tuple[RunKind, RunKind]]]:
    """Give runs of pages that are of one kind in either block."""
    theirs = second.runs()
    other = next(theirs, None)
    for run in first.runs():
        at, end = run.start, run.start + run.count
        while at < end and other is not None:
            other_end = other.start + other.count
            stop = min(end, other_end)
            if stop > at:
                yield at, stop - at, (run.kind, other.kind)
                at = stop
            if other_end <= stop:
                other = next(theirs, None)


def _unequal(first: MemoryBlock, second: MemoryBlock, start: int, length: int) -> Iterator[int]:
    size, end = first.page_size, start + length
    for at in range(start, end, _PIECE_BYTES):
        count = min(_PIECE_BYTES, end - at)
        one, two = first.read(at, count), second.read(at, count)
        if one == two:
            continue
        for place in range(0, count, size):
            if one[place : place + size] != two[place : place + size]:
                yield (at + place) // size
