"""Encoding: bytes from values and codecs, large contents in pieces."""

from __future__ import annotations

from cprformats.codecs import DataRef
from cprformats.encode import encode, encode_leaf
from cprformats.fields import Field, Kind
from cprformats.source import BytesSource


def leaf(codec: str, value: object, size: int) -> Field:
    return Field("x", "", codec, Kind.FIELD, 0, size, value)  # type: ignore[arg-type]


def test_values_become_their_bytes() -> None:
    tree = Field(
        "all", "", "", Kind.FIELD, 0, 9, None,
        (leaf("u16be", 5, 2), leaf("text", "a\udcff", 2), leaf("zeros[5]", None, 5)),
    )  # fmt: skip
    assert b"".join(encode([tree, leaf("i8", -1, 1)])) == b"\0\5a\xff" + bytes(5) + b"\xff"


def test_large_contents_come_in_pieces() -> None:
    data = bytes(range(256)) * (3 << 12)
    field = leaf("bytes", DataRef(BytesSource(b"__" + data), 2, len(data)), len(data))
    pieces = list(encode_leaf(field))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 1 << 20


def test_a_group_without_children_has_no_bytes() -> None:
    assert list(encode([Field("g", "", "", Kind.FIELD, 0, 0)])) == []
