"""The transports of virtio: PCI, memory-mapped (MMIO) and s390x channel I/O (CCW).

::

    PCI    = PCIDevice [ msix vectors, config_vector:be16 ]     a queue has vector:be16
    MMIO   = host_features_sel guest_features_sel guest_page_shift    and align:be32
    CCW    = s390_virtio_ccw_dev                                and vector:be16

Each stands at the front of the ``virtio`` field; a modern device has more
in ``virtio/extra_state``. Nothing says which transport it is but the path
of the section and the bytes; a PCI device has vectors, and queues have one,
if and only if its configuration space has an MSI-X capability.

Source: QEMU hw/virtio/virtio-pci.c (virtio_pci_save_config,
vmstate_virtio_pci), hw/virtio/virtio-mmio.c (virtio_mmio_save_config,
vmstate_virtio_mmio), hw/s390x/virtio-ccw.c (vmstate_virtio_ccw_dev),
hw/s390x/css.c (vmstate_subch_dev), hw/intc/s390_flic.c
(vmstate_adapter_info), 5.2 to 11.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cprformats.fields import Kind
from cprformats.migration.rules.pci import msix_vectors, read_msix, read_pci_device
from cprformats.migration.rules.virtio_table import (
    Array,
    Code,
    Item,
    Nested,
    Part,
    Rows,
    Struct,
    TableReader,
    Vmsd,
)
from cprformats.reader import Reader

__all__ = ["CCW", "MMIO", "PCI", "QUEUE_MAX", "Transport", "find_transport"]

#: VIRTIO_QUEUE_MAX: arrays of queues are this long whatever the device has.
QUEUE_MAX = 1024
_PCI_VENDOR = 0x1AF4


@dataclass(frozen=True, slots=True)
class Transport:
    """One transport.

    Attributes:
        name: for people and as the type of its group.
        config: what ``save_config`` writes.
        extra: what ``virtio/extra_state`` holds.
        big_endian: the byte order of a legacy guest, where the transport tells.
    """

    name: str
    config: tuple[Part, ...]
    extra: Vmsd
    big_endian: bool = False


# -- PCI ------------------------------------------------------------------------------


def _pci_device(tables: TableReader) -> None:
    data = read_pci_device(tables.decoder, tables.reader)
    tables.values["vectors"] = msix_vectors(data)
    tables.values["pci_id"] = int.from_bytes(data[2:4], "little")


def _msix(tables: TableReader) -> None:
    read_msix(tables.reader, tables.values["vectors"])


def has_vector(tables: TableReader) -> bool:
    """Say whether queues have an interrupt vector."""
    return tables.values.get("vectors", 0) > 0


_ADDRESSES = tuple(Item(name, "u32be[2]") for name in ("desc", "avail", "used"))


def _features(name: str, first: int = 0) -> tuple[Item, ...]:
    """Two words of feature bits, the low one first."""
    return tuple(
        Item(f"{name}[{word}]", "u32be", "virtio-{}-features" + (f"+{bit}" if bit else ""))
        for word, bit in enumerate((first, first + 32))
    )


PCI = Transport(
    "virtio-pci",
    (
        Code("pci_device", _pci_device),
        Code("msix", _msix, when=has_vector),
        Item("config_vector", "u16be", "virtio-vector", when=has_vector),
    ),
    Vmsd(
        "virtio_pci",
        subsections=(
            Vmsd(
                "virtio_pci/modern_state",
                (
                    Item("dfselect", "u32be"),
                    Item("gfselect", "u32be"),
                    *_features("guest_features"),
                    Rows(
                        "vqs",
                        (
                            Item("num", "u16be"),
                            Item("unused", "u8", kind=Kind.PADDING),
                            Item("enabled", "bool"),
                            *_ADDRESSES,
                        ),
                        QUEUE_MAX,
                        "queues",
                        type="virtio_pci/modern_queue_state",
                    ),
                ),
                # Since 10.2.
                (Vmsd("virtio_pci/modern_state/features128", _features("guest_features", 64)),),
            ),
        ),
    ),
)


# -- MMIO -----------------------------------------------------------------------------

MMIO = Transport(
    "virtio-mmio",
    (
        Item("host_features_sel", "u32be"),
        Item("guest_features_sel", "u32be"),
        Item("guest_page_shift", "u32be"),
    ),
    Vmsd(
        "virtio_mmio",
        subsections=(
            Vmsd(
                "virtio_mmio/state",
                (
                    *_features("guest_features"),
                    Rows(
                        "vqs",
                        (Item("num", "u16be"), Item("enabled", "bool"), *_ADDRESSES),
                        QUEUE_MAX,
                        "queues",
                        type="virtio_mmio/queue_state",
                    ),
                ),
            ),
        ),
    ),
)


# -- CCW ------------------------------------------------------------------------------

_PMCW = Struct(
    "pmcw",
    (
        Item("intparm", "u32be"),
        Item("flags", "u16be"),
        Item("devno", "u16be"),
        Item("lpm", "u8"),
        Item("pnom", "u8"),
        Item("lpum", "u8"),
        Item("pim", "u8"),
        Item("mbi", "u16be"),
        Item("pom", "u8"),
        Item("pam", "u8"),
        Array("chpid", "u8", 8),
        Item("chars", "u32be"),
    ),
    type="s390_pmcw",
)
_SCSW = Struct(
    "scsw",
    (
        Item("flags", "u16be"),
        Item("ctrl", "u16be"),
        Item("cpa", "u32be"),
        Item("dstat", "u8"),
        Item("cstat", "u8"),
        Item("count", "u16be"),
    ),
    type="s390_scsw",
)
_SENSE_ID = Struct(
    "id",
    (
        Item("reserved", "u8"),
        Item("cu_type", "u16be"),
        Item("cu_model", "u8"),
        Item("dev_type", "u16be"),
        Item("dev_model", "u8"),
        Item("unused", "u8"),
        # MAX_CIWS; the command information words are type, command, count.
        Array("ciw", "{u8,u8,u16}be", 62),
    ),
    type="s390_sense_id",
)
_SUBCHANNEL = Vmsd(
    "s390_subch_dev",
    (
        Item("cssid", "u8"),
        Item("ssid", "u8"),
        Item("migrated_schid", "u16be"),
        Item("devno", "u16be"),
        Item("thinint_active", "bool"),
        Struct(
            "curr_status",
            (_PMCW, _SCSW, Item("mba", "u64be"), Array("mda", "u8", 4)),
            type="s390_schib",
        ),
        Array("sense_data", "u8", 32),
        Item("channel_prog", "u64be"),
        Struct(
            "last_cmd",
            (
                Item("cmd_code", "u8"),
                Item("flags", "u8"),
                Item("count", "u16be"),
                Item("cda", "u32be"),
            ),
            type="s390_ccw1",
        ),
        Item("last_cmd_valid", "bool"),
        _SENSE_ID,
        Item("ccw_fmt_1", "bool"),
        Item("ccw_no_data_cnt", "u8"),
    ),
    (
        Vmsd(
            "s390_subch_dev/orb",
            (
                Item("intparm", "u32be"),
                Item("ctrl0", "u16be"),
                Item("lpm", "u8"),
                Item("ctrl1", "u8"),
                Item("cpa", "u32be"),
            ),
        ),
    ),
)
_ADAPTER = Vmsd(
    "s390_adapter_info",
    (Item("ind_offset", "u64be"),),
    (Vmsd("s390_adapter_info/summary_offset", (Item("summary_offset", "u32be"),)),),
)


def _indicator(name: str) -> Struct:
    return Struct(name, (Item("len", "i32be"), Item("addr", "u64be")), type="s390_ind_addr")


CCW = Transport(
    "virtio-ccw",
    (
        Nested("sch", _SUBCHANNEL),
        *map(_indicator, ("indicators", "indicators2", "summary_indicator")),
        Item("config_vector", "u16be", "virtio-vector"),
        Nested("routes", _ADAPTER),
        Item("thinint_isc", "u8"),
        Item("revision", "i32be"),
    ),
    Vmsd("virtio_ccw"),
    big_endian=True,
)


# -- which one --------------------------------------------------------------------------

_PATHS = (
    (re.compile(r"virtio-mmio@"), MMIO),
    (re.compile(r"/?[0-9a-f]{2}\.[0-9a-f]\.[0-9a-f]{4}/"), CCW),
    (re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"), PCI),
)


def find_transport(idstr: str, reader: Reader) -> Transport:
    """Tell the transport by the section's path, else by what stands at the front.

    A path of another PCI host bridge has a form of its own; a bare name is
    that of an MMIO device of an old machine type.
    """
    for pattern, transport in _PATHS:
        if pattern.match(idstr):
            return transport
    head = reader.peek(6)
    if head[:4] == b"\0\0\0\2" and int.from_bytes(head[4:6], "little") == _PCI_VENDOR:
        return PCI
    return MMIO
