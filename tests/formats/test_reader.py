"""The bounded reader: values with places, or errors with places."""

from __future__ import annotations

import pytest

from checks import assert_error, assert_tiles
from cprformats.codecs import DataRef
from cprformats.encode import encode
from cprformats.errors import Damaged, Truncated, Unsupported
from cprformats.fields import Kind
from cprformats.reader import Reader
from cprformats.source import BytesSource

DATA = bytes(range(1, 200))


def reader(data: bytes = DATA, offset: int = 0, end: int | None = None, **more: object) -> Reader:
    return Reader(BytesSource(data), offset, end, **more)  # type: ignore[arg-type]


def test_takes_values_and_keeps_them() -> None:
    here = reader(kind=Kind.COMMAND)
    assert here.take("a", "u8") == 1
    assert here.number("b", "u16be", type="uint16 equal", meaning="m") == 0x203
    tree = here.finish("all", "T")
    assert (tree.name, tree.type, tree.offset, tree.size) == ("all", "T", 0, 3)
    assert [(x.name, x.type, x.codec, x.meaning) for x in tree.children] == [
        ("a", "u8", "u8", ""),
        ("b", "uint16 equal", "u16be", "m"),
    ]
    assert {x.kind for x in tree.children} == {Kind.COMMAND}
    assert b"".join(encode([tree])) == DATA[:3]


def test_offsets_are_absolute() -> None:
    here = reader(offset=100)
    here.take("a", "u32be")
    assert here.finish("all").children[0].offset == 100
    assert here.offset == 104


def test_the_source_may_end_inside_a_value() -> None:
    here = reader(b"\1\2", path=("dev",))
    with pytest.raises(Truncated) as caught:
        here.take("count", "u32be")
    assert_error(caught.value, Truncated, 0, ("dev",), "count is cut: expected 4 bytes, found 2")
    assert here.offset == 0


def test_the_bound_holds_although_bytes_follow() -> None:
    here = reader(end=3)
    here.take("a", "u16be")
    with pytest.raises(Truncated) as caught:
        here.take("b", "u16be")
    assert_error(caught.value, Truncated, 2, (), "expected 2 bytes, found 1")
    assert here.peek(10) == DATA[2:3]


def test_peek_stays() -> None:
    here = reader()
    assert here.peek(2) == b"\1\2"
    assert here.peek(2, 5) == b"\6\7"
    assert here.peek(0) == here.peek(-3) == b""
    assert here.peek(10, 1000) == b""
    assert here.offset == 0


def test_peek_behind_the_window_and_back() -> None:
    data = bytes(300_000) + b"x" + bytes(300_000)
    here = reader(data)
    assert here.peek(1, 300_000) == b"x"
    assert here.peek(1) == b"\0"
    assert here.peek(len(data)) == data


def test_remaining_and_end() -> None:
    here = reader(b"\1\2\3", end=100)
    assert here.remaining == 3
    here.take("a", "u8[3]")
    assert here.remaining == 0
    assert here.at_end()


def test_a_value_that_the_codec_refuses_is_damage() -> None:
    here = reader(b"\7", path=("dev",))
    with pytest.raises(Damaged) as caught:
        here.take("flag", "bool")
    assert_error(caught.value, Damaged, 0, ("dev",), "flag: expected 0 or 1, found 7")


def test_expect_keeps_the_place_when_it_fails() -> None:
    here = reader(b"\1\2\3")
    here.expect("a", "u8", 1)
    with pytest.raises(Damaged) as caught:
        here.expect("b", "u16be", 0x0204)
    assert_error(caught.value, Damaged, 1, (), "b: expected 02 04, found 02 03")
    assert here.offset == 1


def test_text_and_counted_text() -> None:
    here = reader(b"\3abcde\xff")
    assert here.counted_text("name") == "abc"
    assert here.text("rest", 3) == "de\udcff"
    tree = here.finish("all")
    assert [x.name for x in tree.children] == ["name_len", "name", "rest"]
    assert b"".join(encode([tree])) == b"\3abcde\xff"


def test_counted_text_with_a_hostile_length() -> None:
    here = reader(b"\xff\xff\xff\xffab")
    with pytest.raises(Truncated) as caught:
        here.counted_text("name", "u32be")
    assert_error(caught.value, Truncated, 4, (), "expected 4294967295 bytes, found 2")


def test_short_blobs_are_bytes_and_zeros_are_a_count() -> None:
    here = reader(b"\1\2" + bytes(5))
    assert here.blob("a", 2) == b"\1\2"
    assert here.blob("z", 5) == bytes(5)
    assert here.blob("none", 0) == b""
    tree = here.finish("all")
    assert [(x.codec, x.value) for x in tree.children] == [
        ("bytes", b"\1\2"), ("zeros[5]", None), ("bytes", b""),
    ]  # fmt: skip
    assert b"".join(encode([tree])) == b"\1\2" + bytes(5)


def test_long_blobs_stay_where_they_are() -> None:
    data = bytes(range(256)) * 1024
    here = reader(data)
    value = here.blob("large", len(data))
    assert isinstance(value, DataRef)
    assert b"".join(encode([here.finish("all")])) == data


def test_a_hostile_blob_allocates_nothing() -> None:
    here = reader(b"abc", path=("x",))
    for size in (1 << 31, 1 << 62, 1 << 70):
        with pytest.raises(Truncated) as caught:
            here.blob("large", size)
        assert_error(caught.value, Truncated, 0, ("x",), f"expected {size} bytes, found 3")


def test_require_looks_at_the_bound_first() -> None:
    here = reader(end=10)
    here.require("all", 10)
    with pytest.raises(Truncated) as caught:
        here.require("more", 11)
    assert_error(caught.value, Truncated, 0, (), "expected 11 bytes, found 10")


def test_groups_nest_and_tile() -> None:
    here = reader()
    with here.group("a", "A", Kind.FOOTER):
        here.take("x", "u8")
        with here.group("b"):
            here.take("y", "u16be")
        assert here.path == ("a",)
        assert [x.name for x in here.siblings] == ["x", "b"]
    here.take("z", "u8")
    tree = here.finish("all")
    assert_tiles([tree])
    assert tree["a"].kind is tree["a.b.y"].kind is Kind.FOOTER
    assert tree["z"].kind is Kind.FIELD
    assert (tree["a"].type, tree["a"].size, tree["a.b"].offset) == ("A", 3, 1)


def test_a_group_that_breaks_keeps_what_it_had() -> None:
    here = reader(b"\1\2")

    def two_groups() -> None:
        with here.group("a"), here.group("b"):
            here.take("x", "u8")
            here.take("y", "u32be")

    with pytest.raises(Truncated) as caught:
        two_groups()
    assert_error(caught.value, Truncated, 1, ("a", "b"), "y is cut")
    tree = here.finish("all")
    assert tree["a.b.x"].value == 1
    assert_tiles([tree])


def test_rewind_drops_the_last_field() -> None:
    here = reader()
    here.take("a", "u8")
    with here.group("g"):
        here.take("b", "u32be")
    here.rewind()
    assert here.offset == 1
    here.take("c", "u8")
    assert [x.name for x in here.finish("all").children] == ["a", "c"]


def test_add_takes_a_field_made_elsewhere() -> None:
    first = reader()
    first.take("a", "u32be")
    made = first.finish("made")
    here = reader()
    here.add(made)
    assert here.offset == 4
    assert here.finish("all")["made.a"].value == 0x01020304


def test_errors_have_the_place() -> None:
    here = reader(offset=7, path=("out",))
    with here.group("in"):
        assert_error(here.damaged("bad"), Damaged, 7, ("out", "in"), "bad")
        assert_error(here.mismatch("n", 1, 2, 9), Damaged, 9, ("out", "in"), "n: expected 1")
        assert_error(here.error(Unsupported, "no"), Unsupported, 7, ("out", "in"), "no")
