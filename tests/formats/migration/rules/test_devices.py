"""Types of single devices."""

from __future__ import annotations

import pytest

from bodies import by_rule, described, fitting
from builders import migration as build
from builders.migration import be32, be64
from cprformats.fields import Kind


def test_byte_array() -> None:
    tree = by_rule("GByteArray", be32(3) + b"abc")
    assert tree["data"].value == b"abc"
    assert tree["data"].kind is Kind.BUFFER


def test_file_descriptor() -> None:
    assert by_rule("fd", b" ")["carrier"].value == 0x20
    assert by_rule("fd", be32(5))["fd"].value == 5


def test_usb_redirection() -> None:
    assert by_rule("usb-redir-parser", be32(3) + b"abc")["state"].kind is Kind.PAYLOAD
    packet = be32(2) + be32(0) + b"ab"
    assert by_rule("usb-redir-bufpq", be32(2) + packet * 2)["[1].data"].value == b"ab"
    assert by_rule("usb-redir-packet-id-q", be32(2) + be64(7) + be64(8))["ids"].value == (7, 8)
    assert by_rule("usb-redir-packet-id-q", be32(0))["count"].value == 0


def test_clipboards_are_described_in_the_field() -> None:
    assert by_rule("vdagent/cbinfos", b"").size == 0
    vmsd = {"vmsd_name": "cbinfoarray", "version": 0, "fields": [build.field("n", "uint32", 4)]}
    tree = fitting(be32(0), [build.field("cbinfos", "vdagent/cbinfos", 4, **vmsd)])
    assert tree["cbinfos.n"].value == 0


@pytest.mark.parametrize(
    ("type", "data"),
    [
        ("GByteArray", be32(4) + b"abc"),
        ("usb-redir-parser", be32(0xFFFF_FFFF) + b"abc"),
        ("usb-redir-bufpq", be32(0xFFFF_FFFF) + b"abc"),
        ("usb-redir-packet-id-q", be32(0xFFFF_FFFF) + b"abc"),
    ],
)
def test_lengths_beyond_the_field_are_said(type: str, data: bytes) -> None:
    tree, notices = described(data, [build.field("x", type, len(data))])
    assert tree["x"].kind is Kind.RAW
    assert f"rule for type '{type}' does not fit" in notices[0]
