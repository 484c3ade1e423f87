"""Guest memory as named blocks, each in a descriptor of its own that outlives the process.

Three blocks, as a PC has them: ``ram``, ``rom`` (the program; no guest can write it) and ``vga``.
A block is a memfd, sealed against resizing if wanted, a memfd of huge pages, or a file (QEMU's
memory-backend-file). All are mapped shared: who has the descriptor sees the same bytes.
"""

from __future__ import annotations

import os
from fcntl import (
    F_ADD_SEALS,
    F_GET_SEALS,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    fcntl,
)

from cprproto.errors import HostError
from cprproto.kvm.mapping import Mapping, map_shared
from cprproto.machine import layout as at

__all__ = ["Block", "Memory", "file_block", "free_huge_pages", "memfd_block"]

_SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW
_HUGE = 2 << 20


class Block:
    """One block: a descriptor, its size, and where it is mapped.

    Attributes:
        name: ``ram``, ``rom`` or ``vga``.
        fd: the descriptor; it stays open for the next process.
        size: bytes.
        kind: ``memfd``, ``hugetlb`` or ``file``.
        mapping: None until `map`.
    """

    __slots__ = ("fd", "kind", "mapping", "name", "size")

    def __init__(self, name: str, fd: int, size: int, kind: str = "memfd") -> None:
        """Take a descriptor that is there, as a process does that inherited it.

        Raises:
            HostError: it is not open, or not of that size.
        """
        try:
            found = os.fstat(fd).st_size
        except OSError as error:
            text = f"block {name}: descriptor {fd}: {error.strerror}"
            raise HostError(text, error.errno or 0) from None
        if found != size:
            raise HostError(f"block {name}: expected {size} bytes, descriptor {fd} has {found}")
        self.name, self.fd, self.size, self.kind = name, fd, size, kind
        self.mapping: Mapping | None = None

    def map(self, address: int | None = None) -> Mapping:
        """Map the block, at an address or where the kernel likes; once.

        Raises:
            AddressTaken: something else is at that address.
            HostError: the kernel refused.
        """
        if self.mapping is None:
            if address is None:
                self.mapping = map_shared(self.fd, self.size)
            else:
                from cprproto.machine.fixed import map_at  # noqa: PLC0415 -- ctypes: 3 to 10 ms

                self.mapping = map_at(self.fd, self.size, address)
        return self.mapping

    @property
    def view(self) -> memoryview:
        """The bytes."""
        return self.map().view

    @property
    def sealed(self) -> bool:
        """Tell whether the block's size can never change again."""
        try:
            return fcntl(self.fd, F_GET_SEALS) & _SEALS == _SEALS
        except OSError:  # not a memfd
            return False

    def close(self) -> None:
        """Unmap the block and close its descriptor."""
        if self.mapping is not None:
            self.mapping.close()
            self.mapping = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def memfd_block(name: str, size: int, *, seal: bool = False, huge: bool = False) -> Block:
    """Make a block in a memfd, close-on-exec.

    Args:
        name: ``ram``, ``rom`` or ``vga``.
        size: bytes.
        seal: add F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_SEAL.
        huge: take 2 MiB pages; the host must have enough of them free.

    Raises:
        HostError: no memory, no huge pages, or a size that is no multiple of 2 MiB with `huge`.
    """
    if huge and (size % _HUGE or free_huge_pages() * _HUGE < size):
        free = free_huge_pages()
        raise HostError(f"block {name}: {size} bytes of huge pages wanted, {free} of 2 MiB free")
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    flags |= os.MFD_HUGETLB | os.MFD_HUGE_2MB if huge else 0
    try:
        fd = os.memfd_create(f"cpr-{name}", flags)
    except OSError as error:
        raise HostError(f"block {name}: {error.strerror}", error.errno or 0) from None
    try:
        os.ftruncate(fd, size)
        if seal:
            fcntl(fd, F_ADD_SEALS, _SEALS)
    except OSError as error:
        os.close(fd)
        raise HostError(f"block {name}: {error.strerror}", error.errno or 0) from None
    return Block(name, fd, size, "hugetlb" if huge else "memfd")


def file_block(name: str, path: str, size: int) -> Block:
    """Make a block in a file, which is created or set to that size.

    Raises:
        HostError: the file can't be opened or made that long.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"block {name}: {path}: {error.strerror}", error.errno or 0) from None
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        os.close(fd)
        raise HostError(f"block {name}: {path}: {error.strerror}", error.errno or 0) from None
    return Block(name, fd, size, "file")


def free_huge_pages() -> int:
    """Count the host's free huge pages of 2 MiB; 0 where it has none at all."""
    try:
        fd = os.open("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", os.O_RDONLY)
    except OSError:
        return 0
    try:
        return int(os.read(fd, 32))
    finally:
        os.close(fd)


class Memory:
    """The blocks of one guest."""

    __slots__ = ("ram", "rom", "vga")

    def __init__(self, ram: Block, rom: Block, vga: Block) -> None:
        self.ram, self.rom, self.vga = ram, rom, vga

    @classmethod
    def make(cls, ram_bytes: int, *, seal: bool = False) -> Memory:
        """Make fresh blocks in memfds.

        Raises:
            HostError: no memory, or a size that no guest can have (2 MiB to 128 GiB, whole pages).
        """
        if ram_bytes % at.PAGE or not 2 << 20 <= ram_bytes <= at.MOST_RAM:
            raise HostError(f"a guest can't have {ram_bytes} bytes of RAM")
        return cls(
            memfd_block("ram", ram_bytes, seal=seal),
            memfd_block("rom", at.ROM_BYTES, seal=seal),
            memfd_block("vga", at.VGA_BYTES, seal=seal),
        )

    @property
    def blocks(self) -> tuple[Block, Block, Block]:
        """All blocks: ram, rom, vga."""
        return self.ram, self.rom, self.vga

    def slots(self) -> list[tuple[int, int, int, bool]]:
        """List KVM's slots: guest address, bytes, our address, read-only. Maps what is not yet."""
        ram, rom, vga = (block.map() for block in self.blocks)
        low = min(ram.size, at.LOW_RAM_LIMIT)
        result = [(0, low, ram.address, False)]
        if ram.size > low:
            result.append((at.HIGH_RAM, ram.size - low, ram.address + low, False))
        result.append((at.VGA, vga.size, vga.address, False))
        result.append((at.ROM, rom.size, rom.address, True))
        return result

    def close(self) -> None:
        """Unmap and close all blocks."""
        for block in self.blocks:
            block.close()
