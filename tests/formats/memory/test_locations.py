"""Where pages lie: `Locations` against a list, and what a mapped-ram bitmap tells."""

from __future__ import annotations

import tracemalloc
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks import watchdog
from cprformats.memory.batch import PageCode, RamBatch
from cprformats.memory.locations import (
    CODE_BITS,
    Code,
    Locations,
    MappedLocations,
    Part,
    Places,
    pack,
    unpack,
)
from cprformats.migration.mapped import MappedRam
from cprformats.source import BytesSource

MIB = 1 << 20
PAGE = 4096
DATA, ZERO = bytes([PageCode.DATA]), bytes([PageCode.ZERO])
ALONE = [bytes([code]) for code in (PageCode.XBZRLE, PageCode.COMPRESSED, PageCode.FILL)]
ENCODED = {PageCode.COMPRESSED: Code.COMPRESSED, PageCode.FILL: Code.FILL}
Place = tuple[int, int, int]
NOWHERE: Place = (Code.NEVER, 0, 0)


@contextmanager
def chunks_of(pages: int) -> Iterator[None]:
    with patch("cprformats.memory.locations._CHUNK_PAGES", pages):
        yield


def batch(kinds: bytes, offset: int, head: int = 8, source: int = 0, stride: int = 8) -> RamBatch:
    data = memoryview(b"")
    return RamBatch("r", 0, kinds, offset, 0, head, data, stride_head=stride, source=source)


def places_of(one: RamBatch) -> list[Place]:
    """Where each page of a batch lies, counted from record to record."""
    found: list[Place] = []
    at = one.offset + one.head
    for code in one.kinds:
        name = {PageCode.DATA: Code.DATA, PageCode.ZERO: Code.ZERO}.get(PageCode(code))
        found.append((name or ENCODED[PageCode(code)], at, one.source))
        at += (PAGE if code == PageCode.DATA else 1) + one.stride_head
    return found


def pages_of(parts: Iterable[Part], first: int) -> list[int]:
    """The parts page by page; they must follow each other."""
    found: list[int] = []
    for start, count, location, step, each in parts:
        assert start == first + len(found)
        assert count > 0
        more = list(each) if each is not None else [location] * count
        if step is not None:
            # One code holds for all pages of a part: who reads it looks at the first only.
            assert step % (1 << CODE_BITS) == 0
            more = [location + number * step for number in range(count)]
        assert len(more) == count
        found += more
    return found


def plain(locations: Iterable[int]) -> list[Place]:
    """Without the places of zeros, which mean nothing."""
    found = map(unpack, locations)
    return [(code, 0, 0) if code <= Code.ZERO else (code, at, where) for code, at, where in found]


def meant(places: Iterable[Place]) -> list[Place]:
    return plain(pack(Code(code), at, where) for code, at, where in places)


def check(locations: Places, model: list[Place], first: int = 0) -> None:
    end = first + len(model)
    assert plain(locations.take(first, len(model))) == meant(model)
    assert plain(pages_of(locations.parts(first, end), first)) == meant(model)


# -- one number ---------------------------------------------------------------------


@settings(derandomize=True)
@given(st.sampled_from(Code), st.integers(0, (1 << 50) - 1), st.integers(0, 255))
def test_a_location_is_unpacked_to_what_it_was_packed_from(
    code: Code, offset: int, source: int
) -> None:
    location = pack(code, offset, source)
    assert unpack(location) == (code, offset, source)
    array("Q", [location])


# -- page by page ---------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[tuple[int, RamBatch | int]]]:
    """Number of pages; batches, and numbers of pages that were thrown away."""
    pages = draw(st.integers(1, 23))
    steps: list[tuple[int, RamBatch | int]] = []
    for _ in range(draw(st.integers(0, 12))):
        first = draw(st.integers(0, pages - 1))
        count = draw(st.integers(1, pages - first))
        many = st.lists(st.sampled_from((DATA, ZERO)), min_size=count, max_size=count)
        uniform = st.sampled_from((DATA * count, ZERO * count))
        kinds = draw(uniform | many.map(b"".join) | st.sampled_from(ALONE[1:]))
        if draw(st.integers(0, 5)) == 0:
            steps.append((first, count))
            continue
        offset = draw(st.integers(0, 50)) * 100
        head, stride = draw(st.sampled_from(((8, 8), (11, 8), (0, 0))))
        steps.append((first, batch(kinds, offset, head, draw(st.integers(0, 2)), stride)))
    return pages, steps


@settings(derandomize=True, max_examples=300)
@given(histories(), st.integers(0, 22), st.integers(0, 22))
def test_against_a_list(
    history: tuple[int, list[tuple[int, RamBatch | int]]], one: int, other: int
) -> None:
    pages, steps = history
    first, end = sorted((min(one, pages), min(other, pages)))
    with chunks_of(4):
        locations, model = Locations(pages, PAGE), [NOWHERE] * pages
        for start, step in steps:
            if isinstance(step, int):
                locations.put(start, step, Code.NEVER, 0)
                model[start : start + step] = [NOWHERE] * step
            else:
                locations.add(step, start)
                model[start : start + len(step.kinds)] = places_of(step)
        check(locations, model)
        check(locations, model[first:end], first)


def test_a_short_last_chunk_of_two_kinds_stays_two_kinds() -> None:
    """Two numbers are always a series; but a step must not go from code to code."""
    locations = Locations(1026, PAGE)
    locations.add(batch(DATA, 5000), 1025)
    locations.add(batch(ZERO, 9000), 0)  # another chunk: the last one is packed
    check(locations, [NOWHERE, (Code.DATA, 5008, 0)], 1024)


def test_a_short_last_chunk_of_zero_and_data() -> None:
    locations = Locations(1026, PAGE)
    locations.add(batch(ZERO, 5000), 1024)
    locations.add(batch(DATA, 5009), 1025)
    locations.add(batch(ZERO, 0), 0)
    check(locations, [(Code.ZERO, 5008, 0), (Code.DATA, 5017, 0)], 1024)


def test_two_pages_in_two_files() -> None:
    locations = Locations(1026, PAGE)
    locations.add(batch(DATA, 5000, 0, source=1, stride=0), 1024)
    locations.add(batch(DATA, 7000, 0, source=2, stride=0), 1025)
    locations.add(batch(ZERO, 0), 0)
    check(locations, [(Code.DATA, 5000, 1), (Code.DATA, 7000, 2)], 1024)


def test_the_first_record_of_a_batch_may_be_longer() -> None:
    locations = Locations(3, PAGE)
    locations.add(batch(DATA + ZERO + DATA, 1000, head=8 + 7), 0)
    check(
        locations,
        [
            (Code.DATA, 1015, 0),
            (Code.ZERO, 0, 0),
            (Code.DATA, 1015 + PAGE + 8 + 1 + 8, 0),
        ],
    )


def test_a_chunk_is_kept_as_series_again_when_it_is_one() -> None:
    locations = Locations(3 * 1024, PAGE)
    for number in reversed(range(3 * 1024)):
        locations.add(batch(DATA, number * (PAGE + 8)), number)
    check(locations, [(Code.DATA, n * (PAGE + 8) + 8, 0) for n in range(3 * 1024)])
    parts = list(locations.parts(0, 3 * 1024))
    assert len(parts) == 3
    assert [part[3] for part in parts[1:]] == [(PAGE + 8) << CODE_BITS] * 2


def test_128_gib_in_order_take_next_to_nothing() -> None:
    pages, kinds = 1 << 25, DATA * 8192
    tracemalloc.start()
    try:
        locations = Locations(pages, PAGE)
        for number in range(0, pages, 8192):
            locations.add(batch(kinds, number * (PAGE + 8)), number)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()
    check(locations, [(Code.DATA, n * (PAGE + 8) + 8, 0) for n in range(9_000, 9_999)], 9_000)


def test_a_size_that_is_a_lie_takes_no_memory_and_no_time() -> None:
    pages = 1 << 52
    with watchdog(1):
        locations = Locations(pages, PAGE)
        locations.add(batch(DATA + ZERO, 100), pages - 2)
        locations.add(batch(DATA, 9_000), 5)
        check(locations, [(Code.DATA, 108, 0), (Code.ZERO, 0, 0)], pages - 2)
        starts = [(start, count) for start, count, *_ in locations.parts(0, pages)]
    assert (starts[0], sum(count for _, count in starts)) == ((0, 5), pages)
    assert len(starts) == 4


def test_throwing_away_a_size_that_is_a_lie_takes_no_time() -> None:
    locations = Locations(1 << 52, PAGE)
    locations.add(batch(DATA, 100), 5)
    with watchdog(1):
        locations.put(0, 1 << 52, Code.NEVER, 0)
    check(locations, [NOWHERE] * 10)


# -- mapped-ram -----------------------------------------------------------------------


@settings(derandomize=True)
@given(st.lists(st.booleans(), min_size=1, max_size=200), st.data())
def test_a_bitmap_against_a_list(marked: list[bool], draw: st.DataObject) -> None:
    places, model = mapped(marked)
    first = draw.draw(st.integers(0, len(marked)))
    end = draw.draw(st.integers(first, len(marked)))
    with patch("cprformats.migration.mapped._STEP_BYTES", 3):
        check(places, model[first:end], first)


def mapped(marked: list[bool]) -> tuple[MappedLocations, list[Place]]:
    bits = sum(1 << number for number, there in enumerate(marked) if there)
    size = -(-len(marked) // 64) * 8
    source = BytesSource(bytes(10) + bits.to_bytes(size, "little"))
    places = MappedLocations(source, MappedRam(PAGE, 10, size, 1 << 20))
    zero: Place = (Code.ZERO, 0, 0)
    return places, [
        (Code.DATA, (1 << 20) + number * PAGE, 0) if there else zero
        for number, there in enumerate(marked)
    ]


@pytest.mark.parametrize("pages", [1, 63, 64, 65, 4096 * 8, 4096 * 8 + 1])
def test_bitmaps_without_a_gap_or_a_page(pages: int) -> None:
    for there in (False, True):
        places, model = mapped([there] * pages)
        assert len(list(places.parts(0, pages))) == 1
        check(places, model)
