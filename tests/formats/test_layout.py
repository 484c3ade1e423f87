"""Records declared with construct, read field by field with places."""

from __future__ import annotations

import construct
import pytest

from checks import assert_error, assert_tiles
from cprformats.encode import encode
from cprformats.errors import Damaged, Truncated
from cprformats.fields import Kind
from cprformats.layout import read_record
from cprformats.reader import Reader
from cprformats.source import BytesSource

RECORD = construct.Struct(
    "magic" / construct.Const(b"REC1"),
    "version" / construct.Const(2, construct.Int16ub),
    "count" / construct.Int32ul,
    "delta" / construct.Int8sb,
    "words" / construct.Array(2, construct.Int16ub),
    "name" / construct.PaddedString(4, "ascii"),
    construct.Padding(3),
    "blob" / construct.Bytes(2),
    "inner" / construct.Struct("a" / construct.Int8ub, "b" / construct.Int64ub),
)
DATA = (
    b"REC1\0\2" + (7).to_bytes(4, "little") + b"\xff" + b"\0\1\0\2" + b"ab\0\0" + bytes(3) + b"xy"
    + b"\5" + bytes(7) + b"\6"
)  # fmt: skip


def reader(data: bytes) -> Reader:
    return Reader(BytesSource(data), path=("file",))


def test_values_by_name_and_a_tree_that_tiles() -> None:
    here = reader(DATA)
    values = read_record(here, "rec", RECORD, meanings={"count": "things"}, kind=Kind.HEADER)
    assert values["version"] == 2
    assert values["count"] == 7
    assert values["delta"] == -1
    assert values["words"] == (1, 2)
    assert values["blob"] == b"xy"
    tree = here.finish("all")
    assert_tiles([tree])
    assert b"".join(encode([tree])) == DATA
    assert tree["rec.count"].meaning == "things"
    assert tree["rec.count"].codec == "u32le"
    assert tree["rec.inner.b"].value == 6
    assert tree["rec.reserved_6"].size == 3
    assert {x.kind for x in tree["rec"].children} == {Kind.HEADER}


@pytest.mark.parametrize("size", range(len(DATA)))
def test_a_record_cut_anywhere(size: int) -> None:
    here = reader(DATA[:size])
    with pytest.raises((Truncated, Damaged)) as caught:
        read_record(here, "rec", RECORD)
    assert caught.value.offset <= size
    assert caught.value.path[:2] == ("file", "rec")


def test_a_wrong_constant_of_bytes() -> None:
    with pytest.raises(Damaged) as caught:
        read_record(reader(b"REC2" + DATA[4:]), "rec", RECORD)
    assert_error(
        caught.value, Damaged, 0, ("file", "rec"),
        "magic: expected 52 45 43 31, found 52 45 43 32",
    )  # fmt: skip


def test_a_wrong_constant_of_a_number() -> None:
    with pytest.raises(Damaged) as caught:
        read_record(reader(DATA[:5] + b"\3" + DATA[6:]), "rec", RECORD)
    assert_error(caught.value, Damaged, 4, ("file", "rec"), "version: expected 2, found 3")
