"""Read a qcow2 image's header and its snapshot table.

::

    header    = "QFI" fb version:be32 ... [version 3: features, refcount_order, header_length ...]
                extension* [backing file name]
    extension = type:be32 len:be32 data padding-to-8          type 0 ends them
    snapshots = entry*
    entry     = l1_offset l1_size id_size name_size date clock vm_state_size extra_size
                [vm_state_size:be64 [disk_size:be64 [icount:be64 ...]]] id name padding-to-8

Source: QEMU docs/interop/qcow2.rst (11.1), block/qcow2-snapshot.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from cprformats.codecs import Value
from cprformats.container import qcow2_wire as wire
from cprformats.errors import Damaged, Unsupported, WrongFormat
from cprformats.fields import Field, Kind
from cprformats.layout import read_record
from cprformats.reader import Reader
from cprformats.source import Source

__all__ = ["Header", "Snapshot", "read_header", "read_snapshots", "snapshot_fields"]

_NO_ICOUNT = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Header:
    """What the first cluster says.

    Attributes:
        version: 2 or 3.
        cluster_bits: log2 of the cluster size in bytes.
        size: of the virtual disk, in bytes.
        crypt_method: 0 without encryption.
        l1_offset: of the active L1 table, in bytes.
        l1_size: of the active L1 table, in entries.
        refcount_offset: of the refcount table, in bytes.
        refcount_clusters: clusters of the refcount table.
        snapshot_count: entries of the snapshot table.
        snapshots_offset: of the snapshot table, in bytes.
        incompatible: features that a reader must know.
        refcount_bits: width of a refcount.
        compression: 0 zlib, 1 zstd.
        backing_file: name of the backing file, or empty.
        extensions: type number and data's place and size in bytes of each extension.
        field: the header decoded, up to the end of the first cluster.
    """

    version: int
    cluster_bits: int
    size: int
    crypt_method: int
    l1_offset: int
    l1_size: int
    refcount_offset: int
    refcount_clusters: int
    snapshot_count: int
    snapshots_offset: int
    incompatible: int
    refcount_bits: int
    compression: int
    backing_file: str
    extensions: tuple[tuple[int, int, int], ...]
    field: Field

    @property
    def cluster_size(self) -> int:
        """In bytes."""
        return 1 << self.cluster_bits

    @property
    def l2_entry_size(self) -> int:
        """In bytes: 16 with subclusters."""
        return 16 if self.incompatible & wire.Incompatible.EXTENDED_L2 else 8

    @property
    def l2_entries(self) -> int:
        """Entries of an L2 table."""
        return self.cluster_size // self.l2_entry_size

    @property
    def l1_span(self) -> int:
        """Bytes of the disk that an entry of an L1 table stands for."""
        return self.l2_entries << self.cluster_bits


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One internal snapshot.

    Attributes:
        id: QEMU's own number for it, as text.
        name: given by the user.
        date: when it was made, seconds since 1970.
        date_ns: nanoseconds of that.
        vm_clock_ns: time that the VM had run, in nanoseconds.
        icount: instructions that the VM had run, where they were counted.
        vm_state_size: in bytes; 0 for a snapshot of the disk alone.
        disk_size: of the virtual disk then, in bytes; None where it isn't told.
        l1_offset: of the snapshot's L1 table, in bytes.
        l1_size: of the snapshot's L1 table, in entries.
        offset: of the entry in the snapshot table, in bytes.
        size: of the entry, in bytes.
    """

    id: str
    name: str
    date: int
    date_ns: int
    vm_clock_ns: int
    icount: int | None
    vm_state_size: int
    disk_size: int | None
    l1_offset: int
    l1_size: int
    offset: int
    size: int


def read_header(source: Source) -> Header:
    """Read the header with its extensions.

    Raises:
        WrongFormat: there is no magic.
        Truncated: the header is cut.
        Unsupported: a version other than 2 and 3, features that are not known here.
        Damaged: sizes that no image has.
    """
    reader = Reader(source, kind=Kind.CONTAINER)
    if reader.peek(4) != wire.MAGIC:
        raise WrongFormat(f"no qcow2 image: expected {wire.MAGIC!r}, found {reader.peek(4)!r}")
    if len(reader.peek(8)) < 8:
        raise reader.truncated("header", 72, len(reader.peek(8)))
    version = int.from_bytes(reader.peek(4, 4))
    if version not in (2, 3):
        raise Unsupported(f"qcow2 version: expected 2 or 3, found {version}", offset=4)
    with reader.group("header"):
        values = {k: _number(v) for k, v in _records(reader, version).items()}
        _check(reader, values)
        limit = values["backing_file_offset"] or 1 << values["cluster_bits"]
        extensions = tuple(_extensions(reader, min(limit, 1 << values["cluster_bits"])))
        backing = _backing_file(reader, values)
        rest = min((1 << values["cluster_bits"]) - reader.offset, reader.remaining)
        if rest:
            reader.blob("padding", rest, kind=Kind.PADDING)
    return Header(
        version,
        values["cluster_bits"],
        values["size"],
        values["crypt_method"],
        values["l1_table_offset"],
        values["l1_size"],
        values["refcount_table_offset"],
        values["refcount_table_clusters"],
        values["nb_snapshots"],
        values["snapshots_offset"],
        values["incompatible_features"],
        1 << values["refcount_order"],
        values["compression_type"],
        backing,
        extensions,
        reader.finish("header").children[0],
    )


def _records(reader: Reader, version: int) -> dict[str, Value]:
    values = read_record(
        reader, "header_v2", wire.HEADER_V2, meanings={"crypt_method": "qcow2-crypt"}
    )
    extra: dict[str, Value] = {
        "incompatible_features": 0,
        "refcount_order": 4,
        "header_length": 72,
        "compression_type": 0,
    }
    if version >= 3:
        extra |= read_record(
            reader,
            "header_v3",
            wire.HEADER_V3,
            meanings={"incompatible_features": "qcow2-incompatible"},
        )
        left = _number(extra["header_length"]) - reader.offset
        if left < 0:
            raise reader.mismatch("header_length", "at least 104", left + reader.offset, 100)
        if left >= 1:
            extra["compression_type"] = reader.number(
                "compression_type", "u8", meaning="qcow2-compression"
            )
        # `_check` refuses what is longer than a cluster.
        if left > 1 and left + reader.offset <= 1 << min(
            _number(values["cluster_bits"]), wire.MAX_CLUSTER_BITS
        ):
            reader.blob("additional_fields", left - 1)
    return values | extra


def _check(reader: Reader, values: dict[str, int]) -> None:
    bits, order = values["cluster_bits"], values["refcount_order"]
    if not wire.MIN_CLUSTER_BITS <= bits <= wire.MAX_CLUSTER_BITS:
        raise reader.mismatch("cluster_bits", "9 to 21", bits, 20)
    if order > 6:
        raise reader.mismatch("refcount_order", "up to 6", order, 96)
    if values["header_length"] > 1 << bits or reader.offset > 1 << bits:
        raise reader.mismatch("header_length", f"up to {1 << bits}", values["header_length"], 100)
    unknown = values["incompatible_features"] & ~sum(wire.Incompatible)
    if unknown:
        raise Unsupported(f"incompatible feature bits {unknown:#x}", offset=72)
    if values["compression_type"] not in tuple(wire.Compression):
        kind = values["compression_type"]
        raise Unsupported(f"compression type: expected 0 or 1, found {kind}", offset=104)
    for what, size, most in (
        ("l1_size", values["l1_size"] * 8, wire.MAX_L1_BYTES),
        (
            "refcount_table_clusters",
            values["refcount_table_clusters"] << bits,
            wire.MAX_REFCOUNT_TABLE_BYTES,
        ),
        ("nb_snapshots", values["nb_snapshots"], wire.MAX_SNAPSHOTS),
    ):
        if size > most:
            raise reader.mismatch(what, f"up to {most}", size, 0)


def _extensions(reader: Reader, end: int) -> Iterator[tuple[int, int, int]]:
    """Read the extensions; an image of version 2 of the first years has none."""
    while reader.offset + 8 <= end:
        kind = int.from_bytes(reader.peek(4))
        name = wire.EXTENSIONS.get(kind, f"extension {kind:#x}")
        with reader.group(name, "header extension"):
            reader.number("type", "u32be")
            size = reader.number("length", "u32be")
            if reader.offset + size > end:
                raise reader.mismatch(
                    f"length of the header extension {name!r}",
                    f"up to {end - reader.offset}",
                    size,
                    reader.offset - 4,
                )
            place = reader.offset
            if size:
                reader.blob("data", size)
            if -size % 8:
                reader.blob("padding", -size % 8, kind=Kind.PADDING)
        if kind == 0:
            return
        yield kind, place, size


def _backing_file(reader: Reader, values: dict[str, int]) -> str:
    offset, size = values["backing_file_offset"], values["backing_file_size"]
    if not offset or not size:
        return ""
    if offset < reader.offset or size > 1023 or offset + size > 1 << values["cluster_bits"]:
        raise reader.mismatch(
            "backing file name",
            f"behind {reader.offset:#x} in the first cluster",
            f"{size} bytes at {offset:#x}",
            8,
        )
    if offset > reader.offset:
        reader.blob("padding", offset - reader.offset, kind=Kind.PADDING)
    return reader.text("backing_file", size)


# -- snapshots ------------------------------------------------------------------


def read_snapshots(source: Source, header: Header) -> Iterator[Snapshot]:
    """Read the snapshot table, entry by entry.

    Raises:
        Truncated: the table is cut.
        Damaged: sizes that no table has.
    """
    offset = header.snapshots_offset
    if header.snapshot_count and offset % header.cluster_size:
        raise Damaged(
            f"snapshot table: expected a multiple of {header.cluster_size}, found {offset:#x}",
            offset=64,
        )
    for number in range(header.snapshot_count):
        reader = Reader(source, offset, path=("snapshots", str(number)))
        snapshot = _snapshot(reader)
        offset = snapshot.offset + snapshot.size
        if offset - header.snapshots_offset > wire.MAX_SNAPSHOT_TABLE_BYTES:
            raise reader.error(
                Unsupported, f"a snapshot table of more than {wire.MAX_SNAPSHOT_TABLE_BYTES} bytes"
            )
        yield snapshot


def snapshot_fields(source: Source, header: Header, count: int) -> Iterator[Field]:
    """Decode the first `count` entries of the snapshot table as trees."""
    offset = header.snapshots_offset
    for number in range(count):
        reader = Reader(source, offset, kind=Kind.CONTAINER)
        with reader.group(f"snapshots[{number}]", "snapshot"):
            _snapshot(reader)
        field = reader.finish("snapshots").children[0]
        offset = field.end
        yield field


def _snapshot(reader: Reader) -> Snapshot:
    offset = reader.offset
    values = {k: _number(v) for k, v in read_record(reader, "head", wire.SNAPSHOT_ENTRY).items()}
    extra = _extra(reader, values["extra_data_size"])
    id_str = reader.text("id_str", values["id_str_size"])
    name = reader.text("name", values["name_size"])
    # QEMU does not write the padding behind the last entry: the file may end there.
    padding = len(reader.peek((offset - reader.offset) % 8))
    if padding:
        reader.blob("padding", padding, kind=Kind.PADDING)
    icount = extra.get("icount")
    found = Snapshot(
        id_str,
        name,
        values["date_sec"],
        values["date_nsec"],
        values["vm_clock_nsec"],
        None if icount == _NO_ICOUNT else icount,
        values["vm_state_size"],
        extra.get("disk_size"),
        values["l1_table_offset"],
        values["l1_size"],
        offset,
        reader.offset - offset,
    )
    # The wide field counts; the narrow one is for readers of the first years.
    wide = extra.get("vm_state_size")
    return found if wide is None else replace(found, vm_state_size=wide)


def _extra(reader: Reader, size: int) -> dict[str, int]:
    if size > wire.MAX_SNAPSHOT_EXTRA_BYTES:
        raise reader.mismatch(
            "extra_data_size", f"up to {wire.MAX_SNAPSHOT_EXTRA_BYTES}", size, reader.offset - 4
        )
    values: dict[str, int] = {}
    with reader.group("extra_data"):
        for name in ("vm_state_size", "disk_size", "icount"):
            if size >= 8:
                values[name] = reader.number(name, "u64be")
                size -= 8
        if size:
            reader.blob("unknown", size)
    return values


def _number(value: Value) -> int:
    # The two byte fields of a record are its magic and reserved bytes, which nobody asks for.
    return value if isinstance(value, int) else 0
