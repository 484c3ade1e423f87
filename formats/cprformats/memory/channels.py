"""Join a multifd migration: the main channel's records with the pages of the other channels.

A channel's packets are cut into epochs by those with the SYNC flag, the main
channel by marks: MULTIFD_FLUSH if the first mark of all is one, else the end of
each RAM section. The destination waits at a mark until each channel has come to
its SYNC, so what is before a mark is older than what is behind it, on all
channels alike; within an epoch a page comes once, and order tells nothing.

Source: QEMU migration/multifd.c (multifd_send_sync_main, multifd_recv_sync_main)
and ram.c (ram_save_setup, find_dirty_block): MULTIFD_FLUSH since 8.1, and then
unless multifd-flush-after-each-section is on; 5.2 to 11.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cprformats.errors import Damaged, FormatError, Truncated, Unsupported
from cprformats.memory.batch import PageCode, RamBatch, RamSink
from cprformats.memory.packets import Unpacker
from cprformats.migration.wire import MULTIFD_MAGIC, MultifdFlag, RamFlag

if TYPE_CHECKING:
    from cprformats.migration.ramparts import RamBlock, RamContext
    from cprformats.source import Source

__all__ = ["ChannelFile", "ChannelJoin", "is_multifd"]

#: magic, version, flags, pages_alloc, normal, next_packet_size, packet_num, zero, unused, name
_PACKET = struct.Struct(">IIIIIIQI28x256s")
_HEAD = struct.Struct(">III")
_HELLO_BYTES = 64
_DEVICE_BYTES = 12 + 256 + 4 + 4
_PACKET_BYTES = 512 << 10
#: What a page may take at most where it is compressed; QEMU reserves less.
_MOST_PER_PAGE = 2
_SLACK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class ChannelFile:
    """The file of one channel.

    Attributes:
        name: for messages.
        source: its bytes.
        offset: of the hello, absolute.
    """

    name: str
    source: Source
    offset: int = 0


def is_multifd(file: ChannelFile) -> bool:
    """Say whether a file begins as a multifd channel; that of postcopy-preempt does not."""
    return file.source.read_at(file.offset, 4) == MULTIFD_MAGIC.to_bytes(4)


class ChannelJoin:
    """A `RamSink` that puts the pages of multifd channels where they belong in time.

    Args:
        sink: is given everything.
        channels: the files of all channels, in any order.
        keep_going: leave a channel that is damaged, and go on with the others.

    Attributes:
        error: of the first channel that was left.
    """

    def __init__(
        self, sink: RamSink, channels: Sequence[ChannelFile], *, keep_going: bool = False
    ) -> None:
        self.error: FormatError | None = None
        self._sink = sink
        self._files = tuple(channels)
        self._keep_going = keep_going
        self._start()

    def _start(self) -> None:
        self.error = None
        self._channels = [_Channel(file, number) for number, file in enumerate(self._files, 1)]
        self._mark: RamFlag | None = None
        self._blocks: dict[str, int] = {}
        self._page_size = 0

    def restart(self) -> None:
        """Forget everything."""
        self._start()
        self._sink.restart()

    def blocks(self, blocks: Sequence[RamBlock], context: RamContext, source: Source) -> None:
        """Take a block list."""
        self._page_size = context.page_size
        self._blocks.update((block.idstr, block.used_length) for block in blocks)
        self._sink.blocks(blocks, context, source)

    def pages(self, batch: RamBatch) -> None:
        """Pass on."""
        self._sink.pages(batch)

    def discard(self, block: str, start: int, length: int) -> None:
        """Pass on."""
        self._sink.discard(block, start, length)

    def mark(self, flag: RamFlag) -> None:
        """At the end of an epoch, give the channels' pages of it first."""
        if self._mark is None and flag in (RamFlag.MULTIFD_FLUSH, RamFlag.EOS):
            self._mark = flag
        if flag == self._mark:
            for channel in list(self._channels):
                self._epoch(channel)
        self._sink.mark(flag)

    def _epoch(self, channel: _Channel) -> None:
        batches = channel.epoch(self._blocks, self._page_size)
        while True:
            try:
                batch = next(batches, None)
            except FormatError as error:
                if not self._keep_going:
                    raise
                self.error = self.error or error
                self._channels.remove(channel)
                return
            if batch is None:
                return
            self._sink.pages(batch)

    def finish(self) -> None:
        """Check that nothing is left, once the main channel has ended well.

        Raises:
            Damaged: pages behind the last mark: files of different migrations.
        """
        for channel in self._channels:
            channel.finish(self._page_size)

    def check_complete(self) -> None:
        """Check that no channel is missing, after `finish`.

        Packets are numbered over all channels. Up to 8.2 a packet with pages that is
        made a SYNC takes a second number, and the first one is used again; so at a
        channel's end one may be missing.

        Raises:
            Damaged: packets are in none of the files.
        """
        packets = sum(channel.packets + channel.owes for channel in self._channels)
        numbers = max((channel.highest for channel in self._channels), default=-1) + 1
        if packets != numbers:
            raise Damaged.mismatch(
                "packets in the files of all channels (is one missing?)",
                numbers,
                packets,
                offset=0,
                path=("multifd",),
            )


class _Channel:
    """A cursor over one channel's packets.

    Attributes:
        packets: read so far, those of device state left out.
        highest: number of a packet.
        owes: the last packet took a second number.
    """

    def __init__(self, file: ChannelFile, number: int) -> None:
        self._file = file
        self._number = number
        self._offset = file.offset + _HELLO_BYTES
        self._epochs = 0
        self.packets = 0
        self.highest = -1
        self.owes = False
        self._unpacker = Unpacker()
        hello = self._bytes("hello", file.offset, _HELLO_BYTES)
        if int.from_bytes(hello[:4]) != MULTIFD_MAGIC:
            raise self._error(
                f"expected the magic {MULTIFD_MAGIC:#x}, found {hello[:4].hex()}", file.offset
            )

    def epoch(self, blocks: dict[str, int], page_size: int) -> Iterator[RamBatch]:
        """Give the pages up to and with the next packet that has SYNC."""
        self._epochs += 1
        sync = False
        while not sync:
            if not self._file.source.read_at(self._offset, 1):
                raise self._error(
                    f"expected a packet with SYNC that ends epoch {self._epochs}, found the end"
                )
            flags = self._flags()
            if flags & MultifdFlag.DEVICE_STATE:
                self._device_state()
                continue
            sync = bool(flags & MultifdFlag.SYNC)
            yield from self._packet(blocks, page_size)

    def finish(self, page_size: int) -> None:
        """Check that no page is left."""
        while self._file.source.read_at(self._offset, 1):
            if self._flags() & MultifdFlag.DEVICE_STATE:
                self._device_state()
                continue
            left = self._bytes("packet", self._offset, _PACKET.size)
            _, _, flags, _, normal, _, number, zero, _ = _PACKET.unpack(left)
            if normal or zero:
                raise self._error(
                    f"expected nothing behind epoch {self._epochs}, the main channel's last, "
                    f"found {normal + zero} pages"
                )
            self._count(flags, number, normal)
            if not page_size:
                return  # the main channel has no RAM at all
            self._offset += _PACKET.size + 8 * (_PACKET_BYTES // page_size)

    def _count(self, flags: int, number: int, normal: int) -> None:
        self.packets += 1
        self.highest = max(self.highest, number)
        self.owes = bool(flags & MultifdFlag.SYNC and normal)

    def _flags(self) -> int:
        """Give the flags of the next packet, whose head must be one."""
        head = self._bytes("packet", self._offset, _HEAD.size)
        magic, version, flags = _HEAD.unpack(head)
        if (magic, version) != (MULTIFD_MAGIC, 1):
            raise self._error(f"expected a packet of version 1, found {head[:8].hex()}")
        return int(flags)

    def _device_state(self) -> None:
        """Go behind a packet of device state."""
        size = int.from_bytes(self._bytes("packet", self._offset, _DEVICE_BYTES)[-4:])
        end = self._offset + _DEVICE_BYTES + size
        if size and not self._file.source.read_at(end - 1, 1):
            start = self._offset + _DEVICE_BYTES
            self._bytes("device state", start, size)
        self._offset = end

    def _packet(self, blocks: dict[str, int], page_size: int) -> Iterator[RamBatch]:
        if not page_size:
            raise self._error("expected the list of RAMBlocks before a mark, found none")
        start, room = self._offset, _PACKET_BYTES // page_size
        head = self._bytes("packet", start, _PACKET.size + 8 * room)
        _, _, flags, _, normal, size, number, zero, name = _PACKET.unpack_from(head)
        self._count(flags, number, normal)
        if normal + zero > room:
            raise self._error(f"expected at most {room} pages in a packet, found {normal + zero}")
        size = size if normal else 0
        if size > _MOST_PER_PAGE * normal * page_size + _SLACK_BYTES:
            raise self._error(f"expected at most {normal} pages of contents, found {size} bytes")
        contents = memoryview(self._bytes("contents", start + len(head), size))
        self._offset += len(head) + size
        if normal or zero:
            block = name.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
            offsets = struct.unpack_from(f">{normal + zero}Q", head, _PACKET.size)
            self._check(block, offsets, blocks, page_size, start)
            pages, kept = self._contents(flags, contents, normal, page_size, start)
            packet = _Packet(block, start + len(head), len(head) + size, kept, self._number)
            yield from packet.batches(offsets[:normal], offsets[normal:], pages, page_size)
        self._file.source.drop(start, self._offset - start)

    def _contents(
        self, flags: int, contents: memoryview, normal: int, page_size: int, start: int
    ) -> tuple[memoryview, bool]:
        """Give the plain pages, and whether they lie in the file just so."""
        try:
            return self._unpacker.pages(flags, contents, normal, page_size)
        except ValueError as problem:
            raise self._error(str(problem), start) from problem
        except NotImplementedError as problem:
            raise Unsupported(str(problem), offset=start, path=self._path) from problem

    def _check(
        self,
        block: str,
        offsets: Sequence[int],
        blocks: dict[str, int],
        page_size: int,
        start: int,
    ) -> None:
        used = blocks.get(block)
        if used is None:
            raise self._error(f"unknown RAMBlock {block!r}", start)
        if offsets and (max(offsets) >= used or any(x % page_size for x in offsets)):
            raise self._error(
                f"page of {block}: expected whole pages below {used:#x}, found {max(offsets):#x}",
                start,
            )

    def _bytes(self, what: str, offset: int, count: int) -> bytes:
        data = self._file.source.read_at(offset, count)
        if len(data) < count:
            raise Truncated(what, count, len(data), offset=offset, path=self._path)
        return data

    @property
    def _path(self) -> tuple[str, ...]:
        return (f"channel {self._file.name}",)

    def _error(self, message: str, offset: int | None = None) -> FormatError:
        return Damaged(message, offset=self._offset if offset is None else offset, path=self._path)


@dataclass(slots=True)
class _Packet:
    """Makes batches of one packet; the first one carries the size of all."""

    block: str
    offset: int
    size: int
    kept: bool
    source: int

    def batches(
        self,
        normal: Sequence[int],
        zero: Sequence[int],
        pages: memoryview,
        page_size: int,
    ) -> Iterator[RamBatch]:
        at = 0
        for address, count in _runs(normal, page_size):
            length = count * page_size
            yield self._batch(PageCode.DATA, address, count, at, pages[at : at + length])
            at += length
        for address, count in _runs(zero, page_size):
            yield self._batch(PageCode.ZERO, address, count, at, pages[:0])

    def _batch(
        self, code: PageCode, address: int, count: int, at: int, data: memoryview
    ) -> RamBatch:
        size, self.size = self.size, 0
        kinds = bytes([code]) * count
        return RamBatch(
            self.block, address, kinds, self.offset + at, size, 0, data, 0, self.source, self.kept
        )


def _runs(offsets: Sequence[int], page_size: int) -> Iterator[tuple[int, int]]:
    """Give offsets that follow each other as first one and number."""
    start = count = 0
    for offset in offsets:
        if count and offset == start + count * page_size:
            count += 1
            continue
        if count:
            yield start, count
        start, count = offset, 1
    if count:
        yield start, count
