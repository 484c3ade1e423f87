"""``cprtools schema``: what it shows, its JSON, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest
from tool import ROOT, cprtools

from builders import schemas as build
from builders.elf import Image, field_entry
from cprformats.schema.dump import read_dump
from cprformats.schema.publish import write_document

SCHEMA = json.loads((ROOT / "docs" / "schema.schema.json").read_text())
VALIDATOR = jsonschema_rs.validator_for(SCHEMA)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    image = Image()
    late = image.description(
        "timer/late", fields=image.fields([field_entry(image, "z")]), hooks=["needed"]
    )
    entries = [
        field_entry(image, "ticks"),
        field_entry(image, "counted", flags=0x802, num_offset=0x28, version_id=2),
        field_entry(image, "inner", flags=0xC, num=2, size=24, vmsd=late),
    ]
    image.description(
        "timer", version=2, fields=image.fields(entries), subsections=[late], priority=1
    )
    path = tmp_path / "qemu"
    path.write_bytes(image.build())
    return path


def test_the_table(program: Path) -> None:
    done = cprtools("schema", program)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert "qemu: ELF for x86_64, position-independent, build id abcdef01" in text
    assert "descriptions  2, 1 of them top-level, 4 fields" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("  timer "))
    assert row == ["timer", "2", "1", "3", "1", "priority", "1"]


def test_fields(program: Path) -> None:
    text = cprtools("schema", program, "--name", "timer").stdout.decode()
    assert "timer version 2, loads 1 and later, priority 1" in text
    assert "timer/late version" not in text
    lines = [line.split() for line in text.splitlines()]
    assert ["0x0", "4", "uint32", "at", "0x28", "2", "counted", "uint32"] in lines
    assert ["0x0", "24", "2", "inner", "struct", "timer/late"] in lines


def test_json(program: Path) -> None:
    made = json.loads(cprtools("schema", "--json", program).stdout)
    assert (made["format"], made["version"], made["reason"]) == ("cprtools-schema", 1, "")
    timer = next(one for one in made["descriptions"] if one["key"] == "timer")
    assert timer["subsections"] == ["timer/late"]
    counted = timer["fields"][1]
    assert counted["count_from"] == {"type": "uint32", "offset": 0x28, "times": 1}
    assert counted["flags"] == ["POINTER", "VARRAY_UINT32"]


def test_the_json_schema_is_one() -> None:
    jsonschema_rs.meta.validate(SCHEMA)


def test_json_is_valid_by_its_schema(program: Path) -> None:
    VALIDATOR.validate(json.loads(cprtools("schema", "--json", program).stdout))
    VALIDATOR.validate(json.loads(write_document(build.rich())))
    dump = read_dump(build.dump(a=build.dumped("a", build.dumped_field("x", num=2))))
    VALIDATOR.validate(json.loads(write_document(dump)))


def test_the_json_schema_names_every_member() -> None:
    made = json.loads(write_document(build.rich()))
    assert set(made) == set(SCHEMA["properties"])
    for name, found in (("description", made["descriptions"]), ("field", _fields(made))):
        members = set().union(*found)
        assert members == set(SCHEMA["$defs"][name]["properties"])


def _fields(made: dict[str, list[dict[str, list[object]]]]) -> list[object]:
    return [field for one in made["descriptions"] for field in one["fields"]]


def test_the_text_of_a_dump(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(build.dump("pc", a=build.dumped("a", build.dumped_field("x"))))
    text = cprtools("schema", path, "-n", "a").stdout.decode()
    assert text.startswith("dump of machine pc: names and sizes, no types\n")
    assert "a version 1, loads 1 and later\n  device types a\n" in text
    assert ["4", "x"] in [line.split() for line in text.splitlines()]


def test_priorities_have_names(tmp_path: Path) -> None:
    path = tmp_path / "schema"
    one = build.description("pci_bridge", priority=4)
    path.write_bytes(write_document(build.schema(one, build.description("b", priority=9))))
    text = cprtools("schema", path).stdout.decode()
    assert "priority PCI_BUS" in text
    assert "priority 9" in text
    made = json.loads(cprtools("schema", path, "-n", "b", "--json").stdout)
    assert made["priorities"] == {"4": "PCI_BUS"}


def test_names_from_files_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "schema"
    one = build.description("a", name="\x1b[2Ja\ud800")
    path.write_bytes(write_document(build.schema(one, provenance={"x\x07": "\x1b"})))
    for words in ((), ("-n", "*"), ("--json",)):
        done = cprtools("schema", path, *words)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"\x1b" not in done.stdout
        assert b"\x07" not in done.stdout


def test_a_program_without_descriptions(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(Image().build())
    done = cprtools("schema", path, "--json")
    assert done.returncode == 1
    assert done.stderr.decode() == f"cprtools: {path}: no pointer to a text\n"
    assert json.loads(done.stdout)["descriptions"] == []


def test_errors(program: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(program.read_bytes()[:5000])
    assert cprtools("schema", cut).returncode == 1
    assert cprtools("schema", tmp_path / "none").returncode == 2
    nothing = cprtools("schema", program, "-n", "nobody")
    assert (nothing.returncode, nothing.stderr) == (
        *(2, b"cprtools: nothing fits the pattern nobody\n"),
    )
