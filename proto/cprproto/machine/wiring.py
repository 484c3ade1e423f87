"""The event descriptors of a machine: what its guest is told through and tells through."""

from __future__ import annotations

import os

from cprproto.machine import layout as at

__all__ = ["Wiring"]


class Wiring:
    """Eventfds between the guest and its devices, which may live in other processes.

    Attributes:
        devices: one for each edge-triggered line; device n has line 16 + n.
        level: the level-triggered line 23: its eventfd and the one that tells of the guest's EOI.
        kick: counts the guest's rings of the doorbell.
    """

    __slots__ = ("devices", "kick", "level")

    def __init__(
        self, devices: tuple[int, ...], level: tuple[int, int] | None, kick: int | None
    ) -> None:
        if len(devices) > at.DEVICES:
            raise ValueError(f"{len(devices)} devices, at most {at.DEVICES}")
        self.devices, self.level, self.kick = devices, level, kick

    @classmethod
    def make(cls, devices: int = 2, *, level: bool = True) -> Wiring:
        """Make fresh eventfds, close-on-exec and non-blocking."""
        flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK
        count = devices + 1 + 2 * level
        kick, *fds = (os.eventfd(0, flags) for _ in range(count))
        pair = (fds[devices], fds[devices + 1]) if level else None
        return cls(tuple(fds[:devices]), pair, kick)

    def lines(self) -> list[tuple[int, int, int | None]]:
        """List eventfd, interrupt line and EOI eventfd of each device."""
        result: list[tuple[int, int, int | None]] = [
            (fd, 16 + number, None) for number, fd in enumerate(self.devices)
        ]
        if self.level is not None:
            result.append((self.level[0], at.LEVEL_LINE, self.level[1]))
        return result

    def tell_ended(self) -> None:
        """Make the level-triggered device look whether it still wants an interrupt."""
        if self.level is not None:
            os.eventfd_write(self.level[1], 1)

    @property
    def fds(self) -> tuple[int, ...]:
        """All descriptors."""
        kick = () if self.kick is None else (self.kick,)
        return (*self.devices, *(self.level or ()), *kick)

    def close(self) -> None:
        """Close all descriptors."""
        for fd in self.fds:
            os.close(fd)
        self.devices, self.level, self.kick = (), None, None
