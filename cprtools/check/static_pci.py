"""The parts of a PCI device's configuration space that a guest can't change.

A target compares these with its own device's and refuses others. Two
devices of one model, made with the same properties, have them alike.

Source: QEMU hw/pci/pci.c (get_pci_config_device, pci_init_cmask, pci_init_wmask),
hw/pci/pcie.c, msi.c, msix.c and hw/virtio/virtio-pci.c (which add capabilities).
"""

from __future__ import annotations

from collections.abc import Iterator

from cprformats.fields import Field
from cprformats.source import Source

__all__ = ["Shape", "capabilities_of", "config_of", "equal_values", "shape_of", "vectors_at"]

#: Hexadecimal bytes that must be equal, by their offset.
Shape = dict[int, str]

_MSI, _VENDOR, _EXPRESS, _MSIX, _PM = 5, 9, 0x10, 0x11, 1
#: Bytes of a capability that can't be changed, by its id: offset in it, and how many.
_FIXED = {_PM: ((0, 4),), _MSI: ((0, 3),), _EXPRESS: ((0, 8), (12, 4), (20, 4)), _MSIX: ((0, 12),)}
_VIRTIO_CFG_ACCESS = 5
_BARS = 6
_MOST_EQUAL = 1000
_BRIDGE_BARS = 2


def config_of(tree: Field, source: Source) -> tuple[int, bytes]:
    """Give where the configuration space of a decoded section lies, and its bytes; or none."""
    waiting = [tree]
    while waiting:
        one = waiting.pop(0)
        if one.type == "pci config":
            return one.offset, source.read_at(one.offset, one.size)
        waiting.extend(child for child in one.children if child.children)
    return 0, b""


def equal_values(tree: Field) -> dict[str, str]:
    """Give the fields of a decoded section that must be equal on both sides, by their path."""
    found: dict[str, str] = {}
    waiting = [("", tree)]
    while waiting:
        path, one = waiting.pop(0)
        for child in one.children:
            name = f"{path}.{child.name}" if path else child.name
            if child.type.endswith(" equal"):
                found[name] = str(child.value)
            if child.children and len(found) < _MOST_EQUAL:
                waiting.append((name, child))
    return found


def shape_of(config: bytes) -> Shape:
    """Give the unchangeable parts of a configuration space."""
    return {at: config[at : at + size].hex() for at, size in _places(config)} | _flags(config)


def vectors_at(config: bytes) -> int | None:
    """Give the offset of the number of MSI-X vectors, None without MSI-X."""
    return next((at + 2 for at, kind in capabilities_of(config) if kind == _MSIX), None)


def _places(config: bytes) -> Iterator[tuple[int, int]]:
    yield from ((0, 4), (8, 4), (14, 1), (0x34, 1), (0x3D, 1))
    if config[14] & 0x7F == 0:
        yield 0x2C, 4
    for at, kind in capabilities_of(config):
        if kind == _VENDOR:
            size = min(max(config[at + 2], 4), 20)
            yield at, 4 if config[at + 3] == _VIRTIO_CFG_ACCESS else size
            continue
        for start, size in _FIXED.get(kind, ((0, 2),)):
            if at + start + size <= len(config):
                yield at + start, size
    if len(config) > 0x104:
        yield from ((at, 4) for at in _extended(config))


def _flags(config: bytes) -> Shape:
    """Low bits of the BARs, and the status bit for capabilities; control bits of MSI-X are off."""
    count = _BRIDGE_BARS if config[14] & 0x7F == 1 else _BARS
    found = {6: f"{config[6] & 0x10:02x}"}
    high = False
    for at in range(0x10, 0x10 + 4 * count, 4):
        if not high:
            found[at] = f"{config[at] & (3 if config[at] & 1 else 15):02x}"
        high = not high and config[at] & 7 == 4
    place = vectors_at(config)
    if place is not None:
        fixed = bytearray(config[place - 2 : place + 10])
        fixed[3] &= 0x07
        found[place - 2] = fixed.hex()
    return found


def capabilities_of(config: bytes) -> Iterator[tuple[int, int]]:
    """Give offset and id of each capability; of a loop, once round."""
    seen: set[int] = set()
    at = config[0x34] if config[6] & 0x10 else 0
    while 0x40 <= at < 0xFD and at not in seen:
        seen.add(at)
        yield at, config[at]
        at = config[at + 1]


def _extended(config: bytes) -> Iterator[int]:
    seen: set[int] = set()
    at = 0x100
    while 0x100 <= at <= len(config) - 4 and at not in seen:
        seen.add(at)
        head = int.from_bytes(config[at : at + 4], "little")
        yield at
        at = head >> 20
