"""Memory that was plugged in beside the main memory, and memory of PCI devices.

DIMMs and virtio-mem lie in an area of their own behind RAM. The stream has a
DIMM's place only under x-ignore-shared, as an offset in that area; that of
virtio-mem is always there, with a bitmap of what is plugged.

A PCI device shows its block at the address in a BAR, if the guest turned
memory on. Only the root bus is looked at: addresses behind a bridge pass
through its windows.

Source: QEMU hw/mem/memory-device.c (memory_device_plug), hw/virtio/virtio-mem.c
(vmstate_virtio_mem_device), hw/pci/pci.c (pci_bar_address), hw/display/vga-pci.c,
cirrus_vga.c, qxl.c, vmware_vga.c, virtio-vga.c, bochs-display.c, hw/misc/ivshmem.c, 5.2 to 11.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cprformats.fields import Field
from cprformats.guest.mainram import MainRam, is_memory
from cprformats.guest.ranges import PhysicalRange, joined, overlap
from cprformats.guest.sections import body_of, device_config, walk
from cprformats.migration.ramparts import RamBlock
from cprformats.migration.stream import MigrationStream

__all__ = ["left_out", "pci_memory", "plugged_memory"]

_ROOT_BUS = re.compile(r"(0000:00:[0-9a-f]{2}\.[0-7])/(.+)")
#: (vmsd of the device, end of the block's name) -> BARs; the first that the device has.
_BARS = (
    (r"vga|virtio-gpu|virtio-vga|cirrus_vga|qxl", r"vga\.vram|qxl\.vgavram", (0,)),
    (r"bochs-display", r"bochs-display-vram", (0,)),
    (r"vmware_vga", r"vga\.vram", (1,)),
    (r"qxl", r"qxl\.vrom", (2,)),
    (r"qxl", r"qxl\.vram", (4, 1)),
    (r"ivshmem.*", r"[^.]*", (2,)),
)
_ROM_BAR = 0x30


def pci_memory(stream: MigrationStream) -> tuple[PhysicalRange, ...]:
    """Give the blocks of PCI devices on the root bus that the guest can see."""
    found: list[PhysicalRange] = []
    for name, block in stream.ram.blocks.items():
        match = _ROOT_BUS.fullmatch(name)
        device = device_config(stream, match[1]) if match else None
        if match is None or device is None:
            continue
        address = _bar_address(device[1], _bar_offset(*device, match[2]), block.used_length)
        if address is not None:
            found.append(PhysicalRange(address, block.used_length, name, 0, "device"))
    found.sort(key=lambda one: one.start)
    return tuple(found) if overlap(found) is None else ()


def _bar_offset(vmsd: str, config: bytes, block: str) -> int | None:
    """Give the place of a block's BAR in the configuration space."""
    if block.endswith(".rom"):
        return _ROM_BAR
    for device, name, bars in _BARS:
        if re.fullmatch(device, vmsd) and re.fullmatch(name, block):
            offsets = (0x10 + 4 * bar for bar in bars)
            return next((at for at in offsets if any(config[at : at + 4])), None)
    return None


def _bar_address(config: bytes, offset: int | None, size: int) -> int | None:
    """Read the address in a BAR; None if the device does not answer there."""
    if offset is None or not config[4] & 2:
        return None
    value = int.from_bytes(config[offset : offset + 4], "little")
    wide = offset != _ROM_BAR and value & 6 == 4
    if value & 1 != (offset == _ROM_BAR):
        return None
    if wide:
        value |= int.from_bytes(config[offset + 4 : offset + 8], "little") << 32
    address = value & ~(0x7FF if offset == _ROM_BAR else 0xF)
    limit = (1 << 64) - 1 if wide else (1 << 32) - 1
    return address if address and address + size - 1 < limit else None


def plugged_memory(
    stream: MigrationStream, main: MainRam, base: int
) -> tuple[tuple[PhysicalRange, ...], tuple[str, ...]]:
    """Give DIMMs and virtio-mem, and notes of what has no place.

    Args:
        stream: what has the blocks.
        main: the main memory, which is none of these.
        base: address of the area of plugged memory.
    """
    others = [one for name, one in stream.ram.blocks.items() if name not in main.names]
    dimms = [one for one in others if is_memory(one.idstr) or _is_dimm(one.idstr)]
    ranges = [_dimm(one, base) for one in dimms if one.address is not None]
    ranges += _virtio_mem(stream)
    ranges.sort(key=lambda one: one.start)
    if clash := overlap(ranges):
        names = f"{clash[0].block} and {clash[1].block}"
        return (), (f"left out: {names} seem to lie at the same address",)
    return tuple(ranges), ()


def _is_dimm(name: str) -> bool:
    return re.fullmatch(r"(/objects/)?mem(dimm|nvdimm)\d+", name) is not None


def _dimm(block: RamBlock, base: int) -> PhysicalRange:
    assert block.address is not None
    return PhysicalRange(base + block.address, block.used_length, block.idstr, 0, "hotplug")


def _virtio_mem(stream: MigrationStream) -> Iterator[PhysicalRange]:
    for section in stream.sections():
        path, _, name = section.idstr.rpartition("/")
        if name not in ("virtio-mem-device-early", "virtio-mem"):
            continue
        blocks = [one for one in stream.ram.blocks.values() if _belongs(one.idstr, path)]
        body = body_of(stream, section)
        if len(blocks) == 1 and body is not None:
            yield from joined(tuple(_plugged(body, blocks[0])))


def _belongs(name: str, path: str) -> bool:
    return name.startswith(f"{path}/") and not name.endswith(".rom")


def _plugged(body: Field, block: RamBlock) -> Iterator[PhysicalRange]:
    """Walk the bitmap: one bit for each block of the device's own block size.

    Since 8.0 it is in a section of its own, before RAM.
    """
    checks = next((one for one in walk(body) if one.get("addr") and one.get("node")), None)
    bitmap = next(
        (one for one in walk(body) if one.name in ("words", "bitmap") and one.codec), None
    )
    words = bitmap.value if bitmap else None
    address, step = (_number(checks, name) for name in ("addr", "block_size"))
    if not step or not isinstance(words, tuple):
        return
    for index in range(min(block.used_length // step, 64 * len(words))):
        word = words[index >> 6]
        if isinstance(word, int) and word >> (index & 63) & 1:
            yield PhysicalRange(address + index * step, step, block.idstr, index * step, "hotplug")


def _number(group: Field | None, name: str) -> int:
    """Give a number in a group, 0 if there is none."""
    field = group.get(name) if group else None
    return field.value if field and isinstance(field.value, int) else 0


def left_out(stream: MigrationStream, ranges: tuple[PhysicalRange, ...]) -> tuple[str, ...]:
    """Note the blocks that no range shows; those of fw_cfg files never have an address."""
    shown = {one.block for one in ranges}
    names = [name for name in stream.ram.blocks if name not in shown]
    names = [name for name in names if not name.startswith("/rom@")]
    return (f"shown at no address: {', '.join(names)}",) if names else ()
