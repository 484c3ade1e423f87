"""ELF files that are damaged or lie: our error or a schema, in bounded time and memory."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builders.elf import CODE, DATA, Image, field_entry, relr
from checks import watchdog
from cprformats.errors import Damaged, FormatError, Truncated, Unsupported
from cprformats.schema.model import Schema
from cprformats.schema.walk import read_schema
from cprformats.source import BytesSource, FileSource

ROOT = Path(__file__).parents[3]
SECONDS = 10
#: Of a process that reads it, with Python itself; a real QEMU takes some 80.
MOST_MIB = 400

READ = """
import sys
from pathlib import Path
from cprformats.errors import FormatError
from cprformats.schema.walk import read_schema
from cprformats.source import FileSource
try:
    with open(sys.argv[1], "rb") as file:
        schema = read_schema([("it", FileSource(file))])
    said = schema.reason or f"{len(schema.descriptions)} descriptions"
except FormatError as problem:
    said = f"{type(problem).__name__}: {problem}"
print(said)
# Not ru_maxrss, which starts with what the parent had when it forked.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) // 1024)
"""


def full() -> Image:
    """A program with all kinds of tables: symbols, imports, subsections, nested structures."""
    image = Image()
    part = image.description("part", fields=image.fields([field_entry(image, "y")]))
    late = image.description(
        "timer/late", fields=image.fields([field_entry(image, "z")]), hooks=["needed"]
    )
    entries = [
        field_entry(image, "x", field_exists=image.function()),
        field_entry(image, "parts", flags=0x8 | 0x4, num=2, vmsd=part),
        field_entry(image, "info", info="vmstate_info_bool"),
    ]
    image.description("timer", fields=image.fields(entries), subsections=[late])
    image.exports["vmstate_timer"] = DATA + 16
    return image


def read(data: bytes) -> Schema | FormatError:
    with watchdog(SECONDS):
        try:
            schema = read_schema([("it", BytesSource(data))])
        except FormatError as problem:
            return problem
    assert schema.reason or schema.descriptions
    return schema


def test_the_good_file_is_good() -> None:
    for kind in ("rela", "rel", "relr"):
        schema = read(full().build(kind))
        assert isinstance(schema, Schema)
        assert set(schema.descriptions) == {"part", "timer/late", "timer"}


def tables(data: bytes) -> dict[str, tuple[int, int]]:
    """Places and sizes of the parts of a built file."""
    (table,) = struct.unpack_from("<Q", data, 0x20)
    found = {"header": (0, 64), "program headers": (table, 4 * 56)}
    for at in range(4):
        kind, _, offset, _, _, size, *_ = struct.unpack_from("<IIQQQQQQ", data, table + 56 * at)
        found[f"segment {at} of kind {kind}"] = (offset, size)
        if kind == 2:
            data_at = struct.unpack_from("<Q", data, table + 56 + 8)[0]
            for tag, value in struct.iter_unpack("<QQ", data[offset : offset + size]):
                if DATA <= value < DATA + (1 << 30):
                    found[f"table {tag}"] = (data_at + value - DATA, 64)
    return found


def test_every_cut_at_a_structures_edge_or_in_between() -> None:
    for kind in ("rela", "rel", "relr"):
        data = full().build(kind)
        edges = {edge for at, size in tables(data).values() for edge in (at, at + size)}
        sizes = {edge + more for edge in edges for more in (-1, 0, 1, 8)} | {*range(0, 400, 3)}
        for size in sorted(sizes):
            if 0 <= size < len(data):
                assert isinstance(read(data[:size]), FormatError), size


@pytest.mark.parametrize("kind", ["rela", "rel", "relr"])
def test_every_byte_of_headers_and_tables_changed(kind: str) -> None:
    data = full().build(kind)
    places = {
        at
        for start, size in tables(data).values()
        if size <= 512
        for at in range(start, min(start + size, len(data)))
    }
    rng = random.Random(4)
    for at in sorted(places):
        bad = bytearray(data)
        bad[at] ^= rng.choice((0x01, 0x10, 0x80, 0xFF))
        read(bytes(bad))


def patched(layout: str, *patches: tuple[int, int]) -> bytes:
    data = bytearray(full().build())
    for at, value in patches:
        struct.pack_into(layout, data, at, value)
    return bytes(data)


SEGMENTS = 0x40
#: In a program header: flags, offset, address, size in the file, size in memory.
OFFSET, ADDRESS, FILE_BYTES, MEMORY_BYTES = 8, 16, 32, 40


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", FormatError),
        (b"\x7fELF", Truncated),
        (bytes(1 << 16), FormatError),
        (patched("<B", (4, 1)), Unsupported),
        (patched("<B", (5, 2)), Unsupported),
        (patched("<H", (0x10, 4)), Unsupported),
        (patched("<H", (0x10, 1)), Unsupported),
        (patched("<H", (0x12, 40)), Unsupported),
        (patched("<H", (0x38, 0xFFFF)), Damaged),
        (patched("<Q", (SEGMENTS + MEMORY_BYTES, 1 << 63)), Damaged),
        (patched("<Q", (SEGMENTS + ADDRESS, (1 << 64) - 16)), Damaged),
        (patched("<Q", (SEGMENTS + OFFSET, (1 << 64) - 16)), Truncated),
        (patched("<Q", (SEGMENTS + FILE_BYTES, 1 << 63)), Truncated),
    ],
)
def test_headers_that_lie(data: bytes, error: type[FormatError]) -> None:
    assert isinstance(read(data), error)


def test_segments_that_overlap() -> None:
    """Both over the same addresses, or both of the same bytes."""
    code, data = SEGMENTS, SEGMENTS + 56
    for patches in (
        [(code + ADDRESS, DATA)],
        [(code + ADDRESS, DATA + 64)],
        [(data + ADDRESS, CODE)],
        [(code + OFFSET, 0), (data + OFFSET, 0)],
        [(code + MEMORY_BYTES, 1 << 38)],
    ):
        read(patched("<Q", *patches))


def test_a_file_of_many_whole_segments_is_refused() -> None:
    data = bytearray(full().build())
    head = struct.pack("<IIQQQQQQ", 1, 6, 0, DATA, DATA, len(data), len(data), 0x1000)
    at = len(data)
    data += head * 200
    struct.pack_into("<Q", data, 0x20, at)
    struct.pack_into("<H", data, 0x38, 200)
    assert isinstance(read(bytes(data)), Damaged)


def lying(tag: int, value: int, kind: str = "rela") -> bytes:
    """A file with one entry of the dynamic table changed."""
    data = bytearray(full().build(kind))
    at, size = tables(bytes(data))["segment 2 of kind 2"]
    for place in range(at, at + size, 16):
        if struct.unpack_from("<Q", data, place)[0] == tag:
            struct.pack_into("<Q", data, place + 8, value)
    return bytes(data)


@pytest.mark.parametrize("value", [0, 1, DATA + 3, DATA - 8, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_dynamic_entries_that_lie(value: int) -> None:
    for tag, kind in ((7, "rela"), (8, "rela"), (17, "rel"), (18, "rel"), (35, "relr")):
        read(lying(tag, value, kind))
    for tag in (4, 5, 6, 10):
        read(lying(tag, value))
    read(lying(36, value, "relr"))


def test_relocations_that_point_outside() -> None:
    image = full()
    for target in (CODE - 1, 1 << 39, (1 << 64) - 8):
        image.slots[image.reserve(8)] = target
    image.slots |= {3 << 24 << at: DATA for at in range(0, 38, 2)}
    schema = read(image.build())
    assert isinstance(schema, Schema)
    assert "timer" in schema.descriptions


def test_texts_without_an_end() -> None:
    image = full()
    slot = image.reserve(64)
    image.point(slot, image.reserve(0))
    image.data += b"x" * 100_000
    schema = read(image.build())
    assert isinstance(schema, Schema)
    assert set(schema.descriptions) == {"part", "timer/late", "timer"}


def test_lists_that_lead_back_to_themselves() -> None:
    image = Image()
    size = image.description_layout.size
    one, two = image.reserve(size), image.reserve(size)
    for address, other, name in ((one, two, "timer"), (two, one, "dma")):
        entries = [field_entry(image, "next", flags=0x8, vmsd=other)]
        image.description(
            name,
            fields=image.fields(entries),
            subsections=[other, address],
            hooks=["needed"],
            address=address,
        )
    schema = read(image.build())
    assert isinstance(schema, Schema)
    assert set(schema.descriptions) == {"timer", "dma"}
    assert [one.key for one in schema.reachable("timer")] == ["timer", "dma"]


def test_a_deep_chain_of_structures_needs_no_stack() -> None:
    image = Image()
    below = 0
    for at in range(3000):
        entry = field_entry(image, "x", flags=0x8, vmsd=below) if below else field_entry(image, "x")
        below = image.description(f"d{at}", fields=image.fields([entry]))
    image.description("timer", fields=image.fields([field_entry(image, "x")]))
    schema = read(image.build())
    assert isinstance(schema, Schema)
    assert len(list(schema.reachable("d2999"))) == 3000


def test_an_unnamed_description_with_bad_subsections_is_none() -> None:
    image = full()
    bad = image.description("", version=3, fields=image.fields([field_entry(image, "x")]))
    image.point(bad + image.description_layout.fields + 8, image.text("no list"))
    schema = read(image.build())
    assert isinstance(schema, Schema)
    assert "(unnamed)" not in schema.descriptions


def test_a_list_of_subsections_that_is_empty_makes_no_description() -> None:
    """Two numbers that happen to be pointers, a list of nothing: seen in an arm64 build."""
    image = full()
    bad = image.description("odd", version=0, minimum=1 << 20)
    image.point(bad + image.description_layout.fields + 8, image.pointers([]))
    image.refer(bad)
    schema = read(image.build())
    assert isinstance(schema, Schema)
    assert schema.named("odd") == ()
    assert schema.rejected["no fields"] >= 1


def test_a_name_and_zeros_alone_are_no_schema() -> None:
    """As in git's own tables: something that is used, and may be a description without fields."""
    image = Image()
    entry = image.reserve(image.description_layout.size)
    image.point(entry, image.text("2.weeks.ago"))
    image.write(entry + 8, b"\1")
    image.point(entry + image.description_layout.fields, image.reserve(200))
    image.refer(entry)
    schema = read(image.build())
    assert isinstance(schema, Schema)
    assert (schema.descriptions, schema.reason) == (
        {},
        "no state description among 1 pointers to a text",
    )


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_this_python_has_no_descriptions(arch: str) -> None:
    """A real program, read as of both machines: patched into the header."""
    data = bytearray(Path(sys.executable).resolve().read_bytes())
    if data[:6] != b"\x7fELF\x02\x01":
        data = bytearray(full().build())
        data[0x4000:] = bytes(len(data) - 0x4000)
    struct.pack_into("<H", data, 0x12, {"x86_64": 62, "aarch64": 183}[arch])
    with watchdog(60):
        schema = read_schema([("python", BytesSource(bytes(data)))])
    assert schema.descriptions == {}
    assert schema.reason


# -- large files, each read by a process of its own -----------------------------------------


def relr_bomb() -> bytes:
    """Bitmaps of all ones: each 8 bytes stand for 63 slots."""
    image = full()
    table = image.reserve(1 << 20)
    image.write(table, struct.pack("<Q", DATA) + b"\xff" * ((1 << 20) - 8))
    return _with_tags(image, {36: table, 35: 1 << 20})


def many_pointers() -> bytes:
    """A million relocations, each of a text of its own."""
    image = full()
    texts = image.reserve(8 << 20)
    image.write(texts, b"abcdefg\0" * (1 << 20))
    slots = range(texts, texts + (8 << 20), 8)
    image.slots |= {slot: slot for slot in slots if slot % 32 == 0}
    return image.build("relr")


def many_symbols() -> bytes:
    image = full()
    table = image.reserve(24 * 300_000)
    image.write(table, struct.pack("<QQQ", DATA, 1 << 32 | 1, 0) * 300_000)
    return _with_tags(image, {7: table, 8: 24 * 300_000})


def many_words() -> bytes:
    """A program at fixed addresses whose every word could be a pointer."""
    image = Image(kind="exec")
    start = image.reserve(24 << 20)
    image.write(start, struct.pack("<Q", DATA + 16) * (3 << 20))
    return image.build("none")


def _with_tags(image: Image, tags: dict[int, int]) -> bytes:
    """Put entries before those that the builder makes: the first of each tag counts."""
    image.data += bytes(-len(image.data) % 16)
    table = image.reserve(16 * len(tags) + 16)
    image.write(table, b"".join(struct.pack("<QQ", *pair) for pair in tags.items()))
    data = bytearray(image.build())
    place = SEGMENTS + 2 * 56
    data_at = struct.unpack_from("<Q", data, SEGMENTS + 56 + OFFSET)[0]
    struct.pack_into("<QQQ", data, place + OFFSET, data_at + table - DATA, table, table)
    struct.pack_into("<Q", data, place + FILE_BYTES, 16 * len(tags) + 16)
    return bytes(data)


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "RELR": (relr_bomb, "Damaged: ELF: RELR relocations"),
    "pointers": (many_pointers, "3 descriptions"),
    "symbols": (many_symbols, "Unsupported: ELF: relocations by symbol"),
    "words": (many_words, "Unsupported: ELF: pointers"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_large_files_that_mean_harm(name: str, tmp_path: Path) -> None:
    make, said = BOMBS[name]
    path = tmp_path / "file"
    path.write_bytes(make())
    answer, peak = in_a_process(path)
    assert answer.startswith(said)
    assert peak < MOST_MIB


def test_a_file_of_terabytes_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(patched("<Q", (SEGMENTS + FILE_BYTES, 1 << 39)))
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    answer, peak = in_a_process(path)
    assert answer.startswith("Damaged: ELF: bytes in all segments: expected at most 268435456")
    assert peak < 100


def in_a_process(path: Path) -> tuple[str, int]:
    line = [sys.executable, "-c", READ, path]
    env = {"PYTHONPATH": str(ROOT / "formats"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(line, capture_output=True, check=True, text=True, timeout=120, env=env)
    answer, peak = done.stdout.splitlines()
    return answer, int(peak)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_devices_without_a_size_are_no_elf_files(path: str) -> None:
    with Path(path).open("rb") as file, watchdog(SECONDS), pytest.raises(FormatError):
        read_schema([(path, FileSource(file))])


def test_relr_of_the_builder_is_small() -> None:
    assert len(relr([DATA + 8 * at for at in range(63)])) == 16
