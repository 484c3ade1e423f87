"""The error tree: what an error carries and how it reads."""

from __future__ import annotations

import pytest

import cprformats.errors
from cprformats.errors import (
    Damaged,
    FormatError,
    NotKept,
    Truncated,
    Unsupported,
    WrongFormat,
)


@pytest.mark.parametrize("kind", [Damaged, NotKept, Truncated, Unsupported, WrongFormat])
def test_every_error_is_a_format_error(kind: type) -> None:
    assert issubclass(kind, FormatError)
    assert kind.__name__ in cprformats.errors.__all__


def test_text_has_path_message_and_offset() -> None:
    error = Damaged("unknown flag", offset=0x1A2B, path=("ram", "pc.ram"))
    assert str(error) == "ram / pc.ram: unknown flag, at 0x1a2b"
    assert (error.message, error.offset, error.path) == ("unknown flag", 0x1A2B, ("ram", "pc.ram"))


def test_text_without_a_path() -> None:
    assert str(WrongFormat("no migration stream")) == "no migration stream, at 0x0"


def test_truncated_keeps_both_counts() -> None:
    error = Truncated("footer", 5, 2, offset=16, path=("dev",))
    assert (error.needed, error.available) == (5, 2)
    assert str(error) == "dev: footer is cut: expected 5 bytes, found 2, at 0x10"


def test_mismatch_names_expected_and_found() -> None:
    error = Damaged.mismatch("type", 1, 2, offset=3, path=("a",))
    assert type(error) is Damaged
    assert str(error) == "a: type: expected 1, found 2, at 0x3"
