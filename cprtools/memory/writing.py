"""Write guest memory to files, with holes where it is zero: `FileWriter`.

Where a block goes is a list of `Target`s: a range of the block, and the place
in a file that gets it. So the same writer makes a file a block, the guest's
physical memory, and the memory part of an ELF core.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cprformats.memory.batch import RamBatch
from cprformats.memory.contents import data_views, write_batch
from cprformats.migration.mapped import MappedRam
from cprformats.migration.ramparts import RamBlock
from cprformats.source import FileSource, Source

__all__ = ["FileWriter", "Plan", "Target", "copy_range"]

_IOV_MAX = os.sysconf("SC_IOV_MAX")
_PIECE_BYTES = 1 << 20
#: A copy in the kernel goes in steps, so that progress can be shown and Ctrl-C is heard.
_STEP_BYTES = 64 << 20
_PUNCH = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


@dataclass(frozen=True, slots=True)
class Target:
    """Where a range of a block goes.

    Attributes:
        start: of the range in the block, in bytes.
        size: in bytes.
        fd: the file.
        offset: in the file, in bytes.
    """

    start: int
    size: int
    fd: int
    offset: int


#: Gives the targets by idstr once the block list is known.
Plan = Callable[[Sequence[RamBlock]], Mapping[str, Sequence[Target]]]


class FileWriter:
    """A `PageWriter` that writes to files.

    Args:
        plan: says where blocks go; blocks it does not name are left out.
        progress: called with the number of bytes of memory that have been copied in the
            kernel; only mapped-ram comes that way.
    """

    def __init__(self, plan: Plan, progress: Callable[[int], None] | None = None) -> None:
        self._plan = plan
        self._progress = progress
        self._targets: dict[str, Sequence[Target]] = {}
        self._whole: dict[str, Target] = {}
        self._copied = 0

    def restart(self) -> None:
        """Empty the files."""
        for fd in {target.fd for targets in self._targets.values() for target in targets}:
            size = os.fstat(fd).st_size
            os.ftruncate(fd, 0)
            os.ftruncate(fd, size)

    def begin(self, blocks: Sequence[RamBlock], source: Source) -> None:
        """Ask where the blocks go; with mapped-ram copy their pages."""
        self._targets.update(self._plan(blocks))
        for block in blocks:
            targets = self._targets.get(block.idstr, ())
            self._whole.pop(block.idstr, None)
            if len(targets) == 1 and not targets[0].start and targets[0].size == block.used_length:
                self._whole[block.idstr] = targets[0]
            if block.mapped is not None and block.mapped.pages_offset:
                self._mapped(block, block.mapped, source)

    def pages(self, batch: RamBatch, page_size: int, *, fresh: bool) -> None:
        """Write a batch of data and zero pages."""
        whole = self._whole.get(batch.block)
        room = 0 if whole is None else whole.size - batch.address
        if whole is not None and fresh and len(batch.kinds) * page_size <= room:
            self._straight(whole, batch, page_size)
        else:
            write_batch(self, batch, page_size, fresh=fresh)

    def _straight(self, whole: Target, batch: RamBatch, page_size: int) -> None:
        """Write the data of a batch to one file: where runs are short, each call counts."""
        fd, place = whole.fd, whole.offset + batch.address
        for page, views in data_views(batch, page_size):
            at = place + page * page_size
            if len(views) == 1:
                _write_all(fd, views[0], at)
            elif len(views) > _IOV_MAX or os.pwritev(fd, views, at) != len(views) * page_size:
                self.write(batch.block, batch.address + page * page_size, views)

    def write(self, block: str, address: int, views: list[memoryview]) -> None:
        """Write pages that follow each other."""
        whole = self._whole.get(block)
        if whole is not None and len(views) <= _IOV_MAX:
            length = sum(map(len, views))
            room = whole.size - address
            if length <= room and os.pwritev(whole.fd, views, whole.offset + address) == length:
                return
        for view in views:
            for target, start, end in self._parts(block, address, len(view)):
                _write_all(target.fd, view[start - address : end - address], _place(target, start))
            address += len(view)

    def zero(self, block: str, address: int, length: int) -> None:
        """Make holes of pages."""
        for target, start, end in self._parts(block, address, length):
            _punch(target.fd, _place(target, start), end - start)

    def read(self, block: str, address: int, length: int) -> bytes:
        """Read a page back; zeros where the block goes nowhere."""
        page = bytearray(length)
        for target, start, end in self._parts(block, address, length):
            data = os.pread(target.fd, end - start, _place(target, start))
            page[start - address : start - address + len(data)] = data
        return bytes(page)

    def _parts(self, block: str, address: int, length: int) -> list[tuple[Target, int, int]]:
        """Give the targets that a range of a block touches, each with the part it takes."""
        end = address + length
        return [
            (target, max(address, target.start), min(end, target.start + target.size))
            for target in self._targets.get(block, ())
            if target.start < end and address < target.start + target.size
        ]

    def _mapped(self, block: RamBlock, mapped: MappedRam, source: Source) -> None:
        pages = -(-block.used_length // mapped.page_size)
        mapped.check(source, pages, block.idstr)
        for first, count, there in mapped.runs(source, 0, pages):
            if not there:
                continue
            address, length = first * mapped.page_size, count * mapped.page_size
            length = min(length, block.used_length - address)
            for target, start, end in self._parts(block.idstr, address, length):
                self._copy(source, mapped.pages_offset, target, start, end)

    def _copy(self, source: Source, pages: int, target: Target, start: int, end: int) -> None:
        for begin in range(start, end, _STEP_BYTES):
            count = min(_STEP_BYTES, end - begin)
            copy_range(source, pages + begin, count, target.fd, _place(target, begin))
            self._copied += count
            if self._progress is not None:
                self._progress(self._copied)


def copy_range(source: Source, offset: int, count: int, fd: int, place: int) -> None:
    """Copy bytes of a source to a file, inside the kernel where it can be done.

    Raises:
        OSError: the file can't be written.
        FormatError: the source can't be read.
    """
    done = 0
    if isinstance(source, FileSource):
        done = _kernel_copy(source.fd, offset, count, fd, place)
    while done < count:
        data = source.read_at(offset + done, min(count - done, _PIECE_BYTES))
        if not data:
            return  # a file that ends in a hole may be shorter than its pages
        _write_all(fd, memoryview(data), place + done)
        done += len(data)


def _kernel_copy(source: int, offset: int, count: int, fd: int, place: int) -> int:
    """Copy as much as the kernel does; gives the bytes that are done."""
    done = 0
    while done < count:
        try:
            copied = os.copy_file_range(source, fd, count - done, offset + done, place + done)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                raise
            return done
        if not copied:
            return done
        done += copied
    return done


def _place(target: Target, start: int) -> int:
    return target.offset + start - target.start


def _write_all(fd: int, data: memoryview, place: int) -> None:
    done = os.pwrite(fd, data, place)
    while done < len(data):
        done += os.pwrite(fd, data[done:], place + done)


_libc = ctypes.CDLL(None, use_errno=True)


def _punch(fd: int, place: int, length: int) -> None:
    """Make a hole, or write zeros where the file system has none."""
    if not _libc.fallocate(fd, _PUNCH, ctypes.c_long(place), ctypes.c_long(length)):
        return
    for at in range(place, place + length, _PIECE_BYTES):
        _write_all(fd, memoryview(bytes(min(_PIECE_BYTES, place + length - at))), at)
