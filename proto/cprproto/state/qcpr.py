"""Read a CPR state in the new process: which descriptors were inherited, under what names.

QEMU's own form, so what QEMU 10.0 to 11.1 writes is read as well as what we write. `cprformats`
reads the same files with places, trees and warnings; this reader knows only what a new process
needs, because it is imported inside the pause, and cprformats takes 90 ms to import.

Source: QEMU migration/cpr.c (vmstate_cpr_state), migration/cpr-exec.c (cpr_exec_find_state,
cpr_exec_input); files in fixtures/cpr.
"""

from __future__ import annotations

import os

from cprproto.errors import HostError, StateError
from cprproto.fds.frozen import Frozen
from cprproto.fds.table import set_cloexec

TYPE_CHECKING = False  # `typing` takes 10 ms to import
if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["ENVIRONMENT", "MAX_STATE", "CprState", "Inherited", "read_state", "state_from_exec"]

#: Environment variable with the decimal number of the memfd that has the state.
ENVIRONMENT = "QEMU_CPR_EXEC_STATE"
MAX_STATE = 1 << 20
_MAX_NAME = 4096
_HEADER = b"QCPR\0\0\0\1"
_SUBSECTION = b"\x05\x15CprState/vfio devices\0\0\0\1"
#: Stands for a descriptor that went beside the data.
_BESIDE = 0x20


class Inherited(Frozen):
    """One named descriptor of the state.

    Attributes:
        name: with `id` the key it is looked up by.
        id: an interrupt vector, a group number, else 0.
        number: of the descriptor; -1 where it went beside the data.
    """

    __slots__ = ("id", "name", "number")
    id: int
    name: str
    number: int

    def __init__(self, name: str, id: int, number: int) -> None:
        self._fill(id, name, number)


class CprState(Frozen):
    """A CPR state.

    Attributes:
        entries: the descriptors, in the order of the file.
        vfio: names of VFIO devices that are open through iommufd.
        has_vfio: their list is there, empty or not (QEMU 10.1 on).
        places: offset of each descriptor's byte, where descriptors went beside the data.
    """

    __slots__ = ("entries", "has_vfio", "places", "vfio")
    entries: tuple[Inherited, ...]
    vfio: tuple[str, ...]
    has_vfio: bool
    places: tuple[int, ...]

    def __init__(
        self,
        entries: tuple[Inherited, ...],
        vfio: tuple[str, ...],
        has_vfio: bool,
        places: tuple[int, ...],
    ) -> None:
        self._fill(entries, has_vfio, places, vfio)


def state_from_exec(environment: MutableMapping[str, str] | None = None) -> bytes:
    """Take the state that QEMU_CPR_EXEC_STATE names; the variable and the memfd are gone then.

    Raises:
        StateError: there is no such variable, its value is no number, or what it names
            is not open, not a file, or larger than any state.
    """
    variables = os.environ if environment is None else environment
    text = variables.pop(ENVIRONMENT, None)
    if text is None:
        raise StateError(f"no {ENVIRONMENT} in the environment: nothing was handed over by exec")
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise StateError(f"{ENVIRONMENT}={text[:40]!r} is no descriptor's number")
    number = int(text)
    try:
        set_cloexec(number)
        # Its offset is at the end, where QEMU stopped writing.
        data = os.pread(number, MAX_STATE + 1, 0)
    except HostError as problem:
        raise StateError(f"{ENVIRONMENT}: {problem}") from None
    except OSError as problem:
        raise StateError(f"{ENVIRONMENT}: descriptor {number}: {problem.strerror}") from None
    os.close(number)
    return data


def read_state(data: bytes) -> CprState:
    """Read a state.

    Raises:
        StateError: it is cut, damaged, too large, or has bytes that are not understood.
    """
    if len(data) > MAX_STATE:
        raise StateError(f"CPR state: more than {MAX_STATE} bytes")
    if not data.startswith(_HEADER):
        found = data[: len(_HEADER)].hex(" ") or "nothing"
        raise StateError(f"no CPR state of version 1: it begins with {found}")
    places: list[int] = []
    entries: list[Inherited] = []
    at = len(_HEADER)
    while _more(data, at):
        name, at = _name(data, at + 1)
        id_number, at = _i32(data, at)
        number, at = _descriptor(data, at, places)
        entries.append(Inherited(name, id_number, number))
    if places and len(places) != len(entries):
        raise StateError("CPR state: some descriptors by number, some beside the data")
    vfio, at, has_vfio = _vfio(data, at + 1)
    if at != len(data):
        raise StateError(f"CPR state: {len(data) - at} bytes at {at:#x} are not understood")
    return CprState(tuple(entries), vfio, has_vfio, tuple(places))


def _vfio(data: bytes, at: int) -> tuple[tuple[str, ...], int, bool]:
    if not data.startswith(_SUBSECTION, at):
        return (), at, False
    at += len(_SUBSECTION)
    names: list[str] = []
    while _more(data, at):
        name, at = _name(data, at + 1)
        names.append(name)
        at += 12  # devid, ioas_id, hwpt_id
    return tuple(names), at + 1, True


def _more(data: bytes, at: int) -> bool:
    """Say whether another item of the list follows."""
    if at >= len(data):
        raise StateError(f"CPR state is cut at {len(data):#x}")
    if data[at] > 1:
        raise StateError(f"CPR state: expected 0 or 1 at {at:#x}, found {data[at]}")
    return data[at] == 1


def _i32(data: bytes, at: int) -> tuple[int, int]:
    if at + 4 > len(data):
        raise StateError(f"CPR state is cut at {len(data):#x}")
    return int.from_bytes(data[at : at + 4], "big", signed=True), at + 4


def _name(data: bytes, at: int) -> tuple[str, int]:
    size, at = _i32(data, at)
    if not 0 < size <= _MAX_NAME:
        raise StateError(f"CPR state: a name of {size} bytes at {at - 4:#x}")
    name = data[at : at + size]
    if len(name) != size or name[-1] or b"\0" in name[:-1]:
        raise StateError(f"CPR state: the name at {at:#x} does not end where it should")
    return name[:-1].decode("utf-8", "surrogateescape"), at + size


def _descriptor(data: bytes, at: int, places: list[int]) -> tuple[int, int]:
    """A number, or the byte that stands for a descriptor beside the data: no number begins so."""
    if data[at : at + 1] == bytes([_BESIDE]):
        places.append(at)
        return -1, at + 1
    return _i32(data, at)
