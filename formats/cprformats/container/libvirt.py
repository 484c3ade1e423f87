"""Read libvirt's save image: a header, the domain's XML, a cookie, then the stream.

::

    file   = header xml NUL [cookie NUL] padding rest
    header = magic version data_len was_running format cookie_offset reserved   92 bytes

``data_len`` counts all from the XML to the padding. The numbers are in the
byte order of the host that wrote them; a version of more than 2 means the
other order. The rest is a stream, bare or compressed; under the format
``sparse`` it is a mapped-ram stream, whose page offsets count from the file's
first byte.

Source: libvirt src/qemu/qemu_saveimage.h and .c (virQEMUSaveHeader,
qemuSaveImageReadHeader), 11; older ones call the fields xml_len and compressed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import construct

from cprformats.codecs import DataRef, Value
from cprformats.errors import FormatError, Unsupported, WrongFormat
from cprformats.fields import Field, Kind, Tally, tally
from cprformats.layout import read_record
from cprformats.reader import Reader
from cprformats.source import Source

__all__ = ["FORMATS", "HEADER_BYTES", "LibvirtSave", "read_libvirt"]

_COMPLETE = b"LibvirtQemudSave"
_PARTIAL = b"LibvirtQemudPart"
_VERSION = 2
HEADER_BYTES = 92

#: virQEMUSaveFormat: how the rest is compressed.
FORMATS = {
    0: "raw",
    1: "gzip",
    2: "bzip2",
    3: "xz",
    4: "lzop",
    5: "zstd",
    6: "sparse",
}

#: A domain's XML is some ten KiB, with the cookie perhaps a hundred.
_MAX_DATA_BYTES = 64 << 20


def _layout(word: Any) -> construct.Struct[Any, Any]:
    return construct.Struct(
        "magic" / construct.Bytes(16),
        "version" / word,
        "data_len" / word,
        "was_running" / word,
        "format" / word,
        "cookie_offset" / word,
        "reserved" / construct.Bytes(56),
    )


_LITTLE, _BIG = _layout(construct.Int32ul), _layout(construct.Int32ub)


@dataclass(frozen=True, slots=True)
class LibvirtSave:
    """A libvirt save image.

    Attributes:
        source: its bytes.
        offset: of the magic, absolute.
        version: of the header: 1 or 2.
        byte_order: of the header's numbers, ``little`` or ``big``.
        complete: libvirt had finished the file; False for the magic ``...Part``.
        was_running: the domain was running when it was saved.
        format: how the rest is compressed; a number's text where it is unknown.
        xml: the domain as XML.
        cookie: what libvirt's driver kept besides, as XML, or empty.
        inner_offset: of the stream, absolute.
        fields: everything up to the rest, as trees.
        warnings: oddities that don't stop a reader.
        error: what ended the reading early, if something did.
    """

    source: Source
    offset: int
    version: int
    byte_order: str
    complete: bool
    was_running: bool
    format: str
    xml: str
    cookie: str
    inner_offset: int
    fields: tuple[Field, ...]
    warnings: tuple[str, ...]
    error: FormatError | None

    @property
    def end(self) -> int:
        """Offset behind the last byte."""
        return self.source.size()

    def walk(self) -> Iterator[Field]:
        """Give header, texts and padding, and the rest as one span."""
        yield from self.fields
        size = self.end - self.inner_offset
        if size > 0:
            ref = DataRef(self.source, self.inner_offset, size)
            kind = Kind.UNKNOWN if self.error else Kind.PAYLOAD
            yield Field("rest", self.format, "bytes", kind, self.inner_offset, size, ref)

    def tally(self) -> Tally:
        """Count the bytes by kind."""
        return tally(self.walk())


def read_libvirt(source: Source, offset: int = 0) -> LibvirtSave:
    """Read the save image that begins at `offset`, up to the stream in it.

    Damage behind the header does not raise: it is kept as `error`.

    Raises:
        WrongFormat: there is no magic.
        Truncated: the header is cut.
        Unsupported: a version that is neither 1 nor 2.
    """
    reader = Reader(source, offset, kind=Kind.CONTAINER)
    magic = reader.peek(16)
    if magic not in (_COMPLETE, _PARTIAL):
        raise WrongFormat(
            f"no libvirt save image: expected {_COMPLETE!r}, found {magic!r}", offset=offset
        )
    values, byte_order = _header(reader)
    texts, error = ("", ""), None
    try:
        texts = _body(reader, _number(values["data_len"]), _number(values["cookie_offset"]))
    except FormatError as caught:
        error = caught
    number = _number(values["format"])
    return LibvirtSave(
        source,
        offset,
        _number(values["version"]),
        byte_order,
        magic == _COMPLETE,
        bool(values["was_running"]),
        FORMATS.get(number, str(number)),
        *texts,
        reader.offset,
        reader.finish("libvirt-save").children,
        tuple(_warnings(magic, number)),
        error,
    )


def _header(reader: Reader) -> tuple[dict[str, Value], str]:
    raw = reader.peek(20)
    if len(raw) < 20:
        raise reader.truncated("header", HEADER_BYTES, len(raw))
    little, big = struct.unpack("<I", raw[16:])[0], struct.unpack(">I", raw[16:])[0]
    version = min(little, big)
    if not 1 <= version <= _VERSION:
        raise reader.error(
            Unsupported,
            f"version of the save image: expected up to {_VERSION}, found {version}",
        )
    byte_order = "little" if little == version else "big"
    layout = _LITTLE if byte_order == "little" else _BIG
    values = read_record(reader, "header", layout, meanings={"format": "libvirt-format"})
    return values, byte_order


def _body(reader: Reader, size: int, cookie_offset: int) -> tuple[str, str]:
    """Read XML, cookie and padding: `size` bytes from here."""
    start = reader.offset
    if size > _MAX_DATA_BYTES:
        raise reader.error(
            Unsupported, f"length of the XML: expected up to {_MAX_DATA_BYTES}, found {size}"
        )
    reader.require("XML, cookie and padding", size)
    cookie_at = start + cookie_offset if 0 < cookie_offset < size else start + size
    if cookie_offset >= size > 0:
        raise reader.mismatch("cookie offset", f"below {size}", cookie_offset)
    xml = _text(reader, "xml", cookie_at)
    cookie = _text(reader, "cookie", start + size) if reader.offset < start + size else ""
    return xml, cookie


def _text(reader: Reader, name: str, end: int) -> str:
    """Read text up to its NUL, and all behind it up to `end` as padding."""
    data = reader.source.read_at(reader.offset, end - reader.offset)
    size = data.find(b"\0")
    text = reader.text(name, len(data) if size < 0 else size, type="xml")
    if reader.offset < end:
        reader.blob(f"{name}_padding", end - reader.offset, kind=Kind.PADDING)
    return text


def _warnings(magic: bytes, number: int) -> Iterator[str]:
    if magic == _PARTIAL:
        yield "libvirt had not finished this save image: its stream may be cut"
    if number not in FORMATS:
        yield f"unknown format {number} of the stream; its own bytes tell what it is"


def _number(value: Value) -> int:
    assert isinstance(value, int)
    return value
