"""The RAM section: its block list and its page records, skipped at speed.

::

    body     = record* EOS
    record   = word [namelen:u8 name] contents       word = offset | flags, be64
    MEM_SIZE = word block*      until the blocks' lengths add up to the word's offset
    block    = namelen:u8 name used_length:be64 [page_size:be64] [address:be64] [mapped]
    mapped   = header bitmap padding pages           mapped-ram only, see mapped.py
    contents = fill:u8                  ZERO
             | page                     PAGE
             | 01 len:be16 delta        XBZRLE
             | len:be32 zlib            COMPRESS_PAGE

A record without CONTINUE names its block; the name then holds for the records
that follow, also in the next section. Records that follow each other without
a surprise are given as one `RamBatch` or `RamRun`: never one object per page.

Source: QEMU migration/ram.c (ram_save_setup, save_page_header,
ram_load_precopy), 5.2 to 11.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from itertools import islice

from cprformats.errors import Damaged, FormatError, Truncated, Unsupported
from cprformats.fields import Kind
from cprformats.memory.batch import PageCode, RamBatch
from cprformats.migration.mapped import read_mapped
from cprformats.migration.ramparts import (
    RamBlock,
    RamBlocks,
    RamContext,
    RamEvent,
    RamMark,
    RamPart,
    merge_runs,
)
from cprformats.migration.wire import RamFlag
from cprformats.reader import Reader
from cprformats.source import Source

__all__ = ["RamWalker"]

#: A window grows up to this: most sections of a live migration are small.
_WINDOW_BYTES = 768 << 10
_FIRST_WINDOW_BYTES = 16 << 10
#: A guest with thousands of hotplugged DIMMs and devices stays below.
_MAX_BLOCKS = 16_384
_WORD = struct.Struct(">Q")
#: So many records are looked at together where all have data.
_TOGETHER = (64, 16)

# The loop over the records works on plain numbers: an IntFlag costs more than a record.
_MEM_SIZE, _EOS, _CONTINUE = int(RamFlag.MEM_SIZE), int(RamFlag.EOS), int(RamFlag.CONTINUE)
_MARKS = (int(RamFlag.HOOK), int(RamFlag.MULTIFD_FLUSH))
_CODES = {
    int(RamFlag.ZERO): PageCode.ZERO,
    int(RamFlag.PAGE): PageCode.DATA,
    int(RamFlag.XBZRLE): PageCode.XBZRLE,
    int(RamFlag.COMPRESS_PAGE): PageCode.COMPRESSED,
}
_CONTENTS = sum(_CODES)
_NEXT_PAGE = int(RamFlag.PAGE | RamFlag.CONTINUE)
_NEXT_ZERO = int(RamFlag.ZERO | RamFlag.CONTINUE)
_DATA, _ZERO, _ZERO_BYTES = int(PageCode.DATA), int(PageCode.ZERO), 9


class RamWalker:
    """Walks the body of one RAM section.

    Args:
        source: the bytes.
        offset: of the body's first byte; afterwards, of the byte behind it.
        context: see `RamContext`.
        blocks: the blocks known so far, by idstr; a block list adds to it.
        block: the name that CONTINUE stands for at the beginning.
        end: where the data that the body may take ends; None for the source's end.
    """

    def __init__(
        self,
        source: Source,
        offset: int,
        context: RamContext,
        blocks: dict[str, RamBlock],
        block: str = "",
        end: int | None = None,
    ) -> None:
        self.source = source
        self.offset = offset
        self.context = context
        self.blocks = blocks
        self.block = block
        self.end = end
        self._window = b""
        self._window_offset = offset
        self._reach = _FIRST_WINDOW_BYTES
        self._is_last = False
        self._heads = _heads(context.page_size)

    def events(self) -> Iterator[RamEvent]:
        """Give block lists, batches of pages and marks up to and with EOS.

        Raises:
            Truncated: the stream ends inside a record.
            Damaged: unknown flags or block, a page outside its block.
        """
        while True:
            word = int.from_bytes(self._bytes("record", 8))
            flags = word & (self.context.page_size - 1)
            address = word - flags
            if flags & _MEM_SIZE:
                yield self._block_list(address)
            elif flags & _CONTENTS:
                yield self._batch(flags, address)
            elif flags & _EOS:
                yield self._mark(RamFlag.EOS)
                return
            elif flags in _MARKS:
                yield self._mark(RamFlag(flags))
            else:
                raise self._error(f"unknown flags {flags:#x} of a RAM record")

    def parts(self) -> Iterator[RamPart]:
        """Give the same with the pages as runs of one kind."""
        return merge_runs(self.events(), self.context.page_size)

    def record_at(self, error: FormatError) -> int:
        """Say where the record begins that raised an error."""
        return min(self.offset, error.offset)

    # -- parts ----------------------------------------------------------------

    def _mark(self, flag: RamFlag) -> RamMark:
        reader = self._reader(Kind.RAM_HEAD)
        reader.number(f"{flag.name}", "u64be", meaning="ram-flags")
        self.offset = reader.offset
        return RamMark(flag, reader.finish(f"{flag.name}").children[0])

    def _block_list(self, total: int) -> RamBlocks:
        reader = self._reader(Kind.RAM_HEAD)
        found: list[RamBlock] = []
        listed = 0
        reader.number("total_size", "u64be", meaning="ram-flags")
        while listed < total:
            if len(found) == _MAX_BLOCKS:
                raise reader.error(Unsupported, f"more than {_MAX_BLOCKS} RAMBlocks")
            found.append(self._block_entry(reader))
            listed += found[-1].used_length
        if listed != total:
            raise reader.mismatch("sum of the blocks' lengths", hex(total), hex(listed))
        self.offset = self._window_offset = reader.offset
        self._window = b""
        self.blocks.update((block.idstr, block) for block in found)
        if len(self.blocks) > _MAX_BLOCKS:
            raise reader.error(Unsupported, f"more than {_MAX_BLOCKS} RAMBlocks")
        return RamBlocks(tuple(found), reader.finish("blocks", "MEM_SIZE"))

    def _block_entry(self, reader: Reader) -> RamBlock:
        with reader.group("block"):
            idstr = reader.counted_text("idstr")
            with reader.group(idstr):
                used_length = reader.number("used_length", "u64be")
                # Sent for large backing pages, and only with postcopy-ram on. A
                # name's length byte is never 0, and a record's word has a flag, so
                # a bare power of two can only be this.
                page_size = None
                if self.context.postcopy and _is_page_size(reader.peek(8)):
                    page_size = reader.number("page_size", "u64be")
                address = None
                if self.context.ignore_shared:
                    address = reader.number("address", "u64be")
                mapped = None
                if self.context.mapped_ram:
                    mapped = read_mapped(reader, used_length)
        return RamBlock(idstr, used_length, page_size, address, mapped)

    def _batch(self, flags: int, address: int) -> RamBatch:
        self._look_ahead()
        start, head = self.offset, 8
        if not flags & _CONTINUE:
            length = self._bytes("record", 9)[8]
            name = self._bytes("block name", 9 + length)[9:]
            self.block = name.decode("utf-8", "surrogateescape")
            head = 9 + length
        block = self._known_block()
        if block.mapped is not None and block.mapped.pages_offset:
            raise self._error(f"flags {flags:#x} of a record for a block of mapped-ram", start)
        code = _CODES.get(flags & _CONTENTS)
        if code is None:
            raise self._error(f"contradicting flags {flags:#x} of a RAM record")
        size = head + self._content_size(code, head)
        if code is PageCode.ZERO and self._bytes("page record", size)[head]:
            code = PageCode.FILL
        self._advance(size)
        page_size = self.context.page_size
        room = -(-block.used_length // page_size) - address // page_size
        if room < 1:
            raise self._error(
                f"page {address:#x}: expected an offset below {block.used_length:#x}, "
                f"found {address:#x}",
                start,
            )
        kinds = bytes([code])
        if code in (PageCode.DATA, PageCode.ZERO):
            kinds += self._extend(address + page_size, room - 1)
        begin, end = start - self._window_offset, self.offset - self._window_offset
        data = memoryview(self._window)[begin:end]
        return RamBatch(self.block, address, kinds, start, end - begin, head, data)

    def _known_block(self) -> RamBlock:
        block = self.blocks.get(self.block)
        if block is None:
            known = ", ".join(islice(self.blocks, 10)) or "none"
            raise self._error(f"unknown RAMBlock {self.block!r}; listed: {known}")
        return block

    def _content_size(self, code: PageCode, head: int) -> int:
        """Say how many bytes follow the head of the record here."""
        if code is PageCode.DATA:
            return self.context.page_size
        if code is PageCode.ZERO:
            return 1
        if code is PageCode.XBZRLE:
            return 3 + int.from_bytes(self._bytes("XBZRLE head", head + 3)[head + 1 :])
        size = 4 + int.from_bytes(self._bytes("compressed page", head + 4)[head:])
        limit = 2 * self.context.page_size + 64
        if size > limit:
            raise self._error(f"compressed page: expected at most {limit}, found {size}")
        return size

    def _extend(self, address: int, most: int) -> bytes:
        """Go on while the record here is the next page, zero or not, as far as the window goes.

        This loop sees every page of the file: one or two compares for each.
        """
        window, position = self._window, self.offset - self._window_offset
        page_size, head_of = self.context.page_size, _WORD.unpack_from
        stride = 8 + page_size
        last = len(window) - stride
        page = address | _NEXT_PAGE
        to_zero = _NEXT_ZERO - _NEXT_PAGE
        kinds = [_DATA] * self._full(position, page)
        position, page = position + len(kinds) * stride, page + len(kinds) * page_size
        add = kinds.append
        while position <= last:
            word = head_of(window, position)[0]
            if word == page:
                position += stride
                add(_DATA)
            elif word == page + to_zero and not window[position + 8]:
                position += _ZERO_BYTES
                add(_ZERO)
            else:
                break
            page += page_size
        if len(kinds) > most:
            return self._cut(kinds, most)
        self.offset = self._window_offset + position
        return bytes(kinds)

    def _full(self, position: int, page: int) -> int:
        """Count pages with data from `position` of the window on, many records at a time."""
        page_size, size, count = self.context.page_size, len(self._window), 0
        for heads, number in self._heads:
            span = number * page_size
            # The struct ends behind the last head: its page has to be there too.
            last = size - heads.size - page_size
            while position <= last and heads.unpack_from(self._window, position) == tuple(
                range(page, page + span, page_size)
            ):
                position, page = position + heads.size + page_size, page + span
                count += number
        return count

    def _cut(self, kinds: list[int], most: int) -> bytes:
        """Take only the pages that the block has room for."""
        kept = bytes(kinds[:most])
        data = kept.count(_DATA)
        self.offset += data * (8 + self.context.page_size) + (most - data) * _ZERO_BYTES
        return kept

    # -- bytes ------------------------------------------------------------------

    def _look_ahead(self) -> None:
        """Move the window if the page here may be cut: records in front would come one by one."""
        begin = self.offset - self._window_offset
        if begin > len(self._window) - self.context.page_size - 8 and begin and not self._is_last:
            self._refill(0)

    def _refill(self, need: int) -> bool:
        done = self.offset - self._window_offset
        if done > 0:
            self.source.drop(self._window_offset, done)
        count = wanted = max(self._reach, need)
        self._reach = min(8 * self._reach, _WINDOW_BYTES)
        if self.end is not None:
            count = min(count, self.end - self.offset)
        self._window = self.source.read_at(self.offset, count)
        self._window_offset = self.offset
        self._is_last = len(self._window) < wanted
        return len(self._window) >= need

    def _bytes(self, what: str, count: int) -> bytes:
        begin = self.offset - self._window_offset
        if not (begin >= 0 and begin + count <= len(self._window)):
            self._refill(count)
            begin = 0
        data = self._window[begin : begin + count]
        if len(data) < count:
            raise Truncated(what, count, len(data), offset=self.offset, path=self._path())
        return data

    def _advance(self, count: int) -> None:
        """Go `count` bytes on; they must all be there, and are in the window afterwards."""
        begin = self.offset - self._window_offset
        if not 0 <= begin <= len(self._window) - count and not self._refill(count):
            raise Truncated(
                "page record", count, len(self._window), offset=self.offset, path=self._path()
            )
        self.offset += count

    def _reader(self, kind: Kind) -> Reader:
        return Reader(self.source, self.offset, self.end, path=self._path(), kind=kind)

    def _path(self) -> tuple[str, ...]:
        return ("ram", self.block) if self.block else ("ram",)

    def _error(self, message: str, offset: int | None = None) -> FormatError:
        place = self.offset if offset is None else offset
        return Damaged(message, offset=place, path=self._path())


@cache
def _heads(page_size: int) -> tuple[tuple[struct.Struct, int], ...]:
    """Give layouts of the heads of several page records in a row, and how many they are."""
    return tuple(
        (struct.Struct(">" + f"Q{page_size}x" * (number - 1) + "Q"), number) for number in _TOGETHER
    )


def _is_page_size(data: bytes) -> bool:
    value = int.from_bytes(data)
    power_of_two = value != 0 and value & (value - 1) == 0
    return len(data) == 8 and power_of_two and 4096 <= value <= 1 << 34


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
