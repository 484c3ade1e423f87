"""Where everything lies in the guest: addresses, and offsets in its control pages.

docs/guest.md shows the same as tables. The listing (`listing.s`) has these offsets once more, as
names; a test compares the two.
"""

from __future__ import annotations

from struct import Struct

__all__ = [
    "CONTROL",
    "CPU",
    "CPU_PAGES",
    "DESCRIPTORS",
    "DEVICES",
    "DOORBELL",
    "FAULT_PORT",
    "FCW",
    "GLOBAL",
    "HIGH_RAM",
    "INTERRUPTS",
    "KEYS",
    "LEVEL_LINE",
    "LINE_CHARS",
    "LOW_RAM_LIMIT",
    "MAGIC",
    "MOST_CPUS",
    "MOST_RAM",
    "PAGE",
    "PATTERN",
    "RAM_WINDOW",
    "REDIRECTIONS",
    "ROM",
    "ROM_BYTES",
    "SERIAL_PORT",
    "STACKS",
    "TABLES",
    "VECTORS",
    "VERSION",
    "VGA",
    "VGA_BYTES",
    "WORD",
    "cpu_page",
]

PAGE = 4096
WORD = Struct("<Q")
MOST_CPUS = 16
MOST_RAM = 128 << 30

# -- guest-physical addresses --------------------------------------------------------

#: Page tables end below 1 MiB; from there on RAM is pattern.
DESCRIPTORS = 0x1000
INTERRUPTS = 0x2000
CONTROL = 0x10000
CPU_PAGES = 0x11000
STACKS = 0x30000
TABLES = 0x50000
PATTERN = 0x100000
#: RAM above this goes to HIGH_RAM, as on a PC: below 4 GiB are devices.
LOW_RAM_LIMIT = 3 << 30
HIGH_RAM = 4 << 30
VGA, VGA_BYTES = 0xFD000000, 1 << 20
DOORBELL = 0xFE000000
ROM, ROM_BYTES = 0xFFFF0000, 1 << 16
#: The linear address at which the guest sees all its RAM in one piece.
RAM_WINDOW = 1 << 39
SERIAL_PORT = 0x3F8
FAULT_PORT = 0xF4

# -- interrupts ----------------------------------------------------------------------

#: vector of each source; device n has "device" + n and IOAPIC line 16 + n
VECTORS = {"pit": 0x20, "timer": 0x30, "device": 0x40, "level": 0x48, "spurious": 0xFF}
DEVICES = 7
LEVEL_LINE = 23
REDIRECTIONS = 24

# -- the control page ----------------------------------------------------------------

MAGIC = b"CPRGUEST"
VERSION = 1
#: name and offset of each 64-bit word that all vCPUs share
GLOBAL = {
    "magic": 0x00,
    "version": 0x08,
    "cpus": 0x10,
    "ram": 0x18,
    "salt": 0x20,
    "tsc_khz": 0x28,
    "doorbell": 0x30,
    "kick_mask": 0x38,
    "line_mask": 0x40,
    "timer_count": 0x48,
    "pit_divisor": 0x50,
    "vga": 0x58,
    "vga_mask": 0x60,
    "idle": 0x68,
    "gap_command": 0x70,
    "kind": 0x78,
    "pattern_end": 0x80,
    "filled": 0x88,
    "redirections": 0x100,
}
#: name and offset of each 64-bit word that a vCPU has for itself
CPU = {
    "number": 0x00,
    "rounds": 0x08,
    "gap": 0x10,
    "gap_round": 0x18,
    "gap_done": 0x20,
    "stamps": 0x28,
    "first": 0x30,
    "end": 0x38,
    "kicks_begun": 0x40,
    "kicks_done": 0x48,
    "line": 0x50,
    "column": 0x58,
    "chars": 0x60,
    "lines": 0x68,
    "checks": 0x70,
    "broken": 0x78,
    "key_low": 0x80,
    "key_high": 0x88,
    "key_debug": 0x90,
    "key_gs": 0x98,
    "fault": 0xA0,
    "faults": 0xA8,
    "scratch": 0xB0,
    "irq_timer": 0x100,
    "irq_pit": 0x108,
    "irq_spurious": 0x110,
    "irq_level": 0x118,
    "irq_device": 0x120,
}
#: Meaning of the bits of `broken`: what the vCPU found changed that it never changes.
KEYS = (
    "xmm7, low half",
    "xmm7, high half",
    "DR0",
    "KERNEL_GS_BASE",
    "x87 control word",
    "the count in r12",
)
#: Sixteen digits and a newline.
LINE_CHARS = 17
#: What the x87 control word is set to: not what a reset leaves.
FCW = 0x27F


def cpu_page(number: int) -> int:
    """Give the address of a vCPU's own page."""
    return CPU_PAGES + number * PAGE
