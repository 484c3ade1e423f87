"""What a VGA shows at 0xa0000, and where an ISA VGA has its frame buffer.

A VGA's registers answer between 0xa0000 and 0xbffff. In chained modes, which
are those of 256 colours and more, a part of video memory lies over them.

Source: QEMU hw/display/vga.c (vga_update_memory_access, vbe_update_vgaregs),
hw/display/vga-isa.c (vga_isa_realizefn), 5.2 to 11.1. The windows of a Cirrus
Logic (cirrus_vga.c) are left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from cprformats.fields import Field
from cprformats.guest.ranges import PhysicalRange, overlaid
from cprformats.guest.sections import body_of, bytes_of, device_config, walk
from cprformats.migration.ramparts import RamBlock
from cprformats.migration.stream import MigrationStream

__all__ = ["isa_frame_buffer", "vga_window"]

#: Subclass and class in a PCI device's configuration space.
_VGA_CLASS = bytes((0, 3))
_WINDOW, _WINDOW_BYTES = 0xA0000, 0x20000
_VBE_AT = 0xE0000000
#: The ID in the first of VBE's registers, without its version; numbers of two others.
_VBE_ID, _VBE_BPP, _VBE_ENABLE = 0xB0C0, 3, 4
#: Address and size by the graphics controller's memory map bits.
_MAPS = ((0xA0000, 0x20000), (0xA0000, 0x10000), (0xB0000, 0x8000), (0xB8000, 0x8000))


def vga_window(stream: MigrationStream) -> tuple[PhysicalRange, ...]:
    """Give the addresses that a VGA takes below 1 MiB; registers are a range of no block."""
    found: tuple[PhysicalRange, ...] = ()
    for name, block in stream.ram.blocks.items():
        path = name.rpartition("/")[0]
        if name.endswith("vga.vram") and _is_vga(stream, name, path):
            window = PhysicalRange(_WINDOW, _WINDOW_BYTES, "", 0)
            found = overlaid(found, (window,), _chained(stream, block, path))
    return found


def isa_frame_buffer(stream: MigrationStream) -> Iterator[PhysicalRange]:
    """Give the frame buffer of an ISA VGA; one of Cirrus Logic shows it nowhere."""
    block = stream.ram.blocks.get("vga.vram")
    if block and all(section.idstr != "cirrus_vga" for section in stream.sections()):
        yield PhysicalRange(_VBE_AT, block.used_length, block.idstr, 0, "device")


def _is_vga(stream: MigrationStream, name: str, path: str) -> bool:
    if not path:
        return name == "vga.vram"
    device = device_config(stream, path)
    return device is not None and device[1][0x0A:0x0C] == _VGA_CLASS


def _chained(stream: MigrationStream, block: RamBlock, path: str) -> Iterator[PhysicalRange]:
    """Give the video memory that lies over the registers."""
    registers = _registers(stream, path)
    if registers is None:
        return
    sequencer = bytes_of(stream, registers["sr"]) or b""
    graphics = bytes_of(stream, registers["gr"]) or b""
    if len(sequencer) < 5 or len(graphics) < 7:
        return
    if not ((sequencer[2] & 0xF == 0xF and sequencer[4] & 8) or _vbe_colours(registers)):
        return
    which = graphics[6] >> 2 & 3
    bank = registers["bank_offset"].value
    offset = bank if which == 1 and isinstance(bank, int) else 0
    address, size = _MAPS[which]
    if 0 <= offset <= block.used_length - size:
        yield PhysicalRange(address, size, block.idstr, offset, "device")


def _registers(stream: MigrationStream, path: str) -> Field | None:
    """Find the group of a device that has a VGA's registers."""
    for section in stream.sections():
        start, _, name = section.idstr.rpartition("/")
        if start != path or not (path or name in ("vga", "vga-isa")):
            continue
        body = body_of(stream, section)
        for group in walk(body) if body else ():
            if {"sr", "gr", "bank_offset"} <= {child.name for child in group.children}:
                return group
    return None


def _vbe_colours(registers: Field) -> bool:
    """Say whether a mode of VBE is on that has more than 16 colours.

    Before its reset an ISA VGA has random words here; an ID has it after that.
    """
    words = registers.get("vbe_regs")
    values = words.value if words else None
    if not isinstance(values, tuple) or len(values) <= _VBE_ENABLE:
        return False
    number, enabled = values[0], values[_VBE_ENABLE]
    known = isinstance(number, int) and number & 0xFFF0 == _VBE_ID
    return known and isinstance(enabled, int) and bool(enabled & 1) and values[_VBE_BPP] != 4
