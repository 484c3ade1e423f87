"""Notes of a core file: the CPUs' registers as the kernel and as QEMU write them.

::

    note          = namesz:u32 descsz:u32 type:u32 name padding desc padding
    prstatus      = padding[32] pid:u32 padding[76] registers padding[8]
    QEMUCPUState  = version:u32 size:u32 u64[18] segment[10] cr:u64[5] kernel_gs_base:u64
    segment       = selector:u32 limit:u32 flags:u32 padding:u32 base:u64

All little-endian; names end in NUL, names and contents are padded to 4 bytes.

Source: Linux include/uapi/linux/elfcore.h (struct elf_prstatus),
arch/x86/include/asm/user_64.h and arch/arm64/include/uapi/asm/ptrace.h (the
registers), kernel/vmcore_info.c (vmcoreinfo's note); QEMU
target/i386/arch_dump.c (qemu_get_cpustate), target/arm/arch_dump.c, 5.2 to 11.1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from cprformats.guest.cpus import CpuState

__all__ = ["cpu_notes", "note", "vmcoreinfo_note"]

_NT_PRSTATUS = 1
_PRSTATUS_X86 = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx"),
    *("rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base"),
    *("ds", "es", "fs", "gs"),
)
_PRSTATUS_ARM64 = (*(f"x{number}" for number in range(31)), "sp", "pc", "pstate")
_QEMU = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *(f"r{number}" for number in range(8, 16)),
    *("rip", "eflags"),
)
_QEMU_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "ldt", "tr", "gdt", "idt")
_QEMU_CONTROL = ("cr0", "cr1", "cr2", "cr3", "cr4", "kernel_gs_base")
_QEMU_VERSION = 1

_VMCOREINFO = b"VMCOREINFO\0"
#: The kernel writes this line first.
_FIRST_LINE = b"OSRELEASE="
_MAX_VMCOREINFO = 1 << 16


def note(name: str, kind: int, contents: bytes) -> bytes:
    """Make one note."""
    label = name.encode() + b"\0"
    head = struct.pack("<III", len(label), len(contents), kind)
    return head + _padded(label) + _padded(contents)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def cpu_notes(cpus: Sequence[CpuState]) -> bytes:
    """Make the notes of the CPUs: the kernel's, then on x86 QEMU's own.

    QEMU's has the control registers, and so the page tables.
    """
    kernels = (note("CORE", _NT_PRSTATUS, _prstatus(cpu)) for cpu in cpus)
    qemus = (note("QEMU", 0, _qemu_state(cpu)) for cpu in cpus if cpu.arch != "aarch64")
    return b"".join((*kernels, *qemus))


def _prstatus(cpu: CpuState) -> bytes:
    names = _PRSTATUS_ARM64 if cpu.arch == "aarch64" else _PRSTATUS_X86
    return struct.pack("<32xI76x", (cpu.index + 1) & 0xFFFFFFFF) + _words(cpu, names) + bytes(8)


def _qemu_state(cpu: CpuState) -> bytes:
    segments = b"".join(_segment(cpu, name) for name in _QEMU_SEGMENTS)
    body = _words(cpu, _QEMU) + segments + _words(cpu, _QEMU_CONTROL)
    return struct.pack("<II", _QEMU_VERSION, 8 + len(body)) + body


def _words(cpu: CpuState, names: tuple[str, ...]) -> bytes:
    values = [cpu.registers.get(name, 0) for name in names]
    return struct.pack(f"<{len(values)}Q", *values)


def _segment(cpu: CpuState, name: str) -> bytes:
    names = (name, f"{name}_limit", f"{name}_flags")
    values = [cpu.registers.get(word, 0) & 0xFFFFFFFF for word in names]
    return struct.pack("<IIIIQ", *values, 0, cpu.registers.get(f"{name}_base", 0))


def vmcoreinfo_note(data: bytes) -> bytes | None:
    """Find the note that Linux keeps in memory for crash dumps, and give its contents.

    Args:
        data: a piece of memory, of the little-endian targets.

    Returns:
        The lines of text (``OSRELEASE=...``), or None if `data` has no whole note.
    """
    at = data.find(_VMCOREINFO)
    while at >= 0:
        found = _vmcoreinfo_at(data, at)
        if found is not None:
            return found
        at = data.find(_VMCOREINFO, at + 1)
    return None


def _vmcoreinfo_at(data: bytes, at: int) -> bytes | None:
    """Check the note whose name is at an offset."""
    if at < 12:
        return None
    name_size, size, kind = struct.unpack_from("<III", data, at - 12)
    start = at + len(_VMCOREINFO) + 1
    if (name_size, kind) != (len(_VMCOREINFO), 0) or size > _MAX_VMCOREINFO:
        return None
    contents = data[start : start + size]
    return contents if len(contents) == size and contents.startswith(_FIRST_LINE) else None
