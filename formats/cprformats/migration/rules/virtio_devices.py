"""The kinds of virtio devices, and the part of the ``virtio`` field that is theirs.

A kind is found by the name of the section's description, which is the last
part of its idstr; `Device.part` is what stands between the virtqueues and
the subsections of ``virtio``. Most kinds have nothing there.

Source: QEMU hw/net/virtio-net.c (vmstate_virtio_net_device),
hw/virtio/virtio-balloon.c, virtio-iommu.c, virtio-mem.c, virtio-nsm.c,
hw/virtio/vhost.c (vhost_save_backend_state), 5.2 to 11.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cprformats.errors import Unsupported
from cprformats.fields import Kind
from cprformats.migration.rules.virtio_requests import blk_requests, serial_ports
from cprformats.migration.rules.virtio_table import (
    MAX_ELEMENTS,
    Array,
    Code,
    Item,
    QList,
    Struct,
    TableReader,
    Tree,
    Vmsd,
)
from cprformats.migration.vmdesc import FieldDesc
from cprformats.reader import Reader

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder

__all__ = ["DEVICES", "PCI_KINDS", "Device", "backend"]


@dataclass(frozen=True, slots=True)
class Device:
    """A kind of device.

    Attributes:
        kind: short name; the tables of its features and configuration go by it.
        number: the virtio device id.
        part: the description of its own part, if it has one.
    """

    kind: str
    number: int
    part: Vmsd | None = None


# -- the state of a vhost back-end -------------------------------------------------------


def backend(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """What a vhost back-end process says of itself, as a field of its own."""
    _backend(reader)


def _backend(reader: Reader) -> None:
    """Read chunks of at most 1 MiB, each behind its length, up to a length of 0."""
    index = 0
    while size := reader.number(f"chunk_len[{index}]", "u32be"):
        reader.blob(f"chunk[{index}]", size, kind=Kind.PAYLOAD)
        index += 1
        if index > MAX_ELEMENTS:
            raise reader.error(Unsupported, f"more than {MAX_ELEMENTS} chunks")


# -- net ---------------------------------------------------------------------------------

_CTRL_GUEST_OFFLOADS = 1 << 2
_TX_WAITING = Item("tx_waiting", "u32be")
_RSS_KEY_SIZE = 40
_MAX_VLAN_WORDS = 4096 // 32


def _has_offloads(tables: TableReader) -> bool:
    return bool(tables.values["guest_features"] & _CTRL_GUEST_OFFLOADS)


def _has_pairs(tables: TableReader) -> bool:
    """Several pairs of queues have two more numbers; else the subsections, or the end, follow."""
    skip = 8 if _has_offloads(tables) else 0
    ahead = tables.reader.peek(8, skip=skip)
    return bool(ahead) and not (ahead[0] == 5 and ahead[2:] == b"virtio"[: len(ahead) - 2])


def _more_pairs(tables: TableReader) -> bool:
    return tables.values.get("curr_queue_pairs", 0) > 1


_NET = Vmsd(
    "virtio-net-device",
    (
        Array("mac", "u8", 6, type="mac-address"),
        Item("vqs[0].tx_waiting", "u32be"),
        Item("mergeable_rx_bufs", "u32be"),
        Item("status", "u16be", "virtio-net-status"),
        Item("promisc", "u8"),
        Item("allmulti", "u8"),
        Item("mac_table.in_use", "u32be"),
        Array(
            "mac_table.macs",
            "u8",
            lambda tables: 6 * tables.values["mac_table.in_use"],
            type="mac-address",
        ),
        # Bitmap of 32-bit words in the byte order of the source host.
        Array("vlans", "u32le", _MAX_VLAN_WORDS, type="buffer"),
        Item("has_vnet_hdr", "u32be"),
        Item("mac_table.multi_overflow", "u8"),
        Item("mac_table.uni_overflow", "u8"),
        Item("alluni", "u8"),
        Item("nomulti", "u8"),
        Item("nouni", "u8"),
        Item("nobcast", "u8"),
        Item("has_ufo", "u8"),
        Struct(
            "queue_pairs",
            (Item("max_queue_pairs", "u16be"), Item("curr_queue_pairs", "u16be")),
            when=_has_pairs,
        ),
        Array(
            "vqs[1...].tx_waiting",
            "u32be",
            lambda tables: tables.values["curr_queue_pairs"] - 1,
            when=_more_pairs,
        ),
        Item("curr_guest_offloads", "u64be", "virtio-net-offloads", when=_has_offloads),
    ),
    (
        Vmsd(
            "virtio-net-device/rss",
            (
                Item("enabled", "bool"),
                Item("redirect", "bool"),
                Item("populate_hash", "bool"),
                Item("runtime_hash_types", "u32be", "virtio-net-hash"),
                Item(
                    "supported_hash_types",
                    "u32be",
                    "virtio-net-hash",
                    when=lambda tables: tables.version >= 2,
                ),
                Item("indirections_len", "u16be"),
                Item("default_queue", "u16be"),
                Array("key", "u8", _RSS_KEY_SIZE),
                Array("indirections_table", "u16be", "indirections_len"),
            ),
        ),
        # Since 10.0, of a vhost-user back-end.
        Vmsd(
            "virtio-net-device/backend",
            (Code("backend", lambda tables: _backend(tables.reader)),),
        ),
    ),
)

# -- balloon -----------------------------------------------------------------------------

_POISON = (Item("poison_val", "u32be"),)
_BALLOON = Vmsd(
    "virtio-balloon-device",
    (Item("num_pages", "u32be"), Item("actual", "u32be")),
    (
        Vmsd(
            "virtio-balloon-device/free-page-report",
            (
                Item("free_page_hint_cmd_id", "u32be"),
                Item("free_page_hint_status", "u32be", "virtio-balloon-hint"),
            ),
        ),
        Vmsd("virtio-balloon-device/page-poison", _POISON),
        # 5.2 spells it so.
        Vmsd("vitio-balloon-device/page-poison", _POISON),
    ),
)

# -- iommu -------------------------------------------------------------------------------


def _version_2(tables: TableReader) -> bool:
    """Bypass came with version 2 of the device, in 7.0."""
    return tables.version >= 2


_DOMAIN = (
    Item("id", "u32be"),
    Tree(
        "mappings",
        (Item("low", "u64be"), Item("high", "u64be")),
        (Item("phys_addr", "u64be"), Item("flags", "u32be", "virtio-iommu-map")),
        type="gtree",
    ),
    QList("endpoint_list", (Item("id", "u32be"),), type="qlist"),
    Item("bypass", "bool", when=_version_2),
)
_IOMMU = Vmsd(
    "virtio-iommu-device",
    (
        Tree("domains", (Item("key", "u64be"),), (Struct("value", _DOMAIN, type="domain"),)),
        Item("config.bypass", "u8", when=_version_2),
    ),
)

# -- mem ---------------------------------------------------------------------------------

_SHORT_MEM_BYTES = 16


def _is_whole(tables: TableReader) -> bool:
    """With early migration, all but two sizes is in a section of its own."""
    return tables.values["part_size"] > _SHORT_MEM_BYTES


def _bitmap_words(tables: TableReader) -> int:
    blocks = tables.values["region_size"] // max(tables.values["block_size"], 1)
    return (blocks + 63) // 64


_MEM = Vmsd(
    "virtio-mem-device",
    (
        Struct(
            "sanity-checks",
            (
                Item("addr", "u64be"),
                Item("region_size", "u64be"),
                Item("block_size", "u64be"),
                Item("node", "u32be"),
            ),
            type="virtio-mem-device/sanity-checks",
            when=_is_whole,
        ),
        Item("usable_region_size", "u64be"),
        Item("size", "u64be", when=_is_whole),
        Item("requested_size", "u64be"),
        Array("bitmap", "u64be", _bitmap_words, type="bitmap", when=_is_whole),
    ),
)

# -- all ---------------------------------------------------------------------------------

_NSM = Vmsd(
    "virtio-nsm-device",
    (Struct("pcrs", (Item("locked", "bool"), Array("data", "u8", 48)), count=32),),
)
_BLK = Vmsd("virtio-blk-device", (Code("requests", blk_requests),))
_CONSOLE = Vmsd("virtio-serial-device", (Code("ports", serial_ports),))

#: By the name of the section's description.
DEVICES: dict[str, Device] = {
    "virtio-net": Device("net", 1, _NET),
    "virtio-blk": Device("blk", 2, _BLK),
    "vhost-user-blk": Device("blk", 2),
    # All of virtio-serial, whatever its ports are.
    "virtio-console": Device("console", 3, _CONSOLE),
    "virtio-rng": Device("rng", 4),
    "vhost-user-rng": Device("rng", 4),
    "virtio-balloon": Device("balloon", 5, _BALLOON),
    "virtio-scsi": Device("scsi", 8),
    "virtio-vhost_scsi": Device("scsi", 8),
    "virtio-9p": Device("9p", 9),
    "virtio-gpu": Device("gpu", 16),
    "virtio-rtc": Device("rtc", 17),
    "virtio-input": Device("input", 18),
    "vhost-user-input": Device("input", 18),
    "virtio-vhost_vsock": Device("vsock", 19),
    "vhost-user-vsock": Device("vsock", 19),
    "virtio-crypto": Device("crypto", 20),
    "virtio-iommu": Device("iommu", 23, _IOMMU),
    "virtio-mem": Device("mem", 24, _MEM),
    "virtio-sound-device": Device("sound", 25),
    "vhost-user-snd": Device("sound", 25),
    "vhost-user-fs": Device("fs", 26),
    "virtio-pmem": Device("pmem", 27),
    "vhost-user-scmi": Device("scmi", 32),
    "virtio-nsm": Device("nsm", 33, _NSM),
    "vhost-user-i2c": Device("i2c", 34),
    "vhost-user-gpio": Device("gpio", 41),
}

#: Kind by virtio device id, for sections of other names.
PCI_KINDS: dict[int, str] = {device.number: device.kind for device in DEVICES.values()}
