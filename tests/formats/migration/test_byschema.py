"""Sections without a description, read by a schema: each way in which one leaves things open."""

from __future__ import annotations

from typing import Any

import pytest

from builders import migration as build
from builders.migration import be16, be32, be64
from builders.schemas import description, schema
from builders.schemas import field as plain
from checks import assert_tiles, read
from cprformats.encode import encode
from cprformats.errors import Unsupported
from cprformats.fields import Field, Kind, leaves
from cprformats.migration import Located, MigrationStream
from cprformats.schema.model import CountFrom, Description, FieldFormat

SIZES = {"uint8": 1, "bool": 1, "uint16": 2, "uint32": 4, "int32": 4, "uint64": 8, "timer": 8}


def field(name: str, info: str = "uint8", **more: Any) -> FieldFormat:
    return (
        plain(name, info=info, size=SIZES.get(info, 0), **more)
        if "size" not in more
        else plain(name, info=info, **more)
    )


def maybe(name: str, info: str = "uint8", **more: Any) -> FieldFormat:
    """A conditional field; `test` tells the functions apart."""
    return field(name, info, conditional=True, **more)


def struct(name: str, nested: str, **more: Any) -> FieldFormat:
    return plain(name, info="", nested=nested, **({"flags": ("STRUCT",), "size": 64} | more))


def many(name: str, info: str, offset: int, kind: str = "uint8", **more: Any) -> FieldFormat:
    """An array behind a pointer, whose count lies at `offset` in the object."""
    flags = ("POINTER", f"VARRAY_{kind.upper()}", *more.pop("flags", ()))
    times = more.pop("times", 1)
    source = CountFrom(kind, offset, times)
    return field(name, info, count_from=source, flags=flags, offset=900, **more)


def opened(body: bytes, *parts: Description, name: str = "dev", **more: Any) -> MigrationStream:
    """A stream of one section, read by a schema of these descriptions."""
    data = build.stream(build.configuration("pc"), build.full(3, name, body=body, **more))
    found = read(data, schema=schema(*parts))
    assert found.error is None, found.error
    return found


def result(
    body: bytes, *parts: Description, name: str = "dev", **more: Any
) -> tuple[Field, tuple[str, ...]]:
    """The section's body and what is said of it; all its bytes are in the tree."""
    found = opened(body, *parts, name=name, **more)
    (section,) = found.sections()
    tree, notices = found.decode(section)
    assert_tiles([tree], section.offset)
    whole = b"".join(encode([tree]))
    assert whole[section.head_size : section.head_size + len(body)] == body
    return tree["body"], notices


def fitting(body: bytes, *parts: Description, **more: Any) -> dict[str, object]:
    """Values by path of a section that is wholly decided."""
    tree, notices = result(body, *parts, **more)
    assert notices == ()
    assert all(leaf.kind is not Kind.RAW for leaf in leaves(tree))
    return values(tree)


def values(tree: Field, path: str = "") -> dict[str, object]:
    made: dict[str, object] = {}
    for child in tree.children:
        name = f"{path}.{child.name}" if path else child.name
        if child.codec:
            made[name] = child.value
        made |= values(child, name)
    return made


# -- what is plain ------------------------------------------------------------------


def test_fields_come_in_order_with_the_names_and_types_of_a_vmdesc() -> None:
    one = description(
        "dev", field("a", "uint16"), field("a", "bool"), field("b", num=3, flags=("ARRAY",))
    )
    tree, notices = result(be16(5) + b"\1" + b"xyz", one)
    assert values(tree) == {"a[0]": 5, "a[1]": True, "b": tuple(b"xyz")}
    assert [child.type for child in tree.children] == ["uint16", "bool", "uint8"]
    assert notices == ()
    assert tree.type == "dev"


def test_fields_of_later_versions_and_checks_are_not_there() -> None:
    one = description(
        "dev",
        field("a"),
        field("late", version_id=3),
        plain("check", info="", flags=("MUST_EXIST",), conditional=True, size=0),
        version_id=3,
    )
    assert fitting(b"\7", one, version=2) == {"a": 7}
    assert fitting(b"\7\10", one, version=3) == {"a": 7, "late": 8}


def test_sizes_on_the_wire_are_not_those_in_memory() -> None:
    one = description("dev", field("x", "int32_as_uint16", size=4), field("y", "uint32"))
    assert fitting(be16(9) + be32(1), one) == {"x": 9, "y": 1}


def test_the_last_part_of_the_path_is_the_name() -> None:
    one = description("dev", field("a"))
    assert fitting(b"\1", one, name="0000:00:02.0/dev") == {"a": 1}
    slashed = description("icp/server", field("a"))
    assert fitting(b"\1", slashed, name="icp/server") == {"a": 1}


def test_nested_structures_are_groups() -> None:
    inner = description("inner", field("x"), field("y", "uint16"))
    outer = description(
        "dev", struct("s", "inner"), struct("t", "inner", num=2, flags=("ARRAY", "STRUCT"))
    )
    assert fitting(b"\1\0\2" + b"\3\0\4" + b"\5\0\6", outer, inner) == {
        "s.x": 1, "s.y": 2, "t[0].x": 3, "t[0].y": 4, "t[1].x": 5, "t[1].y": 6,
    }  # fmt: skip


def test_a_vstruct_has_a_version_of_its_own_and_tmp_an_object() -> None:
    inner = description("inner", field("x"), field("late", version_id=2), version_id=2)
    outer = description(
        "dev",
        struct("v", "inner", flags=("VSTRUCT",), struct_version_id=1),
        plain("t", info="tmp", nested="inner", size=16),
    )
    assert fitting(b"\1\2\3", outer, inner) == {"v.x": 1, "t.x": 2, "t.late": 3}


# -- conditions -----------------------------------------------------------------------


def test_a_conditional_field_is_there_if_the_end_says_so() -> None:
    one = description("dev", field("a"), maybe("b", "uint32"), field("c"))
    assert fitting(b"\1\3", one) == {"a": 1, "c": 3}
    assert fitting(b"\1" + be32(2) + b"\3", one) == {"a": 1, "b": 2, "c": 3}


def test_one_test_function_decides_alike_over_all_its_fields() -> None:
    one = description(
        "dev", maybe("a", "uint16", test=7), maybe("b", "uint16", test=9), maybe("c", test=7)
    )
    assert fitting(be16(1) + b"\2", one) == {"a": 1, "c": 2}
    assert fitting(be16(1), one) == {"b": 1}


def test_two_readings_of_one_length_are_undecided_and_what_follows_is_not() -> None:
    one = description("dev", field("head"), maybe("a"), maybe("b"), field("tail", "uint16"))
    tree, notices = result(b"\1\2\0\3", one)
    assert values(tree) == {"head": 1, "undecided.data": b"\2", "tail": 3}
    assert tree["undecided.data"].kind is Kind.RAW
    assert notices == ("dev: 1 bytes kept raw: undecided, 2 readings by the schema fit",)


def test_a_bool_that_is_none_rules_a_reading_out() -> None:
    one = description("dev", maybe("flag", "bool"), maybe("byte"))
    assert fitting(b"\2", one) == {"byte": 2}


def test_undecided_inside_a_structure_stays_inside() -> None:
    inner = description("inner", field("x"), maybe("a"), maybe("b"), field("y"))
    outer = description("dev", struct("s", "inner"), field("z"))
    tree, _ = result(b"\1\2\3\4", outer, inner)
    assert values(tree) == {"s.x": 1, "s.undecided.data": b"\2", "s.y": 3, "z": 4}


def test_what_another_member_decides() -> None:
    drive = description(
        "ide_drive",
        field("identify_set", "int32", offset=8),
        maybe("identify_data", "buffer", size=4),
        maybe("other", "buffer", size=4),
    )
    assert fitting(be32(1) + b"data", drive, name="ide_drive") == {
        "identify_set": 1, "identify_data.data": b"data",
    }  # fmt: skip
    assert fitting(be32(0) + b"data", drive, name="ide_drive") == {
        "identify_set": 0, "other.data": b"data",
    }  # fmt: skip


# -- numbers ----------------------------------------------------------------------------


def test_counts_come_from_fields_in_front() -> None:
    one = description("dev", field("n", offset=4), many("a", "uint16", 4), many("b", "uint8", 4))
    assert fitting(b"\2" + be16(1) + be16(2) + b"\3\4", one) == {"n": 2, "a": (1, 2), "b": (3, 4)}


def test_counts_come_from_the_structure_around_and_inside() -> None:
    inner = description("inner", field("n", offset=8))
    outer = description("dev", struct("s", "inner", offset=16), many("a", "uint8", 24))
    assert fitting(b"\2xy", outer, inner) == {"s.n": 2, "a": tuple(b"xy")}


def test_counts_are_multiplied_and_negative_ones_are_none() -> None:
    one = description("dev", field("n", "int32", offset=4), many("a", "uint8", 4, "int32", times=2))
    assert fitting(be32(2) + b"wxyz", one) == {"n": 2, "a": tuple(b"wxyz")}
    assert fitting(be32(0xFFFFFFFF), one) == {"n": -1}


def test_an_unknown_count_follows_from_the_end() -> None:
    one = description("dev", field("a"), many("v", "uint32", 400), field("z"))
    assert fitting(b"\1" + be32(7) * 3 + b"\2", one) == {"a": 1, "v": (7, 7, 7), "z": 2}
    assert fitting(b"\1\2", one) == {"a": 1, "z": 2}


def test_an_unknown_count_is_the_same_for_all_that_go_by_it() -> None:
    one = description("dev", many("v", "uint32", 400), many("w", "uint8", 400))
    assert fitting(be32(1) + be32(2) + b"\3\4", one) == {"v": (1, 2), "w": (3, 4)}


def test_an_unknown_number_of_structures_that_differ() -> None:
    inner = description("inner", field("n", offset=0), many("d", "uint8", 0))
    array = struct(
        "s",
        "inner",
        count_from=CountFrom("uint8", 400),
        flags=("STRUCT", "VARRAY_UINT8", "POINTER"),
    )
    outer = description("dev", array, field("end", "uint16"))
    assert fitting(b"\1a\2bc" + be16(9), outer, inner) == {
        "s[0].n": 1, "s[0].d": ord("a"), "s[1].n": 2, "s[1].d": tuple(b"bc"), "end": 9,
    }  # fmt: skip
    assert fitting(b"\1a" + be16(9), outer, inner) == {"s.n": 1, "s.d": ord("a"), "end": 9}


def test_an_array_has_no_more_elements_than_room_in_memory() -> None:
    """Both arrays could hold all bytes; the first has room for two."""
    inner = description("inner", field("x", "bool"))
    flags = ("STRUCT", "VARRAY_UINT8")
    one = description(
        "dev",
        struct("s", "inner", size=8, offset=8, count_from=CountFrom("uint8", 400), flags=flags),
        field("next", "uint16", offset=24),
        maybe("more", "buffer", size=6, offset=32),
    )
    assert fitting(b"\1\0" + be16(5), one, inner) == {"s[0].x": True, "s[1].x": False, "next": 5}
    assert "more.data" in fitting(b"\0\0" + bytes(6), one, inner)


def test_sizes_of_buffers_and_bitmaps_come_from_fields() -> None:
    one = description(
        "dev",
        field("n", "uint32", offset=4),
        field(
            "b", "buffer", size=0, size_from=CountFrom("uint32", 4), flags=("VBUFFER", "POINTER")
        ),
        field(
            "m", "bitmap", size=0, size_from=CountFrom("uint32", 4), flags=("VBUFFER", "POINTER")
        ),
    )
    assert fitting(be32(3) + b"abc" + be64(5), one) == {"n": 3, "b.data": b"abc", "m.words": (5,)}


# -- pointers, lists, trees -------------------------------------------------------------


def test_null_pointers_in_an_array() -> None:
    inner = description("inner", field("x", "uint16"))
    array = struct("p", "inner", num=3, flags=("ARRAY", "STRUCT", "ARRAY_OF_POINTER"))
    assert fitting(b"0" + be16(5) + b"0", description("dev", array), inner) == {
        "p[0].marker": 0x30, "p[1].x": 5, "p[2].marker": 0x30,
    }  # fmt: skip


def test_markers_in_front_of_every_pointer() -> None:
    inner = description("inner", field("x"))
    flags = ("ARRAY", "STRUCT", "ARRAY_OF_POINTER", "ARRAY_OF_POINTER_AUTO_ALLOC")
    dev = description("dev", struct("p", "inner", num=2, flags=flags))
    assert fitting(b"1\5" + b"0", dev, inner) == {
        "p[0]_marker.marker": 0x31, "p[0].x": 5, "p[1].marker": 0x30,
    }  # fmt: skip


def test_values_behind_pointers_are_one_array_unless_one_is_null() -> None:
    array = field("t", "timer", num=2, flags=("ARRAY", "POINTER", "ARRAY_OF_POINTER"))
    assert fitting(be64(1) + be64(2), description("dev", array)) == {"t": (1, 2)}
    assert fitting(be64(1) + b"0", description("dev", array)) == {"t[0]": 1, "t[1].marker": 0x30}


def test_lists() -> None:
    inner = description("inner", field("x"), maybe("y", "uint32"))
    dev = description("dev", plain("l", info="qtailq", nested="inner", size=24), field("z"))
    assert fitting(b"\1\5\1\6\0" + b"\7", dev, inner) == {
        "l.more[0]": 1, "l.[0].x": 5, "l.more[1]": 1, "l.[1].x": 6, "l.end": 0, "z": 7,
    }  # fmt: skip


def test_trees_with_bare_and_with_described_keys() -> None:
    inner = description("inner", field("x"))
    bare = description("dev", plain("t", info="gtree", nested="inner", size=16))
    tree = fitting(be32(1) + b"\1" + be64(9) + b"\5" + b"\0", bare, inner)
    assert (tree["t.[0].key"], tree["t.[0].value.x"]) == (9, 5)
    both = description("dev", plain("t", info="gtree", nested="inner", nested_key="key", size=16))
    key = description("key", field("k", "uint16"))
    tree = fitting(be32(1) + b"\1" + be16(9) + b"\5" + b"\0", both, inner, key)
    assert (tree["t.[0].key.k"], tree["t.[0].value.x"]) == (9, 5)


def test_an_undecided_list_is_undecided_as_a_whole() -> None:
    inner = description("inner", maybe("a", "uint8"), maybe("b", "uint16"))
    dev = description("dev", plain("l", info="qlist", nested="inner", size=24), field("z"))
    tree, notices = result(b"\1\1\1\1\0\7", dev, inner)
    assert next(leaves(tree)).kind is Kind.RAW
    assert "readings by the schema fit" in notices[0]


# -- subsections ------------------------------------------------------------------------


def test_subsections_are_known_by_their_heads() -> None:
    sub = description("dev/more", field("x", "uint16"), version_id=2)
    inner = description("inner", field("i"), subsections=("inner/s",))
    deep = description("inner/s", field("y"))
    dev = description("dev", struct("s", "inner"), field("a"), subsections=("dev/more",))
    body = (
        b"\1"
        + build.subsection("inner/s", b"\2")
        + b"\3"
        + build.subsection("dev/more", be16(4), 2)
    )
    tree, notices = result(body, dev, sub, inner, deep)
    assert notices == ()
    assert (tree["s.inner/s.y"].value, tree["a"].value, tree["dev/more.x"].value) == (2, 3, 4)


def test_no_field_goes_through_the_head_of_a_subsection() -> None:
    """A longer buffer, that has the subsection in it, would end at the same place."""
    sub = description("dev/more", field("x"))
    head = build.subsection("dev/more", b"\5")
    dev = description("dev", many("v", "uint8", 400), subsections=("dev/more",))
    tree = fitting(b"abc" + head, dev, sub)
    assert (tree["v"], tree["dev/more.x"]) == (tuple(b"abc"), 5)


def test_a_buffer_that_holds_such_a_head_is_still_a_buffer() -> None:
    sub = description("dev/more", field("x", "uint64"))
    head = build.subsection("dev/more", b"\5")
    dev = description("dev", field("v", "buffer", size=len(head)), subsections=("dev/more",))
    assert fitting(head, dev, sub) == {"v.data": head}


# -- which description --------------------------------------------------------------------


def test_the_description_that_fits_is_taken_of_those_with_the_name() -> None:
    first = description("dev", field("a", "uint32"))
    second = description("dev#2", field("b", "uint16"))
    assert fitting(be16(5), first, second) == {"b": 5}


def test_two_that_fit_are_undecided() -> None:
    first, second = description("dev", field("a")), description("dev#2", field("b"))
    tree, notices = result(b"\5", first, second)
    assert values(tree) == {"data": b"\5"}
    assert notices[0] == "dev: undecided, these descriptions of the schema fit: dev, dev#2"


def test_only_one_that_code_registers_can_be_it() -> None:
    first = description("dev", field("a"), registered=False)
    second = description("dev#2", field("b"))
    assert fitting(b"\5", first, second) == {"b": 5}


def test_a_wrapper_goes_before_what_it_wraps() -> None:
    inner = description("dev", field("a"), field("b"))
    outer = description("dev#2", struct("state", "dev"))
    assert fitting(b"\1\2", inner, outer) == {"state.a": 1, "state.b": 2}


def test_of_two_wrappers_the_inside_is_sure() -> None:
    inner = description("inner", field("a"))
    first, second = (
        description(key, struct(name, "inner")) for key, name in (("dev", "x"), ("dev#2", "y"))
    )
    assert fitting(b"\1", inner, first, second) == {"a": 1}


def test_one_that_is_named_at_run_time() -> None:
    unnamed = description("(unnamed)", field("a"), name="", subsections=("i82550/s",))
    sub = description("i82550/s", field("x"))
    body = b"\1" + build.subsection("i82550/s", b"\2")
    assert fitting(body, unnamed, sub, name="0000:00:03.0/i82550")["a"] == 1


# -- what does not fit ----------------------------------------------------------------------


OTHER = be16(1) + build.subsection("dev/other")


@pytest.mark.parametrize(
    ("body", "version", "words"),
    [
        (b"\1", 1, "a: expected 2 bytes and 0 behind them, found 1"),
        (be16(1) + b"x", 1, "end of dev: expected no more bytes, found 1 more"),
        (be16(1), 9, "version: expected 1 to 2, found 9"),
        (OTHER, 1, "subsection of dev: expected dev/s, found dev/other"),
        (be16(1) + build.subsection("dev/s", b"\1", 7), 1, "version of dev/s: expected 1, found 7"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_raw_and_said(body: bytes, version: int, words: str) -> None:
    dev = description("dev", field("a", "uint16"), version_id=2, subsections=("dev/s",))
    tree, notices = result(body, dev, description("dev/s", field("x")), version=version)
    assert values(tree) == {"data": body}
    assert notices[0].startswith(f"dev: by the schema: {words}"), notices[0]


def test_a_section_that_no_description_has_the_name_of() -> None:
    tree, notices = result(b"\1", description("other", field("a")))
    assert values(tree) == {"data": b"\1"}
    assert notices[0] == "dev: by the schema: dev: expected a description, found none"


def test_a_structure_of_a_module_that_is_not_there() -> None:
    dev = description("dev", struct("s", "symbol:vmstate_far"))
    _, notices = result(b"\1", dev)
    assert "expected the description symbol:vmstate_far, found none" in notices[0]


def test_a_schema_without_types_is_refused() -> None:
    with pytest.raises(Unsupported, match="found one of origin 'dump'"):
        read(build.stream(), schema=schema(description("dev"), origin="dump"))
    with pytest.raises(Unsupported, match="found none: not a QEMU"):
        read(build.stream(), schema=schema(reason="not a QEMU"))


def test_old_style_sections_keep_their_handlers() -> None:
    _, notices = result(b"\0", description("dev", field("a")), name="slirp")
    assert not any("by the schema" in notice for notice in notices)


# -- streams without footers ----------------------------------------------------------------


def test_without_footers_the_schema_tells_the_ends() -> None:
    dev = description("dev", field("a"), maybe("b", "uint32"), maybe("c", "uint16"))
    tail = description("tail", field("z"))
    data = build.stream(
        build.start(1, body=build.eos(), footers=False),
        build.full(2, "dev", body=b"\1" + be16(9), footers=False),
        build.full(3, "tail", body=b"\2", footers=False),
    )
    found = read(data, schema=schema(dev, tail))
    assert (found.error, found.footers) == (None, False)
    _, first, second = found.sections()
    assert [x.located for x in (first, second)] == [Located.SCHEMA] * 2
    assert values(found.decode(first)[0]["body"]) == {"a": 1, "c": 9}
    assert values(found.decode(second)[0]["body"]) == {"z": 2}


def test_without_footers_and_without_one_end_the_rest_is_in_the_section() -> None:
    dev = description("dev", many("v", "uint8", 400))
    data = build.stream(
        build.start(1, body=build.eos(), footers=False),
        build.full(2, "dev", body=build.full(7, "x", footers=False), footers=False),
        build.full(3, "dev", body=b"\2", footers=False),
    )
    found = read(data, schema=schema(dev))
    *_, last = found.sections()
    assert last.located is Located.REST
