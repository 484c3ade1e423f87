"""Disks for a try: empty ones of the same size, so that none of the real ones is opened by it.

Sizes are read here: of a raw file from its metadata, of qcow2 and VDI from
the header. Where a size is not known, 1 GiB stands for it: only flash chips
and SD cards look at it, and these are files that are at hand.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cprtools.check.cmdline import Option, Pairs, join_pairs, split_pairs, value_of

__all__ = ["Disks", "disk_size"]

_UNKNOWN: Final = 1 << 30
_SECTOR: Final = 512
_HEAD: Final = 512
#: Options that are disks themselves, and what they stand for.
_IMAGES: Final = {
    **{f"hd{letter}": f"index={number},media=disk" for number, letter in enumerate("abcd")},
    "cdrom": "index=2,media=cdrom",
    "fda": "if=floppy,index=0",
    "fdb": "if=floppy,index=1",
    "sd": "if=sd",
    "mtdblock": "if=mtd",
    "pflash": "if=pflash",
    "": "media=disk",
}
#: What of -drive a device may depend on.
_DRIVE_KEYS: Final = frozenset(
    [
        "if",
        "bus",
        "unit",
        "index",
        "media",
        "id",
        "readonly",
        "read-only",
        "cache",
        "cache.writeback",
        "werror",
        "rerror",
        "node-name",
        "serial",
        "cyls",
        "heads",
        "secs",
        "trans",
        "addr",
        "copy-on-read",
        "group",
    ]
)
_NODE_KEYS: Final = frozenset(("node-name", "read-only", "force-share"))


@dataclass(frozen=True, slots=True)
class _Node:
    path: str
    child: str
    size: int


def disk_size(path: str) -> int | None:
    """Give the size in bytes that a disk shows; None where it can't be told.

    Raises:
        OSError: it is not there, or can't be read.
    """
    name = Path(path.removeprefix("file:"))
    status = name.stat()
    if stat.S_ISBLK(status.st_mode):
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        return int(Path(f"/sys/dev/block/{number}/size").read_text()) * _SECTOR
    if not stat.S_ISREG(status.st_mode):
        return None
    with name.open("rb") as file:
        head = file.read(_HEAD)
    if head[:4] == b"QFI\xfb" and len(head) >= 32:
        return int(struct.unpack_from(">Q", head, 24)[0])
    if head[64:68] == b"\x7f\x10\xda\xbe" and len(head) == _HEAD:
        return int(struct.unpack_from("<Q", head, 368)[0])
    if head[:4] in (b"KDMV", b"QED\0") or head[:8] in (b"vhdxfile", b"conectix"):
        return None
    return status.st_size


class Disks:
    """Rewrites disks.

    Args:
        notes: takes what is worth knowing.
    """

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes
        self._nodes: dict[str, _Node] = {}

    def look(self, options: Iterable[Option]) -> None:
        """Note which block nodes there are: one may be another's file."""
        for option in options:
            if option.name == "blockdev" and option.value:
                pairs = split_pairs(option.value, "driver")
                path = value_of(pairs, "filename", "file.filename", "file.file.filename")
                child = value_of(pairs, "file", "target")
                size = int(value_of(pairs, "size", default="0") or 0)
                self._nodes[value_of(pairs, "node-name")] = _Node(path, child, size)

    def image(self, option: Option) -> Sequence[str] | None:
        """Give the words for an option that is a disk image; None if it is none."""
        meaning = _IMAGES.get(option.name)
        if meaning is None or option.value is None:
            return None
        return ["-drive", f"{self._empty(self._size(option.value))},{meaning}"]

    def drive(self, value: str) -> str:
        """Give the value of -drive."""
        pairs = split_pairs(value, "file")
        path = value_of(pairs, "file", "file.filename", "filename", "file.file.filename")
        driver = value_of(pairs, "driver", "file.driver", "format")
        if driver.startswith("null-") or not (path or driver):
            return value
        kept = [pair for pair in pairs if _is_kept(pair)]
        size = int(value_of(pairs, "size", "file.size", default="0") or 0)
        return f"{self._empty(size or self._size(path))},{join_pairs(kept)}".rstrip(",")

    def node(self, value: str) -> str:
        """Give the value of -blockdev."""
        pairs = split_pairs(value, "driver")
        if value_of(pairs, "driver") in ("null-co", "null-aio"):
            return value
        kept = [pair for pair in pairs if pair[0] in _NODE_KEYS]
        return f"{self._empty(self._node_size(pairs))},{join_pairs(kept)}"

    def _empty(self, size: int) -> str:
        return f"driver=null-co,size={size},read-zeroes=on"

    def _node_size(self, pairs: Pairs) -> int:
        """Follow a node to the file below."""
        name = value_of(pairs, "node-name")
        for _ in range(len(self._nodes) + 1):
            node = self._nodes.get(name)
            if node is None:
                break
            if node.size:
                return node.size
            if node.path:
                return self._size(node.path)
            name = node.child
        return self._size("")

    def _size(self, path: str) -> int:
        try:
            size = disk_size(path) if path else None
        except (OSError, ValueError):
            size = None
        if size is None:
            note = f"disk {path or 'without a file'}: its size is not known here"
            if note not in self.notes:
                self.notes.append(note)
        return _UNKNOWN if size is None else size


def _is_kept(pair: tuple[str, str]) -> bool:
    key, value = pair
    if key in ("cache", "cache.writeback") and value in ("none", "unsafe", "writeback"):
        return False  # the same as nothing said, for the guest
    return key in _DRIVE_KEYS or key.startswith("throttling.")
