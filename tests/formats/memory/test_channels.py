"""Multifd channels joined with the main channel: epochs, and channels cut or of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import migration as build
from builders.memory import (
    METHODS,
    QATZIP,
    SYNC,
    ZLIB,
    Channel,
    Story,
    device_packet,
    hello,
    packet,
    pattern,
)
from checks import assert_error
from cprformats.errors import Damaged, FormatError, Truncated, Unsupported
from cprformats.memory.batch import PageCode, RamBatch
from cprformats.memory.channels import ChannelFile, ChannelJoin
from cprformats.memory.image import MemoryImage
from cprformats.migration import read_stream
from cprformats.migration.ramparts import RamBlock, RamContext
from cprformats.migration.wire import RamFlag
from cprformats.source import BytesSource, Source

PAGE = build.PAGE
#: A page so large that a packet has room for 8 only, and its head is short.
LARGE = 65536
HEAD = 64 + 256 + 8 * 128
FLUSH = RamFlag.MULTIFD_FLUSH


@dataclass
class Log:
    """A sink that notes pages and marks in the order in which they come."""

    events: list[tuple[str, ...] | str] = field(default_factory=list)

    def restart(self) -> None:
        self.events.clear()

    def blocks(self, blocks: Sequence[RamBlock], context: RamContext, source: Source) -> None:
        del blocks, context, source
        self.events.append("blocks")

    def pages(self, batch: RamBatch) -> None:
        kind = "data" if batch.kinds[0] == PageCode.DATA else "zero"
        first = batch.address // PAGE
        pages = ",".join(str(first + number) for number in range(len(batch.kinds)))
        self.events.append(f"{batch.source}: {kind} {batch.block} {pages}")

    def mark(self, flag: RamFlag) -> None:
        self.events.append(flag.name or "")

    def discard(self, block: str, start: int, length: int) -> None:
        self.events.append(f"discard {block} {start} {length}")


def story(*methods: str, pages: int = 9, page_size: int = PAGE) -> Story:
    return Story({"r": pages * page_size}, channels=methods or ("none",), page_size=page_size)


def files(channels: Sequence[bytes]) -> list[ChannelFile]:
    return [ChannelFile(f"c{n}", BytesSource(x)) for n, x in enumerate(channels)]


def log(told: Story) -> list[object]:
    """Read everything; gives what the sink was given."""
    sink = Log()
    joined = ChannelJoin(sink, files([x.data for x in told.channels]))
    assert read_stream(BytesSource(told.stream()), sink=joined).error is None
    joined.finish()
    return list(sink.events)


def joined(data: bytes, *channels: bytes) -> tuple[MemoryImage, FormatError | None]:
    """Read everything; gives the first error, of the stream or at the end."""
    sources = files(channels)
    image = MemoryImage([x.source for x in sources])
    try:
        join = ChannelJoin(image, sources)
        error = read_stream(BytesSource(data), sink=join).error
        if error is None:
            join.finish()
    except FormatError as problem:
        error = problem
    return image, error


def broken(channel: bytes, told: Story | None = None) -> FormatError:
    """Read a stream of two epochs with this channel: the second has pages."""
    if told is None:
        told = story()
        told.flush()
        told.flush()
    _, error = joined(told.stream(), channel)
    assert error is not None
    assert error.path == ("channel c0",)
    assert 0 <= error.offset <= len(channel)
    return error


# -- epochs -------------------------------------------------------------------------------


def test_flush_ends_an_epoch_where_it_is_the_first_mark() -> None:
    """EOS then ends none: pages of an epoch come in several sections."""
    told = story("none", "none")
    told.flush()
    told.zero("r", 0)
    told.end_section()
    told.packet(0, "r", {1: pattern(1)})
    told.packet(1, "r", {2: pattern(2)})
    told.zero("r", 3)
    told.flush()
    told.zero("r", 1)
    told.flush()
    assert log(told) == [
        "blocks", "MULTIFD_FLUSH",
        "0: zero r 0", "EOS", "0: zero r 3", "1: data r 1", "2: data r 2", "MULTIFD_FLUSH",
        "0: zero r 1", "MULTIFD_FLUSH", "EOS",
    ]  # fmt: skip


def test_eos_ends_an_epoch_where_it_is_the_first_mark() -> None:
    told = story("none")
    told.eos()
    told.packet(0, "r", {1: pattern(1)}, zeros=[4, 5])
    told.eos()
    told.zero("r", 1)
    told.eos()
    assert log(told) == [
        "blocks", "EOS", "1: data r 1", "1: zero r 4,5", "EOS", "0: zero r 1", "EOS",
    ]  # fmt: skip


def test_sections_that_only_repeat_are_marks_too() -> None:
    """They are not read a second time, but their ends are given."""
    told = story("none")
    told.eos()
    for number in range(6):
        told.packet(0, "r", {0: pattern(number)})
        told.eos()
    assert log(told).count("EOS") == 7
    image, error = joined(told.stream(), told.channels[0].data)
    assert error is None
    assert image["r"].read(0, PAGE) == pattern(5)


def test_a_sync_packet_may_carry_pages() -> None:
    """Up to 8.2; they are older than the mark."""
    channel = Channel()
    channel.sync()
    channel.send("r", {0: pattern(1)}, sync=True)
    told = story()
    told.flush()
    told.flush()
    told.zero("r", 0)
    image, error = joined(told.stream(), channel.data)
    assert error is None
    assert image["r"].read(0, PAGE) == bytes(PAGE)


def test_packets_without_pages_or_sync() -> None:
    """What 5.2 to 8.2 leave behind when a SYNC takes a job; with the size of another packet."""
    channel = Channel()
    channel.raw(packet("r", size=999))
    channel.sync()
    channel.raw(packet("r", flags=SYNC, size=4096))
    told = story()
    told.flush()
    told.flush()
    assert joined(told.stream(), channel.data)[1] is None


def test_the_same_page_twice_in_an_epoch() -> None:
    """5.2 to 8.2 send the last page of a packet again, on another channel."""
    channels = [Channel(n) for n in range(2)]
    for channel in channels:
        channel.send("r", {0: pattern(1)}, sync=True)
    told = story()
    told.flush()
    image, error = joined(told.stream(), *[x.data for x in channels])
    assert error is None
    assert image["r"].read(0, PAGE) == pattern(1)


def test_offsets_that_are_not_in_order() -> None:
    """Zeros are swapped to the end of a packet, so what is left is in disorder."""
    channel = Channel()
    pages = {number * PAGE: pattern(number) for number in (7, 2, 3, 0)}
    channel.send("r", pages, [6 * PAGE, PAGE], sync=True)
    told = story()
    told.flush()
    image, error = joined(told.stream(), channel.data)
    assert error is None
    wanted = [pattern(n) if n in (7, 2, 3, 0) else bytes(PAGE) for n in range(9)]
    assert image["r"].read(0, 9 * PAGE) == b"".join(wanted)


def test_device_state_between_packets() -> None:
    channel = Channel()
    channel.raw(device_packet(b"state" * 99))
    channel.sync()
    channel.raw(device_packet(b""))
    channel.send("r", {0: pattern(1)}, sync=True)
    channel.raw(device_packet(b"more"))
    told = story()
    told.flush()
    told.flush()
    image, error = joined(told.stream(), channel.data)
    assert error is None
    assert image["r"].read(0, PAGE) == pattern(1)


Step = tuple[str, int, int, int]
steps = st.tuples(
    st.sampled_from(("packet", "packet", "zeros", "main", "mark", "section")),
    *[st.integers(0, 255)] * 3,
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mark", ["flush", "eos"])
@settings(derandomize=True, max_examples=20)
@given(history=st.lists(steps, max_size=25))
def test_against_a_list(method: str, mark: str, history: list[Step]) -> None:
    told = story(method, method, "none")
    getattr(told, mark)()
    sent: set[int] = set()  # a page comes once in an epoch
    for op, channel, first, seed in history:
        pages = [n for n in {first % 9, seed % 9, first * seed % 9} if n not in sent]
        if op == "mark":
            getattr(told, mark)()
            sent.clear()
        elif op == "section" and mark == "flush":
            told.end_section()
        elif op == "packet" and pages:
            told.packet(channel % 3, "r", {n: pattern(seed + n) for n in pages[1:]}, pages[:1])
        elif op == "zeros" and pages:
            told.packet(channel % 3, "r", {}, pages)
        elif op == "main" and pages:
            told.zero("r", pages[0])
        sent.update(pages if op in ("packet", "zeros") else pages[:1] if op == "main" else [])
    getattr(told, mark)()
    image, error = joined(told.stream(), *[x.data for x in told.channels])
    assert error is None
    assert image["r"].read(0, 9 * PAGE) == told.block("r")


@pytest.mark.parametrize("page_size", [1024, 4096, 16384, 65536])
@pytest.mark.parametrize("method", ["none", "zlib"])
def test_each_page_size(page_size: int, method: str) -> None:
    told = story(method, page_size=page_size)
    told.flush()
    told.packet(0, "r", {n: pattern(n, page_size) for n in (1, 2, 5)}, zeros=[3])
    told.flush()
    image, error = joined(told.stream(), told.channels[0].data)
    assert error is None
    assert image["r"].read(0, image["r"].size) == told.block("r")


def test_the_last_page_of_a_block_of_odd_size() -> None:
    told = Story({"r": 2 * PAGE - 100}, channels=["none"])
    told.flush()
    told.packet(0, "r", {1: pattern(1)})
    told.flush()
    image, error = joined(told.stream(), told.channels[0].data)
    assert error is None
    assert image["r"].read(PAGE, PAGE) == pattern(1)[:-100]


def test_restart_reads_the_channels_anew() -> None:
    told = story()
    told.flush()
    told.packet(0, "r", {1: pattern(1)})
    told.flush()
    sources = files([told.channels[0].data])
    image = MemoryImage([x.source for x in sources])
    join = ChannelJoin(image, sources)
    for _ in range(2):
        assert read_stream(BytesSource(told.stream()), sink=join).error is None
        join.finish()
        assert image["r"].read(PAGE, PAGE) == pattern(1)
        join.restart()


# -- channels that do not fit ----------------------------------------------------------------


def test_a_channel_with_fewer_syncs() -> None:
    channel = Channel()
    channel.sync()
    assert_error(
        broken(channel.data), Damaged, len(channel.data), ("channel c0",),
        "expected a packet with SYNC that ends epoch 2, found the end",
    )  # fmt: skip


def test_a_channel_without_any_packet() -> None:
    assert "ends epoch 1, found the end" in broken(hello()).message


def test_pages_behind_the_last_mark() -> None:
    channel = Channel()
    channel.sync()
    channel.sync()
    end = len(channel.data)
    channel.send("r", {0: pattern(0), PAGE: pattern(1)}, [2 * PAGE])
    assert_error(
        broken(channel.data), Damaged, end, ("channel c0",),
        "expected nothing behind epoch 2, the main channel's last, found 3 pages",
    )  # fmt: skip


@pytest.mark.parametrize("between", ["sync", "device", "empty"])
def test_pages_farther_behind_the_last_mark(between: str) -> None:
    """A channel of a longer migration may go on with a SYNC that has no pages."""
    channel = Channel()
    channel.sync()
    channel.sync()
    if between == "sync":
        channel.sync()
    else:
        channel.raw(device_packet(b"state") if between == "device" else packet("r", size=7))
    channel.send("r", {0: pattern(0)}, sync=True)
    assert isinstance(broken(channel.data), Damaged)


def test_channels_of_which_one_is_longer() -> None:
    told = story("none", "none")
    told.flush()
    told.flush()
    told.channels[1].send("r", {0: pattern(0)})
    _, error = joined(told.stream(), *[x.data for x in told.channels])
    assert error is not None
    assert error.path == ("channel c1",)


# -- channels that are damaged ----------------------------------------------------------------


@pytest.mark.parametrize("data", [b"QEVM" + bytes(99), bytes(64), b"\x11\x22\x33\x45" + bytes(60)])
def test_a_file_that_is_no_channel(data: bytes) -> None:
    assert_error(
        broken(data), Damaged, 0, ("channel c0",),
        f"expected the magic 0x11223344, found {data[:4].hex()}",
    )  # fmt: skip


@pytest.mark.parametrize("size", [0, 3, 63])
def test_a_hello_that_is_cut(size: int) -> None:
    words = (f"hello is cut: expected 64 bytes, found {size}",)
    assert_error(broken(hello()[:size]), Truncated, 0, ("channel c0",), *words)


@pytest.mark.parametrize("change", [{"magic": 0x11223345}, {"version": 2}])
def test_a_packet_of_another_format(change: dict[str, Any]) -> None:
    error = broken(hello() + packet("r", flags=SYNC, **change))
    assert_error(error, Damaged, 64, ("channel c0",), "expected a packet of version 1, found 112")


def test_device_state_of_another_format() -> None:
    data = hello() + device_packet(b"state", magic=0x99223344)
    error = broken(data + packet(flags=SYNC) * 2)
    assert_error(error, Damaged, 64, ("channel c0",), "99223344")


@pytest.mark.parametrize("size", [100, 1 << 31, (1 << 32) - 1])
def test_device_state_that_is_longer_than_the_file(size: int) -> None:
    broken(hello() + device_packet(b"state", size=size))


def test_a_page_of_an_unknown_block() -> None:
    channel = Channel()
    channel.send("vga", {0: pattern(0)}, sync=True)
    assert_error(broken(channel.data), Damaged, 64, ("channel c0",), "unknown RAMBlock 'vga'")


@pytest.mark.parametrize("name", [b"\xff\xfe", b"x" * 256])
def test_names_of_any_bytes(name: bytes) -> None:
    data = packet("NAME", zeros=[0], flags=SYNC).replace(
        b"NAME".ljust(256, b"\0"), name.ljust(256, b"\0")
    )
    assert "unknown RAMBlock" in broken(hello() + data).message


@pytest.mark.parametrize("offset", [9 * PAGE, 1 << 40, (1 << 64) - PAGE, 1, PAGE - 1])
@pytest.mark.parametrize("zero", [False, True])
def test_offsets_outside_the_block_or_a_page(offset: int, zero: bool) -> None:
    channel = Channel()
    if zero:
        channel.send("r", {}, [0, offset], sync=True)
    else:
        channel.send("r", {offset: pattern(0)}, sync=True)
    assert_error(
        broken(channel.data), Damaged, 64, ("channel c0",),
        f"page of r: expected whole pages below {9 * PAGE:#x}, found {offset:#x}",
    )  # fmt: skip


def test_more_pages_than_a_packet_has_room_for() -> None:
    error = broken(hello() + packet("r", flags=SYNC, normal=129, size=129 * PAGE))
    assert_error(error, Damaged, 64, ("channel c0",), "expected at most 128 pages", "found 129")


@pytest.mark.parametrize("size", [3 * PAGE + 65536, (1 << 32) - 1])
def test_more_contents_than_pages_can_take(size: int) -> None:
    error = broken(hello() + packet("r", [0], flags=SYNC | ZLIB, size=size))
    assert_error(error, Damaged, 64, ("channel c0",), "at most 1 pages", f"found {size} bytes")


@pytest.mark.parametrize("flag", [FLUSH, RamFlag.EOS])
def test_a_mark_before_any_block_list(flag: RamFlag) -> None:
    """Without one the size of a packet is not known."""
    body = build.ram_mark(flag) + build.eos()
    channel = Channel()
    channel.send("r", {0: pattern(0)}, sync=True)
    body = body[-8:] if flag is RamFlag.EOS else body
    _, error = joined(build.stream(build.start(2, body=body)), channel.data)
    assert isinstance(error, FormatError)


def test_contents_that_are_cut() -> None:
    error = broken(hello() + packet("r", [0], contents=pattern(0), flags=SYNC)[:-1])
    words = ("contents is cut: expected 4096 bytes, found 4095",)
    assert_error(error, Truncated, 64 + HEAD, ("channel c0",), *words)


def test_contents_that_do_not_unpack() -> None:
    error = broken(hello() + packet("r", [0], contents=b"\x55" * 50, flags=SYNC | ZLIB))
    assert_error(error, Damaged, 64, ("channel c0",), "zlib: ")


@pytest.mark.parametrize("flag", [QATZIP, 2 | 4])
def test_an_unknown_compression(flag: int) -> None:
    error = broken(hello() + packet("r", [0], contents=b"\x55" * 50, flags=SYNC | flag))
    words = (f"multifd compression of flags {flag:#x}",)
    assert_error(error, Unsupported, 64, ("channel c0",), *words)


@pytest.mark.parametrize("method", METHODS)
def test_a_channel_cut_at_every_byte(method: str) -> None:
    """Each cut is said, and what was whole before it is there."""
    told = story(method, page_size=LARGE)
    pages = {n: bytes([n]) * LARGE for n in range(3)}
    told.flush()
    told.packet(0, "r", {0: pages[0]}, zeros=[5])
    told.flush()
    told.packet(0, "r", {1: pages[1], 2: pages[2]})
    told.flush()
    data, channel = told.stream(), told.channels[0]
    ends = [*channel.ends, len(channel.data)]
    near = {end + more for end in ends for more in range(-20, 400)}
    for size in sorted(near & set(range(len(channel.data)))):
        image, error = joined(data, channel.data[:size])
        assert isinstance(error, Truncated | Damaged)
        assert error.path == ("channel c0",)
        assert error.offset <= size
        if size >= channel.ends[2]:
            assert image["r"].read(0, LARGE) == pages[0]
        if size >= channel.ends[4]:
            assert image["r"].read(LARGE, 2 * LARGE) == pages[1] + pages[2]
