"""Machines with all their RAM in one piece: ``virt`` of several targets, and a few others.

==================  ===========  =======================  ======================
machine             RAM at       its block                flash at
==================  ===========  =======================  ======================
virt, Arm           0x40000000   mach-virt.ram            0 and 0x4000000
virt, RISC-V        0x80000000   riscv_virt_board.ram     0x20000000, 0x22000000
virt, m68k          0            m68k_virt.ram
s390-ccw-virtio     0            s390.ram
pseries             0            ppc_spapr.ram
==================  ===========  =======================  ======================

Several targets have a machine called ``virt``: the block's name or the CPU's
registers tell which it is.

Source: QEMU hw/arm/virt.c (base_memmap, machvirt_init, virt_flash_map),
hw/riscv/virt.c (virt_memmap), hw/m68k/virt.c, hw/s390x/s390-virtio-ccw.c,
hw/ppc/spapr.c, 5.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cprformats.guest.mainram import main_ram
from cprformats.guest.plugged import left_out, pci_memory, plugged_memory
from cprformats.guest.ranges import PhysicalLayout, PhysicalRange, joined, overlaid
from cprformats.guest.sections import device_body
from cprformats.migration.stream import MigrationStream

__all__ = ["FLAT", "Flat", "flat_layout", "virt_kind"]

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Flat:
    """A machine with RAM in one piece.

    Attributes:
        base: guest-physical address of RAM.
        ram: names of its own block.
        fixed: other blocks with a fixed address: name, address, kind.
        registers: a field that only this target's CPU has.
        secure: a block that is there if flash and it belong to the secure world.
    """

    base: int
    ram: str
    fixed: tuple[tuple[str, int, str], ...] = ()
    registers: tuple[str, ...] = ()
    secure: str = ""


FLAT = {
    "arm": Flat(
        1 << 30,
        "mach-virt.ram",
        (("virt.flash0", 0, "flash"), ("virt.flash1", 0x4000000, "flash")),
        ("env.xregs",),
        "virt.secure-ram",
    ),
    "riscv": Flat(
        2 << 30,
        "riscv_virt_board.ram",
        (
            ("riscv_virt_board.mrom", 0x1000, "rom"),
            ("virt.flash0", 0x20000000, "flash"),
            ("virt.flash1", 0x22000000, "flash"),
        ),
        ("env.gpr", "env.priv"),
    ),
    "m68k": Flat(0, "m68k_virt.ram", (), ("env.dregs",)),
    "s390": Flat(0, "s390.ram"),
    "pseries": Flat(0, "ppc_spapr.ram"),
}


def virt_kind(stream: MigrationStream) -> Flat | None:
    """Say which target's ``virt`` it is; None if nothing tells."""
    for kind in FLAT.values():
        if kind.ram in stream.ram.blocks:
            return kind
    body = device_body(stream, "cpu")
    names = {child.name for child in body.children} if body else set()
    kinds = (kind for kind in FLAT.values() if kind.registers and names.issuperset(kind.registers))
    return next(kinds, None)


def flat_layout(stream: MigrationStream, kind: Flat, ram: Sequence[str] = ()) -> PhysicalLayout:
    """Lay out a machine with RAM in one piece.

    Raises:
        NoLayout: the main memory can't be told from other blocks.
        BadLayout: the user named a block that is not there.
    """
    main = main_ram(stream, (kind.ram,), ram)
    memory = tuple(main.at(kind.base, 0, main.size))
    area = -(-(kind.base + main.size) // _GIB) * _GIB
    plugged, notes = plugged_memory(stream, main, area)
    fixed = ((one,) for one in _fixed(stream, kind))
    ranges = joined(overlaid(pci_memory(stream), *fixed, plugged, memory))
    said = (*main.notes, *notes, *_secure_notes(stream, kind))
    return PhysicalLayout(stream.machine, ranges, (*said, *left_out(stream, ranges)))


def _fixed(stream: MigrationStream, kind: Flat) -> Iterator[PhysicalRange]:
    hidden = kind.fixed[0][0] if kind.secure in stream.ram.blocks else ""
    for name, address, what in kind.fixed:
        block = stream.ram.blocks.get(name)
        if block is not None and name != hidden:
            yield PhysicalRange(address, block.used_length, name, 0, what)


def _secure_notes(stream: MigrationStream, kind: Flat) -> tuple[str, ...]:
    if kind.secure not in stream.ram.blocks:
        return ()
    return (f"{kind.fixed[0][0]} and {kind.secure} are seen by the secure world only",)
