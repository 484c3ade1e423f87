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
a surprise are given as one `RamRun`: never one object per page.

Source: QEMU migration/ram.c (ram_save_setup, save_page_header,
ram_load_precopy), 5.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from cprformats.codecs import DataRef
from cprformats.errors import Damaged, FormatError, Truncated, Unsupported
from cprformats.fields import Field, Kind
from cprformats.migration.mapped import MappedRam, read_mapped
from cprformats.migration.wire import RamFlag
from cprformats.reader import Reader
from cprformats.source import Source

__all__ = [
    "PageKind",
    "RamBlock",
    "RamBlocks",
    "RamContext",
    "RamMark",
    "RamPart",
    "RamRun",
    "RamWalker",
    "run_fields",
]

#: A window grows up to this: most sections of a live migration are small.
_WINDOW_BYTES = 4 << 20
_FIRST_WINDOW_BYTES = 16 << 10
_PAGES_PER_GROUP = 1024
#: A guest with thousands of hotplugged DIMMs and devices stays below.
_MAX_BLOCKS = 16_384


class PageKind(StrEnum):
    """How a page's contents were sent."""

    ZERO = "zero"
    DATA = "data"
    XBZRLE = "xbzrle"
    COMPRESSED = "compressed"


_KINDS = {
    RamFlag.ZERO: PageKind.ZERO,
    RamFlag.PAGE: PageKind.DATA,
    RamFlag.XBZRLE: PageKind.XBZRLE,
    RamFlag.COMPRESS_PAGE: PageKind.COMPRESSED,
}
_CONTENTS = RamFlag.ZERO | RamFlag.PAGE | RamFlag.XBZRLE | RamFlag.COMPRESS_PAGE


@dataclass(frozen=True, slots=True)
class RamBlock:
    """One RAMBlock of the block list.

    Attributes:
        idstr: the block's name.
        used_length: in bytes.
        page_size: of the backing memory, where it was sent (postcopy).
        address: of the memory region, where it was sent (x-ignore-shared).
        mapped: where its pages lie in the file (mapped-ram), if there.
    """

    idstr: str
    used_length: int
    page_size: int | None = None
    address: int | None = None
    mapped: MappedRam | None = None


@dataclass(frozen=True, slots=True)
class RamRun:
    """Page records of one block that follow each other, pages and bytes both.

    Attributes:
        block: idstr of the block.
        address: offset of the first page in the block, in bytes.
        count: pages.
        kind: how they were sent.
        offset: of the first record, absolute.
        size: bytes of the records, heads included.
        named: the first record carries the block's name.
    """

    block: str
    address: int
    count: int
    kind: PageKind
    offset: int
    size: int
    named: bool


@dataclass(frozen=True, slots=True)
class RamBlocks:
    """The block list (MEM_SIZE).

    Attributes:
        blocks: in file order.
        field: the list decoded, with bitmaps and pages under mapped-ram.
    """

    blocks: tuple[RamBlock, ...]
    field: Field


@dataclass(frozen=True, slots=True)
class RamMark:
    """A record without a page: EOS, HOOK, MULTIFD_FLUSH.

    Attributes:
        flag: which.
        field: the record decoded.
    """

    flag: RamFlag
    field: Field


RamPart = RamBlocks | RamRun | RamMark


@dataclass(frozen=True, slots=True)
class RamContext:
    """What the rest of the stream says about how to read RAM.

    Attributes:
        page_size: target page size in bytes.
        ignore_shared: x-ignore-shared is on: blocks carry an address.
        mapped_ram: mapped-ram is on: blocks carry a bitmap and all their pages.
        postcopy: POSTCOPY_ADVISE was seen: blocks of large pages carry their size.
    """

    page_size: int
    ignore_shared: bool = False
    mapped_ram: bool = False
    postcopy: bool = False


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

    def parts(self) -> Iterator[RamPart]:
        """Give the parts up to and with EOS.

        Raises:
            Truncated: the stream ends inside a record.
            Damaged: unknown flags or block, a page outside its block.
        """
        while True:
            word = int.from_bytes(self._bytes("record", 8))
            flags = RamFlag(word & (self.context.page_size - 1))
            address = word - flags
            if flags & RamFlag.MEM_SIZE:
                yield self._block_list(address)
            elif flags & _CONTENTS:
                yield self._run(flags, address)
            elif flags & RamFlag.EOS:
                yield self._mark(RamFlag.EOS)
                return
            elif flags in (RamFlag.HOOK, RamFlag.MULTIFD_FLUSH):
                yield self._mark(flags)
            else:
                raise self._error(f"unknown flags {flags:#x} of a RAM record")

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

    def _run(self, flags: RamFlag, address: int) -> RamRun:
        start, named = self.offset, not flags & RamFlag.CONTINUE
        head = 8
        if named:
            length = self._bytes("record", 9)[8]
            name = self._bytes("block name", 9 + length)[9:]
            self.block = name.decode("utf-8", "surrogateescape")
            head = 9 + length
        block = self._known_block()
        content = flags & _CONTENTS
        if content not in _KINDS:
            raise self._error(f"contradicting flags {flags:#x} of a RAM record")
        self._contents(RamFlag(content), head)
        count = 1
        if content in (RamFlag.PAGE, RamFlag.ZERO):
            count += self._extend(RamFlag(content), address, block)
        end = address + count * self.context.page_size
        if end > _round_up(block.used_length, self.context.page_size):
            raise self._error(
                f"page {address:#x}: expected an offset below {block.used_length:#x}, "
                f"found {end - self.context.page_size:#x}",
                start,
            )
        kind = _KINDS[RamFlag(content)]
        return RamRun(self.block, address, count, kind, start, self.offset - start, named)

    def _known_block(self) -> RamBlock:
        block = self.blocks.get(self.block)
        if block is None:
            known = ", ".join(islice(self.blocks, 10)) or "none"
            raise self._error(f"unknown RAMBlock {self.block!r}; listed: {known}")
        return block

    def _contents(self, content: RamFlag, head: int) -> None:
        """Go behind the contents of the record here, whose head has `head` bytes."""
        if content == RamFlag.PAGE:
            size = self.context.page_size
        elif content == RamFlag.ZERO:
            size = 1
        elif content == RamFlag.XBZRLE:
            size = 3 + int.from_bytes(self._bytes("XBZRLE head", head + 3)[head + 1 :])
        else:
            size = 4 + int.from_bytes(self._bytes("compressed page", head + 4)[head:])
            limit = 2 * self.context.page_size + 64
            if size > limit:
                raise self._error(f"compressed page: expected at most {limit}, found {size}")
        self._advance(head + size)

    def _extend(self, content: RamFlag, address: int, block: RamBlock) -> int:
        """Go on while the next record is the next page of the same kind.

        This loop sees every page of the file: one compare for each.
        """
        page_size = self.context.page_size
        stride = 8 + (page_size if content == RamFlag.PAGE else 1)
        wanted = int((address + page_size) | content | RamFlag.CONTINUE)
        step, count = page_size, 0
        most = (block.used_length - address - 1) // page_size
        from_bytes = int.from_bytes
        while count < most:
            window, begin = self._window, self.offset - self._window_offset
            position, last = begin, len(window) - stride
            while position <= last and count < most:
                if from_bytes(window[position : position + 8]) != wanted:
                    self.offset += position - begin
                    return count
                position += stride
                wanted += step
                count += 1
            self.offset += position - begin
            if not self._refill(stride):
                # Fewer bytes are left than the record needs; if it is one of
                # ours it is cut, and the caller's next read says so.
                return count
        return count

    # -- bytes ------------------------------------------------------------------

    def _refill(self, need: int) -> bool:
        done = self.offset - self._window_offset
        if done > 0:
            self.source.drop(self._window_offset, done)
        count = max(self._reach, need)
        self._reach = min(8 * self._reach, _WINDOW_BYTES)
        if self.end is not None:
            count = min(count, self.end - self.offset)
        self._window = self.source.read_at(self.offset, count)
        self._window_offset = self.offset
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
        """Go `count` bytes on; they must all be there."""
        begin = self.offset - self._window_offset
        if begin + count > len(self._window) and not self._refill(count):
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


def run_fields(source: Source, run: RamRun, page_size: int) -> Iterator[Field]:
    """Decode the records of a run again, page by page, in groups of bounded size."""
    reader = Reader(source, run.offset, run.offset + run.size, kind=Kind.RAM_HEAD)
    done = 0
    while done < run.count:
        start = reader.offset
        pages = min(run.count - done, _PAGES_PER_GROUP)
        reader = Reader(source, start, run.offset + run.size, kind=Kind.RAM_HEAD)
        for number in range(done, done + pages):
            _record(reader, run, named=run.named and number == 0, page_size=page_size)
        first = run.address + done * page_size
        done += pages
        yield reader.finish(f"{run.block}+{first:#x}", f"{run.kind} pages")


def _record(reader: Reader, run: RamRun, *, named: bool, page_size: int) -> None:
    reader.number("record", "u64be", meaning="ram-flags")
    if named:
        reader.counted_text("idstr")
    if run.kind is PageKind.ZERO:
        reader.number("fill", "u8", kind=Kind.PAGE)
    elif run.kind is PageKind.DATA:
        ref = DataRef(reader.source, reader.offset, page_size)
        offset = reader.offset
        reader.add(Field("page", "page", "bytes", Kind.PAGE, offset, page_size, ref))
    elif run.kind is PageKind.XBZRLE:
        reader.number("encoding", "u8")
        reader.blob("delta", reader.number("length", "u16be"), kind=Kind.PAGE)
    else:
        reader.blob("zlib", reader.number("length", "u32be"), kind=Kind.PAGE)


def _is_page_size(data: bytes) -> bool:
    value = int.from_bytes(data)
    power_of_two = value != 0 and value & (value - 1) == 0
    return len(data) == 8 and power_of_two and 4096 <= value <= 1 << 34


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
