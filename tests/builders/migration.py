"""Migration streams from named arguments, written apart from the code that reads them.

::

    stream(configuration("pc"), full(1, "dev", body=b"x"), description=vmdesc(device("dev", ...)))

Every function gives bytes; `stream` puts the header in front and EOF behind.
Nothing here imports the packages under test: the numbers stand here again, so
that one wrong table can't agree with itself.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = [
    "PAGE",
    "Pairs",
    "block",
    "block_list",
    "command",
    "compressed_page",
    "configuration",
    "data_page",
    "device",
    "discard",
    "end",
    "eof",
    "eos",
    "field",
    "footer",
    "full",
    "header",
    "mapped_block",
    "packaged",
    "part",
    "ping",
    "postcopy_advise",
    "ram_mark",
    "ram_word",
    "recv_bitmap",
    "start",
    "stream",
    "subsection",
    "text",
    "vmdesc",
    "xbzrle_page",
    "zero_page",
]

PAGE = 4096

ZERO, MEM_SIZE, DATA, EOS, CONTINUE = 0x002, 0x004, 0x008, 0x010, 0x020
XBZRLE, HOOK, COMPRESS_PAGE, MULTIFD_FLUSH = 0x040, 0x080, 0x100, 0x200


def u8(value: int) -> bytes:
    return value.to_bytes(1)


def be16(value: int) -> bytes:
    return value.to_bytes(2)


def be32(value: int) -> bytes:
    return value.to_bytes(4)


def be64(value: int) -> bytes:
    return value.to_bytes(8)


def text(value: str | bytes) -> bytes:
    """One byte of length and the text."""
    data = value.encode() if isinstance(value, str) else value
    return u8(len(data)) + data


# -- the stream's own parts -----------------------------------------------------


def header(version: int = 3, magic: bytes = b"QEVM") -> bytes:
    return magic + be32(version)


def subsection(name: str, contents: bytes = b"", version: int = 1) -> bytes:
    return b"\x05" + text(name) + be32(version) + contents


def configuration(
    machine: str = "pc-q35-7.2",
    *,
    target_page_bits: int | None = None,
    capabilities: Sequence[str] | None = None,
    uuid: bytes | None = None,
    more: bytes = b"",
) -> bytes:
    """The CONFIGURATION section with the subsections that are asked for."""
    data = b"\x07" + be32(len(machine)) + machine.encode()
    if target_page_bits is not None:
        data += subsection("configuration/target-page-bits", be32(target_page_bits))
    if capabilities is not None:
        names = b"".join(text(name) for name in capabilities)
        data += subsection("configuration/capabilities", be32(len(capabilities)) + names)
    if uuid is not None:
        data += subsection("configuration/uuid", uuid)
    return data + more


def footer(section_id: int) -> bytes:
    return b"\x7e" + be32(section_id)


def _named(
    kind: int, section_id: int, idstr: str, instance: int, version: int, body: bytes, footers: bool
) -> bytes:
    head = u8(kind) + be32(section_id) + text(idstr) + be32(instance) + be32(version)
    return head + body + (footer(section_id) if footers else b"")


def start(
    section_id: int,
    idstr: str = "ram",
    *,
    instance: int = 0,
    version: int = 4,
    body: bytes = b"",
    footers: bool = True,
) -> bytes:
    return _named(1, section_id, idstr, instance, version, body, footers)


def full(
    section_id: int,
    idstr: str,
    *,
    instance: int = 0,
    version: int = 1,
    body: bytes = b"",
    footers: bool = True,
) -> bytes:
    return _named(4, section_id, idstr, instance, version, body, footers)


def part(section_id: int, *, body: bytes = b"", footers: bool = True) -> bytes:
    return b"\x02" + be32(section_id) + body + (footer(section_id) if footers else b"")


def end(section_id: int, *, body: bytes = b"", footers: bool = True) -> bytes:
    return b"\x03" + be32(section_id) + body + (footer(section_id) if footers else b"")


def eof() -> bytes:
    return b"\x00"


def stream(
    *parts: bytes, version: int = 3, description: bytes = b"", padding: bytes = b""
) -> bytes:
    """A whole stream: header, the parts, EOF, the description if any, padding."""
    return header(version) + b"".join(parts) + eof() + description + padding


# -- commands -------------------------------------------------------------------


def command(number: int, data: bytes = b"") -> bytes:
    return b"\x08" + be16(number) + be16(len(data)) + data


def ping(value: int) -> bytes:
    return command(2, be32(value))


def postcopy_advise(page_sizes: int | None = PAGE, target_page_size: int = PAGE) -> bytes:
    """With both words, or without any (dirty bitmaps only) for None."""
    if page_sizes is None:
        return command(3)
    return command(3, be64(page_sizes) + be64(target_page_size))


def discard(block_name: str, ranges: Iterable[tuple[int, int]]) -> bytes:
    words = b"".join(be64(begin) + be64(size) for begin, size in ranges)
    return command(6, b"\0" + text(block_name) + b"\0" + words)


def packaged(*parts: bytes) -> bytes:
    inner = b"".join(parts)
    return command(7, be32(len(inner))) + inner


def recv_bitmap(block_name: str) -> bytes:
    return command(10, text(block_name))


# -- RAM --------------------------------------------------------------------------


def ram_word(offset: int, flags: int) -> bytes:
    return be64(offset | flags)


def block(
    name: str,
    used_length: int,
    *,
    page_size: int | None = None,
    address: int | None = None,
    mapped: bytes = b"",
) -> tuple[int, bytes]:
    """One entry of the block list, with the words that are asked for."""
    data = text(name) + be64(used_length)
    if page_size is not None:
        data += be64(page_size)
    if address is not None:
        data += be64(address)
    return used_length, data + mapped


def block_list(*blocks: tuple[int, bytes], total: int | None = None) -> bytes:
    """MEM_SIZE; the total is the blocks' sum unless given."""
    size = sum(length for length, _ in blocks) if total is None else total
    return ram_word(size, MEM_SIZE) + b"".join(data for _, data in blocks)


def mapped_block(
    name: str,
    pages: Sequence[bytes | None],
    *,
    at: int,
    align: int = 1 << 20,
    version: int = 1,
    address: int | None = None,
) -> tuple[int, bytes]:
    """An entry with mapped-ram's header, bitmap and pages, for a place in the file.

    Args:
        pages: contents, None for a page that is not marked present.
        at: absolute offset at which the entry's name begins.
        align: of the pages in the file; QEMU's is 1 MiB.
    """
    used_length = len(pages) * PAGE
    lead = text(name) + be64(used_length) + (b"" if address is None else be64(address))
    bitmap_offset = at + len(lead) + 28
    bits = sum(1 << index for index, page in enumerate(pages) if page is not None)
    bitmap = bits.to_bytes(-(-len(pages) // 64) * 8, "little")
    pages_offset = -(-(bitmap_offset + len(bitmap)) // align) * align
    gap = bytes(pages_offset - bitmap_offset - len(bitmap))
    head = be32(version) + be64(PAGE) + be64(bitmap_offset) + be64(pages_offset)
    contents = b"".join(bytes(PAGE) if page is None else page for page in pages)
    return used_length, lead + head + bitmap + gap + contents


def mapped_shared(name: str, used_length: int, address: int) -> tuple[int, bytes]:
    """A block that x-ignore-shared leaves out: both offsets are 0."""
    head = be32(1) + be64(PAGE) + be64(0) + be64(0)
    return used_length, text(name) + be64(used_length) + be64(address) + head


def _page_head(offset: int, flag: int, name: str | None) -> bytes:
    if name is None:
        return ram_word(offset, flag | CONTINUE)
    return ram_word(offset, flag) + text(name)


def zero_page(offset: int, name: str | None = None, *, fill: int = 0) -> bytes:
    """A page of one byte's value; without a name, of the block before."""
    return _page_head(offset, ZERO, name) + u8(fill)


def data_page(offset: int, name: str | None = None, *, data: bytes = b"\xa5" * PAGE) -> bytes:
    return _page_head(offset, DATA, name) + data


def xbzrle_page(offset: int, name: str | None = None, *, delta: bytes = b"\x00\x01\xff") -> bytes:
    return _page_head(offset, XBZRLE, name) + b"\x01" + be16(len(delta)) + delta


def compressed_page(
    offset: int, name: str | None = None, *, data: bytes = bytes(PAGE), packed: bytes | None = None
) -> bytes:
    packed = zlib.compress(data) if packed is None else packed
    return _page_head(offset, COMPRESS_PAGE, name) + be32(len(packed)) + packed


def ram_mark(flag: int) -> bytes:
    return ram_word(0, flag)


def eos() -> bytes:
    return ram_mark(EOS)


# -- vmdesc -----------------------------------------------------------------------


class Pairs(list[tuple[str, Any]]):
    """A JSON object as pairs: the same key may come more than once, as QEMU writes it."""


def _json(value: Any) -> str:
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(k)}: {_json(v)}" for k, v in value) + "}"
    if isinstance(value, dict):
        return _json(Pairs(value.items()))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_json, value)) + "]"
    return json.dumps(value)


def field(name: str, type: str, size: int, **more: Any) -> dict[str, Any]:
    """A field of a description; `more` is array_len, index, struct ..."""
    return {"name": name, "type": type, **more, "size": size}


def device(
    name: str,
    fields: Sequence[Any] = (),
    *,
    instance: int = 0,
    vmsd: str | None = None,
    version: int = 1,
    subsections: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """A device's entry; the vmsd is called like the device unless said."""
    made = {
        "name": name,
        "instance_id": instance,
        "vmsd_name": name if vmsd is None else vmsd,
        "version": version,
        "fields": list(fields),
    }
    return made if subsections is None else {**made, "subsections": list(subsections)}


def old_style(name: str, size: int, *, instance: int = 0) -> dict[str, Any]:
    """The entry of a section that a hand-made function wrote."""
    fields = [{"name": "data", "size": size, "type": "buffer"}]
    return {"name": name, "instance_id": instance, "size": size, "fields": fields}


def vmdesc(*devices: Any, page_size: int = PAGE, raw: str | None = None, **top: Any) -> bytes:
    """The VMDESCRIPTION section, of devices or of any text."""
    words = _json({**top, "page_size": page_size, "devices": devices}) if raw is None else raw
    data = words.encode("utf-8", "surrogateescape")
    return b"\x06" + be32(len(data)) + data
