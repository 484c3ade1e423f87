"""Guest memory read from where it lies in the file, against a list of pages."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import migration as build
from builders.memory import (
    Channel,
    Story,
    contents,
    delta,
    mapped_stream,
    pattern,
    stories,
    uleb,
)
from checks import assert_error, watchdog
from cprformats.errors import Damaged, FormatError, Truncated
from cprformats.memory.block import MemoryBlock, RunKind
from cprformats.memory.channels import ChannelFile, ChannelJoin
from cprformats.memory.image import MemoryImage
from cprformats.migration import read_stream
from cprformats.source import BytesSource, Source, SpoolSource

PAGE = build.PAGE
MIB = 1 << 20


def image(
    data: bytes | Source, channels: Sequence[bytes] = (), *, keep_going: bool = False
) -> tuple[MemoryImage, FormatError | None]:
    """Read a stream for its memory; gives the error that ended it too."""
    source = BytesSource(data) if isinstance(data, bytes) else data
    sources = [BytesSource(x) for x in channels]
    found = MemoryImage(sources, keep_going=keep_going)
    files = [ChannelFile(f"c{n}", x) for n, x in enumerate(sources)]
    joined = ChannelJoin(found, files) if files else found
    return found, read_stream(source, sink=joined).error


def clean(data: bytes | Source, channels: Sequence[bytes] = ()) -> MemoryImage:
    found, error = image(data, channels)
    assert error is None, error
    return found


def one(body: bytes, size: int = 4 * PAGE) -> MemoryBlock:
    """The block ``r`` of a stream with these records."""
    return clean(stream(body, size))["r"]


def stream(body: bytes, size: int = 4 * PAGE) -> bytes:
    listed = build.block_list(build.block("r", size))
    return build.stream(build.start(2, body=listed + body + build.eos()))


def check(found: MemoryImage, story: Story) -> None:
    """Compare all that is known of each block."""
    assert list(found) == list(story.sizes)
    for name, block in found.items():
        assert (block.idstr, block.size, block.page_size) == (
            name, story.sizes[name], story.page_size,
        )  # fmt: skip
        assert len(block) == story.sizes[name]
        assert block.pages == len(story.model[name])
        assert block.read(0, block.size) == story.block(name)
        assert kinds(block) == [kind for _, kind in story.model[name]]


def kinds(block: MemoryBlock) -> list[str]:
    """The runs page by page; they must tile the block."""
    found: list[str] = []
    for run in block.runs():
        assert run.start == len(found)
        assert run.count > 0
        found += [run.kind.value] * run.count
    return found


def places(block: MemoryBlock) -> Iterator[tuple[int, int | None]]:
    for run in block.runs():
        for number in range(run.count):
            yield (
                run.start + number,
                None if run.offset is None else run.offset + number * run.stride,
            )


# -- any stream -----------------------------------------------------------------------


@settings(derandomize=True, max_examples=250)
@given(stories())
def test_against_a_list(story: Story) -> None:
    with patch("cprformats.memory.locations._CHUNK_PAGES", 4):
        check(clean(story.stream()), story)


@settings(derandomize=True, max_examples=60)
@given(stories())
def test_runs_say_where_contents_lie(story: Story) -> None:
    data = story.stream()
    for name, block in clean(data).items():
        for number, offset in places(block):
            contents, kind = story.model[name][number]
            if kind != "data":
                assert offset is None
            elif (name, number) in story.plain:
                assert offset is not None
                assert data[offset : offset + story.page_size] == contents


@settings(derandomize=True, max_examples=150)
@given(stories(), st.data())
def test_reads_at_odd_places(story: Story, draw: st.DataObject) -> None:
    name = draw.draw(st.sampled_from(sorted(story.sizes)))
    block, whole = clean(story.stream())[name], story.block(name)
    for _ in range(5):
        offset = draw.draw(st.integers(0, block.size + 20))
        length = draw.draw(st.integers(0, 3 * story.page_size) | st.just(block.size))
        assert block.read(offset, length) == whole[offset : offset + length]
        begin, end = (draw.draw(st.integers(-block.size - 9, block.size + 9)) for _ in range(2))
        assert block[begin:end] == whole[begin:end]


@settings(derandomize=True, max_examples=60)
@given(stories(), st.integers(0, 12), st.integers(0, 14))
def test_runs_of_a_part(story: Story, first: int, end: int) -> None:
    for block in clean(story.stream()).values():
        runs = list(block.runs(first, end))
        assert all(run.count > 0 for run in runs)
        found = [run.kind.value for run in runs for _ in range(run.count)]
        assert found == kinds(block)[first:end]


@pytest.mark.parametrize("page_size", [256, 512, 1024, 2048, 4096, 8192, 16384, 65536])
@pytest.mark.parametrize("short", [0, 1])
def test_each_page_size(page_size: int, short: int) -> None:
    story = Story({"a": 5 * page_size - short, "b": page_size}, page_size=page_size)
    for number in (0, 1, 4):
        story.page("a", number, pattern(number, page_size))
    story.zero("a", 2)
    story.fill("b", 0, 7)
    story.change("a", 2, bytes(40) + b"changed" + bytes(page_size - 47))
    check(clean(story.stream()), story)


def test_a_window_ends_in_the_middle_of_a_run() -> None:
    """More pages than a window of the reader or of a read has."""
    story = Story({"a": 700 * PAGE})
    for number in range(700):
        story.page("a", number, pattern(number % 50)) if number % 97 else story.zero("a", number)
    check(clean(story.stream()), story)


# -- a sequence -----------------------------------------------------------------------


def test_a_block_is_a_sequence_of_bytes() -> None:
    block = one(build.data_page(PAGE, "r", data=pattern(1)))
    assert block[PAGE] == pattern(1)[0]
    assert block[-3 * PAGE] == pattern(1)[0]
    assert block[-1] == 0
    assert block.read(4 * PAGE, 9) == block.read(0, 0) == block[9:3] == b""


@pytest.mark.parametrize("index", [4 * PAGE, -4 * PAGE - 1, 1 << 70])
def test_an_index_outside(index: int) -> None:
    with pytest.raises(IndexError, match=f"r: expected an offset below {4 * PAGE}, found {index}"):
        one(b"")[index]


def test_slices_have_no_step() -> None:
    with pytest.raises(ValueError, match="expected 1, found 2"):
        one(b"")[::2]


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, -1)])
def test_a_negative_place(offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="expected no negative place"):
        one(b"").read(offset, length)


def test_an_unknown_block() -> None:
    with pytest.raises(KeyError):
        clean(stream(b""))["vga"]


# -- one encoding after the other ---------------------------------------------------


def test_a_delta_for_a_page_that_was_never_sent() -> None:
    block = one(build.xbzrle_page(PAGE, "r", delta=delta(bytes(PAGE), pattern(1))))
    assert block.read(0, 2 * PAGE) == bytes(PAGE) + pattern(1)
    assert kinds(block) == ["never", "data", "never", "never"]


def test_a_delta_for_a_page_that_was_thrown_away() -> None:
    story = Story({"r": PAGE}, postcopy=True)
    story.page("r", 0, pattern(1))
    story.discard("r", 0, 1)
    story.change("r", 0, b"new" + bytes(PAGE - 3))
    check(clean(story.stream()), story)


def test_deltas_upon_deltas() -> None:
    story = Story({"r": 2 * PAGE})
    story.fill("r", 1, 9)
    for number in range(50):
        old = story.model["r"][number % 2][0]
        story.change(
            "r", number % 2, old[: number * 50] + pattern(number)[:30] + old[number * 50 + 30 :]
        )
    check(clean(story.stream()), story)
    assert [run.offset for run in clean(story.stream())["r"].runs()] == [None]


def test_data_zero_data_over_passes() -> None:
    story = Story({"r": PAGE})
    for turn in range(3):
        story.page("r", 0, pattern(turn))
        story.end_section()
        check(clean(story.stream()), story)
        story.zero("r", 0)
        story.end_section()
        check(clean(story.stream()), story)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (b"", "expected 4096 bytes, found 0"),
        (b"\x55" * 20, "Error -3"),
        (zlib.compress(bytes(PAGE - 1)), "expected 4096 bytes, found 4095"),
        (zlib.compress(bytes(PAGE + 1)), "expected 4096 bytes, found more"),
        (zlib.compress(pattern(1))[:-9], "expected 4096 bytes, found 40"),
        (zlib.compress(bytes(PAGE))[:-4] + b"abcd", "Error -3"),
    ],
)
def test_a_compressed_page_that_does_not_unpack(packed: bytes, message: str) -> None:
    data = stream(build.compressed_page(PAGE, "r", packed=packed))
    found, error = image(data)
    if error is None:  # nothing has to be unpacked to find where the pages are
        with pytest.raises(Damaged) as caught:
            found["r"].read(PAGE + 5, 1)
        error = caught.value
    assert isinstance(error, Damaged)
    assert error.path == ("ram", "r")
    assert data.index(build.text("r") + build.be32(len(packed))) - 8 <= error.offset < len(data)
    assert message in error.message
    assert "page 0x1000: " in error.message


def test_a_compressed_bomb_takes_no_more_than_its_page() -> None:
    packed = zlib.compress(bytes(8 * MIB), 9)[: 2 * PAGE]
    found = clean(stream(build.compressed_page(0, "r", packed=packed)))
    tracemalloc.start()
    try:
        with pytest.raises(Damaged, match="found more"):
            found["r"].read(0, 1)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


# -- deltas that are wrong ------------------------------------------------------------

OVERRUN = uleb(PAGE - 1) + uleb(2) + b"ab"


def wrong_delta(packed: bytes) -> tuple[bytes, int]:
    """A stream with a good page, a wrong delta of it, and a good page; and the delta's place."""
    good = build.data_page(0, "r", data=pattern(1))
    data = stream(good + build.xbzrle_page(0, delta=packed) + build.data_page(PAGE))
    return data, data.index(pattern(1)) + PAGE


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (OVERRUN, "expected at most 4096 bytes of page, found 4097"),
        (uleb(5) + uleb(9) + b"abc", "expected 11 bytes, found 5"),
    ],
)
def test_a_delta_that_overruns(packed: bytes, message: str) -> None:
    data, at = wrong_delta(packed)
    found, error = image(data)
    assert_error(error, Damaged, at, ("ram", "r"), "page 0x0: XBZRLE: ", message)
    assert found["r"].read(0, PAGE) == pattern(1)


def test_a_record_of_another_encoding() -> None:
    record = bytearray(build.xbzrle_page(0, "r"))
    record[10] = 2
    _, error = image(stream(bytes(record)))
    assert error is not None
    assert "XBZRLE: expected encoding 1, found 2" in error.message


def test_a_wrong_delta_is_noted_and_passed_over() -> None:
    data, at = wrong_delta(OVERRUN)
    found, error = image(data, keep_going=True)
    assert error is None
    (bad,) = found.bad
    assert (bad.block, bad.address, bad.length) == ("r", 0, PAGE)
    assert_error(bad.error, Damaged, at, ("ram", "r"), "XBZRLE")
    assert found["r"].read(PAGE, PAGE) == b"\xa5" * PAGE


def test_a_page_that_comes_whole_again_is_good() -> None:
    body = build.xbzrle_page(0, "r", delta=OVERRUN) + build.xbzrle_page(0)
    for again in (build.data_page(0, data=pattern(1)), build.zero_page(0)):
        found, error = image(stream(body + again), keep_going=True)
        assert error is None
        assert found.bad == ()
        assert found["r"].read(0, PAGE) in (pattern(1), bytes(PAGE))


def test_a_delta_of_a_bad_page_leaves_it_bad() -> None:
    body = build.xbzrle_page(0, "r", delta=OVERRUN) + build.xbzrle_page(0, delta=b"\0\1x")
    found, _ = image(stream(body), keep_going=True)
    assert len(found.bad) == 1


# -- whatever a file claims -------------------------------------------------------------


def test_a_block_of_a_size_that_is_a_lie() -> None:
    size = 1 << 60
    last = size - PAGE
    tracemalloc.start()
    try:
        with watchdog(2):
            block = one(build.data_page(last, "r", data=pattern(1)) + build.zero_page(PAGE), size)
            assert block.read(last + 5, 1 << 40) == pattern(1)[5:]
            assert block.read(size // 2, 10) == bytes(10)
            assert [(run.start, run.count, run.kind) for run in block.runs()] == [
                (0, 1, RunKind.NEVER),
                (1, 1, RunKind.ZERO),
                (2, size // PAGE - 3, RunKind.NEVER),
                (size // PAGE - 1, 1, RunKind.DATA),
            ]
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_discarding_a_size_that_is_a_lie() -> None:
    size = 1 << 60
    listed = build.block_list(build.block("r", size)) + build.data_page(PAGE, "r") + build.eos()
    data = build.stream(build.start(2, body=listed), build.discard("r", [(0, size)]))
    with watchdog(2):
        block = clean(data)["r"]
    assert block.read(PAGE, 9) == bytes(9)


@pytest.mark.parametrize(
    "ranges",
    [
        [(2 * PAGE, 1 << 60)],
        [(1 << 63, PAGE)],
        [(PAGE, 0), (PAGE + 5, 0)],
        [((1 << 64) - PAGE, PAGE)],
    ],
)
def test_discards_outside_the_block(ranges: list[tuple[int, int]]) -> None:
    body = build.block_list(build.block("r", 2 * PAGE)) + build.data_page(PAGE, "r") + build.eos()
    block = clean(build.stream(build.start(2, body=body), build.discard("r", ranges)))["r"]
    assert block.read(PAGE, PAGE) == b"\xa5" * PAGE


def test_a_discard_of_an_unknown_block() -> None:
    body = build.block_list(build.block("r", PAGE)) + build.eos()
    clean(build.stream(build.start(2, body=body), build.discard("vga", [(0, PAGE)])))


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_discard_too_short_for_a_name(size: int) -> None:
    body = build.block_list(build.block("r", PAGE)) + build.data_page(0, "r") + build.eos()
    found, _ = image(build.stream(build.start(2, body=body), build.command(6, bytes(size))))
    assert found["r"].read(0, PAGE) == b"\xa5" * PAGE


# -- a page size that is told at the end --------------------------------------------------


def test_a_page_size_that_was_missed_starts_anew() -> None:
    """Through a pipe the description comes last: the stream is read a second time."""
    first = build.data_page(0, "r", data=pattern(1, 1024))
    body = build.block_list(build.block("r", 2 * PAGE)) + first
    body += build.xbzrle_page(1024, delta=b"\0\1x") + build.zero_page(2048) + build.eos()
    data = build.stream(build.start(2, body=body), description=build.vmdesc(page_size=1024))
    block = clean(SpoolSource(io.BytesIO(data).read, keep_all=True))["r"]
    assert block.page_size == 1024
    assert block.read(0, 1026) == pattern(1, 1024) + b"x\0"
    assert kinds(block) == ["data", "data", "zero"] + ["never"] * 5


# -- mapped-ram ---------------------------------------------------------------------------

Pages = list[bytes | None]
bitmaps = st.lists(st.booleans(), min_size=1, max_size=80)


@settings(derandomize=True, max_examples=80)
@given(st.lists(bitmaps, min_size=1, max_size=3), st.sampled_from((512, 4096)), st.data())
def test_mapped_against_a_list(
    marked: list[list[bool]], page_size: int, draw: st.DataObject
) -> None:
    blocks = {
        f"b{n}": [pattern(i, page_size) if there else None for i, there in enumerate(bits)]
        for n, bits in enumerate(marked)
    }
    found = clean(mapped_stream(blocks, page_size=page_size))
    for name, pages in blocks.items():
        whole = b"".join(page or bytes(page_size) for page in pages)
        assert found[name].page_size == page_size
        assert found[name].read(0, len(whole)) == whole
        assert kinds(found[name]) == ["zero" if page is None else "data" for page in pages]
        offset = draw.draw(st.integers(0, len(whole)))
        length = draw.draw(st.integers(0, 3 * page_size))
        assert found[name].read(offset, length) == whole[offset : offset + length]


@pytest.mark.parametrize("size", [1, PAGE - 1, PAGE + 1, 3 * PAGE - 5])
def test_mapped_of_a_size_that_is_no_multiple(size: int) -> None:
    """The next block begins right behind the pages, and so may the end of the file."""
    count, used = -(-size // PAGE), {"rest": -size % PAGE, "r": size}
    pages: Pages = [pattern(n) for n in range(count)]
    found = clean(mapped_stream({"rest": [None], "r": pages, "more": [pattern(9)]}, used))
    for block in (found["r"], clean(mapped_stream({"rest": [None], "r": pages}, used))["r"]):
        assert block.read(0, size) == b"".join(pattern(n) for n in range(count))[:size]
        assert block.read(size - 1, 9) == block[size - 1 :]


@pytest.mark.parametrize("extra", [3, 5, 63])
def test_a_bitmap_with_bits_past_the_end(extra: int) -> None:
    data = mapped_stream({"r": [pattern(0), None, pattern(2)]}, bits=0b101 | 1 << extra)
    _, error = image(data)
    bitmap = data.index((0b101 | 1 << extra).to_bytes(8, "little"))
    assert_error(
        error, Damaged, bitmap + extra // 8, ("ram", "r"),
        "expected below 0x3", f"found {extra:#x}",
    )  # fmt: skip


@pytest.mark.parametrize("field", ["bitmap_offset", "pages_offset"])
@pytest.mark.parametrize("offset", [1 << 20, 1 << 60, (1 << 64) - 1])
def test_offsets_past_the_file(field: str, offset: int) -> None:
    wrong: dict[str, Any] = {field: offset}
    data = mapped_stream({"r": [pattern(0)]}, **wrong)
    found, error = image(data)
    assert isinstance(error, Truncated)
    assert error.path[:1] == ("ram",)
    assert "r" in error.path
    assert error.offset <= len(data)
    assert len(found) == 0


def test_offsets_before_the_header() -> None:
    _, error = image(mapped_stream({"r": [pattern(0)]}, bitmap_offset=4))
    assert isinstance(error, Damaged)
    assert "bitmap_offset: expected at least" in error.message


def test_a_page_record_of_a_mapped_block() -> None:
    """QEMU never sends one; what it means is not known."""
    data = mapped_stream({"r": [pattern(0)]})
    whole = data[:-14] + build.data_page(0, "r") + data[-14:]
    assert data[-14:] == build.eos() + build.footer(2) + build.eof()
    _, error = image(whole)
    assert isinstance(error, Damaged)
    assert error.path == ("ram", "r")


def test_a_file_that_has_become_shorter() -> None:
    data = bytearray(mapped_stream({"r": [pattern(0), pattern(1)]}))

    class Shrinks(BytesSource):
        def read_at(self, offset: int, count: int) -> bytes:
            return bytes(data[offset : offset + count])

    block = clean(Shrinks(bytes(data)))["r"]
    at = data.index(pattern(1))
    del data[at + 10 :]
    assert block.read(0, PAGE) == pattern(0)
    with pytest.raises(Truncated) as caught:
        block.read(PAGE, 1)
    assert_error(caught.value, Truncated, at, ("ram", "r"), "expected 4096 bytes, found 10")


# -- multifd ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["none", "zlib", "zstd", "qpl", "uadk"])
def test_pages_of_channels(method: str) -> None:
    """Data, then zero, then data again, on other channels, and a delta of it on none."""
    story = Story({"a": 9 * PAGE, "b": 2 * PAGE}, channels=[method, method])
    story.flush()
    story.packet(0, "a", {1: pattern(1), 2: pattern(2), 8: pattern(8)}, zeros=[4, 5])
    story.packet(1, "b", {0: pattern(3)})
    story.flush()
    story.packet(1, "a", {4: pattern(4)}, zeros=[1])
    story.zero("b", 0)
    story.flush()
    story.packet(0, "a", {1: pattern(5)})
    story.flush()
    found = clean(story.stream(), [x.data for x in story.channels])
    check(found, story)
    in_place = [run.offset is not None for run in found["a"].runs() if run.kind is RunKind.DATA]
    assert set(in_place) == {method == "none"}


def test_as_many_channels_as_qemu_has() -> None:
    """255 of them; the last one's pages are its own."""
    channels = [Channel(number) for number in range(255)]
    for number, channel in enumerate(channels):
        channel.send("r", {number * PAGE: pattern(number)}, sync=True)
    body = build.ram_mark(0x200)
    found = clean(stream(body, 255 * PAGE), [x.data for x in channels])
    assert found["r"].read(0, 255 * PAGE) == b"".join(pattern(n) for n in range(255))


def test_contents_of_a_model() -> None:
    assert contents([(b"ab", "data"), (b"cd", "data")], 3) == b"abc"
