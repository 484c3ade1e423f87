"""What both forms of the CPR state file share: QEMU's lists of named entries.

::

    list = (01 entry)* 00
    name = len:be32 text NUL        len counts the NUL

Source: QEMU migration/vmstate-types.c (put_qlist), migration/cpr.c (vmstate_cpr_fd), 11.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from cprformats.cpr.model import CprFd, CprMemfd, CprState, CprVfioDevice
from cprformats.cpr.wire import MAX_ENTRIES, MAX_NAME_BYTES
from cprformats.errors import FormatError, Unsupported
from cprformats.fields import Field, Kind
from cprformats.reader import Reader

__all__ = ["Draft", "finish", "read_list", "read_name", "run"]


@dataclass(slots=True)
class Draft:
    """A state file while it is read."""

    kind: str
    reader: Reader
    version: int | None = None
    mode: int | None = None
    entries: list[CprFd] = field(default_factory=list)
    memfds: list[CprMemfd] = field(default_factory=list)
    vfio_devices: list[CprVfioDevice] = field(default_factory=list)
    has_vfio: bool = False
    passed: str = ""
    warnings: list[str] = field(default_factory=list)


def read_list(draft: Draft, name: str, entry: Callable[[Draft], object]) -> None:
    """Read a list up to its end mark; `entry` reads one item behind its 01.

    Raises:
        Damaged: something other than 00 or 01 in front of an item.
        Unsupported: more entries than any QEMU has.
    """
    reader = draft.reader
    count = 0
    with reader.group(name, "QLIST"):
        while reader.peek(1) != b"\0":
            with reader.group(f"{name}[{count}]"):
                reader.expect("more", "u8", 1)
                entry(draft)
            count += 1
            if count > MAX_ENTRIES:
                raise reader.error(Unsupported, f"more than {MAX_ENTRIES} entries")
        reader.number("end", "u8")


def read_name(draft: Draft) -> str:
    """Read a counted name with its NUL.

    Raises:
        Damaged: a length that no name of QEMU has.
    """
    reader = draft.reader
    size = reader.number("namelen", "u32be")
    if size > MAX_NAME_BYTES:
        raise reader.mismatch(
            "length of a name", f"at most {MAX_NAME_BYTES}", size, reader.offset - 4
        )
    if size and reader.peek(1, size - 1) == b"\0":
        name = reader.text("name", size - 1)
        reader.number("nul", "u8", kind=Kind.PADDING)
        return name
    name = reader.text("name", size)
    draft.warnings.append(f"name {name!r} does not end in a NUL, at {reader.offset:#x}")
    return name


def run(draft: Draft, body: Callable[[Draft], None]) -> CprState:
    """Read with `body`; damage ends the reading and is kept beside what was read."""
    error = None
    try:
        body(draft)
    except FormatError as caught:
        error = caught
    return finish(draft, error)


def finish(draft: Draft, error: FormatError | None) -> CprState:
    """Freeze a draft; bytes that nothing explains become one unknown span."""
    reader = draft.reader
    start = reader.finish("state").offset
    _warn_of_doubles(draft)
    left = reader.remaining
    if left:
        if error is None:
            draft.warnings.append(f"{left} bytes behind the state, at {reader.offset:#x}")
        reader.blob("rest", left, kind=Kind.UNKNOWN)
    fields: tuple[Field, ...] = reader.finish("state").children
    return CprState(
        draft.kind,
        reader.source,
        start,
        reader.offset,
        draft.version,
        draft.mode,
        tuple(draft.entries),
        tuple(draft.memfds),
        tuple(draft.vfio_devices),
        draft.has_vfio,
        draft.passed,
        fields,
        tuple(draft.warnings),
        error,
    )


def _warn_of_doubles(draft: Draft) -> None:
    counts = Counter((entry.name, entry.id) for entry in draft.entries)
    draft.warnings += [
        f"{name!r} id {number} is there {count} times; QEMU takes the first"
        for (name, number), count in counts.items()
        if count > 1
    ]
    draft.warnings += [
        f"{entry.name!r} id {entry.id}: {entry.fd} is no descriptor, at {entry.offset:#x}"
        for entry in draft.entries
        if entry.fd is not None and entry.fd < 0 and not entry.is_value
    ]
