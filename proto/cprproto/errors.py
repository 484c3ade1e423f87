"""What can go wrong in the launcher, as one tree of exceptions.

::

    ProtoError             the root: every error of this library is one
    |-- HostError          the kernel or the machine lacks or refuses what is needed
    |   `-- AddressTaken   memory can't be where it was: something else is there
    |-- GuestError         the guest, or the machine it runs on, is not as it should be
    |-- TableError         the table of descriptors, or its document, makes no sense
    |-- PassingError       descriptors did not come through a socket as they were sent
    |-- StateError         a state can't be written, or is not what its reader expects
    |   `-- Incompatible   the state is whole, and the other version can't take it
    `-- StockError         a stock QEMU did not do what a play with it needs

What an upgrade finds wrong with a descriptor is no exception but a `Finding`
(cprproto.fds.findings): all of them are wanted, not only the first.

This module is imported while the guest stands still: it imports nothing.
"""

from __future__ import annotations

__all__ = [
    "AddressTaken",
    "GuestError",
    "HostError",
    "Incompatible",
    "PassingError",
    "ProtoError",
    "StateError",
    "StockError",
    "TableError",
]


class ProtoError(Exception):
    """Something the launcher can't go on with; the text is for the user."""


class HostError(ProtoError):
    """The kernel or the machine lacks or refuses what is needed.

    Attributes:
        errno: the kernel's number, 0 where there is none.
    """

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class AddressTaken(HostError):
    """Memory can't be mapped where the old process had it.

    Attributes:
        address, size: the range that was wanted, in bytes.
        holder: what is there, as /proc/self/maps names it.
    """

    def __init__(self, address: int, size: int, holder: str) -> None:
        super().__init__(f"{size} bytes at {address:#x}: {holder} is there already", 17)
        self.address, self.size, self.holder = address, size, holder


class GuestError(ProtoError):
    """The guest, or the machine it runs on, is not as it should be."""


class TableError(ProtoError):
    """The table of descriptors, or its document, makes no sense."""


class PassingError(ProtoError):
    """Descriptors did not come through a socket as they were sent."""


class StateError(ProtoError):
    """A state can't be written, or is not what its reader expects."""


class Incompatible(StateError):
    """The state is whole, but the version that should load it can't take it.

    Attributes:
        reasons: one line for each thing that stands against it.
    """

    def __init__(self, message: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons


class StockError(ProtoError):
    """A stock QEMU did not do what a play with it needs."""
