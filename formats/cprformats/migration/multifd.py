"""One channel of a multifd migration, captured to a file of its own.

::

    channel = hello packet*
    hello   = magic:be32 version:be32 uuid:16 id:u8 unused:7 unused:be64*4
    packet  = magic:be32 version:be32 flags:be32 ram | magic version flags device
    ram     = pages_alloc:be32 normal:be32 next_packet_size:be32 packet_num:be64
              zero_pages:be32 unused:be32 unused:be64*3 ramblock:256 offset:be64*n contents
    device  = idstr:256 instance:be32 next_packet_size:be32 contents

n is the number of target pages in 512 KiB, whatever the packet holds; nothing
in the channel says it where no packet has pages, so it is found by what makes
a packet end where the next one begins. `contents` has next_packet_size bytes:
the normal pages one after the other, or what the compression made of them
(one zlib or zstd stream per channel, flushed at each packet). Up to 7.2 a
packet without normal pages still tells the size of the one before, and has no
contents. The RAM blocks are named here and listed in the main channel.

Source: QEMU migration/multifd.h (MultiFDInit_t, MultiFDPacket_t,
MultiFDPacketDeviceState_t), multifd.c, multifd-nocomp.c; zero_pages since 9.0,
device state since 10.0; 5.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import construct

from cprformats.errors import FormatError, Unsupported
from cprformats.fields import Field, Kind, Tally, tally
from cprformats.layout import read_record
from cprformats.migration.wire import MULTIFD_MAGIC, MultifdFlag
from cprformats.reader import Reader
from cprformats.source import Source

__all__ = ["MultifdBlock", "MultifdChannel", "read_channel"]

_HELLO = construct.Struct(
    "magic" / construct.Const(MULTIFD_MAGIC, construct.Int32ub),
    "version" / construct.Int32ub,
    "uuid" / construct.Bytes(16),
    "id" / construct.Int8ub,
    "unused1" / construct.Bytes(7),
    "unused2" / construct.Array(4, construct.Int64ub),
)
_HEAD = construct.Struct(
    "magic" / construct.Const(MULTIFD_MAGIC, construct.Int32ub),
    "version" / construct.Int32ub,
    "flags" / construct.Int32ub,
)
_RAM = construct.Struct(
    "pages_alloc" / construct.Int32ub,
    "normal_pages" / construct.Int32ub,
    "next_packet_size" / construct.Int32ub,
    "packet_num" / construct.Int64ub,
    "zero_pages" / construct.Int32ub,
    "unused32" / construct.Int32ub,
    "unused64" / construct.Array(3, construct.Int64ub),
)
_VERSION = 1
_NAME_BYTES = 256
_PACKET_BYTES = 512 << 10
_RAM_HEAD_BYTES = _HEAD.sizeof() + _RAM.sizeof() + _NAME_BYTES
#: Target page sizes from most to least common; a packet holds 512 KiB of them.
_COUNTS = tuple(_PACKET_BYTES >> bits for bits in (12, 14, 16, 13, 10, 11, 8))


class _Packet(NamedTuple):
    block: str
    normal: int
    zero: int
    contents: int
    device: bool


@dataclass(frozen=True, slots=True)
class MultifdBlock:
    """What one channel carries of one RAMBlock.

    Attributes:
        idstr: the block's name.
        packets: packets with its pages.
        normal_pages: pages with contents.
        zero_pages: pages told as zero.
        contents_bytes: bytes of contents, as sent.
    """

    idstr: str
    packets: int
    normal_pages: int
    zero_pages: int
    contents_bytes: int


@dataclass(frozen=True, slots=True)
class MultifdChannel:
    """A channel's file.

    Attributes:
        source: its bytes.
        offset: of its first byte.
        end: behind the last whole packet.
        uuid: the VM's, as in the hello; zeros if it has none.
        channel: number of the channel.
        pages_per_packet: offsets that each packet has room for.
        packets: whole packets.
        blocks: what there is of each block, by first appearance.
        warnings: oddities that don't stop a reader.
        error: what ended the reading early, if something did.
    """

    source: Source
    offset: int
    end: int
    uuid: str
    channel: int
    pages_per_packet: int
    packets: int
    blocks: tuple[MultifdBlock, ...]
    warnings: tuple[str, ...]
    error: FormatError | None

    def walk(self) -> Iterator[Field]:
        """Give the hello and each packet as trees in file order."""
        reader = Reader(self.source, self.offset, self.end, kind=Kind.RAM_HEAD)
        _hello(reader)
        hello = reader.finish("channel").children[0]
        yield hello
        start = hello.end
        for number in range(self.packets):
            reader = Reader(self.source, start, self.end, kind=Kind.RAM_HEAD)
            _packet(reader, f"packet[{number}]", self.pages_per_packet)
            field = reader.finish("channel").children[0]
            yield field
            start = field.end

    def tally(self) -> Tally:
        """Count the bytes by kind."""
        return tally(self.walk())


def read_channel(source: Source, offset: int = 0) -> MultifdChannel:
    """Read a channel; damage behind the hello ends the reading and is kept as `error`.

    Raises:
        Truncated: the hello is cut.
        Unsupported: a version other than 1.
    """
    reader = Reader(source, offset, kind=Kind.RAM_HEAD)
    uuid, channel = _hello(reader)
    room = _room(source, reader.offset)
    blocks: dict[str, MultifdBlock] = {}
    packets, error, start = 0, None, reader.offset
    try:
        while not (reader := Reader(source, start, kind=Kind.RAM_HEAD)).at_end():
            packet = _packet(reader, f"packet[{packets}]", room)
            start, packets = reader.offset, packets + 1
            if packet.normal or packet.zero or packet.device:
                _count(blocks, packet)
    except FormatError as problem:
        error = problem
    return MultifdChannel(
        source, offset, start, uuid, channel, room, packets, tuple(blocks.values()), (), error
    )


def _count(blocks: dict[str, MultifdBlock], packet: _Packet) -> None:
    old = blocks.get(packet.block, MultifdBlock(packet.block, 0, 0, 0, 0))
    blocks[packet.block] = MultifdBlock(
        packet.block,
        old.packets + 1,
        old.normal_pages + packet.normal,
        old.zero_pages + packet.zero,
        old.contents_bytes + packet.contents,
    )


def _hello(reader: Reader) -> tuple[str, int]:
    values = read_record(reader, "hello", _HELLO)
    _check_version(reader, values["version"])
    uuid, channel = values["uuid"], values["id"]
    assert isinstance(uuid, bytes)
    assert isinstance(channel, int)
    return uuid.hex(), channel


def _check_version(reader: Reader, version: object) -> None:
    if version != _VERSION:
        raise reader.error(Unsupported, f"multifd version: expected 1, found {version}")


def _packet(reader: Reader, name: str, room: int) -> _Packet:
    with reader.group(name, "MultiFDPacket_t"):
        values = read_record(reader, "header", _HEAD, meanings={"flags": "multifd-flags"})
        _check_version(reader, values["version"])
        flags = values["flags"]
        assert isinstance(flags, int)
        device = bool(flags & MultifdFlag.DEVICE_STATE)
        packet = _device(reader) if device else _ram(reader, room)
        kind = Kind.PAYLOAD if device else Kind.PAGE
        reader.blob("contents", packet.contents, kind=kind)
    return packet


def _ram(reader: Reader, room: int) -> _Packet:
    values = read_record(reader, "pages", _RAM)
    normal, zero, size = (
        int(str(values[key])) for key in ("normal_pages", "zero_pages", "next_packet_size")
    )
    if normal + zero > room:
        raise reader.mismatch("pages in a packet", f"at most {room}", normal + zero)
    block = _name(reader, "ramblock")
    reader.take("offset", f"u64be[{room}]")
    return _Packet(block, normal, zero, size if normal else 0, device=False)


def _device(reader: Reader) -> _Packet:
    idstr = _name(reader, "idstr")
    reader.number("instance_id", "u32be")
    size = reader.number("next_packet_size", "u32be")
    return _Packet(idstr, 0, 0, size, device=True)


def _name(reader: Reader, name: str) -> str:
    """Read a name in 256 bytes: text up to the first zero, then what is left."""
    room = reader.peek(_NAME_BYTES)
    size = room.find(b"\0")
    text = reader.text(name, len(room) if size < 0 else size)
    left = _NAME_BYTES - len(text.encode(errors="surrogateescape"))
    reader.blob(f"{name}_padding", left, kind=Kind.PADDING)
    return text


def _room(source: Source, start: int) -> int:
    """Find how many offsets a packet has room for, from where the next packet begins."""
    magic = MULTIFD_MAGIC.to_bytes(4)
    head = source.read_at(start, _RAM_HEAD_BYTES)
    normal, size = int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    for count in _COUNTS:
        end = start + _RAM_HEAD_BYTES + 8 * count + (size if normal else 0)
        following = source.read_at(end, 4)
        if following == magic or (not following and source.read_at(end - 1, 1)):
            return count
    return _COUNTS[0]
