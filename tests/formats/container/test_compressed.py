"""Compressed layers: every compression, streams in a row, damage, bounded memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import sys
import zlib
from collections.abc import Callable

import lz4.frame
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from checks import assert_whole
from cprformats.container import Compressed, read_compressed
from cprformats.detect import FileKind, detect
from cprformats.errors import Damaged, FormatError, NotKept, Truncated, Unsupported
from cprformats.fields import Kind
from cprformats.source import BytesSource, SpoolSource

RANDOM = random.Random(4)
TEXT = RANDOM.randbytes(3000) + bytes(200_000) + b"state" * 1000
PACKERS: dict[FileKind, Callable[[bytes], bytes]] = {
    FileKind.GZIP: gzip.compress,
    FileKind.BZIP2: bz2.compress,
    FileKind.XZ: lzma.compress,
    FileKind.LZMA: lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    FileKind.ZSTD: lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    FileKind.LZ4: lambda data: lz4.frame.compress(data, content_checksum=True),
}
STREAMS = [kind for kind in PACKERS if kind is not FileKind.LZMA]
SKIPPABLE = b"\x5a\x2a\x4d\x18" + struct.pack("<I", 3) + b"abc"


def unpack(data: bytes, kind: FileKind | None = None) -> tuple[Compressed, bytes]:
    source = BytesSource(data)
    found = read_compressed(kind or detect(source), source)
    return found, found.inner.read_at(0, found.inner.size())


@pytest.mark.parametrize("kind", PACKERS)
def test_each_compression(kind: FileKind) -> None:
    data = PACKERS[kind](TEXT)
    found, text = unpack(data)
    assert found.kind is kind
    assert text == TEXT
    assert found.error is None
    assert found.warnings == ()
    assert found.consumed == len(data)
    assert_whole(found, data)
    assert found.tally().by_kind == {Kind.CONTAINER: len(data)}


@pytest.mark.parametrize("kind", STREAMS)
def test_streams_in_a_row_and_padding(kind: FileKind) -> None:
    pack = PACKERS[kind]
    found, text = unpack(pack(TEXT[:100]) + pack(b"") + pack(TEXT[100:]) + bytes(512))
    assert found.error is None
    assert found.warnings == ()
    assert text == TEXT


@pytest.mark.parametrize("kind", PACKERS)
def test_other_bytes_behind(kind: FileKind) -> None:
    packed = PACKERS[kind](TEXT)
    data = packed + b"\0\0others"
    found, text = unpack(data)
    assert text == TEXT
    assert found.error is None
    assert found.warnings == (f"8 bytes behind the {kind} data, at {len(packed):#x}",)
    assert found.tally().unknown == 8
    assert_whole(found, data)


@pytest.mark.parametrize("kind", PACKERS)
def test_cut_data_gives_what_there_is(kind: FileKind) -> None:
    packed = PACKERS[kind](RANDOM.randbytes(50_000))
    for size in (len(packed) // 2, len(packed) - 1):
        found, text = unpack(packed[:size], kind)
        assert isinstance(found.error, Truncated), found.error
        assert found.error.offset <= size
        assert len(text) <= 50_000
        assert_whole(found, packed[:size])


@pytest.mark.parametrize("kind", [FileKind.GZIP, FileKind.BZIP2, FileKind.XZ, FileKind.ZSTD])
def test_a_small_file_cut_at_every_byte(kind: FileKind) -> None:
    packed = PACKERS[kind](b"state" * 30)
    for size in range(6, len(packed)):
        found, text = unpack(packed[:size], kind)
        assert isinstance(found.error, Truncated), size
        assert (b"state" * 30).startswith(text)


@pytest.mark.parametrize("kind", STREAMS)
def test_a_wrong_checksum(kind: FileKind) -> None:
    packed = bytearray(PACKERS[kind](RANDOM.randbytes(60_000)))
    packed[len(packed) // 2] ^= 0x10
    found, _ = unpack(bytes(packed))
    assert isinstance(found.error, Damaged)
    assert found.error.offset <= len(packed)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(PACKERS)), st.integers(0, 10**6), st.integers(1, 255))
def test_flipped_bits(kind: FileKind, place: int, mask: int) -> None:
    packed = bytearray(PACKERS[kind](b"some state" * 40 + bytes(range(256))))
    packed[place % len(packed)] ^= mask
    found, _ = unpack(bytes(packed), kind)
    assert found.error is None or isinstance(found.error, FormatError)
    assert_whole(found, bytes(packed))


@pytest.mark.parametrize("kind", [FileKind.ZSTD, FileKind.LZ4])
def test_skippable_frames(kind: FileKind) -> None:
    pack = PACKERS[kind]
    found, text = unpack(SKIPPABLE * 2 + pack(b"ab") + SKIPPABLE + pack(b"cd") + SKIPPABLE)
    assert found.kind is kind
    assert text == b"abcd"
    assert found.error is None
    found, _ = unpack(SKIPPABLE[:-1], kind)
    assert isinstance(found.error, Truncated)


# -- zstd's own outline ----------------------------------------------------------


def test_zstd_damage_has_its_blocks_offset() -> None:
    packed = bytearray(PACKERS[FileKind.ZSTD](RANDOM.randbytes(300_000)))
    first = 4 + 1 + 4  # single segment: descriptor and a size of four bytes
    head = int.from_bytes(packed[first : first + 3], "little")
    second = first + 3 + (head >> 3)
    packed[second] |= 0b110  # a type of block that there is not
    found, text = unpack(bytes(packed))
    assert isinstance(found.error, Damaged)
    assert found.error.offset == second
    assert len(text) == 1 << 17


def test_zstd_with_a_dictionary() -> None:
    sample = [RANDOM.randbytes(20) * 10 for _ in range(50)]
    dictionary = zstandard.train_dictionary(1024, sample)
    packed = zstandard.ZstdCompressor(dict_data=dictionary).compress(b"state")
    found, text = unpack(packed)
    assert isinstance(found.error, Unsupported)
    assert str(dictionary.dict_id()) in str(found.error)
    assert text == b""


def test_zstd_with_a_huge_window() -> None:
    # A window of 2 GiB, and one empty last block.
    found, _ = unpack(b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00")
    assert isinstance(found.error, Unsupported)
    assert "128 MiB" in str(found.error)


def test_xz_with_a_huge_dictionary() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 16}]
    packed = bytearray(lzma.compress(b"state", filters=filters))
    place = packed.index(b"\x21\x01") + 2
    packed[place] = 37  # 1 GiB
    head = packed[12 : 12 + (packed[12] + 1) * 4 - 4]
    packed[12 + len(head) : 16 + len(head)] = struct.pack("<I", zlib.crc32(head))
    found, _ = unpack(bytes(packed))
    assert isinstance(found.error, Unsupported)
    assert "memory" in str(found.error)


def test_lz4_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = lz4.frame.compress(TEXT)
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    found, text = unpack(packed)
    assert isinstance(found.error, Unsupported)
    assert "cprtools[lz4]" in str(found.error)
    assert text == b""


# -- data inside, more than once --------------------------------------------------


def _pages(count: int) -> bytes:
    return b"".join(struct.pack(">Q", n) * 512 for n in range(count))


def test_dropped_data_is_made_again() -> None:
    text = _pages(10_000)  # 40 MB: more than is held
    found = read_compressed(FileKind.ZSTD, BytesSource(PACKERS[FileKind.ZSTD](text)))
    inner = found.inner
    inner.drop(4096, 30_000_000)
    assert inner.size() == len(text)
    for offset in (100, 5_000, 20_000_000, 25_000_000, 24_000_000, 8_192, 29_999_000):
        assert inner.read_at(offset, 5_000) == text[offset : offset + 5_000]
    assert inner.read_at(len(text) - 3, 10) == text[-3:]
    inner.close()


def test_a_second_run_keeps_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cprformats.container.replay._BACK_BYTES", 1 << 20)
    text = _pages(6_000)
    found = read_compressed(FileKind.ZSTD, BytesSource(PACKERS[FileKind.ZSTD](text)))
    inner = found.inner
    inner.drop(0, len(text))
    assert inner.size() == len(text)
    for offset in (9_000_000, 8_500_000, 0, 12_000_000, 11_500_000, 3_000_000):
        assert inner.read_at(offset, 9_000) == text[offset : offset + 9_000]


def test_dropped_data_of_a_pipe_is_gone() -> None:
    text = _pages(6_000)
    pipe = SpoolSource(io.BytesIO(PACKERS[FileKind.GZIP](text)).read)
    found = read_compressed(FileKind.GZIP, pipe)
    found.inner.drop(4096, 10_000_000)
    assert found.inner.size() == len(text)
    with pytest.raises(NotKept):
        found.inner.read_at(5_000, 10)
    assert found.inner.read_at(0, 100) == text[:100]


def test_dropped_data_of_a_pipe_can_be_kept() -> None:
    text = _pages(6_000)
    packed = PACKERS[FileKind.GZIP](text)
    pipe = SpoolSource(io.BytesIO(packed).read, keep_all=True)
    found = read_compressed(FileKind.GZIP, pipe, keep_all=True)
    found.inner.drop(4096, 10_000_000)
    assert found.inner.read_at(0, len(text)) == text
    assert_whole(found, packed)


def test_a_bomb_is_read_piece_by_piece() -> None:
    packed = gzip.compress(bytes(60_000_000), mtime=0)
    found = read_compressed(FileKind.GZIP, BytesSource(packed))
    assert found.inner.read_at(0, 10) == bytes(10)
    assert found.consumed < len(packed)
    assert found.inner.known_size is None
    assert found.inner.size() == 60_000_000
    assert found.inner.read_at(59_999_990, 100) == bytes(10)
    assert found.inner.read_at(1_000_000, 10) == bytes(10)
