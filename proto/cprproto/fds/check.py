"""Compare descriptors with their table: before a hand-off, and after it on the other side.

All that is wrong is wanted, not only the first thing, so findings are given and nothing is
raised. `check_table` takes about 19 us a descriptor (docs/fds.md).
"""

from __future__ import annotations

from cprproto.fds.evidence import Evidence, look, open_numbers
from cprproto.fds.kinds import (
    LOOKS,
    NOT_LESS,
    SAME_FILE,
    SAME_FLAGS,
    SAME_POS,
    SAME_SEALS,
    SAME_SIZE,
)
from cprproto.fds.table import Entry, Table

TYPE_CHECKING = False  # `typing` takes 10 ms to import
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cprproto.fds.findings import Finding

__all__ = ["check_entry", "check_table", "compare", "duplicates", "finding", "leaked"]


def finding(what: str, entry: Entry, text: str) -> Finding:
    """Make a finding of an entry."""
    from cprproto.fds.findings import Finding  # noqa: PLC0415 -- 15 ms that only faults pay

    return Finding(what, entry.name, entry.id, entry.number, f"{entry.label}: {text}")


def check_table(
    table: Table, *, cloexec: bool | None = None, pid: int | None = None
) -> list[Finding]:
    """Check each descriptor against its entry.

    Args:
        table: what should be.
        cloexec: what close-on-exec must be; None for either.
        pid: the process whose descriptors these are; this one by default.
    """
    found: list[Finding] = []
    for entry in table:
        found += check_entry(entry, cloexec=cloexec, pid=pid)
    return found


def check_entry(
    entry: Entry, *, cloexec: bool | None = None, pid: int | None = None
) -> list[Finding]:
    """Check one descriptor: open, of its kind, the same as before."""
    now = look(entry.number, pid)
    if now is None:
        return [finding("missing", entry, f"descriptor {entry.number} is not open")]
    # From outside a socket does not show whether it listens or is connected.
    looks = LOOKS[entry.kind]
    if now.looks not in looks and not (now.looks == "socket" and pid and "socket" in looks[0]):
        text = f"{entry.number} should be {' or '.join(looks)}, and is {now.looks} ({now.link})"
        return [finding("wrong-kind", entry, text)]
    found = _check_cloexec(entry, now, cloexec)
    if entry.before is not None:
        found += compare(entry, entry.before, now)
    return found


def _check_cloexec(entry: Entry, now: Evidence, wanted: bool | None) -> list[Finding]:
    if wanted is None or now.cloexec == wanted:
        return []
    if wanted:
        text = f"close-on-exec is off on {entry.number}: what is started later inherits it"
        return [finding("close-on-exec-off", entry, text)]
    text = f"close-on-exec is still on: the exec would close {entry.number}"
    return [finding("close-on-exec-on", entry, text)]


def compare(entry: Entry, before: Evidence, now: Evidence) -> list[Finding]:
    """Compare what an entry looked like before and looks like now, as far as its checks ask."""
    checks = entry.checks
    if checks & SAME_FILE and _identity(before) != _identity(now):
        text = f"{now.number} was {_place(before)}, and is now {_place(now)}"
        return [finding("other-file", entry, text)]
    pairs = (
        (SAME_POS, "offset", before.position, now.position),
        (SAME_SIZE, "size", before.size, now.size),
        (SAME_FLAGS, "flags", oct(before.flags), oct(now.flags)),
    )
    found = [
        finding("changed", entry, f"{word} was {old}, and is {new}")
        for bit, word, old, new in pairs
        if checks & bit and old != new
    ]
    if checks & SAME_SEALS and -1 != now.seals != before.seals:
        text = f"seals were {before.seals:#x}, and are {now.seals:#x}"
        found.append(finding("changed", entry, text))
    if checks & NOT_LESS and now.count < before.count:
        text = f"count was {before.count}, and is {now.count}: an event is lost"
        found.append(finding("changed", entry, text))
    return found


def _identity(seen: Evidence) -> tuple[object, ...]:
    return seen.looks, seen.device, seen.inode, seen.node, seen.unique


def _place(seen: Evidence) -> str:
    if seen.unique >= 0:
        return f"eventfd {seen.unique}"
    return f"inode {seen.inode} of device {seen.device:#x} ({seen.link})"


def duplicates(entries: Iterable[Entry]) -> list[Finding]:
    """Find names that come twice, and open files that come twice under two names.

    A list from outside may have them; a `Table` can have only the second.
    """
    found: list[Finding] = []
    names: dict[tuple[str, int], Entry] = {}
    files: dict[tuple[object, ...], Entry] = {}
    for entry in entries:
        first = names.setdefault((entry.name, entry.id), entry)
        if first is not entry:
            text = f"is there twice, as {first.number} and as {entry.number}"
            found.append(finding("duplicate-name", entry, text))
        now = look(entry.number)
        # All timerfds, and all descriptors of KVM, have one inode.
        if now is None or (now.unique < 0 and now.link.startswith(("anon_inode:", "/dev/"))):
            continue
        twin = files.setdefault((*_identity(now), now.flags & 3), entry)
        if twin is not entry:
            text = f"{entry.number} is the same open file as {twin.label}"
            found.append(finding("duplicate-file", entry, text))
    return found


def leaked(table: Table, allowed: Iterable[int] = (), pid: int | None = None) -> list[Finding]:
    """Find what is open and in nobody's table.

    Args:
        table: what is known.
        allowed: numbers that may be open besides: 0, 1 and 2, a control socket.
        pid: the process; this one by default.
    """
    known = {*table.numbers(), *allowed}
    found: list[Finding] = []
    for number in open_numbers(pid):
        now = None if number in known else look(number, pid)
        if now is not None:
            found.append(_leak(number, now))
    return found


def _leak(number: int, now: Evidence) -> Finding:
    from cprproto.fds.findings import Finding  # noqa: PLC0415 -- 15 ms that only faults pay

    text = f"{number} is open, {now.looks} ({now.link}), and in no table"
    return Finding("leaked", "", 0, number, text)
