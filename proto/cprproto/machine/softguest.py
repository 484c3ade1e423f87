"""The same guest where there is no KVM: software CPUs, which take turns in one thread.

It has the same stages as `cprproto.machine.kvmguest`, and its state has parts too: ``cpu0/soft``
and so on. Interrupts that come while it stands still stay in their eventfds.
"""

from __future__ import annotations

import _thread
from time import monotonic_ns, sleep

from cprproto.errors import GuestError, StateError
from cprproto.machine import layout as at
from cprproto.machine.softcpu import PROGRAM, TSC_KHZ, SoftCpu

TYPE_CHECKING = False  # `typing` takes 10 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cprproto.machine.boot import BootConfig
    from cprproto.machine.ram import Memory
    from cprproto.machine.report import GuestReport
    from cprproto.machine.wiring import Wiring

__all__ = ["SoftGuest"]

_PATIENCE = 5.0
_IDLE = (at.CONTROL + at.GLOBAL["idle"]) // 8
_NAP = 0.001


class SoftGuest:
    """A guest on software CPUs; see `KvmGuest` for what each method promises.

    Attributes:
        kind: ``soft``.
        memory, wiring: what it was made with; they stay the caller's to close.
    """

    kind = "soft"

    def __init__(
        self,
        memory: Memory,
        wiring: Wiring,
        cpus: int = 1,
        serial: Callable[[bytes], object] | None = None,
    ) -> None:
        self.memory, self.wiring = memory, wiring
        send = serial or _nobody
        for block in memory.blocks:
            block.map()
        ram, vga = memory.ram.view, memory.vga.view
        self._cpus = [SoftCpu(number, ram, vga, wiring, send, cpus) for number in range(cpus)]
        self._failure: Exception | None = None
        self._stop = self._running = self._ready = False
        self._done = _thread.allocate_lock()

    def boot(self, config: BootConfig | None = None) -> None:
        """Start afresh: write memory and registers; then `resume`."""
        from cprproto.machine import boot  # noqa: PLC0415 -- never after a hand-off

        self._must_stand("boot")
        config = config or boot.BootConfig()
        boot.write_control(self.memory, len(self._cpus), config, kind=self.kind, tsc_khz=TSC_KHZ)
        for cpu in self._cpus:
            cpu.start()
        self._ready = True

    def resume(self) -> None:
        """Let the CPUs run."""
        self._must_stand("resume")
        if not self._ready:
            raise GuestError("can't resume: the guest has no state yet")
        self._running, self._stop = True, False
        self._done.acquire()
        _thread.start_new_thread(self._work, ())
        self.wiring.tell_ended()  # as KvmGuest.tie

    def _work(self) -> None:
        try:
            self._loop()
        except Exception as error:  # noqa: BLE001 -- it is told to whoever asks next
            self._failure = error
        finally:
            self._done.release()

    def _loop(self) -> None:
        cpus, words = self._cpus, self._cpus[0].words
        last = len(PROGRAM) - 1
        while not self._stop:
            for cpu in cpus:
                pc = cpu.pc
                PROGRAM[pc](cpu)
                cpu.pc = 0 if pc == last else pc + 1
            if not cpus[0].pc:
                self._rest(idle=bool(words[_IDLE]))

    def _rest(self, *, idle: bool) -> None:
        """After each round let other threads in; an idle guest sleeps until its next tick."""
        due = self._cpus[0].sleep_until() if idle else 0
        wait = (due - monotonic_ns()) / 1e9 if due else 0
        # Devices fire when they like: no nap may be long.
        sleep(min(max(wait, 0), _NAP))

    def pause(self) -> None:
        """Stop all CPUs between two instructions."""
        if not self._running:
            raise GuestError("can't pause: the guest does not run")
        self._stop = True
        if not self._done.acquire(timeout=_PATIENCE):
            raise GuestError(f"the software CPUs did not stop in {_PATIENCE:g} s")
        self._done.release()
        self._running = False
        self.check()

    def save(self) -> dict[str, bytes]:
        """Give every CPU's registers."""
        self._must_stand("save")
        return {f"cpu{cpu.number}/soft": cpu.registers() for cpu in self._cpus}

    def load(self, parts: Mapping[str, bytes]) -> None:
        """Take saved registers.

        Raises:
            StateError: a part is missing or makes no sense; nothing was taken.
        """
        self._must_stand("load")
        names = [f"cpu{cpu.number}/soft" for cpu in self._cpus]
        for name in names:
            if name not in parts:
                raise StateError(f"the state has no part {name}")
            SoftCpu.check_registers(name, parts[name])
        if f"cpu{len(names)}/soft" in parts:
            raise StateError(f"the state is of more CPUs than the {len(names)} of this guest")
        for name, cpu in zip(names, self._cpus, strict=True):
            cpu.set_registers(parts[name])
        self._ready = True

    def tie(self) -> None:
        """Nothing to do: eventfds are read only while the CPUs run."""

    def untie(self) -> None:
        """Nothing to do: eventfds are read only while the CPUs run."""

    def check(self) -> None:
        """Raise what stopped the CPUs, if anything did."""
        if self._failure is not None:
            raise GuestError(f"the software CPUs stopped: {self._failure}") from self._failure

    def report(self, *, every: int = 1) -> GuestReport:
        """Read its counters and look over its memory."""
        from cprproto.machine.report import check_guest  # noqa: PLC0415 -- not in the pause

        ram, rom, vga = (block.view for block in self.memory.blocks)
        return check_guest(ram, rom, vga, running=self._running, every=every)

    @property
    def running(self) -> bool:
        """Tell whether the CPUs run."""
        return self._running

    def _must_stand(self, what: str) -> None:
        if self._running:
            raise GuestError(f"can't {what}: the guest runs")

    def close(self) -> None:
        """Stop the CPUs; memory and eventfds stay."""
        if self._running:
            self._stop = True
            if not self._done.acquire(timeout=_PATIENCE):
                raise GuestError(f"the software CPUs did not stop in {_PATIENCE:g} s")
            self._done.release()
            self._running = False
        for cpu in self._cpus:
            cpu.release()
        self._cpus = []


def _nobody(_data: bytes) -> None:
    """Take what is printed where nobody listens."""
