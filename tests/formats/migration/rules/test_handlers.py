"""Sections that tell their own end, framed and decoded without a description."""

from __future__ import annotations

import pytest

from bodies import by_handler, described
from builders import migration as build
from builders.migration import be16, be32, be64, text, u8
from checks import read
from cprformats.fields import Kind
from cprformats.migration.model import Located

BOTH = pytest.mark.parametrize("footers", [True, False])

# -- slirp ------------------------------------------------------------------------

BOOTP = (be16(1) + b"\x52\x54\0\0\0\1") * 16
TCP = bytes(119)


def socket(hosts: bytes) -> bytes:
    buffer = be32(2) + be32(3) + be32(0) + be32(0) + b"abc"
    return u8(42) + be32(0) + hosts + b"\0\0\1" + be32(5) + buffer * 2 + TCP


@BOTH
def test_slirp(footers: bool) -> None:
    host = be16(2) + b"\x64\x02\x00\x0a" + b"\x50\x00"
    body = socket(host + be16(10)) + b"\0" + be16(7) + BOOTP
    (tree,) = by_handler("slirp", body, version=4, footers=footers)
    assert tree["socket[0].fhost.address"].value == 0x0A00_0264
    assert tree["socket[0].fhost.port"].value == 80
    assert tree["socket[0].so_snd.sb_data"].value == b"abc"
    assert tree["ip_id"].value == 7
    assert tree["bootp_clients[15].allocated"].value == 1


@pytest.mark.parametrize(("version", "rest"), [(1, b""), (2, be16(7)), (3, be16(7) + BOOTP)])
def test_slirp_before_version_4(version: int, rest: bytes) -> None:
    body = socket(be32(0x0A00_0264) + be32(0) + be16(80) + be16(0)) + b"\0" + rest
    (tree,) = by_handler("slirp", body, version=version)
    assert tree["socket[0].so_faddr"].size == 4


# -- vfio -------------------------------------------------------------------------

END, CONFIG, SETUP, DATA, INIT_SENT, LOAD_READY = (
    be64(0xFFFFFFFFEF100000 + n) for n in range(1, 7)
)


def blob(data: bytes) -> bytes:
    return DATA + be64(len(data)) + data


def pci_config(*, msix: bool = False) -> bytes:
    space = bytearray(256)
    if msix:
        space[6], space[0x34], space[0x40:0x44] = 0x10, 0x40, b"\x11\0\1\0"
    return be32(2) + bytes(space) + bytes(16) + (bytes(33) if msix else b"")


@BOTH
@pytest.mark.parametrize(
    "end",
    [
        CONFIG + pci_config() + END + blob(b"xyz") + blob(b"") + END,  # 5.2
        blob(b"xyz") + END,  # 7.2
        END,
    ],
)
@pytest.mark.parametrize("part", [blob(b"") + END, blob(b"abc") + INIT_SENT, INIT_SENT])
def test_vfio_live(part: bytes, end: bytes, footers: bool) -> None:
    trees = by_handler("0000:00:02.0/vfio", SETUP + END, part, end, kind="live", footers=footers)
    assert [child.type for child in trees[0].children] == ["DEV_SETUP_STATE", "END_OF_STATE"]
    data = [leaf for tree in trees for child in tree.children for leaf in child.children[2:]]
    assert all(leaf.kind is Kind.PAYLOAD for leaf in data if leaf.size)


@pytest.mark.parametrize("body", [CONFIG + pci_config(msix=True) + END, END, LOAD_READY])
def test_vfio_full(body: bytes) -> None:
    (tree,) = by_handler("vfio", body)
    if body.startswith(CONFIG):
        assert tree["[0].config.msix.vector[1].data"].value == 0
        assert tree["[0].config.parent_obj.config.vendor_id"].value == 0


def test_vfio_display() -> None:
    sub = build.subsection("VFIOPCIDevice/VFIODisplay", b"abc")
    (tree,) = by_handler("vfio", CONFIG + pci_config() + sub + END)
    assert tree["[0].config.subsection.head.idstr"].value == "VFIOPCIDevice/VFIODisplay"


def test_vfio_of_another_bus_is_kept_whole() -> None:
    data = build.stream(
        build.configuration("pc"), build.full(3, "vfio", body=CONFIG + b"abc" + END)
    )
    found = read(data)
    (section,) = found.sections()
    assert section.located is Located.ITSELF
    tree, notices = found.decode(section)
    assert tree["body.[0].config"].kind is Kind.PAYLOAD
    assert "vfio configuration kept whole" in notices[0]


# -- disks --------------------------------------------------------------------------


@BOTH
def test_block(footers: bool) -> None:
    one = be64(2048 << 9 | 1) + text("ide0") + b"z" * (1 << 20)
    zero = be64(4096 << 9 | 9) + text("ide0")
    done = be64(100 << 9 | 4) + be64(2)
    trees = by_handler("block", be64(2), one + zero + be64(2), done, kind="live", footers=footers)
    assert trees[1]["[0].device"].value == "ide0"
    assert trees[1]["[0].data"].size == 1 << 20


@BOTH
def test_dirty_bitmap(footers: bool) -> None:
    first = u8(0x1C) + text("node") + text("bitmap") + be32(65536) + u8(3) + u8(1)
    bits = u8(0x40) + be64(0) + be32(128) + be64(32) + b"\xff" * 32
    zeroes = u8(0x42) + be64(128) + be32(128)
    trees = by_handler(
        "dirty-bitmap", first, bits + zeroes + u8(1), u8(0x20) + u8(1), kind="live", footers=footers
    )
    assert trees[0]["[0].granularity"].value == 65536
    assert trees[1]["[0].data"].value == b"\xff" * 32
    assert trees[1]["[1].sectors"].value == 128


def test_dirty_bitmap_with_longer_flags() -> None:
    (tree,) = by_handler("dirty-bitmap", be16(0x8020) + be32(0x80800020) + u8(1))
    assert [child.children[0].codec for child in tree.children] == ["u16be", "u32be", "u8"]


# -- single architectures -------------------------------------------------------------


@BOTH
def test_s390_keys(footers: bool) -> None:
    body = be64(0x10000 | 2) + be64(4) + b"\1\2\3\4" + be64(2) + be64(1) + b"\0"
    (tree,) = by_handler("s390-skeys", body + be64(1), footers=footers)
    assert tree["[0].keys"].value == b"\1\2\3\4"
    (tree,) = by_handler("s390-skeys", body + be64(4))
    assert len(tree.children) == 3


@BOTH
def test_s390_storage_attributes(footers: bool) -> None:
    more = be64(0x5000 | 2) + be64(2) + b"\1\2"
    trees = by_handler(
        "s390-storage_attributes",
        be64(1),
        more * 2 + be64(1),
        more + be64(8) + be64(1),
        kind="live",
        version=0,
        footers=footers,
    )
    assert trees[2]["[1].address_flags"].value == 8


@pytest.mark.parametrize("body", [b"\0", b"\1\2" + be64(3)])
def test_todclock(body: bytes) -> None:
    by_handler("todclock", body)


@BOTH
def test_hash_table(footers: bool) -> None:
    chunk = be32(0) + be16(2) + be16(5) + b"e" * 32
    trees = by_handler(
        "spapr/htab",
        be32(18),
        be32(0) + chunk * 2 + bytes(8),
        be32(0) + bytes(8),
        kind="live",
        footers=footers,
    )
    assert trees[1]["[1].entries"].value == b"e" * 32


@BOTH
def test_no_hash_table(footers: bool) -> None:
    none = be32(0xFFFF_FFFF)
    by_handler("spapr/htab", none, none, none, kind="live", footers=footers)


# -- all of them ------------------------------------------------------------------------

HANDLED = [
    "block",
    "dirty-bitmap",
    "s390-skeys",
    "s390-storage_attributes",
    "slirp",
    "spapr/htab",
    "todclock",
    "vfio",
]


@pytest.mark.parametrize("idstr", HANDLED)
@pytest.mark.parametrize(
    "body", [b"", b"\xee" * 50, b"\x02" * 50, b"\xee" * 3, END * 3 + b"\xff" * 9]
)
def test_other_contents_are_kept_to_the_footer(idstr: str, body: bytes) -> None:
    data = build.stream(build.configuration("pc"), build.full(3, idstr, body=body, version=4))
    found = read(data)
    assert found.error is None
    (section,) = found.sections()
    assert section.body_size == len(body)
    tree, _ = found.decode(section)
    assert tree.size == section.end - section.offset


def test_a_described_section_needs_no_handler() -> None:
    """`timer` and its like have a description; a handler is not asked."""
    tree, notices = described(b"\0", [build.field("present", "uint8", 1)], "todclock")
    assert tree["present"].value == 0
    assert not notices
