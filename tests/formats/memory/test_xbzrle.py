"""XBZRLE against QEMU's decoder told line by line, and every way a delta can be wrong."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from builders.memory import apply_slowly, delta, pattern, uleb
from cprformats.memory.xbzrle import apply_delta

PAGE = 4096
BASE = pattern(1)


def applied(page: bytes, data: bytes) -> bytes | None:
    try:
        return apply_delta(page, data)
    except ValueError:
        return None


@st.composite
def changes(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A page, and what was made of it in a few places."""
    size = draw(st.sampled_from((256, 1024, 4096, 16384)))
    old = draw(st.sampled_from((bytes(size), pattern(2, size))))
    new = bytearray(old)
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, size - 1))
        more = draw(st.binary(min_size=1, max_size=200))[: size - at]
        new[at : at + len(more)] = more
    return old, bytes(new)


@settings(derandomize=True)
@given(changes())
def test_a_delta_makes_the_new_page(pages: tuple[bytes, bytes]) -> None:
    old, new = pages
    made = delta(old, new)
    assert apply_slowly(old, made) == new
    assert apply_delta(old, made) == new


@settings(derandomize=True, max_examples=500)
@given(st.binary(max_size=40))
@example(b"\x80\x80\x01a")
@example(b"\x00\x01")
@example(b"\x80")
def test_any_bytes_as_a_delta_end_as_in_qemu(data: bytes) -> None:
    page = pattern(3, 256)
    assert applied(page, data) == apply_slowly(page, data)


@settings(derandomize=True, max_examples=300)
@given(changes(), st.data())
def test_a_damaged_delta_ends_as_in_qemu(pages: tuple[bytes, bytes], draw: st.DataObject) -> None:
    old, new = pages
    made = bytearray(delta(old, new) or b"\0\1a")
    at = draw.draw(st.integers(0, len(made) - 1))
    made[at] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(0, len(made)))
    for damaged in (bytes(made), bytes(made[:cut])):
        assert applied(old, damaged) == apply_slowly(old, damaged)


def test_nothing_changes_nothing() -> None:
    assert apply_delta(BASE, b"") == BASE


def test_the_whole_page_as_one_run() -> None:
    new = pattern(4)
    assert apply_delta(BASE, uleb(0) + uleb(PAGE) + new) == new


def test_a_page_never_sent_is_zeros() -> None:
    assert apply_delta(bytes(PAGE), uleb(3) + uleb(2) + b"ab")[:6] == b"\0\0\0ab\0"


def test_the_page_before_is_left_alone() -> None:
    before = bytes(256)
    apply_delta(before, uleb(0) + uleb(1) + b"x")
    assert before == bytes(256)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0", "XBZRLE: expected a length, found the end at 0x1"),
        (b"\0\2a", "XBZRLE: expected 4 bytes, found 3"),
        (b"\0\0", "XBZRLE: expected a run of new bytes, found 0 at 0x0"),
        (b"\0\1a\0\1b", "XBZRLE: expected a run of unchanged bytes, found 0 at 0x3"),
        (b"\0\1a\5", "XBZRLE: expected a length, found the end at 0x4"),
        (b"\xff\xff\1a", "XBZRLE: expected a length of at most two bytes at 0x0"),
        (uleb(255) + uleb(2) + b"ab", "XBZRLE: expected at most 256 bytes of page, found 257"),
        (uleb(257) + uleb(1) + b"a", "XBZRLE: expected at most 256 bytes of page, found 258"),
    ],
)
def test_what_is_said_of_a_wrong_delta(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        apply_delta(bytes(256), data)
