"""Names found by structure: priorities, builds, what a program says of its modules."""

from __future__ import annotations

import struct

import pytest

from builders.elf import Image
from builders.schemas import description, schema
from cprformats.errors import FormatError
from cprformats.schema.identity import build_id, gnu_build_id
from cprformats.schema.priorities import priority_names
from cprformats.schema.stamps import ModuleFacts, module_facts, module_stamps
from cprformats.source import BytesSource

STAMP = "qemu_stamp_" + "0123456789abcdef" * 2


# -- priorities -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "names"),
    [
        ({}, {}),
        ({"other": 1}, {}),
        ({"iommu-intel": 1, "other": 2}, {1: "IOMMU"}),
        ({"pci_bridge": 2, "other": 1, "more": 5}, {1: "IOMMU", 2: "PCI_BUS"}),
        (
            {"virtio-mem-device": 3, "arm_gicv3": 5, "other": 4},
            {3: "VIRTIO_MEM", 4: "GICV3_ITS", 5: "GICV3"},
        ),
        ({"arm_gicv3": 4, "other": 2}, {2: "PCI_BUS", 4: "GICV3"}),
        ({"arm_gicv3": 3, "other": 2}, {2: "GICV3_ITS", 3: "GICV3"}),
        ({"pci_bridge": 4, "other": 6}, {4: "PCI_BUS"}),
        ({"apic": 6, "vfio-container": 1, "other": 8}, {1: "LOW", 6: "APIC", 8: "GICV3"}),
        ({"arm_gicv3": 7, "other": 6}, {6: "GICV3_ITS", 7: "GICV3"}),
        ({"pci_bridge": 2, "iommu-intel": 3}, {}),
    ],
)
def test_priorities(known: dict[str, int], names: dict[int, str]) -> None:
    made = [description(name, priority=number) for name, number in known.items()]
    assert priority_names(schema(*made, description("plain"))) == names


# -- builds --------------------------------------------------------------------------


def test_the_build_id_of_a_file() -> None:
    data = Image().build()
    assert build_id(BytesSource(data)) == "abcdef01"


@pytest.mark.parametrize("size", [0, 63, 64, 0x80, 0x810])
def test_a_file_that_is_cut_has_none(size: int) -> None:
    assert build_id(BytesSource(Image().build()[:size])) == ""


def test_a_file_of_another_kind_has_none() -> None:
    data = bytearray(Image().build())
    for place, value in ((0, 0), (4, 1), (0x36, 57), (0x39, 9), (0x27, 0xFF)):
        bad = bytearray(data)
        bad[place] = value
        assert build_id(BytesSource(bytes(bad))) == ""


def test_notes() -> None:
    other = struct.pack("<III4s4s", 4, 3, 1, b"GNU\0", b"abc\0")
    ours = struct.pack("<III4s4s", 4, 2, 3, b"GNU\0", b"\x01\x02\0\0")
    assert gnu_build_id(other + ours) == "0102"
    assert gnu_build_id(other) == ""
    assert gnu_build_id(struct.pack("<III", 1 << 31, 1 << 31, 3) + ours) == ""


# -- modules ----------------------------------------------------------------------------


def test_what_a_program_says_of_its_modules() -> None:
    texts = [
        STAMP,
        "qemu_stamp_%s",
        "/usr/lib/x86_64-linux-gnu/qemu",
        "/usr/lib64/qemu-kvm",
        "/opt/lib/qemu",
        "/usr/share/qemu",
        "/usr/lib/qemu/extra/",
        "see /usr/lib/qemu",
        "/lib/a:/usr/share/qemu",
    ]
    data = b"\0" + b"\0".join(text.encode() for text in texts) + b"\0"
    folders = ("/lib/a:/usr/share/qemu", "/opt/lib/qemu")
    wanted = (*folders, "/usr/lib/x86_64-linux-gnu/qemu", "/usr/lib64/qemu-kvm")
    assert module_facts(BytesSource(data)) == ModuleFacts((STAMP,), wanted)


def test_a_text_that_lies_across_the_pieces_that_are_read() -> None:
    for before in range((1 << 20) - 60, (1 << 20) + 2, 7):
        data = b"x" * before + b"\0" + STAMP.encode() + b"\0"
        assert module_facts(BytesSource(data)).stamps == (STAMP,)


def test_texts_without_an_end() -> None:
    assert module_facts(BytesSource(b"\0/lib/qemu" + b"q" * 400)) == ModuleFacts((), ())
    assert module_facts(BytesSource(b"/lib/qemu" * 100_000)) == ModuleFacts((), ())


def test_stamps_of_a_module() -> None:
    image = Image()
    image.exports = {STAMP: image.function(), "qemu_stamp_": image.function()}
    assert module_stamps(BytesSource(image.build())) == (STAMP,)
    assert module_stamps(BytesSource(Image().build())) == ()
    with pytest.raises(FormatError):
        module_stamps(BytesSource(b"no module"))
