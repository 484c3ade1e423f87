"""Read the older CPR state form: the memfd and variable ``QEMU_CPR_STATE``.

::

    file   = mode:be32 fds [memfds]
    fds    = list of (name id:be32 fd:be32)
    memfds = list of (name id:be32 len:be64 maxlen:be64 align:be64)

There is no magic and no version. An id of 0xffff marks a value: the number is
data (capability bits of a monitor, a size), and no descriptor is behind it.
The last states of the series of 2022 have no list of memfds.

Source: the series "Live Update" for QEMU of 2022 (migration/cpr-state.c),
openEuler's QEMU 6.2; a file of the latter is among the fixtures.
"""

from __future__ import annotations

from cprformats.cpr.lists import Draft, read_list, read_name, run
from cprformats.cpr.model import CprFd, CprMemfd, CprState
from cprformats.cpr.wire import MAX_NAME_BYTES, VALUE_ID
from cprformats.fields import Kind
from cprformats.reader import Reader
from cprformats.source import Source

__all__ = ["looks_like_old_state", "read_old_state"]

#: QEMU's enums of migration modes have had up to four values.
_MODES = 16


def looks_like_old_state(source: Source, offset: int = 0) -> bool:
    """Say whether this can be a state of the older form.

    Without a magic the structure must do: a mode that is one of few, then a
    whole first entry in one of the lists, its name of printable characters
    and with a NUL just where its length says. A file cut behind that is
    still recognised, and its damage reported.
    """
    head = source.read_at(offset, 16 + MAX_NAME_BYTES)
    if len(head) < 6 or int.from_bytes(head[:4]) >= _MODES:
        return False
    # An empty first list is one zero byte; then the second must begin.
    start = 5 if head[4] == 0 else 4
    if head[start] != 1:
        return False
    size = int.from_bytes(head[start + 1 : start + 5])
    name = head[start + 5 : start + 5 + size]
    return (
        1 < size == len(name)
        and name[-1] == 0
        and name[:-1].isascii()
        and name[:-1].decode().isprintable()
    )


def read_old_state(source: Source, offset: int = 0, end: int | None = None) -> CprState:
    """Read the state that begins at `offset`.

    Damage does not raise: it ends the reading and is kept as `error`.
    """
    return run(Draft("cpr-2022", Reader(source, offset, end)), _body)


def _body(draft: Draft) -> None:
    reader = draft.reader
    draft.mode = reader.number("mode", "u32be", kind=Kind.HEADER)
    draft.passed = "exec"
    read_list(draft, "fds", _fd)
    if not reader.at_end():
        read_list(draft, "memfds", _memfd)


def _fd(draft: Draft) -> None:
    reader = draft.reader
    offset = reader.offset - 1
    name = read_name(draft)
    id_number = reader.number("id", "u32be")
    is_value = id_number == VALUE_ID
    number = reader.number("value" if is_value else "fd", "u32be" if is_value else "i32be")
    draft.entries.append(CprFd(name, id_number, number, is_value, offset))


def _memfd(draft: Draft) -> None:
    reader = draft.reader
    offset = reader.offset - 1
    name = read_name(draft)
    id_number = reader.number("id", "u32be")
    length = reader.number("len", "u64be")
    max_length = reader.number("maxlen", "u64be")
    align = reader.number("align", "u64be")
    draft.memfds.append(CprMemfd(name, id_number, length, max_length, align, offset))
