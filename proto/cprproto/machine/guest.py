"""What every guest can do, whatever runs it, and how to get one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from cprproto.errors import HostError
from cprproto.kvm.vm import missing
from cprproto.machine.boot import BootConfig
from cprproto.machine.ram import Memory
from cprproto.machine.report import GuestReport
from cprproto.machine.wiring import Wiring

__all__ = ["KINDS", "Guest", "make_guest"]

KINDS = ("kvm", "soft")


class Guest(Protocol):
    """A guest: `KvmGuest` or `SoftGuest`, whose docstrings say more.

    Its life: made (all that is slow), then `boot` or `load`, then `resume` and `pause` as
    often as wanted, with `save` and `load` while it stands still, then `close`.
    """

    memory: Memory
    wiring: Wiring

    @property
    def kind(self) -> str:
        """``kvm`` or ``soft``: what really runs it."""

    @property
    def running(self) -> bool:
        """Tell whether it runs."""

    def boot(self, config: BootConfig | None = None) -> None:
        """Start afresh; then `resume`."""

    def resume(self) -> None:
        """Let it run, then tie its interrupts."""

    def pause(self) -> None:
        """Untie its interrupts and stop it; no CPU runs any more when this returns."""

    def tie(self) -> None:
        """Deliver device interrupts again."""

    def untie(self) -> None:
        """Leave device interrupts in their eventfds from here on; `pause` does it too."""

    def save(self) -> dict[str, bytes]:
        """Give the state that is not in its memory, by name."""

    def load(self, parts: Mapping[str, bytes]) -> None:
        """Take such a state."""

    def check(self) -> None:
        """Raise what stopped it, if anything did."""

    def report(self, *, every: int = 1) -> GuestReport:
        """Read its counters and look over its memory."""

    def close(self) -> None:
        """Stop it and give back all but memory and eventfds."""


def make_guest(
    kind: str,
    memory: Memory,
    wiring: Wiring,
    cpus: int = 1,
    serial: Callable[[bytes], object] | None = None,
) -> Guest:
    """Make a guest of a kind: ``kvm``, ``soft``, or ``auto`` for KVM where it works.

    Raises:
        HostError: KVM was asked for by name and can't be used here, or there is no such kind.
    """
    if kind == "auto":
        kind = "soft" if missing() else "kvm"
    if kind == "kvm":
        from cprproto.machine.kvmguest import KvmGuest  # noqa: PLC0415 -- only what runs

        return KvmGuest(memory, wiring, cpus, serial)
    if kind == "soft":
        from cprproto.machine.softguest import SoftGuest  # noqa: PLC0415 -- only what runs

        return SoftGuest(memory, wiring, cpus, serial)
    raise HostError(f"there is no guest of kind {kind!r}; there are {', '.join(KINDS)}, and auto")
