"""Guest memory of cut and damaged files: our error or success, and what came before it is right.

Both readers see each input: the image, which reads pages from where they lie,
and extraction, which writes them as they come. Where no error is said, both
have the same bytes.
"""

from __future__ import annotations

import errno
import lzma
import os
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders.memory import METHODS, Story, contents, mapped_stream, pattern
from checks import fixture_names, fixture_path, watchdog
from cprformats.errors import FormatError
from cprformats.memory.block import MemoryBlock
from cprformats.memory.channels import ChannelFile, ChannelJoin
from cprformats.memory.contents import Expander
from cprformats.memory.image import MemoryImage
from cprformats.memory.locations import Code, unpack
from cprformats.migration import MigrationStream, read_stream
from cprformats.migration.multifd import read_channel
from cprformats.source import BytesSource
from cprtools.memory.drafts import drafts
from cprtools.memory.extract import BlockFiles
from cprtools.memory.writing import FileWriter

OURS = settings(
    deadline=None,  # the watchdog's is harder
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    derandomize=True,
)
SECONDS = 5
#: Of a block longer than this only the pages that came are read.
WHOLE_BYTES = 32 << 20
MOST_PAGES = 2_000
#: Cuts and flips of one fixture.
CUTS, FLIPS = 2, 1
KINDS = ["xbzrle", "compress", "compress-xbzrle", "passes", "background", "mapped-ram"]
KINDS += ["mapped-ram-multifd", "multifd-none", "multifd-zlib", "multifd-zstd"]
KINDS += ["postcopy", "postcopy-capable", "postcopy-preempt", "postcopy-return-path"]
NAMED = re.compile(rf"migration/\d+\.\d-.*-(?:{'|'.join(KINDS)})\.sav\.xz")
FIXTURES = [name for name in fixture_names("migration") if NAMED.fullmatch(name)]


@dataclass
class Result:
    """What one of the readers has made of an input.

    Attributes:
        error: the first one, of the stream, at its end, or when a page was read.
        blocks: contents, of long blocks in part; those that could be read.
    """

    error: FormatError | None = None
    blocks: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Input:
    """A main channel and the others."""

    data: bytes
    channels: tuple[bytes, ...] = ()

    def cut(self, size: int, channel: int | None = None) -> Input:
        """Give it with one of the files cut."""
        if channel is None:
            return Input(self.data[:size], self.channels)
        return self._with(channel, self.channels[channel][:size])

    def flipped(self, bits: Sequence[int], channel: int | None = None) -> Input:
        changed = bytearray(self.data if channel is None else self.channels[channel])
        for bit in bits:
            changed[bit // 8 % len(changed)] ^= 1 << bit % 8
        if channel is None:
            return Input(bytes(changed), self.channels)
        return self._with(channel, bytes(changed))

    def _with(self, channel: int, data: bytes) -> Input:
        before, after = self.channels[:channel], self.channels[channel + 1 :]
        return Input(self.data, (*before, data, *after))

    def files(self) -> list[ChannelFile]:
        return [ChannelFile(f"c{n}", BytesSource(x)) for n, x in enumerate(self.channels)]


# -- both ways of reading ---------------------------------------------------------------


def image_of(source: Input) -> tuple[MemoryImage, FormatError | None]:
    image = MemoryImage([file.source for file in source.files()])
    try:
        join = ChannelJoin(image, source.files())
        error = read_stream(BytesSource(source.data), sink=join).error
        if error is None:
            join.finish()
    except FormatError as problem:
        error = problem
    return image, error


def looked_at(source: Input) -> Result:
    """Read all memory from where it lies."""
    image, error = image_of(source)
    result = Result(error)
    for name, block in image.items():
        try:
            result.blocks[name] = b"".join(pieces(block))
        except FormatError as problem:
            result.error = result.error or problem
    image.close()
    return result


def pieces(block: MemoryBlock) -> Iterator[bytes]:
    """All bytes of a block; of a long one those that came."""
    if block.size <= WHOLE_BYTES:
        yield block.read(0, block.size)
        return
    for run in block.runs():
        if run.kind != "never":
            count = min(run.count, MOST_PAGES)
            yield block.read(run.start * block.page_size, count * block.page_size)


def extracted(source: Input, folder: Path) -> Result:
    """Write all memory to files, and read them."""
    with drafts() as made:
        made.give_up()
        plan = BlockFiles(folder, made)
        result = Result()
        try:
            join = ChannelJoin(Expander(FileWriter(plan)), source.files())
            result.error = read_stream(BytesSource(source.data), sink=join).error
            if result.error is None:
                join.finish()
        except FormatError as problem:
            result.error = problem
        for name, fd in plan._fds.items():
            size = os.fstat(fd).st_size
            if size <= WHOLE_BYTES:
                result.blocks[name] = os.pread(fd, size, 0)
    return result


def exercise(source: Input, folder: Path) -> tuple[Result, Result]:
    """Read in both ways; anything but our error is a fault."""
    with watchdog(SECONDS):
        found = looked_at(source)
    try:
        with watchdog(SECONDS):
            written = extracted(source, folder)
    except OSError as problem:
        # A block may be longer than the file system can say.
        assert problem.errno == errno.EFBIG  # noqa: PT017
        written = Result(found.error, {})
    for result in (found, written):
        check_error(source, result.error)
    if found.error is None and written.error is None:
        for name, data in written.blocks.items():
            assert len(data) > WHOLE_BYTES or data == found.blocks[name], name
    return found, written


def check_error(source: Input, error: FormatError | None) -> None:
    """The place of an error is in the file that its path names."""
    if error is None:
        return
    assert str(error)
    size = len(source.data)
    if error.path and error.path[0].startswith("channel c"):
        size = len(source.channels[int(error.path[0][9:])])
    assert 0 <= error.offset <= size, (str(error), hex(size))


# -- built streams ------------------------------------------------------------------------


@cache
def legacy() -> Story:
    """Every kind of record, over passes; pages of 1 KiB keep it small."""
    story = Story({"a": 6 * 1024, "b": 2000}, page_size=1024, postcopy=True)
    story.page("a", 0, pattern(1, 1024))
    story.zero("a", 1)
    story.fill("a", 2, 7)
    story.compressed("a", 3, b"compressed" * 102 + b"page")
    story.change("b", 0, b"never sent" + bytes(1014))
    story.end_section()
    story.change("a", 0, pattern(1, 1024)[:300] + b"changed" + pattern(1, 1024)[307:])
    story.zero("a", 2)
    story.discard("a", 0, 2)
    story.fill("a", 1, 9)
    story.change("a", 4, b"\1" * 9 + bytes(1015))
    return story


@cache
def multifd(method: str) -> Story:
    """Two channels; pages so large that a packet's head is short."""
    size = 65536
    story = Story({"a": 4 * size}, page_size=size, channels=[method, method])
    story.flush()
    story.packet(0, "a", {0: bytes([1]) * size}, zeros=[3])
    story.packet(1, "a", {1: bytes([2]) * size})
    story.flush()
    story.packet(1, "a", {3: bytes([3]) * size}, zeros=[0])
    story.zero("a", 1)
    story.flush()
    return story


@cache
def built() -> dict[str, Input]:
    found = {"legacy": Input(legacy().stream())}
    pages = [pattern(1, 512), None, pattern(2, 512)]
    mapped = mapped_stream({"a": pages, "b": [None] * 70}, page_size=512, align=512)
    found["mapped-ram"] = Input(mapped)
    for method in METHODS:
        story = multifd(method)
        found[method] = Input(story.stream(), tuple(x.data for x in story.channels))
    return found


def test_a_stream_of_all_records_cut_at_every_byte(tmp_path: Path) -> None:
    """What is there is just what the records that are whole say."""
    story, source = legacy(), Input(legacy().stream())
    assert len(source.data) < 4000
    for size in range(8, len(source.data)):
        model = story.known_at(size)
        wanted = {name: contents(model[name], story.sizes[name]) for name in model}
        for result in exercise(source.cut(size), tmp_path):
            assert result.blocks == wanted, size
            assert result.error is not None


def test_mapped_ram_cut_at_every_byte(tmp_path: Path) -> None:
    source = built()["mapped-ram"]
    whole = looked_at(source)
    end = len(source.data) - 14  # behind the last page
    for size in [*range(8, 700), *range(700, end, 97), *range(end - 600, len(source.data))]:
        for result in exercise(source.cut(size), tmp_path):
            assert result.error is not None
            if size >= end:
                assert result.blocks == whole.blocks


@pytest.mark.parametrize("method", METHODS)
def test_multifd_with_the_main_channel_cut_at_every_byte(method: str, tmp_path: Path) -> None:
    story, source = multifd(method), built()[method]
    for size in range(8, len(source.data)):
        model = story.known_at(size)
        wanted = {name: contents(model[name], story.sizes[name]) for name in model}
        for result in exercise(source.cut(size), tmp_path):
            assert result.blocks == wanted, size
            assert result.error is not None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channel", [0, 1])
def test_multifd_with_a_channel_cut_at_heads(method: str, channel: int, tmp_path: Path) -> None:
    source, ends = built()[method], multifd(method).channels[channel].ends
    sizes = {end + more for end in ends for more in (-1, 0, 1, 4, 12, 63, 64, 319, 320, 383, 384)}
    sizes |= {end + more for end in ends for more in range(385, 700, 45)}
    for size in sorted(x for x in sizes if x < len(source.channels[channel])):
        for result in exercise(source.cut(size, channel), tmp_path):
            assert result.error is not None
            assert result.error.path == (f"channel c{channel}",)


@settings(OURS, max_examples=400)
@given(st.data())
def test_flipped_bits(tmp_path: Path, draw: st.DataObject) -> None:
    source = built()[draw.draw(st.sampled_from(sorted(built())))]
    channel = draw.draw(st.none() | st.integers(0, 1)) if source.channels else None
    data = source.data if channel is None else source.channels[channel]
    bits = draw.draw(st.lists(st.integers(0, 8 * len(data) - 1), min_size=1, max_size=6))
    exercise(source.flipped(bits, channel), tmp_path)


@settings(OURS, max_examples=200)
@given(st.data())
def test_flipped_bits_of_heads(tmp_path: Path, draw: st.DataObject) -> None:
    """Not in pages, of which most bytes are."""
    source = built()[draw.draw(st.sampled_from(["legacy", *METHODS]))]
    channel = draw.draw(st.integers(0, 1)) if source.channels else None
    if channel is None:
        places = st.integers(0, len(source.data) - 1)
    else:
        ends = multifd_ends(source)[channel]
        places = st.builds(int.__add__, st.sampled_from(ends), st.integers(0, 400))
    bits = draw.draw(st.lists(st.builds(bit, places, st.integers(0, 7)), min_size=1, max_size=3))
    exercise(source.flipped(bits, channel), tmp_path)


def bit(place: int, number: int) -> int:
    return 8 * place + number


def multifd_ends(source: Input) -> list[list[int]]:
    """Where the packets of each channel begin."""
    method = next(name for name, x in built().items() if x is source)
    return [[0, *channel.ends[:-1]] for channel in multifd(method).channels]


@settings(OURS, max_examples=200)
@given(st.data())
def test_bytes_changed_inserted_and_deleted(tmp_path: Path, draw: st.DataObject) -> None:
    source = built()[draw.draw(st.sampled_from(("legacy", "mapped-ram", "none")))]
    start = draw.draw(st.integers(8, len(source.data)))
    stop = draw.draw(st.integers(start, min(start + 40, len(source.data))))
    more = draw.draw(st.binary(max_size=40))
    changed = source.data[:start] + more + source.data[stop:]
    exercise(Input(changed, source.channels), tmp_path)


# -- fixtures -----------------------------------------------------------------------------


@cache
def loaded(name: str) -> Input:
    """A fixture and its channels, if it has some."""
    stem = name.removesuffix(".sav.xz")
    files = [fixture_path(f"{stem}.mfd-{number}.xz") for number in range(9)]
    read = [lzma.decompress(path.read_bytes()) for path in files if path.exists()]
    return Input(lzma.decompress(fixture_path(name).read_bytes()), tuple(read))


def ram_part(stream: MigrationStream) -> tuple[int, int]:
    """Where the RAM begins, and where its last section ends."""
    sections = [section for section in stream.sections() if section.holds_ram]
    return sections[0].body_offset, sections[-1].body_end


def check_what_came_before(whole: MemoryImage, found: MemoryImage, source: int, size: int) -> int:
    """Compare the pages whose last record is in front of a cut; gives how many there are."""
    same = 0
    for name, block in found.items():
        reference, page_size = whole[name], block.page_size
        for number, location in enumerate(reference._places.take(0, reference.pages)):
            code, offset, where = unpack(location)
            end = offset + (page_size if code == Code.DATA else 1)
            if where == source and code in (Code.ZERO, Code.DATA) and offset and end <= size:
                at = number * page_size
                assert block.read(at, page_size) == reference.read(at, page_size), (name, number)
                same += 1
    return same


@pytest.mark.parametrize("name", FIXTURES)
def test_a_capture_cut_inside_its_ram(name: str, tmp_path: Path) -> None:
    source, rng = loaded(name), random.Random(name)
    whole, error = image_of(source)
    assert error is None
    begin, end = ram_part(read_stream(BytesSource(source.data)))
    for turn in range(CUTS):
        channel = rng.choice(range(len(source.channels))) if source.channels and turn else None
        if channel is None:
            size = rng.randrange(begin, end)
        else:
            size = rng.randrange(64, len(source.channels[channel]))
        cut = source.cut(size, channel)
        found, written = exercise(cut, tmp_path)
        assert found.error is not None
        assert written.blocks == found.blocks
        with ExitStack() as stack:
            image = image_of(cut)[0]
            stack.callback(image.close)
            if channel is None:
                check_what_came_before(whole, image, 0, size)
            else:
                # Pages of a packet come all or not at all.
                last = read_channel(BytesSource(cut.channels[channel])).end
                check_what_came_before(whole, image, channel + 1, last)
    whole.close()


@pytest.mark.parametrize("name", FIXTURES)
def test_a_capture_with_a_flipped_bit(name: str, tmp_path: Path) -> None:
    source, rng = loaded(name), random.Random(f"{name} flipped")
    begin, end = ram_part(read_stream(BytesSource(source.data)))
    for _ in range(FLIPS):
        channel = rng.choice([None, *range(len(source.channels))])
        if channel is None:
            place = rng.randrange(8 * begin, 8 * end)
        else:
            place = rng.randrange(8 * len(source.channels[channel]))
        exercise(source.flipped([place], channel), tmp_path)


def test_a_flipped_bit_of_a_page_changes_that_page_only(tmp_path: Path) -> None:
    for method in ("passes", "multifd-none"):
        source = loaded(next(name for name in FIXTURES if method in name))
        whole, _ = image_of(source)
        block = whole["pc.ram"]
        first, offset, where = next(
            (number, *unpack(location)[1:])
            for number, location in enumerate(block._places.take(0, block.pages))
            if unpack(location)[0] == Code.DATA
        )
        flipped = source.flipped([8 * (offset + 9)], where - 1 if where else None)
        at = first * block.page_size + 9
        for result in exercise(flipped, tmp_path):
            wanted = bytearray(block.read(0, block.size))
            wanted[at] ^= 1
            assert result.error is None
            assert result.blocks["pc.ram"] == wanted
