"""Parts in little memory: what comes out is what went in, and repeats are found, not read."""

from __future__ import annotations

import pytest

from builders import migration as build
from checks import assert_tiles, clean, read
from cprformats.encode import encode
from cprformats.migration import Located, Section
from cprformats.migration.itemlist import ItemList, Repeats
from cprformats.migration.wire import SectionType
from cprformats.source import BytesSource

LIST = build.block_list(build.block("pc.ram", 1 << 20), build.block("rom", 8192))
RAM = LIST + build.eos()


def section(kind: SectionType, offset: int, size: int = 8) -> Section:
    return Section(kind, 2, "ram", 0, 4, offset, 5, size, 5, Located.ITSELF)


def test_items_come_out_as_they_went_in() -> None:
    items = [
        section(SectionType.START, 8),
        section(SectionType.PART, 30),
        section(SectionType.PART, 48, 4104),
        section(SectionType.END, 5000),
        section(SectionType.FULL, 6000),
    ]
    found = ItemList()
    for item in items:
        found.append(item)
    assert list(found) == items
    assert found[1:4] == items[1:4]
    assert found[-1] == items[-1]
    assert len(found) == 5
    with pytest.raises(IndexError):
        found[5]


@pytest.mark.parametrize("kind", list(SectionType)[1:5])
def test_the_last_item_can_be_replaced(kind: SectionType) -> None:
    found = ItemList()
    found.append(section(SectionType.START, 8))
    found.append(section(kind, 30))
    found.replace_last(section(SectionType.END, 30, 16))
    assert list(found) == [section(SectionType.START, 8), section(SectionType.END, 30, 16)]


def test_repeats_are_found_by_their_bytes() -> None:
    data = build.part(2, body=build.eos())
    source = BytesSource(data * 2 + build.part(3, body=build.eos()) + data[:-1])
    repeats = Repeats(source)
    assert repeats.find(0) is None
    repeats.learn(section(SectionType.PART, 0))
    assert repeats.find(0) == repeats.find(len(data)) == section(SectionType.PART, 0)
    assert repeats.find(2 * len(data)) is None  # another section id
    assert repeats.find(3 * len(data)) is None  # cut
    assert repeats.find(4 * len(data)) is None  # behind the end


def test_a_stream_of_repeats() -> None:
    empty = build.part(2, body=build.eos())
    data = build.stream(build.start(2, body=RAM), empty * 1000, build.end(2, body=build.eos()))
    stream = clean(data)
    assert [x.type for x in stream.sections()].count(SectionType.PART) == 1000
    assert stream.tally().total == assert_tiles(stream.walk()) == len(data)
    assert b"".join(encode(stream.walk())) == data


def test_sections_with_pages_are_never_taken_for_repeats() -> None:
    """The same bytes mean another page after a section that changed the block."""
    pages = build.part(2, body=build.zero_page(0) + build.eos())
    named = build.part(2, body=build.zero_page(0, "rom") + build.eos())
    first = build.part(2, body=build.zero_page(0, "pc.ram") + build.eos())
    data = build.stream(
        build.start(2, body=RAM), first, pages, named, pages, build.end(2, body=build.eos())
    )
    counts = {x.block.idstr: sum(x.pages.values()) for x in clean(data).ram.per_block}
    assert counts == {"pc.ram": 2, "rom": 2}
    assert b"".join(encode(clean(data).walk())) == data


def test_a_repeat_that_is_cut() -> None:
    empty = build.part(2, body=build.eos())
    data = build.header() + build.start(2, body=RAM) + empty * 3
    stream = read(data[:-1])
    assert stream.error is not None
    assert [x.footer_size for x in stream.sections()] == [5, 5, 5, 0]
