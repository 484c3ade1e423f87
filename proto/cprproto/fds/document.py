"""The table of descriptors as a document that travels beside the QCPR state.

QEMU's state says name, id and number. What we know besides (kinds, checks, what each looked like
before, the protocol's version) is a document of our own, in a memfd or a message::

    document = "CPRF" version:be16 protocol:be32 count:be16 record* crc:be32
    record   = size:be16 number:i32be id:be32 checks:be8 kind:len8 name:len8 [evidence]
    evidence = looks:len8 link:len16 device inode node size position (each be64)
               flags:be32 seals:i32be unique:i64be count:i64be cloexec:u8

A later version may put more at the end of a record; `size` lets an older reader pass over it.
The checksum (CRC-32) covers all that is in front of it.
"""

from __future__ import annotations

import binascii
import struct

from cprproto.errors import TableError
from cprproto.fds.evidence import Evidence
from cprproto.fds.table import MAX_ENTRIES, Entry, Table

__all__ = ["MAGIC", "MAX_BYTES", "VERSION", "decode_table", "encode_table"]

MAGIC = b"CPRF"
VERSION = 1
#: A full table with the longest names and links is smaller.
MAX_BYTES = 8 << 20

_HEAD = struct.Struct(">4sHIH")
_SIZE = struct.Struct(">H")
_ENTRY = struct.Struct(">iIB")
_SEEN = struct.Struct(">QQQQQIiqqB")
_CRC = struct.Struct(">I")
_MAX_LINK = 4096


def encode_table(table: Table) -> bytes:
    """Write a table as a document."""
    records = [_record(entry) for entry in table]
    head = _HEAD.pack(MAGIC, VERSION, table.protocol, len(records))
    data = head + b"".join(_SIZE.pack(len(record)) + record for record in records)
    return data + _CRC.pack(binascii.crc32(data))


def _record(entry: Entry) -> bytes:
    head = _ENTRY.pack(entry.number, entry.id, entry.checks)
    data = head + _short(entry.kind) + _short(entry.name)
    seen = entry.before
    if seen is None:
        return data
    link = seen.link.encode("utf-8", "surrogateescape")[:_MAX_LINK]
    places = (seen.device, seen.inode, seen.node, seen.size, seen.position)
    info = (seen.flags, seen.seals, seen.unique, _signed(seen.count), seen.cloexec)
    return data + _short(seen.looks) + _SIZE.pack(len(link)) + link + _SEEN.pack(*places, *info)


def _signed(count: int) -> int:
    """An eventfd counts to 2^64 - 2; -1 stands for none."""
    return count - (1 << 64) if count >= 1 << 63 else count


def _short(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return bytes([len(data)]) + data


def decode_table(data: bytes) -> Table:
    """Read a document.

    Raises:
        TableError: it is cut or damaged, of a later version, or its table makes no sense.
    """
    if data[:4] != MAGIC or len(data) < _HEAD.size + _CRC.size:
        raise TableError(f"no table of descriptors: expected {MAGIC!r}, found {data[:4]!r}")
    _, version, protocol, count = _HEAD.unpack_from(data)
    if version != VERSION:
        raise TableError(f"table of descriptors: expected version {VERSION}, found {version}")
    if len(data) > MAX_BYTES or count > MAX_ENTRIES:
        raise TableError(f"table of descriptors: {count} entries in {len(data)} bytes are too many")
    body, (crc,) = data[: -_CRC.size], _CRC.unpack(data[-_CRC.size :])
    if binascii.crc32(body) != crc:
        raise TableError("table of descriptors: it is cut or damaged, the checksum does not fit")
    table = Table(protocol)
    cursor = _Cursor(body, _HEAD.size)
    for _ in range(count):
        record = cursor.take(_SIZE.unpack(cursor.take(_SIZE.size))[0])
        table.put(_entry(_Cursor(record, 0)))
    if cursor.left:
        raise TableError(f"table of descriptors: {cursor.left} bytes behind the last entry")
    return table


def _entry(cursor: _Cursor) -> Entry:
    number, id_number, checks = _ENTRY.unpack(cursor.take(_ENTRY.size))
    kind, name = cursor.short(), cursor.short()
    seen = _evidence(cursor, number) if cursor.left else None
    return Entry(kind, name, id_number, number, checks, seen)


def _evidence(cursor: _Cursor, number: int) -> Evidence:
    looks = cursor.short()
    link = cursor.text(_SIZE.unpack(cursor.take(_SIZE.size))[0])
    values = _SEEN.unpack(cursor.take(_SEEN.size))
    device, inode, node, size, position, flags, seals, unique, count, cloexec = values
    if cloexec:
        flags |= Evidence.CLOEXEC
    if count < -1:
        count += 1 << 64
    places, info = (device, inode, node, size), (position, flags, unique, count)
    return Evidence(number, looks, link, places, info, seals)


class _Cursor:
    """Takes bytes one after the other, never behind the end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise TableError(f"table of descriptors: expected {size} bytes, found {self.left}")
        self._at += size
        return self._data[self._at - size : self._at]

    def text(self, size: int) -> str:
        return self.take(size).decode("utf-8", "surrogateescape")

    def short(self) -> str:
        return self.text(self.take(1)[0])
