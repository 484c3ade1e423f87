"""The guest's view: physical addresses, CPU registers, core files."""

from cprformats.guest.cpus import CpuState, CpuStates, cpu_states
from cprformats.guest.elfcore import ElfCore, ElfSegment, elf_core
from cprformats.guest.notes import vmcoreinfo_note
from cprformats.guest.physical import layout_by_hand, physical_layout
from cprformats.guest.ranges import BadLayout, NoLayout, PhysicalLayout, PhysicalRange

__all__ = [
    "BadLayout",
    "CpuState",
    "CpuStates",
    "ElfCore",
    "ElfSegment",
    "NoLayout",
    "PhysicalLayout",
    "PhysicalRange",
    "cpu_states",
    "elf_core",
    "layout_by_hand",
    "physical_layout",
    "vmcoreinfo_note",
]
