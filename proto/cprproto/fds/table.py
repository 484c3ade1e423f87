"""The table of descriptors: each has a name, an id, a number, and what must be found again.

::

    table = Table()
    table.add("ram", "ram0", memfd)
    table.add("irq", "serial", eventfd, id=4)
    table.take_stock()          # what they look like now, to be compared after the hand-off
    table.hand_over()           # close-on-exec off, just before exec; `take_back` sets it again

A table is made by one thread and belongs to it. What is wrong with its descriptors is said by
`cprproto.fds.check`; a table that makes no sense in itself (two entries of one name, one number
twice) is refused where it is made.
"""

from __future__ import annotations

import fcntl
import os

from cprproto.errors import HostError, TableError
from cprproto.fds.evidence import Evidence, look
from cprproto.fds.frozen import Frozen
from cprproto.fds.kinds import ALL_CHECKS, LOOKS, default_checks

TYPE_CHECKING = False  # `typing` takes 10 ms to import
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["MAX_ENTRIES", "MAX_NAME_BYTES", "Entry", "Table", "set_cloexec"]

#: QEMU's own tables have a few hundred entries, with many vCPUs and queues some thousand.
MAX_ENTRIES = 4096
MAX_NAME_BYTES = 255
_MAX_ID = (1 << 31) - 1


class Entry(Frozen):
    """One descriptor of the table.

    Attributes:
        kind: what it is for, see `cprproto.fds.kinds`.
        name: the owner's name for it; with `id` it is the key.
        id: tells equal names apart: an interrupt vector, a group number, else 0.
        number: of the descriptor.
        checks: bits of what must be found unchanged.
        before: what it looked like when stock was taken.
    """

    __slots__ = ("before", "checks", "id", "kind", "name", "number")
    kind: str
    name: str
    id: int
    number: int
    checks: int
    before: Evidence | None

    def __init__(
        self,
        kind: str,
        name: str,
        id: int,
        number: int,
        checks: int | None = None,
        before: Evidence | None = None,
    ) -> None:
        if kind not in LOOKS:
            raise TableError(f"{name!r}: there is no kind {kind!r} of descriptor")
        if not name or "\0" in name or len(name.encode(errors="replace")) > MAX_NAME_BYTES:
            raise TableError(f"{name[:40]!r} is no name: 1 to {MAX_NAME_BYTES} bytes without NUL")
        if not 0 <= id <= _MAX_ID:
            raise TableError(f"{name!r}: {id} is no id: 0 to {_MAX_ID}")
        if not 0 <= number <= _MAX_ID:
            raise TableError(f"{name!r}: {number} is no descriptor's number")
        if checks is None:
            checks = default_checks(kind)
        if checks & ~ALL_CHECKS:
            raise TableError(f"{name!r}: {checks:#x} has checks that are not known")
        self._fill(before, checks, id, kind, name, number)

    @property
    def label(self) -> str:
        """Name and, where it says something, id."""
        return f"{self.name}[{self.id}]" if self.id else self.name

    def at(self, number: int) -> Entry:
        """Give the same entry under another number."""
        return Entry(self.kind, self.name, self.id, number, self.checks, self.before)

    def seen(self, before: Evidence | None) -> Entry:
        """Give the same entry with what it looks like."""
        return Entry(self.kind, self.name, self.id, self.number, self.checks, before)


class Table:
    """Named descriptors, in the order in which they were added.

    Args:
        protocol: version of the hand-off's protocol that goes with the table.
    """

    __slots__ = ("_by_key", "_by_number", "protocol")

    def __init__(self, protocol: int = 1) -> None:
        self.protocol = protocol
        self._by_key: dict[tuple[str, int], Entry] = {}
        self._by_number: dict[int, Entry] = {}

    def add(
        self, kind: str, name: str, number: int, *, id: int = 0, checks: int | None = None
    ) -> Entry:
        """Enter a descriptor.

        Raises:
            TableError: the name with this id, or the number, is in the table; or
                something of the entry makes no sense.
        """
        return self.put(Entry(kind, name, id, number, checks))

    def put(self, entry: Entry) -> Entry:
        """Enter a whole entry. Raises as `add` does."""
        if len(self._by_key) >= MAX_ENTRIES:
            raise TableError(f"more than {MAX_ENTRIES} descriptors")
        if (entry.name, entry.id) in self._by_key:
            raise TableError(f"{entry.label!r} is in the table twice")
        if other := self._by_number.get(entry.number):
            raise TableError(f"{entry.number} is both {other.label!r} and {entry.label!r}")
        self._by_key[entry.name, entry.id] = self._by_number[entry.number] = entry
        return entry

    def remove(self, name: str, id: int = 0) -> Entry:
        """Take an entry out; the descriptor stays open.

        Raises:
            TableError: there is none.
        """
        entry = self[name, id]
        del self._by_key[name, id], self._by_number[entry.number]
        return entry

    def replace(self, entry: Entry) -> None:
        """Put an entry in the place of the one with its name and id."""
        old = self[entry.name, entry.id]
        other = self._by_number.get(entry.number)
        if other is not None and other is not old:
            raise TableError(f"{entry.number} is both {other.label!r} and {entry.label!r}")
        del self._by_number[old.number]
        self._by_key[entry.name, entry.id] = self._by_number[entry.number] = entry

    def move(self, numbers: Mapping[tuple[str, int], int]) -> None:
        """Note new numbers, all at once; the descriptors are not touched.

        Raises:
            TableError: an entry is not there, or two have one number then.
        """
        for key in numbers:
            self[key]
        moved = {
            key: entry.at(numbers[key]) if key in numbers else entry
            for key, entry in self._by_key.items()
        }
        by_number = {entry.number: entry for entry in moved.values()}
        if len(by_number) != len(moved):
            raise TableError("two descriptors want the same number")
        self._by_key, self._by_number = moved, by_number

    def __getitem__(self, key: tuple[str, int]) -> Entry:
        """Look up by name and id.

        Raises:
            TableError: there is none.
        """
        entry = self._by_key.get(key)
        if entry is None:
            raise TableError(f"{key[0]!r} id {key[1]} is not in the table")
        return entry

    def find(self, name: str, id: int = 0) -> Entry | None:
        """Look up by name and id, or None."""
        return self._by_key.get((name, id))

    def holder(self, number: int) -> Entry | None:
        """Say which entry has a number, or None."""
        return self._by_number.get(number)

    def of_kind(self, kind: str) -> list[Entry]:
        """Give the entries of one kind."""
        return [entry for entry in self if entry.kind == kind]

    def __iter__(self) -> Iterator[Entry]:
        """Walk the entries in order."""
        return iter(tuple(self._by_key.values()))

    def __len__(self) -> int:
        return len(self._by_key)

    def numbers(self) -> list[int]:
        """Give all numbers, in the order of the entries."""
        return [entry.number for entry in self._by_key.values()]

    def take_stock(self) -> None:
        """Look at each descriptor, for the comparison after the hand-off."""
        for entry in self:
            self.replace(entry.seen(look(entry.number)))

    def hand_over(self) -> None:
        """Clear close-on-exec on all, for an exec that comes next.

        Raises:
            HostError: one is not open; those before it are set back.
        """
        done: list[int] = []
        try:
            for number in self.numbers():
                set_cloexec(number, on=False)
                done.append(number)
        except HostError:
            for number in done:
                set_cloexec(number)
            raise

    def take_back(self) -> None:
        """Set close-on-exec on all that are open: the exec did not happen, or is over."""
        for number in self.numbers():
            try:
                set_cloexec(number)
            except HostError:
                continue  # a missing one is for `check` to report

    def close(self) -> None:
        """Close all descriptors and forget them."""
        for entry in self:
            self.remove(entry.name, entry.id)
            try:
                os.close(entry.number)
            except OSError:
                continue  # was not open: nothing is left to close


def set_cloexec(number: int, *, on: bool = True) -> None:
    """Set or clear close-on-exec.

    Raises:
        HostError: the number is not open.
    """
    try:
        fcntl.fcntl(number, fcntl.F_SETFD, fcntl.FD_CLOEXEC if on else 0)
    except OSError as problem:
        raise HostError(f"descriptor {number}: {problem.strerror}", problem.errno or 0) from None
