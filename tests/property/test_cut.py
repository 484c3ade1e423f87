"""Each fixture cut at every byte of its structure ends in our error, and keeps what came before.

A cut inside a value is as good as one at the byte beside it, so a stream is
cut at the ends of leaves, one byte beside them, and at every byte of the heads
of sections and records; never inside page data. Small streams, among them one
made of each kind of device section, are cut at all these places; large ones at
a sample of them that is the same each time.
"""

from __future__ import annotations

import lzma
import random
from collections.abc import Iterator
from functools import cache

import pytest
from fuzzing import bases, exercise

from checks import assert_tiles, entries, fixture_names, fixture_path, watchdog
from cprformats.errors import FormatError
from cprformats.fields import Kind, leaves
from cprformats.migration import Located, MigrationStream, read_stream
from cprformats.source import BytesSource

HEADS = {Kind.HEADER, Kind.CONFIGURATION, Kind.SECTION_HEAD, Kind.FOOTER, Kind.COMMAND}
HEADS |= {Kind.SUBSECTION_HEAD, Kind.EOF}
#: Cuts of one capture in the test; each frames what is left of the stream.
SAMPLE = 3
#: A stream up to this size is cut at every place.
SMALL = 4_000
STREAMS = [x for x in fixture_names("migration") if x.endswith(".sav.xz") and x[:8] != "wrapped/"]
FILES = [x for x in fixture_names() if entries()[x]["bytes"] < SMALL and "xz" not in x]


@cache
def small_streams() -> dict[str, bytes]:
    found = bases(every=25)
    return {name: x for name, x in found.items() if x[:4] == b"QEVM" and len(x) <= SMALL}


def places(stream: MigrationStream) -> Iterator[int]:
    """Every place of the structure, in order; some more than once."""
    for tree in stream.walk():
        for leaf in leaves(tree):
            if leaf.kind in HEADS:
                yield from range(leaf.offset, leaf.end)
            elif leaf.kind is not Kind.PAGE:
                yield from (leaf.offset + 1, leaf.end - 1)
            yield leaf.end


def head_places(stream: MigrationStream) -> Iterator[int]:
    """Places beside the ends of sections, without decoding them."""
    for section in stream.sections():
        yield from (section.offset + 3, section.body_offset + 1, section.body_end, section.end - 1)


def check(data: bytes, size: int, whole: MigrationStream, *, walk: bool) -> None:
    """Cut, read, and compare with the whole."""
    with watchdog(5):
        try:
            found = read_stream(BytesSource(data[:size]))
        except FormatError:
            assert size < 8
            return
        if walk:
            assert assert_tiles(found.walk()) <= size
    if found.error is not None:
        assert found.error.offset <= size, str(found.error)
    ends = [x.end for x in whole.sections() if x.end <= size]
    got = [x.end for x in found.sections() if x.located is not Located.REST]
    if found.footers and found.page_size == whole.page_size:  # which the vmdesc may tell
        # What is whole is there, and at most the one more that the cut went through.
        assert got[: len(ends)] == ends
        assert len(got) <= len(ends) + (found.error is not None)


@pytest.mark.parametrize("name", STREAMS)
def test_a_capture_cut_at_some_places(name: str) -> None:
    data = lzma.decompress(fixture_path(name).read_bytes())
    whole = read_stream(BytesSource(data))
    cuts = sorted(set(head_places(whole)))
    count = SAMPLE if len(cuts) < 10_000 else 1
    for size in random.Random(name).sample(cuts, min(count, len(cuts))):
        check(data, size, whole, walk=False)


def test_small_streams_cut_at_every_place() -> None:
    count = 0
    for data in small_streams().values():
        whole = read_stream(BytesSource(data))
        for size in sorted({*range(8), *places(whole)} - {len(data)}):
            check(data, size, whole, walk=True)
            count += 1
    assert count > 1500


@pytest.mark.parametrize("name", FILES)
def test_a_small_file_cut_at_every_byte(name: str) -> None:
    data = fixture_path(name).read_bytes()
    for size in range(len(data)):
        with watchdog(5):
            assert exercise(data[:size], report=False) in ("good", "damaged", "refused")
