"""Rules for the registers of CPUs that QEMU writes with functions of their own.

Those of one integer are in `device.BY_SIZE`. Of the others, some differ by
target width or release, so the size decides and not the name.

Source: QEMU target/*/machine.c and target/*/cpu.c, 5.2 to 11.1;
hw/intc/s390_flic_kvm.c (kvm_flic_save).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cprformats.migration.vmdesc import FieldDesc
from cprformats.reader import Reader

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder

__all__ = ["flic_irqs", "hppa_tlb", "llm_tree", "mips_tlb", "pair", "slb_entry"]

#: struct kvm_s390_irq: a 64-bit type and a union of 64 bytes.
_IRQ_BYTES = 72
#: kvm_flic_save writes this in place of a count when the kernel gave none.
_FLIC_FAILED = 0xFFFF_FFFF_FFFF_FFFF


def pair(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """A 128-bit vector register as two integers, in the order of the host's memory.

    On the narrow targets the same name is one 64-bit register.
    """
    if desc.size == 8:
        reader.take("value", "u64be")
        return
    reader.take("u64", "u64be[2]")


def slb_entry(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """One entry of PowerPC's segment lookaside buffer (``slbe``)."""
    reader.take("esid", "u64be")
    reader.take("vsid", "u64be")


def hppa_tlb(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """One TLB entry of PA-RISC (``tlb entry``): four words since 8.2, three before."""
    if desc.size == 32:
        names = ("start", "last", "pa", "bits")
        for name in names:
            reader.take(name, "u64be")
        return
    reader.take("va_b", "u64be")
    reader.take("pa", "u64be" if desc.size == 20 else "u32be")
    reader.take("bits", "u32be")


def mips_tlb(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """One TLB entry of MIPS (``tlb_entry``); the width of VPN is the target's."""
    reader.take("VPN", "u64be" if desc.size == 36 else "u32be")
    reader.take("PageMask", "u32be")
    reader.take("ASID", "u16be")
    # Without MMID in releases before 5.2's Global Invalidate TLB support.
    if desc.size in (32, 36):
        reader.take("MMID", "u32be")
    reader.take("flags", "u16be")
    reader.take("PFN0", "u64be")
    reader.take("PFN1", "u64be")


def llm_tree(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """A map of 64-bit numbers: its count, then key and value of each (``octeon_llm_tree``)."""
    count = reader.number("count", "u32be")
    if count != (desc.size - 4) // 16:
        raise reader.mismatch("count", (desc.size - 4) // 16, count)
    for index in range(count):
        with reader.group(f"[{index}]"):
            reader.take("key", "u64be")
            reader.take("value", "u64be")


def flic_irqs(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """Interrupts pending in s390's floating interrupt controller (``irqs``).

    The count is QEMU's; each record is the kernel's, in its byte order.
    """
    count = reader.number("count", "u64be")
    if count == _FLIC_FAILED:
        return
    if count * _IRQ_BYTES != desc.size - 8:
        raise reader.mismatch("count", (desc.size - 8) // _IRQ_BYTES, count)
    for index in range(count):
        with reader.group(f"[{index}]", "kvm_s390_irq"):
            reader.take("type", "u64be")
            reader.blob("info", _IRQ_BYTES - 8)
