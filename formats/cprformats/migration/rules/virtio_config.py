"""Configuration space of virtio devices, field by field, by kind of device.

::

    config = the fields of the device's structure, as many as its length has room for

The bytes are a copy that QEMU fills when the guest reads or writes the space:
all zero if it never did, and perhaps out of date. Numbers have the byte
order of the device: little-endian if it is modern or always was.

Source: the Linux headers virtio_net.h, virtio_blk.h and so on (QEMU
include/standard-headers/linux), QEMU's get_config functions for the order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cprformats.codecs import codec
from cprformats.fields import Kind
from cprformats.migration.rules.virtio_table import TableReader

__all__ = ["CONFIGS", "Config", "read_config"]

_Field = tuple[str, str] | tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration space of one kind of device.

    Attributes:
        fields: name, codec without byte order (``u16``, ``text[36]``), and
            what the value means; in order, without gaps.
        little: whether it is little-endian for a legacy guest too.
        rest: reads what a table cannot say, at most as many bytes as given.
    """

    fields: tuple[_Field, ...]
    little: bool = False
    rest: Callable[[TableReader, int], None] | None = None


def read_config(tables: TableReader, size: int, *, big_endian: bool) -> None:
    """Read `size` bytes of configuration space into the open group."""
    reader = tables.reader
    end = reader.offset + size
    known = CONFIGS.get(tables.device, Config(()))
    order = "be" if big_endian and not known.little else "le"
    for name, how, *meaning in known.fields:
        if not _one(tables, name, how, order, end, meaning):
            break
    else:
        if known.rest is not None:
            known.rest(tables, end - reader.offset)
    if reader.offset < end:
        left = end - reader.offset
        tables.decoder.notice(f"{left} bytes of configuration space are not known", reader)
        reader.blob("rest", left, kind=Kind.RAW)


def _one(
    tables: TableReader, name: str, how: str, order: str, end: int, meaning: list[str]
) -> bool:
    """Read one field if it is there as a whole."""
    base, _, count = how.partition("[")
    if base == "text":
        size = int(count.rstrip("]"))
        fits = size <= end - tables.reader.offset
        if fits:
            tables.reader.text(name, size)
        return fits
    full = how if base == "u8" else how.replace(base, base + order)
    if (codec(full).size or 0) > end - tables.reader.offset:
        return False
    kind = Kind.PADDING if name.startswith(("unused", "reserved", "padding")) else None
    value = tables.reader.take(name, full, meaning=meaning[0] if meaning else "", kind=kind)
    if isinstance(value, int):
        tables.values[f"config.{name}"] = value
    return True


_INPUT_IDS = (("bustype", "u16"), ("vendor", "u16"), ("product", "u16"), ("version", "u16"))
_INPUT_ABS = (("min", "u32"), ("max", "u32"), ("fuzz", "u32"), ("flat", "u32"), ("res", "u32"))


def _input_union(tables: TableReader, left: int) -> None:
    """The answer to the last question of the guest: `select` says which member it is."""
    reader, end = tables.reader, tables.reader.offset + left
    select = tables.values.get("config.select", 0)
    size = min(tables.values.get("config.size", 0), left)
    with reader.group("u", "virtio_input_config"):
        if select in (1, 2) and size:
            reader.text("string", size)
        elif select in (3, 0x12):
            for name, how in _INPUT_IDS if select == 3 else _INPUT_ABS:
                _one(tables, name, how, "le", end, [])
        elif select in (0x10, 0x11) and size:
            reader.take("bitmap", f"u8[{size}]")
        if reader.offset < end:
            reader.blob("unused", end - reader.offset, kind=Kind.BUFFER)


def _tag(tables: TableReader, left: int) -> None:
    reader = tables.reader
    size = min(tables.values.get("config.tag_len", 0), left)
    reader.text("tag", size)
    if left > size:
        reader.blob("unused", left - size, kind=Kind.BUFFER)


_NET = Config(
    (
        ("mac", "u8[6]"),
        ("status", "u16", "virtio-net-status"),
        ("max_virtqueue_pairs", "u16"),
        ("mtu", "u16"),
        ("speed", "u32"),
        ("duplex", "u8", "virtio-net-duplex"),
        ("rss_max_key_size", "u8"),
        ("rss_max_indirection_table_length", "u16"),
        ("supported_hash_types", "u32", "virtio-net-hash"),
    )
)
_BLK = Config(
    (
        ("capacity", "u64"),
        ("size_max", "u32"),
        ("seg_max", "u32"),
        ("geometry.cylinders", "u16"),
        ("geometry.heads", "u8"),
        ("geometry.sectors", "u8"),
        ("blk_size", "u32"),
        ("physical_block_exp", "u8"),
        ("alignment_offset", "u8"),
        ("min_io_size", "u16"),
        ("opt_io_size", "u32"),
        ("wce", "u8"),
        ("unused", "u8"),
        ("num_queues", "u16"),
        ("max_discard_sectors", "u32"),
        ("max_discard_seg", "u32"),
        ("discard_sector_alignment", "u32"),
        ("max_write_zeroes_sectors", "u32"),
        ("max_write_zeroes_seg", "u32"),
        ("write_zeroes_may_unmap", "u8"),
        ("unused1", "u8[3]"),
        ("max_secure_erase_sectors", "u32"),
        ("max_secure_erase_seg", "u32"),
        ("secure_erase_sector_alignment", "u32"),
        ("zoned.zone_sectors", "u32"),
        ("zoned.max_open_zones", "u32"),
        ("zoned.max_active_zones", "u32"),
        ("zoned.max_append_sectors", "u32"),
        ("zoned.write_granularity", "u32"),
        ("zoned.model", "u8", "virtio-blk-zoned"),
        ("unused2", "u8[3]"),
    )
)
_SCSI = Config(
    (
        ("num_queues", "u32"),
        ("seg_max", "u32"),
        ("max_sectors", "u32"),
        ("cmd_per_lun", "u32"),
        ("event_info_size", "u32"),
        ("sense_size", "u32"),
        ("cdb_size", "u32"),
        ("max_channel", "u16"),
        ("max_target", "u16"),
        ("max_lun", "u32"),
    )
)
_GPU = Config(
    (
        ("events_read", "u32", "virtio-gpu-events"),
        ("events_clear", "u32", "virtio-gpu-events"),
        ("num_scanouts", "u32"),
        ("num_capsets", "u32"),
        ("blob_alignment", "u32"),
    ),
    little=True,
)
_CRYPTO = Config(
    (
        ("status", "u32"),
        ("max_dataqueues", "u32"),
        ("crypto_services", "u32", "virtio-crypto-services"),
        ("cipher_algo_l", "u32"),
        ("cipher_algo_h", "u32"),
        ("hash_algo", "u32"),
        ("mac_algo_l", "u32"),
        ("mac_algo_h", "u32"),
        ("aead_algo", "u32"),
        ("max_cipher_key_len", "u32"),
        ("max_auth_key_len", "u32"),
        ("akcipher_algo", "u32"),
        ("max_size", "u64"),
    ),
    little=True,
)
_IOMMU = Config(
    (
        ("page_size_mask", "u64"),
        ("input_range.start", "u64"),
        ("input_range.end", "u64"),
        ("domain_range.start", "u32"),
        ("domain_range.end", "u32"),
        ("probe_size", "u32"),
        ("bypass", "u8"),
        ("reserved", "u8[3]"),
    ),
    little=True,
)
_MEM = Config(
    (
        ("block_size", "u64"),
        ("node_id", "u16"),
        ("padding", "u8[6]"),
        ("addr", "u64"),
        ("region_size", "u64"),
        ("usable_region_size", "u64"),
        ("plugged_size", "u64"),
        ("requested_size", "u64"),
    ),
    little=True,
)

#: By kind of device; rng, nsm, rtc, i2c and scmi have no configuration space.
CONFIGS: dict[str, Config] = {
    "net": _NET,
    "blk": _BLK,
    "console": Config(
        (("cols", "u16"), ("rows", "u16"), ("max_nr_ports", "u32"), ("emerg_wr", "u32"))
    ),
    "balloon": Config(
        (
            ("num_pages", "u32"),
            ("actual", "u32"),
            ("free_page_hint_cmd_id", "u32"),
            ("poison_val", "u32"),
        ),
        little=True,
    ),
    "scsi": _SCSI,
    "9p": Config((("tag_len", "u16"),), rest=_tag),
    "gpu": _GPU,
    "input": Config(
        (
            ("select", "u8", "virtio-input-select"),
            ("subsel", "u8"),
            ("size", "u8"),
            ("reserved", "u8[5]"),
        ),
        little=True,
        rest=_input_union,
    ),
    "vsock": Config((("guest_cid", "u64"),)),
    "crypto": _CRYPTO,
    "iommu": _IOMMU,
    "mem": _MEM,
    "sound": Config(
        (("jacks", "u32"), ("streams", "u32"), ("chmaps", "u32"), ("controls", "u32")),
        little=True,
    ),
    "fs": Config((("tag", "text[36]"), ("num_request_queues", "u32"))),
    "pmem": Config((("start", "u64"), ("size", "u64"))),
    "gpio": Config((("ngpio", "u16"), ("padding", "u8[2]"), ("gpio_names_size", "u32"))),
}
