"""Codecs: names to layouts, and back to the same bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cprformats.codecs import DataRef, codec, is_integer
from cprformats.source import BytesSource

SAMPLES = [
    ("u8", b"\xff", 255),
    ("i8", b"\xff", -1),
    ("u16be", b"\x01\x02", 0x102),
    ("u16le", b"\x01\x02", 0x201),
    ("i32be", b"\xff\xff\xff\xfe", -2),
    ("i32le", b"\xfe\xff\xff\xff", -2),
    ("u64be", b"\0\0\0\0\0\0\1\0", 256),
    ("i64be", b"\x80" + bytes(7), -(1 << 63)),
    ("u8[3]", b"\1\2\3", (1, 2, 3)),
    ("i16be[2]", b"\xff\xff\0\1", (-1, 1)),
    ("u64be[2]", bytes(15) + b"\7", (0, 7)),
    ("u32be[0]", b"", ()),
    ("bool", b"\1", True),
    ("bool", b"\0", False),
    ("text", b"pc.ram", "pc.ram"),
    ("bytes", b"\0\xff", b"\0\xff"),
    ("zeros[4]", bytes(4), None),
    (
        "uuid",
        bytes.fromhex("00112233445566778899aabbccddeeff"),
        "00112233-4455-6677-8899-aabbccddeeff",
    ),
]


@pytest.mark.parametrize(("name", "data", "value"), SAMPLES)
def test_decodes_and_encodes(name: str, data: bytes, value: object) -> None:
    how = codec(name)
    assert how.name == name
    assert how.decode(data) == value
    assert how.encode(how.decode(data)) == data
    assert how.size in (None, len(data))


@pytest.mark.parametrize("name", ["", "u7", "u16", "i32", "u8[", "u16le[-1]", "float", "zeros[]"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(KeyError):
        codec(name)


def test_bool_is_strict() -> None:
    with pytest.raises(ValueError, match="expected 0 or 1, found 2"):
        codec("bool").decode(b"\2")


def test_zeros_are_strict() -> None:
    with pytest.raises(ValueError, match="expected zero bytes"):
        codec("zeros[2]").decode(b"\0\1")


@given(st.binary())
def test_any_bytes_survive_as_text(data: bytes) -> None:
    assert codec("text").encode(codec("text").decode(data)) == data


@pytest.mark.parametrize(
    ("name", "expected"),
    [("u8", True), ("i64be", True), ("u8[2]", False), ("bool", False), ("text", False)],
)
def test_is_integer(name: str, expected: bool) -> None:
    assert is_integer(name) is expected


def test_a_reference_reads_its_own_range_only() -> None:
    ref = DataRef(BytesSource(b"0123456789"), 2, 5)
    assert ref.read() == b"23456"
    assert ref.read(3) == b"56"
    assert ref.read(3, 100) == b"56"
    assert ref.read(1, 2) == b"34"
    assert ref.read(9) == b""
    assert codec("bytes").encode(ref) == b"23456"
