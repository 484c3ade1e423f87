"""What only real KVM can show; without /dev/kvm nothing of this file is collected.

The questions that docs/guest.md answers are asked here, so that the answers stay true.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guestside import Side

from cprproto.errors import GuestError, HostError
from cprproto.kvm import ioctls as k
from cprproto.kvm.vm import Vm, missing
from cprproto.machine import assemble, layout
from cprproto.machine.boot import BootConfig
from cprproto.machine.code import CODE, PLACES
from cprproto.machine.kvmguest import KvmGuest
from cprproto.machine.ram import Memory, memfd_block
from cprproto.machine.report import read_report
from cprproto.machine.wiring import Wiring

pytestmark = pytest.mark.live
__test__ = not missing()

#: The parts of a state that change by themselves, and what of them may.
LAPIC_COUNT = slice(0x390, 0x394)


class Rig:
    """Memory and wires, and guests on them."""

    def __init__(self) -> None:
        self.memory, self.wiring = Memory.make(4 << 20), Wiring.make(1)
        self.guests: list[KvmGuest] = []

    def guest(self, cpus: int = 1) -> KvmGuest:
        self.guests.append(KvmGuest(self.memory, self.wiring, cpus))
        return self.guests[-1]

    def running(self, cpus: int = 1, config: BootConfig | None = None) -> KvmGuest:
        guest = self.guest(cpus)
        guest.boot(config)
        guest.resume()
        self.until_round(100)
        return guest

    def until_round(self, wanted: int) -> None:
        end = time.monotonic() + 30
        while min(cpu.rounds for cpu in read_report(self.memory.ram.view).cpus) < wanted:
            assert time.monotonic() < end
            time.sleep(0.002)

    def close(self) -> None:
        for guest in self.guests:
            guest.close()
        self.wiring.close()
        self.memory.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


# -- facts ---------------------------------------------------------------------------


def test_numbers_of_the_kernels_headers(tmp_path: Path) -> None:
    """Compile every request and size against the machine's own headers."""
    requests = {
        name: value
        for name, value in vars(k).items()
        if re.fullmatch(r"(GET|SET|CREATE|CHECK|HAS)_\w+|RUN|IRQFD|IOEVENTFD", name)
    }
    structs = {
        "kvm_userspace_memory_region": k.MEMORY_REGION.size,
        "kvm_irqfd": k.IRQFD_ARG.size,
        "kvm_ioeventfd": k.IOEVENT.size,
        "kvm_clock_data": k.CLOCK.size,
        "kvm_device_attr": k.DEVICE_ATTR.size,
        "kvm_regs": k.REGS.size,
        "kvm_segment": k.SEGMENT.size,
        "kvm_dtable": k.DTABLE.size,
        "kvm_msr_entry": k.MSR_ENTRY.size,
        "kvm_cpuid_entry2": k.CPUID_ENTRY.size,
        "kvm_irqchip": 520,
        "kvm_fpu": 416,
    }
    offsets = {
        "immediate_exit": k.RUN_IMMEDIATE_EXIT,
        "exit_reason": k.RUN_EXIT_REASON,
        "io": k.RUN_UNION,
        "mmio": k.RUN_UNION,
    }
    asserts = [f"KVM_{name} == {value}u" for name, value in requests.items()]
    asserts += [f"sizeof(struct {name}) == {size}" for name, size in structs.items()]
    asserts += [f"offsetof(struct kvm_run, {name}) == {at}" for name, at in offsets.items()]
    asserts += [f"KVM_EXIT_{name} == {number}" for number, name in k.EXIT_NAMES.items()]
    body = "".join(f'_Static_assert({text}, "{text}");\n' for text in asserts)
    source = tmp_path / "facts.c"
    source.write_text(f"#include <stddef.h>\n#include <linux/kvm.h>\n{body}")
    assert len(requests) > 45
    subprocess.run(["gcc", "-fsyntax-only", str(source)], check=True)


def test_the_program_is_what_the_listing_says() -> None:
    code, places = assemble.assemble()
    assert code == CODE
    assert places == PLACES
    module = Path(assemble.__file__).parent / "code.py"
    assert module.read_text() == assemble.render(code, places)


def test_a_listing_with_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "bad.s").write_text("frobnicate %rax\n")
    with pytest.raises(HostError, match="as: "):
        assemble.assemble(tmp_path / "bad.s")


# -- state ---------------------------------------------------------------------------


def differences(first: dict[str, bytes], second: dict[str, bytes]) -> set[str]:
    """Name the parts that differ, but for what moves on by itself: clocks."""
    assert first.keys() == second.keys()
    moves = {"vm/clock", "vm/pit"}
    result = set()
    for name in first.keys() - moves:
        one, two = bytearray(first[name]), bytearray(second[name])
        if name.endswith("/lapic"):
            one[LAPIC_COUNT] = two[LAPIC_COUNT] = bytes(4)
        if name.endswith("/msrs"):  # IA32_TSC is the last
            assert struct.unpack_from("<I", one, len(one) - 16) == (k.MSR_TSC,)
            del one[-8:], two[-8:]
        if one != two:
            result.add(name)
    return result


@pytest.mark.parametrize("cpus", [1, 4])
def test_what_was_set_is_what_is_there(rig: Rig, cpus: int) -> None:
    guest = rig.running(cpus)
    guest.pause()
    parts = guest.save()
    assert differences(parts, guest.save()) == set()
    other = KvmGuest(rig.memory, Wiring((), None, None), cpus)
    fresh = other.save()
    # The state is not what any new VM has: each part of the first vCPU was moved.
    moved = {f"cpu0/{name}" for name in ("regs", "sregs2", "xsave", "xcrs", "msrs", "lapic")}
    assert moved | {"cpu0/debug", "vm/ioapic"} <= differences(parts, fresh)
    other.load(parts)
    assert differences(parts, other.save()) == set()
    other.close()


def test_pit_and_clock_go_on(rig: Rig) -> None:
    guest = rig.running()
    guest.pause()
    parts = guest.save()
    other = KvmGuest(rig.memory, Wiring((), None, None))
    other.load(parts)
    after = other.save()
    # The channels' counts and modes are the same; only when they were loaded is not.
    for channel in range(3):
        start = 24 * channel
        assert parts["vm/pit"][start : start + 16] == after["vm/pit"][start : start + 16]
    before, now = (k.CLOCK.unpack(each["vm/clock"])[0] for each in (parts, after))
    assert 0 < now - before < 10_000_000_000
    other.close()


def test_tsc_goes_on_in_another_process(rig: Rig) -> None:
    guest = rig.running()
    guest.pause()
    parts = guest.save()
    side = Side("kvm", rig.memory, Wiring.make(1))
    there = side.ask("set", parts)
    here = guest.save()
    side.close()
    assert differences(parts, there) == set()
    assert there["cpu0/tsc"] == parts["cpu0/tsc"]
    ticks = [int.from_bytes(each["cpu0/msrs"][-8:], "little") for each in (parts, there, here)]
    assert ticks == sorted(ticks)
    guest.resume()


def test_a_state_that_kvm_refuses(rig: Rig) -> None:
    guest = rig.running()
    guest.pause()
    parts = guest.save()
    bad = bytearray(parts["cpu0/sregs2"])
    struct.pack_into("<Q", bad, 224, 1 << 63)  # CR0 with a bit that no CPU has
    with pytest.raises(HostError, match="KVM refuses cpu0/sregs2: Invalid argument"):
        guest.load({**parts, "cpu0/sregs2": bytes(bad)})
    guest.load(parts)
    guest.resume()
    rig.until_round(read_report(rig.memory.ram.view).rounds + 50)


def test_the_fpu_call_does_not_hold() -> None:
    """Why the guest starts with KVM_SET_XSAVE: XSTATE_BV is left at "untouched"."""
    vm = Vm()
    cpu = vm.add_cpu()
    fpu, area = bytearray(416), bytearray(4096)
    fcntl.ioctl(cpu.fd, k.GET_FPU, fpu)
    fpu[152 + 112] = 0x77  # xmm7
    fcntl.ioctl(cpu.fd, k.SET_FPU, fpu)
    fcntl.ioctl(cpu.fd, k.GET_XSAVE, area)
    vm.close()
    assert area[512] & 2 == 0


# -- guests that can't go on -----------------------------------------------------------


def test_a_guest_that_meets_an_exception(rig: Rig) -> None:
    guest = rig.guest()
    guest.boot()
    rig.memory.rom.view[:2] = b"\x0f\x0b"  # ud2
    guest.resume()
    time.sleep(0.05)
    with pytest.raises(GuestError, match="the guest met exception 6"):
        guest.pause()
    report = guest.report()
    assert report.cpus[0].fault == 6
    assert set(report.findings) == {
        "vCPU 0: stopped by exception 6",
        "the program in ROM was changed",
    }


def test_what_needs_it_to_run_or_to_stand(rig: Rig) -> None:
    guest = rig.running()
    assert guest.running
    for act in (guest.save, guest.boot, guest.resume):
        with pytest.raises(GuestError, match="the guest runs"):
            act()
    guest.pause()
    with pytest.raises(GuestError, match="does not run"):
        guest.pause()


def test_slots_that_kvm_refuses() -> None:
    vm, block = Vm(), memfd_block("ram", 1 << 20)
    address = block.map().address
    vm.set_memory(0, 0, 1 << 20, address)
    with pytest.raises(HostError, match="memory slot 1 at 0x1000: File exists"):
        vm.set_memory(1, 0x1000, 4096, address)
    with pytest.raises(HostError, match="memory slot 2 at 0x100001: Invalid argument"):
        vm.set_memory(2, 0x100001, 4096, address)
    vm.close()
    block.close()


def test_an_idle_guest_takes_few_rounds(rig: Rig) -> None:
    guest = rig.guest()
    guest.boot(BootConfig(idle=True, timer_hz=50, pit_hz=0))
    guest.resume()
    rig.until_round(10)
    guest.pause()
    (cpu,) = guest.report().cpus
    assert cpu.timer >= 9
    assert cpu.rounds <= cpu.timer + 2


def test_closing_gives_all_back(rig: Rig) -> None:
    def fds() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    rig.memory.slots()  # Python's mmap keeps a duplicate of each block's descriptor
    before = fds()
    for _ in range(3):
        guest = KvmGuest(rig.memory, rig.wiring, 2)
        guest.boot()
        guest.resume()
        guest.close()
    assert fds() == before


def test_huge_pages_hold_a_guest() -> None:
    pool = Path("/proc/sys/vm/nr_hugepages")
    before = pool.read_text()
    pool.write_text(str(int(before) + 2))
    try:
        ram = memfd_block("ram", 4 << 20, huge=True)
        memory = Memory(ram, memfd_block("rom", 65536), memfd_block("vga", 1 << 20))
        wiring = Wiring.make(1)
        guest = KvmGuest(memory, wiring)
        guest.boot(BootConfig(fill=True))
        guest.resume()
        time.sleep(0.05)
        guest.pause()
        assert guest.report().findings == ()
        guest.close()
        wiring.close()
        memory.close()
    finally:
        pool.write_text(before)


# -- questions of the field ------------------------------------------------------------

ASK = """
import fcntl, sys
for word in sys.argv[1:]:
    fd, request = word.split(":")
    try:
        fcntl.ioctl(int(fd), int(request), bytearray(1024))
        print("answered")
    except OSError as error:
        print(error.errno)
"""


def test_a_vm_does_not_survive_exec() -> None:
    """Open in the new program, and useless: every call gives EIO."""
    vm = Vm()
    cpu = vm.add_cpu()
    asks = [f"{vm.fd}:{k.GET_CLOCK}", f"{cpu.fd}:{k.GET_REGS}", f"{cpu.fd}:{k.RUN}"]
    command = [sys.executable, "-c", ASK, *asks]
    ran = subprocess.run(
        command, check=True, capture_output=True, text=True, pass_fds=[vm.fd, cpu.fd]
    )
    assert ran.stdout.split() == [str(errno.EIO)] * 3
    assert fcntl.ioctl(vm.fd, k.GET_CLOCK, bytearray(48)) == 0
    vm.close()


FORK = """
import errno, fcntl, os, sys
sys.path[:0] = sys.argv[1:]
from cprproto.kvm import ioctls as k
from cprproto.kvm.vm import Vm
vm = Vm()
cpu = vm.add_cpu()
def ask(fd, request):
    try:
        fcntl.ioctl(fd, request, bytearray(1024))
        return 0
    except OSError as error:
        return error.errno
if os.fork() == 0:
    print(ask(vm.fd, k.GET_CLOCK), ask(cpu.fd, k.GET_REGS), ask(cpu.fd, k.RUN), flush=True)
    try:
        cpu._page[0]
        print("page", flush=True)
    finally:
        os._exit(0)
os.wait()
print(ask(vm.fd, k.GET_CLOCK), ask(cpu.fd, k.GET_REGS), flush=True)
"""


def test_a_vm_does_not_survive_fork() -> None:
    """The child has the descriptors and the shared page, and no call works; the parent's do."""
    paths = [path for path in sys.path if path.endswith(("/proto", "/formats"))]
    command = [sys.executable, "-c", FORK, *paths]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ran.stdout.split() == [*[str(errno.EIO)] * 3, "page", "0", "0"]


def count(fd: int) -> int:
    """Look at an eventfd's count without reading it."""
    text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return int(re.findall(r"eventfd-count: +([0-9a-f]+)", text)[0], 16)


def test_an_eventfd_outlives_the_vm_it_was_tied_to() -> None:
    """KVM takes events while it is tied; what comes later stays, and the next VM delivers it.

    The count that the next VM delivers stays to be seen until an event comes or it is untied.
    """
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    first, second = Vm(), Vm()
    first.irqfd(fd, 16)
    with pytest.raises(HostError) as caught:
        second.irqfd(fd, 16)
    os.eventfd_write(fd, 5)
    time.sleep(0.02)
    with pytest.raises(BlockingIOError):  # taken by KVM
        os.eventfd_read(fd)
    first.close()
    os.eventfd_write(fd, 3)
    time.sleep(0.02)
    assert count(fd) == 3
    second.irqfd(fd, 16)
    time.sleep(0.02)
    assert count(fd) == 3
    second.irqfd(fd, 16, on=False)
    assert count(fd) == 0
    for clears in (True, False):
        os.eventfd_write(fd, 2)
        second.irqfd(fd, 16)
        assert count(fd) == 2
        if clears:
            os.eventfd_write(fd, 1)
            assert count(fd) == 0
        second.irqfd(fd, 16, on=False)
        assert count(fd) == 0
    second.close()
    os.close(fd)
    assert caught.value.errno == errno.EBUSY


def test_ioeventfds_may_be_set_up_in_both_vms() -> None:
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    first, second = Vm(), Vm()
    for vm in (first, second):
        vm.ioeventfd(fd, layout.DOORBELL)
        vm.ioeventfd(fd, 0x510, size=2, port=True)
        with pytest.raises(HostError, match="File exists"):
            vm.ioeventfd(fd, layout.DOORBELL)
        vm.ioeventfd(fd, layout.DOORBELL, on=False)
        vm.close()
    os.close(fd)
