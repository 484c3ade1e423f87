"""Where guest memory lies: by machine type, by registers, by hand."""

from __future__ import annotations

import contextlib
import lzma
import random
from dataclasses import replace
from itertools import pairwise

import pytest

import cprtools
from builders.guest import bridge, machine, pci, rtc, section, vga, virtio_mem
from checks import fixture_path, read
from cprformats.errors import FormatError, NotKept
from cprformats.guest import (
    BadLayout,
    NoLayout,
    PhysicalLayout,
    layout_by_hand,
    physical_layout,
)
from cprformats.source import BytesSource

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
BIOS = {"pc.bios": 256 * KIB, "pc.rom": 128 * KIB}


def layout_of(data: bytes, *ram: str) -> PhysicalLayout:
    """Lay out a stream; the ranges must be in order and disjoint."""
    stream = read(data)
    assert stream.error is None
    found = physical_layout(stream, ram)
    for one, other in pairwise(found.ranges):
        assert one.end <= other.start
    for one in found.ranges:
        assert one.offset + one.size <= stream.ram.blocks[one.block].used_length
    return found


def view(layout: PhysicalLayout, kind: str = "ram") -> list[tuple[int, int, str, int]]:
    """Ranges of one kind: start, end, block, offset."""
    found = (one for one in layout.ranges if one.kind == kind)
    return [(one.start, one.end, one.block, one.offset) for one in found]


def split(name: str, size: int, *parts: tuple) -> tuple[int, int]:
    """RAM below and above 4 GiB of a machine type."""
    layout = layout_of(machine(name, {"pc.ram": size}, *parts))
    high = [one for one in layout.ranges if one.start >= 4 * GIB]
    assert [one.start for one in high] in ([], [4 * GIB])
    above = sum(one.size for one in high)
    return size - above, above


# -- the split at 4 GiB -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "low"),
    [
        ("pc-i440fx-5.2", 3 * GIB, 3 * GIB),
        ("pc-i440fx-5.2", 0xE0000000 - MIB, 0xE0000000 - MIB),
        ("pc-i440fx-5.2", 0xE0000000, 0xC0000000),
        ("pc-i440fx-11.1", 6 * GIB, 0xC0000000),
        ("pc-i440fx-2.0", 6 * GIB, 0xC0000000),
        ("pc-i440fx-1.7", 6 * GIB, 0xE0000000),
        ("pc-1.0", 4 * GIB, 0xE0000000),
        ("pc", 6 * GIB, 0xC0000000),
        ("pc-q35-8.2", 0xB0000000 - MIB, 0xB0000000 - MIB),
        ("pc-q35-8.2", 0xB0000000, 0x80000000),
        ("pc-q35-4.0.1", 6 * GIB, 0x80000000),
        ("pc-q35-1.7", 6 * GIB, 0xB0000000),
        ("q35", 6 * GIB, 0x80000000),
        ("microvm", 3 * GIB, 3 * GIB),
        ("microvm", 3 * GIB + MIB, 3 * GIB),
        ("isapc", 4 * GIB, 0xE0000000),
    ],
)
def test_split_by_machine_type(name: str, size: int, low: int) -> None:
    assert split(name, size) == (low, size - low)


@pytest.mark.parametrize(
    "name", ["pc-i440fx-focal", "pc-i440fx-rhel7.6.0", "pc-q35-rhel8.6.0", "pc-q35-noble"]
)
def test_vendors_names_are_taken_by_family(name: str) -> None:
    layout = layout_of(machine(name, {"pc.ram": 6 * GIB}))
    assert layout.machine == name
    assert layout.notes[0] == f"{name} is a vendor's machine type: taken as QEMU's of that family"
    assert split(name, 6 * GIB)[0] == (0x80000000 if "q35" in name else 0xC0000000)


def test_the_rtc_decides_where_the_user_moved_the_split() -> None:
    data = machine("pc-q35-8.2", {"pc.ram": 4 * GIB}, rtc(GIB, 3 * GIB), bridge("mch"))
    layout = layout_of(data)
    assert view(layout) == [(0, GIB, "pc.ram", 0), (4 * GIB, 7 * GIB, "pc.ram", GIB)]
    note = "RAM below 4 GiB ends at 0x40000000 as the RTC says, not at 0x80000000"
    assert layout.notes == (note,)


def test_an_rtc_that_agrees_is_no_news() -> None:
    data = machine("q35", {"pc.ram": 6 * GIB}, rtc(2 * GIB, 4 * GIB), bridge("mch"))
    assert layout_of(data).notes == ()


def test_an_rtc_of_another_size_is_not_believed() -> None:
    data = machine("q35", {"pc.ram": 6 * GIB}, rtc(2 * GIB, GIB), bridge("mch"))
    layout = layout_of(data)
    assert view(layout)[0][1] == 2 * GIB
    assert "the RTC tells of 0xc0000000 bytes of RAM" in layout.notes[0]


def test_without_an_rtc_the_split_is_the_rule_and_said() -> None:
    layout = layout_of(machine("q35", {"pc.ram": 6 * GIB}, bridge("mch")))
    assert "the RTC is not in the stream" in layout.notes[0]


def test_small_memory_in_the_rtc() -> None:
    """Below 16 MiB the RTC counts in KiB."""
    blocks = {"a": 8 * MIB, "b": 4 * MIB}
    layout = layout_of(machine("q35", blocks, rtc(8 * MIB, 0), bridge("mch")))
    assert view(layout) == [(0, 8 * MIB, "a", 0)]


def test_so_much_ram_that_amd_would_matter() -> None:
    size = 1100 * GIB
    data = machine("q35", {"any": size, "b": GIB}, rtc(2 * GIB, size - 2 * GIB), bridge("mch"))
    found, amd, _ = layout_of(data).notes
    assert "the only block of the size that the RTC tells" in found
    assert "AMD" in amd


@pytest.mark.parametrize(("name", "low"), [("I440FX", 0xE0000000), ("mch", 0xB0000000)])
def test_a_stream_without_machine_type_is_known_by_its_bridge(name: str, low: int) -> None:
    parts = rtc(low, 6 * GIB - low), bridge(name)
    layout = layout_of(machine("", {"pc.ram": 6 * GIB}, *parts))
    assert view(layout)[0] == (0, low, "pc.ram", 0)
    assert layout.notes[0].startswith("the stream does not name the machine type")


# -- ROMs and the host bridge -------------------------------------------------------


def pc(*parts: tuple, name: str = "pc-i440fx-8.2", **blocks: int) -> PhysicalLayout:
    more = {key.replace("_", "."): size for key, size in blocks.items()}
    return layout_of(
        machine(name, {"pc.ram": 32 * MIB, **(more or BIOS)}, rtc(32 * MIB, 0), *parts)
    )


def test_roms_before_the_firmware_copied_itself() -> None:
    layout = pc(bridge("I440FX", pam=0, bios=0))
    assert view(layout) == [
        (0, 0xC0000, "pc.ram", 0),
        (MIB, 32 * MIB, "pc.ram", MIB),
    ]
    assert view(layout, "rom") == [
        (0xC0000, 0xE0000, "pc.rom", 0),
        (0xE0000, MIB, "pc.bios", 128 * KIB),
        (4 * GIB - 256 * KIB, 4 * GIB, "pc.bios", 0),
    ]


@pytest.mark.parametrize("bios", [0x10, 0x20, 0x30])
def test_any_attribute_shows_ram(bios: int) -> None:
    layout = pc(bridge("I440FX", pam=0x11, bios=bios))
    assert view(layout) == [(0, 32 * MIB, "pc.ram", 0)]
    assert layout.notes == ("shown at no address: pc.rom",)


def test_each_register_has_two_areas() -> None:
    """The third register: 0xd0000 is the ROM's, 0xd4000 RAM's, and so on."""
    layout = pc(bridge("mch", x93=0x30), name="pc-q35-8.2")
    assert view(layout, "rom")[0] == (0xD0000, 0xD4000, "pc.rom", 0x10000)
    assert (0xD4000, 32 * MIB, "pc.ram", 0xD4000) in view(layout)


def test_where_the_bus_has_nothing_ram_shows_through() -> None:
    """A BIOS of 64 KiB leaves 0xe0000 to 0xeffff empty."""
    layout = pc(bridge("I440FX", pam=0, bios=0), pc_bios=64 * KIB)
    assert view(layout) == [(0, 0xF0000, "pc.ram", 0), (MIB, 32 * MIB, "pc.ram", MIB)]


def test_without_a_bridge_in_the_stream_ram_is_assumed() -> None:
    layout = pc()
    assert view(layout) == [(0, 32 * MIB, "pc.ram", 0)]
    assert "the host bridge is not in the stream" in layout.notes[0]


def test_smm_hides_ram() -> None:
    """TSEG of 8 MiB, and 128 KiB at 0x30000."""
    layout = pc(bridge("mch", x9d=0x0A, x9e=0x05, x9c=2), name="pc-q35-8.2")
    assert view(layout) == [
        (0, 0x30000, "pc.ram", 0),
        (0x50000, 24 * MIB, "pc.ram", 0x50000),
    ]


@pytest.mark.parametrize(("size_bits", "mib"), [(0x01, 1), (0x03, 2), (0x05, 8), (0x07, 16)])
def test_sizes_of_tseg(size_bits: int, mib: int) -> None:
    layout = pc(bridge("mch", x9d=0x0A, x9e=size_bits, x50=16), name="pc-q35-8.2")
    assert view(layout)[-1][1] == (32 - mib) * MIB


def test_open_smram() -> None:
    """Open, it shows RAM where the VGA is; with the high window, there too."""
    window = vga("0000:00:02.0")
    blocks = {"pc.ram": 32 * MIB, "0000:00:02.0/vga.vram": 16 * MIB}
    shut = layout_of(machine("q35", blocks, bridge("mch"), window))
    assert view(shut)[:2] == [(0, 0xA0000, "pc.ram", 0), (0xC0000, 32 * MIB, "pc.ram", 0xC0000)]
    opened = layout_of(machine("q35", blocks, bridge("mch", x9d=0x40), window))
    assert view(opened) == [(0, 32 * MIB, "pc.ram", 0)]
    high = layout_of(machine("q35", blocks, bridge("mch", x9d=0x40, x9e=0x80), window))
    assert view(high)[-1] == (0xFEDA0000, 0xFEDC0000, "pc.ram", 0xA0000)
    old = layout_of(machine("pc", blocks, bridge("I440FX", x72=0x42), window))
    assert view(old) == [(0, 32 * MIB, "pc.ram", 0)]


def test_flash_lies_downwards_from_4_gib() -> None:
    blocks = {"system.flash0": 3 * MIB, "system.flash1": MIB}
    data = machine("q35", {"pc.ram": 32 * MIB, **blocks}, bridge("mch", pam=0, bios=0))
    layout = layout_of(data)
    assert view(layout, "flash") == [
        (4 * GIB - 4 * MIB, 4 * GIB - 3 * MIB, "system.flash1", 0),
        (4 * GIB - 3 * MIB, 4 * GIB, "system.flash0", 0),
    ]
    assert view(layout, "rom") == [(0xE0000, MIB, "system.flash0", 3 * MIB - 128 * KIB)]


def test_a_copy_of_flash_has_a_block_of_its_own() -> None:
    blocks = {"pc.ram": 32 * MIB, "system.flash0": 3 * MIB, "isa-bios": 128 * KIB}
    layout = layout_of(machine("q35", blocks, bridge("mch", pam=0, bios=0)))
    assert view(layout, "rom") == [(0xE0000, MIB, "isa-bios", 0)]


def test_microvm_has_no_bridge() -> None:
    blocks = {"microvm.ram": 32 * MIB, "pc.bios": 64 * KIB}
    layout = layout_of(machine("microvm", blocks))
    assert view(layout) == [
        (0, 0xF0000, "microvm.ram", 0),
        (MIB, 32 * MIB, "microvm.ram", MIB),
    ]


def test_isapc_with_and_without_vga() -> None:
    blocks = {"pc.ram": 32 * MIB, "vga.vram": 8 * MIB, **BIOS}
    layout = layout_of(machine("isapc", blocks))
    assert view(layout)[0] == (0, 0xA0000, "pc.ram", 0)
    assert view(layout, "device") == [(0xE0000000, 0xE0800000, "vga.vram", 0)]
    cirrus = layout_of(machine("isapc", blocks, section("cirrus_vga", ("a", "uint8", 1, b"\0"))))
    assert view(cirrus, "device") == []
    del blocks["vga.vram"]
    assert view(layout_of(machine("isapc", blocks)))[0] == (0, 0xC0000, "pc.ram", 0)


# -- PCI devices --------------------------------------------------------------------

VRAM = "0000:00:02.0/vga.vram"


def with_vga(*parts: tuple, name: str = VRAM, size: int = 16 * MIB) -> PhysicalLayout:
    return layout_of(machine("q35", {"pc.ram": 32 * MIB, name: size}, bridge("mch"), *parts))


def test_video_memory_is_at_its_bar() -> None:
    layout = with_vga(vga("0000:00:02.0"))
    assert view(layout, "device") == [(0xFD000000, 0xFE000000, VRAM, 0)]


@pytest.mark.parametrize(
    "changes",
    [{"command": 0}, {"bar": 8}, {"bar": 0xFFFFFFF8}, {"bar": 0xFD000009}],
    ids=["memory is off", "no address", "being sized", "a port"],
)
def test_a_bar_that_is_not_mapped(changes: dict[str, int]) -> None:
    layout = with_vga(vga("0000:00:02.0", **changes))
    assert view(layout, "device") == []
    assert f"shown at no address: {VRAM}" in layout.notes


def test_a_64_bit_bar() -> None:
    values = {4: b"\2\0", 0x18: bytes.fromhex("0c0000000a000000")}
    layout = with_vga(pci("0000:00:02.0/ivshmem-plain", values), name="0000:00:02.0/shared")
    assert view(layout, "device") == [(0xA00000000, 0xA01000000, "0000:00:02.0/shared", 0)]


@pytest.mark.parametrize(("bar4", "address"), [(0, 0xF0000000), (0xE000000C, 0xE0000000)])
def test_qxl_has_one_window_or_two(bar4: int, address: int) -> None:
    values = {4: b"\2\0", 0x14: bytes.fromhex("080000f0"), 0x20: bar4.to_bytes(4, "little")}
    name = "0000:00:02.0/qxl.vram"
    layout = with_vga(pci("0000:00:02.0/qxl", values), name=name)
    assert [one[:1] for one in view(layout, "device")] == [(address,)]


def test_a_rom_that_the_guest_turned_on() -> None:
    values = {4: b"\2\0", 0x30: bytes.fromhex("0100c0fe")}
    name = "0000:00:02.0/e1000.rom"
    layout = with_vga(pci("0000:00:02.0/e1000", values), name=name, size=256 * KIB)
    assert view(layout, "device") == [(0xFEC00000, 0xFEC40000, name, 0)]


def test_a_block_of_a_device_that_is_not_known() -> None:
    layout = with_vga(pci("0000:00:02.0/odd", {4: b"\2\0"}), name="0000:00:02.0/odd.memory")
    assert view(layout, "device") == []


def test_short_registers_of_a_vga() -> None:
    """And video memory too small for its window, and VBE off or in 16 colours."""
    for short in ({"sr": bytes(4)}, {"gr": bytes(6)}):
        assert view(with_vga(odd_vga(**short)), "device") == []
    on = {"sr": b"\0\0\x0f\0\x08\0\0\0"}
    assert view(with_vga(odd_vga(**on), size=4096), "device") == []
    for words in ("b0c5 0000 0000 0020 0040", "b0c5 0000 0000 0004 0041", "b0c5"):
        assert view(with_vga(odd_vga(vbe=bytes.fromhex(words))), "device") == []


def odd_vga(**registers: bytes) -> tuple:
    found = {"sr": bytes(8), "gr": bytes(16), "bank_offset": bytes(4), "vbe_regs": bytes(20)}
    found |= {{"vbe": "vbe_regs"}.get(name, name): data for name, data in registers.items()}
    kinds = {"bank_offset": "int32", "vbe_regs": "uint16"}
    sizes = {"bank_offset": 4, "vbe_regs": 2}
    fields = (
        (name, kinds.get(name, "buffer"), sizes.get(name, len(data)), data)
        for name, data in found.items()
    )
    return pci("0000:00:02.0/vga", {0x0A: b"\0\3"}, *fields)


def test_a_device_behind_a_bridge_is_left_out() -> None:
    name = "0000:00:03.0:00.0/vga.vram"
    layout = with_vga(vga("0000:00:03.0:00.0"), name=name)
    assert view(layout, "device") == []


def test_two_devices_at_one_address_are_both_left_out() -> None:
    blocks = {"pc.ram": 32 * MIB, VRAM: 16 * MIB, "0000:00:03.0/vga.vram": 16 * MIB}
    parts = bridge("mch"), vga("0000:00:02.0"), vga("0000:00:03.0")
    assert view(layout_of(machine("q35", blocks, *parts)), "device") == []


@pytest.mark.parametrize(
    ("registers", "shown"),
    [
        ({}, []),
        ({"sr": b"\0\0\x0f\0\x08\0\0\0"}, [(0xA0000, 0xC0000, VRAM, 0)]),
        (
            {
                "sr": b"\0\0\x0f\0\x08\0\0\0",
                "gr": bytes(6) + b"\x04" + bytes(9),
                "bank": b"\0\1\0\0",
            },
            [(0xA0000, 0xB0000, VRAM, 0x10000)],
        ),
        (
            {
                "vbe": bytes.fromhex("b0c5 0000 0000 0020 0041") + bytes(10),
                "gr": bytes(6) + b"\x05" + bytes(9),
            },
            [(0xA0000, 0xB0000, VRAM, 0)],
        ),
        ({"vbe": bytes.fromhex("1234 0000 0000 0020 0041") + bytes(10)}, []),
        (
            {"sr": b"\0\0\x0f\0\x08\0\0\0", "gr": bytes(6) + b"\x0c" + bytes(9)},
            [(0xB8000, 0xC0000, VRAM, 0)],
        ),
    ],
    ids=["text", "chained", "banked", "VBE", "before VBE's reset", "CGA's place"],
)
def test_video_memory_over_its_registers(registers: dict[str, bytes], shown: list) -> None:
    layout = with_vga(vga("0000:00:02.0", command=0, **registers))
    assert view(layout, "device") == shown


# -- which block is the main memory ---------------------------------------------------


def test_the_only_block_of_memory_is_it() -> None:
    blocks = {"any-name": 64 * MIB, VRAM: 128 * MIB, "/rom@etc/acpi/tables": 128 * KIB, **BIOS}
    layout = layout_of(machine("pc-i440fx-6.2", blocks, bridge("I440FX")))
    assert view(layout) == [(0, 64 * MIB, "any-name", 0)]


def test_the_path_of_an_object_is_no_device() -> None:
    layout = layout_of(machine("pc-i440fx-4.0", {"/objects/m": 64 * MIB}, bridge("I440FX")))
    assert view(layout) == [(0, 64 * MIB, "/objects/m", 0)]


def test_several_candidates_are_an_error_that_says_what_to_do() -> None:
    data = machine("q35", {"a": 3 * GIB, "b": GIB}, bridge("mch"))
    with pytest.raises(NoLayout) as caught:
        layout_of(data)
    assert str(caught.value) == (
        "several RAM blocks may be the guest's main memory: a, b; "
        "say which, in the order of addresses, with --ram-block NAME, once for each"
    )
    assert view(layout_of(data, "b", "a")) == [
        (0, GIB, "b", 0),
        (GIB, 2 * GIB, "a", 0),
        (4 * GIB, 6 * GIB, "a", GIB),
    ]


def test_nodes_by_libvirts_names() -> None:
    blocks = {"ram-node1": 3 * GIB, "ram-node0": GIB, "memdimm0": GIB}
    layout = layout_of(machine("q35", blocks, bridge("mch")))
    assert [one[2] for one in view(layout)] == ["ram-node0", "ram-node1", "ram-node1"]
    assert "shown at no address: memdimm0" in layout.notes


def test_a_missing_node_is_ambiguous() -> None:
    with pytest.raises(NoLayout, match="ram-node0, ram-node2"):
        layout_of(machine("q35", {"ram-node0": GIB, "ram-node2": GIB}))


def test_nodes_by_their_addresses() -> None:
    blocks, addresses = {"a": 3 * GIB, "b": GIB}, {"a": GIB, "b": 0}
    data = machine("q35", blocks, bridge("mch"), rtc(2 * GIB, 2 * GIB), addresses=addresses)
    assert [one[2] for one in view(layout_of(data))] == ["b", "a", "a"]


def test_addresses_that_are_not_of_one_memory() -> None:
    """A DIMM behind one block looks like a second node; the RTC's total tells."""
    blocks, addresses = {"a": GIB, "b": 2 * GIB}, {"a": GIB * 2, "b": 0}
    data = machine("pc", blocks, bridge("I440FX"), rtc(2 * GIB, 0), addresses=addresses)
    layout = layout_of(data)
    assert view(layout) == [(0, 2 * GIB, "b", 0)]
    assert view(layout, "hotplug") == [(6 * GIB, 7 * GIB, "a", 0)]


def test_a_dimm_under_ignore_shared() -> None:
    """Its address counts from the area of plugged memory, behind RAM on a GiB."""
    blocks, addresses = {"pc.ram": 4 * GIB, "dimm": GIB}, {"dimm": GIB}
    data = machine("q35", blocks, bridge("mch"), rtc(2 * GIB, 2 * GIB), addresses=addresses)
    assert view(layout_of(data), "hotplug") == [(7 * GIB, 8 * GIB, "dimm", 0)]


def test_dimms_at_one_address_are_left_out() -> None:
    blocks, addresses = {"pc.ram": GIB, "a": GIB, "b": GIB}, {"a": 0, "b": 0}
    layout = layout_of(machine("q35", blocks, bridge("mch"), addresses=addresses))
    assert view(layout, "hotplug") == []
    assert "left out: a and b seem to lie at the same address" in layout.notes


def test_virtio_mem_shows_what_is_plugged() -> None:
    name, step = "0000:00:02.0/vm", 2 * MIB
    blocks = {"pc.ram": 32 * MIB, name: 128 * step}
    part = virtio_mem("0000:00:02.0", 4 * GIB, step, [0b1101, 1 << 63])
    assert view(layout_of(machine("q35", blocks, bridge("mch"), part)), "hotplug") == [
        (4 * GIB, 4 * GIB + step, name, 0),
        (4 * GIB + 2 * step, 4 * GIB + 4 * step, name, 2 * step),
        (4 * GIB + 127 * step, 4 * GIB + 128 * step, name, 127 * step),
    ]


@pytest.mark.parametrize(
    ("ram", "words"), [(("no",), "no RAM block 'no'"), (("pc.ram", "pc.ram"), "given twice")]
)
def test_blocks_that_the_user_got_wrong(ram: tuple[str, ...], words: str) -> None:
    with pytest.raises(BadLayout, match=words):
        layout_of(machine("q35", {"pc.ram": GIB}), *ram)


def test_virtio_mem_with_an_odd_state() -> None:
    """A block size of 0, a bitmap that is too long, and no bitmap."""
    name = "0000:00:02.0/vm"
    for part in (
        virtio_mem("0000:00:02.0", 4 * GIB, 0, [1]),
        section("0000:00:02.0/virtio-mem", ("a", "uint8", 1, b"\0")),
    ):
        blocks = {"pc.ram": 32 * MIB, name: 2 * MIB}
        assert view(layout_of(machine("q35", blocks, bridge("mch"), part)), "hotplug") == []
    part = virtio_mem("0000:00:02.0", 4 * GIB, 2 * MIB, [(1 << 64) - 1] * 3)
    layout = layout_of(machine("q35", {"pc.ram": 32 * MIB, name: 4 * MIB}, bridge("mch"), part))
    assert view(layout, "hotplug") == [(4 * GIB, 4 * GIB + 4 * MIB, name, 0)]


class Gone(BytesSource):
    """A pipe that does not give what was read a second time."""

    def read_at(self, offset: int, count: int) -> bytes:
        raise NotKept(f"{count} bytes are gone", offset=offset)


def test_sections_that_are_gone_are_assumed() -> None:
    data = machine("q35", {"pc.ram": 32 * MIB, VRAM: MIB, **BIOS}, bridge("mch"), rtc(32 * MIB, 0))
    layout = physical_layout(replace(read(data), source=Gone(b"")))
    assert view(layout) == [(0, 32 * MIB, "pc.ram", 0)]
    assert "the host bridge is not in the stream" in layout.notes[0]


@pytest.mark.parametrize(
    "blocks",
    [
        {"pc.ram": 4096},
        {"pc.ram": 1 << 63, "pc.bios": 5 * GIB},
        {"pc.ram": (1 << 64) - 4096},
        {"pc.ram": GIB, "pc.rom": GIB, "isa-bios": GIB, "system.flash0": 4 * GIB},
    ],
)
def test_sizes_that_no_machine_has(blocks: dict[str, int]) -> None:
    for name in ("pc", "q35", "microvm", "isapc"):
        layout_of(machine(name, blocks, bridge("mch", pam=0)))


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("name", ["10.0-pc-virtio-mem", "10.0-pc-vga-std", "5.2-pc-1.0-named"])
def test_damage_gives_a_layout_or_an_error(name: str, seed: int) -> None:
    data = bytearray(lzma.decompress(fixture_path(f"migration/{name}.sav.xz").read_bytes()))
    dice = random.Random(seed)
    for _ in range(dice.choice((1, 10, 100))):
        data[dice.randrange(len(data))] = dice.choice((0, 0xFF, dice.randrange(256)))
    with contextlib.suppress(FormatError):
        stream = read(bytes(data))
        found = physical_layout(stream).ranges
        assert all(one.end <= other.start for one, other in pairwise(found))
        assert all(0 <= one.start < one.end <= 1 << 64 for one in found)


# -- other machines -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "blocks", "base"),
    [
        ("virt-10.0", {"mach-virt.ram": GIB}, 0x40000000),
        ("virt-rhel8.6.0", {"mach-virt.ram": GIB}, 0x40000000),
        ("virt", {"riscv_virt_board.ram": GIB}, 0x80000000),
        ("virt-10.0", {"m68k_virt.ram": GIB}, 0),
        ("s390-ccw-virtio-10.0", {"s390.ram": GIB}, 0),
        ("s390-ccw-virtio-jammy", {"any": GIB}, 0),
        ("pseries-7.2", {"ppc_spapr.ram": GIB}, 0),
    ],
)
def test_ram_in_one_piece(name: str, blocks: dict[str, int], base: int) -> None:
    layout = layout_of(machine(name, blocks))
    assert view(layout) == [(base, base + GIB, next(iter(blocks)), 0)]


@pytest.mark.parametrize(
    ("fields", "base"),
    [(["env.xregs"], 0x40000000), (["env.gpr", "env.priv"], 0x80000000), (["env.dregs"], 0)],
)
def test_virt_by_its_cpu(fields: list[str], base: int) -> None:
    cpu = section("cpu", *((name, "uint32", 4, bytes(4)) for name in fields))
    assert view(layout_of(machine("virt-9.2", {"any": GIB}, cpu)))[0][0] == base


def test_virt_of_nobody_knows_which_target() -> None:
    with pytest.raises(NoLayout, match="which target's machine 'virt'"):
        layout_of(machine("virt", {"any": GIB}))


def test_the_secure_world_is_left_out() -> None:
    flash = {"virt.flash0": 64 * MIB, "virt.flash1": 64 * MIB}
    layout = layout_of(machine("virt-8.2", {"mach-virt.ram": GIB, **flash}))
    assert [one[:1] for one in view(layout, "flash")] == [(0,), (64 * MIB,)]
    blocks = {"mach-virt.ram": GIB, **flash, "virt.secure-ram": MIB}
    layout = layout_of(machine("virt-8.2", blocks))
    assert view(layout, "flash") == [(64 * MIB, 128 * MIB, "virt.flash1", 0)]
    assert "seen by the secure world only" in layout.notes[0]


@pytest.mark.parametrize("name", ["malta", "versatilepb", "pcx", "xenfv-4.2", "virt9", "", "PC"])
def test_a_machine_without_a_rule(name: str) -> None:
    with pytest.raises(NoLayout) as caught:
        layout_of(machine(name, {"ram": GIB}))
    text = str(caught.value)
    assert text.endswith("extract the blocks one by one, or give the layout by hand")
    assert repr(name) in text or not name


def test_no_memory_at_all() -> None:
    with pytest.raises(NoLayout, match="no RAM block can be"):
        layout_of(machine("pc", {}))


# -- by hand ----------------------------------------------------------------------------

BLOCKS = {"ram": GIB, "0000:00:02.0/vga.vram": 16 * MIB, "/rom@etc/a+0x10:4": 4 * KIB}


def by_hand(*specs: str) -> list[tuple[int, int, str, int]]:
    return view(layout_by_hand(specs, read(machine("odd", BLOCKS))))


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("0=ram", (0, GIB, "ram", 0)),
        ("0x40000000=ram", (GIB, 2 * GIB, "ram", 0)),
        ("1G=ram+512M", (GIB, GIB + 512 * MIB, "ram", 512 * MIB)),
        ("1G=ram:0x1000", (GIB, GIB + 4096, "ram", 0)),
        ("4096=ram+1M:64K", (4096, 4096 + 64 * KIB, "ram", MIB)),
        ("3G=0000:00:02.0/vga.vram", (3 * GIB, 3 * GIB + 16 * MIB, VRAM, 0)),
        ("3G=0000:00:02.0/vga.vram+1M:1M", (3 * GIB, 3 * GIB + MIB, VRAM, MIB)),
        ("0=/rom@etc/a+0x10:4", (0, 4 * KIB, "/rom@etc/a+0x10:4", 0)),
        ("0=/rom@etc/a+0x10:4+1K:1K", (0, KIB, "/rom@etc/a+0x10:4", KIB)),
    ],
)
def test_by_hand(spec: str, found: tuple) -> None:
    assert by_hand(spec) == [found]


def test_by_hand_is_sorted_and_joined() -> None:
    assert by_hand("1M=ram+1M:1M", "0=ram:1M", "3M=ram:1M") == [
        (0, 2 * MIB, "ram", 0),
        (3 * MIB, 4 * MIB, "ram", 0),
    ]


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        (["ram"], "expected ADDRESS=BLOCK"),
        (["x=ram"], "'x' is no number"),
        (["=ram"], "'' is no number"),
        (["-1=ram"], "'-1' is no number"),
        (["0=rom"], "no RAM block of that name; there are: ram"),
        (["0=ram+"], "no RAM block of that name"),
        (["0=ram+1x"], "'1x' is no number"),
        (["0=ram:2G"], "the block ram has 0x40000000 bytes"),
        (["0=ram+1G"], "the block ram has"),
        (["0=ram:0"], "the block ram has"),
        (["0xfffffffffffff000=ram"], "behind the last address"),
        (["0=ram", "1M=0000:00:02.0/vga.vram"], "overlap"),
        (["0=ram", "0=ram"], "overlap"),
    ],
)
def test_nonsense_by_hand(specs: list[str], words: str) -> None:
    with pytest.raises(BadLayout, match=words) as caught:
        by_hand(*specs)
    assert "at 0x0" not in str(caught.value).split(";")[0] or "overlap" in words


# -- real ones ----------------------------------------------------------------------------


def of_fixture(name: str) -> PhysicalLayout:
    with cprtools.open(fixture_path(f"migration/{name}.sav.xz")) as state:
        assert state.stream is not None
        return physical_layout(state.stream)


@pytest.mark.parametrize(
    "name", ["5.2-pc-base", "10.0-q35-base", "11.1-pc-base", "10.0-q35-no-vmdesc"]
)
def test_a_real_pc(name: str) -> None:
    layout = of_fixture(name)
    ram = view(layout)
    assert ram[0][0] == 0
    assert ram[-1][1] in (8 * MIB, 16 * MIB)
    assert view(layout, "rom")[-1][1] == 4 * GIB
    assert not [note for note in layout.notes if "RTC" in note or "bridge" in note]


def test_a_real_isa_bios() -> None:
    """Saved before its firmware ran."""
    assert view(of_fixture("10.0-q35-misc"), "rom")[:2] == [
        (0xC0000, 0xE0000, "pc.rom", 0),
        (0xF0000, MIB, "pc.bios", 0),
    ]


def test_a_real_vgas_address_is_that_of_ignore_shared() -> None:
    name = "migration/10.0-pc-linux-old-io.sav.xz"
    with cprtools.open(fixture_path(name)) as state:
        assert state.stream is not None
        found = view(physical_layout(state.stream), "device")
        block = state.stream.ram.blocks["0000:00:0a.0/vga.vram"]
    assert [one[0] for one in found] == [block.address]


def test_openeuler() -> None:
    layout = of_fixture("openeuler-6.2-hotupgrade")
    assert view(layout)[-1][1:3] == (32 * MIB, "ram0")
    assert [one[2] for one in view(layout, "device")] == ["0000:00:02.0/vga.vram"]


@pytest.mark.parametrize("release", ["7.2", "10.0", "11.1"])
def test_other_real_machines(release: str) -> None:
    assert view(of_fixture(f"{release}-aarch64-virt-gicv3-pci"))[0][0] == GIB
    assert view(of_fixture(f"{release}-riscv64-virt-mmio"))[0][0] == 2 * GIB
    assert view(of_fixture(f"{release}-microvm-microvm"))[0][2] == "microvm.ram"
    assert view(of_fixture(f"{release}-isapc-isapc"))[0][2] == "pc.ram"
    assert view(of_fixture(f"{release}-s390x-s390-ccw-virtio-ccw"))[0][0] == 0
    assert view(of_fixture(f"{release}-ppc64-pseries-power9"))[0][0] == 0


@pytest.mark.parametrize("name", ["5.2-pc-1.0-named", "5.2-pc-i440fx-1.4-named"])
def test_real_ones_too_old_to_name_themselves(name: str) -> None:
    layout = of_fixture(name)
    assert layout.machine == ""
    assert view(layout)[-1][1] == 8 * MIB
