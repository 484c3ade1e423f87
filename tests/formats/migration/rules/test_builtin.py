"""Sections of streams without a description, by layouts that must fit exactly."""

from __future__ import annotations

import re

import pytest

from bodies import by_handler
from builders import migration as build
from builders.migration import be16, be32, be64
from checks import read
from cprformats.fields import Field, Kind
from cprformats.migration.rules import find_handler
from cprformats.migration.rules.layouts import LAYOUTS

TIMER = be64(1) + bytes(8) + be64(2)
SPACE = bytes(256)


def raw(idstr: str, body: bytes, version: int) -> tuple[Field, tuple[str, ...]]:
    """Decode a section that no layout fits."""
    data = build.stream(build.configuration("pc"), build.full(3, idstr, body=body, version=version))
    (section,) = (found := read(data)).sections()
    assert section.body_size == len(body)
    tree, notices = found.decode(section)
    assert [leaf.kind for leaf in tree["body"].children] == [Kind.RAW]
    return tree, notices


def test_a_flat_section() -> None:
    (tree,) = by_handler("timer", TIMER, version=2)
    assert [leaf.name for leaf in tree.children] == [
        "cpu_ticks_offset",
        "unused",
        "cpu_clock_offset",
    ]
    assert tree["cpu_clock_offset"].value == 2


@pytest.mark.parametrize("tail", [bytes(100), bytes(32) + b"\1\0" + bytes(66)])
def test_one_of_two_forms(tail: bytes) -> None:
    (tree,) = by_handler("globalstate", be32(8) + tail)
    assert tree["size"].value == 8


def test_a_count_in_front() -> None:
    (tree,) = by_handler("PCIBUS", be32(4) + be32(7) * 4)
    assert tree["irq_count"].value == (7, 7, 7, 7)
    (tree,) = by_handler("0000:00:01.0/PCIBUS", be32(0))
    assert tree["nirq"].value == 0


def test_structs_and_subsections() -> None:
    timers = (b"\0" + be64(0) * 4 + b"\0" + be64(0)) * 3
    sub = build.subsection("hpet/rtc_irq_level", b"\1")
    (tree,) = by_handler("hpet", be64(0) * 3 + b"\3" + timers + sub, version=2)
    assert tree["timer[2].tn"].value == 0
    assert tree["hpet/rtc_irq_level.rtc_irq_level"].value == 1


def test_an_inner_layout_of_the_same_name() -> None:
    (tree,) = by_handler("serial", be16(12) + bytes(9), version=3)
    assert tree["state"].type == "serial"
    assert tree["state.divider"].value == 12


@pytest.mark.parametrize("size", [256, 4096])
def test_a_pci_device(size: int) -> None:
    space = bytearray(size)
    if size > 256:
        space[6], space[0x34], space[0x40] = 0x10, 0x40, 0x10
    body = be32(2) + bytes(space) + bytes(16) + b"\0"
    (tree,) = by_handler("0000:00:00.0/I440FX", body, version=3)
    assert tree[f"parent_obj.config[{int(size > 256)}].vendor_id"].value == 0


def test_a_field_that_depends_on_another() -> None:
    drive = be32(16) + be32(0) + bytes(20)
    with_data = be32(16) + be32(1) + bytes(512) + drive[8:]
    bmdma = bytes(1 + 1 + 4 + 8 + 4 + 1)
    body = be32(2) + SPACE + bytes(16) + bmdma * 2 + bytes(4)
    body += drive * 2 + with_data + drive
    (tree,) = by_handler("0000:00:01.1/ide", body, version=3)
    assert tree.get("bus[0].ifs[0].identify_data") is None
    assert tree["bus[1].ifs[0].identify_data"].size == 512


@pytest.mark.parametrize(
    ("idstr", "body", "version"),
    [
        ("timer", TIMER + b"\0", 2),  # too long
        ("timer", TIMER[:-1], 2),  # too short
        ("timer", TIMER, 3),  # another version
        ("port92", build.subsection("port92/new", b"\1"), 1),  # an unknown subsection
        ("port92", b"\1" + build.subsection("port92/new", b"\1"), 1),
        ("hpet", be64(0) * 3 + b"\xff", 2),
        ("PCIBUS", be32(0xFFFF_FFFF), 1),
        ("vmcoreinfo", b"\7" + bytes(16), 1),  # a bool of 7
        ("serial", b"", 3),
    ],
)
def test_nothing_is_kept_of_a_layout_that_does_not_fit(
    idstr: str, body: bytes, version: int
) -> None:
    if body:
        _, notices = raw(idstr, body, version)
        assert "no known layout ends where the section does" in notices[0]


def test_every_layout_parses_and_refers_to_known_ones() -> None:
    names = {line.rpartition(" ")[0] for line in LAYOUTS.splitlines() if line[0] != " "}
    assert set(re.findall(r"\{([^}]*)\}", LAYOUTS)) <= names
    assert all(find_handler(name) for name in names if "/" not in name)


def test_a_subsection_is_no_section() -> None:
    assert find_handler("nothing of this name") is None
