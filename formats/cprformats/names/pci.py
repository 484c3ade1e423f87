"""Names of the bits and numbers in PCI configuration space.

Source: PCI Local Bus 3.0, PCI Code and ID Assignment, PCI Express Base 5.0, as in QEMU's
include/standard-headers/linux/pci_regs.h and include/hw/pci/pci_ids.h.
"""

from __future__ import annotations

from dataclasses import dataclass

from cprformats.names import Bits, Enum, Table

__all__ = ["TABLES", "Address", "Express"]


@dataclass(frozen=True, slots=True)
class Address(Enum):
    """An address whose low bits say something else; `values` names those.

    Attributes:
        low: mask of the bits that are not part of the address.
    """

    low: int = 0

    def words(self, value: int, first: int = 0) -> tuple[str, ...]:
        """Give the words of the low bits, then the address."""
        value <<= first
        kind = self.values.get(value & self.low, "")
        return (*((kind,) if kind else ()), f"at {value & ~self.low:#x}")


@dataclass(frozen=True, slots=True)
class Bar(Enum):
    """A base address: I/O or memory, 32 or 64 bits, prefetchable or not."""

    def words(self, value: int, first: int = 0) -> tuple[str, ...]:
        """Give the kind, then the address."""
        value <<= first
        if value & 1:
            return ("I/O", f"at {value & ~3:#x}")
        width = {0: "32-bit", 2: "below 1 MiB", 4: "64-bit"}.get(value & 6, "reserved")
        fetch = ("prefetchable",) if value & 8 else ()
        return ("memory", width, *fetch, f"at {value & ~15:#x}")


@dataclass(frozen=True, slots=True)
class Express(Enum):
    """The flags of the PCI Express capability; `values` names the kinds of port."""

    def words(self, value: int, first: int = 0) -> tuple[str, ...]:
        """Give the version, the kind of port, and whether there is a slot."""
        value <<= first
        slot = ("slot",) if value & 0x100 else ()
        return (f"version {value & 15}", self.values.get(value >> 4 & 15, "unknown"), *slot)


@dataclass(frozen=True, slots=True)
class Link(Enum):
    """Version and next pointer, as they share a word (extended capabilities, DVSEC)."""

    def words(self, value: int, first: int = 0) -> tuple[str, ...]:
        """Give both."""
        value <<= first
        return (f"version {value & 15}", f"{self.name.rpartition('-')[2]} {value >> 4:#x}")


_COMMAND = {
    0: "io",
    1: "memory",
    2: "bus-master",
    3: "special-cycles",
    4: "write-invalidate",
    5: "vga-snoop",
    6: "parity",
    7: "stepping",
    8: "serr",
    9: "fast-back-to-back",
    10: "intx-disable",
}
_STATUS = {
    0: "immediate-readiness",
    3: "interrupt",
    4: "capabilities",
    5: "66-mhz",
    7: "fast-back-to-back",
    8: "master-parity",
    9: "devsel-medium",
    10: "devsel-slow",
    11: "signaled-target-abort",
    12: "received-target-abort",
    13: "received-master-abort",
    14: "signaled-system-error",
    15: "detected-parity",
}
#: Base class and subclass.
_CLASSES = {
    0x0000: "not defined",
    0x00FF: "other",
    0x0100: "SCSI storage",
    0x0101: "IDE storage",
    0x0102: "floppy disk",
    0x0104: "RAID",
    0x0106: "SATA storage",
    0x0107: "SAS storage",
    0x0108: "NVM storage",
    0x0180: "other storage",
    0x0200: "Ethernet",
    0x0280: "other network",
    0x0300: "VGA display",
    0x0302: "3D display",
    0x0380: "other display",
    0x0400: "video",
    0x0401: "audio",
    0x0403: "HD audio",
    0x0480: "other multimedia",
    0x0500: "RAM",
    0x0502: "CXL memory",
    0x0580: "other memory",
    0x0600: "host bridge",
    0x0601: "ISA bridge",
    0x0604: "PCI bridge",
    0x0680: "other bridge",
    0x0700: "serial port",
    0x0701: "parallel port",
    0x0702: "multiport serial",
    0x0780: "other communication",
    0x0800: "interrupt controller",
    0x0801: "DMA controller",
    0x0802: "timer",
    0x0803: "clock",
    0x0805: "SD host",
    0x0806: "IOMMU",
    0x0880: "other system",
    0x0900: "keyboard",
    0x0902: "mouse",
    0x0980: "other input",
    0x0B40: "co-processor",
    0x0C00: "FireWire",
    0x0C03: "USB",
    0x0C05: "SMBus",
    0x0C07: "IPMI",
    0x0D11: "Bluetooth",
    0x1000: "crypto",
    0x1200: "accelerator",
    0xFF00: "undefined",
}
_VENDORS = {
    0x0000: "none",
    0x1000: "LSI Logic",
    0x1002: "AMD (ATI)",
    0x1013: "Cirrus Logic",
    0x1014: "IBM",
    0x1022: "AMD",
    0x1033: "NEC",
    0x104C: "Texas Instruments",
    0x106B: "Apple",
    0x10DE: "NVIDIA",
    0x10EC: "Realtek",
    0x1106: "VIA",
    0x1234: "QEMU (stdvga, edu)",
    0x126F: "Silicon Motion",
    0x1274: "Ensoniq",
    0x15AD: "VMware",
    0x15B3: "Mellanox",
    0x1957: "Freescale",
    0x1AF4: "Red Hat (virtio)",
    0x1B36: "Red Hat",
    0x1E98: "CXL",
    0x5853: "XenSource",
    0x8086: "Intel",
    0xFFFF: "absent",
}
_HEADERS = {0: "device", 1: "PCI bridge", 2: "CardBus bridge"}
_CAPABILITY_IDS = {
    0x01: "power management",
    0x02: "AGP",
    0x03: "vital product data",
    0x04: "slot identification",
    0x05: "MSI",
    0x06: "CompactPCI hot swap",
    0x07: "PCI-X",
    0x08: "HyperTransport",
    0x09: "vendor specific",
    0x0A: "debug port",
    0x0B: "CompactPCI resource control",
    0x0C: "hot-plug",
    0x0D: "subsystem of a bridge",
    0x0E: "AGP 8x",
    0x0F: "secure device",
    0x10: "PCI Express",
    0x11: "MSI-X",
    0x12: "SATA",
    0x13: "advanced features",
    0x14: "enhanced allocation",
}
_EXTENDED_IDS = {
    0x0001: "advanced error reporting",
    0x0002: "virtual channel",
    0x0003: "device serial number",
    0x0004: "power budgeting",
    0x0005: "root complex link",
    0x0008: "multi-function virtual channel",
    0x000B: "vendor specific",
    0x000D: "access control",
    0x000E: "alternative routing ID",
    0x000F: "address translation",
    0x0010: "single root I/O virtualization",
    0x0012: "multicast",
    0x0013: "page request",
    0x0015: "resizable BAR",
    0x0016: "dynamic power allocation",
    0x0017: "TPH requester",
    0x0018: "latency tolerance",
    0x0019: "secondary PCI Express",
    0x001B: "process address space",
    0x001D: "downstream port containment",
    0x001E: "L1 substates",
    0x001F: "precision time",
    0x0023: "designated vendor specific",
    0x0025: "data link feature",
    0x0026: "physical layer 16 GT/s",
    0x002E: "data object exchange",
}
_PORTS = {
    0: "endpoint",
    1: "legacy endpoint",
    4: "root port",
    5: "upstream port",
    6: "downstream port",
    7: "bridge to PCI",
    8: "bridge to PCI Express",
    9: "root complex endpoint",
    10: "root complex event collector",
}
_BRIDGE_CONTROL = {
    0: "parity",
    1: "serr",
    2: "isa",
    3: "vga",
    4: "vga-16-bit",
    5: "master-abort",
    6: "bus-reset",
    7: "fast-back-to-back",
    8: "primary-discard",
    9: "secondary-discard",
    10: "discard-status",
    11: "discard-serr",
}
_MSI_CONTROL = {
    0: "enable",
    1: "capable-0",
    2: "capable-1",
    3: "capable-2",
    4: "enabled-0",
    5: "enabled-1",
    6: "enabled-2",
    7: "64-bit",
    8: "per-vector-mask",
}
_UNCORRECTABLE = {
    4: "data-link",
    5: "surprise-down",
    12: "poisoned-tlp",
    13: "flow-control",
    14: "completion-timeout",
    15: "completer-abort",
    16: "unexpected-completion",
    17: "receiver-overflow",
    18: "malformed-tlp",
    19: "ecrc",
    20: "unsupported-request",
    21: "acs-violation",
    22: "internal",
    23: "multicast-blocked",
    24: "atomic-blocked",
    25: "tlp-prefix-blocked",
}
_CORRECTABLE = {
    0: "receiver",
    6: "bad-tlp",
    7: "bad-dllp",
    8: "replay-rollover",
    12: "replay-timeout",
    13: "advisory-non-fatal",
    14: "internal",
    15: "header-log-overflow",
}
_ACS = {
    0: "source-validation",
    1: "translation-blocking",
    2: "request-redirect",
    3: "completion-redirect",
    4: "upstream-forwarding",
    5: "egress-control",
    6: "direct-translated",
}

TABLES: tuple[Table, ...] = (
    Bits("pci-command", _COMMAND),
    Bits("pci-status", _STATUS),
    Enum("pci-class", _CLASSES),
    Enum("pci-vendor", _VENDORS),
    Enum(
        "pci-header-type",
        _HEADERS | {kind | 0x80: f"{word}, multi-function" for kind, word in _HEADERS.items()},
    ),
    Enum("pci-pin", {0: "none", 1: "INTA", 2: "INTB", 3: "INTC", 4: "INTD"}),
    Bar("pci-bar", {}),
    Address("pci-rom", {0: "disabled", 1: "enabled"}, low=0x7FF),
    Address("pci-bar-offset", {index: f"bar{index}" for index in range(6)}, low=7),
    Bits("pci-bridge-control", _BRIDGE_CONTROL),
    Enum("pci-capability", _CAPABILITY_IDS),
    Enum("pci-extended-capability", _EXTENDED_IDS),
    Link("pci-capability-next", {}),
    Link("pci-dvsec-length", {}),
    Bits(
        "pci-pm-control",
        {0: "state-0", 1: "state-1", 3: "no-soft-reset", 8: "pme", 15: "pme-status"},
    ),
    Bits("pci-msi-control", _MSI_CONTROL),
    Bits("pci-msix-control", {14: "mask-all", 15: "enable"} | {n: f"size-{n}" for n in range(11)}),
    Bits("msix-vector-control", {0: "masked"}),
    Express("pci-express-flags", _PORTS),
    Enum(
        "pci-virtio-cfg",
        {
            1: "common",
            2: "notify",
            3: "isr",
            4: "device",
            5: "pci",
            8: "shared memory",
            9: "vendor",
        },
    ),
    Bits("pci-aer-uncorrectable", _UNCORRECTABLE),
    Bits("pci-aer-correctable", _CORRECTABLE),
    Bits("pci-acs", _ACS),
    Bits("pci-ats-control", {15: "enable"}),
    Bits("pci-pasid-control", {0: "enable", 1: "execute", 2: "privileged"}),
    Bits(
        "pci-sriov-control",
        {0: "vf-enable", 1: "migration", 2: "migration-interrupt", 3: "vf-memory", 4: "ari"},
    ),
)
