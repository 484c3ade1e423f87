"""Schemas and bodies made to annoy: every byte is still in the tree, and the work has an end."""

from __future__ import annotations

import random

import pytest

from builders import migration as build
from builders.migration import be32
from builders.schemas import description, schema
from builders.schemas import field as plain
from checks import assert_tiles, read, watchdog
from cprformats.encode import encode
from cprformats.migration import MigrationStream
from cprformats.schema.model import CountFrom, Description, FieldFormat

#: CPU time; all of these take a few seconds at most.
SECONDS = 60


def byte(name: str, **more: object) -> FieldFormat:
    return plain(name, info="uint8", size=1, **more)


def nested(name: str, key: str, **more: object) -> FieldFormat:
    return plain(name, info="", nested=key, **({"flags": ("STRUCT",), "size": 8} | more))


def uncounted(field: str, *, key: str = "", kind: str = "uint32") -> FieldFormat:
    """An array whose count is nowhere."""
    flags = ("POINTER", "VARRAY_UINT32")
    source = CountFrom(kind, 1000 + len(field))
    if key:
        return nested(field, key, flags=("STRUCT", *flags), count_from=source)
    return byte(field, flags=flags, count_from=source)


def decoded(body: bytes, *parts: Description) -> str:
    """Read one section, check that nothing of it is lost; gives what was said."""
    data = build.stream(build.configuration("pc"), build.full(3, "dev", body=body))
    with watchdog(SECONDS):
        found = read(data, schema=schema(*parts))
        return whole(found, data)


def whole(found: MigrationStream, data: bytes) -> str:
    said = ""
    for section in found.sections():
        tree, notices = found.decode(section)
        assert_tiles([tree], section.offset)
        assert b"".join(encode([tree])) == data[section.offset : section.end]
        said += "\n".join(notices)
    return said


def test_a_description_that_nests_itself_ends() -> None:
    dev = description("dev", byte("a"), nested("again", "dev", conditional=True))
    assert decoded(b"\1\2\3", dev) == ""
    assert "found 439 more" in decoded(bytes(500), dev)


def test_a_description_that_nests_itself_without_a_byte_ends() -> None:
    dev = description("dev", nested("again", "dev", conditional=True), byte("a"))
    assert "by the schema" in decoded(bytes(200), dev)


def test_lists_that_nest_themselves_end() -> None:
    dev = description("dev", plain("l", info="qtailq", nested="dev", size=24))
    assert decoded(b"\1\1\0\0\0", dev) == ""
    assert "by the schema" in decoded(b"\1" * 500, dev)


def test_many_conditional_fields_are_no_more_than_places() -> None:
    dev = description("dev", *(byte(f"f{i}", conditional=True, test=i + 1) for i in range(200)))
    said = decoded(bytes(100), dev)
    assert "100 bytes kept raw: undecided, 1000 or more readings by the schema fit" in said


def test_many_tests_that_come_twice_meet_the_limit() -> None:
    fields = [byte(f"f{i}", conditional=True, test=i % 40 + 1) for i in range(80)]
    assert "expected at most 400000 steps" in decoded(bytes(40), description("dev", *fields))


def test_many_uncounted_arrays_meet_the_limit_or_are_undecided() -> None:
    few = description("dev", *(uncounted("x" * i) for i in range(1, 4)))
    assert "undecided" in decoded(bytes(300), few)
    many = description("dev", *(uncounted("x" * i) for i in range(1, 9)))
    assert "400000 steps" in decoded(bytes(30_000), many)


def test_uncounted_structures_of_nothing_end() -> None:
    inner = description("inner", plain("n", info="buffer", size=0))
    dev = description("dev", uncounted("s", key="inner"), byte("a"))
    assert decoded(b"\1", dev, inner) == ""
    assert "by the schema" in decoded(b"\1\2", dev, inner)


def test_huge_counts_from_the_stream_end() -> None:
    inner = description("inner", byte("x", conditional=True))
    flags = ("STRUCT", "VARRAY_UINT32", "POINTER")
    dev = description(
        "dev",
        plain("n", info="uint32", size=4, offset=0),
        nested("s", "inner", count_from=CountFrom("uint32", 0), flags=flags),
    )
    assert "400000 steps" in decoded(be32(0xFFFFFFFF) + bytes(50), dev, inner)
    array = byte("s", count_from=CountFrom("uint32", 0), flags=("VARRAY_UINT32", "POINTER"))
    plain_array = description("dev", plain("n", info="uint32", size=4, offset=0), array)
    assert "by the schema: s: expected" in decoded(be32(0xFFFFFFFF) + bytes(50), plain_array)


def test_trees_of_billions_of_nodes_end() -> None:
    inner = description("inner", byte("x"))
    dev = description("dev", plain("t", info="gtree", nested="inner", size=16))
    said = decoded(be32(0xFFFFFFFF) + b"\1" * 90, dev, inner)
    assert "x: expected 1 bytes and 1 behind them, found 1" in said


def test_nodes_of_nothing_end() -> None:
    inner = description("inner")
    dev = description("dev", plain("t", info="qtailq", nested="inner", size=16))
    assert decoded(b"\1" * 5000 + b"\0", dev, inner) == ""


def test_absurd_sizes_offsets_and_times() -> None:
    huge = (1 << 64) - 1
    dev = description(
        "dev",
        plain("b", info="buffer", size=huge, conditional=True),
        byte("v", flags=("VARRAY_UINT32",), count_from=CountFrom("uint32", huge, huge)),
        plain("w", info="buffer", size=0, size_from=CountFrom("uint64", huge, 0)),
        nested("e", "dev", num=1 << 30, flags=("ARRAY", "STRUCT"), conditional=True),
    )
    assert decoded(bytes(64), dev) is not None


def test_structures_that_double_at_each_level() -> None:
    """Each level has the next one twice, 2 ** 40 in all, of no byte or of one."""
    for size in (0, 1):
        parts = [description("dev", nested("a", "d1"), nested("b", "d1"))]
        for level in range(1, 40):
            inner = f"d{level + 1}"
            parts.append(description(f"d{level}", nested("a", inner), nested("b", inner, offset=8)))
        parts.append(description("d40", plain("x", info="buffer", size=size)))
        same = [description("dev#2", *parts[0].fields), description("dev#3", *parts[0].fields)]
        assert decoded(bytes(64), *parts, *same) != ""


def test_numbers_wanted_from_everywhere() -> None:
    parts = []
    for level in range(30):
        key, inner = (f"d{level}" if level else "dev"), f"d{level + 1}"
        offsets = (nested(name, inner, offset=1 << (level + at)) for at, name in enumerate("ab"))
        parts.append(description(key, *offsets))
    parts.append(description("d30", *(uncounted("x" * i) for i in range(1, 3))))
    assert decoded(bytes(64), *parts) != ""


@pytest.mark.parametrize("seed", range(40))
def test_random_schemas_on_random_bodies(seed: int) -> None:
    rng = random.Random(seed)
    parts = [_random_description(rng, f"d{i}" if i else "dev") for i in range(5)]
    for _ in range(20):
        body = bytes(rng.choice((0, 1, 2, 5, 0x30, 0x31, 255)) for _ in range(rng.randrange(60)))
        assert decoded(body, *parts) is not None


def _random_description(rng: random.Random, key: str) -> Description:
    fields = [_random_field(rng, f"f{i}") for i in range(rng.randrange(6))]
    subs = (f"d{rng.randrange(1, 5)}",) if rng.random() < 0.3 else ()
    return description(key, *fields, subsections=subs, version_id=rng.randrange(1, 3))


def _random_field(rng: random.Random, name: str) -> FieldFormat:
    infos = (
        *("uint8", "bool", "uint16", "int32 equal", "buffer", "unused_buffer", "bitmap", "timer"),
        *("qtailq", "gtree", "qlist", "tmp", "msix state", "shpc", "pci config", "virtio"),
        *("scsi-requests", "fpr", "GByteArray", "no such type", "virtio-gpu", ""),
    )
    info = rng.choice(infos)
    flags = [flag for flag in ("POINTER", "ARRAY_OF_POINTER") if rng.random() < 0.15]
    count = CountFrom(rng.choice(("uint8", "int32", "uint16")), rng.randrange(8))
    kind = rng.random()
    if info in ("", "tmp"):
        flags.append(rng.choice(("STRUCT", "VSTRUCT")))
    return plain(
        name,
        info=info,
        size=rng.choice((0, 1, 2, 4)),
        offset=rng.randrange(8),
        num=rng.randrange(4),
        flags=(*flags, *(("ARRAY",) if kind < 0.2 else ())),
        count_from=count if 0.2 <= kind < 0.4 else None,
        size_from=count if 0.4 <= kind < 0.5 and info in ("buffer", "bitmap") else None,
        conditional=rng.random() < 0.3,
        test=rng.randrange(3),
        nested=f"d{rng.randrange(5)}" if info in ("", "tmp", "qtailq", "gtree", "qlist") else "",
        nested_key=f"d{rng.randrange(5)}" if info == "gtree" and rng.random() < 0.5 else "",
        version_id=rng.randrange(3),
        struct_version_id=rng.randrange(3),
    )
