"""Arrays whose elements differ in size: the footer shows it, the data tells how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bodies import described
from builders import migration as build
from cprformats.fields import Kind


def array(name: str, count: int, size: int, fields: Sequence[Any]) -> Any:
    vmsd = {"vmsd_name": "element", "version": 1, "fields": list(fields)}
    return build.field(name, "struct", size, array_len=count, struct=vmsd)


LENGTH = build.field("len", "uint16", 2)


def test_buffers_with_a_length_in_front() -> None:
    entry = array("e", 3, 4, [LENGTH, build.field("data", "buffer", 2)])
    tree, notices = described(b"\0\2ab" + b"\0\0" + b"\0\5vwxyz", [entry])
    assert tree["e[0].data.data"].value == b"ab"
    assert tree["e[2].data.data"].value == b"vwxyz"
    assert "differ in size" in notices[0]
    assert len(notices) == 1


def test_arrays_with_a_count_in_front() -> None:
    inner = build.field("words", "uint16", 2, array_len=2)
    tree, _ = described(
        b"\0\2aabb\x07" + b"\0\1cc\x08",
        [array("e", 2, 7, [LENGTH, inner, build.field("t", "uint8", 1)])],
    )
    assert tree["e[0].words"].value == (0x6161, 0x6262)
    assert tree["e[1].words"].value == (0x6363,)
    assert tree["e[1].t"].value == 8


def test_lists_as_long_as_their_markers_say() -> None:
    item = {"vmsd_name": "i", "version": 1, "fields": [build.field("x", "uint8", 1)]}
    entry = array("e", 3, 3, [build.field("list", "qtailq", 3, **item)])
    tree, _ = described(b"\1\7\0" + b"\0" + b"\1\x08\1\x09\0", [entry])
    assert tree["e[2].list.[1].x"].value == 9


def test_nested_arrays_of_structs() -> None:
    inner = array("in", 1, 3, [LENGTH, build.field("data", "buffer", 1)])
    outer = array("out", 2, 4, [build.field("n", "uint8", 1), inner])
    tree, _ = described(b"\1\0\1a" + b"\2\0\2bb\0\0", [outer])
    assert tree["out[1].in[0].data.data"].value == b"bb"
    assert tree["out[1].in[1].len"].value == 0


def test_null_pointers_before_10_0() -> None:
    entry = array("p", 4, 2, [build.field("a", "uint16", 2)])
    tree, _ = described(b"\0\7" + b"0" + b"\0\x08" + b"0", [entry])
    assert [child.name for child in tree.children] == ["p[0]", "p[1]", "p[2]", "p[3]"]
    assert tree["p[1].marker"].value == 0x30
    assert tree["p[2].a"].value == 8


def test_channel_subsystem_images_behind_null_pointers() -> None:
    """s390's css of 5.2 and 7.2: 254 NULL pointers, one image, NULL; nothing describes it."""
    entry = build.field("css", "struct", 1, array_len=256, struct={})
    body = b"0" * 254 + b"\1\x32\1" + bytes(255 * 3) + b"0" + b"\xfe"
    tree, _ = described(body, [entry, build.field("default_cssid", "uint8", 1)], "s390_css")
    assert tree["css[254].chpids[0].type"].value == 0x32
    assert tree["default_cssid"].value == 0xFE


def test_what_cannot_be_told_stays_raw() -> None:
    entry = array("e", 2, 3, [build.field("data", "buffer", 3)])
    tree, notices = described(b"abcde", [entry])
    assert tree.children[-1].kind is Kind.RAW
    assert notices


def test_a_count_beyond_the_body_does_not_allocate() -> None:
    entry = array("e", 2, 4, [LENGTH, build.field("data", "buffer", 2)])
    tree, notices = described(b"\0\2ab\xff\xffcdef", [entry])
    assert tree.size == 10
    assert notices
