"""Write a CPR state as QEMU does, with cprformats: a memfd for exec, messages for a cpr channel.

::

    number = state_memfd(entries)                      # for QEMU_CPR_EXEC_STATE
    send_state(channel, entries)                       # over a UNIX socket, with the descriptors

A state is written while the guest still runs: numbers and names don't change in the pause.

Source: QEMU migration/cpr.c (cpr_state_save), migration/vmstate-types.c (put_qlist, put_fd),
migration/qemu-file.c (qemu_file_put_fd), hw/vfio/cpr-iommufd.c; 10.0 to 11.1.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence

from cprformats.cpr.model import CprFd, CprVfioDevice
from cprformats.cpr.wire import FD_BYTE, MAGIC, SUBSECTION, VERSION, VFIO_DEVICES
from cprformats.encode import encode
from cprformats.fields import Field, Kind
from cprproto.errors import HostError, PassingError, StateError
from cprproto.fds.passing import MAX_MESSAGE, receive, send
from cprproto.fds.table import MAX_ENTRIES, Table
from cprproto.state.qcpr import ENVIRONMENT, MAX_STATE, CprState, Inherited, read_state

__all__ = ["encode_state", "entries_of", "receive_state", "send_state", "state_memfd"]

#: Before 10.1 there is no list of VFIO devices; from then on it is there, empty or not.
Vfio = Sequence[CprVfioDevice] | None
_Leaf = tuple[str, str, int | bytes]


def entries_of(table: Table, *, beside: bool = False) -> list[CprFd]:
    """Give a table's descriptors as QEMU's entries.

    Args:
        table: the descriptors.
        beside: they go beside the data (transfer), not by number (exec).
    """
    return [CprFd(entry.name, entry.id, None if beside else entry.number) for entry in table]


def encode_state(entries: Sequence[CprFd], vfio: Vfio = ()) -> bytes:
    """Give the bytes of a state.

    Args:
        entries: descriptors; `fd` None puts the byte that stands for one beside the data.
        vfio: devices that are open through iommufd; None leaves the list out, as 10.0.
    """
    return b"".join(_pieces(entries, vfio))


def _pieces(entries: Sequence[CprFd], vfio: Vfio) -> Iterator[bytes]:
    """The state, cut in front of and behind each byte that stands for a descriptor."""
    lead = _bytes(("magic", "bytes", MAGIC), ("version", "u32be", VERSION))
    for entry in entries:
        lead += _bytes(("more", "u8", 1), *_name(entry.name), ("id", "i32be", entry.id))
        if entry.fd is not None:
            lead += _bytes(("fd", "i32be", entry.fd))
            continue
        yield lead
        yield _bytes(("fd", "u8", FD_BYTE))
        lead = b""
    yield lead + _bytes(("end", "u8", 0)) + _subsection(vfio)


def _subsection(vfio: Vfio) -> bytes:
    if vfio is None:
        return b""
    text = VFIO_DEVICES.encode()
    data = _bytes(("type", "u8", SUBSECTION), ("len", "u8", len(text)), ("name", "bytes", text))
    data += _bytes(("version", "u32be", 1))
    for device in vfio:
        numbers = (device.ioas_id, device.hwpt_id)
        data += _bytes(("more", "u8", 1), *_name(device.name), ("devid", "i32be", device.devid))
        data += _bytes(*(("id", "u32be", number) for number in numbers))
    return data + _bytes(("end", "u8", 0))


def _name(name: str) -> tuple[_Leaf, ...]:
    data = name.encode("utf-8", "surrogateescape") + b"\0"
    return ("namelen", "u32be", len(data)), ("name", "bytes", data)


def _bytes(*leaves: _Leaf) -> bytes:
    """Encode leaves with cprformats."""
    return b"".join(
        encode(Field(name, "", codec, Kind.FIELD, 0, 0, value) for name, codec, value in leaves)
    )


def state_memfd(entries: Sequence[CprFd], vfio: Vfio = ()) -> int:
    """Put a state in a memfd and give its number, close-on-exec on.

    As QEMU leaves it: called QEMU_CPR_EXEC_STATE, its offset at the end.

    Raises:
        HostError: no memory, or no descriptor is left.
    """
    try:
        number = os.memfd_create(ENVIRONMENT, os.MFD_CLOEXEC)
    except OSError as problem:
        raise HostError(f"no memfd for the CPR state: {problem.strerror}") from None
    try:
        os.write(number, encode_state(entries, vfio))
    except OSError as problem:
        os.close(number)
        raise HostError(f"CPR state: {problem.strerror}", problem.errno or 0) from None
    return number


def send_state(
    channel: socket.socket, entries: Sequence[CprFd], fds: Sequence[int], vfio: Vfio = ()
) -> None:
    """Send a state over a UNIX socket; each descriptor goes with its own byte, as QEMU does it.

    The direction is closed behind it; QEMU keeps the other open until the new side is ready.

    Args:
        channel: a connected UNIX stream socket.
        entries: names and ids; their numbers are not looked at.
        fds: the descriptors, one for each entry.
        vfio: as `encode_state`.

    Raises:
        PassingError: one is not open, there are too few, or the other side is gone.
    """
    if len(fds) != len(entries):
        raise PassingError(f"{len(entries)} names for {len(fds)} descriptors")
    beside = [CprFd(entry.name, entry.id, None) for entry in entries]
    *pairs, last = _pieces(beside, vfio)
    for place, number in enumerate(fds):
        send(channel, pairs[2 * place])
        send(channel, pairs[2 * place + 1], [number])
    send(channel, last)
    channel.shutdown(socket.SHUT_WR)


def receive_state(channel: socket.socket) -> CprState:
    """Take a state from a UNIX socket, up to the end of what the other side sends.

    Each entry has the number that its descriptor has here. They belong to the caller.

    Raises:
        PassingError: descriptors and data don't fit each other.
        StateError: the data is no state.
        TimeoutError: as the socket's time-out says.
    """
    data = bytearray()
    arrived: dict[int, int] = {}
    try:
        while (part := receive(channel, size=MAX_MESSAGE, most=1)).data:
            data += part.data
            # The kernel ends a read behind the message that brought a descriptor.
            arrived.update((len(data) - 1, number) for number in part.fds)
            _check_room(data, arrived)
        return _joined(read_state(bytes(data)), arrived)
    except BaseException:
        for number in arrived.values():
            os.close(number)
        raise


def _check_room(data: bytearray, arrived: dict[int, int]) -> None:
    if len(data) > MAX_STATE or len(arrived) > MAX_ENTRIES:
        text = f"{len(data)} bytes and {len(arrived)} descriptors"
        raise StateError(f"CPR state: {text}, more than any state has")


def _joined(state: CprState, arrived: dict[int, int]) -> CprState:
    """Give the entries the numbers that came at their places."""
    if list(arrived) != list(state.places) or len(state.entries) != len(arrived):
        text = f"{len(state.entries)} names, {len(state.places)} marks, {len(arrived)} descriptors"
        raise PassingError(f"CPR state: {text} don't fit each other")
    pairs = zip(state.entries, arrived.values(), strict=True)
    entries = tuple(Inherited(entry.name, entry.id, number) for entry, number in pairs)
    return CprState(entries, state.vfio, state.has_vfio, state.places)
