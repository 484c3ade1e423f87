"""Map memory at an address that was chosen: where the old process had it.

Apart from `cprproto.kvm.mapping`, since Python's own mmap takes no address and `ctypes` costs 3 to
10 ms to import.
"""

from __future__ import annotations

import ctypes
import mmap
import os

from cprproto.errors import AddressTaken, HostError
from cprproto.kvm.mapping import Mapping

__all__ = ["map_at"]

#: include/uapi/asm-generic/mman-common.h, Linux 4.17: fail instead of replacing what is there.
_FIXED_NOREPLACE = 0x100000
_EEXIST = 17

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class _Fixed(Mapping):
    """A mapping that Python's mmap knows nothing of."""

    __slots__ = ()

    def close(self) -> None:
        """Unmap. The bytes must not be used any more: there is nothing to keep them."""
        self.view.release()
        _libc.munmap(self.address, self.size)


def map_at(fd: int, size: int, address: int, *, writable: bool = True) -> Mapping:
    """Map the first `size` bytes of a file, shared, at this address and nowhere else.

    Raises:
        AddressTaken: something is there already; it is left as it is.
        HostError: the kernel refused for another reason.
    """
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    got = _libc.mmap(address, size, access, mmap.MAP_SHARED | _FIXED_NOREPLACE, fd, 0)
    if got == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        if number == _EEXIST:
            raise AddressTaken(address, size, _holder(address, size))
        raise HostError(f"{size} bytes at {address:#x}: {os.strerror(number)}", number)
    if got != address:  # a kernel before 4.17 takes the address for a wish
        _libc.munmap(got, size)
        raise AddressTaken(address, size, _holder(address, size))
    view = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
    return _Fixed(address, view, None)


def _holder(address: int, size: int) -> str:
    """Name the first mapping that lies in a range, as /proc/self/maps does."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            span, _, _, _, _, *name = line.split()
            start, end = (int(word, 16) for word in span.split("-"))
            if start < address + size and address < end:
                return name[0] if name else "memory without a name"
    return "nothing that shows"
