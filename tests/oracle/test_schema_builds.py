"""What gcc, ld and dwz make of one program: each build of it has the same schema.

Non-PIE, PIE with each kind of relocation, static, stripped or with DWARF inside or
apart; the structures are those of real QEMU headers, or of none that ever was.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from builders import cprogram
from cprformats.errors import Damaged, FormatError
from cprformats.schema.debugfiles import alternate_link, build_id_of, debug_path
from cprformats.schema.dwarf import read_layouts
from cprformats.schema.eras import DESCRIPTIONS, FIELDS, DescriptionLayout, FieldLayout
from cprformats.schema.identity import build_id
from cprformats.schema.model import Schema
from cprformats.schema.walk import read_schema
from cprformats.source import BytesSource, FileSource
from cprtools.schemas.debug import debug_files
from cprtools.schemas.opening import open_schema

pytestmark = pytest.mark.live

#: QEMU versions whose header is used -> their layouts, and the end mark.
VERSIONS = {"5.2": (3, 1, 0), "7.2": (4, 1, 0), "10.0": (4, 1, 0x10000)}

WAYS = {
    "PIE, RELA": ["-fPIE", "-pie"],
    "PIE, RELR": ["-fPIE", "-pie", "-Wl,-z,pack-relative-relocs"],
    "PIE, optimized": ["-O2", "-fPIE", "-pie"],
    "PIE, no RELRO": ["-fPIE", "-pie", "-Wl,-z,norelro"],
    "non-PIE": ["-fno-pie", "-no-pie"],
    "non-PIE, optimized": ["-O2", "-fno-pie", "-no-pie"],
    "static": ["-fno-pie", "-no-pie", "-static"],
    "static PIE": ["-fPIE", "-static-pie"],
    "segments not apart": ["-fPIE", "-pie", "-Wl,-z,noseparate-code"],
}


def opened(path: Path) -> BytesSource:
    return BytesSource(path.read_bytes())


def schema_of(path: Path, *debug: Path) -> Schema:
    return read_schema([(path.name, opened(path))], [opened(one) for one in debug])


def content(schema: Schema) -> dict[str, Any]:
    """All but where the descriptions lie."""
    return {
        one.name: (
            *(one.version_id, one.minimum_version_id, one.unmigratable, one.early_setup),
            *(set(one.hooks), one.fields, one.subsections),
        )
        for one in schema.descriptions.values()
    }


def check(schema: Schema) -> None:
    assert set(schema.descriptions) == {"part", "timer/late", "timer", "stuck"}
    timer = schema.descriptions["timer"]
    assert (timer.version_id, timer.minimum_version_id) == (2, 1)
    assert (timer.hooks, timer.subsections) == (("post_load",), ("timer/late",))
    assert [
        (one.name, one.offset, one.size, one.num, one.info, one.nested, one.version_id)
        for one in timer.fields
    ] == [
        ("plain", 0, 4, 0, "uint32", "", 2),
        ("fixed", 4, 4, 3, "uint32", "", 0),
        ("parts", 16, 4, 2, "", "part", 0),
        ("maybe", 24, 4, 0, "uint32", "", 0),
    ]
    assert [one.conditional for one in timer.fields] == [False, False, False, True]
    assert timer.fields[2].flags == ("ARRAY", "STRUCT")
    assert schema.descriptions["timer/late"].hooks == ("needed",)
    assert schema.descriptions["stuck"].unmigratable


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", WAYS)
def test_every_build_has_the_same_schema(version: str, way: str, tmp_path: Path) -> None:
    plain = cprogram.build(tmp_path, version, *WAYS[way])
    schema = schema_of(plain)
    check(schema)
    fixed = {"non-PIE", "non-PIE, optimized", "static"}
    assert schema.binaries[0].kind == ("exec" if way in fixed else "dyn")
    assert not schema.binaries[0].stripped

    stripped = shutil.copy(plain, tmp_path / "stripped")
    cprogram.run(["strip", stripped])
    again = schema_of(stripped)
    assert again.binaries[0].stripped
    assert content(again) == content(schema)
    description, field, _ = VERSIONS[version]
    assert DESCRIPTIONS[description].releases in again.era
    assert FIELDS[field].releases in again.era


# -- DWARF ------------------------------------------------------------------------------


def places(description: DescriptionLayout, field: FieldLayout) -> dict[str, Any]:
    """Where all members lie that QEMU's reader needs."""
    mark = {one: 1 + at for at, one in enumerate(field.members)}
    packed = field.layout.pack(*mark.values())
    return {
        "sizes": (description.size, field.size),
        "head": [(name, at) for name, at, _ in description.head if name != "early_setup"],
        "priority": description.priority,
        "hooks": dict(description.hooks),
        "pointers": description.pointers,
        "fields": {name: packed.index(number) for name, number in mark.items()},
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_dwarf_tells_the_layout_that_the_structure_tells(version: str, tmp_path: Path) -> None:
    description, field, end = VERSIONS[version]
    path = cprogram.build(tmp_path, version, "-g")
    (era,) = read_layouts(opened(path))
    told = places(era.description, era.field)
    known = places(DESCRIPTIONS[description], FIELDS[field])
    assert told == known
    assert era.end == end
    assert era.flags[1] == "SINGLE"
    schema = schema_of(path)
    check(schema)
    assert schema.era == f"as its DWARF says, end mark {hex(end) if end else 'none'}"


@pytest.mark.parametrize(
    "flags",
    [
        ["-gdwarf-3"],
        ["-gdwarf-4"],
        ["-gdwarf-4", "-gstrict-dwarf"],
        ["-gdwarf-5"],
        ["-gdwarf-5", "-gdwarf64"],
        ["-g", "-gz=zlib"],
        ["-g3", "-O2", "-flto"],
        ["-g", "-fno-pie", "-no-pie"],
    ],
)
def test_structures_that_no_qemu_had_are_read_by_dwarf(flags: list[str], tmp_path: Path) -> None:
    path = cprogram.build(tmp_path, "patched", *flags)
    schema = schema_of(path)
    assert schema.era == "as its DWARF says, end mark 0x80000"
    check(schema)
    stripped = shutil.copy(path, tmp_path / "stripped")
    cprogram.run(["strip", stripped])
    assert "timer" not in schema_of(stripped).descriptions


def test_dwarf_that_is_kept_apart(tmp_path: Path) -> None:
    path = cprogram.build(tmp_path, "patched", "-g")
    wanted = content(schema_of(path))
    build_id = schema_of(path).binaries[0].build_id
    debug = debug_path(build_id, tmp_path)
    assert debug.name == f"{build_id[2:]}.debug"
    debug.parent.mkdir(parents=True)
    cprogram.run(["objcopy", "--only-keep-debug", path, debug])
    cprogram.run(["strip", path])
    assert content(schema_of(path, debug)) == wanted
    assert build_id_of(opened(debug)) == build_id
    for packing in ("zlib", "zstd"):
        packed = tmp_path / packing
        cprogram.run(["objcopy", f"--compress-debug-sections={packing}", debug, packed])
        assert packed.read_bytes() != debug.read_bytes()
        assert content(schema_of(path, packed)) == wanted


def test_dwarf_of_which_dwz_moved_a_part(tmp_path: Path) -> None:
    for name, more in (("one", "-DOTHER=1"), ("two", "-DOTHER=2")):
        path = cprogram.build(tmp_path, "patched", "-g", more, name=name)
        cprogram.run(["objcopy", "--only-keep-debug", path, tmp_path / f"{name}.debug"])
    wanted = content(schema_of(path))
    debug, common = tmp_path / "two.debug", tmp_path / "common"
    cprogram.run(["dwz", "-r", "-m", common, tmp_path / "one.debug", debug])
    link = alternate_link(opened(debug))
    assert link is not None
    assert link.path == "common"
    assert link.build_id == build_id_of(opened(common))
    assert content(schema_of(path, debug, common)) == wanted


def test_dwarf_of_another_build_is_refused(tmp_path: Path) -> None:
    path = cprogram.build(tmp_path, "patched", "-g")
    other = cprogram.build(tmp_path, "10.0", "-g", name="other")
    with pytest.raises(Damaged, match="build id of the debug information"):
        schema_of(path, other)


def test_debug_information_without_the_structures(tmp_path: Path) -> None:
    """Kept in another file by the compiler: the structures decide, and it says why."""
    path = cprogram.build(tmp_path, "10.0", "-g", "-gsplit-dwarf")
    schema = schema_of(path)
    check(schema)
    assert "its debug information was not used: DWARF: " in schema.era
    with pytest.raises(FormatError):
        read_layouts(opened(path))


def test_a_file_is_read_where_it_lies(tmp_path: Path) -> None:
    path = cprogram.build(tmp_path, "10.0", "-g")
    with path.open("rb") as file:
        check(read_schema([("program", FileSource(file))]))


def test_debug_files_through_the_opener(tmp_path: Path) -> None:
    """Structures that no QEMU had: without its debug file, the program can't be read right."""
    path = cprogram.build(tmp_path, "patched", "-g")
    debug = tmp_path / "apart.debug"
    cprogram.run(["objcopy", "--only-keep-debug", path, debug])
    wanted = content(schema_of(path))
    cprogram.run(["strip", path])
    without = open_schema(str(path))
    assert not without.descriptions or content(without) != wanted
    assert content(open_schema(str(path), debug=str(debug))) == wanted
    assert content(open_schema(str(path), debug=str(debug))) == wanted  # kept
    assert open_schema(str(path)) == without  # and not mixed up with it
    other = cprogram.build(tmp_path, "patched", "-g", "-O1", name="other")
    with pytest.raises(FormatError, match="build"):
        open_schema(str(other), debug=str(debug))


def test_debug_files_where_packages_put_them(tmp_path: Path) -> None:
    path = cprogram.build(tmp_path, "patched", "-g")
    with path.open("rb") as file:
        name = build_id(FileSource(file))
    place = debug_path(name, tmp_path)
    place.parent.mkdir(parents=True)
    cprogram.run(["objcopy", "--only-keep-debug", path, place])
    assert debug_files(None, name, tmp_path) == [place]
    assert debug_files(None, name[::-1], tmp_path) == []
    assert debug_files(None, "", tmp_path) == []
