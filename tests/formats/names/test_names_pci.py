"""Words for what stands in PCI configuration space and in handlers' records."""

from __future__ import annotations

import pytest

from cprformats.names import words


@pytest.mark.parametrize(
    ("meaning", "value", "said"),
    [
        ("pci-command", 0x407, ("io", "memory", "bus-master", "intx-disable")),
        ("pci-class", 0x0604, ("PCI bridge",)),
        ("pci-vendor", 0x1AF4, ("Red Hat (virtio)",)),
        ("pci-header-type", 0x81, ("PCI bridge, multi-function",)),
        ("pci-bar", 0xC001, ("I/O", "at 0xc000")),
        ("pci-bar", 0x1_FE00_000C, ("memory", "64-bit", "prefetchable", "at 0x1fe000000")),
        ("pci-rom", 0xFEAC_0001, ("enabled", "at 0xfeac0000")),
        ("pci-bar-offset", 0x2003, ("bar3", "at 0x2000")),
        ("pci-express-flags", 0x142, ("version 2", "root port", "slot")),
        ("pci-capability-next", 0x1402, ("version 2", "next 0x140")),
        ("vfio-tag", 0xFFFF_FFFF_EF10_0004, ("DEV_DATA_STATE",)),
        ("block-flags", 2048 << 9 | 9, ("DEVICE_BLOCK", "ZERO_BLOCK", "sector 0x800")),
        ("bitmap-flags", 0x42, ("ZEROES", "BITS")),
        ("s390-pages-flags", 0x5002, ("DATA", "page 0x5")),
        ("ipv4", 0x0A00_0264, ("10.0.2.100",)),
    ],
)
def test_words(meaning: str, value: int, said: tuple[str, ...]) -> None:
    assert words(meaning, value) == said
