"""The parts of a stream, in little memory; and those that only repeat, in little time.

A long migration has a PART section for each handler in each round, most of
them alike to the byte: tens of thousands in a minute. A `Section` takes some
300 bytes, so those that a START opened are kept as three numbers and made
again when asked for; and a section whose bytes were all seen before is not
read a second time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import overload

from cprformats.migration.model import Item, Located, Section
from cprformats.migration.wire import SectionType
from cprformats.source import Source

__all__ = ["ItemList", "Repeats"]

_COLUMNS = 3
_OTHER = (1 << 64) - 1
#: A section that repeats holds an end mark and little else.
_MOST_BYTES = 64
_CHUNK_BYTES = 1 << 16


class ItemList(Sequence[Item]):
    """Items in file order; only appending and changing the last are possible."""

    def __init__(self) -> None:
        self._rows = array("Q")  # offset, body size, number of the shape
        self._others: dict[int, Item] = {}
        self._shapes: list[Section] = []
        self._numbers: dict[Section, int] = {}

    def append(self, item: Item) -> None:
        """Add an item at the end."""
        if isinstance(item, Section) and _opened_before(item):
            shape = _shape(item)
            number = self._numbers.setdefault(shape, len(self._shapes))
            if number == len(self._shapes):
                self._shapes.append(shape)
            self._rows.extend((item.offset, item.body_size, number))
        else:
            self._others[len(self)] = item
            self._rows.extend((0, 0, _OTHER))

    def replace_last(self, item: Item) -> None:
        """Put an item in the place of the last one."""
        del self._rows[-_COLUMNS:]
        self._others.pop(len(self), None)
        self.append(item)

    def __len__(self) -> int:
        return len(self._rows) // _COLUMNS

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        """Give one item, or those of a slice."""
        if isinstance(index, slice):
            return [self._item(number) for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(index)
        return self._item(number)

    def __iter__(self) -> Iterator[Item]:
        return map(self._item, range(len(self)))

    def _item(self, number: int) -> Item:
        offset, body_size, shape = self._rows[number * _COLUMNS : (number + 1) * _COLUMNS]
        if shape == _OTHER:
            return self._others[number]
        return replace(self._shapes[shape], offset=offset, body_size=body_size)


def _opened_before(section: Section) -> bool:
    return section.type in (SectionType.PART, SectionType.END) and section.description is None


def _shape(section: Section) -> Section:
    return replace(section, offset=0, body_size=0)


class Repeats:
    """Knows the bytes of small PART sections, by section id, and finds them again.

    Only sections that say where they end, and that leave nothing behind for
    the next, may be learnt: the same bytes then mean the same.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._known: dict[int, tuple[bytes, Section]] = {}
        self._chunk = b""
        self._chunk_offset = 0

    def learn(self, section: Section) -> None:
        """Remember a section that was just read."""
        fits = section.type is SectionType.PART and section.body_size <= _MOST_BYTES
        if fits and section.located is Located.ITSELF and section.description is None:
            data = self._source.read_at(section.offset, section.end - section.offset)
            self._known[section.section_id] = (data, section)

    def find(self, offset: int) -> Section | None:
        """Give the known section whose bytes stand at `offset`, if one does."""
        head = self._ahead(offset, 5)
        if len(head) < 5 or head[0] != SectionType.PART:
            return None
        known = self._known.get(int.from_bytes(head[1:]))
        if known is None or self._ahead(offset, len(known[0])) != known[0]:
            return None
        return known[1]

    def _ahead(self, offset: int, count: int) -> bytes:
        begin = offset - self._chunk_offset
        if not 0 <= begin <= len(self._chunk) - count:
            self._chunk = self._source.read_at(offset, _CHUNK_BYTES)
            self._chunk_offset, begin = offset, 0
        return self._chunk[begin : begin + count]
