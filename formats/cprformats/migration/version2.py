"""Streams of version 2, as QEMU 0.9 wrote them and 0.10 to 0.15 still took them.

::

    stream = "QEVM" 2:be32 total_len:be64 record*
    record = len:u8 idstr instance:be32 version:be32 record_len:be32 data

Records have their length, so each can be found; what they hold follows layouts
of 2008 for which there is no description, and stays raw. Later QEMUs answer
such a file with an error.

Source: QEMU 0.10 vl.c and 0.12 savevm.c (qemu_loadvm_state_v2); refused by
migration/savevm.c (qemu_loadvm_state) today.
"""

from __future__ import annotations

from collections.abc import Iterator

from cprformats.fields import Kind
from cprformats.migration.model import Located, Section
from cprformats.migration.wire import SectionType
from cprformats.reader import Reader

__all__ = ["read_record_head", "read_records", "read_total"]


def read_total(reader: Reader) -> int:
    """Read the length of all records, in bytes, as a leaf of the header."""
    return reader.number("total_len", "u64be", kind=Kind.HEADER)


def read_records(reader: Reader, total: int) -> Iterator[Section]:
    """Give the records of a stream one by one.

    Raises:
        Truncated: a record is cut, or the stream shorter than it says.
    """
    end = reader.offset + total
    while reader.offset < end:
        yield _record(reader)


def _record(reader: Reader) -> Section:
    offset = reader.offset
    head = Reader(reader.source, offset, reader.end, path=reader.path)
    idstr, instance_id, version, size = read_record_head(head)
    head.require(f"record {idstr!r}", size)
    reader.offset = head.offset + size
    return Section(
        SectionType.FULL,
        0,
        idstr,
        instance_id,
        version,
        offset,
        head.offset - offset,
        size,
        0,
        Located.RECORD,
    )


def read_record_head(reader: Reader) -> tuple[str, int, int, int]:
    """Read a record's head: idstr, instance id, version, length of the data in bytes."""
    idstr = reader.counted_text("idstr")
    instance_id = reader.number("instance_id", "u32be")
    version = reader.number("version", "u32be")
    return idstr, instance_id, version, reader.number("record_len", "u32be")
