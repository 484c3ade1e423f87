"""Bring descriptors to wanted numbers, without losing one to another.

A hand-off over a socket gives whatever numbers are free; a table may ask for those of the old
side. Exchanges (5 to 6 and 6 to 5) work; a number that belongs to something outside the table is
found before anything is moved, never overwritten.
"""

from __future__ import annotations

import fcntl
import os

from cprproto.errors import HostError, TableError
from cprproto.fds.check import finding
from cprproto.fds.evidence import look
from cprproto.fds.table import Table

TYPE_CHECKING = False  # `typing` takes 10 ms to import
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cprproto.fds.findings import Finding

__all__ = ["conflicts", "renumber"]

Key = tuple[str, int]


def conflicts(table: Table, wanted: Mapping[Key, int]) -> list[Finding]:
    """Find what stands in the way of the wanted numbers.

    Args:
        table: where they are.
        wanted: (name, id) to number; entries that are not named stay where they are.

    Raises:
        TableError: a name is not in the table, or a number is wanted twice.
    """
    _targets(table, wanted)
    limit = _most_open()
    found: list[Finding] = []
    for key, number in wanted.items():
        entry = table[key]
        if number >= limit:
            text = f"{number} is wanted, and RLIMIT_NOFILE allows 0 to {limit - 1}"
            found.append(finding("number-too-high", entry, text))
        elif table.holder(number) is None and (now := look(number)) is not None:
            text = f"{number} is wanted, and is open already: {now.looks} ({now.link})"
            found.append(finding("number-taken", entry, text))
    return found


def _most_open() -> int:
    """The first number that RLIMIT_NOFILE forbids."""
    return os.sysconf("SC_OPEN_MAX")


def _targets(table: Table, wanted: Mapping[Key, int]) -> dict[Key, int]:
    """All entries' numbers after the move."""
    targets = {(entry.name, entry.id): entry.number for entry in table}
    for key, number in wanted.items():
        if table[key] and number < 0:
            raise TableError(f"{key[0]!r}: {number} is no descriptor's number")
        targets[key] = number
    if len(set(targets.values())) != len(targets):
        raise TableError("two descriptors want the same number")
    return targets


def renumber(table: Table, wanted: Mapping[Key, int]) -> list[Finding]:
    """Move descriptors to wanted numbers; close-on-exec is on for those that moved.

    Returns:
        What stood in the way; then nothing was moved.

    Raises:
        TableError: as `conflicts`.
        HostError: the kernel refused; then too nothing was moved.
    """
    if found := conflicts(table, wanted):
        return found
    moves = {key: to for key, to in _targets(table, wanted).items() if table[key].number != to}
    copies = _copies({key: table[key].number for key in moves}, set(moves.values()))
    numbers = [table[key].number for key in moves]
    table.move(moves)
    for number in numbers:
        os.close(number)
    for key, copy in copies.items():
        os.dup2(copy, moves[key], inheritable=False)
        os.close(copy)
    return []


def _copies(numbers: Mapping[Key, int], avoid: set[int]) -> dict[Key, int]:
    """Duplicate descriptors to numbers that nobody wants, so that none is in another's way."""
    copies: dict[Key, int] = {}
    in_the_way: list[int] = []
    try:
        for key, number in numbers.items():
            while (copy := fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 0)) in avoid:
                in_the_way.append(copy)
            copies[key] = copy
    except OSError as problem:
        for copy in copies.values():
            os.close(copy)
        raise HostError(f"can't move descriptors: {problem.strerror}", problem.errno or 0) from None
    finally:
        for copy in in_the_way:
            os.close(copy)
    return copies
