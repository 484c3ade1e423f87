"""What a file has of each block, counted: against a list of pages."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import migration as build
from builders.memory import Channel, Story, mapped_stream, pattern, stories
from checks import assert_error, watchdog
from cprformats.errors import Damaged, FormatError
from cprformats.memory.census import Cell, Census
from cprformats.memory.channels import ChannelFile, ChannelJoin
from cprformats.migration import read_stream
from cprformats.source import BytesSource

PAGE = build.PAGE


def counted(data: bytes, channels: Sequence[bytes] = ()) -> tuple[Census, FormatError | None]:
    census = Census()
    files = [ChannelFile(f"c{n}", BytesSource(x)) for n, x in enumerate(channels)]
    sink = ChannelJoin(census, files) if files else census
    return census, read_stream(BytesSource(data), sink=sink).error


def clean(data: bytes, channels: Sequence[bytes] = ()) -> Census:
    census, error = counted(data, channels)
    assert error is None, error
    return census


def cell(kinds: Sequence[str]) -> Cell:
    return Cell(kinds.count("data"), kinds.count("zero"), kinds.count("never"))


def again(story: Story, block: str) -> int:
    """Pages that came more than once since the last time they were thrown away."""
    times: dict[int, int] = {}
    for _, name, number, (_, kind) in story._steps:
        if name == block:
            times[number] = 0 if kind == "never" else times.get(number, 0) + 1
    return sum(count > 1 for count in times.values())


@settings(derandomize=True, max_examples=200)
@given(stories(), st.integers(1, 9))
def test_against_a_list(story: Story, cells: int) -> None:
    census = clean(story.stream())
    for block in census.report():
        kinds = [kind for _, kind in story.model[block.idstr]]
        assert Cell(block.data, block.zero, block.never) == cell(kinds)
        assert (block.size, block.page_size) == (story.sizes[block.idstr], story.page_size)
        assert (block.pages, block.address, block.mapped) == (len(kinds), None, False)
        assert block.again == again(story, block.idstr)
        found = census.cells(block.idstr, cells)
        step = -(-len(kinds) // cells)
        assert found == [cell(kinds[at : at + step]) for at in range(0, len(kinds), step)]
        assert len(found) <= cells


@settings(derandomize=True, max_examples=60)
@given(stories())
def test_bytes_of_the_records(story: Story) -> None:
    """All that is in the sections but the list, the marks and the frames."""
    data = story.stream()
    stats = {x.block.idstr: x.stream_bytes for x in read_stream(BytesSource(data)).ram.per_block}
    assert {x.idstr: x.stream_bytes for x in clean(data).report()} == stats


def test_blocks_come_in_the_order_of_their_list() -> None:
    names = ["zz", "a", "m"]
    census = clean(Story(dict.fromkeys(names, PAGE)).stream())
    assert [block.idstr for block in census.report()] == names


def test_an_empty_block() -> None:
    census = clean(Story({"empty": 0, "r": PAGE}).stream())
    assert census.report()[0].pages == 0
    assert census.cells("empty", 5) == []


def test_addresses_of_blocks() -> None:
    body = build.block_list(build.block("a", PAGE, address=0xFFFC0000)) + build.eos()
    configuration = build.configuration(capabilities=["x-ignore-shared"])
    (block,) = clean(build.stream(configuration, build.start(2, body=body))).report()
    assert (block.address, block.never) == (0xFFFC0000, 1)


def test_restart_forgets_everything() -> None:
    story = Story({"r": PAGE})
    story.page("r", 0, pattern(0))
    census = clean(story.stream())
    census.restart()
    assert census.report() == ()


def test_a_block_of_a_size_that_is_a_lie() -> None:
    size = 1 << 60
    body = build.block_list(build.block("r", size)) + build.data_page(size - PAGE, "r")
    data = build.stream(
        build.start(2, body=body + build.zero_page(0) + build.eos()),
        build.discard("r", [(0, size // 2)]),
    )
    with watchdog(2):
        census = clean(data)
        (block,) = census.report()
        cells = census.cells("r", 64)
    assert (block.data, block.zero, block.never) == (1, 0, size // PAGE - 1)
    assert len(cells) == 64
    assert cells[-1] == Cell(1, 0, size // PAGE // 64 - 1)


# -- mapped-ram ---------------------------------------------------------------------------


@settings(derandomize=True, max_examples=60)
@given(st.lists(st.booleans(), min_size=1, max_size=150), st.integers(1, 9))
def test_mapped_against_a_list(marked: list[bool], cells: int) -> None:
    pages = [pattern(n % 7, 512) if there else None for n, there in enumerate(marked)]
    census = clean(mapped_stream({"r": pages}, page_size=512))
    (block,) = census.report()
    data = sum(marked)
    assert (block.data, block.zero, block.never) == (data, len(marked) - data, 0)
    assert (block.pages, block.page_size, block.again) == (len(marked), 512, 0)
    assert (block.mapped, block.stream_bytes) == (True, data * 512)
    kinds = ["data" if there else "zero" for there in marked]
    step = -(-len(kinds) // cells)
    wanted = [cell(kinds[at : at + step]) for at in range(0, len(kinds), step)]
    assert census.cells("r", cells) == wanted


def test_mapped_with_a_bit_past_the_end() -> None:
    data = mapped_stream({"r": [pattern(0), None]}, bits=0b1001)
    _, error = counted(data)
    at = data.index(0b1001.to_bytes(8, "little"))
    assert_error(error, Damaged, at, ("ram", "r"), "expected below 0x2, found 0x3")


def test_a_page_record_of_a_mapped_block() -> None:
    data = mapped_stream({"r": [pattern(0)]})
    end = build.eos() + build.footer(2) + build.eof()
    _, error = counted(data.removesuffix(end) + build.zero_page(0, "r") + end)
    assert isinstance(error, Damaged)


# -- multifd ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["none", "zlib"])
def test_pages_of_channels(method: str) -> None:
    story = Story({"r": 8 * PAGE}, channels=[method])
    story.flush()
    story.packet(0, "r", {1: pattern(1), 2: pattern(2)}, zeros=[5, 6])
    story.flush()
    story.packet(0, "r", {5: pattern(3)}, zeros=[1])
    story.flush()
    (block,) = clean(story.stream(), [x.data for x in story.channels]).report()
    assert (block.data, block.zero, block.never, block.again) == (2, 2, 4, 2)


def test_bytes_of_packets_count_once() -> None:
    """A packet's pages lie apart, so it comes in several batches."""
    channel = Channel()
    channel.send("r", {0: pattern(0), 3 * PAGE: pattern(3)}, [PAGE], sync=True)
    story = Story({"r": 8 * PAGE})
    story.flush()
    (block,) = clean(story.stream(), [channel.data]).report()
    assert block.stream_bytes == len(channel.data) - 64
