"""Where a PC has its memory: i440FX, Q35, ISA-only and microvm.

RAM below 4 GiB ends where the machine type says, the rest begins at 4 GiB.
Which it is depends on the size, on the age of the machine type and on
``max-ram-below-4g``; but QEMU tells the firmware in the RTC's CMOS, and that
is in the stream: it decides where the two differ.

==========  ==============================================================
pc          3.5 GiB; with that much or more 3 GiB, but for types before 2.0
q35         2.75 GiB; with that much or more 2 GiB, but for types before 2.0
isapc       3.5 GiB
microvm     3 GiB
==========  ==============================================================

Source: QEMU hw/i386/pc_piix.c (pc_init1), pc_q35.c (pc_q35_init), microvm.c
(microvm_memory_init), pc.c (pc_memory_init, pc_get_device_memory_range,
pc_cmos_init_late), pc_sysfw.c (pc_system_flash_map, pc_isa_bios_init),
x86-common.c (x86_bios_rom_init, x86_isa_bios_init), 5.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cprformats.guest.mainram import MainRam, main_ram
from cprformats.guest.pam import Bridge, read_bridge
from cprformats.guest.plugged import left_out, pci_memory, plugged_memory
from cprformats.guest.ranges import PhysicalLayout, PhysicalRange, clipped, cut, joined, overlaid
from cprformats.guest.sections import bytes_of, device_body
from cprformats.guest.vga import isa_frame_buffer, vga_window
from cprformats.migration.stream import MigrationStream

__all__ = ["PcKind", "pc_layout"]

_KIB, _MIB, _GIB, _TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
_4G = 4 * _GIB
#: CMOS counts memory above 16 MiB in units of this.
_CMOS_UNIT = 64 * _KIB
#: With AMD's CPUs, memory that would reach this address begins at 1 TiB.
_AMD_HT_START = 0xFD_0000_0000
_Q35_HOLE64 = 32 * _GIB
_ISA_BIOS_BYTES = 128 * _KIB
_ROM_AT, _SMRAM = 0xC0000, 0xA0000
_NO_BRIDGE = (
    "the host bridge is not in the stream: from 0xc0000 on there is RAM, as firmware leaves it",
)


@dataclass(frozen=True, slots=True)
class PcKind:
    """What a family of PC machine types has.

    Attributes:
        most_low: the most RAM that lies below 4 GiB as a whole, in bytes.
        split_low: RAM below 4 GiB if there is more than that, in bytes.
        ram: names of the machine's own RAM block.
        bridge: there is a PCI host bridge with PAM registers.
        at_least: RAM of exactly `most_low` is split already.
    """

    most_low: int
    split_low: int
    ram: tuple[str, ...] = ("pc.ram",)
    bridge: bool = True
    at_least: bool = True

    def low(self, total: int) -> int:
        """Say how many bytes of RAM lie below 4 GiB."""
        split = total >= self.most_low if self.at_least else total > self.most_low
        return min(total, self.split_low) if split else total


def pc_layout(
    stream: MigrationStream, kind: PcKind, ram: Sequence[str] = (), notes: Sequence[str] = ()
) -> PhysicalLayout:
    """Lay out a PC.

    Args:
        stream: the saved VM.
        kind: what its machine type has.
        ram: the main memory's blocks, if the user named them.
        notes: what was assumed so far.

    Raises:
        NoLayout: the main memory can't be told from other blocks.
        BadLayout: the user named a block that is not there.
    """
    cmos = _cmos_memory(stream)
    main = main_ram(stream, kind.ram, ram, total=sum(cmos) if cmos else None)
    low, low_notes = _low_size(kind, main.size, cmos)
    high = main.size - low
    plugged, plugged_notes = plugged_memory(stream, main, _rounded(_4G + high))
    memory = (*main.at(0, 0, low), *main.at(_4G, low, high))
    seen, bridge_notes = _seen(stream, kind, main, overlaid(plugged, memory), low)
    said = (*notes, *main.notes, *low_notes, *_far_notes(high), *plugged_notes, *bridge_notes)
    ranges = joined(seen)
    return PhysicalLayout(stream.machine, ranges, (*said, *left_out(stream, ranges)))


def _rounded(address: int) -> int:
    return -(-address // _GIB) * _GIB


# -- the split at 4 GiB -----------------------------------------------------------


def _cmos_memory(stream: MigrationStream) -> tuple[int, int] | None:
    """Read RAM below and above 4 GiB out of the RTC, in bytes; rounded down to 64 KiB."""
    body = device_body(stream, "mc146818rtc")
    cmos = bytes_of(stream, body.get("cmos_data") if body else None)
    if cmos is None or len(cmos) < 0x5E:
        return None
    high = int.from_bytes(cmos[0x5B:0x5E], "little") * _CMOS_UNIT
    if middle := int.from_bytes(cmos[0x34:0x36], "little"):
        return 16 * _MIB + middle * _CMOS_UNIT, high
    extended = int.from_bytes(cmos[0x30:0x32], "little")
    return (_MIB + extended * _KIB, high) if extended else None


def _low_size(
    kind: PcKind, total: int, cmos: tuple[int, int] | None
) -> tuple[int, tuple[str, ...]]:
    """Say how much RAM lies below 4 GiB, and what was assumed for it."""
    low = kind.low(total)
    if cmos is None:
        note = f"RAM below 4 GiB ends at {low:#x} by the machine type; the RTC is not in the stream"
        return low, (note,) if total > low or total > 2 * _GIB else ()
    if _agree(low, cmos[0]) and _agree(total - low, cmos[1]):
        return low, ()
    if cmos[0] <= _4G and _agree(total - cmos[0], cmos[1]):
        note = f"RAM below 4 GiB ends at {cmos[0]:#x} as the RTC says, not at {low:#x}"
        return cmos[0], (note,)
    note = f"the RTC tells of {sum(cmos):#x} bytes of RAM, the blocks have {total:#x}"
    return low, (f"{note}: the split at 4 GiB is the machine type's",)


def _agree(size: int, told: int) -> bool:
    """Compare with what the RTC tells: rounded down, and without what is above 1 TiB."""
    return size >= 0 and (size - told) % _TIB < _CMOS_UNIT


def _far_notes(high: int) -> tuple[str, ...]:
    if _4G + high + _Q35_HOLE64 < _AMD_HT_START:
        return ()
    return ("with an AMD CPU model, RAM above 4 GiB may begin at 1 TiB: here it begins at 4 GiB",)


# -- ROMs, and what hides RAM -------------------------------------------------------


def _seen(
    stream: MigrationStream,
    kind: PcKind,
    main: MainRam,
    memory: Sequence[PhysicalRange],
    low: int,
) -> tuple[tuple[PhysicalRange, ...], tuple[str, ...]]:
    """Lay ROMs, RAM and the host bridge's windows over one another."""
    top = (*((rom,) for rom in _isa_roms(stream)), vga_window(stream))
    bus = overlaid(_firmware(stream), pci_memory(stream), *top)
    notes: tuple[str, ...] = ()
    if kind.bridge:
        bridge = read_bridge(stream)
        seen = _through(bridge, main, bus, overlaid(bus, memory), low)
        notes = () if bridge.known else _NO_BRIDGE
    else:
        seen = overlaid(bus, isa_frame_buffer(stream), memory, *top)
    return tuple(one for one in seen if one.block), notes


def _through(
    bridge: Bridge,
    main: MainRam,
    bus: Sequence[PhysicalRange],
    seen: tuple[PhysicalRange, ...],
    low: int,
) -> tuple[PhysicalRange, ...]:
    """Apply the host bridge's registers; where the bus has nothing, RAM shows through."""
    for address, size in bridge.pci:
        seen = overlaid(seen, clipped(bus, address, size))
    for address, size in bridge.high_smram:
        seen = overlaid(seen, main.at(address, _SMRAM, size))
    for address, size in (*bridge.hidden, (low - bridge.tseg, bridge.tseg)):
        seen = cut(seen, address, size) if size else seen
    return seen


def _firmware(stream: MigrationStream) -> Iterator[PhysicalRange]:
    """Give the firmware that ends at 4 GiB: the BIOS, or flash devices downwards."""
    end = _4G
    for name, kind in (("pc.bios", "rom"), ("system.flash0", "flash"), ("system.flash1", "flash")):
        if block := stream.ram.blocks.get(name):
            end -= block.used_length
            yield PhysicalRange(end, block.used_length, name, 0, kind)


def _isa_roms(stream: MigrationStream) -> Iterator[PhysicalRange]:
    """Give the option ROMs, and the end of the firmware once more below 1 MiB."""
    blocks = stream.ram.blocks
    if block := blocks.get("pc.rom"):
        yield PhysicalRange(_ROM_AT, block.used_length, block.idstr, 0, "rom")
    names = (name for name in ("isa-bios", "pc.bios", "system.flash0") if name in blocks)
    if block := blocks.get(next(names, "")):
        size = min(block.used_length, _ISA_BIOS_BYTES)
        yield PhysicalRange(_MIB - size, size, block.idstr, block.used_length - size, "rom")
