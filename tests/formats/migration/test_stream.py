"""The stream as a whole: walking, counting, writing again, from a file and from a pipe."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from builders import migration as build
from checks import assert_tiles, clean
from cprformats.encode import encode
from cprformats.errors import NotKept
from cprformats.fields import Kind
from cprformats.migration import read_stream
from cprformats.source import FileSource, SpoolSource

PAGE = build.PAGE
PAGES = 5000


@pytest.fixture(scope="module")
def whole() -> bytes:
    """A stream with all kinds of parts and 20 MB of pages."""
    setup = build.block_list(build.block("r", PAGES * PAGE)) + build.eos()
    pages = [build.data_page(0, "r")] + [build.data_page(n * PAGE) for n in range(1, PAGES)]
    fields = [build.field("a", "uint8", 1), build.field("b", "int64", 8)]
    return build.stream(
        build.configuration("pc", uuid=bytes(range(16))),
        build.command(1),
        build.ping(7),
        build.start(2, body=setup),
        build.part(2, body=b"".join(pages) + build.eos()),
        build.packaged(build.full(4, "inner", body=b"\xff" * 9)),
        build.end(2, body=build.zero_page(0, "r") + build.eos()),
        build.full(3, "dev", body=b"\1" + bytes(7) + b"\2"),
        description=build.vmdesc(build.device("dev", fields), build.device("inner", fields)),
        padding=bytes(3),
    )


def test_a_stream_of_everything(whole: bytes) -> None:
    found = clean(whole)
    assert found.tally().unknown == found.tally().raw == 0
    assert found.machine == "pc"
    assert [x.idstr for x in found.sections()] == ["ram", "ram", "inner", "ram", "dev"]
    assert found.ram.per_block[0].stream_bytes == PAGES * (PAGE + 8) + 2 + 9 + 2


def test_from_a_file(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(whole)
    with (tmp_path / "s").open("rb") as file:
        found = read_stream(FileSource(file))
        assert found.error is None
        trees = found.walk()
        assert b"".join(encode(trees)) == whole
        assert found.tally().total == len(whole)


def test_from_a_pipe(whole: bytes) -> None:
    """All but the pages is there afterwards, in one pass."""
    found = read_stream(SpoolSource(io.BytesIO(whole).read))
    direct = clean(whole)
    assert found.error is None
    assert found.items is not direct.items
    assert [x.offset for x in found.sections()] == [x.offset for x in direct.sections()]
    assert found.ram.per_block == direct.ram.per_block
    assert found.tally() == direct.tally()
    assert [found.decode(x) for x in found.sections() if x.idstr != "ram"] == [
        direct.decode(x) for x in direct.sections() if x.idstr != "ram"
    ]


def test_pages_of_a_pipe_are_gone_and_said_so(whole: bytes) -> None:
    found = read_stream(SpoolSource(io.BytesIO(whole).read))
    with pytest.raises(NotKept):
        list(encode(found.walk()))


def test_pages_of_a_pipe_that_keeps_all(whole: bytes) -> None:
    found = read_stream(SpoolSource(io.BytesIO(whole).read, keep_all=True))
    assert b"".join(encode(found.walk())) == whole


def test_a_pipe_that_breaks_off(whole: bytes) -> None:
    found = read_stream(SpoolSource(io.BytesIO(whole[:100_000]).read))
    assert found.error is not None
    assert found.configuration is not None


def test_what_came_before_damage_is_walked(whole: bytes) -> None:
    found = read_stream(SpoolSource(io.BytesIO(whole[:-1] + b"x").read))
    assert found.error is None
    assert found.tally().by_kind[Kind.UNKNOWN] == 3
    broken = whole[: len(whole) // 2]
    found = read_stream(SpoolSource(io.BytesIO(broken).read, keep_all=True))
    end = assert_tiles(found.walk())
    assert end <= len(broken)


@pytest.mark.parametrize("size", [1 << 8, 1 << 13, 1 << 14])
def test_a_pipe_tells_its_page_size_at_the_end(size: int) -> None:
    """Alpha and others send no target-page-bits; only the description has the size."""
    body = build.block_list(build.block("r", 4 * size))
    body += build.data_page(0, "r", data=b"\xa5" * size) + build.zero_page(2 * size) + build.eos()
    data = build.stream(build.start(2, body=body), description=build.vmdesc(page_size=size))
    found = read_stream(SpoolSource(io.BytesIO(data).read))
    assert found.error is None
    assert found.page_size == size
    assert found.tally().total == len(data)
    assert b"".join(encode(found.walk())) == data


def test_a_broken_pipe_is_not_read_twice_for_nothing() -> None:
    data = build.stream(build.start(2, body=b"\xff" * 100), description=build.vmdesc())
    found = read_stream(SpoolSource(io.BytesIO(data).read))
    assert found.error is not None
    assert found.error.path[0] == "ram"
