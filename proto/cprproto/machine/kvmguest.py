"""A real KVM guest, in stages that put everything slow in front of the pause.

==================  ====================================================  ============
when                what                                                  1 vCPU, here
==================  ====================================================  ============
before the pause    `KvmGuest(...)`: VM, slots, vCPUs, threads, buffers   7 ms
old side            `untie` the interrupts, part of `pause`               0.1 ms
old side            `pause`: stop the vCPUs                               0.1 ms
old side            `save`                                                0.1 ms
new side            `load`                                                0.2 ms
new side            `resume`: let the vCPUs run, tie the interrupts       0.2 ms
==================  ====================================================  ============

Interrupts: a device may fire at any time, from another process. `pause` unties the eventfds while
the guest still runs, so that what fires later stays in the eventfd's count, where the new side
finds it when it ties them; KVM lets only one VM hold an eventfd. Whatever KVM took before is in the
interrupt controllers, hence in `save`.

Nothing here may import what takes long: a program that was exec'd imports this while the guest
stands still.
"""

from __future__ import annotations

import _thread

from cprproto.errors import GuestError, ProtoError
from cprproto.kvm.state import Keeper
from cprproto.kvm.vcpu import VCpu, catch_kicks
from cprproto.kvm.vm import Vm
from cprproto.machine import layout as at

TYPE_CHECKING = False  # `typing` takes 10 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cprproto.machine.boot import BootConfig
    from cprproto.machine.ram import Memory
    from cprproto.machine.report import GuestReport
    from cprproto.machine.wiring import Wiring

__all__ = ["KvmGuest"]

#: How long a vCPU may take to stop, and a thread to end, in seconds.
_PATIENCE = 5.0
_LINE_STATUS, _EMPTY = 5, 0x60  # 16550: the register, and "nothing is left to send"


class _Runner:
    """One vCPU's thread: it waits, runs the vCPU until it is kicked, and waits again."""

    __slots__ = ("cpu", "done", "ending", "failure", "go")

    def __init__(self, cpu: VCpu) -> None:
        self.cpu = cpu
        self.failure: Exception | None = None
        self.ending = False
        # Locks as signals: taken until the other side gives them free.
        self.go, self.done = _thread.allocate_lock(), _thread.allocate_lock()
        self.go.acquire()
        self.done.acquire()
        _thread.start_new_thread(self._work, ())

    def _work(self) -> None:
        while True:
            self.go.acquire()
            if self.ending:
                self.done.release()
                return
            try:
                self.cpu.run()
            except Exception as error:  # noqa: BLE001 -- it is told to whoever asks next
                self.failure = error
            self.done.release()

    def wait(self) -> None:
        """Wait until the vCPU stands still."""
        if not self.done.acquire(timeout=_PATIENCE):
            raise GuestError(f"vCPU {self.cpu.number} did not stop in {_PATIENCE:g} s")


class KvmGuest:
    """A guest in a KVM virtual machine. Not running after construction: `boot` or `load` it first.

    Attributes:
        kind: ``kvm``.
        vm: the virtual machine.
        memory, wiring: what it was made with; they stay the caller's to close.
    """

    kind = "kvm"

    def __init__(
        self,
        memory: Memory,
        wiring: Wiring,
        cpus: int = 1,
        serial: Callable[[bytes], object] | None = None,
    ) -> None:
        """Build the machine: all that can be done before there is a state.

        Args:
            memory: its blocks; they are mapped here.
            wiring: the event descriptors of its devices.
            cpus: how many vCPUs.
            serial: takes what the guest prints, some bytes at a time, in a thread of its own.

        Raises:
            HostError: there is no usable KVM, or it refuses this machine.
        """
        self.memory, self.wiring = memory, wiring
        self._serial = serial
        self._tied = self._running = False
        self._runners: list[_Runner] = []
        catch_kicks()
        self.vm = Vm()
        try:
            for number, slot in enumerate(memory.slots()):
                guest, size, address, readonly = slot
                self.vm.set_memory(number, guest, size, address, readonly=readonly)
            for _ in range(cpus):
                cpu = self.vm.add_cpu()
                cpu.write_port, cpu.read_port = self._write_port, self._read_port
            if wiring.kick is not None:
                self.vm.ioeventfd(wiring.kick, at.DOORBELL)
            self._keeper = Keeper(self.vm)
        except ProtoError:
            self.vm.close()
            raise
        self._runners = [_Runner(cpu) for cpu in self.vm.cpus]
        self._rehearse()

    def _rehearse(self) -> None:
        """Go through save, load and a run of no instruction once: faults show before the pause.

        It also warms up what the pause needs: a load takes 180 us then, and 200 without.
        """
        try:
            self._keeper.load(self._keeper.save())
            for runner in self._runners:
                runner.cpu.kick()
                runner.go.release()
                runner.wait()
            self.check()
        except ProtoError:
            self.close()
            raise

    # -- ports -----------------------------------------------------------------------

    def _write_port(self, port: int, data: bytes) -> None:
        if port == at.SERIAL_PORT:
            if self._serial is not None:
                self._serial(data)
        elif port == at.FAULT_PORT:
            raise GuestError(f"the guest met exception {data[0]}")

    @staticmethod
    def _read_port(port: int, count: int) -> bytes:
        value = _EMPTY if port == at.SERIAL_PORT + _LINE_STATUS else 0xFF
        return bytes([value]) * count

    # -- life ------------------------------------------------------------------------

    def boot(self, config: BootConfig | None = None) -> None:
        """Start afresh: write memory and registers; then `resume`.

        Raises:
            GuestError: it runs already, or no guest can be like that.
            HostError: KVM refuses the registers.
        """
        from cprproto.machine import boot, pattern  # noqa: PLC0415 -- never after a hand-off

        self._must_stand("boot")
        config = config or boot.BootConfig()
        cpus = self.vm.cpus
        khz = cpus[0].tsc_khz()
        boot.write_control(self.memory, len(cpus), config, kind=self.kind, tsc_khz=khz)
        boot.write_program(self.memory)
        for cpu in cpus:
            first, _ = pattern.share(self.memory.ram.size, len(cpus), cpu.number)
            boot.start_cpu(cpu, config.salt, first)

    def resume(self) -> None:
        """Let the vCPUs run, then tie the interrupts: what waits in an eventfd comes now.

        Raises:
            GuestError: it runs already.
            HostError: another VM holds an eventfd.
        """
        self._must_stand("resume")
        self._running = True
        for runner in self._runners:
            runner.cpu.allow()
            runner.go.release()
        self.tie()

    def pause(self) -> None:
        """Untie the interrupts, then stop every vCPU between two instructions.

        Raises:
            GuestError: it does not run, a vCPU has failed before (and said why), or does not stop.
        """
        if not self._running:
            raise GuestError("can't pause: the guest does not run")
        self.untie()
        for runner in self._runners:
            runner.cpu.kick()
        for runner in self._runners:
            runner.wait()
        self._running = False
        self.check()

    def tie(self) -> None:
        """Tie the devices' eventfds to their interrupt lines.

        A level-triggered device is told of an EOI that may not have been: one that the guest
        gave while nothing was tied went unseen, and its device would wait for ever. A device
        that still wants something fires again then (QEMU unmasks after it sets up a VFIO INTx
        for the same reason: hw/vfio/pci.c, vfio_intx_enable_kvm, 10.0).
        """
        if not self._tied:
            for fd, line, resample in self.wiring.lines():
                self.vm.irqfd(fd, line, resample=resample)
            self.wiring.tell_ended()
            self._tied = True

    def untie(self) -> None:
        """Untie them: events stay in the eventfds from here on. For use before `pause`."""
        if self._tied:
            for fd, line, resample in self.wiring.lines():
                self.vm.irqfd(fd, line, resample=resample, on=False)
            self._tied = False

    def save(self) -> dict[str, bytes]:
        """Give all state that is in the kernel, by the names of `cprproto.kvm.state`.

        Raises:
            GuestError: it runs.
            HostError: KVM refuses.
        """
        self._must_stand("save")
        return self._keeper.save()

    def load(self, parts: Mapping[str, bytes]) -> None:
        """Take a saved state; `resume` goes on from there.

        Raises:
            GuestError: it runs.
            StateError: parts are missing, of a wrong size, or of another machine; nothing was set.
            HostError: KVM refuses a part.
        """
        self._must_stand("load")
        self._keeper.load(parts)

    def check(self) -> None:
        """Raise what stopped a vCPU, if anything did.

        Raises:
            GuestError: why it stopped.
        """
        for runner in self._runners:
            if runner.failure is not None:
                raise GuestError(str(runner.failure)) from None

    def report(self, *, every: int = 1) -> GuestReport:
        """Read its counters and look over its memory."""
        from cprproto.machine.report import check_guest  # noqa: PLC0415 -- not in the pause

        ram, rom, vga = (block.view for block in self.memory.blocks)
        return check_guest(ram, rom, vga, running=self._running, every=every)

    @property
    def running(self) -> bool:
        """Tell whether the vCPUs run."""
        return self._running

    def _must_stand(self, what: str) -> None:
        if self._running:
            raise GuestError(f"can't {what}: the guest runs")

    def close(self) -> None:
        """Stop the guest and give the VM back; memory and eventfds stay."""
        if self._running:
            self.untie()
            for runner in self._runners:
                runner.cpu.kick()
            for runner in self._runners:
                runner.wait()
            self._running = False
        for runner in self._runners:
            runner.ending = True
            runner.go.release()
            runner.wait()
        self._runners = []
        self.vm.close()
