"""Read the VM state of a qcow2 snapshot by its logical offsets.

::

    state offset -> disk offset    + l1_vm_state_index * l1_span: behind the disk's end
    L1 entry     = offset of an L2 table | bit 63
    L2 entry     = offset of a cluster | bit 63, bit 0: zeros     (+ two bitmaps, extended L2)
                 | bit 62, sectors, offset                        compressed cluster

What is not allocated reads as zeros; a backing file holds no VM state.

Source: QEMU docs/interop/qcow2.rst (11.1); block/qcow2.h (qcow2_vm_state_offset).
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections import OrderedDict
from typing import TypeVar

import zstandard

from cprformats.container import qcow2_wire as wire
from cprformats.container.qcow2_header import Header, Snapshot
from cprformats.errors import Damaged, FormatError, Truncated
from cprformats.source import Source

__all__ = ["VmState", "compressed_extent", "read_table"]

_T = TypeVar("_T")
_SUBCLUSTERS = 32
#: Decompressed clusters and L2 tables that are kept; each is a cluster long.
_HELD_BYTES = 8 << 20
_MAX_STATE_BYTES = 1 << 62
#: A stream ends in its description or a footer, so no zeros worth a cluster are left out there.
_MAX_TAIL_BYTES = 64 << 20


def read_table(source: Source, offset: int, entries: int, what: str) -> array[int]:
    """Read a table of big-endian 64-bit numbers.

    Raises:
        Truncated: the file ends inside it.
    """
    data = source.read_at(offset, entries * 8)
    if len(data) < entries * 8:
        raise Truncated(what, entries * 8, len(data), offset=offset)
    table = array("Q", data)
    if sys.byteorder == "little":
        table.byteswap()
    return table


def compressed_extent(entry: int, cluster_bits: int) -> tuple[int, int]:
    """Give offset and size in bytes of a compressed cluster; the size is rounded up."""
    shift = 62 - (cluster_bits - 8)
    offset = entry & ((1 << shift) - 1)
    sectors = entry >> shift & ((1 << (cluster_bits - 8)) - 1)
    return offset, (sectors + 1) * 512 - offset % 512


class VmState:
    """A `Source` over the VM state of one snapshot, its offsets from 0.

    Args:
        source: the image.
        header: of the image.
        snapshot: which one; its state must not be encrypted.

    Attributes:
        error: why the state ends before the size that the snapshot tells, if it does.

    Raises:
        Damaged: sizes that contradict each other.
        Truncated: the L1 table is cut.
    """

    def __init__(self, source: Source, header: Header, snapshot: Snapshot) -> None:
        self._source = source
        self._header = header
        self.snapshot = snapshot
        self._size = snapshot.vm_state_size
        disk = header.size if snapshot.disk_size is None else snapshot.disk_size
        self._first_l1 = -(-disk // header.l1_span)
        self._path = ("snapshots", snapshot.name or snapshot.id)
        self._l1 = self._read_l1()
        self._l2: OrderedDict[int, array[int]] = OrderedDict()
        self._unpacked: OrderedDict[int, bytes] = OrderedDict()
        self.error: FormatError | None = None
        self._check_tables()

    def _read_l1(self) -> array[int]:
        """Read the part of the L1 table that stands for the VM state."""
        header, snapshot = self._header, self.snapshot
        first = self._first_l1
        count = snapshot.l1_size - first
        wanted = -(-self._size // header.l1_span)
        if snapshot.l1_size * 8 > wire.MAX_L1_BYTES or self._size > _MAX_STATE_BYTES:
            raise self._damaged(
                f"sizes: found an L1 table of {snapshot.l1_size} entries for "
                f"a VM state of {self._size} bytes",
                snapshot.offset,
            )
        if count < wanted:
            raise self._damaged(
                f"L1 table: expected {first + wanted} entries for disk and VM state, "
                f"found {snapshot.l1_size}",
                snapshot.offset,
            )
        if snapshot.l1_offset % header.cluster_size:
            raise self._damaged(f"L1 table at {snapshot.l1_offset:#x}: not at a cluster's start")
        return read_table(self._source, snapshot.l1_offset + first * 8, wanted, "L1 table")

    def _check_tables(self) -> None:
        """End the state before the first cluster that can't be read, and keep why.

        So a reader gets what is there, and its own error where the state ends.
        """
        allocated, step = 0, self._header.l2_entry_size // 8
        seen: set[int] = set()
        for index, entry in enumerate(self._l1):
            offset, start = entry & wire.OFFSET_MASK, index * self._header.l1_span
            if not offset:
                continue
            try:
                if offset in seen:
                    raise self._damaged("one L2 table stands for two ranges", offset)
                seen.add(offset)
                table = self._table(offset)[::step]
            except FormatError as error:
                self._size, self.error = start, error
                return
            allocated = self._check_clusters(table, start) or allocated
            if self.error is not None:
                return
        if self._size > allocated + _MAX_TAIL_BYTES:
            self.error = self._damaged(
                f"VM state: expected {self._size} bytes, found none behind {allocated}",
                self.snapshot.offset,
            )
            self._size = allocated

    def _check_clusters(self, table: array[int], start: int) -> int:
        """Check one L2 table; gives the end of what is allocated, or 0."""
        end, size, last = self._end(), self._header.cluster_size, -1
        for number, entry in enumerate(table):
            if not entry:
                continue
            if start + number * size >= self._size:
                break
            last = number
            packed = entry & wire.COMPRESSED
            offset = entry & wire.OFFSET_MASK
            if packed:
                offset, _ = compressed_extent(entry, self._header.cluster_bits)
            if offset < end and (packed or not offset % size):
                continue
            self._size = start + number * size
            if packed or not offset % size:
                self.error = Truncated(
                    "cluster of the VM state", size, 0, offset=offset, path=self._path
                )
            else:
                self.error = self._damaged("cluster: not at a multiple of the size", offset)
            return 0
        return start + (last + 1) * size if last >= 0 else 0

    @property
    def known_size(self) -> int | None:
        """Size of the VM state in bytes."""
        return self._size

    def size(self) -> int:
        """Size of the VM state in bytes."""
        return self._size

    def drop(self, offset: int, count: int) -> None:
        """Nothing to do: the image can be read again."""

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer only at the end.

        Raises:
            Damaged: a compressed cluster can't be unpacked.
        """
        end = min(offset + count, self._size)
        pieces = []
        while offset < end:
            within = offset % self._header.cluster_size
            size = min(end - offset, self._header.cluster_size - within)
            pieces.append(self._in_cluster(offset >> self._header.cluster_bits, within, size))
            offset += size
        return b"".join(pieces)

    def _in_cluster(self, cluster: int, start: int, size: int) -> bytes:
        entry, bitmaps = self._entry(cluster)
        if entry & wire.COMPRESSED:
            return self._decompressed(entry)[start : start + size]
        offset = entry & wire.OFFSET_MASK
        if self._header.l2_entry_size == 16:
            return self._in_subclusters(offset, bitmaps, start, size)
        if not offset or entry & wire.ZERO:
            return bytes(size)
        return self._read(offset, start, size)

    def _in_subclusters(self, offset: int, bitmaps: int, start: int, size: int) -> bytes:
        """Subcluster n is allocated by bit n; bit 32 + n says that it reads as zeros."""
        width = self._header.cluster_size // _SUBCLUSTERS
        pieces = []
        end = start + size
        while start < end:
            number = start // width
            count = min(end, (number + 1) * width) - start
            allocated = offset and bitmaps >> number & 1
            pieces.append(self._read(offset, start, count) if allocated else bytes(count))
            start += count
        return b"".join(pieces)

    def _read(self, offset: int, start: int, size: int) -> bytes:
        # The last cluster of a file may be cut where nothing was written.
        return self._source.read_at(offset + start, size).ljust(size, b"\0")

    def _end(self) -> int:
        return self._source.size()

    def _entry(self, cluster: int) -> tuple[int, int]:
        """Find a cluster's L2 entry, and its bitmaps where there are subclusters."""
        index, number = divmod(cluster, self._header.l2_entries)
        offset = self._l1[index] & wire.OFFSET_MASK
        if not offset:
            return 0, 0
        table = self._table(offset)
        if self._header.l2_entry_size == 16:
            return table[2 * number], table[2 * number + 1]
        return table[number], 0

    def _table(self, offset: int) -> array[int]:
        found = self._l2.get(offset)
        if found is None:
            if offset % self._header.cluster_size:
                raise self._damaged(f"L2 table at {offset:#x}: not at a cluster's start")
            found = read_table(self._source, offset, self._header.cluster_size // 8, "L2 table")
            _remember(self._l2, offset, found, self._header.cluster_size)
        return found

    def _decompressed(self, entry: int) -> bytes:
        found = self._unpacked.get(entry)
        if found is None:
            offset, size = compressed_extent(entry, self._header.cluster_bits)
            found = self._unpack(self._source.read_at(offset, size), offset)
            _remember(self._unpacked, entry, found, self._header.cluster_size)
        return found

    def _unpack(self, data: bytes, offset: int) -> bytes:
        size = self._header.cluster_size
        try:
            if self._header.compression == wire.Compression.ZSTD:
                reader = zstandard.ZstdDecompressor().stream_reader(data)
                out = reader.read(size)
            else:
                out = zlib.decompressobj(wbits=-15).decompress(data, size)
        except (zlib.error, zstandard.ZstdError) as error:
            raise self._damaged(f"compressed cluster: {error}", offset) from error
        if len(out) < size:
            raise self._damaged(
                f"compressed cluster: expected {size} bytes, found {len(out)}", offset
            )
        return out

    def _damaged(self, message: str, offset: int | None = None) -> Damaged:
        place = self.snapshot.l1_offset if offset is None else offset
        return Damaged(message, offset=place, path=self._path)


def _remember(held: OrderedDict[int, _T], key: int, value: _T, size: int) -> None:
    held[key] = value
    while len(held) > max(_HELD_BYTES // size, 2):
        held.popitem(last=False)
