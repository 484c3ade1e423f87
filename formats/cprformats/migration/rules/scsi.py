"""Rule for SCSI requests that were in flight (``scsi-requests``).

::

    requests = request* 00
    request  = marker:s8 (1 to be retried, 2 not) cdb:16 tag:be32 lun:be32 hba disk
    hba      = nothing | virtio-scsi: queue:be32 [ndescs:be32] element
             | mptsas: nothing readable
    disk     = nothing | sector:be64 count:be32 buflen:be32 [data | len:be32 data]
             | scsi-generic: buflen:be32 [data]

Neither the adapter's part nor the disk's says what it is, so the forms are
tried, and those are taken with which the list ends exactly at the field's
end. If none fits, the first request's head is read and the rest is kept whole.

Source: QEMU hw/scsi/scsi-bus.c (put_scsi_requests), hw/scsi/scsi-disk.c
(scsi_disk_save_request), hw/scsi/scsi-generic.c, hw/scsi/virtio-scsi.c
(virtio_scsi_save_request), hw/virtio/virtio.c (qemu_put_virtqueue_element).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cprformats.fields import Kind
from cprformats.migration.vmdesc import FieldDesc
from cprformats.reader import Reader

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder

__all__ = ["requests"]

_HEAD = 1 + 16 + 4 + 4
#: struct VirtQueueElementOld of a 64-bit host: queue index, element; with ndescs if packed.
_ELEMENT = 49168
_HBA_SIZES = (0, 4 + _ELEMENT, 8 + _ELEMENT)
_RETRY = 1
_MAX_REQUESTS = 4096
_SECTOR = 512

#: One leaf of a request: name, codec (empty for bytes), size.
_Leaf = tuple[str, str, int]


def requests(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """Read the list, or as much as can be told from it."""
    data = reader.peek(desc.size)
    for hba in _HBA_SIZES:
        layout = _solve(data, hba)
        if layout is not None:
            _read(reader, layout)
            return
    if len(data) <= _HEAD or data[0] not in (1, 2):
        raise reader.damaged("no list of requests")
    decoder.notice("SCSI requests in an unknown form, kept after the first one's head", reader)
    with reader.group("[0]", "request"):
        _read_head(reader)
    reader.blob("rest", desc.size - _HEAD, kind=Kind.RAW)


def _solve(data: bytes, hba: int) -> list[list[_Leaf]] | None:
    """Find the forms of all requests, behind `hba` bytes of the adapter each.

    Depth-first; a place that led nowhere is not tried twice.
    """
    dead: set[int] = set()
    trail: list[tuple[Iterator[list[_Leaf]], int, list[_Leaf]]] = []
    at = 0
    while True:
        if data[at : at + 1] == b"\0" and at + 1 == len(data):
            return [form for _, _, form in trail]
        if at in dead or len(trail) > _MAX_REQUESTS or not _starts(data, at, hba):
            options: Iterator[list[_Leaf]] = iter(())
        else:
            options = _forms(data, at, hba)
        dead.add(at)
        start = at
        while (form := next(options, None)) is None:
            if not trail:
                return None
            options, start, _ = trail.pop()
        trail.append((options, start, form))
        at = start + _HEAD + hba + sum(leaf[2] for leaf in form)


def _starts(data: bytes, at: int, hba: int) -> bool:
    return at + _HEAD + hba < len(data) and data[at] in (1, 2)


def _forms(data: bytes, at: int, hba: int) -> Iterator[list[_Leaf]]:
    """Give the forms that a disk's part may have here, richest first."""
    begin = at + _HEAD + hba

    def number(offset: int, size: int = 4) -> int:
        return int.from_bytes(data[begin + offset : begin + offset + size])

    room = len(data) - begin - 1
    disk = [("sector", "u64be", 8), ("sector_count", "u32be", 4), ("buflen", "u32be", 4)]
    if room >= 16:
        held = min(number(8) * _SECTOR, number(12))
        if not number(12) or data[at] == _RETRY:
            yield [*disk]
        if number(12) and 0 < held <= room - 16:
            yield [*disk, ("data", "", held)]
        if number(12) and data[at] != _RETRY and room >= 20 and number(16) <= room - 20:
            yield [*disk, ("iov_len", "u32be", 4), ("data", "", number(16))]
    if room >= 4:
        yield [("buflen", "u32be", 4)]
        if number(0) <= room - 4:
            yield [("buflen", "u32be", 4), ("data", "", number(0))]
    yield []


def _read(reader: Reader, layout: list[list[_Leaf]]) -> None:
    size = reader.remaining
    held = sum(leaf[2] for form in layout for leaf in form)
    hba = (size - 1 - held) // len(layout) - _HEAD if layout else 0
    for index, form in enumerate(layout):
        with reader.group(f"[{index}]", "request"):
            _read_head(reader)
            _read_queue(reader, hba)
            for name, how, length in form:
                if how:
                    reader.number(name, how)
                elif length:
                    reader.blob(name, length, kind=Kind.BUFFER)
    reader.expect("end", "u8", 0)


def _read_head(reader: Reader) -> None:
    reader.number("marker", "u8", meaning="scsi-request")
    reader.take("cdb", "u8[16]")
    reader.number("tag", "u32be")
    reader.number("lun", "u32be")


def _read_queue(reader: Reader, hba: int) -> None:
    """Read virtio-scsi's part: the queue, and the element as it lies in memory."""
    if not hba:
        return
    reader.number("queue", "u32be")
    if hba > 4 + _ELEMENT:
        reader.number("ndescs", "u32be")
    with reader.group("element", "VirtQueueElementOld"):
        for name in ("index", "out_num", "in_num", "padding"):
            reader.number(name, "u32le")
        for name in ("in_addr", "out_addr"):
            reader.take(name, "u64le[1024]")
        for name in ("in_sg", "out_sg"):
            reader.take(name, "u64le[2048]")
