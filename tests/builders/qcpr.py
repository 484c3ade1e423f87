"""CPR state files from named arguments, written apart from the code that reads them.

::

    qcpr(("ram0", 0, 9), ("pc.bios", 0, 10), vfio=[("0000:01:00.0", 1, 2, 3)])
    old_state(("c0.sock", 0, 9), memfds=[("pc.ram", 0, 4096, 4096, 4096)])
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["old_state", "qcpr", "qlist"]

VFIO_DEVICES = b"CprState/vfio devices"


def be32(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4)


def be64(value: int) -> bytes:
    return value.to_bytes(8)


def name(text: str) -> bytes:
    data = text.encode() + b"\0"
    return be32(len(data)) + data


def qlist(*entries: bytes) -> bytes:
    return b"".join(b"\x01" + entry for entry in entries) + b"\0"


def fd_entry(text: str, number: int, fd: int | None) -> bytes:
    return name(text) + be32(number) + (b" " if fd is None else be32(fd))


def qcpr(
    *fds: tuple[str, int, int | None],
    vfio: Sequence[tuple[str, int, int, int]] | None = (),
    version: int = 1,
    vfio_version: int = 1,
) -> bytes:
    """A file of QEMU 10.0 on; `vfio` None leaves the subsection out, as 10.0 does."""
    data = b"QCPR" + be32(version) + qlist(*(fd_entry(*x) for x in fds))
    if vfio is None:
        return data
    devices = (name(text) + be32(a) + be32(b) + be32(c) for text, a, b, c in vfio)
    head = b"\x05" + bytes([len(VFIO_DEVICES)]) + VFIO_DEVICES + be32(vfio_version)
    return data + head + qlist(*devices)


def old_state(
    *fds: tuple[str, int, int],
    memfds: Sequence[tuple[str, int, int, int, int]] | None = (),
    mode: int = 1,
) -> bytes:
    """The form of 2022; `memfds` None leaves that list out, as its last states do."""
    data = be32(mode) + qlist(*(fd_entry(*x) for x in fds))
    if memfds is None:
        return data
    entries = (
        name(text) + be32(number) + be64(size) + be64(most) + be64(align)
        for text, number, size, most, align in memfds
    )
    return data + qlist(*entries)
