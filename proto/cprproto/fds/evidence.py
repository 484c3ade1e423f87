"""What the kernel shows of one descriptor: the evidence for its kind and its identity.

From /proc/PID/fd/N (the link), fdinfo (flags, offset, an eventfd's count and id), fstat (device,
inode, size), F_GET_SEALS, and a socket's options. Another process's descriptors can be looked at
too; its seals and socket options can't be seen from outside.

An eventfd shares its inode with all others of the host, so its identity is the `eventfd-id` of
fdinfo (Linux 5.4 on). Of timerfds and KVM's descriptors nothing but kcmp tells two apart.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import stat

from cprproto.fds.frozen import Frozen

__all__ = ["Evidence", "is_open", "look", "open_numbers"]

#: How a descriptor, or its process, shows that it is not there.
_GONE = (errno.ENOENT, errno.EBADF, errno.ESRCH)
_F_GET_SEALS = 1034  # Linux include/uapi/linux/fcntl.h
_FDINFO_BYTES = 4096  # an epoll's goes on for longer; what is wanted stands in front
_SO_ACCEPTCONN = 30  # Linux include/uapi/asm-generic/socket.h

_BY_LINK = {
    "anon_inode:[eventfd]": "eventfd",
    "anon_inode:[timerfd]": "timerfd",
    "anon_inode:[eventpoll]": "epoll",
    "anon_inode:[signalfd]": "signalfd",
    "anon_inode:[pidfd]": "pidfd",
    "anon_inode:[vfio-device]": "vfio-device",
    "anon_inode:kvm-vm": "kvm-vm",
    "/dev/kvm": "kvm",
    "/dev/net/tun": "tap",
    "/dev/vfio/vfio": "vfio-container",
    "/dev/iommu": "iommufd",
}
_BY_LEAD = (
    ("anon_inode:kvm-vcpu", "kvm-vcpu"),
    ("/dev/vfio/devices/", "vfio-device"),
    ("/dev/vfio/", "vfio-group"),
    ("pidfd:", "pidfd"),
)
_BY_TYPE = {
    stat.S_IFIFO: "pipe",
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


class Evidence(Frozen):
    """What was seen of one descriptor.

    Attributes:
        number: of the descriptor.
        looks: see `kinds`; also ``socket``, ``directory``, ``device``, ``epoll``, ``other``.
        link: what /proc/PID/fd/N points to.
        device: st_dev.
        inode: st_ino.
        node: st_rdev, of a device node.
        size: in bytes.
        position: offset of the open file in bytes.
        flags: access mode and status flags, without close-on-exec.
        cloexec: the descriptor is closed on exec.
        seals: F_SEAL_* bits; -1 where there are none to have, or not to be seen.
        unique: an eventfd's id, -1 for what has none.
        count: an eventfd's count, -1 for what has none.
    """

    __slots__ = (
        "cloexec",
        "count",
        "device",
        "flags",
        "inode",
        "link",
        "looks",
        "node",
        "number",
        "position",
        "seals",
        "size",
        "unique",
    )
    #: O_CLOEXEC as fdinfo shows it; os.O_CLOEXEC is the same on all hosts that KVM runs on.
    CLOEXEC = 0o2000000

    number: int
    looks: str
    link: str
    device: int
    inode: int
    node: int
    size: int
    position: int
    flags: int
    cloexec: bool
    seals: int
    unique: int
    count: int

    def __init__(
        self,
        number: int,
        looks: str,
        link: str,
        status: tuple[int, int, int, int],
        info: tuple[int, int, int, int],
        seals: int,
    ) -> None:
        device, inode, node, size = status
        position, flags, unique, count = info
        cloexec, rest = bool(flags & self.CLOEXEC), flags & ~self.CLOEXEC
        self._fill(
            *(cloexec, count, device, rest, inode, link, looks, node, number),
            *(position, seals, size, unique),
        )


def open_numbers(pid: int | None = None) -> list[int]:
    """List the open descriptors of a process, this one by default, lowest first."""
    if pid is not None:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    # Listing takes a descriptor itself; it is gone when the numbers are looked at.
    return sorted(n for n in map(int, os.listdir("/proc/self/fd")) if is_open(n))


def is_open(number: int) -> bool:
    """Say whether a number is an open descriptor of this process."""
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except (OSError, ValueError, OverflowError):
        return False
    return True


def look(number: int, pid: int | None = None) -> Evidence | None:
    """Look at a descriptor of this process, or of another one; None when it is not open.

    Raises:
        OSError: /proc is not there, or not to be read.
    """
    home = "/proc/self" if pid is None else f"/proc/{pid}"
    path = f"{home}/fd/{number}"
    try:
        link = os.readlink(path)
        status = os.fstat(number) if pid is None else os.stat(path)
        info = _info(f"{home}/fdinfo/{number}")
    except OSError as problem:
        if problem.errno in _GONE:
            return None
        raise
    looks = _looks(link, status.st_mode, number if pid is None else None)
    seals = _seals(number) if pid is None and stat.S_ISREG(status.st_mode) else -1
    places = (status.st_dev, status.st_ino, status.st_rdev, status.st_size)
    return Evidence(number, looks, link, places, info, seals)


def _info(path: str) -> tuple[int, int, int, int]:
    """Offset, flags, an eventfd's id and its count, from fdinfo."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(number, _FDINFO_BYTES)
    finally:
        os.close(number)
    found = {}
    for line in text.split(b"\n"):
        name, _, value = line.partition(b":")
        found[name] = value.strip()
    return (
        int(found.get(b"pos", b"0")),
        int(found.get(b"flags", b"0"), 8),
        int(found.get(b"eventfd-id", b"-1")),
        int(found.get(b"eventfd-count", b"-1"), 16),
    )


def _looks(link: str, mode: int, number: int | None) -> str:
    if stat.S_ISSOCK(mode):
        return "socket" if number is None else _socket_looks(number)
    if stat.S_ISREG(mode) and link.startswith("/memfd:"):
        return "memfd"
    if known := _BY_LINK.get(link):
        return known
    for lead, looks in _BY_LEAD:
        if link.startswith(lead):
            return looks
    return _BY_TYPE.get(stat.S_IFMT(mode), "other")


def _socket_looks(number: int) -> str:
    """Ask a socket of this process whether it listens or is connected."""
    probe = _socket.socket(fileno=number)
    try:
        if probe.getsockopt(_socket.SOL_SOCKET, _SO_ACCEPTCONN):
            return "listening-socket"
        probe.getpeername()
    except OSError:
        return "socket"
    finally:
        probe.detach()
    return "connected-socket"


def _seals(number: int) -> int:
    try:
        return fcntl.fcntl(number, _F_GET_SEALS)
    except OSError:
        return -1
