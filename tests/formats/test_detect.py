"""The kind of a file is told by its bytes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from builders import migration
from builders.libvirt import save_image
from builders.qcow2 import image
from builders.qcpr import old_state, qcpr
from cprformats.detect import COMPRESSIONS, FileKind, detect
from cprformats.errors import FormatError, Truncated, WrongFormat
from cprformats.source import BytesSource

STREAM = migration.stream(migration.configuration("pc"))
FD = ("ram0", 0, 9)
LZOP = b"\x89LZO\x00\r\n\x1a\n\x10\x40\x20\xa0"
SKIPPABLE = b"\x5a\x2a\x4d\x18" + struct.pack("<I", 3) + b"abc"

KINDS = [
    (STREAM, FileKind.MIGRATION),
    (save_image(STREAM), FileKind.LIBVIRT_SAVE),
    (save_image(STREAM, partial=True), FileKind.LIBVIRT_SAVE),
    (image(), FileKind.QCOW2),
    (qcpr(FD), FileKind.QCPR),
    (qcpr(), FileKind.QCPR),
    (old_state(FD), FileKind.OLD_CPR),
    (old_state(memfds=[("pc.ram", 0, 1, 2, 3)], mode=0), FileKind.OLD_CPR),
    (gzip.compress(STREAM, mtime=0), FileKind.GZIP),
    (bz2.compress(STREAM), FileKind.BZIP2),
    (bz2.compress(b""), FileKind.BZIP2),
    (lzma.compress(STREAM), FileKind.XZ),
    (lzma.compress(STREAM, lzma.FORMAT_ALONE), FileKind.LZMA),
    (zstandard.ZstdCompressor().compress(STREAM), FileKind.ZSTD),
    (SKIPPABLE + zstandard.ZstdCompressor().compress(STREAM), FileKind.ZSTD),
    (lz4.frame.compress(STREAM), FileKind.LZ4),
    (SKIPPABLE * 2 + lz4.frame.compress(STREAM), FileKind.LZ4),
    (LZOP, FileKind.LZOP),
]


@pytest.mark.parametrize(("data", "kind"), KINDS)
def test_each_kind_is_told(data: bytes, kind: FileKind) -> None:
    assert detect(BytesSource(data)) is kind


@pytest.mark.parametrize(("data", "kind"), KINDS)
def test_a_kind_is_told_behind_other_data(data: bytes, kind: FileKind) -> None:
    assert detect(BytesSource(b"QEVM" + bytes(96) + data), 100) is kind


def test_the_compressions_are_named() -> None:
    assert FileKind.XZ in COMPRESSIONS
    assert FileKind.QCOW2 not in COMPRESSIONS


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no data"),
        (b"\x7fELF\x02\x01\x01" + bytes(9), "an ELF file"),
        (b"MZ\x90\0", "a PE file"),
        (b'{"page_size": 4096}', "JSON"),
        (b"<?xml version='1.0'?>", "XML"),
        (b"<domain type='kvm'>", "libvirt domain"),
        (bytes(9000), "zeros"),
        (b"#!/bin/sh\n", "a script"),
        (b"hello world\n", "text: 'hello world\\n'"),
        (b"KDMV" + bytes(4), "VMDK"),
        (bytes(510) + b"\x55\xaa" + b"\1" * 100, "boot sector"),
        (b"x" * 257 + b"ustar\x0000" + bytes(249), "tar"),
        (b"\x02\x21\x4c\x18" + bytes(9), "lz4 -d"),
        (b"\xfe\xed\xfa\xce\x01", "unknown bytes fe ed fa ce 01"),
        (b"\x00\x00\x00\x01\x01\x00\x00\x00\x04abcd", "unknown bytes"),  # no NUL
        (b"\x00\x00\x00\x01\x01\x00\x00\x00\x05ab\x01d\0", "unknown bytes"),
        (b"\x00\x00\x00\x01\x01\x00\x00\xff\xff" + bytes(90), "unknown bytes"),
        (b"\x00\x00\x01\x00" + old_state(FD)[4:], "unknown bytes"),  # no such mode
        (b"\x00\x00\x00\x01\x00\x00", "unknown bytes"),  # two empty lists tell nothing
        (b"BZh9something", "text"),
    ],
)
def test_what_is_none_of_ours_is_described(data: bytes, words: str) -> None:
    with pytest.raises(WrongFormat) as caught:
        detect(BytesSource(data))
    assert words in str(caught.value)
    assert caught.value.offset == 0


def test_a_multifd_channel_is_known() -> None:
    data = bytes.fromhex("11223344 00000001") + bytes(600)
    assert detect(BytesSource(data)) is FileKind.MULTIFD


@pytest.mark.parametrize("data", [b"QEV", b"LibvirtQemudSav", b"\x1f", b"\xfd7zXZ", b"Q"])
def test_a_cut_magic_is_cut(data: bytes) -> None:
    with pytest.raises(Truncated, match="magic is cut"):
        detect(BytesSource(data))


@given(st.binary(max_size=300))
def test_any_bytes_give_a_kind_or_a_typed_error(data: bytes) -> None:
    try:
        kind = detect(BytesSource(data))
    except FormatError as error:
        place = error.offset
    else:
        assert kind in FileKind
        return
    assert place == 0
