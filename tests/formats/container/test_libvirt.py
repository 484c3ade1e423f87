"""libvirt's save images."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.libvirt import XML, save_image
from checks import assert_error, assert_tiles, assert_whole
from cprformats.codecs import DataRef
from cprformats.container import LibvirtSave, read_libvirt
from cprformats.container.libvirt import FORMATS
from cprformats.encode import encode
from cprformats.errors import Damaged, FormatError, Truncated, Unsupported, WrongFormat
from cprformats.fields import Kind
from cprformats.source import BytesSource

REST = b"QEVM and more"
SMALL = save_image(REST, cookie="<qemuSaveCookie/>\n")
HEAD = len(SMALL) - len(REST)


def read(data: bytes) -> LibvirtSave:
    return read_libvirt(BytesSource(data))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
def test_both_byte_orders(order: str, version: int) -> None:
    data = save_image(REST, order=order, version=version, cookie="<c/>", format=5)
    found = read(data)
    assert found.byte_order == {"<": "little", ">": "big"}[order]
    assert (found.version, found.format, found.complete, found.was_running) == (
        version,
        "zstd",
        True,
        True,
    )
    assert (found.xml, found.cookie) == (XML, "<c/>")
    assert data[found.inner_offset :] == REST
    assert found.error is None
    assert found.warnings == ()
    assert_whole(found, data)


def test_what_lies_where() -> None:
    found = read(SMALL)
    *own, rest = found.walk()
    assert [x.name for x in own] == ["header", "xml", "xml_padding", "cookie", "cookie_padding"]
    assert own[0].size == 92
    assert own[0]["cookie_offset"].value == len(XML) + 1
    assert rest.kind is Kind.PAYLOAD
    assert rest.offset == HEAD
    assert isinstance(rest.value, DataRef)
    assert rest.value.read() == REST
    assert found.end == len(SMALL)


def test_without_a_cookie_and_of_a_paused_guest() -> None:
    found = read(save_image(REST, running=False))
    assert found.cookie == ""
    assert not found.was_running
    assert found.error is None


def test_an_unfinished_image() -> None:
    found = read(save_image(REST, partial=True))
    assert not found.complete
    assert "had not finished" in found.warnings[0]


def test_a_format_of_the_future() -> None:
    found = read(save_image(REST, format=99))
    assert found.format == "99"
    assert "unknown format 99" in found.warnings[0]
    assert found.error is None
    assert sorted(FORMATS) == list(range(7))


def test_no_magic() -> None:
    with pytest.raises(WrongFormat, match="LibvirtQemudSave"):
        read(b"QEVM" + bytes(100))


def test_another_version() -> None:
    with pytest.raises(Unsupported, match="found 3"):
        read(save_image(REST, version=3))


@pytest.mark.parametrize("size", range(16, 92))
def test_a_cut_header(size: int) -> None:
    with pytest.raises(Truncated):
        read(SMALL[:size])


def test_cut_at_every_byte_behind_the_header() -> None:
    for size in range(92, len(SMALL)):
        found = read(SMALL[:size])
        if size < HEAD:
            assert_error(
                found.error, Truncated, 92, (), "XML, cookie and padding", f"found {size - 92}"
            )
            assert found.tally().unknown == size - 92
        assert_whole(found, SMALL[:size])


def test_a_length_that_is_not_there() -> None:
    found = read(save_image(REST, size=1 << 20))
    assert isinstance(found.error, Truncated)
    found = read(save_image(REST, size=0xFFFFFFFF))
    assert isinstance(found.error, Unsupported)


def test_a_cookie_behind_all() -> None:
    data = bytearray(SMALL)
    data[32:36] = struct.pack("<I", 5000)
    found = read(bytes(data))
    assert isinstance(found.error, Damaged)
    assert "cookie offset" in str(found.error)
    assert_whole(found, bytes(data))


def test_nothing_at_all_behind_the_header() -> None:
    data = save_image(b"", xml="", size=0, align=1)[:92]
    found = read(data)
    assert found.error is None
    assert found.xml == ""
    assert_whole(found, data)


def test_texts_that_are_not_utf8_or_lack_their_nul() -> None:
    data = SMALL.replace(b"guest", b"g\xfcest").replace(b"</domain>\n\0", b"</domain>\n ")
    found = read(data)
    assert found.xml.endswith("</domain>\n ")
    assert_whole(found, data)


@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255))
def test_flipped_bits(place: int, mask: int) -> None:
    data = bytearray(SMALL)
    data[place] ^= mask
    try:
        found = read(bytes(data))
    except FormatError as error:
        place_of_error = error.offset
    else:
        trees = list(found.walk())
        assert_tiles(trees)
        assert b"".join(encode(trees)) == data
        return
    assert place_of_error <= 16
