"""Registers of PCI configuration space: header types 0 and 1 and the capabilities.

Each capability is its ID, its name, and its registers in order behind the two
bytes (four, if extended) that every capability begins with. Where the length
depends on the registers themselves, a function gives the list.

Source: PCI Local Bus 3.0, PCI Express Base 5.0, as QEMU lays them out in
include/standard-headers/linux/pci_regs.h and linux/virtio_pci.h (10.0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["BRIDGE", "CAPABILITIES", "COMMON", "DEVICE", "EXTENDED", "Capability", "Register"]


@dataclass(frozen=True, slots=True)
class Register:
    """One register.

    Attributes:
        name: after the specification.
        codec: how it lies in the bytes; always little-endian.
        meaning: table of words for the value, if any.
        type: shown type, if it says more than the codec.
    """

    name: str
    codec: str
    meaning: str = ""
    type: str = ""


@dataclass(frozen=True, slots=True)
class Capability:
    """One kind of capability.

    Attributes:
        name: short name, also of the group of its registers.
        registers: those behind the capability's head, from its bytes (head
            included, cut at the end of configuration space).
    """

    name: str
    registers: Callable[[bytes], tuple[Register, ...]]


def _registers(text: str) -> tuple[Register, ...]:
    """Make registers of ``name:codec[:meaning]`` words."""
    made = []
    for word in text.split():
        name, codec, *meaning = word.split(":")
        made.append(Register(name, codec, meaning[0] if meaning else ""))
    return tuple(made)


def _fixed(name: str, text: str) -> Capability:
    registers = _registers(text)
    return Capability(name, lambda _: registers)


def _u16(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 2], "little")


#: Offset 0: the same in every header.
COMMON = _registers(
    "vendor_id:u16le:pci-vendor device_id:u16le command:u16le:pci-command "
    "status:u16le:pci-status revision_id:u8 prog_if:u8 class:u16le:pci-class "
    "cache_line_size:u8 latency_timer:u8 header_type:u8:pci-header-type bist:u8"
)
#: Offset 0x28, behind six base addresses.
DEVICE = _registers(
    "cardbus_cis:u32le subsystem_vendor_id:u16le:pci-vendor subsystem_id:u16le "
    "rom_address:u32le:pci-rom capabilities_pointer:u8 reserved:u8[7] "
    "interrupt_line:u8 interrupt_pin:u8:pci-pin min_grant:u8 max_latency:u8"
)
#: Offset 0x18, behind two base addresses.
BRIDGE = _registers(
    "primary_bus:u8 secondary_bus:u8 subordinate_bus:u8 secondary_latency_timer:u8 "
    "io_base:u8 io_limit:u8 secondary_status:u16le:pci-status memory_base:u16le "
    "memory_limit:u16le prefetchable_base:u16le prefetchable_limit:u16le "
    "prefetchable_base_upper:u32le prefetchable_limit_upper:u32le io_base_upper:u16le "
    "io_limit_upper:u16le capabilities_pointer:u8 reserved:u8[3] rom_address:u32le:pci-rom "
    "interrupt_line:u8 interrupt_pin:u8:pci-pin bridge_control:u16le:pci-bridge-control"
)


def _msi(data: bytes) -> tuple[Register, ...]:
    control = _u16(data, 2)
    address = "address:u64le data:u16le" if control & 0x80 else "address:u32le data:u16le"
    masks = " reserved:u16le mask:u32le pending:u32le" if control & 0x100 else ""
    return _registers(f"control:u16le:pci-msi-control {address}{masks}")


_EXPRESS_1 = (
    "flags:u16le:pci-express-flags device_capabilities:u32le device_control:u16le "
    "device_status:u16le link_capabilities:u32le link_control:u16le link_status:u16le"
)
_EXPRESS_2 = (
    " slot_capabilities:u32le slot_control:u16le slot_status:u16le root_control:u16le "
    "root_capabilities:u16le root_status:u32le device_capabilities2:u32le "
    "device_control2:u16le device_status2:u16le link_capabilities2:u32le link_control2:u16le "
    "link_status2:u16le slot_capabilities2:u32le slot_control2:u16le slot_status2:u16le"
)


def _express(data: bytes) -> tuple[Register, ...]:
    first = _u16(data, 2) & 0xF < 2
    return _registers(_EXPRESS_1 if first else _EXPRESS_1 + _EXPRESS_2)


#: What follows the length of a virtio capability, by its cfg_type.
_VIRTIO = "cfg_type:u8:pci-virtio-cfg bar:u8 id:u8 padding:u8[2] offset:u32le length:u32le"
_VIRTIO_MORE = {
    2: " notify_off_multiplier:u32le",
    5: " pci_cfg_data:u32le",
    8: " offset_upper:u32le length_upper:u32le",
}


def _vendor(data: bytes) -> tuple[Register, ...]:
    """A vendor's own capability says its length; all of virtio's are alike."""
    length = data[2] if len(data) > 2 else 0
    if length < 4:
        return _registers("cap_len:u8")
    return _registers(f"cap_len:u8 data:u8[{length - 3}]")


def _virtio(data: bytes) -> tuple[Register, ...]:
    if len(data) < 16 or data[2] < 16:
        return _vendor(data)
    return _registers("cap_len:u8 " + _VIRTIO + _VIRTIO_MORE.get(data[3], ""))


#: By ID; 0x09 of vendor 0x1af4 is `VIRTIO`.
CAPABILITIES: dict[int, Capability] = {
    0x01: _fixed(
        "power_management",
        "capabilities:u16le control_status:u16le:pci-pm-control bridge_extensions:u8 data:u8",
    ),
    0x02: _fixed("agp", "version:u8 reserved:u8 status:u32le command:u32le"),
    0x03: _fixed("vital_product_data", "address:u16le data:u32le"),
    0x04: _fixed("slot_id", "expansion_slot:u8 chassis:u8"),
    0x05: Capability("msi", _msi),
    0x07: _fixed("pci_x", "command:u16le status:u32le"),
    0x08: _fixed("hypertransport", "command:u16le"),
    0x09: Capability("vendor_specific", _vendor),
    0x0A: _fixed("debug_port", "port:u16le"),
    0x0C: _fixed("hot_plug", "dword_select:u8 pending:u8 data:u32le"),
    0x0D: _fixed(
        "subsystem_id", "reserved:u16le subsystem_vendor_id:u16le:pci-vendor subsystem_id:u16le"
    ),
    0x10: Capability("express", _express),
    0x11: _fixed(
        "msix", "control:u16le:pci-msix-control table:u32le:pci-bar-offset pba:u32le:pci-bar-offset"
    ),
    0x12: _fixed("sata", "revision:u16le bar_offset:u32le"),
    0x13: _fixed("advanced_features", "length:u8 capabilities:u8 control:u8 status:u8"),
}
VIRTIO = Capability("virtio", _virtio)

_AER = (
    "uncorrectable_status:u32le:pci-aer-uncorrectable "
    "uncorrectable_mask:u32le:pci-aer-uncorrectable "
    "uncorrectable_severity:u32le:pci-aer-uncorrectable "
    "correctable_status:u32le:pci-aer-correctable correctable_mask:u32le:pci-aer-correctable "
    "capabilities_control:u32le header_log:u32le[4] root_command:u32le root_status:u32le "
    "correctable_source:u16le uncorrectable_source:u16le"
)
_SRIOV = (
    "capabilities:u32le control:u16le:pci-sriov-control status:u16le initial_vfs:u16le "
    "total_vfs:u16le num_vfs:u16le function_dependency_link:u8 reserved0:u8 "
    "first_vf_offset:u16le vf_stride:u16le reserved1:u16le vf_device_id:u16le "
    "supported_page_sizes:u32le system_page_size:u32le vf_bars:u32le[6] "
    "migration_state_array:u32le"
)


def _dvsec(data: bytes) -> tuple[Register, ...]:
    """A designated vendor's capability: its length is in bits 20 up of the second dword."""
    length = _u16(data, 6) >> 4
    rest = f" data:u8[{length - 10}]" if length > 10 else ""
    return _registers(
        f"vendor_id:u16le:pci-vendor revision_length:u16le:pci-dvsec-length id:u16le{rest}"
    )


def _vendor_extended(data: bytes) -> tuple[Register, ...]:
    length = _u16(data, 6) >> 4
    rest = f" data:u8[{length - 8}]" if length > 8 else ""
    return _registers(f"id:u16le revision_length:u16le:pci-dvsec-length{rest}")


#: Extended ones, by ID.
EXTENDED: dict[int, Capability] = {
    0x0001: _fixed("aer", _AER),
    0x0002: _fixed(
        "virtual_channel",
        "port_capabilities1:u32le port_capabilities2:u32le port_control:u16le port_status:u16le "
        "resource_capabilities:u32le resource_control:u32le reserved:u16le resource_status:u16le",
    ),
    0x0003: _fixed("serial_number", "serial_number:u64le"),
    0x0004: _fixed("power_budgeting", "data_select:u8 reserved:u8[3] data:u32le capability:u32le"),
    0x000B: Capability("vendor_specific_extended", _vendor_extended),
    0x000D: _fixed("acs", "capabilities:u16le:pci-acs control:u16le:pci-acs"),
    0x000E: _fixed("ari", "capabilities:u16le control:u16le"),
    0x000F: _fixed("ats", "capabilities:u16le control:u16le:pci-ats-control"),
    0x0010: _fixed("sr_iov", _SRIOV),
    0x0013: _fixed(
        "page_request",
        "control:u16le status:u16le outstanding_capacity:u32le outstanding_allocation:u32le",
    ),
    0x0018: _fixed("ltr", "max_snoop_latency:u16le max_no_snoop_latency:u16le"),
    0x001B: _fixed("pasid", "capabilities:u16le control:u16le:pci-pasid-control"),
    0x001D: _fixed("dpc", "capabilities:u16le control:u16le status:u16le error_source:u16le"),
    0x001F: _fixed("ptm", "capabilities:u32le control:u32le"),
    0x0023: Capability("designated_vendor", _dvsec),
    0x002E: _fixed(
        "data_object_exchange",
        "capabilities:u32le control:u32le status:u32le write_mailbox:u32le read_mailbox:u32le",
    ),
}
