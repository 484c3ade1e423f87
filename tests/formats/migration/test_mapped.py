"""mapped-ram: bitmaps and pages at fixed places, the next block exactly behind them."""

from __future__ import annotations

import pytest

from builders import migration as build
from checks import assert_error, clean, read
from cprformats.errors import Damaged, Truncated, Unsupported
from cprformats.fields import Kind
from cprformats.migration import MigrationStream
from cprformats.source import BytesSource

PAGE = build.PAGE
CONFIGURATION = build.configuration(capabilities=["mapped-ram"])
#: Offset of the first block's entry: header, configuration, START's head, total.
FIRST = 8 + len(CONFIGURATION) + 17 + 8


def stream(
    *pages: list[bytes | None], first: int = FIRST, align: int = 1 << 16, **more: int
) -> bytes:
    """A stream of blocks r0, r1 ... with these pages."""
    blocks, at = [], first
    for number, contents in enumerate(pages):
        blocks.append(build.mapped_block(f"r{number}", contents, at=at, align=align, **more))
        at += len(blocks[-1][1])
    body = build.block_list(*blocks) + build.eos()
    return build.stream(CONFIGURATION, build.start(2, body=body))


def test_where_bitmap_and_pages_lie() -> None:
    data = stream([b"\1" * PAGE, None, b"\3" * PAGE])
    found = clean(data)
    mapped = found.ram.blocks["r0"].mapped
    assert mapped is not None
    assert mapped.page_size == PAGE
    assert mapped.bitmap_offset == FIRST + 3 + 8 + 28
    assert (mapped.bitmap_size, mapped.pages_offset) == (8, 1 << 16)
    assert data[mapped.pages_offset + 2 * PAGE] == 3
    (stats,) = found.ram.per_block
    assert {kind.value: count for kind, count in stats.pages.items()} == {"data": 2, "zero": 1}


def test_the_next_block_begins_exactly_behind_the_pages() -> None:
    found = clean(stream([b"\1" * PAGE] * 3, [None, b"\2" * PAGE]))
    first, second = (x.mapped for x in found.ram.blocks.values())
    assert first is not None
    assert second is not None
    assert second.bitmap_offset == first.pages_offset + 3 * PAGE + 3 + 8 + 28


def test_qemus_alignment_of_a_mebibyte() -> None:
    found = clean(stream([b"\1" * PAGE], align=1 << 20))
    assert found.ram.blocks["r0"].mapped.pages_offset == 1 << 20  # type: ignore[union-attr]
    assert found.tally().by_kind[Kind.PADDING] > 1 << 19


def test_bitmaps_are_of_whole_longs() -> None:
    for pages, size in ((1, 8), (64, 8), (65, 16)):
        found = clean(stream([None] * pages))
        assert found.ram.blocks["r0"].mapped.bitmap_size == size  # type: ignore[union-attr]


def test_no_page_records_follow() -> None:
    found = clean(stream([b"\1" * PAGE]))
    assert found.ram.tally.by_kind[Kind.PAGE] == PAGE


def test_shared_blocks_have_no_place() -> None:
    """x-ignore-shared beside mapped-ram: both offsets are 0."""
    configuration = build.configuration(capabilities=["x-ignore-shared", "mapped-ram"])
    shared = build.mapped_shared("shared", 1 << 30, 0)
    at = 8 + len(configuration) + 17 + 8 + len(shared[1])
    own = build.mapped_block("own", [b"\1" * PAGE], at=at, align=1 << 16, address=1 << 32)
    data = build.stream(
        configuration, build.start(2, body=build.block_list(shared, own) + build.eos())
    )
    found = clean(data)
    assert found.ram.blocks["shared"].mapped is not None
    assert found.ram.blocks["shared"].mapped.pages_offset == 0
    assert found.ram.blocks["own"].address == 1 << 32
    assert found.ram.per_block[0].pages == {}


def test_offsets_are_of_the_file_also_behind_a_container() -> None:
    """libvirt's sparse format: 92 bytes and more stand before the stream."""
    front = bytes(5000)
    inner = stream([b"\1" * PAGE, None], first=FIRST + len(front))
    found = read(front + inner, offset=len(front))
    assert found.error is None
    assert found.ram.blocks["r0"].mapped.pages_offset == 1 << 16  # type: ignore[union-attr]


def test_sections_behind_mapped_ram() -> None:
    data = stream([b"\1" * PAGE])[:-1] + build.full(3, "dev", body=b"\1") + build.eof()
    assert [x.idstr for x in clean(data).sections()] == ["ram", "dev"]


def _patched(offset: int, value: bytes) -> tuple[MigrationStream, int]:
    """Change bytes of the header of r0, which begins at the second value."""
    data = bytearray(stream([b"\1" * PAGE]))
    at = FIRST + 11
    data[at + offset : at + offset + len(value)] = value
    return read(bytes(data)), at


def test_another_version() -> None:
    found, at = _patched(0, build.be32(2))
    assert_error(
        found.error, Unsupported, at + 28, ("ram", "block", "r0"),
        "mapped-ram version: expected 1, found 2",
    )  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 511, 4095, (1 << 64) - 1])
def test_a_page_size_that_is_none(size: int) -> None:
    found, at = _patched(4, build.be64(size))
    assert_error(
        found.error, Damaged, at + 28, ("ram", "block", "r0"), "mapped-ram page size", str(size)
    )


def test_a_bitmap_before_the_header() -> None:
    found, at = _patched(12, build.be64(5))
    assert_error(
        found.error, Damaged, at + 28, ("ram", "block", "r0"),
        f"bitmap_offset: expected at least {at + 28:#x}, found 0x5",
    )  # fmt: skip


def test_pages_before_the_bitmap() -> None:
    found, at = _patched(20, build.be64(1))
    assert_error(
        found.error, Damaged, at + 28 + 8, ("ram", "block", "r0"), "pages_offset: expected at least"
    )


@pytest.mark.parametrize("offset", [12, 20])
def test_offsets_behind_the_end(offset: int) -> None:
    found, _ = _patched(offset, b"\xff" * 8)
    assert isinstance(found.error, Truncated)
    assert found.error.path == ("ram", "block", "r0")


def test_pages_that_are_cut() -> None:
    data = stream([b"\1" * PAGE] * 2)
    found = read(data[: (1 << 16) + PAGE])
    assert_error(
        found.error, Truncated, 1 << 16, ("ram", "block", "r0"),
        "pages is cut: expected 8192 bytes, found 4096",
    )  # fmt: skip


def test_a_long_bitmap_is_counted_in_pieces() -> None:
    pages = 1 << 20
    mapped = clean(stream([b"\1" * PAGE])).ram.blocks["r0"].mapped
    assert mapped is not None
    large = type(mapped)(PAGE, 3, pages // 8, 1 << 30)
    assert large.present(BytesSource(bytes(3) + b"\xff" * (pages // 8) + b"\xff")) == pages
