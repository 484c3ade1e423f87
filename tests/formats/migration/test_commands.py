"""COMMANDs: every one that QEMU has, PACKAGED with the stream inside, and hostile ones."""

from __future__ import annotations

import pytest

from builders import migration as build
from checks import assert_error, clean, read
from cprformats.encode import encode
from cprformats.errors import Damaged, Truncated, Unsupported
from cprformats.fields import Kind, tally
from cprformats.migration import Command
from cprformats.migration.commands import read_command
from cprformats.reader import Reader
from cprformats.source import BytesSource


def commands(data: bytes) -> list[Command]:
    return [item for item in clean(data).items if isinstance(item, Command)]


ALL = [
    (1, b"", "OPEN_RETURN_PATH", {}),
    (2, build.be32(0xBEEF), "PING", {"value": 0xBEEF}),
    (3, b"", "POSTCOPY_ADVISE", {}),
    (
        3,
        build.be64(0x201000) + build.be64(4096),
        "POSTCOPY_ADVISE",
        {"page_sizes_summary": 0x201000, "target_page_size": 4096},
    ),
    (4, b"", "POSTCOPY_LISTEN", {}),
    (5, b"", "POSTCOPY_RUN", {}),
    (8, b"", "ENABLE_COLO", {}),
    (9, b"", "POSTCOPY_RESUME", {}),
    (10, b"\6pc.ram", "RECV_BITMAP", {"block": "pc.ram"}),
    (11, b"", "SWITCHOVER_START", {}),
]


@pytest.mark.parametrize(("number", "data", "name", "values"), ALL)
def test_each_command(number: int, data: bytes, name: str, values: dict[str, object]) -> None:
    (found,) = commands(build.stream(build.configuration(), build.command(number, data)))
    assert (found.number, found.name, found.size) == (number, name, 5 + len(data))
    inside = found.field["data"]
    assert {key: inside[key].value for key in values} == values
    assert tally([found.field]).by_kind == {Kind.COMMAND: 5 + len(data)}


def test_discard_lists_its_ranges() -> None:
    data = build.discard("pc.ram", [(0x1000, 0x2000), (0x8000, 0x1000)])
    (found,) = commands(build.stream(data))
    assert found.name == "POSTCOPY_RAM_DISCARD"
    inside = found.field["data"]
    assert inside["block"].value == "pc.ram"
    assert inside["range[1].start"].value == 0x8000
    assert inside["range[1].length"].value == 0x1000


def test_an_unknown_command_keeps_its_data() -> None:
    (found,) = commands(build.stream(build.command(99, b"abc")))
    assert (found.number, found.name) == (99, "UNKNOWN")
    assert tally([found.field]).unknown == 3


def test_data_that_a_command_should_not_have() -> None:
    (found,) = commands(build.stream(build.command(1, b"abc")))
    assert found.field["data.rest"].value == b"abc"
    assert found.field["data.rest"].kind is Kind.UNKNOWN


def test_ping_of_another_length_is_kept() -> None:
    (found,) = commands(build.stream(build.command(2, b"ab")))
    assert found.field["data.rest"].value == b"ab"


def test_packaged_holds_a_stream_without_header() -> None:
    inner = [build.command(4), build.full(9, "dev", body=b"\1\2"), build.command(5)]
    data = build.stream(build.configuration(), build.packaged(*inner))
    (found,) = commands(data)
    assert [getattr(x, "name", "") for x in found.inner] == [
        "POSTCOPY_LISTEN", "dev", "POSTCOPY_RUN",
    ]  # fmt: skip
    assert found.size == 9 + sum(map(len, inner))
    assert found.field.size == 9
    assert found.field["data.length"].value == sum(map(len, inner))
    assert [x.idstr for x in clean(data).sections()] == ["dev"]


def test_an_empty_package() -> None:
    (found,) = commands(build.stream(build.packaged()))
    assert found.inner == ()


def test_a_section_can_not_leave_its_package() -> None:
    inner = build.full(9, "dev", body=b"\1\2")
    first = build.full(8, "dev", body=b"\1")
    package = build.command(7, build.be32(len(inner) - 3)) + inner
    stream = read(build.stream(first, package))
    assert_error(stream.error, Damaged, 8 + len(first) + 9, (), "section dev: expected its footer")
    assert [x.body_size for x in stream.sections()] == [1]


def test_what_came_before_the_error_in_a_package_is_kept() -> None:
    inner = build.full(9, "dev", body=b"\1\2") + build.part(77)
    stream = read(build.stream(build.packaged(inner)))
    assert [x.idstr for x in stream.sections()] == ["dev"]
    assert_error(
        stream.error, Damaged, 17 + len(inner) - 5, (), "section id of PART", "(none), found 77"
    )


def test_eof_inside_a_package() -> None:
    stream = read(build.stream(build.packaged(build.eof())))
    assert_error(stream.error, Damaged, 17, (), "EOF inside a packaged stream")


def test_packages_in_packages_end() -> None:
    data = b""
    for _ in range(2000):
        data = build.packaged(data)
    stream = read(build.stream(data))
    assert_error(stream.error, Unsupported, 8 + 4 * 9 + 9, (), "more than 4 nested packages")


def test_a_package_longer_than_the_stream() -> None:
    """What is there of it is read up to where it ends."""
    inner = build.start(2, body=build.block_list() + build.eos())
    stream = read(build.header() + build.command(7, build.be32(0xFFFFFFFF)) + inner)
    assert_error(stream.error, Truncated, 17 + len(inner), (), "stream is cut")
    assert [x.idstr for x in stream.sections()] == ["ram"]


def test_a_package_with_a_length_of_its_own_size() -> None:
    stream = read(build.stream(build.command(7, b"\0\0")))
    assert_error(
        stream.error, Damaged, 13, ("command", "data"),
        "length of PACKAGED: expected 4, found 2",
    )  # fmt: skip


def test_a_block_name_longer_than_the_command() -> None:
    stream = read(build.stream(build.command(10, b"\xffab")))
    assert stream.error is not None
    assert stream.error.path == ("command", "data")


@pytest.mark.parametrize("size", range(1, 26))
def test_cut_anywhere(size: int) -> None:
    data = build.discard("r", [(1, 2)])
    assert len(data) == 25
    here = Reader(BytesSource(data[:size]))
    if size == 25:
        assert read_command(here) == (6, "POSTCOPY_RAM_DISCARD", 0)
        return
    with pytest.raises(Truncated) as caught:
        read_command(here)
    assert caught.value.path[0] == "command"
    assert b"".join(encode([here.finish("all")])) == data[: here.offset]
