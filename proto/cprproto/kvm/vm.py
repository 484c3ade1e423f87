"""One KVM virtual machine: its memory slots, interrupt controllers and event descriptors.

A `Vm` belongs to the address space that made it: in a child, or after exec, every call on its
descriptors gives EIO (docs/guest.md). So a new process makes a new one, and all that takes long is
here and can be done before the guest is paused.

Facts: Linux Documentation/virt/kvm/api.rst and the headers named in `cprproto.kvm.ioctls`.
"""

from __future__ import annotations

import errno
import os
from fcntl import ioctl

from cprproto.errors import HostError
from cprproto.kvm import ioctls as k
from cprproto.kvm.mapping import Mapping, map_shared
from cprproto.kvm.vcpu import VCpu

__all__ = ["Vm", "missing"]

#: Numbers of KVM_CAP_*: what we can't do without (kvm.h).
_NEEDED = {
    "USER_MEMORY": 3,
    "IRQFD": 32,
    "PIT2": 33,
    "IOEVENTFD": 36,
    "XSAVE": 55,
    "READONLY_MEM": 81,
    "IRQFD_RESAMPLE": 82,
    "IMMEDIATE_EXIT": 136,
}
_CAP_ADJUST_CLOCK = 39
_CAP_SREGS2 = 200
_CAP_XSAVE2 = 208
_API_VERSION = 12
_MOST_CPUID = 256


def missing(path: str = "/dev/kvm") -> str:
    """Say why KVM can't be used here; an empty string where it can."""
    try:
        Vm(path).close()
    except HostError as error:
        return str(error)
    return ""


def _open(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}", error.errno or 0) from None
    try:
        version = ioctl(fd, k.GET_API_VERSION, 0)
        lacks = [name for name, cap in _NEEDED.items() if not ioctl(fd, k.CHECK_EXTENSION, cap)]
    except OSError as error:
        os.close(fd)
        raise HostError(f"{path} is no KVM: {error.strerror}", error.errno or 0) from None
    if version != _API_VERSION:
        os.close(fd)
        raise HostError(f"{path} speaks version {version} of the KVM interface, not {_API_VERSION}")
    if lacks:
        os.close(fd)
        raise HostError(f"{path}: KVM lacks {', '.join(lacks)}")
    return fd


class Vm:
    """A virtual machine with in-kernel PICs, IOAPIC, local APICs and PIT.

    Attributes:
        fd: the VM's descriptor, close-on-exec.
        cpus: its vCPUs in order of their numbers.
        sregs2, xsave_bytes, clock_flags: what this kernel can save (`cprproto.kvm.state`).
    """

    def __init__(self, path: str = "/dev/kvm") -> None:
        self._kvm = _open(path)
        self.fd = -1
        self.cpus: list[VCpu] = []
        self._scratch: Mapping | None = None
        self._slots: dict[int, bytes] = {}
        try:
            self._create()
        except OSError as error:
            self.close()
            raise HostError(f"no VM: {error.strerror}", error.errno or 0) from None

    def _create(self) -> None:
        self.fd = ioctl(self._kvm, k.CREATE_VM, 0)
        ioctl(self.fd, k.CREATE_IRQCHIP, 0)
        ioctl(self.fd, k.CREATE_PIT2, bytes(64))
        self.sregs2 = bool(ioctl(self._kvm, k.CHECK_EXTENSION, _CAP_SREGS2))
        self.xsave_bytes = max(4096, ioctl(self.fd, k.CHECK_EXTENSION, _CAP_XSAVE2))
        self.clock_flags = ioctl(self.fd, k.CHECK_EXTENSION, _CAP_ADJUST_CLOCK)
        self._run_bytes = ioctl(self._kvm, k.GET_VCPU_MMAP_SIZE, 0)
        self._cpuid = self._supported_cpuid()

    # -- memory ----------------------------------------------------------------------

    def set_memory(
        self, slot: int, guest: int, size: int, address: int, *, readonly: bool = False
    ) -> None:
        """Show `size` bytes at `address` of this process to the guest at `guest`.

        The first slot of a VM costs about 6 ms, a later one of 1 GiB 0.6 ms.

        Raises:
            HostError: overlapping, not page-aligned, or otherwise refused.
        """
        flags = k.MEM_READONLY if readonly else 0
        region = k.MEMORY_REGION.pack(slot, flags, guest, size, address)
        self._call(k.SET_USER_MEMORY_REGION, region, f"memory slot {slot} at {guest:#x}")
        self._slots[slot] = region

    # -- vCPUs -----------------------------------------------------------------------

    def add_cpu(self) -> VCpu:
        """Create the next vCPU, with the host's CPUID and its own APIC number.

        Raises:
            HostError: too many vCPUs, or one that KVM refuses.
        """
        number = len(self.cpus)
        try:
            fd = ioctl(self.fd, k.CREATE_VCPU, number)
            ioctl(fd, k.SET_CPUID2, _with_apic_id(self._cpuid, number))
        except OSError as error:
            raise HostError(f"vCPU {number}: {error.strerror}", error.errno or 0) from None
        cpu = VCpu(number, fd, self._run_bytes)
        self.cpus.append(cpu)
        return cpu

    def _supported_cpuid(self) -> bytearray:
        found = bytearray(8 + _MOST_CPUID * k.CPUID_ENTRY.size)
        found[0:4] = _MOST_CPUID.to_bytes(4, "little")
        ioctl(self._kvm, k.GET_SUPPORTED_CPUID, found)
        return found

    def msr_indices(self) -> list[int]:
        """List the MSRs that this KVM says make up a vCPU's state."""
        table = bytearray(4)
        try:
            ioctl(self._kvm, k.GET_MSR_INDEX_LIST, table)
        except OSError as error:
            # E2BIG is the answer: the count stands in the buffer now.
            if error.errno != errno.E2BIG:
                raise HostError(f"no list of MSRs: {error.strerror}", error.errno or 0) from None
        count = int.from_bytes(table, "little")
        table += bytes(4 * count)
        ioctl(self._kvm, k.GET_MSR_INDEX_LIST, table)
        words = memoryview(table).cast("I")
        return list(words[1 : 1 + words[0]])

    def scratch(self) -> Mapping:
        """Give a page whose address is known, for calls that take a pointer."""
        if self._scratch is None:
            fd = os.memfd_create("kvm-scratch", os.MFD_CLOEXEC)
            try:
                os.ftruncate(fd, 4096)
                self._scratch = map_shared(fd, 4096)
            finally:
                os.close(fd)
        return self._scratch

    # -- events ----------------------------------------------------------------------

    def irqfd(self, fd: int, gsi: int, *, resample: int | None = None, on: bool = True) -> None:
        """Tie an eventfd to an interrupt line, or untie it; 2 and 11 us.

        With `resample` the line is level-triggered: an event raises it, the guest's EOI lowers
        it and is told through that second eventfd. Untying waits until events that KVM took are in
        the interrupt controllers. Events that come while nothing is tied stay in the
        eventfd and are delivered when it is tied again, to this VM or another. (KVM delivers a
        count that it finds when it ties, and clears it only with the next event or when it unties:
        who looks at the eventfd meanwhile must not take the count for something new.)

        Raises:
            HostError: EBUSY where another VM, or this one, holds the eventfd.
        """
        flags = 0 if on else k.IRQFD_DEASSIGN
        if resample is not None and on:
            flags |= k.IRQFD_RESAMPLE
        argument = k.IRQFD_ARG.pack(fd, gsi, flags, resample or 0)
        self._call(k.IRQFD, argument, f"irqfd {fd} on line {gsi}")

    def ioeventfd(
        self, fd: int, address: int, *, size: int = 4, port: bool = False, on: bool = True
    ) -> None:
        """Count the guest's writes to an address (or I/O port) in an eventfd, with no exit.

        Raises:
            HostError: the address is taken already, or the size is not 0, 1, 2, 4 or 8.
        """
        flags = (k.IOEVENTFD_PIO if port else 0) | (0 if on else k.IOEVENTFD_DEASSIGN)
        argument = k.IOEVENT.pack(0, address, size, fd, flags)
        self._call(k.IOEVENTFD, argument, f"ioeventfd {fd} at {address:#x}")

    def _call(self, request: int, argument: bytes, what: str) -> None:
        try:
            ioctl(self.fd, request, argument)
        except OSError as error:
            raise HostError(f"{what}: {error.strerror}", error.errno or 0) from None

    def close(self) -> None:
        """Close all descriptors. With slots and vCPUs this takes up to 15 ms."""
        for cpu in self.cpus:
            cpu.close()
        self.cpus.clear()
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None
        for fd in (self.fd, self._kvm):
            if fd >= 0:
                os.close(fd)
        self.fd = self._kvm = -1


def _with_apic_id(cpuid: bytearray, number: int) -> bytearray:
    """Put a vCPU's number where a guest looks for it: leaf 1 EBX, leaves 0xb and 0x1f EDX."""
    result = bytearray(cpuid)
    for at in range(8, 8 + int.from_bytes(cpuid[:4], "little") * 40, k.CPUID_ENTRY.size):
        function, index, flags, eax, ebx, ecx, edx = k.CPUID_ENTRY.unpack_from(result, at)
        if function == 1:
            ebx = ebx & 0x00FFFFFF | number << 24
        elif function in {0xB, 0x1F}:
            edx = number
        k.CPUID_ENTRY.pack_into(result, at, function, index, flags, eax, ebx, ecx, edx)
    return result
