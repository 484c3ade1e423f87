"""Contents of multifd packets in every compression: alone, one after the other, and damaged."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Sequence

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.memory import METHODS, QATZIP, QPL, UADK, ZLIB, ZSTD, Packer, pattern
from cprformats.memory.packets import Unpacker

PAGE = 4096
MIB = 1 << 20
COMPRESSED = [name for name in METHODS if name != "none"]
STREAMED = ["zlib", "zstd"]


def text(seed: int, size: int = PAGE) -> bytes:
    """Contents that compress, and differ."""
    return (b"page %d of a guest. " % seed * size)[:size]


def unpack(unpacker: Unpacker, flags: int, contents: bytes, count: int, size: int = PAGE) -> bytes:
    return bytes(unpacker.pages(flags, memoryview(contents), count, size)[0])


def refused(flags: int, contents: bytes, count: int = 1, unpacker: Unpacker | None = None) -> str:
    with pytest.raises(ValueError, match=r"expected|[Ee]rror") as caught:
        (unpacker or Unpacker()).pages(flags, memoryview(contents), count, PAGE)
    return str(caught.value)


pages = st.integers(0, 20).map(lambda n: bytes(PAGE) if n == 0 else text(n))
pages |= st.integers(0, 20).map(pattern)


@pytest.mark.parametrize("method", METHODS)
@settings(derandomize=True, max_examples=30)
@given(packets=st.lists(st.lists(pages, max_size=5), max_size=6))
def test_packets_one_after_the_other(method: str, packets: Sequence[Sequence[bytes]]) -> None:
    packer, unpacker = Packer(method), Unpacker()
    for sent in packets:
        flags = packer.flag if sent else 0
        contents = packer.pack(sent) if sent else b""
        assert unpack(unpacker, flags, contents, len(sent)) == b"".join(sent)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [256, 1024, 16384, 65536])
def test_each_page_size(method: str, size: int) -> None:
    packer, sent = Packer(method), [text(1, size), pattern(1, size), bytes(size)]
    assert unpack(Unpacker(), packer.flag, packer.pack(sent), 3, size) == b"".join(sent)


@pytest.mark.parametrize("method", METHODS)
def test_only_plain_pages_are_the_files_own_bytes(method: str) -> None:
    packer = Packer(method)
    packed = memoryview(packer.pack([text(1)]))
    assert Unpacker().pages(packer.flag, packed, 1, PAGE)[1] is (method == "none")


@pytest.mark.parametrize("flag", [0, *METHODS.values(), 1])
def test_no_pages_take_no_contents(flag: int) -> None:
    """Up to 8.2 such packets name no compression, and up to 7.2 a size that is not theirs."""
    assert unpack(Unpacker(), flag, b"", 0) == b""


@pytest.mark.parametrize("method", STREAMED)
def test_a_packet_is_nothing_without_those_before(method: str) -> None:
    packer = Packer(method)
    packer.pack([text(1)])
    assert method in refused(packer.flag, packer.pack([text(2)]))


@pytest.mark.parametrize("method", STREAMED)
def test_a_full_packet_of_pages_that_do_not_compress(method: str) -> None:
    packer, unpacker = Packer(method), Unpacker()
    for turn in range(2):
        sent = [pattern(turn * 128 + n) for n in range(128)]
        assert unpack(unpacker, packer.flag, packer.pack(sent), 128) == b"".join(sent)


# -- damage -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, PAGE - 1, PAGE + 1])
def test_plain_pages_of_another_size(size: int) -> None:
    assert refused(0, bytes(size)) == f"contents: expected {PAGE} bytes, found {size}"


@pytest.mark.parametrize("method", STREAMED)
def test_fewer_pages_than_the_packet_says(method: str) -> None:
    packer = Packer(method)
    assert refused(packer.flag, packer.pack([text(1)]), 2).startswith(f"{method}: expected ")


@pytest.mark.parametrize("method", STREAMED)
def test_more_pages_than_the_packet_says(method: str) -> None:
    """What is left over would come as the first pages of the next packet."""
    packer = Packer(method)
    assert "found more" in refused(packer.flag, packer.pack([text(1), text(2)]), 1)


@pytest.mark.parametrize("method", STREAMED)
def test_a_few_bytes_more_than_the_packet_says(method: str) -> None:
    packer = Packer(method)
    assert "found more" in refused(packer.flag, packer.pack([text(1), b"x"]), 1)


@pytest.mark.parametrize("method", COMPRESSED)
def test_garbage(method: str) -> None:
    assert refused(METHODS[method], b"\x55" * 100)
    assert refused(METHODS[method], b"")


@pytest.mark.parametrize("method", COMPRESSED)
@pytest.mark.parametrize("left", [0, 1, 10, 200])
def test_contents_that_are_cut(method: str, left: int) -> None:
    packer = Packer(method)
    packed = packer.pack([pattern(1), text(2)])
    assert refused(packer.flag, packed[:left], 2)


def test_pages_behind_the_end_of_a_zlib_stream() -> None:
    """A channel never ends its stream; a file that does has nothing more to give."""
    unpacker, whole = Unpacker(), zlib.compress(text(1))
    assert unpack(unpacker, ZLIB, whole, 1) == text(1)
    assert refused(ZLIB, whole, 1, unpacker) == f"zlib: expected {PAGE} bytes of pages, found 0"


@pytest.mark.parametrize("flag", [ZLIB, ZSTD])
def test_a_bomb_takes_no_more_memory_than_the_packet_says(flag: int) -> None:
    bomb = zlib.compress(bytes(64 * MIB), 9)
    if flag == ZSTD:
        bomb = zstandard.compress(bytes(64 * MIB))
    assert peak(flag, bomb, 1) < 2 * MIB


@pytest.mark.parametrize(("flag", "wbits"), [(QPL, -15), (UADK, 15)])
def test_a_bomb_of_one_page(flag: int, wbits: int) -> None:
    packer = zlib.compressobj(9, wbits=wbits)
    page = packer.compress(bytes(64 * MIB)) + packer.flush()
    assert peak(flag, len(page).to_bytes(4) + page, 1) < 2 * MIB


def peak(flag: int, contents: bytes, count: int) -> int:
    tracemalloc.start()
    try:
        assert "found more" in refused(flag, contents, count)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("flag", [QPL, UADK])
def test_lengths_that_do_not_fit_the_contents(flag: int) -> None:
    packed = Packer("qpl" if flag == QPL else "uadk").pack([text(1), text(2)])
    said = "contents: expected "
    assert refused(flag, packed + b"x", 2).startswith(said)
    assert refused(flag, b"\xff\xff\xff\xff" + packed[4:], 2).startswith(said)
    assert refused(flag, packed[:6], 2).startswith(said)


@pytest.mark.parametrize("flag", [QPL, UADK])
@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE + 1])
def test_a_compressed_page_of_another_size(flag: int, size: int) -> None:
    packed = Packer("qpl" if flag == QPL else "uadk").pack([bytes(size)])
    found = "more" if size > PAGE else str(size)
    said = refused(flag, packed)
    assert said == f"page: expected {PAGE} bytes, found {found}" or size in (0, 1)


@pytest.mark.parametrize("flags", [QATZIP, ZLIB | ZSTD, QPL | UADK])
def test_a_method_that_is_not_read(flags: int) -> None:
    with pytest.raises(NotImplementedError) as caught:
        Unpacker().pages(flags, memoryview(b"x"), 1, PAGE)
    assert f"{flags:#x}" in str(caught.value)
