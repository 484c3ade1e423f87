"""Descriptors come to wanted numbers, or nothing moves."""

from __future__ import annotations

import os
import resource

import pytest
from fdlab import filled_table, memfd, no_leak
from hypothesis import given, settings
from hypothesis import strategies as st

from cprproto.errors import HostError, TableError
from cprproto.fds.check import check_table
from cprproto.fds.moving import conflicts, renumber
from cprproto.fds.table import Table


def test_an_exchange_and_a_move() -> None:
    with no_leak(), filled_table() as table:
        one, other = table["serial", 4].number, table["ram0", 0].number
        wanted = {("serial", 4): other, ("ram0", 0): one, ("log", 0): 700}
        assert renumber(table, wanted) == []
        assert {key: table[key].number for key in wanted} == wanted
        assert table.holder(700) == table["log", 0]
        assert check_table(table, cloexec=True) == []


def test_the_lowest_free_number() -> None:
    """The first copy would land just where the descriptor is wanted."""
    with no_leak(), filled_table() as table:
        free = os.eventfd(0)
        os.close(free)
        one, other = table["serial", 4].number, table["ram0", 0].number
        assert renumber(table, {("ram0", 0): free, ("serial", 4): other, ("log", 0): one}) == []
        assert table["ram0", 0].number == free
        assert check_table(table, cloexec=True) == []


def test_where_they_are_already() -> None:
    with filled_table() as table:
        before = table.numbers()
        assert renumber(table, {("ram0", 0): table["ram0", 0].number}) == []
        assert table.numbers() == before


def test_a_number_that_is_taken() -> None:
    with filled_table() as table:
        mine = os.eventfd(0)
        before = table.numbers()
        (found,) = renumber(table, {("ram0", 0): mine, ("log", 0): 701})
        assert (found.what, found.name, table.numbers()) == ("number-taken", "ram0", before)
        assert f"ram0: {mine} is wanted, and is open already: eventfd" in found.text
        os.close(mine)


def test_a_number_that_is_too_high() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with filled_table() as table:
        (found,) = conflicts(table, {("ram0", 0): limit})
        assert found.what == "number-too-high"
        assert renumber(table, {("ram0", 0): limit - 1}) == []
        assert check_table(table) == []


@pytest.mark.parametrize(
    "wanted",
    [
        {("ram0", 0): 701, ("log", 0): 701},
        {("no-such", 0): 701},
        {("ram0", 0): -1},
    ],
)
def test_what_makes_no_sense(wanted: dict[tuple[str, int], int]) -> None:
    with no_leak(), filled_table() as table:
        before = table.numbers()
        with pytest.raises(TableError):
            renumber(table, wanted)
        assert table.numbers() == before


def test_a_number_of_one_that_stays() -> None:
    with filled_table() as table, pytest.raises(TableError, match="same number"):
        renumber(table, {("ram0", 0): table["log", 0].number})


def test_no_descriptor_left_to_move_with() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with no_leak(), filled_table() as table:
        one, other = table["log", 0].number, table["ram0", 0].number
        free = os.eventfd(0)
        os.close(free)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
            with pytest.raises(HostError, match="Too many open files"):
                renumber(table, {("ram0", 0): one, ("log", 0): other})
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert check_table(table, cloexec=True) == []


@settings(deadline=None)
@given(st.permutations(range(6)), st.lists(st.booleans(), min_size=6, max_size=6))
def test_any_shuffle_keeps_every_file(order: list[int], far: list[bool]) -> None:
    with no_leak():
        table = Table()
        for place in range(6):
            table.add("ram", "m", memfd(f"m{place}"), id=place)
        table.take_stock()
        numbers = table.numbers()
        wanted = {
            ("m", place): 800 + place if far[place] else numbers[to]
            for place, to in enumerate(order)
        }
        assert renumber(table, wanted) == []
        assert {key: table[key].number for key in wanted} == wanted
        assert check_table(table, cloexec=True) == []
        table.close()
