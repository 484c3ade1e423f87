"""qcow2 images from named arguments, written apart from the code that reads them.

::

    image(Snapshot("first", state=b"..."), disk={0: b"..."}, cluster_bits=9)

Clusters are handed out one behind the other, so every image of the same
arguments is the same. `Image.places` tells where each table lies.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import zstandard

__all__ = ["Image", "Snapshot", "image"]

COMPRESSED, COPIED = 1 << 62, 1 << 63


@dataclass(frozen=True)
class Snapshot:
    """A snapshot; `extra` is how many bytes of extra data its entry has."""

    name: str = "snap"
    state: bytes = b""
    id: str = "1"
    disk: Mapping[int, bytes] = field(default_factory=dict)
    extra: int = 24
    icount: int = (1 << 64) - 1
    unknown: bytes = b""
    disk_size: int | None = None


class Image:
    """An image while it is put together; `data` is the file."""

    def __init__(
        self,
        *,
        version: int = 3,
        cluster_bits: int = 9,
        size: int = 100_000,
        refcount_order: int = 4,
        compression: str = "",
        extended: bool = False,
    ) -> None:
        self.version, self.bits, self.size = version, cluster_bits, size
        self.order, self.compression, self.extended = refcount_order, compression, extended
        self.cluster = 1 << cluster_bits
        self.entry_bytes = 16 if extended else 8
        self.entries = self.cluster // self.entry_bytes
        self.l1_span = self.entries << cluster_bits
        self.file = bytearray(self.cluster)  # the header's
        self.places: dict[str, int] = {}
        self.snapshots_at = self.snapshot_count = 0
        self.extensions = b""

    def put(self, what: str, data: bytes) -> int:
        """Append whole clusters; gives the offset."""
        offset = len(self.file)
        self.places.setdefault(what, offset)
        self.file += data + bytes(-len(data) % self.cluster)
        return offset

    def split(self, size: int) -> int:
        """Index of the first L1 entry behind a disk of `size` bytes."""
        return -(-size // self.l1_span)

    def cluster_entry(self, what: str, data: bytes) -> bytes:
        data = data.ljust(self.cluster, b"\0")
        if self.compression:
            return self._compressed(what, data)
        if not self.extended:
            return struct.pack(">Q", self.put(what, data) | COPIED)
        width = self.cluster // 32
        used = [n for n in range(32) if data[n * width : (n + 1) * width].strip(b"\0")]
        zero = sum(1 << (32 + n) for n in range(32) if n not in used)
        return struct.pack(">QQ", self.put(what, data) | COPIED, sum(1 << n for n in used) | zero)

    def _compressed(self, what: str, data: bytes) -> bytes:
        if self.compression == "zstd":
            packed = zstandard.ZstdCompressor().compress(data)
        else:
            packer = zlib.compressobj(wbits=-12)
            packed = packer.compress(data) + packer.flush()
        offset = self.put(what, bytes(100) + packed) + 100
        sectors = (offset + len(packed) - 1) // 512 - offset // 512
        entry = COMPRESSED | sectors << (62 - (self.bits - 8)) | offset
        return struct.pack(">Q", entry) + bytes(self.entry_bytes - 8)

    def layer(self, name: str, clusters: Mapping[int, bytes], entries: int) -> tuple[int, int]:
        """Write clusters by their number, their L2 tables and an L1; gives place and length."""
        l1 = [0] * entries
        for index in sorted({number // self.entries for number in clusters}):
            table = bytearray(self.cluster)
            for number, data in clusters.items():
                if number // self.entries == index:
                    at = number % self.entries * self.entry_bytes
                    table[at : at + self.entry_bytes] = self.cluster_entry(f"{name} data", data)
            l1[index] = self.put(f"{name} l2", bytes(table)) | COPIED
        return self.put(f"{name} l1", struct.pack(f">{entries}Q", *l1)), entries

    def snapshot_entry(self, number: int, snapshot: Snapshot) -> bytes:
        disk_size = self.size if snapshot.disk_size is None else snapshot.disk_size
        first = self.split(disk_size) * self.entries
        state = snapshot.state
        clusters = dict(snapshot.disk) | {
            first + n: state[n * self.cluster : (n + 1) * self.cluster]
            for n in range(-(-len(state) // self.cluster))
            if state[n * self.cluster : (n + 1) * self.cluster].strip(b"\0")
        }
        entries = self.split(disk_size) + -(-len(state) // self.l1_span)
        place, length = self.layer(f"snap{number}", clusters, entries)
        id_str, name = snapshot.id.encode(), snapshot.name.encode()
        extra = struct.pack(">QQQ", len(state), disk_size, snapshot.icount)[: snapshot.extra]
        extra += snapshot.unknown
        narrow = 0 if snapshot.extra else len(state)
        sizes = (place, length, len(id_str), len(name), 1_700_000_000, 7, 5 * 10**9)
        head = struct.pack(">QIHHIIQII", *sizes, narrow, len(extra))
        entry = head + extra + id_str + name
        return entry + bytes(-len(entry) % 8)

    def finish(self, l1: tuple[int, int], **changes: int) -> bytes:
        """Write the refcounts and the header; `changes` sets header fields by name."""
        per_block = self.cluster * 8 >> self.order
        table_at = len(self.file)
        blocks = 1
        while blocks * per_block < table_at // self.cluster + 1 + blocks:
            blocks += 1
        assert blocks * 8 <= self.cluster
        total = table_at // self.cluster + 1 + blocks
        self.put(
            "refcount table",
            b"".join(struct.pack(">Q", table_at + (n + 1) * self.cluster) for n in range(blocks)),
        )
        self.put("refcount block", self._refcounts(total).ljust(blocks * self.cluster, b"\0"))
        incompatible = (8 if self.compression == "zstd" else 0) | (16 if self.extended else 0)
        fields = {
            "version": self.version,
            "backing_offset": 0,
            "backing_size": 0,
            "cluster_bits": self.bits,
            "size": self.size,
            "crypt": 0,
            "l1_size": l1[1],
            "l1_offset": l1[0],
            "refcount_offset": table_at,
            "refcount_clusters": 1,
            "snapshot_count": self.snapshot_count,
            "snapshots_offset": self.snapshots_at,
            "incompatible": incompatible,
            "compatible": 0,
            "autoclear": 0,
            "order": self.order,
            "header_length": 112,
            "compression": 1 if self.compression == "zstd" else 0,
        } | changes
        values = list(fields.values())
        head = b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQ", *values[:12])
        if self.version >= 3:
            head += struct.pack(">QQQIIB7x", *values[12:])
        head += self.extensions
        self.file[: len(head)] = head
        return bytes(self.file)

    def _refcounts(self, total: int) -> bytes:
        bits = 1 << self.order
        if bits >= 8:
            return (1).to_bytes(bits // 8) * total
        word = sum(1 << n * bits for n in range(total))
        return word.to_bytes(-(-total * bits // 8), "little")


def image(
    *snapshots: Snapshot,
    disk: Mapping[int, bytes] | None = None,
    extensions: Sequence[tuple[int, bytes]] = (),
    changes: Mapping[str, int] | None = None,
    **options: int | str | bool,
) -> bytes:
    """An image with these snapshots and, by number, these clusters of the active layer."""
    made = Image(**options)  # type: ignore[arg-type]
    for kind, data in extensions:
        made.extensions += struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)
    made.extensions += bytes(8) if extensions else b""
    l1 = made.layer("active", disk or {}, made.split(made.size))
    entries = [made.snapshot_entry(n, x) for n, x in enumerate(snapshots)]
    if entries:
        made.snapshots_at = made.put("snapshots", b"".join(entries))
        made.snapshot_count = len(entries)
    return made.finish(l1, **(changes or {}))
