"""Sections of real captures, cut and with bytes flipped, read by the schema of their QEMU."""

from __future__ import annotations

import random
from functools import cache

import pytest

import cprtools
from builders import migration as build
from checks import assert_tiles, fixture_path, read, watchdog
from cprformats.encode import encode
from cprformats.migration.byschema.disagree import disagreements
from cprformats.schema.model import Schema

VERSIONS = ("5.2", "7.2", "8.2", "10.0", "11.1")
#: CPU time for all mutations of one capture.
SECONDS = 300
LARGEST = 8000


@cache
def schema(version: str) -> Schema:
    return cprtools.open_schema(f"builtin:{version}")


def sections(version: str) -> list[tuple[str, int, bytes]]:
    """Name, version and body of the sections of a capture without vmdesc."""
    with cprtools.open(fixture_path(f"migration/{version}-q35-no-vmdesc.sav.xz")) as state:
        stream = state.stream
        return [
            (x.idstr, x.version, stream.source.read_at(x.body_offset, x.body_size))
            for x in stream.sections()
            if not x.holds_ram and 0 < x.body_size <= LARGEST
        ]


def check(name: str, version: int, body: bytes, by: Schema) -> None:
    """Read a section; whatever is in it, all its bytes come back."""
    data = build.stream(
        build.configuration("pc-q35"), build.full(3, name, version=version, body=body)
    )
    found = read(data, schema=by)
    for section in found.sections():
        tree, _ = found.decode(section)
        assert_tiles([tree], section.offset)
        assert b"".join(encode([tree])) == data[section.offset : section.end]
    assert len(disagreements(found, by)) <= 1


@pytest.mark.parametrize("version", VERSIONS)
def test_flipped_bytes(version: str) -> None:
    rng = random.Random(version)
    with watchdog(SECONDS):
        for name, number, body in sections(version):
            for _ in range(12):
                changed = bytearray(body)
                for _ in range(rng.choice((1, 1, 4))):
                    changed[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
                check(name, number, bytes(changed), schema(version))


@pytest.mark.parametrize("version", VERSIONS)
def test_bodies_cut_and_with_more(version: str) -> None:
    rng = random.Random(version)
    with watchdog(SECONDS):
        for name, number, body in sections(version):
            for _ in range(4):
                check(name, number, body[: rng.randrange(len(body))], schema(version))
            check(name, number, body + rng.randbytes(rng.randrange(1, 40)), schema(version))


@pytest.mark.parametrize("version", VERSIONS)
def test_schemas_of_other_versions(version: str) -> None:
    with watchdog(SECONDS):
        for name, number, body in sections(version):
            for other in VERSIONS:
                check(name, number, body, schema(other))
