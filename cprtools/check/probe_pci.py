"""What of PCI configuration space must be the same on both sides.

A loader compares the bits that are checked, not writable and not cleared by
writing (hw/pci/pci.c: get_pci_config_device). Which these are is not in a
state, so they are told from the layout of the target's own configuration space:

- of the header those that pci_init_cmask and pci_init_mask_bridge name;
- of a base address the bits below its size (pci_register_bar);
- of a capability all, but for its registers that a guest can write
  (pci_add_capability, pcie_add_capability, hw/pci/msi.c, msix.c, pcie.c, shpc.c).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from cprformats.fields import Field

__all__ = ["Bars", "Path", "bars_of", "check_mask", "path_of"]

#: Slots and functions from the root bus on: of each bridge, and of the device.
Path = tuple[int, ...]
#: Sizes of base addresses in bytes, by number; 6 is the ROM's.
Bars = Mapping[int, int]

_HEADER: Final = {0: 0xFF, 1: 0xFF, 2: 0xFF, 3: 0xFF, 6: 0x10, 8: 0xFF, 9: 0xFF, 10: 0xFF}
_HEADER_MORE: Final = {11: 0xFF, 14: 0xFF, 0x34: 0xFF}
_BRIDGE: Final = {0x1C: 0x0F, 0x1D: 0x0F, 0x24: 0x0F, 0x26: 0x0F}
#: Registers that are written, or that QEMU does not check; by capability, with the bits that
#: are checked all the same.
_WRITTEN: Final[Mapping[str, Mapping[str, int]]] = {
    "power_management": {"control_status": 0},
    "msi": {"control": 0xFF8E, "address": 0, "data": 0, "mask": 0, "pending": 0},
    "msix": {"control": 0x3FFF},
    "express": dict.fromkeys(
        [
            "device_control",
            "device_status",
            "link_control",
            "link_status",
            "slot_control",
            "slot_status",
            "root_control",
            "root_status",
            "device_control2",
            "device_status2",
            "link_control2",
            "link_status2",
            "slot_control2",
            "slot_status2",
        ],
        0,
    ),
    "hot_plug": {"dword_select": 0, "pending": 0, "data": 0},
    "slot_id": {"chassis": 0},
    "acs": {"control": 0},
    "ari": {"control": 0},
    "ats": {"control": 0},
    "pasid": {"control": 0},
    "page_request": {"control": 0, "status": 0, "outstanding_allocation": 0},
    "sr_iov": dict.fromkeys(
        ["control", "status", "num_vfs", "system_page_size", "vf_bars", "migration_state_array"], 0
    ),
    "dpc": {"control": 0, "status": 0, "error_source": 0},
    "data_object_exchange": {"control": 0, "status": 0, "write_mailbox": 0, "read_mailbox": 0},
}
#: Capabilities of which only the head is sure.
_HEADS_ONLY: Final = frozenset(("aer", "virtual_channel", "vendor_specific", "agp", "pci_x"))
_CONFIG_ACCESS: Final = 5
_HEAD_NAMES: Final = frozenset(("id", "next", "version_next"))


def check_mask(config: Field, own: bytes, bars: Bars) -> bytearray:
    """Give the bits of configuration space that are compared.

    Args:
        config: the target's own configuration space, decoded.
        own: its bytes.
        bars: of the device.
    """
    mask = bytearray(len(own))
    bridge = own[14] & 0x7F == 1
    for at, bits in {**_HEADER, **_HEADER_MORE, **(_BRIDGE if bridge else {})}.items():
        mask[at] = bits
    for number, size in bars.items():
        _bar(mask, own, number, size, bridge=bridge)
    for group in config.children:
        if group.children:
            _capability(mask, group, config.offset)
    return mask


def _bar(mask: bytearray, own: bytes, number: int, size: int, *, bridge: bool) -> None:
    rom = number == 6  # PCI_ROM_SLOT
    at = (0x38 if bridge else 0x30) if rom else 0x10 + 4 * number
    wide = not rom and own[at] & 0x7 == 0x4  # a 64-bit memory address
    below = size - 1
    if rom:
        below &= ~1  # the enable bit is written
    length = 8 if wide else 4
    mask[at : at + length] = (below & ((1 << 8 * length) - 1)).to_bytes(length, "little")


def _capability(mask: bytearray, group: Field, base: int) -> None:
    name = group.name.partition("[")[0]
    written = dict(_WRITTEN.get(name, {}))
    leaves = list(group.children)
    if name == "virtio" and any(
        one.name == "cfg_type" and one.value == _CONFIG_ACCESS for one in leaves
    ):
        written = {"bar": 0, "offset": 0, "length": 0, "pci_cfg_data": 0}
    for place, leaf in enumerate(leaves):
        head = place < 2 and leaf.name in _HEAD_NAMES  # id, next
        bits = (1 << 8 * leaf.size) - 1
        if name in _HEADS_ONLY and not head:
            bits = 0
        elif not head:
            bits = written.get(leaf.name, bits)
        at = leaf.offset - base
        mask[at : at + leaf.size] = bits.to_bytes(leaf.size, "little")


def path_of(idstr: str) -> Path | None:
    """Give the path of a PCI device from its section's idstr; None if it has none.

    Source: hw/pci/pci.c (pcibus_get_dev_path): ``0000:00:04.0:02.0``.
    """
    address = idstr.partition("/")[0].split(":")
    if len(address) < 3 or len(address[0]) != 4:  # domain, bus, slots
        return None
    try:
        domain, bus = int(address[0], 16), int(address[1], 16)
        slots = [(int(one[:2], 16) << 3) | int(one[3:], 16) for one in address[2:]]
    except ValueError:
        return None
    return (bus, *slots) if not domain else None


def bars_of(answer: object) -> dict[Path, Bars]:
    """Read QMP query-pci: base addresses by path."""
    found: dict[Path, Bars] = {}
    for bus in answer if isinstance(answer, list) else ():
        if isinstance(bus, dict) and isinstance(bus.get("bus"), int):
            found.update(_devices((int(bus["bus"]),), bus.get("devices"), 0))
    return found


def _devices(above: Path, listed: object, depth: int) -> Iterator[tuple[Path, Bars]]:
    if not isinstance(listed, list) or depth > 8:  # real ones are flat
        return
    for one in listed:
        if not isinstance(one, dict):
            continue
        slot, function = one.get("slot"), one.get("function")
        if not isinstance(slot, int) or not isinstance(function, int):
            continue
        path = (*above, slot << 3 | function)
        yield path, dict(_regions(one.get("regions")))
        bridge = one.get("pci_bridge")
        if isinstance(bridge, dict):
            yield from _devices(path, bridge.get("devices"), depth + 1)


def _regions(listed: object) -> Iterator[tuple[int, int]]:
    for one in listed if isinstance(listed, list) else ():
        number, size = one.get("bar"), one.get("size")
        if isinstance(number, int) and isinstance(size, int) and 0 <= number <= 6:
            yield number, size
