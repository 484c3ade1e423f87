"""The tree: lookup by path, leaves in order, and counts by kind."""

from __future__ import annotations

import pytest

from cprformats.fields import Field, Kind, Tally, leaves, tally


def leaf(name: str, offset: int, size: int = 1, kind: Kind = Kind.FIELD) -> Field:
    return Field(name, "uint8", f"zeros[{size}]", kind, offset, size)


TREE = Field(
    "dev",
    "dev",
    "",
    Kind.FIELD,
    10,
    10,
    None,
    (
        leaf("head", 10, 2, Kind.SECTION_HEAD),
        Field("body", "", "", Kind.FIELD, 12, 5, None, (leaf("a", 12, 4), leaf("b", 16))),
        leaf("raw", 17, 3, Kind.RAW),
    ),
)


def test_end_is_behind_the_last_byte() -> None:
    assert TREE.end == 20


def test_a_descendant_by_its_path() -> None:
    assert TREE["body.b"].offset == 16
    assert TREE.get("body.a") is TREE["body"].children[0]


def test_a_missing_path_says_how_far_it_led() -> None:
    with pytest.raises(KeyError, match="'body' has no 'c'"):
        TREE["body.c"]
    assert TREE.get("body.c") is None


def test_leaves_come_in_file_order() -> None:
    assert [(x.name, x.offset) for x in leaves(TREE)] == [
        ("head", 10), ("a", 12), ("b", 16), ("raw", 17),
    ]  # fmt: skip


def test_leaves_of_a_deep_tree_need_no_stack() -> None:
    tree = leaf("x", 0)
    for _ in range(50_000):
        tree = Field("g", "", "", Kind.FIELD, 0, 1, None, (tree,))
    assert [x.name for x in leaves(tree)] == ["x"]


def test_tally_counts_each_byte_once() -> None:
    found = tally([TREE])
    assert found.by_kind == {Kind.SECTION_HEAD: 2, Kind.FIELD: 5, Kind.RAW: 3}
    assert (found.total, found.raw, found.unknown, found.decoded) == (10, 3, 0, 7)


def test_tallies_add_up() -> None:
    both = tally([TREE]) + Tally({Kind.RAW: 1, Kind.UNKNOWN: 4})
    assert (both.total, both.raw, both.unknown, both.decoded) == (15, 4, 4, 7)
