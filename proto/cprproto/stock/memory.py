"""Guest RAM whose every byte is known: made in a memfd, and recognised again.

A block's contents come from its seed alone, so the memory of another process, a dump and a
descriptor that came back can all be compared, whole, without keeping a copy.
"""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Iterator

from cprproto.errors import HostError

__all__ = ["contents", "make_ram", "map_shared", "whose"]

_PIECE = 1 << 20


def contents(seed: int, size: int) -> Iterator[bytes]:
    """Give a block's bytes in pieces of 1 MiB."""
    source = random.Random(seed)  # noqa: S311 -- a pattern, not a secret
    for start in range(0, size, _PIECE):
        yield source.randbytes(min(_PIECE, size - start))


def make_ram(name: str, size: int, seed: int, *, seals: bool = False) -> int:
    """Make a memfd full of a seed's contents and give its number, close-on-exec on.

    Args:
        name: shows in /proc/PID/fd and maps.
        size: in bytes.
        seed: of the contents; 0 leaves it empty.
        seals: allow seals.

    Raises:
        HostError: no memory, or no descriptor is left.
    """
    number = -1
    try:
        flags = os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if seals else 0)
        number = os.memfd_create(name, flags)
        os.ftruncate(number, size)
        for piece in contents(seed, size) if seed else ():
            os.write(number, piece)
        os.lseek(number, 0, os.SEEK_SET)
    except OSError as problem:
        if number >= 0:
            os.close(number)
        raise HostError(f"no RAM of {size} bytes: {problem.strerror}", problem.errno or 0) from None
    return number


def whose(number: int, size: int, seeds: dict[str, int], *, low: int = 0) -> str:
    """Say whose contents a file has: a name, ``empty`` or ``changed``.

    Args:
        number: of the file's descriptor.
        size: of the contents, in bytes from the file's beginning.
        seeds: of the contents that are known, by name.
        low: bytes in front that may be anything, whole MiB.
    """
    for name, seed in seeds.items():
        if _same(number, contents(seed, size), low):
            return name
    zeros = (bytes(min(_PIECE, size - start)) for start in range(0, size, _PIECE))
    return "empty" if _same(number, zeros, low) else "changed"


def _same(number: int, pieces: Iterator[bytes], low: int) -> bool:
    at = 0
    for piece in pieces:
        if at >= low and os.pread(number, len(piece), at) != piece:
            return False
        at += len(piece)
    return True


def map_shared(number: int, size: int) -> mmap.mmap:
    """Map a descriptor for reading, shared.

    Raises:
        HostError: it can't be mapped, or is shorter.
    """
    try:
        return mmap.mmap(number, size, mmap.MAP_SHARED, mmap.PROT_READ)
    except (OSError, ValueError) as problem:
        raise HostError(f"descriptor {number} can't be mapped: {problem}") from None
