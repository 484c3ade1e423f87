"""Find the next RAM record behind damage, so that the pages there are not lost with it.

Only what can't be taken for something else is accepted:

- a record with CONTINUE, of the same block, whose distance in bytes fits its
  distance in pages exactly: ``gap = zeros * 9 + data * (8 + page size)`` with
  ``zeros + data`` pages between them;
- a record that names a block that is known, and a page inside it;
- the footer of the RAM section, with a section type behind it.

The pages between are lost: they keep what an earlier pass sent, or never came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from cprformats.errors import FormatError
from cprformats.migration.ramparts import RamBlock
from cprformats.migration.wire import RamFlag, SectionType
from cprformats.source import Source

__all__ = ["BETWEEN", "INSIDE", "Gap", "Resume", "Resync"]

_PIECE_BYTES = 1 << 20
#: A record's head with the longest name, so that none is cut between two pieces.
_OVERLAP_BYTES = 8 + 1 + 255 + 8
_ZERO_BYTES = 9
#: What else may be behind damage inside a section: nothing, or its end mark, its footer and
#: the head of the next.
INSIDE = (0, 18)
#: And behind damage between sections: the head of the next, a footer and the head.
BETWEEN = (5, 10)
#: The end of one section and the head of the next.
_NEXT_SECTION = 18
_FOLLOWING = frozenset(bytes([kind]) for kind in range(9))
_SINGLE = frozenset(
    int(flag) for flag in (RamFlag.ZERO, RamFlag.PAGE, RamFlag.XBZRLE, RamFlag.COMPRESS_PAGE)
)


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes of a stream that were passed over.

    Attributes:
        offset: of the first one, absolute.
        size: in bytes.
        block: idstr of the block that was being sent.
        address: of the first page that may be lost, in bytes.
        pages: how many pages of this block may be lost; None if that can't be told.
        error: what is wrong there.
    """

    offset: int
    size: int
    block: str
    address: int
    pages: int | None
    error: FormatError


@dataclass(frozen=True, slots=True)
class Resume:
    """Where reading can go on.

    Attributes:
        offset: absolute.
        footer: it is the footer of the RAM section, not a record.
        pages: pages of the same block between; None if it is another block, or unknown.
    """

    offset: int
    footer: bool = False
    pages: int | None = None


@dataclass(frozen=True, slots=True)
class Resync:
    """Looks for a place to go on.

    Attributes:
        source: the stream.
        end: where it ends; None for the source's end.
        page_size: target page size in bytes.
        blocks: by idstr.
        section_id: of the RAM section.
        others: bytes that are no record and may be in a gap, besides what is damaged.
    """

    source: Source
    end: int | None
    page_size: int
    blocks: Mapping[str, RamBlock]
    section_id: int
    others: tuple[int, ...]

    def follows(self, start: int, block: str, address: int, at: int) -> int | None:
        """Say whether the first record of the next section, at `at`, goes on with the block.

        Gives:
            The pages that were between, or None if it may be of another block.
        """
        page = self._page(word := self.source.read_at(at, 8)) if block in self.blocks else None
        if page is None or page >= self.blocks[block].used_length or not word[7] & RamFlag.CONTINUE:
            return None
        return self._between(at - start - _NEXT_SECTION, page - address)

    def find(self, start: int, block: str, address: int) -> Resume | None:
        """Search from `start`, where page `address` of `block` was expected."""
        for base, data in self._pieces(start):
            found = [
                *islice(self._following(base, data, start, block, address), 1),
                *(one for name in self.blocks for one in islice(self._named(base, data, name), 1)),
                *islice(self._footers(base, data), 1),
            ]
            # At the start itself only a footer whose end mark is lost.
            behind = [one for one in found if one.offset > start or one.footer]
            if behind:
                return min(behind, key=lambda one: one.offset)
        return None

    def _following(
        self, base: int, data: bytes, start: int, block: str, address: int
    ) -> Iterator[Resume]:
        """Find records of the same block that are just as far away as their pages say."""
        if block not in self.blocks:
            return
        size = self.blocks[block].used_length
        zeros = 8 - max((size.bit_length() + 7) // 8, 2)
        word = re.compile(rb"(?s)\0{%d}.{%d}[\x20\x22\x28\x60]" % (zeros, 7 - zeros))
        # Matches may overlap: each place is looked at.
        at = 0
        while (match := word.search(data, at)) is not None:
            at = match.start() + 1
            page = self._page(match[0])
            if page is None or page >= size or not match[0][7] & RamFlag.CONTINUE:
                continue
            pages = self._between(base + match.start() - start, page - address)
            if pages is not None:
                yield Resume(base + match.start(), pages=pages)

    def _named(self, base: int, data: bytes, name: str) -> Iterator[Resume]:
        """Find records that name a block."""
        raw = name.encode("utf-8", "surrogateescape")
        counted = bytes([len(raw)]) + raw
        at = data.find(counted, 8)
        while at >= 0:
            page = self._page(data[at - 8 : at])
            if page is not None and page < self.blocks[name].used_length:
                yield Resume(base + at - 8)
            at = data.find(counted, at + 1)

    def _footers(self, base: int, data: bytes) -> Iterator[Resume]:
        """Find the footer of the RAM section, with something that can follow it."""
        footer = bytes([SectionType.FOOTER]) + self.section_id.to_bytes(4)
        at = data.find(footer)
        while at >= 0:
            if data[at + len(footer) : at + len(footer) + 1] in _FOLLOWING:
                yield Resume(base + at, footer=True)
            at = data.find(footer, at + 1)

    def _page(self, word: bytes) -> int | None:
        """Give the address in a record's first word, if it can be one."""
        value = int.from_bytes(word)
        flags = value & (self.page_size - 1)
        return value - flags if flags & ~int(RamFlag.CONTINUE) in _SINGLE else None

    def _between(self, gap: int, distance: int) -> int | None:
        """Give the pages that were between, if the bytes between fit them."""
        pages = distance // self.page_size
        for other in self.others:
            rest = gap - other - _ZERO_BYTES * pages
            data, left = divmod(rest, self.page_size + 8 - _ZERO_BYTES)
            if not left and 0 <= data <= pages:
                return pages
        return None

    def _pieces(self, start: int) -> Iterator[tuple[int, bytes]]:
        at = start
        while True:
            count = _PIECE_BYTES + _OVERLAP_BYTES
            if self.end is not None:
                count = min(count, self.end - at)
            data = self.source.read_at(at, count)
            if data:
                yield at, data
            if len(data) < _PIECE_BYTES + _OVERLAP_BYTES:
                return
            # What was looked through is not asked for again: a pipe need not keep it.
            self.source.drop(at, _PIECE_BYTES)
            at += _PIECE_BYTES
