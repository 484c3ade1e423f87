"""Records turned into pages: `Expander` and a writer that keeps them in memory, against a list."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import migration as build
from builders.memory import Story, delta, pattern, stories, uleb
from checks import assert_error
from cprformats.errors import Damaged, FormatError
from cprformats.memory.batch import PageCode, RamBatch
from cprformats.memory.contents import Expander, decode_page, page_views, write_batch
from cprformats.migration import read_stream
from cprformats.migration.ramparts import RamBlock
from cprformats.source import BytesSource, Source

PAGE = build.PAGE
MIB = 1 << 20


class Kept:
    """A `PageWriter` that keeps blocks, and what it was asked to do."""

    def __init__(self) -> None:
        self.blocks: dict[str, bytearray] = {}
        self.calls: list[tuple[str, str, int, int]] = []

    def restart(self) -> None:
        self.blocks.clear()
        self.calls.clear()

    def begin(self, blocks: Sequence[RamBlock], source: Source) -> None:
        del source
        self.blocks.update((x.idstr, bytearray(x.used_length)) for x in blocks)

    def pages(self, batch: RamBatch, page_size: int, *, fresh: bool) -> None:
        write_batch(self, batch, page_size, fresh=fresh)

    def write(self, block: str, address: int, views: list[memoryview]) -> None:
        self._put("write", block, address, b"".join(views))

    def zero(self, block: str, address: int, length: int) -> None:
        self._put("zero", block, address, bytes(length))

    def read(self, block: str, address: int, length: int) -> bytes:
        self.calls.append(("read", block, address, length))
        return bytes(self.blocks[block][address : address + length]).ljust(length, b"\0")

    def _put(self, what: str, block: str, address: int, data: bytes) -> None:
        self.calls.append((what, block, address, len(data)))
        whole = self.blocks[block]
        assert 0 <= address < len(whole)
        data = data[: len(whole) - address]
        whole[address : address + len(data)] = data


def expand(data: bytes, *, keep_going: bool = False) -> tuple[Kept, Expander, FormatError | None]:
    writer = Kept()
    expander = Expander(writer, keep_going=keep_going)
    return writer, expander, read_stream(BytesSource(data), sink=expander).error


def clean(data: bytes) -> Kept:
    writer, expander, error = expand(data)
    assert error is None, error
    assert expander.bad == ()
    return writer


def stream(body: bytes, size: int = 4 * PAGE) -> bytes:
    listed = build.block_list(build.block("r", size))
    return build.stream(build.start(2, body=listed + body + build.eos()))


def did(body: bytes) -> list[tuple[str, int, int]]:
    """What the writer of the block ``r`` was asked for, in pages."""
    calls = clean(stream(body)).calls
    return [(what, address // PAGE, length // PAGE) for what, _, address, length in calls]


# -- any stream -----------------------------------------------------------------------


@settings(derandomize=True, max_examples=250)
@given(stories())
def test_against_a_list(story: Story) -> None:
    writer = clean(story.stream())
    assert list(writer.blocks) == list(story.sizes)
    for name, found in writer.blocks.items():
        assert bytes(found) == story.block(name)


@settings(derandomize=True, max_examples=100)
@given(stories())
def test_no_zeros_are_written_that_are_there(story: Story) -> None:
    """A page that never had contents needs no hole: a new file is one."""
    seen: set[tuple[str, int]] = set()
    for what, block, address, length in clean(story.stream()).calls:
        pages = {(block, at) for at in range(address, address + length, story.page_size)}
        if what == "write":
            seen |= pages
        elif what == "zero" and len(pages) == 1 and not story_discards(story):
            assert pages & seen or came(story, block, address // story.page_size) > 1


def story_discards(story: Story) -> bool:
    return any(kind == "never" for _, _, _, (_, kind) in story._steps)


def came(story: Story, block: str, number: int) -> int:
    return sum((name, page) == (block, number) for _, name, page, _ in story._steps)


# -- what is asked of the writer ------------------------------------------------------


def test_pages_in_order_are_one_write() -> None:
    body = build.data_page(0, "r") + build.data_page(PAGE) + build.data_page(2 * PAGE)
    assert did(body) == [("write", 0, 3)]


def test_zeros_between_data_are_left_out() -> None:
    body = build.data_page(0, "r") + build.zero_page(PAGE) + build.data_page(2 * PAGE)
    assert did(body) == [("write", 0, 1), ("write", 2, 1)]


def test_a_zero_over_data_makes_a_hole() -> None:
    assert did(build.data_page(PAGE, "r") + build.zero_page(PAGE)) == [
        ("write", 1, 1), ("zero", 1, 1),
    ]  # fmt: skip


def test_data_zero_data_over_passes() -> None:
    body = build.data_page(0, "r") + build.zero_page(0) + build.data_page(0, data=pattern(1))
    writer = clean(stream(body))
    assert [what for what, *_ in writer.calls] == ["write", "zero", "write"]
    assert writer.blocks["r"][:PAGE] == pattern(1)


@pytest.mark.parametrize("fill", [1, 0xFF])
def test_a_page_of_one_byte(fill: int) -> None:
    body = build.data_page(0, "r") + build.zero_page(0, fill=fill)
    assert clean(stream(body)).blocks["r"][:PAGE] == bytes([fill]) * PAGE


def test_a_delta_reads_what_was_written() -> None:
    new = pattern(1)[:100] + b"new" + pattern(1)[103:]
    body = build.data_page(0, "r", data=pattern(1)) + build.xbzrle_page(
        0, delta=delta(pattern(1), new)
    )
    writer = clean(stream(body))
    assert [what for what, *_ in writer.calls] == ["write", "read", "write"]
    assert writer.blocks["r"][:PAGE] == new


def test_a_discard_makes_a_hole_as_far_as_the_block_goes() -> None:
    story = Story({"r": 3 * PAGE}, postcopy=True)
    story.page("r", 1, pattern(1))
    story.end_section()
    story.data += build.discard("r", [(PAGE, 1 << 60), (1 << 62, PAGE), (0, 0)])
    story.data += build.discard("vga", [(0, PAGE)])
    writer = clean(story.stream())
    assert writer.calls[1:] == [("zero", "r", PAGE, 2 * PAGE)]
    assert writer.blocks["r"] == bytes(3 * PAGE)


def test_a_discard_that_begins_inside_a_page() -> None:
    """QEMU refuses it; whatever comes of it, a zero page that follows is zero."""
    listed = build.block_list(build.block("r", 2 * PAGE))
    body = listed + build.data_page(0, "r") + build.data_page(PAGE) + build.eos()
    data = build.stream(
        build.start(2, body=body),
        build.discard("r", [(PAGE // 2, PAGE)]),
        build.end(2, body=build.zero_page(0, "r") + build.zero_page(PAGE) + build.eos()),
    )
    writer, _, error = expand(data)
    assert error is not None or writer.blocks["r"] == bytes(2 * PAGE)


def test_a_block_list_that_comes_again() -> None:
    """What was written before it is not new to the file: a zero page must make a hole."""
    listed = build.block_list(build.block("r", 2 * PAGE))
    body = listed + build.data_page(0, "r") + listed + build.zero_page(0, "r") + build.eos()

    class Keeps(Kept):
        def begin(self, blocks: Sequence[RamBlock], source: Source) -> None:
            """Like a file, which is not emptied."""
            del source
            for block in blocks:
                self.blocks.setdefault(block.idstr, bytearray(block.used_length))

    writer = Keeps()
    error = read_stream(
        BytesSource(build.stream(build.start(2, body=body))), sink=Expander(writer)
    ).error
    assert error is not None or writer.blocks["r"] == bytes(2 * PAGE)


# -- damage ---------------------------------------------------------------------------

DAMAGED = [
    (build.xbzrle_page(0, "r", delta=uleb(PAGE) + uleb(1) + b"a"), "XBZRLE: expected at most 4096"),
    (build.xbzrle_page(0, "r", delta=uleb(1) + uleb(9) + b"a"), "XBZRLE: expected 11 bytes"),
    (build.xbzrle_page(0, "r").replace(b"r\1", b"r\2"), "XBZRLE: expected encoding 1, found 2"),
    (build.compressed_page(0, "r", data=bytes(PAGE - 1)), "expected 4096 bytes, found 4095"),
    (build.compressed_page(0, "r", data=bytes(PAGE + 1)), "expected 4096 bytes, found more"),
    (build.compressed_page(0, "r", packed=b""), "expected 4096 bytes, found 0"),
    (build.compressed_page(0, "r", packed=b"\x55" * 9), "Error -3"),
]
IDS = [str(number) for number in range(len(DAMAGED))]


@pytest.mark.parametrize(("record", "message"), DAMAGED, ids=IDS)
def test_a_page_that_can_not_be_decoded(record: bytes, message: str) -> None:
    before, after = build.data_page(PAGE, "r"), build.data_page(2 * PAGE, "r")
    data = stream(before + record + after)
    writer, _, error = expand(data)
    assert_error(error, Damaged, data.index(record), ("ram", "r"), "page 0x0: ", message)
    assert [what for what, *_ in writer.calls if what != "read"] == ["write"]


@pytest.mark.parametrize(("record", "message"), DAMAGED, ids=IDS)
def test_a_page_that_can_not_be_decoded_is_noted(record: bytes, message: str) -> None:
    data = stream(
        build.data_page(0, "r", data=pattern(1)) + record + build.data_page(2 * PAGE, "r")
    )
    writer, expander, error = expand(data, keep_going=True)
    assert error is None
    (bad,) = expander.bad
    assert (bad.block, bad.address, bad.length) == ("r", 0, PAGE)
    assert_error(bad.error, Damaged, data.index(record), ("ram", "r"), message)
    assert writer.blocks["r"][2 * PAGE : 3 * PAGE] == b"\xa5" * PAGE


GOOD = [build.data_page(0, data=pattern(2)), build.zero_page(0), build.zero_page(0, fill=3)]
GOOD += [build.compressed_page(0, data=pattern(3))]


@pytest.mark.parametrize("again", GOOD, ids=["data", "zero", "fill", "compressed"])
def test_a_bad_page_that_comes_whole_again_is_good(again: bytes) -> None:
    body = DAMAGED[0][0] + again + build.xbzrle_page(0, delta=b"\0\1x")
    writer, expander, error = expand(stream(body), keep_going=True)
    assert error is None
    assert expander.bad == ()
    assert writer.blocks["r"][0] == ord("x")


def test_a_bad_page_that_is_thrown_away_is_good() -> None:
    listed = build.block_list(build.block("r", 2 * PAGE))
    data = build.stream(
        build.start(2, body=listed + DAMAGED[0][0] + build.eos()),
        build.discard("r", [(0, PAGE)]),
    )
    _, expander, error = expand(data, keep_going=True)
    assert error is None
    assert expander.bad == ()


def test_a_delta_of_a_bad_page_leaves_it_bad() -> None:
    body = DAMAGED[3][0] + build.xbzrle_page(0, delta=b"\0\1x") + build.data_page(PAGE)
    writer, expander, _ = expand(stream(body), keep_going=True)
    assert len(expander.bad) == 1
    assert [what for what, *_ in writer.calls] == ["write"]


def test_no_more_bad_pages_than_anybody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cprformats.memory.contents._MAX_BAD_PAGES", 2)
    body = b"".join(
        build.compressed_page(n * PAGE, None if n else "r", packed=b"") for n in range(3)
    )
    _, expander, error = expand(stream(body), keep_going=True)
    assert isinstance(error, Damaged)
    assert len(expander.bad) == 2


def test_restart_forgets_bad_pages() -> None:
    _, expander, _ = expand(stream(DAMAGED[0][0]), keep_going=True)
    expander.restart()
    assert expander.bad == ()


# -- one page, and batches ----------------------------------------------------------------


def record(code: PageCode, contents: bytes) -> RamBatch:
    return RamBatch("r", PAGE, bytes([code]), 77, 0, 3, memoryview(b"xyz" + contents))


@settings(derandomize=True)
@given(st.binary(max_size=60))
def test_any_compressed_bytes_give_a_page_or_our_error(packed: bytes) -> None:
    batch = record(PageCode.COMPRESSED, build.be32(len(packed)) + packed)
    try:
        assert len(decode_page(batch, PAGE)) == PAGE
    except Damaged as error:
        assert (error.offset, error.path) == (77, ("ram", "r"))  # noqa: PT017


def test_a_bomb_takes_no_more_memory_than_a_page() -> None:
    packed = zlib.compress(bytes(64 * MIB), 9)
    batch = record(PageCode.COMPRESSED, build.be32(len(packed)) + packed)
    tracemalloc.start()
    try:
        with pytest.raises(Damaged, match="found more"):
            decode_page(batch, PAGE)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


@settings(derandomize=True)
@given(st.lists(st.sampled_from("pz"), min_size=1, max_size=12), st.sampled_from((0, 8)))
def test_a_batch_is_split_into_runs(kinds: list[str], stride: int) -> None:
    """Records one after the other (8 bytes between), or contents alone (multifd)."""
    if stride == 0:
        kinds = kinds[:1] * len(kinds)  # a packet's data and zeros are batches of their own
    pages = [pattern(n, 256) if kind == "p" else b"" for n, kind in enumerate(kinds)]
    gap = b"h" * stride
    records = [page or b"\0" * (stride > 0) for page in pages]
    data = memoryview(b"head" + gap.join(records))
    batch = RamBatch("r", 0, "".join(kinds).encode(), 0, 0, 4, data, stride_head=stride)
    found: list[bytes] = []
    for is_data, count, views in page_views(batch, 256):
        whole = b"".join(views)
        assert len(whole) == (count * 256 if is_data else 0)
        found += [whole[at * 256 :][:256] if is_data else b"" for at in range(count)]
    assert found == pages
