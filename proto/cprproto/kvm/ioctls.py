"""Numbers and layouts of the KVM interface on x86-64, as Linux fixed them.

Facts from include/uapi/linux/kvm.h ("kvm.h") and arch/x86/include/uapi/asm/kvm.h ("asm") of
Linux 6.18; request numbers are made as include/uapi/asm-generic/ioctl.h says. A test compiles
them all against the headers of the machine (tests/live/test_kvm_guest.py).

Each ``struct`` format is little-endian and has the kernel's own padding written out.
"""

from __future__ import annotations

from struct import Struct

__all__ = [
    "CHECK_EXTENSION",
    "CLOCK",
    "CLOCK_REALTIME",
    "CPUID_ENTRY",
    "CREATE_IRQCHIP",
    "CREATE_PIT2",
    "CREATE_VCPU",
    "CREATE_VM",
    "DEVICE_ATTR",
    "DTABLE",
    "EXIT_NAMES",
    "GET_API_VERSION",
    "GET_CLOCK",
    "GET_DEBUGREGS",
    "GET_DEVICE_ATTR",
    "GET_FPU",
    "GET_IRQCHIP",
    "GET_LAPIC",
    "GET_MP_STATE",
    "GET_MSRS",
    "GET_MSR_INDEX_LIST",
    "GET_PIT2",
    "GET_REGS",
    "GET_SREGS",
    "GET_SREGS2",
    "GET_SUPPORTED_CPUID",
    "GET_TSC_KHZ",
    "GET_VCPU_EVENTS",
    "GET_VCPU_MMAP_SIZE",
    "GET_XCRS",
    "GET_XSAVE",
    "GET_XSAVE2",
    "HAS_DEVICE_ATTR",
    "IOEVENT",
    "IOEVENTFD",
    "IOEVENTFD_DATAMATCH",
    "IOEVENTFD_DEASSIGN",
    "IOEVENTFD_PIO",
    "IRQFD",
    "IRQFD_ARG",
    "IRQFD_DEASSIGN",
    "IRQFD_RESAMPLE",
    "MEMORY_REGION",
    "MEM_READONLY",
    "MP_RUNNABLE",
    "MSR_ENTRY",
    "MSR_TSC",
    "MSR_TSC_DEADLINE",
    "REGS",
    "RUN",
    "RUN_EXIT_REASON",
    "RUN_IMMEDIATE_EXIT",
    "RUN_IO",
    "RUN_MMIO",
    "RUN_UNION",
    "SEGMENT",
    "SET_CLOCK",
    "SET_CPUID2",
    "SET_DEBUGREGS",
    "SET_DEVICE_ATTR",
    "SET_FPU",
    "SET_IRQCHIP",
    "SET_LAPIC",
    "SET_MP_STATE",
    "SET_MSRS",
    "SET_PIT2",
    "SET_REGS",
    "SET_SREGS",
    "SET_SREGS2",
    "SET_USER_MEMORY_REGION",
    "SET_VCPU_EVENTS",
    "SET_XCRS",
    "SET_XSAVE",
]

_KVMIO = 0xAE


def _io(number: int) -> int:
    return _KVMIO << 8 | number


def _iow(number: int, size: int) -> int:
    return 1 << 30 | size << 16 | _io(number)


def _ior(number: int, size: int) -> int:
    return 2 << 30 | size << 16 | _io(number)


def _iowr(number: int, size: int) -> int:
    return 3 << 30 | size << 16 | _io(number)


# -- of /dev/kvm (kvm.h) -----------------------------------------------------------

GET_API_VERSION = _io(0x00)
CREATE_VM = _io(0x01)
GET_MSR_INDEX_LIST = _iowr(0x02, 4)
CHECK_EXTENSION = _io(0x03)
GET_VCPU_MMAP_SIZE = _io(0x04)
GET_SUPPORTED_CPUID = _iowr(0x05, 8)

# -- of a VM -----------------------------------------------------------------------

CREATE_VCPU = _io(0x41)
SET_USER_MEMORY_REGION = _iow(0x46, 32)
CREATE_IRQCHIP = _io(0x60)
GET_IRQCHIP = _iowr(0x62, 520)
SET_IRQCHIP = _ior(0x63, 520)
IRQFD = _iow(0x76, 32)
CREATE_PIT2 = _iow(0x77, 64)
IOEVENTFD = _iow(0x79, 64)
SET_CLOCK = _iow(0x7B, 48)
GET_CLOCK = _ior(0x7C, 48)
GET_PIT2 = _ior(0x9F, 112)
SET_PIT2 = _iow(0xA0, 112)

# -- of a vCPU ---------------------------------------------------------------------

RUN = _io(0x80)
GET_REGS = _ior(0x81, 144)
SET_REGS = _iow(0x82, 144)
GET_SREGS = _ior(0x83, 312)
SET_SREGS = _iow(0x84, 312)
GET_MSRS = _iowr(0x88, 8)
SET_MSRS = _iow(0x89, 8)
GET_FPU = _ior(0x8C, 416)
SET_FPU = _iow(0x8D, 416)
GET_LAPIC = _ior(0x8E, 1024)
SET_LAPIC = _iow(0x8F, 1024)
SET_CPUID2 = _iow(0x90, 8)
GET_MP_STATE = _ior(0x98, 4)
SET_MP_STATE = _iow(0x99, 4)
GET_VCPU_EVENTS = _ior(0x9F, 64)
SET_VCPU_EVENTS = _iow(0xA0, 64)
GET_DEBUGREGS = _ior(0xA1, 128)
SET_DEBUGREGS = _iow(0xA2, 128)
GET_TSC_KHZ = _io(0xA3)
GET_XSAVE = _ior(0xA4, 4096)
SET_XSAVE = _iow(0xA5, 4096)
GET_XCRS = _ior(0xA6, 392)
SET_XCRS = _iow(0xA7, 392)
GET_SREGS2 = _ior(0xCC, 320)
SET_SREGS2 = _iow(0xCD, 320)
GET_XSAVE2 = _ior(0xCF, 4096)
SET_DEVICE_ATTR = _iow(0xE1, 24)
GET_DEVICE_ATTR = _iow(0xE2, 24)
HAS_DEVICE_ATTR = _iow(0xE3, 24)

# -- layouts -----------------------------------------------------------------------

#: slot, flags, guest address, bytes, address in this process (kvm.h)
MEMORY_REGION = Struct("<IIQQQ")
MEM_READONLY = 1 << 1
#: descriptor, gsi, flags, resample descriptor (kvm.h, struct kvm_irqfd)
IRQFD_ARG = Struct("<IIII16x")
IRQFD_DEASSIGN = 1 << 0
IRQFD_RESAMPLE = 1 << 1
#: datamatch, address, length, descriptor, flags (kvm.h, struct kvm_ioeventfd)
IOEVENT = Struct("<QQIiI36x")
IOEVENTFD_DATAMATCH = 1 << 0
IOEVENTFD_PIO = 1 << 1
IOEVENTFD_DEASSIGN = 1 << 2
#: clock, flags, realtime, host tsc: all in ns but the last (kvm.h, struct kvm_clock_data)
CLOCK = Struct("<QI4xQQ16x")
CLOCK_REALTIME = 1 << 2
#: flags, group, attribute, address of the value (kvm.h, struct kvm_device_attr)
DEVICE_ATTR = Struct("<IIQQ")
#: rax rbx rcx rdx rsi rdi rsp rbp, r8-r15, rip rflags (asm)
REGS = Struct("<18Q")
#: base, limit, selector, type, present dpl db s l g avl unusable (asm, struct kvm_segment)
SEGMENT = Struct("<QIHBBBBBBBBBx")
#: base, limit (asm, struct kvm_dtable)
DTABLE = Struct("<QH6x")
#: index, value (asm, struct kvm_msr_entry)
MSR_ENTRY = Struct("<I4xQ")
#: function, index, flags, eax ebx ecx edx (asm, struct kvm_cpuid_entry2)
CPUID_ENTRY = Struct("<7I12x")

#: Intel SDM volume 4: IA32_TIME_STAMP_COUNTER, IA32_TSC_DEADLINE
MSR_TSC = 0x10
MSR_TSC_DEADLINE = 0x6E0
MP_RUNNABLE = 0

# -- the page shared with the kernel (kvm.h, struct kvm_run), offsets ---------------

RUN_IMMEDIATE_EXIT = 1
RUN_EXIT_REASON = 8
RUN_UNION = 32
#: direction (1 is out), size, port, count, offset of the data in the page
RUN_IO = Struct("<BBHIQ")
#: guest address, data, length, is it a write
RUN_MMIO = Struct("<Q8sIB")

#: What KVM_EXIT_* numbers are called.
EXIT_NAMES = {
    0: "UNKNOWN",
    1: "EXCEPTION",
    2: "IO",
    3: "HYPERCALL",
    4: "DEBUG",
    5: "HLT",
    6: "MMIO",
    7: "IRQ_WINDOW_OPEN",
    8: "SHUTDOWN",
    9: "FAIL_ENTRY",
    10: "INTR",
    16: "NMI",
    17: "INTERNAL_ERROR",
    24: "SYSTEM_EVENT",
}
