"""Find what each cluster of a qcow2 image is for: follow all tables from the header.

::

    refcount table -> refcount blocks
    snapshot table -> L1 tables -> L2 tables -> clusters of disk and VM state
    header         -> active L1 table -> ...
    extensions     -> bitmap directory -> bitmap tables -> bitmaps; the key area of LUKS

Tables belong to one owner alone; L2 tables and what they lead to are shared by
snapshots, and named after the first of: the VM state of a snapshot, the active
layer, the disk of a snapshot. Each L2 table is looked at once, however many L1
tables lead to it, so the work is bounded by the file.

Source: QEMU docs/interop/qcow2.rst (11.1).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

from cprformats.container import qcow2_wire as wire
from cprformats.container.qcow2_header import Header, Snapshot
from cprformats.container.qcow2_map import ImageMap
from cprformats.container.qcow2_state import compressed_extent, read_table
from cprformats.errors import Damaged, FormatError, Truncated, Unsupported
from cprformats.fields import Kind
from cprformats.layout import read_record
from cprformats.reader import Reader
from cprformats.source import Source

__all__ = ["draw_map"]

#: Snapshots that get owners of their own; those behind share one.
_MAX_NAMED = 10_000
#: L1 tables of all snapshots: a disk of 1 TiB has one of 16 KiB in each snapshot.
_MAX_L1_TOTAL = 128 << 20
#: L2 tables: 1 GiB of them lead to 8 TiB in clusters of 64 KiB.
_MAX_L2_TOTAL = 1 << 30
_MAX_BITMAPS = 65535


def draw_map(source: Source, header: Header, snapshots: tuple[Snapshot, ...]) -> ImageMap:
    """Follow all tables; contradictions are kept in the map's `error` and `warnings`."""
    image = ImageMap(source, header, snapshots)
    if not image.drawn:
        image.note(f"an image of {image.file_size} bytes: what its clusters hold is not told")
        return image
    _Painter(image).run()
    return image


class _Painter:
    """Gives owners to clusters, tables before what they lead to."""

    def __init__(self, image: ImageMap) -> None:
        self.image = image
        self.source = image.source
        self.header = image.header
        self.l1_owner = image.owner("L1 table", Kind.CONTAINER, 64)
        self.l2_owner = image.owner("L2 table", Kind.CONTAINER, 64)
        self.l1_left = _MAX_L1_TOTAL
        self.l2_left = _MAX_L2_TOTAL
        #: What only a wrong pointer can lead to: owners up to here are tables.
        self.last_table = 0
        self.refcounts: array[int] = array("Q")
        #: Owners of the snapshots that get none of their own.
        self.shared: dict[str, int] = {}

    def run(self) -> None:
        image, header = self.image, self.header
        image.claim(
            image.owner("header", Kind.CONTAINER), 0, min(header.cluster_size, image.file_size)
        )
        self._guarded(self._refcount_tables)
        self._guarded(self._snapshot_table)
        self._guarded(self._extensions)
        active = self._l1(header.l1_offset, header.l1_size)
        others = [(x, self._l1(x.l1_offset, x.l1_size)) for x in image.snapshots]
        self.last_table = len(image.owners) - 1
        self._disks(active, others)
        self._guarded(self._leaks)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except FormatError as problem:
            self.image.wrong(problem)

    # -- tables -----------------------------------------------------------------------

    def _refcount_tables(self) -> None:
        image, header = self.image, self.header
        size = header.refcount_clusters * header.cluster_size
        owner = image.owner("refcount table", Kind.CONTAINER, 64)
        if not size or not image.claim(owner, header.refcount_offset, size):
            return
        self.refcounts = read_table(
            self.source, header.refcount_offset, size // 8, "refcount table"
        )
        bits = header.refcount_bits if header.refcount_bits >= 8 else 0
        block = image.owner("refcount block", Kind.CONTAINER, bits)
        for entry in self.refcounts:
            if entry & wire.OFFSET_MASK:
                image.claim(block, entry & wire.OFFSET_MASK, header.cluster_size)

    def _snapshot_table(self) -> None:
        if self.image.snapshots:
            last = self.image.snapshots[-1]
            start = self.header.snapshots_offset
            owner = self.image.owner("snapshot table", Kind.CONTAINER)
            self.image.claim(owner, start, last.offset + last.size - start)

    def _extensions(self) -> None:
        for kind, offset, size in self.header.extensions:
            if kind == wire.ENCRYPTION_EXTENSION and size >= 16:
                data = self.source.read_at(offset, 16)
                place, length = int.from_bytes(data[:8]), int.from_bytes(data[8:])
                self.image.claim(
                    self.image.owner("encryption header", Kind.CONTAINER), place, length
                )
            elif kind == wire.BITMAPS_EXTENSION:
                self._bitmaps(offset)

    def _bitmaps(self, offset: int) -> None:
        image = self.image
        values = read_record(Reader(self.source, offset), "bitmaps", wire.BITMAPS_CONTENTS)
        count, place = values["nb_bitmaps"], values["bitmap_directory_offset"]
        size = values["bitmap_directory_size"]
        assert isinstance(count, int)
        assert isinstance(place, int)
        assert isinstance(size, int)
        if count > _MAX_BITMAPS:
            raise Damaged.mismatch("nb_bitmaps", f"up to {_MAX_BITMAPS}", count, offset=offset)
        if not image.claim(image.owner("bitmap directory", Kind.CONTAINER), place, size):
            return
        table_owner = image.owner("bitmap table", Kind.CONTAINER, 64)
        data_owner = image.owner("bitmap", Kind.CONTAINER)
        reader = Reader(self.source, place, place + size, path=("bitmap directory",))
        for _ in range(count):
            table, entries = _bitmap_entry(reader)
            if image.claim(table_owner, table, entries * 8):
                for entry in read_table(self.source, table, entries, "bitmap table"):
                    if entry & wire.OFFSET_MASK:
                        where = entry & wire.OFFSET_MASK
                        image.claim(data_owner, where, self.header.cluster_size)

    def _l1(self, offset: int, entries: int) -> array[int]:
        """Read an L1 table; an empty one where it can't be."""
        size = entries * 8
        empty: array[int] = array("Q")
        if not size:
            return empty
        if size > min(wire.MAX_L1_BYTES, self.l1_left):
            self.image.wrong(
                Unsupported(f"L1 tables of more than {_MAX_L1_TOTAL} bytes", offset=offset)
            )
            return empty
        self.l1_left -= size
        if not self.image.claim(self.l1_owner, offset, size):
            return empty
        return read_table(self.source, offset, entries, "L1 table")

    # -- clusters -----------------------------------------------------------------------

    def _disks(self, active: array[int], others: list[tuple[Snapshot, array[int]]]) -> None:
        image, header = self.image, self.header
        split = -(-header.size // header.l1_span)
        splits = [
            split if x.disk_size is None else -(-x.disk_size // header.l1_span) for x, _ in others
        ]
        states = [
            self._owner("VM state of snapshot", number, x) for number, (x, _) in enumerate(others)
        ]
        for (_, table), start, owner in zip(others, splits, states, strict=True):
            self._layer(table[start:], owner)
        self._layer(active[:split], image.owner("disk data", Kind.PAYLOAD))
        self._layer(active[split:], image.owner("VM state of no snapshot", Kind.PAYLOAD))
        for number, ((snapshot, table), end) in enumerate(zip(others, splits, strict=True)):
            self._layer(table[:end], self._owner("disk data of snapshot", number, snapshot))

    def _owner(self, what: str, number: int, snapshot: Snapshot) -> int:
        if number < _MAX_NAMED:
            name = f"{what} {(snapshot.name or snapshot.id)!r}"
            return self.image.owner(name, Kind.PAYLOAD)
        if what not in self.shared:
            self.shared[what] = self.image.owner(f"{what}s", Kind.PAYLOAD)
        return self.shared[what]

    def _layer(self, l1: array[int], owner: int) -> None:
        image, bits = self.image, self.header.cluster_bits
        for entry in l1:
            offset = entry & wire.OFFSET_MASK
            index = offset >> bits
            if not offset or (
                index < len(image.clusters) and image.clusters[index] == self.l2_owner
            ):
                continue
            if self.l2_left < self.header.cluster_size:
                image.wrong(
                    Unsupported(f"L2 tables of more than {_MAX_L2_TOTAL} bytes", offset=offset)
                )
                return
            self.l2_left -= self.header.cluster_size
            if image.claim(self.l2_owner, offset, self.header.cluster_size):
                self._l2(offset, owner)

    def _l2(self, table_offset: int, owner: int) -> None:
        """Go over one L2 table; this loop sees every cluster of the image."""
        clusters, bits = self.image.clusters, self.header.cluster_bits
        count, last_table, owners = len(clusters), self.last_table, self.image.owners
        table = read_table(self.source, table_offset, self.header.cluster_size // 8, "L2 table")
        entries = table[::2] if self.header.l2_entry_size == 16 else table
        external = self.header.incompatible & wire.Incompatible.DATA_FILE
        inside = self.header.cluster_size - 1
        for entry in entries:
            if not entry:
                continue
            if entry & wire.COMPRESSED:
                self._compressed(entry, owner)
                continue
            offset = entry & wire.OFFSET_MASK
            index = offset >> bits
            if not offset or external:
                continue
            if index >= count or offset & inside:
                self._misplaced(offset, owner)
            elif not clusters[index]:
                clusters[index] = owner
            elif clusters[index] <= last_table:
                name = owners[clusters[index]].name
                self.image.wrong(
                    Damaged(f"one cluster is both {name} and {owners[owner].name}", offset=offset)
                )

    def _misplaced(self, offset: int, owner: int) -> None:
        name = self.image.owners[owner].name
        size = self.header.cluster_size
        problem: FormatError
        if offset % size:
            problem = Damaged(f"{name}: not at a cluster's start", offset=offset)
        else:
            problem = Truncated(name, size, 0, offset=offset)
        self.image.wrong(problem)

    def _compressed(self, entry: int, owner: int) -> None:
        """Compressed clusters lie side by side in clusters of the file."""
        offset, size = compressed_extent(entry, self.header.cluster_bits)
        if offset >= self.image.file_size:
            self._misplaced(offset - offset % self.header.cluster_size, owner)
            return
        bits, clusters = self.header.cluster_bits, self.image.clusters
        for index in range(offset >> bits, min(-(-(offset + size) >> bits), len(clusters))):
            clusters[index] = clusters[index] or owner

    # -- refcounts ----------------------------------------------------------------------

    def _leaks(self) -> None:
        """Name the clusters that are counted as in use, though nothing leads to them."""
        if self.header.incompatible & wire.Incompatible.DIRTY:
            return
        clusters, found = self.image.clusters, 0
        owner = self.image.owner("leaked", Kind.PADDING)
        for index in self._counted():
            if not clusters[index]:
                clusters[index] = owner
                found += 1
        if found:
            self.image.note(f"{found} clusters are counted as in use, but nothing leads to them")

    def _counted(self) -> Iterator[int]:
        """Give the clusters whose refcount is not zero and that no owner has."""
        bits, clusters = self.header.refcount_bits, self.image.clusters
        per_block = self.header.cluster_size * 8 // bits
        for number, entry in enumerate(self.refcounts):
            start = number * per_block
            free = [n for n, x in enumerate(clusters[start : start + per_block]) if not x]
            offset = entry & wire.OFFSET_MASK
            if not free or not offset:
                continue
            block = self.source.read_at(offset, self.header.cluster_size)
            for n in free:
                if _refcount(block, n, bits):
                    yield start + n


def _refcount(block: bytes, number: int, bits: int) -> int:
    if bits >= 8:
        width = bits // 8
        return int.from_bytes(block[number * width : (number + 1) * width])
    place = number * bits
    byte = block[place // 8] if place // 8 < len(block) else 0
    return byte >> place % 8 & ((1 << bits) - 1)


def _bitmap_entry(reader: Reader) -> tuple[int, int]:
    """Read an entry of the bitmap directory: offset and entries of its table."""
    start = reader.offset
    values = read_record(reader, "bitmap", wire.BITMAP_ENTRY)
    extra, name = values["extra_data_size"], values["name_size"]
    table, entries = values["bitmap_table_offset"], values["bitmap_table_size"]
    assert isinstance(extra, int)
    assert isinstance(name, int)
    assert isinstance(table, int)
    assert isinstance(entries, int)
    rest = extra + name
    rest += (start - reader.offset - rest) % 8
    if rest:
        reader.blob("rest", rest)
    return table, entries
