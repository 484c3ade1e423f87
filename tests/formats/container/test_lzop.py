"""lzop files, and the LZO1X blocks in them."""

from __future__ import annotations

import base64
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks import assert_whole
from cprformats.container import Compressed, read_compressed
from cprformats.container.lzo1x import LzoError, lzo1x_decompress
from cprformats.detect import FileKind, detect
from cprformats.errors import Damaged, FormatError, Truncated, Unsupported
from cprformats.source import BytesSource

#: What lzop 1.04 (-9 -n) makes of the bytes that `text` gives.
REAL = base64.b64decode(
    """
iUxaTwANChoKEEAgoAlAAwkDAAABAACBpDpPyIAAAAAAAmx6QicFSAAAsfUAAAKoqfYGOTzGfoFrS/vi+1T2vd98HOGH
Ab8x3lZyD0dnZodZqog8WepWE3vShaHYYWJjNgkAACAAAAAAAAAA5gAAIAAAAAAAAADmAAAgAAAAAAAAAOYAACAAAAAA
AAAA5gAAIAAAAAkAADKojQuMIf9y7dcY2U4TlRPcGyAAAAAAAAAA5iiNIAAAAAAAAADmAAAgAAAAAAAAAOYAACAAAAAA
AAAA5gAAIAAAAAAAAADmAAAgAAAAAAAAAOYAACAAAAAAAAAA5gAAIAAAAAAAAADmAAAgAAAAAAAAAOYAACAAAAAAAAAG
AAAQEKbGeHkReTl6TAAAABxrU8N9eI60TbdIL21GPRnlcCRMu6DjWPx4dPqMsZVcr7UyElP+k9EjLEXtTOnJmQ19/9wB
MFFVLGOgsMdt7uTMNtAyQJaR3UNrJqrYfNYWdRGmWkpOhh9RUzwBGhYUxlT7RFsaOCGSA+sEnej4+kpzpC/8bfMYbcTB
YiVdo525n3uoxLvd26e9JfcAVFTO62GvsvtCFp/32yUoVGgMInYGLxKn+nxX08iQFwn1ieqylqlJj6GwtXTw9qfGFEo6
tt+NmjqwDizQfKV78qGO5VhrCwrwYrjwnlms9rM4VH8vhBBat7OK81Qy2zvxMlxZkzZMDVZeJugrccAuU6sjhppMLmhU
3elDGUCqcUB/6tscUeRs+WvzN9SNqWfeSK7qr49f3UoFIrbVAIszFWAwIAAAAAAAAADmOCUgAAAAAAAAAOYAACAAAAAA
AAAA5gAAIAAAAAAAAADmAAAgAAAAAAAAAOYAACAAAAAAAAAA5gAAIAAAAAAAAADmAAAgAAAAAAAAZQAAGB/1xRkgBgIA
YWJNBnF4BgAM3wl4hdFsuHM8aB2s/RXpWUbZRGJvPeqpgI2SCX8xEQAAAAAAAA==
"""
)
END = b"\x11\0\0"


def noise(size: int, seed: int) -> bytes:
    out = bytearray()
    while len(out) < size:
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        out.append(seed >> 16 & 255)
    return bytes(out)


def text() -> bytes:
    """Repetitions of all lengths and distances that LZO1X has its own forms for."""
    s = noise(40, 1)
    near = s + b"abcabcabc" * 3 + bytes(9000) + s[:20] + noise(15, 2) + bytes(20000)
    short = s[5:30] + b"xy" + s[:3] + b"z" + s[:4] + noise(300, 3)
    far = bytes(16000) + s + noise(1, 4) * 40 + b"ab" + s[30:33] + b"q" + s[31:35]
    return near + short + far + noise(30, 5)


def lzop(*blocks: bytes, flags: int = 1, version: int = 0x1040, method: int = 3) -> bytes:
    """A file of blocks that are given with their heads."""
    head = version.to_bytes(2) + b"\x20\xa0"
    if version >= 0x940:
        head += b"\x09\x40" + bytes([method, 9])
    else:
        head += bytes([method])
    head += flags.to_bytes(4) + bytes(12 if version >= 0x940 else 8) + b"\4name"
    sum_of = zlib.crc32 if flags & 0x1000 else zlib.adler32
    extra = b"\0\0\0\5extra" if flags & 0x40 else b""
    extra += sum_of(extra).to_bytes(4) if extra else b""
    check = sum_of(head)
    return b"\x89LZO\x00\r\n\x1a\n" + head + check.to_bytes(4) + extra + b"".join(blocks) + bytes(4)


def block(packed: bytes, size: int, *sums: int) -> bytes:
    words = (size, len(packed), *sums)
    return b"".join(word.to_bytes(4) for word in words) + packed


def unpack(data: bytes) -> tuple[Compressed, bytes]:
    source = BytesSource(data)
    found = read_compressed(detect(source), source)
    return found, found.inner.read_at(0, found.inner.size())


def test_a_real_file() -> None:
    found, data = unpack(REAL)
    assert found.kind is FileKind.LZOP
    assert found.error is None
    assert found.warnings == ()
    assert data == text()
    assert_whole(found, REAL)


def test_files_in_a_row_and_padding() -> None:
    found, data = unpack(REAL + REAL + bytes(100))
    assert data == text() * 2
    assert found.error is None
    assert found.warnings == ()


def test_other_bytes_behind() -> None:
    found, data = unpack(REAL + b"more")
    assert data == text()
    assert found.warnings == (f"4 bytes behind the lzop data, at {len(REAL):#x}",)


PLAIN = b"plain text"
PACKED = b"\x1babcdefghij" + END  # ten literals


@pytest.mark.parametrize(
    ("flags", "sums"),
    [
        (0, ()),
        (1, (zlib.adler32(b"abcdefghij"),)),
        (0x100, (zlib.crc32(b"abcdefghij"),)),
        (0x101, (zlib.adler32(b"abcdefghij"), zlib.crc32(b"abcdefghij"))),
        (0x1040, ()),
    ],
)
@pytest.mark.parametrize("version", [0x1040, 0x0900])
def test_versions_and_sums(flags: int, sums: tuple[int, ...], version: int) -> None:
    # Stored as it is: as long packed as unpacked.
    found, data = unpack(lzop(block(b"abcdefghij", 10, *sums), flags=flags, version=version))
    assert found.error is None
    assert data == b"abcdefghij"


def test_sums_of_packed_data() -> None:
    packed = b"\x12A\x20\x15\0\0" + END  # one literal, then 54 bytes of the last one
    whole = b"A" * 55
    sums = [zlib.adler32(whole), zlib.crc32(whole), zlib.adler32(packed), zlib.crc32(packed)]
    found, data = unpack(lzop(block(packed, 55, *sums), flags=0x303))
    assert found.error is None
    assert data == whole
    for number in range(4):
        wrong = [x ^ (n == number) for n, x in enumerate(sums)]
        found, _ = unpack(lzop(block(packed, 55, *wrong), flags=0x303))
        assert isinstance(found.error, Damaged)
        assert "checksum of an lzop block" in str(found.error)


@pytest.mark.parametrize(("flags", "method"), [(1, 128), (0x801, 3)])
def test_what_libvirt_never_writes(flags: int, method: int) -> None:
    found, _ = unpack(lzop(flags=flags, method=method))
    assert isinstance(found.error, Unsupported)


def test_a_wrong_head() -> None:
    data = bytearray(REAL)
    data[20] ^= 1
    assert isinstance(unpack(bytes(data))[0].error, Damaged)


@pytest.mark.parametrize("sizes", [(0x7FFFFFFF, 5), (4, 5), (8, 0)])
def test_sizes_that_no_block_has(sizes: tuple[int, int]) -> None:
    head = b"".join(x.to_bytes(4) for x in sizes)
    found, _ = unpack(lzop(head, flags=0))
    assert isinstance(found.error, Damaged)
    assert "sizes" in str(found.error)


def test_cut_at_every_byte() -> None:
    for size in range(9, len(REAL)):
        found, _ = unpack(REAL[:size])
        assert isinstance(found.error, Truncated), size


@settings(max_examples=60, deadline=None)
@given(st.integers(9, len(REAL) - 1), st.integers(1, 255))
def test_flipped_bits(place: int, mask: int) -> None:
    data = bytearray(REAL)
    data[place] ^= mask
    found, _ = unpack(bytes(data))
    assert found.error is None or isinstance(found.error, FormatError)


# -- blocks -------------------------------------------------------------------------

FAR = bytes(range(200)) * 13  # 2600 bytes


@pytest.mark.parametrize(
    ("packed", "whole"),
    [
        (b"\x1babcdefghij" + END, b"abcdefghij"),
        (b"\x02abcde" + END, b"abcde"),  # a first run of 3 + 2
        (b"\x00\x01" + b"x" * 19 + END, b"x" * 19),  # 3 + 15 + 1
        (b"\x14abc\x04\x00" + END, b"abcbc"),  # two bytes, distance 2, behind three literals
        (b"\x14abc\x45\x00e" + END, b"abc" + b"bcb" + b"e"),
        (b"\x15abcd\x64\0" + END, b"abcd" + b"cdcd"),
        (b"\x15abcd\xe0\0" + END, b"abcd" + b"d" * 8),
        (b"\x15abcd\x21\x04\0" + END, b"abcd" + b"cdc"),
        (b"\x15abcd\x20\x00\x01\x04\0" + END, b"abcd" + b"cd" * 144 + b"c"),
    ],
)
def test_instructions(packed: bytes, whole: bytes) -> None:
    assert lzo1x_decompress(packed, len(whole)) == whole


def test_three_bytes_from_afar_behind_a_run() -> None:
    run = len(FAR)
    zeros, last = divmod(run - 18 - 1, 255)
    packed = b"\0" + bytes(zeros) + bytes([last + 1]) + FAR + b"\x05\x10A" + END
    # Distance 2049 + 0x10 * 4 + 1, then one literal.
    start = run - (2049 + 64 + 1)
    assert lzo1x_decompress(packed, run + 4) == FAR + FAR[start : start + 3] + b"A"


@pytest.mark.parametrize(
    ("packed", "size", "words"),
    [
        (b"\x14abc\x4d\x10e" + END, 7, "distance"),
        (b"\x1babcde" + END, 10, "ends inside a run"),
        (b"\x15abcd\x20\0\0", 4, "ends inside an instruction"),
        (b"\x15abcd", 4, "ends inside an instruction"),
        (b"\x15abcd" + END, 5, "expected 5 bytes, found 4"),
        (b"\x15abcd" + END, 3, "more than the 3 bytes"),
        (b"\x15abcd" + END + b"x", 4, "end mark"),
        (b"\x15abcd\x12\0\0", 4, "end mark"),
        (b"", 1, "ends inside"),
    ],
)
def test_blocks_that_contradict_themselves(packed: bytes, size: int, words: str) -> None:
    with pytest.raises(LzoError, match=words):
        lzo1x_decompress(packed, size)
