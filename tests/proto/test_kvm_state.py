"""Saving and loading vCPU state against a kernel that is made up: order, sizes, refusals."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cprproto.errors import HostError, StateError
from cprproto.kvm import ioctls as k
from cprproto.kvm import state
from cprproto.kvm.state import Keeper
from cprproto.kvm.vm import Vm

REQUESTS = {value: name for name, value in vars(k).items() if name[:4] in {"GET_", "SET_"}}
VM_FD = 100
MSRS = [0x174, 0x6E0, 0x10, 0x277, 0xBAD, 0xC0000102]


class Kernel:
    """What KVM keeps of a VM and its vCPUs, and the calls that were made."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, str, int], bytes] = {}
        self.msrs: dict[int, int] = {}
        self.calls: list[str] = []
        self.refuse: set[str] = set()
        self.no_tsc_offset = False
        self.scratch = memoryview(bytearray(8))
        self.bad_msrs = {0xBAD}

    def ioctl(self, fd: int, request: int, buffer: bytearray) -> int:
        name = REQUESTS.get(request, "HAS_DEVICE_ATTR")
        self.calls.append(name)
        if name in self.refuse or (name == "HAS_DEVICE_ATTR" and self.no_tsc_offset):
            raise OSError(errno.EINVAL, "Invalid argument")
        if name.endswith("_MSRS"):
            return self._msrs(name, buffer)
        what, chip = name[4:].removesuffix("2"), buffer[0] if "IRQCHIP" in name else 0
        if "DEVICE_ATTR" in name:
            what, data = "TSC", self.scratch
        else:
            data = memoryview(buffer)
        if name.startswith("SET_"):
            self.kept[fd, what, chip] = bytes(data)
        elif (fd, what, chip) in self.kept:
            data[:] = self.kept[fd, what, chip]
        elif name.startswith("GET_"):
            data[1:] = bytes([fd + len(what)]) * (len(data) - 1)
        return 0

    def _msrs(self, name: str, buffer: bytearray) -> int:
        """Stop at the first one that is not there, as KVM does."""
        for number in range(int.from_bytes(buffer[:4], "little")):
            index, value = struct.unpack_from("<I4xQ", buffer, 8 + 16 * number)
            if index in self.bad_msrs:
                return number
            if name == "SET_MSRS":
                self.msrs[index] = value
            else:
                struct.pack_into("<Q", buffer, 16 + 16 * number, self.msrs.get(index, 7))
        return int.from_bytes(buffer[:4], "little")


def machine(kernel: Kernel, cpus: int = 1, **more: Any) -> Vm:
    scratch = SimpleNamespace(address=0x1000, view=kernel.scratch)
    facts: dict[str, Any] = {"sregs2": True, "xsave_bytes": 4096, "clock_flags": 0xE} | more
    made = SimpleNamespace(
        fd=VM_FD,
        cpus=[SimpleNamespace(number=n, fd=10 + n) for n in range(cpus)],
        scratch=lambda: scratch,
        msr_indices=lambda: list(MSRS),
        **facts,
    )
    return cast("Vm", made)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(state, "ioctl", made.ioctl)
    return made


def test_one_call_a_part_in_the_right_order(kernel: Kernel) -> None:
    keeper = Keeper(machine(kernel))
    kernel.calls.clear()
    parts = keeper.save()
    saving = "VCPU_EVENTS MP_STATE REGS XSAVE XCRS SREGS2 MSRS LAPIC DEBUGREGS DEVICE_ATTR"
    chips = "IRQCHIP IRQCHIP IRQCHIP PIT2 CLOCK"
    assert kernel.calls == [f"GET_{name}" for name in f"{saving} {chips}".split()]
    assert len(parts) == len(kernel.calls) == 15
    kernel.calls.clear()
    keeper.load(parts)
    loading = "SREGS2 REGS XSAVE XCRS LAPIC DEVICE_ATTR MSRS VCPU_EVENTS MP_STATE DEBUGREGS"
    assert kernel.calls == [f"SET_{name}" for name in f"{chips} {loading}".split()]


def test_msrs_that_are_not_there_are_found_beforehand(kernel: Kernel) -> None:
    (cpu,) = Keeper(machine(kernel)).cpus
    assert cpu.msrs[:3] == [0x174, 0x277, 0xC0000102]
    assert cpu.msrs[-2:] == [k.MSR_TSC_DEADLINE, k.MSR_TSC]
    assert 0x2FF in cpu.msrs  # the MTRRs, which KVM does not list
    assert k.MSR_TSC not in kernel.msrs  # never written


def test_all_vcpus_share_what_the_first_found(kernel: Kernel) -> None:
    keeper = Keeper(machine(kernel, 3))
    assert kernel.calls.count("SET_MSRS") == 1
    parts = keeper.save()
    assert [name for name in parts if name.endswith("/regs")] == [f"cpu{n}/regs" for n in range(3)]
    assert len({parts[f"cpu{n}/regs"] for n in range(3)}) == 3


@pytest.mark.parametrize("offset", [True, False])
def test_the_tsc_is_set_by_offset_where_that_goes(kernel: Kernel, offset: bool) -> None:
    kernel.no_tsc_offset = not offset
    keeper = Keeper(machine(kernel))
    parts = keeper.save()
    assert ("cpu0/tsc" in parts) == offset
    keeper.load(parts)
    assert (k.MSR_TSC in kernel.msrs) == (not offset)


@pytest.mark.parametrize(
    ("facts", "name", "size"),
    [
        ({"sregs2": False}, "cpu0/sregs", 312),
        ({"sregs2": True}, "cpu0/sregs2", 320),
        ({"xsave_bytes": 11008}, "cpu0/xsave", 11008),
    ],
)
def test_what_the_kernel_has(kernel: Kernel, facts: dict[str, Any], name: str, size: int) -> None:
    keeper = Keeper(machine(kernel, **facts))
    parts = keeper.save()
    assert len(parts[name]) == size
    assert ("GET_XSAVE2" in kernel.calls) == (size == 11008)
    keeper.load(parts)


def test_the_clock_goes_on_by_wall_clock_where_that_goes(kernel: Kernel) -> None:
    for flags, wanted in ((0xE, k.CLOCK_REALTIME), (0x2, 0)):
        keeper = Keeper(machine(kernel, clock_flags=flags))
        parts = keeper.save() | {"vm/clock": k.CLOCK.pack(5, 0xE, 6, 7)}
        keeper.load(parts)
        assert k.CLOCK.unpack(kernel.kept[VM_FD, "CLOCK", 0]) == (5, wanted, 6, 0)


def without(name: str) -> Callable[[dict[str, bytes]], object]:
    return lambda parts: parts.pop(name)


def cut(name: str) -> Callable[[dict[str, bytes]], object]:
    return lambda parts: parts.update({name: parts[name][:-1]})


def put(name: str, data: bytes) -> Callable[[dict[str, bytes]], object]:
    return lambda parts: parts.update({name: data})


PARTS = ("events", "mp_state", "regs", "xsave", "xcrs", "sregs2", "lapic", "debug")
SIZES = (64, 4, 144, 4096, 392, 320, 1024, 128)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        *((without(f"cpu0/{name}"), f"the state has no part cpu0/{name}") for name in PARTS),
        *(
            (cut(f"cpu1/{name}"), f"part cpu1/{name}: expected {size} bytes, found {size - 1}")
            for name, size in zip(PARTS, SIZES, strict=True)
        ),
        *((without(f"vm/{name}"), f"no part vm/{name}") for name in ("pic0", "pit", "clock")),
        (cut("vm/ioapic"), "part vm/ioapic: expected 520 bytes, found 519"),
        (put("vm/pic1", bytes(520)), "part vm/pic1 is of interrupt controller 0"),
        (cut("cpu0/tsc"), "part cpu0/tsc: expected 8 bytes, found 7"),
        (without("cpu0/msrs"), "the state has no part cpu0/msrs"),
        (cut("cpu0/msrs"), r"part cpu0/msrs: \d+ bytes can't hold \d+ MSRs"),
        (put("cpu0/msrs", b""), "part cpu0/msrs: 0 bytes can't hold 0 MSRs"),
        (put("cpu0/msrs", bytes(8)), "part cpu0/msrs: 8 bytes can't hold 0 MSRs"),
        (put("cpu0/msrs", b"\xff" * 24), "part cpu0/msrs: 24 bytes can't hold 4294967295 MSRs"),
        (put("cpu2/regs", bytes(144)), "more vCPUs than the 2 of this VM"),
    ],
)
def test_parts_that_make_no_sense(
    kernel: Kernel, change: Callable[[dict[str, bytes]], object], text: str
) -> None:
    keeper = Keeper(machine(kernel, 2))
    parts = keeper.save()
    change(parts)
    kernel.calls.clear()
    with pytest.raises(StateError, match=text):
        keeper.load(parts)
    assert kernel.calls == []  # nothing was set


@pytest.mark.parametrize("name", ["MSRS", "REGS", "LAPIC", "IRQCHIP", "CLOCK", "DEVICE_ATTR"])
def test_what_the_kernel_refuses(kernel: Kernel, name: str) -> None:
    keeper = Keeper(machine(kernel))
    parts = keeper.save()
    kernel.refuse = {f"SET_{name}"}
    with pytest.raises(HostError, match=r"KVM refuses .*: Invalid argument") as caught:
        keeper.load(parts)
    assert caught.value.errno == errno.EINVAL
    kernel.refuse = {f"GET_{name}"}
    with pytest.raises(HostError, match="can't save"):
        keeper.save()


def test_an_msr_that_the_new_kernel_lacks(kernel: Kernel) -> None:
    keeper = Keeper(machine(kernel))
    parts = keeper.save()
    kernel.bad_msrs.add(0x277)
    with pytest.raises(HostError, match="KVM refuses cpu0/msrs: MSR 0x277"):
        keeper.load(parts)
    with pytest.raises(HostError, match="can't save cpu0/msrs"):
        keeper.save()
