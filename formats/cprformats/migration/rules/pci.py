"""Rules for PCI devices: configuration space, interrupt lines, MSI-X, hot-plug.

::

    PCIDevice   = version_id:be32 config irq_state
    config      = 256 bytes, or 4096 for a PCI Express device
    irq_state   = 4 x be32, INTA to INTD, each 0 or 1
    msix state  = vectors x { address:le64 data:le32 control:le32 } pending:ceil(n/8)

Configuration space is what the guest reads: a header, a linked list of
capabilities, with PCI Express a second list from 0x100 on, and registers of
the device between them. The lists are followed with care, since a guest can
write some of them: a byte belongs to whoever claimed it first, and what
nobody claims is ``device_specific``.

Source: QEMU hw/pci/pci.c (vmstate_pci_device), hw/pci/msix.c (msix_save),
hw/pci/shpc.c (shpc_save), all of 5.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cprformats.codecs import codec
from cprformats.migration.rules.pcicaps import (
    BRIDGE,
    CAPABILITIES,
    COMMON,
    DEVICE,
    EXTENDED,
    VIRTIO,
    Capability,
    Register,
)
from cprformats.migration.vmdesc import FieldDesc
from cprformats.reader import Reader

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder

__all__ = [
    "CONFIG_SIZE",
    "EXPRESS_CONFIG_SIZE",
    "config",
    "config_size",
    "irq_state",
    "is_express",
    "msix",
    "msix_vectors",
    "read_irq_state",
    "read_msix",
    "read_pci_config",
    "read_pci_device",
    "shpc",
]

CONFIG_SIZE = 256
EXPRESS_CONFIG_SIZE = 4096
_HEADER_SIZE = 64
_VIRTIO_VENDOR = 0x1AF4
_PINS = ("INTA", "INTB", "INTC", "INTD")
_MAX_VECTORS = 2048
_SHPC_SLOTS = 31


@dataclass(frozen=True, slots=True)
class _Part:
    """Registers that stand together from `offset` on; one without a name is not grouped."""

    offset: int
    name: str
    registers: tuple[Register, ...]

    @property
    def end(self) -> int:
        return self.offset + sum(_size(register) for register in self.registers)


def _size(register: Register) -> int:
    return codec(register.codec).size or 0


# -- configuration space ------------------------------------------------------------


def config(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """Configuration space, as a field (``pci config``)."""
    read_pci_config(reader, desc.size)


def read_pci_config(reader: Reader, size: int) -> bytes:
    """Read configuration space as named leaves into the open group, and give its bytes.

    Args:
        reader: stands at the first byte (vendor_id).
        size: 256, or 4096 with PCI Express; not below 64.

    Raises:
        Truncated: there are fewer bytes.
        Damaged: `size` has no room for the header.
    """
    if size < _HEADER_SIZE:
        raise reader.mismatch("configuration space", f"at least {_HEADER_SIZE} bytes", size)
    data = reader.peek(size)
    if len(data) < size:
        raise reader.truncated("configuration space", size, len(data))
    base = reader.offset
    for part in _parts(data):
        _gap(reader, base, part.offset)
        if not part.name:
            _read(reader, part.registers)
            continue
        with reader.group(part.name, "capability"):
            _read(reader, part.registers)
    _gap(reader, base, size)
    return data


def _gap(reader: Reader, base: int, offset: int) -> None:
    """Keep the device's own registers up to `offset` in configuration space."""
    here = reader.offset - base
    if here < offset:
        reader.blob(f"device_specific_{here:02x}", offset - here, type="device_specific")


def _read(reader: Reader, registers: tuple[Register, ...]) -> None:
    for register in registers:
        reader.take(register.name, register.codec, type=register.type, meaning=register.meaning)


@lru_cache(maxsize=64)
def _parts(data: bytes) -> tuple[_Part, ...]:
    """Lay out configuration space: parts in order that do not overlap."""
    taken = bytearray(len(data))
    taken[:_HEADER_SIZE] = b"\1" * _HEADER_SIZE
    places = [*_legacy(data, taken), *_extended(data, taken)]
    parts = [_Part(0, "", _header(data))]
    names: dict[str, int] = {}
    for offset, capability, head in places:
        count = names[capability.name] = names.get(capability.name, 0) + 1
        name = capability.name if count == 1 else f"{capability.name}[{count - 1}]"
        more = _fitting(capability.registers(data[offset:]), offset + _sizes(head), taken)
        parts.append(_Part(offset, name, head + more))
    return tuple(sorted(parts, key=lambda part: part.offset))


def _sizes(registers: tuple[Register, ...]) -> int:
    return sum(_size(register) for register in registers)


def _fitting(
    registers: tuple[Register, ...], offset: int, taken: bytearray
) -> tuple[Register, ...]:
    """Give the registers that fit before the next thing that is claimed, and claim them."""
    fitting = []
    for register in registers:
        end = offset + _size(register)
        if end > len(taken) or any(taken[offset:end]):
            break
        taken[offset:end] = b"\1" * (end - offset)
        fitting.append(register)
        offset = end
    return tuple(fitting)


_Place = tuple[int, Capability, tuple[Register, ...]]
_LEGACY_HEAD = (Register("id", "u8", "pci-capability"), Register("next", "u8"))
_EXTENDED_HEAD = (
    Register("id", "u16le", "pci-extended-capability"),
    Register("version_next", "u16le", "pci-capability-next"),
)


def _legacy(data: bytes, taken: bytearray) -> Iterator[_Place]:
    """Follow the list of capabilities and claim their heads; each place counts once."""
    if not data[6] & 0x10:
        return
    virtio = int.from_bytes(data[:2], "little") == _VIRTIO_VENDOR
    offset = data[0x34] & ~3
    while _HEADER_SIZE <= offset <= CONFIG_SIZE - 4 and not any(taken[offset : offset + 2]):
        taken[offset : offset + 2] = b"\1\1"
        number = data[offset]
        known = VIRTIO if virtio and number == 0x09 else CAPABILITIES.get(number)
        yield offset, known or _unnamed("capability", number), _LEGACY_HEAD
        offset = data[offset + 1] & ~3


def _extended(data: bytes, taken: bytearray) -> Iterator[_Place]:
    offset = CONFIG_SIZE
    while CONFIG_SIZE <= offset <= len(data) - 4 and not any(taken[offset : offset + 4]):
        number, link = (int.from_bytes(data[at : at + 2], "little") for at in (offset, offset + 2))
        if not number and not link:
            return
        taken[offset : offset + 4] = b"\1" * 4
        yield offset, EXTENDED.get(number) or _unnamed("extended", number), _EXTENDED_HEAD
        offset = link >> 4 & ~3


def _unnamed(what: str, number: int) -> Capability:
    return Capability(f"{what}_{number:02x}", lambda _: ())


def _header(data: bytes) -> tuple[Register, ...]:
    kind = data[0x0E] & 0x7F
    if kind == 1:
        return (*COMMON, *_bars(data, 2), *BRIDGE)
    if kind == 0:
        return (*COMMON, *_bars(data, 6), *DEVICE)
    return (*COMMON, Register("rest", "u8[48]", type="header"))


def _bars(data: bytes, count: int) -> Iterator[Register]:
    """Name base addresses by what they address; a 64-bit one takes two places."""
    index = 0
    while index < count:
        low = data[0x10 + 4 * index]
        if low & 1:
            kind, size = "io", 1
        else:
            size = 2 if low & 6 == 4 and index + 1 < count else 1
            kind = ("mem64" if size == 2 else "mem32") + (" prefetch" if low & 8 else "")
        yield Register(f"bar{index}", f"u{32 * size}le", "pci-bar", kind)
        index += size


# -- the device around it -----------------------------------------------------------


def irq_state(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """Levels of the four interrupt pins (``pci irq state``)."""
    read_irq_state(reader)


def read_irq_state(reader: Reader) -> None:
    """Read the levels of INTA to INTD, 16 bytes."""
    for pin in _PINS:
        reader.number(pin, "u32be")


def read_pci_device(decoder: Decoder, reader: Reader) -> bytes:
    """Read what ``pci_device_save`` writes, and give the bytes of configuration space.

    Nothing says whether that has 256 or 4096 bytes: the device's own
    capability tells, and the four interrupt levels behind it confirm.

    Raises:
        Truncated: it is cut.
        Damaged: neither size leads to interrupt levels.
    """
    reader.number("version_id", "i32be", type="int32 le")
    size = config_size(reader)
    with reader.group("config", "pci config"):
        data = read_pci_config(reader, size)
    with reader.group("irq_state", "pci irq state"):
        read_irq_state(reader)
    return data


def config_size(reader: Reader) -> int:
    """Tell the size of the configuration space that begins here, 256 or 4096 bytes.

    Raises:
        Truncated: it is cut.
        Damaged: neither size leads to interrupt levels.
    """
    legacy = reader.peek(CONFIG_SIZE)
    if len(legacy) < CONFIG_SIZE:
        raise reader.truncated("configuration space", CONFIG_SIZE, len(legacy))
    express = is_express(legacy)
    sizes = (EXPRESS_CONFIG_SIZE, CONFIG_SIZE) if express else (CONFIG_SIZE, EXPRESS_CONFIG_SIZE)
    for size in sizes:
        levels = reader.peek(16, skip=size)
        if len(levels) == 16 and all(levels[at : at + 4] in _LEVELS for at in range(0, 16, 4)):
            return size
    raise reader.damaged("configuration space of neither 256 nor 4096 bytes: no pin levels follow")


def is_express(data: bytes) -> bool:
    """Say whether the device is a PCI Express one, by the first 256 bytes of configuration space.

    Source: QEMU hw/pci/pcie.c (pcie_cap_init), which makes it one.
    """
    return any(part.name == "express" for part in _parts(data))


_LEVELS = (b"\0\0\0\0", b"\0\0\0\1")


# -- MSI-X ---------------------------------------------------------------------------


def msix_vectors(data: bytes) -> int:
    """Give the number of MSI-X vectors from configuration space; 0 without MSI-X."""
    for part in _parts(data):
        if part.name == "msix" and part.end - part.offset >= 4:
            return (int.from_bytes(data[part.offset + 2 : part.offset + 4], "little") & 0x7FF) + 1
    return 0


def msix(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """The MSI-X table and pending bits (``msix state``); empty without MSI-X."""
    if not desc.size:
        return
    # n vectors take 16 n + ceil(n / 8) bytes; 129 bytes are eight vectors.
    vectors = desc.size * 8 // 129
    if 16 * vectors + (vectors + 7) // 8 != desc.size:
        raise reader.mismatch("msix state", "16 n + ceil(n / 8) bytes", desc.size)
    read_msix(reader, vectors)


def read_msix(reader: Reader, vectors: int) -> None:
    """Read the MSI-X table of `vectors` entries and its pending bits into the open group.

    Raises:
        Damaged: more vectors than MSI-X can have (2048).
    """
    if not 0 <= vectors <= _MAX_VECTORS:
        raise reader.mismatch("MSI-X vectors", f"0 to {_MAX_VECTORS}", vectors)
    for index in range(vectors):
        with reader.group(f"vector[{index}]", "msix vector"):
            reader.take("address", "u64le")
            reader.take("data", "u32le")
            reader.take("control", "u32le", meaning="msix-vector-control")
    if vectors:
        reader.take("pending", f"u8[{(vectors + 7) // 8}]")


# -- standard hot-plug controller ------------------------------------------------------

_SHPC_REGISTERS = (
    ("base_offset", "u32le"),
    ("slots_33", "u32le"),
    ("slots_66", "u32le"),
    ("slot_count", "u8"),
    ("first_device", "u8"),
    ("physical_slot", "u16le"),
    ("bus_config", "u16le"),
    ("msi_control", "u8"),
    ("interface", "u8"),
    ("command", "u16le"),
    ("command_status", "u16le"),
    ("interrupt_locator", "u32le"),
    ("serr_locator", "u32le"),
    ("serr_interrupt", "u32le"),
)


def shpc(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """Registers of the standard hot-plug controller, then four bytes for each slot."""
    slots, odd = divmod(desc.size - 0x24, 4)
    if odd or not 0 <= slots <= _SHPC_SLOTS:
        raise reader.mismatch("shpc", "0x24 bytes and 4 for each of at most 31 slots", desc.size)
    for name, how in _SHPC_REGISTERS:
        reader.take(name, how)
    for slot in range(slots):
        with reader.group(f"slot[{slot}]", "shpc slot"):
            reader.take("status", "u16le")
            reader.take("event_latch", "u8")
            reader.take("event_disable", "u8")
