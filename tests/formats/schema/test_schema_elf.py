"""ELF files: what is read of their headers, and what is refused."""

from __future__ import annotations

import struct

import pytest

from builders.elf import DATA, Image, field_entry, relr
from cprformats.errors import Damaged, FormatError, Truncated, Unsupported, WrongFormat
from cprformats.schema.elf import read_elf
from cprformats.schema.relocs import read_relocations
from cprformats.schema.space import SPACING, Space
from cprformats.schema.symbols import exported
from cprformats.source import BytesSource


def small(**more: object) -> Image:
    image = Image(**more)  # type: ignore[arg-type]
    image.description(fields=image.fields([field_entry(image, "x")]))
    return image


def patched(data: bytes, offset: int, layout: str, *values: int) -> bytes:
    patch = struct.pack(layout, *values)
    return data[:offset] + patch + data[offset + len(patch) :]


def test_headers() -> None:
    elf = read_elf(BytesSource(small().build()))
    assert (elf.arch, elf.kind, elf.build_id) == ("x86_64", "dyn", "abcdef01")
    assert (elf.stripped, elf.debug) == (True, False)
    assert [segment.executable for segment in elf.segments] == [True, False]


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize("kind", ["rela", "rel", "relr"])
def test_relocations_of_every_kind_give_the_same_pointers(arch: str, kind: str) -> None:
    image = small(arch=arch)
    space = Space()
    one = space.add("it", read_elf(BytesSource(image.build(kind))))
    assert sorted(one.slots) == sorted(image.slots)
    assert {slot: space.word(slot) for slot in image.slots} == image.slots


def test_a_second_object_lies_elsewhere() -> None:
    space = Space()
    for name in ("program", "module"):
        space.add(name, read_elf(BytesSource(small().build())))
    first, second = space.objects
    assert [slot + SPACING for slot in first.slots] == list(second.slots)
    assert space.word(second.slots[0]) == (space.word(first.slots[0]) or 0) + SPACING
    assert space.object_at(second.slots[0]) is second


def test_symbols_are_resolved_or_named() -> None:
    image = small()
    there, missing = image.reserve(16), image.reserve(8)
    image.point(there, "brought")
    image.point(missing, "not_brought")
    space = Space()
    space.add("it", read_elf(BytesSource(image.build())), {"brought": 0x1234})
    assert space.word(there) == 0x1234
    assert space.import_name(space.word(missing) or 0) == "not_brought"


@pytest.mark.parametrize("gnu_hash", [False, True])
def test_exports(gnu_hash: bool) -> None:
    image = small()
    image.point(image.reserve(8), "missing")
    assert exported(read_elf(BytesSource(image.build(gnu_hash=gnu_hash)))) == {}
    image.exports = {"vmstate_dev": DATA + 16, "vmstate_other": DATA + 24}
    assert exported(read_elf(BytesSource(image.build(gnu_hash=gnu_hash)))) == image.exports


def test_a_hash_chain_without_an_end_is_refused() -> None:
    image = small()
    image.exports = {f"vmstate_{at}": DATA for at in range(5000)}
    data = bytearray(image.build(gnu_hash=True))
    end = struct.pack("<2I", 2 * 4998, 1)
    struct.pack_into("<I", data, data.rindex(end) + 4, 0)
    with pytest.raises(Damaged, match="hash chain"):
        exported(read_elf(BytesSource(bytes(data))))


def test_relr_bitmaps_span_words() -> None:
    slots = [DATA + 8 * at for at in (0, 1, 5, 63, 64, 200)]
    image = Image()
    image.data += bytes(4096)
    image.slots = dict.fromkeys(slots, DATA)
    tables = read_relocations(read_elf(BytesSource(image.build("relr"))))
    assert list(tables.in_place) == slots
    assert len(relr(slots)) < 8 * len(slots)


@pytest.mark.parametrize(
    ("offset", "layout", "values", "error"),
    [
        (0, "<I", (0x12345678,), WrongFormat),
        (4, "<B", (1,), Unsupported),
        (5, "<B", (2,), Unsupported),
        (0x10, "<H", (4,), Unsupported),
        (0x12, "<H", (243,), Unsupported),
        (0x20, "<Q", (1 << 40,), Truncated),
        (0x20, "<Q", (1 << 63,), Truncated),
        (0x36, "<H", (0,), Damaged),
        (0x38, "<H", (0,), Damaged),
        (0x38, "<H", (0xFFFF,), Damaged),
        (0x40 + 8, "<Q", (1 << 62,), Truncated),
        (0x40 + 16, "<Q", (1 << 62,), Damaged),
        (0x40 + 32, "<QQ", (1 << 60, 1 << 60), Truncated),
        (0x40 + 40, "<Q", (1 << 60,), Damaged),
    ],
)
def test_bad_headers_are_typed_errors(
    offset: int, layout: str, values: tuple[int, ...], error: type[FormatError]
) -> None:
    data = patched(small().build(), offset, layout, *values)
    with pytest.raises(error) as caught:
        read_elf(BytesSource(data))
    assert str(caught.value).startswith("ELF: ")


def test_every_cut_is_a_typed_error() -> None:
    data = small().build()
    for size in [*range(320), *range(0x1000, len(data), 97)]:
        with pytest.raises(FormatError):
            Space().add("it", read_elf(BytesSource(data[:size])))


def test_section_tables_that_lead_nowhere_do_no_harm() -> None:
    data = small().build()
    for table, size, count, names in (
        (1 << 60, 64, 10, 1),
        (64, 64, 0xFFFF, 1),
        (64, 0, 9, 1),
        (64, 64, 9, 0xFFFF),
        (64, 64, 0, 0),
        (64, 64, 9, 1),
    ):
        bad = patched(patched(data, 0x28, "<Q", table), 0x3A, "<HHH", size, count, names)
        assert read_elf(BytesSource(bad)).stripped


@pytest.mark.parametrize("tag", [8, 6, 5, 10, 4])
@pytest.mark.parametrize("value", [0, 7, 1 << 31, (1 << 64) - 1])
def test_bad_dynamic_entries_are_typed_errors_or_nothing(tag: int, value: int) -> None:
    image = small()
    image.exports["one"] = DATA
    image.point(image.reserve(8), "other")
    data = bytearray(image.build())
    elf = read_elf(BytesSource(bytes(data)))
    at = data.rindex(struct.pack("<QQ", tag, elf.dynamic[tag]))
    struct.pack_into("<Q", data, at + 8, value)
    try:
        bad = read_elf(BytesSource(bytes(data)))
        exported(bad)
        Space().add("it", bad)
    except FormatError:
        return
