"""Sources: the same bytes from memory, from a file, and from what flows only once."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks import assert_error
from cprformats.errors import NotKept
from cprformats.source import BytesSource, FileSource, Source, SpoolSource

DATA = bytes(range(256)) * 40
MIB = 1 << 20


@pytest.fixture(params=["bytes", "file", "spool"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    if request.param == "bytes":
        yield BytesSource(DATA)
    elif request.param == "spool":
        yield SpoolSource(io.BytesIO(DATA).read)
    else:
        (tmp_path / "data").write_bytes(DATA)
        with (tmp_path / "data").open("rb") as file:
            yield FileSource(file)


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, 0), (0, 10), (5000, 300), (len(DATA) - 3, 10), (len(DATA), 1), (1 << 70, 5), (3, -1)],
)
def test_read_at_gives_what_is_there(source: Source, offset: int, count: int) -> None:
    assert source.read_at(offset, count) == DATA[offset : offset + max(count, 0)]


def test_size_is_found(source: Source) -> None:
    assert source.size() == len(DATA)
    assert source.known_size == len(DATA)


def test_drop_of_nothing_changes_nothing(source: Source) -> None:
    source.drop(0, 0)
    assert source.read_at(0, 4) == DATA[:4]


def test_bytes_with_a_base_lie_behind_it() -> None:
    source = BytesSource(b"abcdef", base=100)
    assert source.size() == source.known_size == 106
    assert source.read_at(102, 3) == b"cde"
    assert source.read_at(105, 9) == b"f"


def test_bytes_before_the_base_are_not_others() -> None:
    assert BytesSource(b"abcdef", base=100).read_at(98, 4) == b""


def test_a_file_that_shrank_gives_less(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        source = FileSource(file)
        os.truncate(path, 10)
        assert source.read_at(4, 100) == DATA[4:10]


def test_a_spool_knows_its_size_only_at_the_end() -> None:
    source = SpoolSource(io.BytesIO(DATA).read)
    assert source.known_size is None
    source.read_at(0, 10)
    assert source.size() == len(DATA)


def test_a_spool_takes_short_reads() -> None:
    """A pipe gives what it has, not what was asked for."""
    file = io.BytesIO(DATA)
    source = SpoolSource(lambda count: file.read(min(count, 7)))
    assert source.read_at(100, 50) == DATA[100:150]
    assert source.read_at(0, 20) == DATA[:20]


def _large() -> Iterator[bytes]:
    for number in range(32):
        yield bytes([number]) * MIB


def test_a_spool_reads_back_from_its_file() -> None:
    pieces = _large()
    source = SpoolSource(lambda _: next(pieces, b""))
    assert source.size() == 32 * MIB
    for number in (0, 5, 21, 22, 23, 31):
        assert source.read_at(number * MIB - 1 if number else 0, 3)[-1] == number
    assert source.read_at(MIB - 2, 4) == b"\0\0\1\1"
    # Across what went to the file and what is still held.
    assert source.read_at(0, 32 * MIB) == b"".join(_large())


def test_what_was_dropped_and_flushed_is_said() -> None:
    pieces = _large()
    source = SpoolSource(lambda _: next(pieces, b""))
    source.read_at(0, MIB)
    source.drop(100, MIB)
    source.size()
    assert source.read_at(0, 100) == bytes(100)
    with pytest.raises(NotKept) as caught:
        source.read_at(90, 20)
    assert_error(caught.value, NotKept, 100, (), "not kept")
    assert source.read_at(100 + MIB, 1) == b"\1"


def test_what_was_dropped_and_is_held_can_be_read() -> None:
    source = SpoolSource(io.BytesIO(DATA).read)
    source.read_at(0, len(DATA))
    source.drop(0, len(DATA))
    assert source.read_at(0, len(DATA)) == DATA


def test_with_keep_all_nothing_is_dropped() -> None:
    pieces = _large()
    source = SpoolSource(lambda _: next(pieces, b""), keep_all=True)
    source.drop(0, 30 * MIB)
    source.size()
    assert source.read_at(2 * MIB, 4) == b"\2\2\2\2"


def test_drops_in_any_order_keep_the_rest() -> None:
    pieces = _large()
    source = SpoolSource(lambda _: next(pieces, b""))
    source.read_at(0, 4 * MIB)
    source.drop(3 * MIB, MIB)
    source.drop(MIB, MIB)
    source.size()
    assert source.read_at(0, 1) == b"\0"
    assert source.read_at(2 * MIB, 4) == b"\2\2\2\2"
    assert source.read_at(4 * MIB, 4) == b"\4\4\4\4"
    for gone in (MIB + 5, 3 * MIB + 5):
        with pytest.raises(NotKept):
            source.read_at(gone, 4)


def test_many_drops_of_neighbours_are_one() -> None:
    pieces = _large()
    source = SpoolSource(lambda _: next(pieces, b""))
    for number in range(20_000):
        source.drop(number * 100, 100)
    assert len(source._dropped) == 1


_SPOOLING = """
import pathlib, re, sys
from cprformats.source import SpoolSource
source = SpoolSource(lambda count: sys.stdin.buffer.read(count))
position = 0
while source.read_at(position, 1 << 20):
    source.drop(position, 1 << 20)
    position += 1 << 20
# Not ru_maxrss: that counts what the process was before exec.
print(position, re.search("VmHWM:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
"""


def test_a_long_pipe_takes_bounded_memory() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SPOOLING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for _ in range(256):
            child.stdin.write(bytes(MIB))
        child.stdin.close()
        seen, kib = map(int, child.stdout.read().split())
    assert seen == 256 * MIB
    assert kib < 100 << 10
