"""What properties of devices change in their state.

Source: QEMU hw/virtio/virtio-pci.c, virtio-blk-pci.c, virtio-scsi-pci.c, virtio-net.c,
hw/display/vga-pci.c, qxl.c, bochs-display.c (properties of 5.2 to 11.1).
"""

from __future__ import annotations

import re
from dataclasses import replace

from cprtools.check.static_facts import Known
from cprtools.check.static_pci import Shape
from cprtools.check.static_plan import Device, Plan, size_of

__all__ = ["FEATURES", "HARMLESS", "adjust", "block_sizes", "only_ids"]

#: These say where a device is, or what is behind it.
HARMLESS = frozenset(
    [
        "driver",
        "id",
        "bus",
        "addr",
        "netdev",
        "drive",
        "chardev",
        "audiodev",
        "mac",
        "romfile",
        "serial",
        "bootindex",
        "channel",
        "scsi-id",
        "lun",
        "port",
        "chassis",
        "slot",
        "chassis_nr",
        "bus_nr",
        "masterbus",
        "firstport",
        "memdev",
        "bmc",
        "name",
        "guid",
        "iothread",
        "discard",
        "write-cache",
        "logical_block_size",
        "physical_block_size",
        "config-wce",
        "rerror",
        "werror",
        "share-rw",
        "cryptodev",
        "edid",
        "hostname",
        "iobase",
        "tx",
        "bootfile",
        "romsize",
        "multifunction",
        "intremap",
    ]
)
_COMMON = {
    "indirect_desc": 28, "event_idx": 29, "iommu_platform": 33, "packed": 34, "queue_reset": 40,
    "in_order": 35, "notify_on_empty": 24, "any_layout": 27,
}  # fmt: skip
#: Feature bits by the property that offers them.
FEATURES = {
    "net": _COMMON | {
        "csum": 0, "guest_csum": 1, "ctrl_guest_offloads": 2, "host_mtu": 3, "gso": 6,
        "guest_tso4": 7,
        "guest_tso6": 8, "guest_ecn": 9, "guest_ufo": 10, "host_tso4": 11, "host_tso6": 12,
        "host_ecn": 13, "host_ufo": 14, "mrg_rxbuf": 15, "status": 16, "ctrl_vq": 17, "ctrl_rx": 18,
        "ctrl_vlan": 19, "ctrl_rx_extra": 20, "guest_announce": 21, "mq": 22, "ctrl_mac_addr": 23,
        "guest_uso4": 54, "guest_uso6": 55, "host_uso": 56, "hash": 57, "rss": 60,
        "guest_rsc_ext": 61,
    },
    "blk": _COMMON | {"config-wce": 11, "discard": 13, "write-zeroes": 14},
    "scsi": _COMMON | {"hotplug": 1, "param_change": 2},
    "balloon": _COMMON | {
        "deflate-on-oom": 2, "free-page-hint": 3, "page-poison": 4, "free-page-reporting": 5,
    },
    "gpu": _COMMON | {"edid": 1},
}  # fmt: skip
_NUMBERS = {
    "net": 1,
    "blk": 2,
    "serial": 3,
    "rng": 4,
    "balloon": 5,
    "scsi": 8,
    "gpu": 16,
    "input": 18,
}
_TRANSITIONAL = {"net": 1, "blk": 2, "balloon": 3, "serial": 4, "scsi": 5, "rng": 6}
#: Such properties of virtio devices are taken into account.
_SHAPING = frozenset(
    [
        "vectors",
        "num-queues",
        "num_queues",
        "mq",
        "disable-legacy",
        "disable-modern",
        "vgamem_mb",
        "vgamem",
        "ram_size",
        "vram_size",
        "rx_queue_size",
        "tx_queue_size",
        "queue-size",
    ]
)
_MOST_VECTORS = 64
_MSIX_DIGITS = 24
_HEADER, _EXTENDED = 0x40, 0x100
_NUMBERED = re.compile(r"-(\d+)\.(\d+)")


def kind_of(model: str) -> str:
    """Give what a virtio device is, "" for others."""
    if not model.startswith("virtio-"):
        return ""
    kind = model.split("-")[1]
    return "input" if kind in ("keyboard", "mouse", "tablet") else "gpu" if kind == "vga" else kind


def adjust(
    device: Device, known: Known | None, plan: Plan, machine: str
) -> tuple[Known | None, list[str]]:
    """Fit what is known of a device to its properties; give it, and what was not taken in.

    Without a shape nothing of configuration space can be compared.
    """
    kind = kind_of(device.model)
    bits = FEATURES.get(kind, _COMMON if kind else {})
    left = [one for one in device.values if one not in HARMLESS | _SHAPING and one not in bits]
    if known is None:
        return None, left
    if device.values.get("multifunction") in ("on", "true") and 14 in known.shape:
        header = f"{int(known.shape[14], 16) | 0x80:02x}"
        known = replace(known, shape=known.shape | {14: header})
    features = known.features
    if features is not None:
        for name, bit in bits.items():
            if name in device.values:
                on = device.values[name] not in ("off", "0", "false", "no")
                features = features | 1 << bit if on else features & ~(1 << bit)
    if not kind:
        shape = only_ids(known.shape) if left else _own(known.shape)
        return replace(known, shape=shape), left
    shape = dict(known.shape)
    _legacy(device, shape, kind)
    queues = _queue_count(device, plan, kind, machine)
    if features is not None and kind == "blk" and queues > 1:
        features |= 1 << 12
    if not _vectors(device, queues, shape, kind):
        left.append("vectors")
    known = replace(known, queues=_queue_sizes(device, known.queues))
    if device.values.get("disable-modern") in ("on", "true"):
        left.append("disable-modern")
    if left:
        shape = only_ids(shape)
    return replace(known, shape=shape, features=features), left


def only_ids(shape: Shape) -> Shape:
    """Leave only what says which device it is."""
    return {at: shape[at] for at in (0, 8, 14) if at in shape}


def _legacy(device: Device, shape: Shape, kind: str) -> None:
    """Make a transitional device a modern one where legacy is off."""
    if device.values.get("disable-legacy") not in ("on", "true"):
        number = _TRANSITIONAL.get(kind)
        if device.values.get("disable-legacy") in ("off", "false") and device.port and number:
            shape.clear()
            shape[0] = "f41a" + (0x1000 + number - 1).to_bytes(2, "little").hex()
        return
    number = _NUMBERS.get(kind)
    if number is None:
        shape.clear()
        return
    shape[0] = "f41a" + (0x1040 + number).to_bytes(2, "little").hex()
    shape[8] = "01" + shape[8][2:]
    shape[0x2C] = "f41a0011"
    shape[0x10] = "00"


def _queue_count(device: Device, plan: Plan, kind: str, machine: str) -> int:
    """Request queues of a disk controller: since 5.2 as many as CPUs."""
    given = device.values.get("num-queues") or device.values.get("num_queues")
    if given is not None and given.isdigit():
        return int(given)
    found = _NUMBERED.search(machine)
    automatic = found is None or (int(found[1]), int(found[2])) >= (5, 2)
    return plan.cpus if kind in ("blk", "scsi") and automatic else 1


def _queue_sizes(device: Device, sizes: tuple[int, ...]) -> tuple[int, ...]:
    values = device.values
    if size := values.get("queue-size", values.get("virtqueue_size")):
        return tuple(size_of(size) for _ in sizes) if "blk" in device.model else ()
    both = (values.get("rx_queue_size"), values.get("tx_queue_size"))
    if any(both) and len(sizes) > 1:
        pair = tuple(size_of(new) if new else old for new, old in zip(both, sizes, strict=False))
        return pair + sizes[2:]
    return sizes


def _vectors(device: Device, queues: int, shape: Shape, kind: str) -> bool:
    """Set the number of MSI-X vectors; say whether it is known."""
    values, number = device.values, None
    if "vectors" in values:
        number = size_of(values["vectors"])
    elif kind in ("blk", "scsi"):
        number = queues + (1 if kind == "blk" else 3)
    elif kind == "net" and values.get("mq") == "on":
        return False
    if number is None:
        return True
    found = [one for one, text in shape.items() if len(text) == _MSIX_DIGITS and text[:2] == "11"]
    if not 1 <= number <= _MOST_VECTORS or not found:
        return False
    at = found[0]
    shape[at] = shape[at][:4] + (number - 1).to_bytes(2, "little").hex() + shape[at][8:]
    return True


def _own(shape: Shape) -> Shape:
    """Leave out what PCI Express capabilities say: ports, slots and links go by the place."""
    express = [
        at for at, text in shape.items() if at >= _HEADER and text[:2] == "10" and len(text) == 16
    ]
    hidden = {at + more for at in express for more in (0, 12, 20)}
    return {at: text for at, text in shape.items() if at not in hidden and at < _EXTENDED}


def block_sizes(device: Device) -> dict[str, int | None]:
    """Give the sizes of a device's RAM blocks that its properties set."""
    values, sizes = device.values, dict[str, int | None]()
    if "vgamem_mb" in values and "qxl" not in device.model:
        sizes["vga.vram"] = size_of(values["vgamem_mb"], "m")
    if "vgamem" in values:
        sizes["bochs-display-vram"] = size_of(values["vgamem"])
    if "qxl" in device.model:
        shown = max(size_of(values.get("vgamem_mb", "16"), "m"), 8 << 20)
        sizes["vga.vram"] = max(size_of(values.get("ram_size", "64M")), 2 * shown)
        sizes |= {"qxl.vram": size_of(values["vram_size"])} if "vram_size" in values else {}
    return sizes
