"""The searches: for the description from the end, for a footer from the beginning."""

from __future__ import annotations

import pytest

from builders import migration as build
from checks import assert_error
from cprformats.errors import Damaged
from cprformats.migration.locate import find_footer, find_vmdesc, follows_section, load_vmdesc
from cprformats.source import BytesSource

DESCRIPTION = build.vmdesc(build.device("dev"))


class Counting(BytesSource):
    """A source that counts what is read."""

    reads = 0
    taken = 0

    def read_at(self, offset: int, count: int) -> bytes:
        data = super().read_at(offset, count)
        self.reads += 1
        self.taken += len(data)
        return data


def find(data: bytes, start: int = 0) -> int | None:
    found = find_vmdesc(BytesSource(data), start, len(data))
    return None if found is None else found.offset


def test_the_description_is_behind_eof() -> None:
    data = b"stream\0" + DESCRIPTION
    found = find_vmdesc(BytesSource(data), 0, len(data))
    assert found is not None
    assert (found.offset, found.size) == (7, len(DESCRIPTION) - 5)
    assert found.vmdesc.devices[0].name == "dev"


@pytest.mark.parametrize("padding", [b"\0" * 5000, b"tail{}", b"\0\6\0\0\0\1{", b"\0\6\0\0\0\2{}x"])
def test_what_stands_behind_does_not_mislead(padding: bytes) -> None:
    data = b"stream\0" + DESCRIPTION + padding
    assert find(data) in (7, len(data) - len(padding) + 1)


def test_an_earlier_description_is_not_the_one() -> None:
    first = b"x\0" + DESCRIPTION
    assert find(first + b"more\0" + DESCRIPTION) == len(first) + 5


@pytest.mark.parametrize("shift", range(9))
def test_a_match_that_the_chunks_cut_through(shift: int) -> None:
    tail = bytes((1 << 20) - len(DESCRIPTION) - 1 + shift)
    assert find(b"abc\0" + DESCRIPTION + tail) == 4


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\6\0\0\0\2",
        b"\0\6\0\0\0\3{}",
        b"\0\6\0\0\0\0{}",
        b"\0\6\xff\xff\xff\xff{}",
        b"\0\6\0\0\0\2[]",
        b'\0\6\0\0\0\x0f{"devices": 12}',
    ],
)
def test_what_is_no_description(data: bytes) -> None:
    assert find(data) is None


def test_millions_of_candidates_are_given_up() -> None:
    # Each says that it goes to the same last brace, and none of them parses.
    count, data = 20_000, b""
    for number in range(count):
        left = (count - number) * 7 + 2
        data += b"\0\6" + (left - 6).to_bytes(4) + b"{"
    source = Counting(data + b"x}")
    assert find_vmdesc(source, 0, source.size()) is None
    assert source.taken < 100 * len(data)


def test_footer_with_its_id_in_front_of_a_section() -> None:
    data = b"body" + build.footer(3) + build.full(4, "next")
    assert find_footer(BytesSource(data), 0, None, 3) == 4
    assert find_footer(BytesSource(data), 0, None, 4) == len(data) - 5
    assert find_footer(BytesSource(data), 0, None, 5) is None


def test_a_footer_far_away() -> None:
    for size in (1019, 1020, 1024, 3 * 1024 - 8, (1 << 20) + 17, (1 << 21) + 3):
        data = bytes(size) + build.footer(3) + build.eof() + b"\0"
        assert find_footer(BytesSource(data), 0, None, 3) == size, size


def test_every_place_of_a_cut_between_chunks() -> None:
    for size in range(1010, 1030):
        data = bytes(size) + build.footer(3) + build.full(4, "next") + b"\xee" * 5000
        assert find_footer(BytesSource(data), 0, None, 3) == size, size


def test_small_sections_take_small_reads() -> None:
    source = Counting(b"body" + build.footer(3) + build.full(4, "next") + bytes(1 << 22))
    assert find_footer(source, 0, None, 3) == 4
    assert source.taken < 10_000


def test_a_body_full_of_false_footers() -> None:
    source = Counting((build.footer(3) + b"\x99") * 100_000)
    assert find_footer(source, 0, None, 3) is None
    assert source.reads < 100


def test_the_search_stays_inside_its_bound() -> None:
    data = b"body" + build.footer(3) + build.eof()
    assert find_footer(BytesSource(data), 0, 4, 3) is None
    assert find_footer(BytesSource(data), 0, 9, 3) == 4


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", True),
        (b"\0", True),
        (b"\0\6\0\0\0\2{}", True),
        (b"\0\0\0", True),
        (build.full(3, "dev"), True),
        (build.start(3), True),
        (build.full(3, ""), False),
        (build.full(3, "d\x01v"), False),
        (build.full(1 << 20, "dev"), False),
        (b"\4", True),
        (b"\4\0\0\0\1\3a", True),
        (b"\4\0\1", True),
        (b"\4\0\x11", False),
        (b"\4\0\0\0\1\3\n", False),
        (build.part(3), True),
        (b"\2\xff\xff\xff\xff", False),
        (b"\3\0\0", True),
        (b"\3\1\0", False),
        (b"\x08\0", True),
        (build.ping(1), True),
        (build.command(99), False),
        (b"\5", False),
        (b"\x7e\0\0\0\1", False),
        (b"\x55", False),
    ],
)
def test_what_can_follow_a_section(data: bytes, expected: bool) -> None:
    assert follows_section(BytesSource(data), 0, None) is expected


def test_nesting_is_bounded_whatever_the_parser_does() -> None:
    deep = '{"subsections": [' * 330 + "]}" * 330
    with pytest.raises(Damaged) as caught:
        load_vmdesc('{"configuration": ' + deep + "}", 5)
    assert_error(caught.value, Damaged, 5, caught.value.path, "")
    assert caught.value.path[0] == "vmdesc"
