"""What each cluster of a qcow2 image is for."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest

from builders.qcow2 import Image, Snapshot, image
from checks import assert_whole
from cprformats.container import Qcow2, qcow2_tables, read_qcow2
from cprformats.errors import Damaged, Truncated, Unsupported
from cprformats.fields import Kind, leaves
from cprformats.source import BytesSource

STATE = bytes(range(1, 251)) * 20  # 5000 bytes
DISK = {0: b"boot", 1: b"disk"}
CLUSTER = 512


def read(data: bytes) -> Qcow2:
    return read_qcow2(BytesSource(data))


def sizes(found: Qcow2) -> Mapping[str, int]:
    """Clusters by what they are for."""
    counts: dict[str, int] = {}
    for owner, _, size in found.map.runs():
        counts[owner.name] = counts.get(owner.name, 0) + -(-size // CLUSTER)
    return counts


def test_every_cluster_has_its_name() -> None:
    data = image(Snapshot("one", STATE, disk={5: b"old"}), disk=DISK)
    found = read(data)
    assert sizes(found) == {
        "header": 1,
        "disk data": 2,
        "L2 table": 3,
        "L1 table": 2,
        "VM state of snapshot 'one'": 10,
        "disk data of snapshot 'one'": 1,
        "snapshot table": 1,
        "refcount table": 1,
        "refcount block": 1,
    }
    assert found.error is None
    assert found.warnings == ()
    kinds = found.tally().by_kind
    assert kinds[Kind.PAYLOAD] == 13 * CLUSTER
    assert_whole(found, data)


@pytest.mark.parametrize("order", range(7))
def test_refcounts_of_all_widths(order: int) -> None:
    data = image(Snapshot("one", STATE), disk=DISK, refcount_order=order)
    found = read(data)
    blocks = [x for x in found.walk() if x.name == "refcount block"]
    bits = 1 << order
    if bits >= 8:
        assert blocks[0].value[0] == 1  # type: ignore[index]
    assert_whole(found, data)


def test_tables_are_numbers() -> None:
    data = image(Snapshot("one", STATE), disk=DISK)
    tables = [x for x in read(data).walk() if x.name == "L1 table"]
    assert all(x.codec == "u64be[64]" for x in tables)
    assert all(leaf.kind is not Kind.UNKNOWN for x in tables for leaf in leaves(x))


def made(**options: int) -> Image:
    return Image(cluster_bits=9, **options)  # type: ignore[arg-type]


def test_free_and_leaked_clusters() -> None:
    image = made()
    l1 = image.layer("active", DISK, image.split(image.size))
    image.put("leaked", b"left behind")
    image.put("free", b"thrown away")
    leaked, free = image.places["leaked"], image.places["free"]
    data = bytearray(image.finish(l1))
    block = image.places["refcount block"]
    at = block + free // CLUSTER * 2
    data[at : at + 2] = bytes(2)
    found = read(bytes(data))
    spans = {owner.name: offset for owner, offset, _ in found.map.runs()}
    assert spans["leaked"] == leaked
    assert spans["free"] == free
    assert found.warnings == ("1 clusters are counted as in use, but nothing leads to them",)
    assert found.error is None
    assert_whole(found, bytes(data))


def test_refcounts_of_a_dirty_image_say_nothing() -> None:
    image = made()
    l1 = image.layer("active", DISK, image.split(image.size))
    image.put("leaked", b"left behind")
    found = read(image.finish(l1, incompatible=1))
    assert found.warnings == ()
    assert sizes(found)["free"] == 1


def test_clusters_and_tables_that_snapshots_share() -> None:
    image = made()
    l1, entries = image.layer("active", DISK, image.split(image.size))
    table = bytes(image.file[l1 : l1 + entries * 8])
    copy = image.put("copy", table)
    entry = struct.pack(">QIHHIIQII", copy, entries, 1, 3, 0, 0, 0, 0, 0) + b"1abc"
    image.snapshots_at, image.snapshot_count = image.put("snapshots", entry), 1
    data = image.finish((l1, entries))
    found = read(data)
    assert found.error is None
    assert sizes(found)["L1 table"] == 2
    assert sizes(found)["disk data"] == 2
    assert "disk data of snapshot 'abc'" not in sizes(found)
    assert_whole(found, data)


def test_a_state_that_no_snapshot_has() -> None:
    image = made(size=1000)
    l1 = image.layer("active", {0: b"disk", 64: b"state"}, 2)
    found = read(image.finish(l1))
    assert sizes(found)["VM state of no snapshot"] == 1


def test_bitmaps() -> None:
    image = made()
    l1 = image.layer("active", DISK, image.split(image.size))
    bitmap = image.put("bitmap", b"\xff" * 512)
    table = image.put("table", struct.pack(">QQ", bitmap, 1))
    entry = struct.pack(">QIIBBHI", table, 2, 0, 1, 16, 3, 0) + b"bm0" + bytes(5)
    directory = image.put("directory", entry)
    contents = struct.pack(">IIQQ", 1, 0, len(entry), directory)
    image.extensions = struct.pack(">II", 0x23852875, 24) + contents + bytes(8)
    data = image.finish(l1)
    found = read(data)
    assert found.error is None
    assert (sizes(found)["bitmap"], sizes(found)["bitmap table"]) == (1, 1)
    assert sizes(found)["bitmap directory"] == 1
    assert_whole(found, data)


@pytest.mark.parametrize(
    ("count", "size", "place"), [(1 << 20, 32, 512), (1, 1 << 40, 512), (1, 32, 77), (9, 24, 1024)]
)
def test_hostile_bitmaps(count: int, size: int, place: int) -> None:
    image = made()
    l1 = image.layer("active", DISK, image.split(image.size))
    image.put("directory", bytes(512))
    contents = struct.pack(">IIQQ", count, 0, size, place)
    image.extensions = struct.pack(">II", 0x23852875, 24) + contents + bytes(8)
    data = image.finish(l1)
    found = read(data)
    assert isinstance(found.error, (Damaged, Truncated))
    assert_whole(found, data)


def test_the_key_area_of_luks() -> None:
    image = made()
    l1 = image.layer("active", {}, image.split(image.size))
    keys = image.put("keys", b"LUKS" * 200)
    image.extensions = struct.pack(">IIQQ", 0x0537BE77, 16, keys, 800) + bytes(8)
    found = read(image.finish(l1, crypt=2))
    assert sizes(found)["encryption header"] == 2
    assert found.error is None  # nothing was asked for that is encrypted


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"l1_offset": 1 << 40}, Truncated, "L1 table"),
        ({"l1_offset": 0}, Damaged, "both header and L1 table"),
        ({"l1_offset": 100}, Damaged, "L1 table: not at a cluster's start"),
        ({"refcount_offset": 1 << 62}, Truncated, "refcount table"),
        ({"refcount_offset": 0}, Damaged, "both header and refcount table"),
        ({"refcount_clusters": 3000}, Truncated, "refcount table"),
    ],
)
def test_hostile_headers(changes: dict[str, int], kind: type[Exception], words: str) -> None:
    data = image(disk=DISK, changes=changes)
    found = read(data)
    assert isinstance(found.error, kind)
    assert words in str(found.error)
    assert_whole(found, data)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (1 << 50, "disk data is cut"),
        (0x400 | 1 << 50, "disk data is cut"),
        (1 << 62 | (1 << 61) - 1, "disk data is cut"),
        (0x200 * 3 - 0x100, ""),
    ],
)
def test_hostile_l2_entries(entry: int, words: str) -> None:
    image = made()
    l1 = image.layer("active", DISK, image.split(image.size))
    data = bytearray(image.finish(l1))
    place = image.places["active l2"]
    data[place : place + 8] = entry.to_bytes(8)
    found = read(bytes(data))
    assert words in str(found.error or "")
    assert_whole(found, bytes(data))


def test_many_wrong_entries_are_said_once_and_counted() -> None:
    image = made()
    l1 = image.layer("active", DISK, image.split(image.size))
    data = bytearray(image.finish(l1))
    place = image.places["active l2"]
    for n in range(40):
        data[place + 8 * n : place + 8 * n + 8] = ((1 << 50) + n * 512).to_bytes(8)
    found = read(bytes(data))
    assert isinstance(found.error, Truncated)
    assert found.warnings[-1] == "20 more like these"
    assert len(found.warnings) == 21  # and what is leaked now


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = image(Snapshot("one", STATE), disk=DISK)
    monkeypatch.setattr(qcow2_tables, "_MAX_L2_TOTAL", 512)
    assert isinstance(read(data).error, Unsupported)
    monkeypatch.undo()
    monkeypatch.setattr(qcow2_tables, "_MAX_L1_TOTAL", 40)
    found = read(data)
    assert isinstance(found.error, Unsupported)
    assert_whole(found, data)


def test_a_map_that_would_be_too_large_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cprformats.container.qcow2_map._MAX_CLUSTERS", 4)
    data = image(Snapshot("one", STATE), disk=DISK)
    found = read(data)
    assert found.error is None
    assert "is not told" in found.warnings[0]
    assert_whole(found, data)


def test_more_snapshots_than_get_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qcow2_tables, "_MAX_NAMED", 1)
    data = image(*(Snapshot(f"s{n}", STATE, str(n)) for n in range(3)), disk=DISK)
    names = set(sizes(read(data)))
    assert {"VM state of snapshot 's0'", "VM state of snapshots"} <= names
    assert "VM state of snapshot 's1'" not in names
    assert_whole(read(data), data)
