"""Map a file shared and learn the address, which KVM wants and Python's mmap keeps to itself.

`ctypes` would tell, and takes 3 to 10 ms to import, all of it in the guest's pause when a program
was just exec'd. The kernel tells too: /proc/self/maps, 0.1 ms.
"""

from __future__ import annotations

import mmap
import os

from cprproto.errors import HostError

__all__ = ["Mapping", "map_shared"]


class Mapping:
    """Bytes of a file in this process's memory.

    Attributes:
        address: where they lie, in bytes.
        view: the bytes, writable.
    """

    __slots__ = ("_owner", "address", "size", "view")

    def __init__(self, address: int, view: memoryview, owner: mmap.mmap | None) -> None:
        self.address = address
        self.view = view
        self.size = len(view)
        self._owner = owner

    def close(self) -> None:
        """Unmap. Nothing of `view` may be in use (BufferError otherwise)."""
        self.view.release()
        if self._owner is not None:
            self._owner.close()
            self._owner = None


def map_shared(fd: int, size: int, *, writable: bool = True) -> Mapping:
    """Map the first `size` bytes of a file, shared, where the kernel likes.

    Raises:
        HostError: the kernel refused (too little memory, no huge pages, a sealed file), or the
            mapping is not found again in /proc/self/maps.
    """
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    before: set[int] = set()
    for _ in range(2):
        try:
            owner = mmap.mmap(fd, size, mmap.MAP_SHARED, access)
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None) or 0
            raise HostError(f"{size} bytes of descriptor {fd}: {error}", number) from None
        now = _addresses(fd)
        new = [address for address in now if address not in before]
        if len(new) == 1:
            return Mapping(new[0], memoryview(owner), owner)
        # The file is mapped more than once: see which mapping is ours.
        owner.close()
        before = set(_addresses(fd))
    raise HostError(f"the mapping of descriptor {fd} does not show in /proc/self/maps")


def _addresses(fd: int) -> list[int]:
    """Starts of the mappings of a file's beginning (proc(5), /proc/pid/maps)."""
    seen = os.fstat(fd)
    device = b"%02x:%02x" % (os.major(seen.st_dev), os.minor(seen.st_dev))
    wanted = b" 00000000 %s %d " % (device, seen.st_ino)
    maps = os.open("/proc/self/maps", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while part := os.read(maps, 1 << 16):
            text += part
    finally:
        os.close(maps)
    return [int(line.split(b"-")[0], 16) for line in text.splitlines() if wanted in line]
