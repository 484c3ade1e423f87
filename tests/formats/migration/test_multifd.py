"""A multifd channel: hello, packets of pages and of device state, and what breaks them."""

from __future__ import annotations

import struct

import pytest

from checks import assert_tiles
from cprformats.encode import encode
from cprformats.errors import Damaged, FormatError, Truncated, Unsupported
from cprformats.fields import Kind
from cprformats.migration.multifd import MultifdChannel, read_channel
from cprformats.source import BytesSource

PAGE = 4096


def hello(channel: int = 1, version: int = 1) -> bytes:
    return struct.pack(">II16sB7x32x", 0x11223344, version, bytes(range(16)), channel)


def packet(
    block: bytes = b"pc.ram",
    contents: bytes = b"",
    *,
    normal: int = 0,
    zero: int = 0,
    flags: int = 0,
    size: int | None = None,
    room: int = 128,
    version: int = 1,
) -> bytes:
    size = len(contents) if size is None else size
    head = struct.pack(">IIIIIIQI28x", 0x11223344, version, flags, room, normal, size, 5, zero)
    return head + block.ljust(256, b"\0") + bytes(8 * room) + contents


def device_packet(contents: bytes) -> bytes:
    head = struct.pack(">III", 0x11223344, 1, 0x40)
    return (
        head
        + b"0000:00:02.0/vfio".ljust(256, b"\0")
        + struct.pack(">II", 0, len(contents))
        + contents
    )


def read(data: bytes) -> MultifdChannel:
    return read_channel(BytesSource(data))


def test_pages_by_block() -> None:
    pages = bytes(range(256)) * 32
    data = (
        hello()
        + packet(flags=1)
        + packet(contents=pages, normal=2, zero=3)
        + packet(b"rom", zero=1)
    )
    found = read(data)
    assert found.error is None
    assert (found.channel, found.packets, found.pages_per_packet) == (1, 3, 128)
    ram, rom = found.blocks
    assert (ram.idstr, ram.packets, ram.normal_pages, ram.zero_pages) == ("pc.ram", 1, 2, 3)
    assert ram.contents_bytes == 2 * PAGE
    assert (rom.idstr, rom.normal_pages, rom.zero_pages) == ("rom", 0, 1)
    assert found.tally().by_kind[Kind.PAGE] == 2 * PAGE
    assert b"".join(encode(found.walk())) == data
    assert assert_tiles(found.walk()) == len(data)


def test_a_size_left_from_the_packet_before_has_no_contents() -> None:
    """Up to 7.2 a packet without pages repeats the size of the last one with pages."""
    pages = bytes([7]) * PAGE
    data = (
        hello() + packet(contents=pages, normal=1) + packet(size=PAGE) + packet(flags=1, size=PAGE)
    )
    found = read(data)
    assert found.error is None
    assert found.packets == 3


@pytest.mark.parametrize("room", [8, 32, 64, 128, 512])
def test_room_follows_the_target_page_size(room: int) -> None:
    data = hello() + packet(flags=1, room=room) + packet(zero=2, room=room)
    found = read(data)
    assert found.error is None
    assert (found.packets, found.pages_per_packet) == (2, room)


def test_device_state() -> None:
    data = hello() + packet() + device_packet(b"vendor bytes") + packet()
    found = read(data)
    assert found.error is None
    assert found.blocks[0].idstr == "0000:00:02.0/vfio"
    assert found.tally().by_kind[Kind.PAYLOAD] == 12
    assert b"".join(encode(found.walk())) == data


def test_too_many_pages() -> None:
    found = read(hello() + packet() + packet(normal=129))
    assert isinstance(found.error, Damaged)
    assert "at most 128, found 129" in str(found.error)
    assert found.packets == 1


def test_other_versions() -> None:
    with pytest.raises(Unsupported, match="expected 1, found 2"):
        read(hello(version=2))
    assert isinstance(read(hello() + packet() + packet(version=3)).error, Unsupported)


def test_cut_at_every_byte() -> None:
    data = hello() + packet(flags=1) + packet(contents=bytes([1]) * 300, normal=1) + packet()
    for size in range(len(data)):
        try:
            found = read(data[:size])
        except (Truncated, Damaged):
            assert size < 64
            continue
        assert found.error is None or isinstance(found.error, FormatError)
        assert found.end <= size
        assert b"".join(encode(found.walk())) == data[: found.end]
