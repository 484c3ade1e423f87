"""PCI: configuration space with lists of capabilities, good and bad, and MSI-X."""

from __future__ import annotations

import pytest

from bodies import by_rule, described, fitting
from builders import migration as build
from cprformats.errors import Damaged, Truncated
from cprformats.fields import Field, Kind
from cprformats.migration.device import Decoder
from cprformats.migration.model import Located, Section
from cprformats.migration.rules.pci import msix_vectors, read_msix, read_pci_config, read_pci_device
from cprformats.migration.wire import SectionType
from cprformats.reader import Reader
from cprformats.source import BytesSource

#: (offset, bytes) pairs of a device's header.
HEADER = ((0, b"\x86\x80\xd3\x10\x07\x01\x10\x00"), (0x0A, b"\0\2"), (0x34, b"\x40"))
MSIX = b"\x11\0\x02\x80\x03\0\0\0\x03\x20\0\0"


def space(*places: tuple[int, bytes], size: int = 256) -> bytes:
    data = bytearray(size)
    for offset, contents in (*HEADER, *places):
        data[offset : offset + len(contents)] = contents
    return bytes(data)


def config(*places: tuple[int, bytes], size: int = 256) -> Field:
    return by_rule("pci config", space(*places, size=size))


def names(field: Field) -> list[str]:
    return [child.name for child in field.children]


def reader(data: bytes) -> Reader:
    return Reader(BytesSource(data))


def decoder() -> Decoder:
    return Decoder(Section(SectionType.FULL, 1, "d", 0, 1, 0, 0, 0, 0, Located.ITSELF))


def test_header_of_a_device() -> None:
    tree = config()
    assert tree["vendor_id"].value == 0x8086
    assert tree["command"].value == 0x107
    assert tree["class"].value == 0x200
    assert tree["interrupt_pin"].offset - tree.offset == 0x3D


def test_base_addresses() -> None:
    tree = config(
        (0x10, b"\x01\xc0\0\0"),
        (0x14, b"\x0c\0\0\xfe\1\0\0\0"),
        (0x1C, b"\0\0\xe0\xfd"),
        (0x24, b"\4"),
    )
    bars = [(child.name, child.type, child.value) for child in tree.children if "bar" in child.name]
    assert bars == [
        ("bar0", "io", 0xC001),
        ("bar1", "mem64 prefetch", 0x1_FE00_000C),
        ("bar3", "mem32", 0xFDE0_0000),
        ("bar4", "mem32", 0),
        ("bar5", "mem32", 4),  # the last has no room for 64 bits
    ]


def test_header_of_a_bridge() -> None:
    tree = config((0x0E, b"\x81"), (0x18, b"\0\1\2"), (0x3E, b"\3\0"))
    assert tree["subordinate_bus"].value == 2
    assert tree["bridge_control"].value == 3
    assert "bar2" not in names(tree)


def test_header_of_an_unknown_type() -> None:
    assert len(config((0x0E, b"\x05"))["rest"].value) == 48  # type: ignore[arg-type]


def test_no_list_without_the_status_bit() -> None:
    tree = config((6, b"\0"), (0x40, MSIX))
    assert names(tree)[-1] == "device_specific_40"


def test_capabilities_in_the_order_of_their_bytes() -> None:
    tree = config((0x34, b"\x80"), (0x80, b"\x11\x50" + MSIX[2:]), (0x50, b"\1\0\3\0\x08\0"))
    assert names(tree)[-5:] == [
        "device_specific_40",
        "power_management",
        "device_specific_58",
        "msix",
        "device_specific_8c",
    ]
    assert tree["msix.table"].value == 3
    assert tree["power_management.control_status"].value == 8


@pytest.mark.parametrize(
    ("control", "registers"),
    [
        (0x0000, ["address", "data"]),
        (0x0080, ["address", "data"]),
        (0x0180, ["address", "data", "reserved", "mask", "pending"]),
    ],
)
def test_msi_is_as_long_as_its_control_says(control: int, registers: list[str]) -> None:
    tree = config((0x40, b"\5\0" + control.to_bytes(2, "little")))["msi"]
    assert names(tree)[3:] == registers
    assert tree["address"].size == (8 if control & 0x80 else 4)


@pytest.mark.parametrize(("version", "size"), [(1, 20), (2, 60)])
def test_express_is_as_long_as_its_version_says(version: int, size: int) -> None:
    assert config((0x40, b"\x10\0" + bytes([version, 0])))["express"].size == size


def test_virtio_capabilities() -> None:
    common = b"\x09\x50\x10\x01\x04\0\0\0" + b"\0\x10\0\0" + b"\x38\0\0\0"
    notify = b"\x09\x70\x14\x02\x04\0\0\0" + bytes(8) + b"\4\0\0\0"
    tree = config((0, b"\xf4\x1a"), (0x40, common), (0x50, notify), (0x70, b"\x09\0\3"))
    assert tree["virtio.cfg_type"].value == 1
    assert tree["virtio.offset"].value == 0x1000
    assert tree["virtio[1].notify_off_multiplier"].value == 4
    assert tree["virtio[2].cap_len"].value == 3


def test_a_vendors_own_capability() -> None:
    tree = config((0x40, b"\x09\0\x06abc"))
    assert tree["vendor_specific.data"].value == (0x61, 0x62, 0x63)


def test_an_unknown_capability_has_a_number() -> None:
    assert names(config((0x40, b"\x7b\0"))["capability_7b"]) == ["id", "next"]


@pytest.mark.parametrize(
    "places",
    [
        ((0x34, b"\x40"), (0x40, b"\1\x40")),  # to itself
        ((0x40, b"\1\x50"), (0x50, b"\5\x40")),  # in a circle
        ((0x40, b"\1\x10"),),  # into the header
        ((0x40, b"\1\xfe"),),  # to the last bytes
        ((0x34, b"\xff"), (0xFC, b"\x11\0")),  # no room for the registers
        ((0x40, b"\x10\x44"), (0x44, b"\x11\x48"), (0x48, b"\5\0\x80\1")),  # one inside another
        ((0x40, b"\x09\x43\xff"), (0x43, b"\x09\x41\xff")),  # unaligned, too long
        *(((0x34, bytes([at])), (0x40, bytes(range(192)))) for at in range(0, 256, 7)),
    ],
)
def test_bad_lists_tile_all_the_same(places: tuple[tuple[int, bytes], ...]) -> None:
    """`by_rule` checks that leaves follow each other and encode to the same bytes."""
    assert config(*places).size == 256


def test_extended_capabilities() -> None:
    tree = config(
        (0x40, b"\x10\0\x02\0"),
        (0x100, b"\x01\0\x02\x14"),
        (0x140, b"\x03\0\x01\x15" + bytes(range(8))),
        (0x150, b"\x99\0\x01\0"),
        size=4096,
    )
    assert tree["aer"].size == 0x38
    assert tree["serial_number.serial_number"].value == 0x0706050403020100
    assert "extended_99" in names(tree)
    assert names(tree)[-1] == "device_specific_154"


@pytest.mark.parametrize("link", [0x100, 0x0F0, 0xFFC, 0x104])
def test_bad_extended_lists_end(link: int) -> None:
    head = b"\x0d\0" + (link << 4 | 1).to_bytes(2, "little")
    assert config((0x100, head), size=4096).size == 4096


def test_a_designated_vendors_capability_says_its_length() -> None:
    head = b"\x23\0\x01\0" + b"\x98\x1e" + (0x0C << 4).to_bytes(2, "little") + b"\7\0ab"
    assert config((0x100, head), size=4096)["designated_vendor"].size == 0x0C


def test_too_small_for_a_header() -> None:
    _, notices = described(bytes(32), [build.field("x", "pci config", 32)])
    assert "at least 64 bytes" in notices[0]


def test_cut_configuration_space() -> None:
    with pytest.raises(Truncated):
        read_pci_config(reader(bytes(200)), 256)


def test_irq_state() -> None:
    tree = by_rule("pci irq state", bytes(7) + b"\1" + bytes(8))
    assert [leaf.value for leaf in tree.children] == [0, 1, 0, 0]


@pytest.mark.parametrize("size", [256, 4096])
@pytest.mark.parametrize("express", [True, False])
def test_the_size_of_configuration_space_shows(size: int, express: bool) -> None:
    places = [(0x40, b"\x10\0\2\0")] if express else []
    beyond = [(256, b"\xff" * 16)] if size > 256 else []
    data = space(*places, *beyond, size=size)
    read = reader(b"\0\0\0\2" + data + bytes(16) + b"more")
    assert read_pci_device(decoder(), read) == data
    assert read.peek(4) == b"more"
    assert names(read.finish("d")) == ["version_id", "config", "irq_state"]


def test_neither_size_fits() -> None:
    with pytest.raises(Damaged, match="neither 256 nor 4096"):
        read_pci_device(decoder(), reader(b"\0\0\0\2" + b"\xff" * 5000))
    with pytest.raises(Truncated):
        read_pci_device(decoder(), reader(b"\0\0\0\2" + bytes(100)))


@pytest.mark.parametrize("vectors", [1, 2, 7, 8, 9, 64, 2048])
def test_msix_table(vectors: int) -> None:
    entry = bytes(range(8)) + b"\x21\0\0\0" + b"\1\0\0\0"
    tree = by_rule("msix state", entry * vectors + bytes((vectors + 7) // 8))
    assert len(tree.children) == vectors + 1
    assert tree[f"vector[{vectors - 1}].data"].value == 0x21


def test_msix_of_an_odd_size_stays_raw() -> None:
    tree, notices = described(bytes(18), [build.field("x", "msix state", 18)])
    assert tree["x"].kind is Kind.RAW
    assert "16 n + ceil(n / 8) bytes" in notices[0]


def test_msix_vectors_from_configuration_space() -> None:
    assert msix_vectors(space((0x40, MSIX))) == 3
    assert msix_vectors(space()) == 0
    with pytest.raises(Damaged):
        read_msix(reader(bytes(16)), 2049)


def test_hot_plug_controller() -> None:
    tree = by_rule("shpc", bytes(12) + b"\2\1\5\0" + bytes(0x14) + b"\x03\x01\x02\x04" * 2)
    assert tree["slot_count"].value == 2
    assert tree["slot[1].event_disable"].value == 4


def test_a_device_with_a_parent() -> None:
    """The usual nesting: parent_obj is a PCIDevice."""
    inner = [
        build.field("version_id", "int32 le", 4),
        build.field("config[0]", "pci config", 256),
        build.field("irq_state", "pci irq state", 16),
    ]
    vmsd = {"vmsd_name": "PCIDevice", "version": 2, "fields": inner}
    body = b"\0\0\0\2" + space() + bytes(16)
    tree = fitting(body, [build.field("parent_obj", "struct", 276, struct=vmsd)])
    assert tree["parent_obj.config[0].device_id"].value == 0x10D3
