"""Layouts out of debug information: what is taken from it, and damage of every kind."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Mapping

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders.dwarf import Debug, with_sections, zlib_packed
from builders.elf import Image, field_entry
from checks import watchdog
from cprformats.errors import Damaged, FormatError
from cprformats.schema.debugfiles import alternate_link, build_id_of
from cprformats.schema.dwarf import read_layouts
from cprformats.schema.eras import DESCRIPTIONS, FIELDS, DescriptionLayout, FieldLayout, packed
from cprformats.schema.walk import read_schema
from cprformats.source import BytesSource

#: Layouts that no release has: more members between the known ones.
PATCHED = DescriptionLayout(
    "DWARF",
    136,
    20,
    {"pre_load": 40, "post_load": 48, "needed": 72, "vendor": 80},
    112,
    128,
)
_FIELD = (
    *(("name", 8, "Q"), ("offset", 16, "Q"), ("size", 24, "Q"), ("start", 32, "Q")),
    *(("num", 40, "i"), ("num_offset", 64, "Q"), ("size_offset", 72, "Q"), ("info", 80, "Q")),
    *(("flags", 88, "I"), ("vmsd", 96, "Q"), ("version_id", 104, "i"), ("field_exists", 112, "Q")),
)
PATCHED_FIELD = FieldLayout("DWARF", *packed(_FIELD, 128))


def image() -> Image:
    made = Image(PATCHED, PATCHED_FIELD, 0x40000)
    late = made.description(
        "timer/late", fields=made.fields([field_entry(made, "z")]), hooks=["needed"]
    )
    made.description(
        "timer", version=2, fields=made.fields([field_entry(made, "x", flags=0x80001)])
    )
    made.description(
        "vga",
        fields=made.fields([field_entry(made, "y", offset=4)]),
        hooks=["vendor", "post_load"],
        priority=3,
        address=0,
    )
    made.point(made.reserve(8), late)
    return made


def debug(flags: Mapping[str, int] | None = None, skip: str = "") -> Debug:
    """What a compiler says of the patched layouts, but for one member."""
    made = Debug()
    number, word, pointer = made.base("int", 4), made.base("size_t", 8), made.pointer()
    small, hook = made.base("bool", 1), made.alias("Hook", made.function())
    kinds = {"VMS_SINGLE": 1, "VMS_VENDOR": 0x80000, "VMS_END": 0x40000}
    enumeration = made.enumeration(4, kinds if flags is None else flags)
    types = {"Q": word, "i": number, "I": enumeration, "B": small}
    fields = {name: (at, types[code]) for name, at, code in _FIELD if name != skip}
    fields |= {"cookie": (0, word), "name": (8, pointer)}
    made.structure("VMStateField", 128, fields)
    members = {name: (at, types[code]) for name, at, code in PATCHED.head}
    members |= {name: (at, hook) for name, at in PATCHED.hooks.items()}
    members |= {"priority": (20, number), "fields": (112, pointer), "subsections": (128, pointer)}
    members |= {"magic": (24, word)}
    members.pop(skip, None)
    made.structure("VMStateDescription", 136, members)
    return made


def built(made: Debug) -> BytesSource:
    return BytesSource(with_sections(image().build(), made.sections()))


def test_a_patched_layout_is_read() -> None:
    schema = read_schema([("it", built(debug()))])
    assert schema.era == "as its DWARF says, end mark 0x40000"
    assert set(schema.descriptions) == {"timer", "timer/late", "vga"}
    assert schema.descriptions["timer"].fields[0].flags == ("SINGLE", "VENDOR")
    vga = schema.descriptions["vga"]
    assert (set(vga.hooks), vga.priority, vga.fields[0].offset) == ({"post_load", "vendor"}, 3, 4)


def test_without_it_such_a_layout_is_not_known() -> None:
    assert read_schema([("it", BytesSource(image().build()))]).descriptions == {}


def test_it_may_be_kept_apart() -> None:
    apart = BytesSource(with_sections(Image().build(), debug().sections()))
    schema = read_schema([("it", BytesSource(image().build()))], [apart])
    assert "timer" in schema.descriptions


def test_an_end_mark_that_is_not_told_is_found() -> None:
    """Before 8.0 there was none; where flags are no enumeration, each is tried."""
    assert [era.end for era in read_layouts(built(debug({"VMS_SINGLE": 1})))] == [0]
    made = debug()
    made.sections()
    plain = Debug()
    eras = read_layouts(built(_without_enumeration(plain)))
    assert {era.end for era in eras} == {0, 0x10000, 0x20000}


def _without_enumeration(made: Debug) -> Debug:
    number, word = made.base("int", 4), made.base("size_t", 8)
    types = {"Q": word, "i": number, "I": number, "B": made.base("bool", 1)}
    made.structure("VMStateField", 128, {name: (at, types[code]) for name, at, code in _FIELD})
    members = {name: (at, types[code]) for name, at, code in PATCHED.head}
    members |= {"fields": (112, word), "subsections": (128, word)}
    made.structure("VMStateDescription", 136, members)
    return made


def test_numbers_that_come_with_their_width() -> None:
    """11.1.3 and later: a structure of an offset and a width."""
    made = _without_enumeration(Debug())
    narrow, short = made.base("u32", 4), made.base("u8", 1)
    pair = made.structure("Indirect", 8, {"where": (0, narrow), "wide": (4, short)})
    word, number = made.base("size_t", 8), made.base("int", 4)
    places = {"name": 0, "offset": 8, "size": 16, "start": 40, "info": 56, "vmsd": 72}
    members = {name: (at, word) for name, at in {**places, "field_exists": 88}.items()}
    members |= {"size_indirect": (24, pair), "num_indirect": (32, pair), "num": (48, number)}
    members |= {"flags": (64, number), "version_id": (80, number)}
    members |= {"struct_version_id": (84, number)}
    other = Debug(made.strings, made.body)
    other.strings = bytearray(bytes(made.strings).replace(b"VMStateField", b"VMStateOther"))
    other.structure("VMStateField", 96, members)
    (era, *_) = read_layouts(built(other))
    assert era.field.indirect
    known = FIELDS[3]
    values = dict(zip(known.members, range(1, len(known.members) + 1), strict=True))
    raw = known.layout.pack(*values.values())
    assert dict(zip(era.field.members, era.field.layout.unpack(raw), strict=True)) == values
    assert era.field.size == known.size


@pytest.mark.parametrize("packing", ["zlib", "zstd", "zdebug"])
def test_packed_sections(packing: str) -> None:
    sections, flags = debug().sections(), {}
    for name, content in dict(sections).items():
        if packing == "zdebug":
            head = b"ZLIB" + len(content).to_bytes(8, "big")
            sections[name.replace(".debug", ".zdebug")] = head + zlib.compress(content)
            del sections[name]
            continue
        flags[name] = 0x800
        sections[name] = zlib_packed(content)
        if packing == "zstd":
            head = struct.pack("<IIQQ", 2, 0, len(content), 1)
            sections[name] = head + zstandard.compress(content)
    data = with_sections(image().build(), sections, flags)
    assert "timer" in read_schema([("it", BytesSource(data))]).descriptions


@pytest.mark.parametrize("skip", ["name", "flags", "info", "fields", "version_id"])
def test_a_member_that_is_missing_is_named(skip: str) -> None:
    made = debug(skip=skip)
    if skip == "name":
        made = debug()
        made.body = bytearray(bytes(made.body).replace(b"\x03name\0", b"\x03mane\0"))
    with pytest.raises(Damaged, match=skip):
        read_layouts(built(made))


def test_debug_information_that_is_of_no_use_is_not_used_and_said() -> None:
    program = Image(DESCRIPTIONS[4], FIELDS[1])
    program.description("timer", fields=program.fields([field_entry(program, "x")]))
    sections = debug(skip="info").sections()
    schema = read_schema([("it", BytesSource(with_sections(program.build(), sections)))])
    assert "timer" in schema.descriptions
    assert schema.era.endswith("DWARF: VMStateField: expected members info, at 0x0")


def test_layouts_that_explain_nothing_give_way_to_the_eras() -> None:
    program = Image(DESCRIPTIONS[4], FIELDS[1])
    program.description("timer", fields=program.fields([field_entry(program, "x")]))
    data = with_sections(program.build(), debug().sections())
    schema = read_schema([("it", BytesSource(data))])
    assert "timer" in schema.descriptions
    assert DESCRIPTIONS[4].releases in schema.era


def test_links_to_other_files() -> None:
    data = with_sections(Image().build(), {".gnu_debugaltlink": b"../x.dwz\0\xab\xcd"})
    link = alternate_link(BytesSource(data))
    assert link is not None
    assert (link.path, link.build_id) == ("../x.dwz", "abcd")
    assert alternate_link(BytesSource(Image().build())) is None
    assert alternate_link(BytesSource(b"")) is None
    assert build_id_of(BytesSource(Image().build())) == ""
    with pytest.raises(Damaged, match="a path with an end"):
        alternate_link(BytesSource(with_sections(Image().build(), {".gnu_debugaltlink": b"x"})))


# -- damage -------------------------------------------------------------------------------


def refuse(data: bytes) -> None:
    """Layouts or our error, in time."""
    with watchdog(20), contextlib.suppress(FormatError):
        read_layouts(BytesSource(data))


def test_sizes_that_lie() -> None:
    sections = debug().sections()
    info = sections[".debug_info"]
    for size in (0, 1 << 20, 1 << 31, 1 << 32, 1 << 63):
        packed_info = {**sections, ".debug_info": zlib_packed(info, size)}
        refuse(with_sections(image().build(), packed_info, {".debug_info": 0x800}))
    for way, content in ((1, info), (3, info), (1, b"")):
        packed_info = {**sections, ".debug_info": zlib_packed(content, len(info), way)}
        refuse(with_sections(image().build(), packed_info, {".debug_info": 0x800}))
    refuse(
        with_sections(image().build(), {**sections, ".debug_info": b"x"}, {".debug_info": 0x800})
    )


def test_a_little_that_unpacks_to_much_is_left_at_what_its_head_says() -> None:
    bomb = zlib_packed(bytes(1 << 28), 1000)
    sections = {**debug().sections(), ".debug_info": bomb}
    refuse(with_sections(image().build(), sections, {".debug_info": 0x800}))


def test_types_that_are_their_own_alias() -> None:
    made = Debug()
    loop = made.alias("Loop", made.here)
    made.structure("VMStateDescription", 16, {"name": (0, loop)})
    with pytest.raises(Damaged, match="chain of aliases"):
        read_layouts(built(made))


@pytest.mark.parametrize("target", [0, 5, 0x7FFFFFFF, 0xFFFFFFFF])
def test_types_that_lead_nowhere(target: int) -> None:
    made = Debug()
    made.structure("VMStateDescription", 16, {"name": (0, target)})
    with pytest.raises(FormatError):
        read_layouts(built(made))


def test_siblings_that_lead_backwards_end() -> None:
    made = Debug()
    for _ in range(50):
        at = made.here
        made.add(b"\x0b" + struct.pack("<I", at) + b"x\0\0")
    refuse(with_sections(Image().build(), made.sections()))


def test_many_entries_end_soon() -> None:
    made = Debug()
    made.add(b"\x06" * 1_000_000)
    made.strings += b"VMStateDescription\0"
    with watchdog(60), pytest.raises(Damaged, match="200000 entries"):
        read_layouts(built(made))


def test_many_units_end_soon() -> None:
    sections = {**debug().sections(), ".debug_info": bytes(8 << 20)}
    refuse(with_sections(Image().build(), sections))


def test_many_members_are_refused() -> None:
    made = Debug()
    word = made.base("size_t", 8)
    made.structure("VMStateDescription", 136, {f"m{at}": (8 * at, word) for at in range(1000)})
    with pytest.raises(Damaged, match="at most 128 members"):
        read_layouts(built(made))


def test_every_byte_of_it_changed() -> None:
    good = debug().sections()
    for name in (".debug_info", ".debug_abbrev"):
        for at in range(0, len(good[name]), 3):
            for mask in (0x01, 0x80, 0xFF):
                content = bytearray(good[name])
                content[at] ^= mask
                refuse(with_sections(b"\x7fELF\x02\x01".ljust(64), {**good, name: bytes(content)}))


@settings(
    deadline=None,
    derandomize=True,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.data())
def test_any_bytes_in_its_place(draw: st.DataObject) -> None:
    good = debug().sections()
    name = draw.draw(st.sampled_from(sorted(good)))
    start = draw.draw(st.integers(0, len(good[name])))
    content = good[name][:start] + draw.draw(st.binary(max_size=80))
    refuse(with_sections(b"\x7fELF\x02\x01".ljust(64), {**good, name: content}))
