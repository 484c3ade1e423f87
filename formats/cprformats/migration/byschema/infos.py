"""How many bytes a VMStateInfo puts on the wire, by its name.

The size in a field's description is that in memory, and no help where a
hand-written function converts. Most types have one size; of some there are
several, and of some it is in the bytes.

Source: QEMU migration/vmstate-types.c; hw/nvram/eeprom93xx.c (get_uint16_from_uint8
reads one byte), hw/nvram/fw_cfg.c (get_uint32_as_uint16 reads two), hw/pci/pci.c
(put_pci_irq_state), target/avr/machine.c (put_sreg, put_segment), target/arm/machine.c
(put_power), target/mips/sysemu/machine.c (put_fpr, put_tlb), target/hppa/machine.c
(put_psw, put_tlb), target/ppc/machine.c (put_slbe, put_vsr); 5.2 to 11.1.
"""

from __future__ import annotations

from typing import Final

from cprformats.codecs import codec
from cprformats.migration.device import BY_SIZE, PRIMITIVES
from cprformats.migration.rules.pci import CONFIG_SIZE, EXPRESS_CONFIG_SIZE, is_express

__all__ = ["ELEMENTS", "SIZES", "checked", "fits", "is_integer_type", "wire_name", "wire_size"]

_SIZES: Final = {
    **{name: codec(how).size for name, how in PRIMITIVES.items()},
    "cpu/altivec/vscr": 4,
    "eind": 1,
    "int32_as_uint16": 2,
    "pci irq state": 16,
    "powered_off": 1,
    "rampD": 1,
    "rampX": 1,
    "rampY": 1,
    "rampZ": 1,
    "slbe": 16,
    "sreg": 1,
    "uint16_from_uint8": 1,
    "vsr": 8,
}
#: Types that are written in one of a few sizes, as target or release have it.
SIZES: Final = {
    "fd": (0, 1, 4),
    "fpr": (8, 16),
    "psw": (4, 8),
    "tlb entry": (16, 20, 32),
    "tlb_entry": (28, 32, 36),
}
#: (type, field) -> its size, where others of the type have another: MIPS.
_NAMED: Final = {("fpr", "fpr"): 16}
#: As many bytes on the wire as in memory.
_AS_IN_MEMORY: Final = (
    (BY_SIZE | {"avr", "buffer", "pci config", "unused_buffer"}) - set(_SIZES) - set(SIZES)
)
#: Types that are several elements, each with a description.
ELEMENTS: Final = frozenset({"gtree", "qlist", "qtailq"})
#: Symbols of the VMStateInfos of QEMU itself, without vmstate_info_, that differ from the name:
#: a module that was read without its program knows no more.
_SYMBOLS: Final = {
    "cpudouble": "CPU_Double_U",
    "int32_equal": "int32 equal",
    "int32_le": "int32 le",
    "uint16_equal": "uint16 equal",
    "uint32_equal": "uint32 equal",
    "uint64_equal": "int64 equal",
    "uint8_equal": "uint8 equal",
}
#: Vendor and device id of vmxnet3 and pvscsi; class of USB 3 controllers.
_VMWARE: Final = (b"\xad\x15\xb0\x07", b"\xad\x15\xc0\x07")
_XHCI: Final = b"\x30\x03\x0c"
_LEVELS: Final = (b"\0\0\0\0", b"\0\0\0\1")


def wire_name(info: str) -> str:
    """The name that a vmdesc has for a VMStateInfo."""
    return _SYMBOLS.get(info, info)


def wire_size(info: str, memory_size: int, field: str = "") -> int | None:
    """Bytes on the wire of one value of a field; None where they depend on the value.

    What is one of a few sizes (`SIZES`) depends on it too.
    """
    known = _NAMED.get((info, field), _SIZES.get(info))
    if known is not None:
        return known
    return memory_size if info in _AS_IN_MEMORY else None


def is_integer_type(info: str) -> bool:
    """Whether the value is an integer of big-endian bytes that QEMU puts back as it is."""
    return info in PRIMITIVES and info not in ("CPU_Double_U", "float64", "timer")


def checked(info: str) -> bool:
    """Whether some bytes can't be a value of the type."""
    return info in ("bool", "pci config", "pci irq state", "unused_buffer")


def fits(info: str, data: bytes, *, strict: bool) -> bool:
    """Whether bytes can be values of the type.

    Args:
        info: name of the VMStateInfo.
        data: the bytes of one value, or of several.
        strict: take only what QEMU writes, not all that it loads.

    Source: QEMU migration/vmstate-types.c (put_bool, put_unused_buffer),
    hw/pci/pci.c (get_pci_irq_state takes 0 and 1 only).
    """
    if strict and info == "unused_buffer":
        return not data.strip(b"\0")
    if strict and info == "pci config":
        return _is_config(data)
    if info == "bool":
        return not data.strip(b"\0\1")
    if info == "pci irq state":
        return all(data[at : at + 4] in _LEVELS for at in range(0, len(data), 4))
    return True


def _is_config(data: bytes) -> bool:
    """Whether configuration space is as QEMU makes it.

    Only a PCI Express device has the capability and more than 256 bytes. A few
    kinds of device are Express ones on a conventional bus too: they have no
    capability there, and nothing behind the 256 bytes.

    Source: QEMU hw/pci/pcie.c (pcie_cap_init), and where QEMU_PCI_CAP_EXPRESS is
    set: hw/usb/hcd-xhci-pci.c, hw/net/vmxnet3.c, hw/scsi/vmw_pvscsi.c; 7.2, 10.0.
    """
    if len(data) not in (CONFIG_SIZE, EXPRESS_CONFIG_SIZE):
        return False
    if is_express(data[:CONFIG_SIZE]):
        return len(data) > CONFIG_SIZE
    hybrid = data[:4] in _VMWARE or data[9:12] == _XHCI
    return len(data) == CONFIG_SIZE or (hybrid and not data[CONFIG_SIZE:].strip(b"\0"))
