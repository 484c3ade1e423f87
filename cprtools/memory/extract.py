"""Take guest memory out into files: one for each block."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote_from_bytes

from cprformats.migration.ramparts import RamBlock
from cprtools.memory.drafts import Drafts
from cprtools.memory.writing import Target

__all__ = ["BlockFiles", "block_file_name"]

#: A file's name has 255 bytes at most.
_MOST_NAME = 240


def block_file_name(idstr: str) -> str:
    """Give the name of a block's file: what is unsafe in a name is %-encoded."""
    name = quote_from_bytes(idstr.encode("utf-8", "surrogateescape"), safe=" @,:+")
    return f"{name[:_MOST_NAME]}.raw"


class BlockFiles:
    """A plan that gives each block a file of its own, as long as the block.

    Args:
        folder: where the files go.
        drafts: the files are added to these.
        only: idstrs of the blocks to take; all if empty.

    Attributes:
        paths: where each block goes, by idstr.
    """

    def __init__(self, folder: Path, drafts: Drafts, only: Sequence[str] = ()) -> None:
        self._folder = folder
        self._drafts = drafts
        self._only = frozenset(only)
        self.paths: dict[str, Path] = {}
        self._fds: dict[str, int] = {}

    def __call__(self, blocks: Sequence[RamBlock]) -> Mapping[str, Sequence[Target]]:
        """Make the files."""
        wanted = [block for block in blocks if not self._only or block.idstr in self._only]
        return {block.idstr: [self._target(block)] for block in wanted}

    def _target(self, block: RamBlock) -> Target:
        fd = self._fds.get(block.idstr)
        if fd is None:
            path = self._folder / block_file_name(block.idstr)
            if path in self.paths.values():
                path = path.with_suffix(f".{len(self.paths)}.raw")
            draft = self._drafts.add(path)
            self.paths[block.idstr], self._fds[block.idstr], fd = path, draft.fd, draft.fd
        if block.used_length >> 63:  # more than the system's calls can say
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(self.paths[block.idstr]))
        os.ftruncate(fd, block.used_length)
        return Target(0, block.used_length, fd, 0)
