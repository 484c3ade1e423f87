"""Say what each cluster of a qcow2 image is for, and lay the whole file out as fields.

Each cluster has the number of its first owner, two bytes for each, so that the
map of a terabyte takes some tens of MiB. `qcow2_tables` finds the owners.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from cprformats.codecs import DataRef, codec
from cprformats.container.qcow2_header import Header, Snapshot, snapshot_fields
from cprformats.errors import Damaged, FormatError, Truncated
from cprformats.fields import Field, Kind, Tally, tally
from cprformats.source import Source

__all__ = ["ImageMap", "Owner"]

#: 2 TiB of clusters of 64 KiB; the map of larger images is not drawn.
_MAX_CLUSTERS = 1 << 25
_MAX_WARNINGS = 20
_TABLE_PIECE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Owner:
    """What a cluster is for.

    Attributes:
        name: for people.
        kind: of the cluster's bytes.
        entry_bits: width of a table's entries; 0 for what is no table.
    """

    name: str
    kind: Kind
    entry_bits: int = 0


class ImageMap:
    """Owners of all clusters; see `qcow2_tables.draw_map`.

    Attributes:
        owners: all that there are; the map's numbers are indices into it.
        clusters: number of the owner of each cluster of the file.
        warnings: oddities.
        error: the first contradiction.
    """

    def __init__(self, source: Source, header: Header, snapshots: tuple[Snapshot, ...]) -> None:
        self.source = source
        self.header = header
        self.snapshots = snapshots
        self.file_size = source.size()
        self.owners = [Owner("free", Kind.PADDING)]
        count = -(-self.file_size // header.cluster_size)
        self.drawn = count <= _MAX_CLUSTERS
        self.clusters = array("H", bytes(2 * count if self.drawn else 0))
        self._problems: list[FormatError] = []
        self._problem_count = 0
        self._notes: list[str] = []

    @property
    def warnings(self) -> tuple[str, ...]:
        """Oddities, and contradictions behind the first one."""
        more = [str(problem) for problem in self._problems[1:]]
        left = self._problem_count - len(self._problems)
        return (*self._notes, *more, *([f"{left} more like these"] if left else []))

    @property
    def error(self) -> FormatError | None:
        """The first contradiction."""
        return self._problems[0] if self._problems else None

    # -- drawing ------------------------------------------------------------------

    def owner(self, name: str, kind: Kind, entry_bits: int = 0) -> int:
        """Make an owner and give its number."""
        self.owners.append(Owner(name, kind, entry_bits))
        return len(self.owners) - 1

    def note(self, text: str) -> None:
        """Keep an oddity."""
        self._notes.append(text)

    def wrong(self, problem: FormatError) -> None:
        """Keep a contradiction; of many only the first ones, and how many there are."""
        self._problem_count += 1
        if len(self._problems) < _MAX_WARNINGS:
            self._problems.append(problem)

    def claim(self, owner: int, offset: int, size: int) -> bool:
        """Give the clusters of a table to an owner; False where that can't be.

        Args:
            owner: its number.
            offset: of the table, in bytes.
            size: in bytes; all of it must be there, and belong to nobody else.
        """
        header = self.header
        name = self.owners[owner].name
        if offset % header.cluster_size:
            self.wrong(Damaged(f"{name}: not at a cluster's start", offset=offset))
            return False
        if offset + size > self.file_size:
            there = max(self.file_size - offset, 0)
            self.wrong(Truncated(name, size, there, offset=offset))
            return False
        first = offset >> header.cluster_bits
        last = min(-(-(offset + size) >> header.cluster_bits), len(self.clusters))
        taken = next((index for index in range(first, last) if self.clusters[index]), None)
        if taken is not None:
            other = self.owners[self.clusters[taken]].name
            place = taken << header.cluster_bits
            self.wrong(Damaged(f"one cluster is both {other} and {name}", offset=place))
            return False
        self.clusters[first:last] = array("H", [owner]) * (last - first)
        return True

    # -- what came out --------------------------------------------------------------

    def runs(self) -> Iterator[tuple[Owner, int, int]]:
        """Give runs of clusters of one owner: owner, offset and size in bytes."""
        bits, index = self.header.cluster_bits, 0
        for number, group in groupby(self.clusters):
            count = sum(1 for _ in group)
            offset, end = index << bits, min((index + count) << bits, self.file_size)
            yield self.owners[number], offset, end - offset
            index += count

    def walk(self) -> Iterator[Field]:
        """Give the whole file as trees in file order."""
        if not self.drawn:
            yield self.header.field
            start = self.header.field.end
            yield self._span("clusters", Kind.PAYLOAD, start, self.file_size - start)
            return
        for owner, offset, size in self.runs():
            if owner.name == "header":
                yield self.header.field
            elif owner.name == "snapshot table":
                yield from self._snapshot_table(offset, size)
            elif owner.entry_bits:
                yield from self._table(owner, offset, size)
            else:
                yield self._span(owner.name, owner.kind, offset, size)

    def tally(self) -> Tally:
        """Count the bytes by kind; tables are not read for it."""
        if not self.drawn:
            return tally(self.walk())
        counts: Counter[Kind] = Counter()
        total = Tally({})
        for owner, offset, size in self.runs():
            if owner.name == "header":
                total += tally([self.header.field])
            elif owner.name == "snapshot table":
                total += tally(self._snapshot_table(offset, size))
            else:
                counts[owner.kind] += size
        return total + Tally(dict(counts))

    def _snapshot_table(self, offset: int, size: int) -> Iterator[Field]:
        end = offset + size
        for field in snapshot_fields(self.source, self.header, len(self.snapshots)):
            yield field
            offset = field.end
        if offset < end:
            yield self._span("snapshot table padding", Kind.PADDING, offset, end - offset)

    def _table(self, owner: Owner, offset: int, size: int) -> Iterator[Field]:
        """Decode tables in pieces, each an array of numbers."""
        width = owner.entry_bits // 8
        end = offset + size
        while end - offset >= width:
            count = min((end - offset) // width, _TABLE_PIECE_BYTES // width)
            name = f"u{owner.entry_bits}be" if width > 1 else "u8"
            how = codec(f"{name}[{count}]")
            value = how.decode(self.source.read_at(offset, count * width))
            yield Field(owner.name, how.name, how.name, owner.kind, offset, count * width, value)
            offset += count * width
        if offset < end:
            yield self._span(owner.name, owner.kind, offset, end - offset)

    def _span(self, name: str, kind: Kind, offset: int, size: int) -> Field:
        ref = DataRef(self.source, offset, size)
        return Field(name, "clusters", "bytes", kind, offset, size, ref)
