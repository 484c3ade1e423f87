"""Memory backends for a try: no huge pages, no files of others, nothing touched in advance.

Guest memory that is never written takes no room. A backend of files or huge
pages becomes a memfd of the same size and id; of all backends this one and
the file's have the same default for the name of their block
(hw/core/machine.c: hw_compat_3_1, x-use-canonical-path-for-ramblock-id).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from cprtools.check.cmdline import Option, Pairs, join_pairs, split_pairs, value_of

__all__ = ["Backends", "size_of"]

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_SIZE = re.compile(r"(0x[0-9a-f]+|\d+(?:\.\d+)?)([bkmgtp]?)b?", re.IGNORECASE)
#: Keys that say where memory comes from, and when.
_GONE = frozenset(
    [
        "prealloc",
        "prealloc-threads",
        "prealloc-context",
        "policy",
        "host-nodes",
        "reserve",
        "hugetlb",
        "hugetlbsize",
        "mem-path",
        "align",
        "offset",
        "discard-data",
        "pmem",
        "readonly",
        "rom",
        "seal",
    ]
)
_CANONICAL = "x-use-canonical-path-for-ramblock-id"


def size_of(text: str, unit: str = "") -> int:
    """Read a size as QEMU does; 0 for what is none.

    Args:
        text: ``64M``, ``0x1000``.
        unit: the one that holds without a letter.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return 0
    number = match[1].lower()
    value = int(number, 16) if number.startswith("0x") else float(number)
    return int(value * _UNITS[(match[2] or unit).lower()])


class Backends:
    """Rewrites memory backends.

    Args:
        folder: for files, where they have to be files.
        shared_files: keep files: x-ignore-shared tells them apart from other memory.
        big: the memory of all is more than may be promised here: nothing may be private.

    Attributes:
        largest: bytes of the largest one that is a file.
    """

    def __init__(self, folder: Path, *, shared_files: bool, big: bool) -> None:
        self.folder = folder
        self.shared_files = shared_files
        self.big = big
        self.largest = 0
        self._count = 0

    def rewritten(self, kind: str, pairs: Pairs) -> str | None:
        """Give the value of -object, or None where it stays."""
        plain = kind.removeprefix("memory-backend-")
        if plain not in ("ram", "file", "memfd", "shm"):
            return None
        kept = [pair for pair in pairs if pair[0] not in _GONE and pair[0] != "qom-type"]
        if plain == "ram" and not self.big:
            return join_pairs([("qom-type", kind), *kept])
        shared = value_of(pairs, "share", default="off" if plain in ("ram", "file") else "on")
        kept = [pair for pair in kept if pair[0] != "share"]
        size = self._size(pairs)
        self.largest = max(self.largest, size)
        kept = [*(pair for pair in kept if pair[0] != "size"), ("size", str(size))]
        if plain == "ram" and not value_of(pairs, _CANONICAL):
            kept.append((_CANONICAL, "off"))
        if plain == "file" and self.shared_files:
            self._count += 1
            path = str(self.folder / f"memory-{self._count}")
            kept += [("mem-path", path), ("share", shared)]
            return join_pairs([("qom-type", kind), *kept])
        share = "on" if self.big and not self.shared_files else shared
        return join_pairs([("qom-type", "memory-backend-memfd"), *kept, ("share", share)])

    def _size(self, pairs: Pairs) -> int:
        size = size_of(value_of(pairs, "size"))
        if size:
            return size
        try:
            return Path(value_of(pairs, "mem-path")).stat().st_size
        except OSError:
            return 0

    def main(self, options: Iterable[Option], name: str) -> list[str]:
        """Give the machine's own memory a backend, if the command line does not."""
        size = 128 << 20
        for option in options:
            value = option.value or ""
            if option.name == "m":
                size = size_of(value_of(split_pairs(value, "size"), "size"), "m") or size
            elif option.name in ("machine", "M", "numa") and re.search(
                "mem(ory-backend|dev)?=", value
            ):
                return []
        self.largest = max(self.largest, size)
        memory = [("id", name), ("size", str(size)), ("share", "on"), (_CANONICAL, "off")]
        backend = join_pairs([("qom-type", "memory-backend-memfd"), *memory])
        return ["-object", backend, "-machine", f"memory-backend={name}"]
