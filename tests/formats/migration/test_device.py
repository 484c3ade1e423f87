"""Device sections by their description, in the form of every release."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from bodies import described, fitting
from builders import migration as build
from cprformats.fields import Field, Kind


def names(field: Field) -> list[str]:
    return [child.name for child in field.children]


def struct(name: str, size: int, fields: Sequence[Any] | None = None, **more: Any) -> Any:
    inner = [build.field("a", "uint8", size)] if fields is None else list(fields)
    vmsd = {"vmsd_name": "inner", "version": 1, "fields": inner}
    return build.field(name, "struct", size, struct=vmsd, **more)


@pytest.mark.parametrize(
    ("type", "data", "value"),
    [
        ("bool", b"\1", True),
        ("bool", b"\2", 2),
        ("int8", b"\xff", -1),
        ("int16", b"\xff\xfe", -2),
        ("int32 le", b"\0\0\0\2", 2),
        ("int64 equal", b"\xff" * 8, 2**64 - 1),
        ("uint32 equal", b"\x80\0\0\0", 2**31),
        ("timer", b"\xff" * 8, -1),
        ("CPU_Double_U", b"\x3f" + bytes(7), 0x3F << 56),
        ("cpsr", b"\0\0\1\xd3", 0x1D3),
        ("powered_off", b"\1", 1),
        ("fpr", bytes(7) + b"\5", 5),
        ("psw", b"\0\0\0\5", 5),
        ("int32_as_uint16", b"\0\5", 5),
    ],
)
def test_plain_types(type: str, data: bytes, value: object) -> None:
    tree = fitting(data, [build.field("x", type, len(data))])
    assert tree["x"].value == value
    assert tree["x"].type == type


def test_arrays_of_plain_values_are_one_leaf() -> None:
    tree = fitting(bytes(range(8)), [build.field("x", "uint16", 2, array_len=4)])
    assert tree["x"].value == (0x0001, 0x0203, 0x0405, 0x0607)
    assert tree["x"].codec == "u16be[4]"


def test_an_array_of_bools_may_hold_other_values() -> None:
    assert fitting(b"\0\1\xff", [build.field("x", "bool", 1, array_len=3)])["x"].value == (
        0,
        1,
        255,
    )


def test_a_huge_array_comes_in_pieces() -> None:
    count = (1 << 16) + 2
    tree = fitting(bytes(4 * count), [build.field("x", "uint32", 4, array_len=count)])
    assert names(tree["x"]) == ["[0]", "[65536]"]


@pytest.mark.parametrize(
    "entries",
    [
        [struct("s", 1, array_len=3)],
        [struct("s", 1, index=0), struct("s", 1, index=1), struct("s", 1, index=2)],
        [struct("s", 1, index=0), struct("s", 1, index=1), struct("s", 1)],
        [struct("s", 1), struct("s", 1), struct("s", 1)],
    ],
)
def test_elements_are_named_alike_in_all_releases(entries: list[Any]) -> None:
    tree = fitting(b"\7\x08\x09", entries)
    assert names(tree) == ["s[0]", "s[1]", "s[2]"]
    assert tree["s[1].a"].value == 8


def test_null_is_a_struct_of_nothing_before_10_0() -> None:
    hole = build.field("p", "struct", 1, struct={}, index=0)
    tree = fitting(b"0\7", [hole, struct("p", 1, index=1)])
    assert names(tree) == ["p[0]", "p[1]"]
    assert tree["p[0].marker"].value == 0x30
    assert tree["p[1].a"].value == 7


def test_null_in_an_array_of_plain_pointers_before_10_0() -> None:
    tree = fitting(b"0", [build.field("p", "uint32", 1)])
    assert tree["p.marker"].value == 0x30


def test_runs_of_null() -> None:
    null = build.field("p", "nullptr", 1, array_len=2)
    tree = fitting(b"00\7", [null, struct("p", 1)])
    assert names(tree) == ["p[0]", "p[1]", "p[2]"]


def test_markers_in_front_of_each_element() -> None:
    """11.1, AUTO_ALLOC: 0x30 alone, or 0x31 and the element."""
    marker = build.field("p", "ptr-marker", 1)
    tree = fitting(b"1\x0701\x08", [marker, struct("p", 1), marker, marker, struct("p", 1)])
    assert names(tree) == ["p[0]_marker", "p[0]", "p[1]", "p[2]_marker", "p[2]"]
    assert tree["p[2].a"].value == 8


def test_a_single_marker_and_its_element() -> None:
    tree = fitting(b"1\7", [build.field("p", "ptr-marker", 1), struct("p", 1)])
    assert names(tree) == ["p[0]_marker", "p[0]"]


def test_a_field_without_bytes() -> None:
    tree = fitting(b"\7", [build.field("msix", "msix state", 0), build.field("x", "uint8", 1)])
    assert tree["msix"].size == 0
    tree = fitting(b"\7", [build.field("q", "whatever", 0), build.field("x", "uint8", 1)])
    assert tree["x"].value == 7


def test_vstruct_has_its_keys_in_the_field() -> None:
    inner = {"vmsd_name": "v", "version": 2, "fields": [build.field("a", "uint8", 1)]}
    tree = fitting(b"\7", [build.field("x", "vstruct", 1, **inner)])
    assert tree["x.a"].value == 7


def test_subsections_inside_a_struct() -> None:
    sub = {"vmsd_name": "inner/more", "version": 1, "fields": [build.field("b", "uint8", 1)]}
    vmsd = {"vmsd_name": "inner", "version": 1, "fields": [build.field("a", "uint8", 1)]}
    head = b"\5\x0ainner/more\0\0\0\1"
    entry = build.field("s", "struct", 2 + len(head), struct={**vmsd, "subsections": [sub]})
    tree = fitting(b"\7" + head + b"\x08", [entry])
    assert tree["s"].children[1].name == "inner/more"
    assert tree["s"].children[1].children[1].value == 8


def test_an_unknown_type_stays_raw_and_shifts_nothing() -> None:
    tree, notices = described(b"abc\7", [build.field("q", "what", 3), build.field("x", "uint8", 1)])
    assert tree["q"].kind is Kind.RAW
    assert tree["x"].value == 7
    assert "no rule for type 'what' of 'q'" in notices[0]


def test_a_rule_that_does_not_fit_leaves_its_field_raw() -> None:
    entries = [build.field("q", "slbe", 17), build.field("x", "uint8", 1)]
    tree, notices = described(bytes(17) + b"\7", entries)
    assert tree["q"].kind is Kind.RAW
    assert tree["x"].value == 7
    assert "rule for type 'slbe' does not fit" in notices[0]


def test_a_body_that_contradicts_its_description() -> None:
    """From the contradiction on it is raw; the footer says where it ends."""
    wrong = struct("s", 3, [build.field("a", "uint8", 1)])
    tree, notices = described(b"\7abc", [wrong, build.field("x", "uint8", 1)])
    assert tree["s.a"].value == 7
    assert tree.children[-1].kind is Kind.RAW
    assert "end of s" in notices[0]
