"""The rule for the ``virtio`` field: all of a virtio device's state.

::

    virtio   = transport status:u8 isr:u8 queue_sel:be16 guest_features:be32
               config_len:be32 config queues:be32 queue... part subsections
    queue    = num:be32 [ align:be32 with MMIO ] desc:be64 last_avail_idx:be16
               [ vector:be16 with CCW, and with PCI if it has MSI-X ]

The vmdesc calls it one opaque field. What comes later in it decides how the
front is read (byte order of the configuration space, the form of requests),
and where the device's own part ends; so the subsections, which have names
and stand at the end, are looked up first.

Source: QEMU hw/virtio/virtio.c (virtio_save, vmstate_virtio), 5.2 to 11.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cprformats.errors import FormatError, Unsupported
from cprformats.fields import Kind
from cprformats.migration.rules.virtio_config import read_config
from cprformats.migration.rules.virtio_devices import DEVICES, PCI_KINDS, Device
from cprformats.migration.rules.virtio_table import Array, Item, Nested, Rows, TableReader, Vmsd
from cprformats.migration.rules.virtio_transport import (
    CCW,
    MMIO,
    QUEUE_MAX,
    Transport,
    find_transport,
    has_vector,
)
from cprformats.migration.vmdesc import FieldDesc
from cprformats.reader import Reader

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder

__all__ = ["section", "virtio"]

#: All known subsections together take about 60 KiB; some of them may be unknown.
_TAIL_BYTES = 1 << 17
_VERSION_1 = 1 << 32
#: Targets whose legacy guests are big-endian, by the start of the machine type.
_BIG_ENDIAN_MACHINES = ("s390", "pseries", "g3beige", "mac99", "ppce500", "powernv", "leon3")

_BEFORE_EXTRA = (
    Vmsd("virtio/device_endian", (Item("device_endian", "u8", "virtio-endian"),)),
    # Since 10.2; it does stand in front of the lower bits.
    Vmsd(
        "virtio/128bit_features",
        (Item("guest_features[1]", "u64be", "virtio-{}-features+64"),),
    ),
    Vmsd("virtio/64bit_features", (Item("guest_features", "u64be", "virtio-{}-features"),)),
    Vmsd(
        "virtio/virtqueues",
        (
            Rows(
                "vq",
                (Item("vring.avail", "u64be"), Item("vring.used", "u64be")),
                QUEUE_MAX,
                "queues",
                type="virtqueue_state",
            ),
        ),
    ),
    Vmsd("virtio/ringsize", (Array("vring.num_default", "u32be", QUEUE_MAX),)),
    Vmsd("virtio/broken", (Item("broken", "bool"),)),
)
_AFTER_EXTRA = (
    Vmsd("virtio/started", (Item("started", "bool"),)),
    Vmsd(
        "virtio/packed_virtqueues",
        (
            Rows(
                "vq",
                (
                    Item("last_avail_idx", "u16be"),
                    Item("last_avail_wrap_counter", "bool"),
                    Item("used_idx", "u16be"),
                    Item("used_wrap_counter", "bool"),
                    Item("inuse", "u32be"),
                ),
                QUEUE_MAX,
                "queues",
                type="packed_virtqueue_state",
            ),
        ),
    ),
    Vmsd("virtio/disabled", (Item("disabled", "bool"),)),
)


def _description(transport: Transport) -> Vmsd:
    """Give the description ``virtio``: no fields, only subsections, of which one differs."""
    extra = Vmsd("virtio/extra_state", (Nested("extra_state", transport.extra),))
    return Vmsd("virtio", subsections=(*_BEFORE_EXTRA, extra, *_AFTER_EXTRA))


#: The head of any subsection of ``virtio``; the name's length is compared apart.
_HEAD = re.compile(rb"\x05([\x08-\xff])(virtio/[!-~]+)\0\0\0")


@dataclass(frozen=True, slots=True)
class _Tail:
    """What the subsections at the end say.

    Attributes:
        start: absolute offset of the first of them, or of the end.
        features: the feature bits 0 to 63, or 0.
        endian: 1 little, 2 big, 0 not said.
        packed: whether the host offers packed rings.
    """

    start: int
    features: int
    endian: int
    packed: bool


def _look_ahead(reader: Reader, end: int) -> _Tail:
    skip = max(end - reader.offset - _TAIL_BYTES, 0)
    data = reader.peek(_TAIL_BYTES, skip=skip)
    values: dict[str, bytes] = {}
    start = end
    for match in _HEAD.finditer(data):
        name, at = match[2].decode(), match.end() + 1
        if match[1][0] == len(name):
            start = min(start, reader.offset + skip + match.start())
            values.setdefault(name, data[at : at + 8])
    return _Tail(
        start,
        int.from_bytes(values.get("virtio/64bit_features", b"")),
        int.from_bytes(values.get("virtio/device_endian", b"")[:1]),
        "virtio/packed_virtqueues" in values,
    )


# -- the rule ---------------------------------------------------------------------------


def virtio(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """The opaque field ``virtio``."""
    _virtio(decoder, reader, reader.offset + desc.size)


def section(decoder: Decoder, reader: Reader) -> None:
    """A whole section without a description; its end has to be known.

    Raises:
        Unsupported: the end is not known, or more than ``virtio`` is in it.
    """
    here = decoder.section
    if not here.body_size or _name(decoder) not in DEVICES or _name(decoder) == "virtio-gpu":
        raise reader.error(Unsupported, "a virtio section without a description")
    with reader.group("virtio", "virtio"):
        _virtio(decoder, reader, here.body_end)


def _name(decoder: Decoder) -> str:
    description = decoder.section.description
    if description is not None and description.vmsd.vmsd_name:
        return description.vmsd.vmsd_name
    return decoder.section.idstr.rpartition("/")[2]


def _virtio(decoder: Decoder, reader: Reader, end: int) -> None:
    transport = find_transport(decoder.section.idstr, reader)
    device = DEVICES.get(_name(decoder))
    tail = _look_ahead(reader, end)
    tables = TableReader(decoder, reader, version=decoder.section.version)
    with reader.group("transport", transport.name):
        tables.parts(transport.config)
    if device is None:
        device = _unnamed(decoder, tables)
    tables.device = device.kind
    tables.values["packed"] = int(tail.packed)
    _common(tables, big_endian=_is_big_endian(decoder, transport, tail))
    _queues(tables, transport)
    _part(tables, device, max(tail.start - reader.offset, 0))
    tables.subsections(_description(transport))


def _unnamed(decoder: Decoder, tables: TableReader) -> Device:
    """Make a device of a name that is not known; a modern PCI id is its kind."""
    number = tables.values.get("pci_id", 0) - 0x1040
    kind = PCI_KINDS.get(number, "")
    decoder.notice(f"virtio device of unknown name {_name(decoder)!r}", tables.reader)
    return Device(kind, max(number, 0))


def _is_big_endian(decoder: Decoder, transport: Transport, tail: _Tail) -> bool:
    """Tell the byte order of the configuration space.

    A device that negotiated VERSION_1 is little-endian. A legacy one is as the
    guest is: as the target by default, else as its subsection says.
    """
    if tail.features & _VERSION_1:
        return False
    if tail.endian:
        return tail.endian == 2
    return transport.big_endian or decoder.machine.startswith(_BIG_ENDIAN_MACHINES)


def _common(tables: TableReader, *, big_endian: bool) -> None:
    reader = tables.reader
    reader.number("status", "u8", meaning="virtio-status")
    reader.number("isr", "u8", meaning="virtio-isr")
    reader.number("queue_sel", "u16be")
    features = Item("guest_features", "u32be", "virtio-{}-features")
    tables.parts((features,))
    size = reader.number("config_len", "u32be")
    reader.require("config", size)
    if size:
        with reader.group("config", f"virtio_{tables.device}_config"):
            read_config(tables, size, big_endian=big_endian)


def _queues(tables: TableReader, transport: Transport) -> None:
    reader = tables.reader
    count = tables.values["queues"] = reader.number("queues", "u32be")
    if count > QUEUE_MAX:
        raise reader.mismatch("virtqueues", f"at most {QUEUE_MAX}", count)
    for index in range(count):
        with reader.group(f"queue[{index}]", "virtqueue"):
            reader.number("vring.num", "u32be")
            if transport is MMIO:
                reader.number("vring.align", "u32be")
            reader.number("vring.desc", "u64be")
            reader.number("last_avail_idx", "u16be")
            if transport is CCW or has_vector(tables):
                reader.number("vector", "u16be", meaning="virtio-vector")


def _part(tables: TableReader, device: Device, size: int) -> None:
    """Read the device's own part; what does not fit stays raw, and the rest goes on."""
    decoder, reader = tables.decoder, tables.reader
    if device.part is None:
        if size:
            decoder.notice(f"no layout for the part of {device.kind or 'this device'}", reader)
            reader.blob("part", size, kind=Kind.RAW)
        return
    tables.values["part_size"] = size
    try:
        with decoder.bounded(reader, "part", device.part.name, size):
            tables.vmsd(device.part)
    except FormatError as error:
        reader.rewind()
        decoder.notice(f"part of {device.kind} does not fit: {error}", reader)
        reader.blob("part", size, kind=Kind.RAW)
