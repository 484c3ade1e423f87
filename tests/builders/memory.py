"""Guest memory in streams: every way of sending a page, and what the destination has in the end.

`Story` is a stream told page by page, with a plain model beside it: a list of
pages for each block. The rest are the pieces: XBZRLE deltas, mapped-ram files,
channels of multifd. Nothing here imports the packages under test.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import zstandard
from hypothesis import strategies as st

from builders import migration as build

__all__ = [
    "Channel",
    "Packer",
    "Story",
    "apply_slowly",
    "delta",
    "device_packet",
    "hello",
    "mapped_entry",
    "mapped_stream",
    "packet",
    "pattern",
    "sparse_mapped_file",
    "stories",
    "uleb",
]

MAGIC = 0x11223344
SYNC, ZLIB, ZSTD, QPL, UADK, QATZIP, DEVICE_STATE = 1, 2, 4, 8, 16, 32, 64
#: How `Packer` compresses, by name.
METHODS = {"none": 0, "zlib": ZLIB, "zstd": ZSTD, "qpl": QPL, "uadk": UADK}
PACKET_BYTES = 512 << 10


# -- XBZRLE ---------------------------------------------------------------------


def uleb(value: int) -> bytes:
    """A number of at most 14 bits."""
    assert 0 <= value < 1 << 14
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80, value >> 7])


def delta(old: bytes, new: bytes) -> bytes:
    """What QEMU's xbzrle_encode_buffer makes; empty if both are the same."""
    made, done = b"", 0
    changed = [a != b for a, b in zip(old, new, strict=True)]
    for differs, group in groupby(range(len(new)), key=changed.__getitem__):
        if differs:
            places = list(group)
            made += uleb(places[0] - done) + uleb(len(places))
            made += new[places[0] : places[-1] + 1]
            done = places[-1] + 1
    return made


def apply_slowly(page: bytes, data: bytes) -> bytes | None:
    """xbzrle_decode_buffer, line by line; None where QEMU gives up."""
    result, d, i = bytearray(page), 0, 0
    while i < len(data):
        if len(data) - i < 2 or (found := _small(data, i)) is None or (i and not found[0]):
            return None
        d, i = d + found[0], found[1]
        if d > len(page) or len(data) - i < 2:
            return None
        if (found := _small(data, i)) is None or not found[0]:
            return None
        count, i = found
        if d + count > len(page) or i + count > len(data):
            return None
        for _ in range(count):
            result[d] = data[i]
            d, i = d + 1, i + 1
    return bytes(result)


def _small(data: bytes, at: int) -> tuple[int, int] | None:
    """uleb128_decode_small: the number and the place behind it."""
    if not data[at] & 0x80:
        return data[at], at + 1
    if data[at + 1] & 0x80:
        return None
    return data[at] & 0x7F | data[at + 1] << 7, at + 2


# -- mapped-ram -------------------------------------------------------------------


def mapped_entry(
    name: str,
    pages: Sequence[bytes | None],
    *,
    at: int,
    page_size: int = build.PAGE,
    used_length: int | None = None,
    align: int = 1 << 12,
    bits: int | None = None,
    bitmap_offset: int | None = None,
    pages_offset: int | None = None,
) -> tuple[int, bytes]:
    """An entry of the block list like `build.mapped_block`, of any page size and with any lie.

    Args:
        name: of the block.
        pages: contents, None for a page that is not marked.
        at: absolute offset at which the entry's name begins.
        page_size: in bytes.
        used_length: of the block; all pages if not given.
        align: of the pages in the file.
        bits: the bitmap as a number, instead of the pages' own.
        bitmap_offset: what the header says, wherever the bitmap is.
        pages_offset: the same.
    """
    used = len(pages) * page_size if used_length is None else used_length
    lead = build.text(name) + build.be64(used)
    bitmap_at = at + len(lead) + 28
    if bits is None:
        bits = sum(1 << number for number, page in enumerate(pages) if page is not None)
    bitmap = bits.to_bytes(-(-len(pages) // 64) * 8, "little")
    pages_at = -(-(bitmap_at + len(bitmap)) // align) * align
    gap = bytes(pages_at - bitmap_at - len(bitmap))
    contents = b"".join(bytes(page_size) if page is None else page for page in pages)[:used]
    head = build.be32(1) + build.be64(page_size)
    head += build.be64(bitmap_at if bitmap_offset is None else bitmap_offset)
    head += build.be64(pages_at if pages_offset is None else pages_offset)
    return used, lead + head + bitmap + gap + contents


def mapped_stream(
    blocks: Mapping[str, Sequence[bytes | None]],
    used: Mapping[str, int] | None = None,
    *,
    page_size: int = build.PAGE,
    **more: Any,
) -> bytes:
    """A whole mapped-ram stream; see `mapped_entry`. `used` are lengths that are not all pages."""
    bits = page_size.bit_length() - 1
    configuration = build.configuration(target_page_bits=bits, capabilities=["mapped-ram"])
    entries, at = [], len(build.header() + configuration + build.start(2, footers=False)) + 8
    for name, pages in blocks.items():
        length = (used or {}).get(name)
        entries.append(
            mapped_entry(name, pages, at=at, used_length=length, page_size=page_size, **more)
        )
        at += len(entries[-1][1])
    body = build.block_list(*entries) + build.eos()
    return build.stream(configuration, build.start(2, body=body))


def sparse_mapped_file(
    path: Path, size: int, pages: Mapping[int, bytes], *, page_size: int = build.PAGE
) -> None:
    """Write a mapped-ram file of one block ``r`` with holes where nothing is."""
    lead = build.header() + build.configuration(capabilities=["mapped-ram"])
    lead += build.start(2, footers=False) + build.ram_word(size, 4)
    lead += build.text("r") + build.be64(size) + build.be32(1) + build.be64(page_size)
    bitmap_at = len(lead) + 16
    pages_at = -(-(bitmap_at + size // page_size // 8 + 8) // (1 << 20)) << 20
    with path.open("wb") as file:
        file.write(lead + build.be64(bitmap_at) + build.be64(pages_at))
        bits: dict[int, int] = {}
        for number, data in pages.items():
            bits[number // 8] = bits.get(number // 8, 0) | 1 << number % 8
            file.seek(pages_at + number * page_size)
            file.write(data)
        for place, byte in bits.items():
            file.seek(bitmap_at + place)
            file.write(bytes([byte]))
        file.seek(pages_at + size)
        file.write(build.eos() + build.footer(2) + build.eof())


# -- multifd ------------------------------------------------------------------------


def hello(channel: int = 0, *, magic: int = MAGIC, uuid: bytes = bytes(16)) -> bytes:
    return struct.pack(">II16sB7x32x", magic, 1, uuid, channel)


def packet(
    block: str = "",
    offsets: Sequence[int] = (),
    zeros: Sequence[int] = (),
    contents: bytes = b"",
    *,
    flags: int = 0,
    size: int | None = None,
    number: int = 0,
    page_size: int = build.PAGE,
    magic: int = MAGIC,
    version: int = 1,
    normal: int | None = None,
) -> bytes:
    """One packet of RAM; all that it says of itself can be said wrong."""
    room = PACKET_BYTES // page_size
    said = len(contents) if size is None else size
    count = len(offsets) if normal is None else normal
    words = (magic, version, flags, room, count, said, number, len(zeros))
    places = [*offsets, *zeros, *[0] * (room - len(offsets) - len(zeros))]
    head = struct.pack(">IIIIIIQI28x256s", *words, block.encode())
    return head + struct.pack(f">{len(places)}Q", *places) + contents


def device_packet(
    contents: bytes, idstr: str = "vfio", *, size: int | None = None, magic: int = MAGIC
) -> bytes:
    """Device state in a channel."""
    said = len(contents) if size is None else size
    head = struct.pack(">III256sII", magic, 1, DEVICE_STATE, idstr.encode(), 0, said)
    return head + contents


class Packer:
    """Compresses the pages of one channel's packets, one after the other."""

    def __init__(self, method: str = "none") -> None:
        self.flag = METHODS[method]
        self._zlib = zlib.compressobj(1)
        self._zstd = zstandard.ZstdCompressor(level=1).compressobj()

    def pack(self, pages: Sequence[bytes]) -> bytes:
        if self.flag == ZLIB:
            return self._zlib.compress(b"".join(pages)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
        if self.flag == ZSTD:
            data = self._zstd.compress(b"".join(pages))
            return data + self._zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        if self.flag in (QPL, UADK):
            return self._each(pages, -15 if self.flag == QPL else 15)
        return b"".join(pages)

    @staticmethod
    def _each(pages: Sequence[bytes], wbits: int) -> bytes:
        packed = []
        for page in pages:
            packer = zlib.compressobj(1, wbits=wbits)
            data = packer.compress(page) + packer.flush()
            packed.append(data if len(data) < len(page) else page)
        return b"".join(build.be32(len(x)) for x in packed) + b"".join(packed)


class Channel:
    """The file of one channel, packet by packet.

    Attributes:
        data: the file so far.
        ends: where each packet ends.
    """

    def __init__(
        self, number: int = 0, method: str = "none", *, page_size: int = build.PAGE
    ) -> None:
        self.data = hello(number)
        self.ends = [len(self.data)]
        self._packer = Packer(method)
        self._page_size = page_size

    def raw(self, data: bytes) -> None:
        """Add bytes as they are."""
        self.data += data
        self.ends.append(len(self.data))

    def send(
        self,
        block: str = "",
        pages: Mapping[int, bytes] | None = None,
        zeros: Iterable[int] = (),
        *,
        sync: bool = False,
    ) -> None:
        """Add a packet; `pages` are contents by offset in the block."""
        pages = pages or {}
        flags = (self._packer.flag if pages else 0) | (SYNC if sync else 0)
        contents = self._packer.pack(list(pages.values())) if pages else b""
        zeros = list(zeros)
        self.raw(
            packet(block, list(pages), zeros, contents, flags=flags, page_size=self._page_size)
        )

    def sync(self) -> None:
        self.send(sync=True)


# -- whole streams --------------------------------------------------------------------

#: What the model knows of a page: its contents, and whether it came as data or zero, or never.
Known = tuple[bytes, str]
Model = dict[str, list[Known]]


class Story:
    """A migration told page by page, and what the destination has at each of its bytes.

    The lengths of all blocks add up to whole pages, since flags are in the same word: so one
    more block ``rest`` fills what is missing.

    Attributes:
        page_size: in bytes.
        data: the main channel's bytes so far, without the end of the stream.
        channels: of multifd.
        model: contents and kind of each page now.
        plain: block and number of pages whose last record has the contents as they are.
    """

    def __init__(
        self,
        blocks: Mapping[str, int],
        *,
        page_size: int = build.PAGE,
        channels: Sequence[str] = (),
        postcopy: bool = False,
    ) -> None:
        self.page_size = page_size
        bits = page_size.bit_length() - 1
        self.data = build.header() + build.configuration(target_page_bits=bits)
        self.data += build.postcopy_advise(page_size, page_size) if postcopy else b""
        self.sizes = dict(blocks)
        if rest := -sum(blocks.values()) % page_size:
            self.sizes["rest"] = rest
        self.model: Model = {
            name: [(bytes(page_size), "never")] * -(-size // page_size)
            for name, size in self.sizes.items()
        }
        listed = build.block_list(*(build.block(name, size) for name, size in self.sizes.items()))
        self.data += build.start(2, body=listed, footers=False)
        self.plain: set[tuple[str, int]] = set()
        self._last: str | None = None
        self._open = True
        self._steps: list[tuple[int, str, int, Known]] = []
        self._first = deepcopy(self.model)
        self._listed = len(self.data)
        self._waiting: list[tuple[str, int, Known]] = []
        self.channels = [
            Channel(number, method, page_size=page_size) for number, method in enumerate(channels)
        ]

    # -- records on the main channel ------------------------------------------------

    def page(self, block: str, number: int, data: bytes) -> None:
        self._record(block, number, build.data_page, data, data=data)

    def zero(self, block: str, number: int) -> None:
        self._record(block, number, build.zero_page, bytes(self.page_size))

    def fill(self, block: str, number: int, value: int) -> None:
        contents = bytes([value]) * self.page_size
        self._record(block, number, build.zero_page, contents, fill=value)

    def compressed(self, block: str, number: int, data: bytes) -> None:
        self._record(block, number, build.compressed_page, data, data=data)

    def change(self, block: str, number: int, data: bytes) -> None:
        """Send a page as what differs from what is there."""
        packed = delta(self.model[block][number][0], data)
        self._record(block, number, build.xbzrle_page, data, kind="data", delta=packed)

    def discard(self, block: str, first: int, count: int) -> None:
        """Let the destination throw pages away; between sections."""
        self.end_section()
        self.data += build.discard(block, [(first * self.page_size, count * self.page_size)])
        for number in range(first, first + count):
            self._set(block, number, (bytes(self.page_size), "never"))

    def end_section(self) -> None:
        """End the section, if one is open; the next record begins another."""
        if self._open:
            self.data += build.eos() + build.footer(2)
        self._open = False

    def flush(self) -> None:
        """MULTIFD_FLUSH: what the channels sent until now is older than what follows."""
        self._begin()
        self.data += build.ram_mark(build.MULTIFD_FLUSH)
        self._epoch()

    def eos(self) -> None:
        """The end of a section, for streams in which it is the mark."""
        self._begin()
        self.data += build.eos()
        self._epoch()
        self.data += build.footer(2)
        self._open = False

    # -- packets on the channels --------------------------------------------------------

    def packet(
        self, channel: int, block: str, pages: Mapping[int, bytes], zeros: Iterable[int] = ()
    ) -> None:
        """Send pages by number on a channel; they count at the next mark."""
        size, zeros = self.page_size, list(zeros)
        contents = {number * size: data for number, data in pages.items()}
        self.channels[channel].send(block, contents, [number * size for number in zeros])
        self._waiting += [(block, number, (data, "data")) for number, data in pages.items()]
        self._waiting += [(block, number, (bytes(size), "zero")) for number in zeros]

    # -- the whole ----------------------------------------------------------------------

    def stream(self) -> bytes:
        """The main channel's whole file."""
        self.end_section()
        return self.data + build.eof()

    def known_at(self, cut: int) -> Model:
        """What is known where the main channel's file is cut; no blocks before their list."""
        if cut < self._listed:
            return {}
        found = deepcopy(self._first)
        for end, block, number, known in self._steps:
            if end <= cut:
                found[block][number] = known
        return found

    def block(self, name: str) -> bytes:
        """The contents of a block, as long as it is."""
        return contents(self.model[name], self.sizes[name])

    def _begin(self) -> None:
        if not self._open:
            self.data += build.part(2, footers=False)
        self._open = True

    def _record(
        self, block: str, number: int, make: Any, contents: bytes, kind: str = "", **more: Any
    ) -> None:
        self._begin()
        name = None if block == self._last else block
        self._last = block
        self.data += make(number * self.page_size, name, **more)
        self._set(block, number, (contents, kind or _kind(make, more)))
        if make is build.data_page:
            self.plain.add((block, number))

    def _set(self, block: str, number: int, known: Known) -> None:
        self.plain.discard((block, number))
        self.model[block][number] = known
        self._steps.append((len(self.data), block, number, known))

    def _epoch(self) -> None:
        for channel in self.channels:
            channel.sync()
        for block, number, known in self._waiting:
            self._set(block, number, known)
        self._waiting.clear()


def contents(pages: Sequence[Known], size: int) -> bytes:
    """Pages of a model as one piece of `size` bytes."""
    return b"".join(data for data, _ in pages)[:size]


def _kind(make: Any, more: Mapping[str, Any]) -> str:
    return "zero" if make is build.zero_page and not more.get("fill") else "data"


# -- any stream -----------------------------------------------------------------------


@cache
def pattern(seed: int, size: int = build.PAGE) -> bytes:
    """Contents of a page that no other seed has."""
    return random.Random(seed).randbytes(size)


_OPS = ("page", "page", "zero", "fill", "compressed", "change", "discard", "section")


@st.composite
def stories(draw: st.DrawFn, page_sizes: Sequence[int] = (256, 1024, 4096)) -> Story:
    """A stream of some blocks, in which anything may follow anything."""
    page_size = draw(st.sampled_from(page_sizes))
    counts = draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
    short = draw(st.sampled_from((0, 1, page_size // 2)))
    blocks = {f"b{n}": count * page_size - short for n, count in enumerate(counts)}
    story = Story(blocks, page_size=page_size, postcopy=True)
    steps = st.tuples(st.sampled_from(_OPS), *[st.integers(0, 255)] * 4)
    for op, block, first, count, seed in draw(st.lists(steps, max_size=30)):
        name = f"b{block % len(counts)}"
        pages = counts[block % len(counts)]
        start = first % pages
        tell(story, op, name, range(start, min(start + count % 5 + 1, pages)), seed)
    return story


def tell(story: Story, op: str, block: str, pages: range, seed: int) -> None:
    """Add what a step of `stories` stands for."""
    if op == "section":
        story.end_section()
    elif op == "discard":
        story.discard(block, pages.start, len(pages))
    elif op == "compressed" and story.page_size < 1024:
        pass  # the flag is not below the page size
    else:
        for number in pages:
            _tell_page(story, op, block, number, seed)


def _tell_page(story: Story, op: str, block: str, number: int, seed: int) -> None:
    data = pattern(seed + number, story.page_size)
    if op == "page":
        story.page(block, number, data)
    elif op == "zero":
        story.zero(block, number)
    elif op == "fill":
        story.fill(block, number, seed)
    elif op == "compressed":
        story.compressed(block, number, data)
    else:
        old, at = story.model[block][number][0], seed * story.page_size // 256
        story.change(block, number, old[:at] + data[at : at + 9] + old[at + 9 :])
