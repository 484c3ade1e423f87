"""How pages were sent: `PageStates` against a list, with small chunks to meet all borders."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks import watchdog
from cprformats.memory.batch import PageCode
from cprformats.memory.states import NEVER, PageStates, came_again, is_data, is_zero

MIB = 1 << 20
CODES = st.sampled_from([bytes([code]) for code in PageCode])
#: Marks of some pages, or (kinds None) that they were thrown away.
Step = tuple[int, int, bytes | None]


@contextmanager
def chunks_of(pages: int) -> Iterator[None]:
    with patch("cprformats.memory.states._CHUNK_PAGES", pages):
        yield


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[Step]]:
    """A number of pages, and what happened to them."""
    pages = draw(st.integers(1, 23))
    steps: list[Step] = []
    for _ in range(draw(st.integers(0, 12))):
        first = draw(st.integers(0, pages - 1))
        count = draw(st.integers(1, pages - first))
        uniform = st.sampled_from([bytes([code]) * count for code in PageCode])
        mixed = st.lists(CODES, min_size=count, max_size=count).map(b"".join)
        steps.append((first, count, draw(st.none() | uniform | mixed)))
    return pages, steps


def told(pages: int, steps: list[Step]) -> tuple[PageStates, list[int]]:
    """The same told to a list and to what is tested."""
    states, model = PageStates(pages), [NEVER] * pages
    for first, count, kinds in steps:
        if kinds is None:
            states.forget(first, count)
            model[first : first + count] = [NEVER] * count
            continue
        states.mark(first, kinds)
        for number, code in enumerate(kinds, first):
            model[number] = code - 32 if model[number] else code
    return states, model


def pages_of(runs: Iterator[tuple[int, int, int]], first: int) -> list[int]:
    """The runs page by page; they must follow each other, and be as long as they get."""
    found: list[int] = []
    for start, count, state in runs:
        assert start == first + len(found)
        assert count > 0
        assert not found or found[-1] != state
        found += [state] * count
    return found


@settings(derandomize=True)
@given(histories(), st.integers(0, 25), st.integers(0, 25))
def test_against_a_list(history: tuple[int, list[Step]], first: int, end: int) -> None:
    with chunks_of(4):
        states, model = told(*history)
        assert [states.state(number) for number in range(len(model))] == model
        assert pages_of(states.runs(), 0) == model
        assert pages_of(states.runs(first, end), first) == model[first:end]
        assert states.counts() == Counter(model)
        assert states.counts(first, end) == Counter(model[first:end])
        assert states.untouched(first, max(end - first, 0)) == (not any(model[first:end]))


@pytest.mark.parametrize("code", PageCode)
def test_what_a_state_says(code: PageCode) -> None:
    states = PageStates(1)
    assert not came_again(states.state(0))
    for again in (False, True, True):
        states.mark(0, bytes([code]))
        state = states.state(0)
        assert is_zero(state) == (code is PageCode.ZERO)
        assert is_data(state) == (code is not PageCode.ZERO)
        assert came_again(state) is again
        assert chr(state).lower() == chr(code)


def test_what_never_came_is_neither_data_nor_zero() -> None:
    assert not is_data(NEVER)
    assert not is_zero(NEVER)
    assert not came_again(NEVER)


def test_data_then_zero_then_data_over_passes() -> None:
    """A state tells how the last version came, and that there were others."""
    states = PageStates(3)
    for kinds in (b"ppz", b"zpp", b"pzz"):
        states.mark(0, kinds)
    assert [chr(states.state(number)) for number in range(3)] == ["P", "Z", "Z"]
    assert states.counts() == {ord("P"): 1, ord("Z"): 2}


def test_a_page_that_was_thrown_away_comes_as_if_new() -> None:
    states = PageStates(2)
    states.mark(0, b"pp")
    states.forget(0, 1)
    states.mark(0, b"pp")
    assert (states.state(0), states.state(1)) == (ord("p"), ord("P"))


def test_forgetting_reaches_no_farther_than_the_block() -> None:
    states = PageStates(2)
    states.mark(0, b"pp")
    states.forget(1, 1 << 50)
    states.forget(9, 4)
    assert pages_of(states.runs(), 0) == [ord("p"), NEVER]


def test_128_gib_of_one_kind_takes_next_to_nothing() -> None:
    """2**25 pages, marked as a stream does: 4096 of them at a time."""
    tracemalloc.start()
    try:
        states, kinds = PageStates(1 << 25), b"p" * 4096
        for number in range(0, 1 << 25, 4096):
            states.mark(number, kinds)
        assert list(states.runs()) == [(0, 1 << 25, ord("p"))]
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_a_size_that_is_a_lie_takes_no_memory_and_no_time() -> None:
    pages = 1 << 52
    states = PageStates(pages)
    states.mark(pages - 3, b"pzp")
    states.mark(7, b"z")
    assert list(states.runs()) == [
        (0, 7, NEVER),
        (7, 1, ord("z")),
        (8, pages - 11, NEVER),
        (pages - 3, 1, ord("p")),
        (pages - 2, 1, ord("z")),
        (pages - 1, 1, ord("p")),
    ]
    assert states.counts() == {NEVER: pages - 4, ord("p"): 2, ord("z"): 2}
    assert states.untouched(8, pages - 11)


def test_throwing_away_a_size_that_is_a_lie_takes_no_time() -> None:
    states = PageStates(1 << 52)
    states.mark(5, b"ppp")
    with watchdog(1):
        states.forget(0, 1 << 52)
    assert states.untouched(0, 1 << 52)
