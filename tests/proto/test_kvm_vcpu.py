"""The loop around KVM_RUN, with exits that are made up; and machines without KVM."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cprproto.errors import GuestError, HostError
from cprproto.kvm import ioctls as k
from cprproto.kvm import vcpu
from cprproto.kvm.vcpu import KICK_SIGNAL, VCpu, catch_kicks
from cprproto.kvm.vm import Vm, missing
from cprproto.machine.guest import make_guest
from cprproto.machine.ram import Memory
from cprproto.machine.wiring import Wiring

#: One entry into the guest: what it leaves in the shared page, or raises.
Step = Callable[[VCpu], None]


class Guest:
    """A vCPU whose kernel is a list of steps; when they are used up it waits for a kick."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fd = os.memfd_create("run", os.MFD_CLOEXEC)
        os.ftruncate(fd, 8192)
        self.cpu = VCpu(3, fd, 8192)
        self.steps: list[Step] = []
        self.entries = 0
        self.wrote: list[tuple[int, bytes]] = []
        self.cpu.write_port = lambda port, data: self.wrote.append((port, data))
        monkeypatch.setattr(vcpu, "ioctl", self.ioctl)

    @property
    def page(self) -> memoryview:
        return memoryview(self.cpu._page)

    def ioctl(self, fd: int, request: int, argument: int) -> int:
        assert (fd, request, argument) == (self.cpu.fd, k.RUN, 0)
        self.entries += 1
        if self.page[k.RUN_IMMEDIATE_EXIT]:
            raise InterruptedError(errno.EINTR, "kicked")
        if not self.steps:
            self.cpu._thread = 0  # kick without a signal to this thread
            self.cpu.kick()
            raise InterruptedError(errno.EINTR, "kicked")
        self.steps.pop(0)(self.cpu)
        return 0


def leave(reason: int, data: bytes = b"", *, extra: bytes = b"") -> Step:
    def step(cpu: VCpu) -> None:
        cpu._page[k.RUN_EXIT_REASON : k.RUN_EXIT_REASON + 4] = reason.to_bytes(4, "little")
        cpu._page[k.RUN_UNION : k.RUN_UNION + len(data)] = data
        cpu._page[4096 : 4096 + len(extra)] = extra

    return step


def port_out(port: int, data: bytes, size: int = 1) -> Step:
    io = k.RUN_IO.pack(1, size, port, len(data) // size, 4096)
    return leave(2, io, extra=data)


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guest]:
    made = Guest(monkeypatch)
    yield made
    made.cpu.close()
    made.cpu.close()


def test_what_the_guest_writes_to_ports(guest: Guest) -> None:
    guest.steps = [port_out(0x3F8, b"a"), port_out(0x3F8, b"bc"), port_out(0x80, b"wxyz", 4)]
    guest.cpu.run()
    assert guest.wrote == [(0x3F8, b"a"), (0x3F8, b"bc"), (0x80, b"wxyz")]
    assert guest.cpu.exits == 3


def test_an_access_is_completed_before_it_stops(guest: Guest) -> None:
    """Kicked while it serves an exit, the vCPU still enters KVM once more."""

    def kicked(port: int, data: bytes) -> None:
        guest.wrote.append((port, data))
        guest.cpu._thread = 0
        guest.cpu.kick()

    guest.cpu.write_port = kicked
    guest.steps = [port_out(0x3F8, b"a"), port_out(0x3F8, b"b")]
    guest.cpu.run()
    assert guest.wrote == [(0x3F8, b"a")]
    assert guest.entries == 2
    guest.cpu.allow()
    guest.cpu.run()
    assert guest.wrote == [(0x3F8, b"a"), (0x3F8, b"b")]


def test_a_kick_before_the_run(guest: Guest) -> None:
    guest.cpu.kick()
    guest.steps = [port_out(0x3F8, b"a")]
    guest.cpu.run()
    assert (guest.entries, guest.wrote) == (1, [])


def test_a_signal_that_is_no_kick(guest: Guest) -> None:
    def interrupted(_cpu: VCpu) -> None:
        raise InterruptedError(errno.EINTR, "somebody's signal")

    guest.steps = [interrupted, port_out(0x3F8, b"a")]
    guest.cpu.run()
    assert guest.wrote == [(0x3F8, b"a")]


def test_what_the_guest_reads(guest: Guest) -> None:
    port_in = leave(2, k.RUN_IO.pack(0, 2, 0x1234, 1, 4096))

    def seen(cpu: VCpu) -> None:
        assert cpu._page[4096:4098] == b"\xff\xff"
        leave(6, k.RUN_MMIO.pack(0xFED00000, bytes(8), 4, 0))(cpu)

    def memory_seen(cpu: VCpu) -> None:
        assert cpu._page[k.RUN_UNION + 8 : k.RUN_UNION + 16] == b"\xff" * 4 + bytes(4)
        leave(6, k.RUN_MMIO.pack(0xFED00000, b"abcdefgh", 8, 1))(cpu)

    guest.steps = [port_in, seen, memory_seen]
    guest.cpu.run()
    assert guest.cpu.exits == 3


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (8, "exit 8 (SHUTDOWN)"),
        (9, "exit 9 (FAIL_ENTRY)"),
        (17, "exit 17 (INTERNAL_ERROR)"),
        (99, "exit 99 (of no known name)"),
    ],
)
def test_a_guest_that_can_not_go_on(guest: Guest, reason: int, text: str) -> None:
    guest.steps = [leave(reason, bytes(range(48)))]
    with pytest.raises(GuestError, match=re.escape(f"vCPU 3 stopped: {text}")):
        guest.cpu.run()


def test_a_run_that_the_kernel_refuses(guest: Guest) -> None:
    def refused(_cpu: VCpu) -> None:
        raise OSError(errno.EFAULT, "Bad address")

    guest.steps = [refused]
    with pytest.raises(GuestError, match="vCPU 3: KVM_RUN: Bad address"):
        guest.cpu.run()


def test_a_handler_of_somebody_else_is_left() -> None:
    before = signal.getsignal(KICK_SIGNAL)
    try:
        signal.signal(KICK_SIGNAL, signal.SIG_DFL)
        catch_kicks()
        ours = signal.getsignal(KICK_SIGNAL)
        assert callable(ours)
        catch_kicks()
        assert signal.getsignal(KICK_SIGNAL) is ours

        def other(_number: int, _frame: object) -> None:
            pass

        signal.signal(KICK_SIGNAL, other)
        catch_kicks()
        assert signal.getsignal(KICK_SIGNAL) is other
    finally:
        signal.signal(KICK_SIGNAL, before)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/dev/none", "/dev/none: No such file or directory"),
        ("/dev/null", "/dev/null is no KVM: Inappropriate ioctl for device"),
    ],
)
def test_a_machine_without_kvm(path: str, text: str) -> None:
    fds = len(list(Path("/proc/self/fd").iterdir()))
    assert missing(path) == text
    with pytest.raises(HostError) as caught:
        Vm(path)
    assert caught.value.errno in {errno.ENOENT, errno.ENOTTY}
    assert len(list(Path("/proc/self/fd").iterdir())) == fds


def test_auto_takes_the_software_cpu_without_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cprproto.machine.guest.missing", lambda: "no KVM here")
    memory, wiring = Memory.make(2 << 20), Wiring.make(0)
    made = make_guest("auto", memory, wiring)
    assert made.kind == "soft"
    made.close()
    wiring.close()
    memory.close()
