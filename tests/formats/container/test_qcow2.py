"""qcow2 images: header, snapshots, and the VM state of one of them."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.qcow2 import Image, Snapshot, image
from checks import assert_error, assert_tiles, assert_whole
from cprformats.container import Qcow2, read_qcow2
from cprformats.encode import encode
from cprformats.errors import Damaged, FormatError, Truncated, Unsupported, WrongFormat
from cprformats.names import words
from cprformats.source import BytesSource

RANDOM = random.Random(11)
#: Some clusters of data, some of zeros, and a last one that is not full.
STATE = RANDOM.randbytes(5000) + bytes(9000) + RANDOM.randbytes(4321)
DISK = {0: b"boot", 3: b"disk" * 100, 70: b"far away"}
SMALL = image(Snapshot("one", b"state of a VM" * 90), disk={0: b"boot"}, size=32768)

SHAPES = [
    {"version": 2},
    {"version": 3},
    {"cluster_bits": 12, "refcount_order": 0},
    {"cluster_bits": 10, "refcount_order": 1, "compression": "zlib"},
    {"cluster_bits": 12, "refcount_order": 2, "compression": "zstd"},
    {"cluster_bits": 14, "refcount_order": 3, "extended": True},
    {"cluster_bits": 14, "refcount_order": 6, "extended": True, "compression": "zlib"},
    {"cluster_bits": 16, "refcount_order": 5},
    {"cluster_bits": 21},
]


def read(data: bytes, snapshot: str | None = None) -> Qcow2:
    return read_qcow2(BytesSource(data), snapshot)


def state_of(found: Qcow2) -> bytes:
    assert found.state is not None
    return found.state.read_at(0, found.state.size())


@pytest.mark.parametrize("shape", SHAPES)
def test_images_of_all_shapes(shape: dict[str, int]) -> None:
    data = image(Snapshot("one", STATE), disk=DISK, **shape)
    found = read(data)
    assert found.error is None
    assert found.warnings == ()
    assert state_of(found) == STATE
    assert found.header.version == shape.get("version", 3)
    assert found.header.refcount_bits == 1 << shape.get("refcount_order", 4)
    assert_whole(found, data)
    assert found.tally().unknown == found.tally().raw == 0


def test_what_a_snapshot_tells() -> None:
    found = read(image(Snapshot("one", STATE, icount=99, id="7")))
    (snapshot,) = found.snapshots
    assert found.snapshot is snapshot
    assert (snapshot.id, snapshot.name, snapshot.icount) == ("7", "one", 99)
    assert (snapshot.date, snapshot.date_ns) == (1_700_000_000, 7)
    assert snapshot.vm_clock_ns == 5 * 10**9
    assert (snapshot.vm_state_size, snapshot.disk_size) == (len(STATE), 100_000)


@pytest.mark.parametrize("extra", [0, 8, 16, 24])
@pytest.mark.parametrize("unknown", [b"", b"unknown!"])
def test_extra_data_of_all_ages(extra: int, unknown: bytes) -> None:
    if unknown and extra < 24:
        unknown = b"odd"
    data = image(Snapshot("one", STATE, extra=extra, unknown=unknown))
    found = read(data)
    assert found.error is None
    assert state_of(found) == STATE
    assert found.snapshots[0].disk_size == (100_000 if extra >= 16 else None)
    assert found.snapshots[0].icount is None
    assert_whole(found, data)


def test_ranges_of_the_state() -> None:
    found = read(image(Snapshot("one", STATE), cluster_bits=9))
    assert found.state is not None
    assert found.state.known_size == len(STATE)
    for start, count in ((0, 10), (500, 30), (4990, 9100), (len(STATE) - 5, 100), (10**6, 5)):
        assert found.state.read_at(start, count) == STATE[start : start + count]
    found.state.drop(0, 100)
    assert found.state.read_at(0, 5) == STATE[:5]


def test_a_snapshot_of_a_disk_of_another_size() -> None:
    data = image(Snapshot("one", STATE, disk_size=400_000), disk=DISK)
    found = read(data)
    assert state_of(found) == STATE
    assert found.error is None
    assert_whole(found, data)


TWO = image(
    Snapshot("first", STATE, "1"),
    Snapshot("second", STATE[::-1], "2"),
    Snapshot("disk only", b"", "3"),
    Snapshot("2", b"named as an id", "4"),
    disk=DISK,
)


def test_the_last_state_is_read_and_that_is_said() -> None:
    found = read(TWO)
    assert found.snapshot is not None
    assert found.snapshot.name == "2"
    assert "'2' (id 4) is read, the last of 3" in found.warnings[0]
    assert "'first', 'second'" in found.warnings[0]


@pytest.mark.parametrize(
    ("wanted", "name"), [("1", "first"), ("first", "first"), ("2", "second"), ("second", "second")]
)
def test_a_snapshot_by_id_or_name(wanted: str, name: str) -> None:
    found = read(TWO, wanted)
    assert found.snapshot is not None
    assert found.snapshot.name == name
    assert found.warnings == ()
    assert state_of(found) == (STATE if name == "first" else STATE[::-1])


def test_a_snapshot_that_is_not_there() -> None:
    with pytest.raises(WrongFormat, match=r"'first' \(id 1\), 'second' \(id 2\)"):
        read(TWO, "third")
    with pytest.raises(WrongFormat, match="none"):
        read(image(), "third")


def test_a_snapshot_of_the_disk_alone() -> None:
    found = read(TWO, "disk only")
    assert found.state is None
    assert found.snapshot is None
    assert "of the disk alone" in found.warnings[0]


def test_an_image_without_snapshots() -> None:
    data = image(disk=DISK)
    found = read(data)
    assert found.snapshots == ()
    assert found.state is None
    assert_whole(found, data)


def test_header_extensions_and_backing_file() -> None:
    extensions = [(0x6803F857, bytes(48)), (0x12345678, b"new")]
    data = bytearray(image(cluster_bits=12, extensions=extensions))
    data[8:20] = struct.pack(">QI", 1000, 8)
    data[1000:1008] = b"base.img"
    found = read(bytes(data))
    assert found.header.backing_file == "base.img"
    assert [kind for kind, _, _ in found.header.extensions] == [0x6803F857, 0x12345678]
    names = [x.name for x in found.header.field.children]
    assert "feature name table" in names
    assert "extension 0x12345678" in names
    assert_whole(found, bytes(data))


def test_numbers_of_the_header_have_words() -> None:
    header = read(image(compression="zstd", cluster_bits=14, extended=True)).header.field
    leaf = header["header_v3.incompatible_features"]
    assert isinstance(leaf.value, int)
    assert words(leaf.meaning, leaf.value) == ("compression", "extended l2")
    assert words(header["compression_type"].meaning, 1) == ("zstd",)
    assert words(header["header_v2.crypt_method"].meaning, 2) == ("luks",)
    assert words("libvirt-format", 6) == ("sparse",)


# -- what can't be read ---------------------------------------------------------------


def test_no_magic() -> None:
    with pytest.raises(WrongFormat):
        read(b"QED\0" + bytes(100))


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"version": 1}, Unsupported, "found 1"),
        ({"version": 4}, Unsupported, "found 4"),
        ({"incompatible": 1 << 40}, Unsupported, "0x10000000000"),
        ({"compression": 2}, Unsupported, "compression type"),
        ({"cluster_bits": 8}, Damaged, "cluster_bits"),
        ({"cluster_bits": 0xFFFFFFFF}, Damaged, "cluster_bits"),
        ({"order": 7}, Damaged, "refcount_order"),
        ({"header_length": 50}, Damaged, "header_length"),
        ({"header_length": 1 << 20}, Damaged, "header_length"),
        ({"l1_size": 1 << 30}, Damaged, "l1_size"),
        ({"refcount_clusters": 1 << 30}, Damaged, "refcount_table_clusters"),
        ({"snapshot_count": 1 << 20}, Damaged, "nb_snapshots"),
        ({"backing_offset": 4, "backing_size": 9}, Damaged, "backing file"),
        ({"backing_offset": 112, "backing_size": 5000}, Damaged, "backing file"),
    ],
)
def test_headers_that_no_image_has(
    changes: dict[str, int], kind: type[FormatError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        read(image(Snapshot("one", STATE), changes=changes))


def test_a_long_extension() -> None:
    data = bytearray(image(extensions=[(0x12345678, b"new")]))
    data[116:120] = b"\xff\xff\xff\xff"
    with pytest.raises(Damaged, match="length of the header extension"):
        read(bytes(data))


@pytest.mark.parametrize("method", [1, 2, 9])
def test_an_encrypted_image_lists_its_snapshots(method: int) -> None:
    found = read(image(Snapshot("one", STATE), changes={"crypt": method}))
    assert found.state is None
    assert isinstance(found.error, Unsupported)
    assert "encrypted" in str(found.error)
    assert len(found.snapshots) == 1


def test_an_external_data_file() -> None:
    found = read(image(Snapshot("one", STATE), disk=DISK, changes={"incompatible": 4}))
    assert isinstance(found.error, Unsupported)
    assert found.state is None


def test_a_snapshot_table_that_is_cut() -> None:
    data = image(changes={"snapshot_count": 2, "snapshots_offset": 10 << 20})
    found = read(data)
    assert isinstance(found.error, Truncated)
    assert found.error.path[:2] == ("snapshots", "0")
    assert_whole(found, data)


def test_a_snapshot_table_that_is_misplaced() -> None:
    found = read(image(Snapshot("one", STATE), changes={"snapshots_offset": 77}))
    assert isinstance(found.error, Damaged)


def place_of(key: str, **options: int) -> tuple[bytearray, int]:
    """An image with one snapshot, and where one of its tables lies."""
    made = Image(cluster_bits=9, **options)
    l1 = made.layer("active", DISK, made.split(made.size))
    entry = made.snapshot_entry(0, Snapshot("one", STATE))
    made.snapshots_at, made.snapshot_count = made.put("snapshots", entry), 1
    return bytearray(made.finish(l1)), made.places[key]


def damaged(key: str, at: int, value: int, width: int = 8) -> Qcow2:
    data, place = place_of(key)
    data[place + at : place + at + width] = value.to_bytes(width)
    found = read(bytes(data))
    trees = list(found.walk())
    assert_tiles(trees)
    assert b"".join(encode(trees)) == data
    return found


def test_hostile_snapshot_entries() -> None:
    for at, width, value in (
        (0, 8, 1 << 60),  # L1 far away
        (0, 8, 77),  # L1 not at a cluster
        (8, 4, 0xFFFFFFFF),  # L1 of 32 GiB
        (8, 4, 1),  # L1 too short
        (36, 4, 0xFFFFFFFF),  # extra data
        (12, 2, 0xFFFF),  # id
        (40, 8, 1 << 63),  # VM state of 8 EiB
        (40, 8, 1 << 40),  # VM state beyond its L1
        (48, 8, 1 << 62),  # disk size
    ):
        found = damaged("snapshots", at, value, width)
        assert isinstance(found.error, FormatError), (at, value)
        assert found.state is None, (at, value)


VM_INDEX = 4  # 100,000 bytes in spans of 32 KiB


def test_hostile_l1_entries() -> None:
    for value in (1 << 55, 0x200 | 1 << 9 << 40):
        found = damaged("snap0 l1", VM_INDEX * 8, value)
        assert_error(
            found.error, Truncated, value, (), "L2 table is cut: expected 512 bytes, found 0"
        )
        assert state_of(found) == b""


def test_an_l1_entry_that_leads_to_the_l1_table() -> None:
    _, l1 = place_of("snap0 l1")
    found = damaged("snap0 l1", VM_INDEX * 8, l1)
    assert "one cluster is both L1 table and L2 table" in str(found.map.error)
    assert len(state_of(found)) <= len(STATE)


def test_one_l2_table_for_two_ranges() -> None:
    state = bytes(range(256)) * 250  # two L2 tables
    made = Image(cluster_bits=9)
    entry = made.snapshot_entry(0, Snapshot("one", state))
    l1 = made.layer("active", DISK, made.split(made.size))
    made.snapshots_at, made.snapshot_count = made.put("snapshots", entry), 1
    data, place = bytearray(made.finish(l1)), made.places["snap0 l1"] + 8 * VM_INDEX
    data[place + 8 : place + 16] = data[place : place + 8]
    found = read(bytes(data))
    assert isinstance(found.error, Damaged)
    assert "two ranges" in str(found.error)
    assert state_of(found) == state[:32768]


def test_an_l2_entry_that_leads_to_the_l2_table() -> None:
    _, l2 = place_of("snap0 l2")
    found = damaged("snap0 l2", 0, l2)
    assert isinstance(found.error, Damaged)
    assert "both L2 table and VM state of snapshot 'one'" in str(found.error)
    assert len(state_of(found)) == len(STATE)


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (1 << 50, Truncated, "cluster of the VM state is cut"),
        (0x300 << 9 | 0x200, Truncated, "cluster of the VM state is cut"),
        (1 << 62 | 1 << 40, Truncated, "cluster of the VM state is cut"),
    ],
)
def test_the_state_ends_before_a_hostile_l2_entry(
    value: int, kind: type[FormatError], words: str
) -> None:
    found = damaged("snap0 l2", 8, value)
    assert isinstance(found.error, kind)
    assert words in str(found.error)
    assert found.error.path == ("snapshots", "one")
    assert state_of(found) == STATE[:512]


def test_a_misplaced_cluster() -> None:
    data = image(Snapshot("one", STATE), cluster_bits=12)
    found = read(data)
    l2 = next(x for x in found.walk() if x.name == "L2 table")
    damaged_data = bytearray(data)
    damaged_data[l2.offset + 8 + 6] |= 2
    found = read(bytes(damaged_data))
    assert isinstance(found.error, Damaged)
    assert "not at a multiple" in str(found.error)
    assert state_of(found) == STATE[:4096]


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_a_compressed_cluster_that_is_none(compression: str) -> None:
    data = bytearray(image(Snapshot("one", STATE), cluster_bits=12, compression=compression))
    found = read(bytes(data))
    l2 = next(x for x in found.walk() if x.name == "L2 table")
    place = int.from_bytes(data[l2.offset : l2.offset + 8]) & ((1 << 58) - 1)
    data[place : place + 600] = bytes([0xFF]) * 600
    found = read(bytes(data))
    assert found.state is not None
    with pytest.raises(Damaged, match="compressed cluster") as caught:
        found.state.read_at(0, 10)
    assert caught.value.path == ("snapshots", "one")
    assert caught.value.offset == place


def test_a_size_with_nothing_behind_it() -> None:
    made = Image(cluster_bits=16)
    l1 = made.layer("active", {}, made.split(made.size))
    entry = bytearray(made.snapshot_entry(0, Snapshot("one", STATE)))
    entry[40:48] = (400 << 20).to_bytes(8)
    made.snapshots_at, made.snapshot_count = made.put("snapshots", bytes(entry)), 1
    found = read(made.finish(l1))
    assert isinstance(found.error, Damaged)
    assert "expected 419430400 bytes, found none behind 65536" in str(found.error)
    assert state_of(found).rstrip(b"\0") == STATE.rstrip(b"\0")


def test_zero_clusters_read_as_zeros() -> None:
    data, place = place_of("snap0 l2")
    data[place + 7] |= 1
    found = read(bytes(data))
    assert state_of(found)[:1024] == bytes(512) + STATE[512:1024]


def test_cut_at_many_places() -> None:
    for size in [*range(4, 700), *range(700, len(SMALL), 97)]:
        try:
            found = read(SMALL[:size])
        except Truncated:
            assert size < 120
            continue
        assert_whole(found, SMALL[:size])
        assert found.error is not None


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255))
def test_flipped_bits(place: int, mask: int) -> None:
    data = bytearray(SMALL)
    data[place] ^= mask
    try:
        found = read(bytes(data))
        trees = list(found.walk())
        assert_tiles(trees)
        assert b"".join(encode(trees)) == data
        if found.state is not None:
            found.state.read_at(0, min(found.state.size(), 1 << 20))
    except FormatError:
        return
