"""All state of a VM that lives in the kernel, as named parts: plain bytes as KVM gives them.

`Keeper` prepares every buffer and finds the MSRs before the pause; `save` and `load` are then
one ioctl a part: ten a vCPU (5 us each here) and five a VM (1 us each).

The order matters. Saving, as QEMU's kvm_arch_get_registers does (target/i386/kvm/kvm.c, 10.0):
`events` and `mp_state` first, since asking for them can make KVM take in a pending exception or
INIT and so change registers. Loading, as kvm_arch_put_registers does, with the local APIC in its
place (QEMU's comes earlier, kvm_apic_put in hw/i386/kvm/apic.c):

======== ==============  =====================================================================
part     what            why there
======== ==============  =====================================================================
sregs    segments, CRs   first: sets EFER and the APIC base, which decide how the rest is taken
regs     r8.. rip        before events: it drops pending exceptions
xsave    FPU, SSE, AVX   the registers of all features that the vCPU's CPUID has
xcrs     XCR0            after xsave, which does not look at it
lapic    local APIC      before msrs: IA32_TSC_DEADLINE arms a timer that must be in that mode
tsc      offset to host  before msrs, for the same timer; the guest's TSC goes on as if nothing was
msrs     all the rest    IA32_TSC_DEADLINE is the last of them; IA32_TSC is not set: see tsc
events   pending things  after regs and lapic
mp_state running, halted after events, which may hold an INIT
debug    DR0-3, 6, 7     any time
======== ==============  =====================================================================

The VM's parts come before the vCPUs': `pic0`, `pic1`, `ioapic`, `pit`, `clock`.

Not in it: nested virtualization, in-kernel Xen and Hyper-V, and the ticks of a periodic timer that
KVM noted and the vCPU did not yet take (at most one each; KVM has no call to ask for them).
"""

from __future__ import annotations

from fcntl import ioctl

from cprproto.errors import HostError, StateError
from cprproto.kvm import ioctls as k

TYPE_CHECKING = False  # `typing` takes 10 ms to import
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cprproto.kvm.vcpu import VCpu
    from cprproto.kvm.vm import Vm

__all__ = ["CpuKeeper", "Keeper"]

_CHIPS = ("pic0", "pic1", "ioapic")
_TSC_GROUP, _TSC_OFFSET = 0, 0  # KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET (asm/kvm.h)
#: MTRRs, which are state and which KVM does not list (QEMU's kvm_put_msrs names them too):
#: Intel SDM volume 4: eight pairs of base and mask, eleven fixed ranges, the default type.
_UNLISTED = (*range(0x200, 0x210), 0x250, 0x258, 0x259, *range(0x268, 0x270), 0x2FF)
#: name, bytes, request to get it, request to set it: in the order of saving.
_Plain = tuple[str, int, int, int]
_EVENTS: _Plain = ("events", 64, k.GET_VCPU_EVENTS, k.SET_VCPU_EVENTS)
_MP_STATE: _Plain = ("mp_state", 4, k.GET_MP_STATE, k.SET_MP_STATE)
_REGS: _Plain = ("regs", 144, k.GET_REGS, k.SET_REGS)
_XCRS: _Plain = ("xcrs", 392, k.GET_XCRS, k.SET_XCRS)
_SREGS: _Plain = ("sregs", 312, k.GET_SREGS, k.SET_SREGS)
_SREGS2: _Plain = ("sregs2", 320, k.GET_SREGS2, k.SET_SREGS2)
_LAPIC: _Plain = ("lapic", 1024, k.GET_LAPIC, k.SET_LAPIC)
_DEBUG: _Plain = ("debug", 128, k.GET_DEBUGREGS, k.SET_DEBUGREGS)


def _get(fd: int, request: int, buffer: bytearray, what: str) -> int:
    try:
        result: int = ioctl(fd, request, buffer)
    except OSError as error:
        raise HostError(f"can't save {what}: {error.strerror}", error.errno or 0) from None
    return result


def _set(fd: int, request: int, data: bytes | bytearray, what: str) -> int:
    # ioctl() refuses more than 1024 bytes of `bytes`, and takes any bytearray.
    try:
        result: int = ioctl(fd, request, bytearray(data))
    except OSError as error:
        raise HostError(f"KVM refuses {what}: {error.strerror}", error.errno or 0) from None
    return result


def _check(parts: Mapping[str, bytes], name: str, size: int) -> bytes:
    """Give a part that must be there, and of that size."""
    try:
        data = parts[name]
    except KeyError:
        raise StateError(f"the state has no part {name}") from None
    if len(data) != size:
        raise StateError(f"part {name}: expected {size} bytes, found {len(data)}")
    return data


def _check_msrs(parts: Mapping[str, bytes], name: str) -> None:
    data = parts.get(name)
    if data is None:
        raise StateError(f"the state has no part {name}")
    count = int.from_bytes(data[:4], "little")
    if len(data) != 8 + count * k.MSR_ENTRY.size or not count:
        raise StateError(f"part {name}: {len(data)} bytes can't hold {count} MSRs")


class CpuKeeper:
    """Saves and loads one vCPU, which must not run meanwhile.

    Attributes:
        msrs: numbers of the MSRs that are saved, IA32_TSC_DEADLINE and IA32_TSC at the end.
    """

    def __init__(self, vm: Vm, cpu: VCpu, msrs: list[int] | None = None) -> None:
        self._fd = cpu.fd
        self._prefix = f"cpu{cpu.number}/"
        get_xsave = k.GET_XSAVE2 if vm.xsave_bytes > 4096 else k.GET_XSAVE
        xsave: _Plain = ("xsave", vm.xsave_bytes, get_xsave, k.SET_XSAVE)
        sregs = _SREGS2 if vm.sregs2 else _SREGS
        self._saves = [
            (self._prefix + name, get, bytearray(size))
            for name, size, get, _ in (_EVENTS, _MP_STATE, _REGS, xsave, _XCRS, sregs)
        ]
        self._saves_last = [
            (self._prefix + name, get, bytearray(size)) for name, size, get, _ in (_LAPIC, _DEBUG)
        ]
        self._loads_first = (sregs, _REGS, xsave, _XCRS, _LAPIC)
        self._loads_last = (_EVENTS, _MP_STATE, _DEBUG)
        self._tsc_at = vm.scratch()
        self._tsc = k.DEVICE_ATTR.pack(0, _TSC_GROUP, _TSC_OFFSET, self._tsc_at.address)
        self.has_tsc_offset = self._has_tsc_offset()
        self.msrs = _settable(self._fd, [*vm.msr_indices(), *_UNLISTED]) if msrs is None else msrs
        self._msrs = _msr_buffer(self.msrs)

    def _has_tsc_offset(self) -> bool:
        try:
            ioctl(self._fd, k.HAS_DEVICE_ATTR, self._tsc)
        except OSError:
            return False
        return True

    def save(self, into: dict[str, bytes]) -> None:
        """Add this vCPU's parts; 10 ioctls.

        Raises:
            HostError: KVM refused one.
        """
        for name, request, buffer in self._saves:
            _get(self._fd, request, buffer, name)
            into[name] = bytes(buffer)
        name = self._prefix + "msrs"
        if _get(self._fd, k.GET_MSRS, self._msrs, name) != len(self.msrs):
            raise HostError(f"can't save {name}: one of them is not there any more")
        into[name] = bytes(self._msrs)
        for name, request, buffer in self._saves_last:
            _get(self._fd, request, buffer, name)
            into[name] = bytes(buffer)
        if self.has_tsc_offset:
            name = self._prefix + "tsc"
            _get(self._fd, k.GET_DEVICE_ATTR, bytearray(self._tsc), name)
            into[name] = bytes(self._tsc_at.view[:8])

    def check(self, parts: Mapping[str, bytes]) -> None:
        """See that every part is there and of its size.

        Raises:
            StateError: one is not.
        """
        for name, size, _, _ in (*self._loads_first, *self._loads_last):
            _check(parts, self._prefix + name, size)
        _check_msrs(parts, self._prefix + "msrs")
        if self._prefix + "tsc" in parts:
            _check(parts, self._prefix + "tsc", 8)

    def load(self, parts: Mapping[str, bytes]) -> None:
        """Set this vCPU to what was saved, and checked; 10 ioctls.

        Raises:
            HostError: KVM refused a part.
        """
        for name, _, _, request in self._loads_first:
            whole = self._prefix + name
            _set(self._fd, request, parts[whole], whole)
        offset = self._prefix + "tsc"
        keep_tsc = self.has_tsc_offset and offset in parts
        if keep_tsc:
            self._tsc_at.view[:8] = parts[offset]
            _set(self._fd, k.SET_DEVICE_ATTR, self._tsc, offset)
        self._load_msrs(parts, without_tsc=keep_tsc)
        for name, _, _, request in self._loads_last:
            whole = self._prefix + name
            _set(self._fd, request, parts[whole], whole)

    def _load_msrs(self, parts: Mapping[str, bytes], *, without_tsc: bool) -> None:
        name = self._prefix + "msrs"
        data = bytearray(parts[name])
        count = int.from_bytes(data[:4], "little")
        last = int.from_bytes(data[-16:-12], "little")
        if without_tsc and last == k.MSR_TSC:
            count -= 1
            data[:4] = count.to_bytes(4, "little")
        done = _set(self._fd, k.SET_MSRS, data, name)
        if done != count:
            index = int.from_bytes(data[8 + 16 * done : 12 + 16 * done], "little")
            raise HostError(f"KVM refuses {name}: MSR {index:#x}")


class Keeper:
    """Saves and loads a whole VM, all of whose vCPUs stand still."""

    def __init__(self, vm: Vm) -> None:
        self._fd = vm.fd
        self._chips = [(name, bytearray(520)) for name in _CHIPS]
        for number, (_, buffer) in enumerate(self._chips):
            buffer[0] = number
        self._pit = bytearray(112)
        self._clock = bytearray(k.CLOCK.size)
        self._clock_flags = vm.clock_flags & k.CLOCK_REALTIME
        self.cpus: list[CpuKeeper] = []
        for cpu in vm.cpus:
            # All vCPUs of a VM are alike: the MSRs need looking for only once.
            msrs = self.cpus[0].msrs if self.cpus else None
            self.cpus.append(CpuKeeper(vm, cpu, msrs))

    def save(self) -> dict[str, bytes]:
        """Give every part by its name.

        Raises:
            HostError: KVM refused one.
        """
        parts: dict[str, bytes] = {}
        for cpu in self.cpus:
            cpu.save(parts)
        # After the vCPUs: nothing that they did can change these any more.
        for name, buffer in self._chips:
            _get(self._fd, k.GET_IRQCHIP, buffer, name)
            parts["vm/" + name] = bytes(buffer)
        _get(self._fd, k.GET_PIT2, self._pit, "pit")
        parts["vm/pit"] = bytes(self._pit)
        _get(self._fd, k.GET_CLOCK, self._clock, "clock")
        parts["vm/clock"] = bytes(self._clock)
        return parts

    def check(self, parts: Mapping[str, bytes]) -> None:
        """See that these are the parts of such a VM: all there, of their sizes, no vCPU more.

        Raises:
            StateError: what is wrong; nothing was set.
        """
        for number, name in enumerate(_CHIPS):
            data = _check(parts, "vm/" + name, 520)
            if data[0] != number:
                raise StateError(f"part vm/{name} is of interrupt controller {data[0]}")
        _check(parts, "vm/pit", len(self._pit))
        _check(parts, "vm/clock", k.CLOCK.size)
        for cpu in self.cpus:
            cpu.check(parts)
        if f"cpu{len(self.cpus)}/regs" in parts:
            raise StateError(f"the state is of more vCPUs than the {len(self.cpus)} of this VM")

    def load(self, parts: Mapping[str, bytes]) -> None:
        """Set the VM to what was saved, by this process or another.

        Raises:
            StateError: as `check`.
            HostError: KVM refused a part; what came before it is set.
        """
        self.check(parts)
        for name in _CHIPS:
            _set(self._fd, k.SET_IRQCHIP, parts["vm/" + name], name)
        _set(self._fd, k.SET_PIT2, parts["vm/pit"], "pit")
        self._load_clock(parts["vm/clock"])
        for cpu in self.cpus:
            cpu.load(parts)

    def _load_clock(self, data: bytes) -> None:
        """Set kvmclock; with a wall-clock time beside it KVM adds what passed since."""
        clock, flags, realtime, _ = k.CLOCK.unpack(data)
        flags &= self._clock_flags
        _set(self._fd, k.SET_CLOCK, k.CLOCK.pack(clock, flags, realtime, 0), "clock")


def _msr_buffer(indices: list[int]) -> bytearray:
    """Make a struct kvm_msrs that asks for these."""
    buffer = bytearray(len(indices).to_bytes(8, "little"))
    for index in indices:
        buffer += k.MSR_ENTRY.pack(index, 0)
    return buffer


def _settable(fd: int, listed: list[int]) -> list[int]:
    """Drop the MSRs that can't be read, or can't be written back, on this vCPU.

    KVM lists more than a vCPU has: what its CPUID does not show can't be set. Both calls stop
    at the first MSR that fails and say how many they did. IA32_TSC is only read: setting it would
    move the vCPU's clock.
    """
    timers = [msr for msr in (k.MSR_TSC_DEADLINE, k.MSR_TSC) if msr in listed]
    wanted = [msr for msr in listed if msr not in timers] + timers
    while True:
        buffer = _msr_buffer(wanted)
        done = _get(fd, k.GET_MSRS, buffer, "msrs")
        if done == len(wanted):
            tried = done - (wanted[-1:] == [k.MSR_TSC])
            buffer[:4] = tried.to_bytes(4, "little")
            done = _set(fd, k.SET_MSRS, buffer, "msrs")
            if done == tried:
                return wanted
        del wanted[done]
