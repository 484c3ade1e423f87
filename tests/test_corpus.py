"""Every fixture: opened whole, counted whole, written again byte for byte."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import pytest

import cprtools
import manifest
from checks import assert_tiles, entries, fixture_names, fixture_path
from cprformats.encode import encode
from cprformats.fields import Field, Kind, leaves
from cprformats.migration import MigrationStream
from cprtools.statefile import Layer

#: What the innermost layer of each kind of the manifest is called.
KINDS = {"xen": "migration"}
NAMES = fixture_names()
CUT = fixture_names(None, "cut")
WHOLE = [name for name in NAMES if name not in CUT]
#: Of the bytes of all device sections that have a description.
MOST_RAW = 0.02


@dataclass
class Survey:
    """What was found in one fixture.

    Attributes:
        section_bytes: bodies of device sections, if the stream has a vmdesc.
        raw: bytes kept raw of these, by section and type.
    """

    layers: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    section_bytes: int = 0
    raw: Counter[tuple[str, str]] = field(default_factory=Counter)


@cache
def survey(name: str) -> Survey:
    """Open a fixture and check each of its layers; cached, as it takes a while."""
    found = Survey()
    data: bytes | None = fixture_path(name).read_bytes()
    with cprtools.open(fixture_path(name), keep_all=True) as state:
        for layer in state.layers:
            found.layers.append(layer.kind)
            _check_layer(layer, data, found)
            data = _unpacked(layer.kind, data) if data is not None else None
    return found


def _unpacked(kind: str, data: bytes) -> bytes | None:
    """Unpack with the standard library, where it can: what we unpacked is compared with that."""
    if kind == "xz":
        return _unpacked_xz(data)
    if kind == "gzip":
        return gzip.decompress(data)
    return bz2.decompress(data) if kind == "bzip2" else None


def _unpacked_xz(data: bytes) -> bytes:
    """All streams: `lzma.decompress` ends at the padding between them."""
    made = b""
    while data := data.lstrip(b"\0"):
        stream = lzma.LZMADecompressor()
        made += stream.decompress(data)
        data = stream.unused_data
    return made


def _check_layer(layer: Layer, data: bytes | None, found: Survey) -> None:
    content = layer.content
    if content.error is not None:
        found.faults.append(f"{layer.kind}: {content.error}")
    start = getattr(content, "offset", 0)
    if data is None:
        source = content.source  # type: ignore[attr-defined]
        data = source.read_at(0, source.size())
    end = getattr(content, "rest", None) or len(data)
    trees = list(content.walk())
    if assert_tiles(trees, start) != end:
        found.faults.append(f"{layer.kind}: the tree ends before {end:#x}")
    position = start
    for piece in encode(trees):
        if data[position : position + len(piece)] != piece:
            found.faults.append(f"{layer.kind}: encodes to other bytes from {position:#x} on")
            break
        position += len(piece)
    if position != end:
        found.faults.append(f"{layer.kind}: encodes {position - start} of {end - start} bytes")
    counts = content.tally()
    if counts.total != end - start:
        found.faults.append(f"{layer.kind}: counts {counts.total} of {end - start} bytes")
    if counts.unknown:
        found.faults.append(f"{layer.kind}: {counts.unknown} bytes unknown")
    if isinstance(content, MigrationStream) and content.vmdesc is not None:
        _count_raw(content, trees, found)


def _count_raw(stream: MigrationStream, trees: list[Field], found: Survey) -> None:
    names = {x.name: x for x in stream.sections() if x.idstr != "ram"}
    found.section_bytes = sum(x.body_size for x in names.values())
    for tree in trees:
        if tree.name in names:
            found.raw.update(dict(_raw(tree)))


def _raw(tree: Field) -> Iterator[tuple[tuple[str, str], int]]:
    sizes: Counter[tuple[str, str]] = Counter()
    for leaf in leaves(tree):
        if leaf.kind is Kind.RAW:
            sizes[tree.name.rpartition("/")[2], leaf.type] += leaf.size
    yield from sizes.items()


def test_there_are_fixtures_of_every_kind() -> None:
    kinds = {entry["kind"] for entry in entries().values()}
    assert {"migration", "xen", "qcpr", "cpr-2022", "libvirt-save", "qcow2"} <= kinds


@pytest.mark.parametrize("name", WHOLE)
def test_a_fixture_is_read_whole(name: str) -> None:
    found = survey(name)
    kind = entries()[name]["kind"]
    wanted = KINDS.get(kind, kind)
    # A libvirt or qcow2 file holds a stream in turn, unless it has no state.
    assert wanted in found.layers, found.layers
    assert found.faults == []


@pytest.mark.parametrize("name", CUT)
def test_a_damaged_fixture_is_read_up_to_the_damage(name: str) -> None:
    with cprtools.open(fixture_path(name)) as state:
        assert state.error is not None
        assert sum(x.content.tally().unknown for x in state.layers) == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_knows_the_file(name: str) -> None:
    import hashlib

    data = fixture_path(name).read_bytes()
    entry = entries()[name]
    assert entry["bytes"] == len(data)
    assert entry["sha256"] == hashlib.sha256(data).hexdigest()


def test_every_file_is_in_the_manifest() -> None:
    # truth/ has a table of its own, see test_truth.py.
    outside = {"recipes", "truth", "manifest.json", ".manifest.lock"}
    paths = {
        path.relative_to(manifest.FIXTURES).as_posix()
        for path in manifest.FIXTURES.rglob("*")
        if path.is_file()
    }
    assert {p for p in paths if p.split("/")[0] not in outside and p != "README.md"} == set(NAMES)


def test_little_of_the_device_sections_is_kept_raw() -> None:
    raw: Counter[tuple[str, str]] = Counter()
    total = 0
    for name in WHOLE:
        found = survey(name)
        raw += found.raw
        total += found.section_bytes
    share = sum(raw.values()) / total
    shown = "\n".join(f"{size:9} {idstr}: {what}" for (idstr, what), size in raw.most_common())
    assert share < MOST_RAW, f"{sum(raw.values())} of {total} bytes ({share:.2%}) are raw:\n{shown}"
