"""Names of migration priorities: the numbers moved, what known devices have did not.

MigrationPriority got new members in front and in the middle, and releases get
changes backported, so a version string proves nothing. What decides are devices
whose priority is known by name: the numbers of the enumerations with which all of
them agree have names, where these enumerations say the same.

Source: QEMU include/migration/vmstate.h (enum MigrationPriority), releases 2.9 to
11.1; the descriptions of the devices in hw/.
"""

from __future__ import annotations

from typing import Final

from cprformats.schema.model import Description, Schema

__all__ = ["priority_names"]

_OLD: Final = ("DEFAULT", "IOMMU")
_NEW: Final = ("UNINITIALIZED", "LOW", "DEFAULT", "IOMMU", "PCI_BUS", "VIRTIO_MEM")
#: The enumerations, by the release that began them; a member's place is its number.
_ENUMERATIONS: Final = {
    "2.9": _OLD,
    "2.10": (*_OLD, "GICV3_ITS", "GICV3"),
    "2.12": (*_OLD, "PCI_BUS", "GICV3_ITS", "GICV3"),
    "6.1": (*_OLD, "PCI_BUS", "VIRTIO_MEM", "GICV3_ITS", "GICV3"),
    "10.1": (*_NEW, "GICV3_ITS", "GICV3"),
    "10.2": (*_NEW, "APIC", "GICV3_ITS", "GICV3"),
}
#: Descriptions that have had the same priority, by name, since they have had one.
_KNOWN: Final = {
    "amd-iommu": "IOMMU",
    "apic": "APIC",
    "arm_gicv3": "GICV3",
    "arm_gicv3_its": "GICV3_ITS",
    "i82801b11_bridge": "PCI_BUS",
    "ioh-3240-express-root-port": "PCI_BUS",
    "iommu-intel": "IOMMU",
    "pci_bridge": "PCI_BUS",
    "pcie-pci-bridge": "PCI_BUS",
    "pcie-root-port": "PCI_BUS",
    "smmuv3": "IOMMU",
    "vfio-container": "LOW",
    "virtio-iommu": "IOMMU",
    "virtio-mem-device": "VIRTIO_MEM",
    "xio3130-express-downstream-port": "PCI_BUS",
    "xio3130-express-upstream-port": "PCI_BUS",
}


def priority_names(schema: Schema) -> dict[int, str]:
    """Names of the priorities that a schema's descriptions have, where they are sure.

    Returns:
        Names without ``MIG_PRI_``, by number. Empty where no known device has a
        priority, or where known ones fit no enumeration.
    """
    used = [one for one in schema.descriptions.values() if one.priority]
    known = [one for one in used if one.name in _KNOWN]
    fitting = [names for names in _ENUMERATIONS.values() if all(_fits(one, names) for one in known)]
    if not known:
        return {}
    result = {}
    for number in sorted({one.priority for one in used}):
        names = {_name(number, names) for names in fitting}
        if len(names) == 1 and "" not in names:
            result[number] = names.pop()
    return result


def _name(number: int, names: tuple[str, ...]) -> str:
    return names[number] if number < len(names) else ""


def _fits(one: Description, names: tuple[str, ...]) -> bool:
    return _name(one.priority, names) == _KNOWN[one.name]
