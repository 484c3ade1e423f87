"""How each page of a block was sent, in a byte a page or less.

A state is 0 for a page that never came, else the letter of its `PageCode`, in
capitals once the page has come more than once. Guests have long stretches of
one kind: a chunk whose pages are all alike takes one number, and of what never
came nothing is kept. So the memory needed grows with what the file says, not
with the size that it claims for a block.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from cprformats.memory.batch import PageCode

__all__ = ["NEVER", "PageStates", "came_again", "is_data", "is_zero"]

NEVER = 0

_CHUNK_PAGES = 4096
_UNIFORM = re.compile(rb"(?s)(.)\1*")
_DATA = frozenset(b"pPxXcCfF")


class PageStates:
    """The states of one block's pages.

    Args:
        pages: number of pages of the block.
    """

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self._chunks: dict[int, bytearray | int] = {}
        self._current = -1

    def mark(self, first: int, kinds: bytes) -> None:
        """Note that pages came, from page `first` on, one `PageCode` for each."""
        done = 0
        while done < len(kinds):
            number, begin = divmod(first + done, _CHUNK_PAGES)
            piece = kinds[done : done + _CHUNK_PAGES - begin]
            chunk = self._open(number)
            end = begin + len(piece)
            chunk[begin:end] = _over(chunk[begin:end], piece)
            done += len(piece)

    def forget(self, first: int, count: int) -> None:
        """Note that pages were thrown away: they are to come again."""
        end = min(first + count, self.pages)
        low, high = first // _CHUNK_PAGES, -(-end // _CHUNK_PAGES)
        # The range, or what is known, whichever is shorter.
        numbers = range(low, high) if high - low < len(self._chunks) else list(self._chunks)
        for number in numbers:
            if number not in self._chunks:
                continue
            start = number * _CHUNK_PAGES
            begin, stop = max(first - start, 0), min(end - start, _CHUNK_PAGES)
            if stop > begin:
                self._open(number)[begin:stop] = bytes(stop - begin)

    def state(self, page: int) -> int:
        """Give the state of one page."""
        number, place = divmod(page, _CHUNK_PAGES)
        chunk = self._chunks.get(number, NEVER)
        return chunk if isinstance(chunk, int) else chunk[place]

    def untouched(self, first: int, count: int) -> bool:
        """Say whether no page of a range ever came."""
        return all(state == NEVER for _, _, state in self.runs(first, first + count))

    def runs(self, first: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
        """Give runs of pages in one state: first page, number, state."""
        end = self.pages if end is None else min(end, self.pages)
        start, count, state = first, 0, NEVER
        for begin, size, value in self._pieces(first, end):
            if value == state:
                count += size
                continue
            if count:
                yield start, count, state
            start, count, state = begin, size, value
        if count:
            yield start, count, state

    def counts(self, first: int = 0, end: int | None = None) -> Counter[int]:
        """Count the pages of a range by state."""
        end = self.pages if end is None else min(end, self.pages)
        found: Counter[int] = Counter()
        for begin, size, chunk in self._parts(first, end):
            if isinstance(chunk, int):
                found[chunk] += size
                continue
            place = begin % _CHUNK_PAGES
            part = chunk[place : place + size]
            for state in set(part):
                found[state] += part.count(state)
        return found

    def _parts(self, first: int, end: int) -> Iterator[tuple[int, int, bytearray | int]]:
        """Give the chunks of a range, gaps between them as one; first page, number, chunk."""
        chunks = self._chunks
        for number in sorted(n for n in chunks if first < (n + 1) * _CHUNK_PAGES):
            begin = max(number * _CHUNK_PAGES, first)
            if begin >= end:
                break
            if begin > first:
                yield first, begin - first, NEVER
            first = min((number + 1) * _CHUNK_PAGES, end)
            yield begin, first - begin, chunks[number]
        if first < end:
            yield first, end - first, NEVER

    def _pieces(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        for begin, size, chunk in self._parts(first, end):
            if isinstance(chunk, int):
                yield begin, size, chunk
                continue
            place = begin % _CHUNK_PAGES
            for match in _UNIFORM.finditer(chunk, place, place + size):
                yield begin + match.start() - place, match.end() - match.start(), match[0][0]

    def _open(self, number: int) -> bytearray:
        """Give a chunk to write to; the one before is packed if it can be."""
        chunk = self._chunks.get(number)
        if number != self._current:
            self._pack(self._current)
            self._current = number
        if chunk is None or isinstance(chunk, int):
            size = min(_CHUNK_PAGES, self.pages - number * _CHUNK_PAGES)
            chunk = bytearray([chunk or NEVER]) * size
            self._chunks[number] = chunk
        return chunk

    def _pack(self, number: int) -> None:
        chunk = self._chunks.get(number)
        if isinstance(chunk, bytearray) and chunk.count(chunk[0]) == len(chunk):
            if chunk[0] == NEVER:
                del self._chunks[number]
            else:
                self._chunks[number] = chunk[0]


def is_data(state: int) -> bool:
    """Say whether a page in this state has contents of its own."""
    return state in _DATA


def is_zero(state: int) -> bool:
    """Say whether a page in this state was told to be zero."""
    return state in (PageCode.ZERO, PageCode.ZERO ^ 0x20)


def came_again(state: int) -> bool:
    """Say whether a page in this state came more than once."""
    return state != NEVER and not state & 0x20


def _over(old: bytearray, new: bytes) -> bytes:
    """Give the states of pages that come over old ones."""
    never = old.count(NEVER)
    if never == len(old):
        return new
    if not never:
        return new.upper()
    return bytes(code & 0xDF if state else code for state, code in zip(old, new, strict=True))
