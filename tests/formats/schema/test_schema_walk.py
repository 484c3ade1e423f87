"""Finding state descriptions: every era, every kind of field, and what is no description."""

from __future__ import annotations

import random
import struct
import tracemalloc
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from builders.elf import DATA, Image, field_entry
from checks import watchdog
from cprformats.errors import FormatError
from cprformats.schema.eras import DESCRIPTIONS, FIELDS
from cprformats.schema.model import CountFrom, Schema
from cprformats.schema.walk import read_schema
from cprformats.source import BytesSource

#: Layouts that went together in a release, with the end mark.
RELEASES = {
    "2.8": (0, 0, 0),
    "2.9": (1, 0, 0),
    "2.12": (1, 1, 0),
    "4.1": (2, 1, 0),
    "5.2": (3, 1, 0),
    "7.2": (4, 1, 0),
    "8.2": (4, 1, 0x10000),
    "10.2": (5, 1, 0x10000),
    "11.1.0": (5, 2, 0x20000),
    "11.1.3": (5, 3, 0x20000),
}


def image_of(release: str, **more: Any) -> Image:
    description, field, end = RELEASES[release]
    return Image(DESCRIPTIONS[description], FIELDS[field], end, **more)


def schema_of(image: Image, relocations: str = "rela") -> Schema:
    return read_schema([("it", BytesSource(image.build(relocations)))])


def machine(image: Image) -> None:
    """A well-known description with all that tells layouts apart."""
    part = image.description("part", fields=image.fields([field_entry(image, "y")]))
    late = image.description(
        "timer/late", fields=image.fields([field_entry(image, "z")]), hooks=["needed"]
    )
    entries = [
        field_entry(image, "plain", version_id=2),
        field_entry(image, "fixed", offset=8, flags=0x4, num=3),
        field_entry(image, "counted", offset=16, flags=0x800 | 2, num_offset=40, num_width=4),
        field_entry(image, "structs", size=24, flags=0x8 | 0x4, num=2, vmsd=part),
        field_entry(image, "sized", flags=0x100 | 2, size_offset=44, size=0, size_width=4),
        field_entry(image, "maybe", field_exists=image.function()),
        {"name": image.text("check"), "flags": 0x1004, "field_exists": image.function()},
    ]
    image.description(
        "timer",
        version=2,
        fields=image.fields(entries),
        subsections=[late],
        hooks=["pre_load", "post_load", "pre_save"],
        priority=0 if image.description_layout.priority is None else 2,
    )


@pytest.mark.parametrize("release", RELEASES)
def test_every_era_is_recognized_and_read(release: str) -> None:
    image = image_of(release)
    machine(image)
    schema = schema_of(image)
    assert image.description_layout.releases in schema.era
    assert image.field_layout.releases in schema.era
    assert set(schema.descriptions) == {"part", "timer/late", "timer"}
    timer = schema.descriptions["timer"]
    assert (timer.version_id, timer.minimum_version_id) == (2, 1)
    assert timer.hooks == ("pre_load", "post_load", "pre_save")
    assert timer.subsections == ("timer/late",)
    assert [one.name for one in timer.fields if one.on_wire] == [
        *("plain", "fixed", "counted", "structs", "sized", "maybe")
    ]
    plain, fixed, counted, structs, sized, maybe, check = timer.fields
    assert (plain.version_id, plain.info, plain.flags) == (2, "uint32", ("SINGLE",))
    assert (fixed.num, fixed.offset, fixed.count_from) == (3, 8, None)
    assert counted.count_from == CountFrom("uint32", 40)
    assert (structs.nested, structs.num, structs.size) == ("part", 2, 24)
    assert sized.size_from == CountFrom("int32", 44)
    assert (maybe.conditional, plain.conditional, check.on_wire) == (True, False, False)


@pytest.mark.parametrize(
    ("arch", "kind", "relocations"),
    [
        *product(["x86_64", "aarch64"], ["dyn"], ["rela", "rel", "relr"]),
        *product(["x86_64", "aarch64"], ["exec"], ["none"]),
    ],
)
def test_every_kind_of_file(arch: str, kind: str, relocations: str) -> None:
    image = image_of("8.2", arch=arch, kind=kind)
    machine(image)
    used = image.description("stuck", unmigratable=1, version=0, minimum=0)
    image.refer(used)
    image.description("unused", unmigratable=1, version=0, minimum=0)
    schema = schema_of(image, relocations)
    assert set(schema.descriptions) == {"part", "timer/late", "timer", "stuck"}
    assert schema.descriptions["stuck"].unmigratable
    assert schema.rejected["no fields, and nothing refers to it"] >= 1
    assert (schema.binaries[0].arch, schema.binaries[0].kind) == (arch, kind)


def test_an_address_formed_from_a_neighbours_counts_as_used() -> None:
    """Section anchors on AArch64: adrp, add, and far behind one more add."""
    image = image_of("8.2", arch="aarch64")
    machine(image)
    used = image.description("stuck", unmigratable=1, version=0, minimum=0)
    image.refer(used - 40)
    image.code += struct.pack("<II", 0xD503201F, 0x91000000 | 40 << 10 | 7)
    assert "stuck" in schema_of(image).descriptions


def test_functions_without_fields_are_no_description() -> None:
    image = image_of("8.2")
    machine(image)
    image.refer(image.description("default", unmigratable=1, hooks=["pre_load", "needed"]))
    schema = schema_of(image)
    assert schema.named("default") == ()
    assert schema.rejected["no fields"] >= 1


def test_names_that_repeat_have_keys_of_their_own() -> None:
    image = image_of("8.2")
    for name in ("a", "b"):
        image.description("timer", fields=image.fields([field_entry(image, name)]))
    schema = schema_of(image)
    assert [one.fields[0].name for one in schema.named("timer")] == ["a", "b"]
    assert list(schema.descriptions) == ["timer", "timer#2"]


def test_a_structure_that_nests_itself_is_one_node() -> None:
    image = image_of("8.2")
    address = image.reserve(image.description_layout.size)
    entries = [field_entry(image, "next", flags=0x8, vmsd=address)]
    image.description(
        "timer",
        fields=image.fields(entries),
        address=address,
        subsections=[address],
        hooks=["needed"],
    )
    schema = schema_of(image)
    assert [one.key for one in schema.reachable("timer")] == ["timer"]
    assert schema.descriptions["timer"].fields[0].nested == "timer"
    assert schema.roots() == ()


def test_a_tree_has_two_descriptions() -> None:
    image = image_of("8.2")
    pair = image.reserve(2 * image.description_layout.size)
    for at, name in enumerate(("value", "key")):
        image.description(
            name,
            fields=image.fields([field_entry(image, "x")]),
            address=pair + at * image.description_layout.size,
        )
    tree = field_entry(image, "tree", vmsd=pair, info=image.info("gtree"), start=8, flags=0)
    image.description("timer", fields=image.fields([tree]))
    field = schema_of(image).descriptions["timer"].fields[0]
    assert (field.nested, field.nested_key, field.info) == ("value", "key", "gtree")


def test_a_description_without_a_name_is_kept() -> None:
    image = image_of("8.2")
    machine(image)
    image.description("", version=3, fields=image.fields([field_entry(image, "x")]))
    assert schema_of(image).descriptions["(unnamed)"].version_id == 3


def test_modules_find_what_the_program_brings() -> None:
    program = image_of("8.2")
    machine(program)
    info = program.info("bool")
    program.exports = {"vmstate_part": next(_at(program, "part")), "vmstate_info_bool": info}
    module = image_of("8.2")
    entries = [
        field_entry(module, "on", info="vmstate_info_bool"),
        field_entry(module, "inner", flags=0x8, vmsd="vmstate_part"),
    ]
    module.description("extra", fields=module.fields(entries))
    both = [BytesSource(program.build()), BytesSource(module.build())]
    schema = read_schema([("program", both[0]), ("module.so", both[1])])
    extra = schema.descriptions["extra"]
    assert (extra.object, extra.fields[0].info, extra.fields[1].nested) == (
        *("module.so", "bool", "part"),
    )
    assert schema.missing == ()

    alone = read_schema([("module.so", both[1])])
    assert alone.descriptions["extra"].fields[0].info == "bool"
    assert alone.descriptions["extra"].fields[1].nested == "symbol:vmstate_part"
    assert alone.missing == ("vmstate_part",)


def _at(image: Image, name: str) -> Any:
    text = DATA + image.data.index(b"\0" + name.encode() + b"\0") + 1
    yield from (slot for slot, target in image.slots.items() if target == text)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"flags": 0x80000000}, "flags of a field"),
        ({"size": 1 << 60}, "offset or size of a field"),
        ({"version_id": -1}, "version or number of a field"),
        ({"num": -1}, "version or number of a field"),
        ({"field_exists": DATA + 16}, "function of a field"),
        ({"info": DATA}, "info of a field"),
        ({"info": 0}, "a field without format"),
        ({"flags": 0x8}, "a structure without description"),
    ],
)
def test_what_is_no_field_rules_out_a_description(entry: dict[str, Any], reason: str) -> None:
    image = image_of("8.2")
    machine(image)
    image.description("no", fields=image.fields([field_entry(image, "x", **entry)]))
    schema = schema_of(image)
    assert schema.named("no") == ()
    assert schema.rejected[reason] == 1


def test_lists_without_an_end_are_none() -> None:
    image = image_of("8.2")
    machine(image)
    image.description("no", fields=image.fields([field_entry(image, "x")] * 5000, ended=False))
    schema = schema_of(image)
    assert schema.named("no") == ()
    assert schema.rejected["fields without an end"] == 1


# -- files that are no QEMU, or mean harm -----------------------------------------------


def programs() -> list[str]:
    """Some that every host has, and the libraries that this process has loaded."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    loaded = {line.split()[-1] for line in lines if ".so" in line.split()[-1]}
    small = sorted(path for path in loaded if Path(path).stat().st_size < 4 << 20)
    return ["/bin/ls", "/bin/sh", *small[:12], *(path for path in small if "libc.so" in path)]


def test_programs_that_are_no_qemu_have_an_empty_schema() -> None:
    for program in programs():
        schema = read_schema([(program, BytesSource(Path(program).read_bytes()))])
        assert schema.descriptions == {}
        assert schema.reason.startswith(("no state description among ", "no pointer to a text"))


def test_a_program_without_pointers_has_an_empty_schema() -> None:
    schema = schema_of(Image())
    assert (schema.descriptions, schema.reason) == ({}, "no pointer to a text")


def test_many_candidates_with_long_lists_end_soon() -> None:
    """Each of 1,500 descriptions points into one list of 3,000 fields, elsewhere."""
    image = image_of("8.2")
    entry = field_entry(image, "x")
    fields = image.fields([entry] * 3000)
    name = image.text("timer")
    for at in range(1500):
        image.description(name, fields=fields + at * image.field_layout.size)
    data = image.build()
    tracemalloc.start()
    with watchdog(60):
        schema = read_schema([("it", BytesSource(data))])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500 << 20
    assert schema.rejected["more lists than any QEMU has"] > 0


def test_bytes_changed_at_random_are_typed_errors_or_schemas() -> None:
    image = image_of("8.2")
    machine(image)
    good = image.build()
    places = [*range(0x140), *range(len(good) - len(image.data), len(good))]
    rng = random.Random(4)
    for _ in range(300):
        data = bytearray(good)
        for place in rng.sample(places, 4):
            data[place] = rng.choice((0, 1, 8, 0x7F, 0x80, 0xFF))
        try:
            schema = read_schema([("it", BytesSource(bytes(data)))])
        except FormatError:
            continue
        assert schema.reason or schema.descriptions


def test_pointers_to_everywhere_are_no_descriptions() -> None:
    image = image_of("8.2")
    machine(image)
    for target in (1, DATA - 1, 1 << 63, (1 << 64) - 8):
        address = image.description("bad")
        image.slots[address + image.description_layout.fields] = target
        image.write(address + image.description_layout.fields, struct.pack("<Q", target))
    schema = schema_of(image)
    assert schema.named("bad") == ()
    assert schema.rejected["pointers to fields and subsections"] >= 4


def test_a_stub_of_zeros_is_kept_where_it_is_used() -> None:
    image = image_of("8.2")
    stub = image.reserve(image.description_layout.size)
    image.description("timer", fields=image.fields([field_entry(image, "x", flags=0x8, vmsd=stub)]))
    schema = schema_of(image)
    assert schema.descriptions["timer"].fields[0].nested == "(unnamed)"
    assert schema.descriptions["(unnamed)"].fields == ()
