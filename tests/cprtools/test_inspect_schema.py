"""``cprtools inspect --schema``: what it takes, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

from tool import cprtools as tool

import cprtools
from builders import migration as build
from builders import schemas
from checks import fixture_path

NO_VMDESC = "migration/10.0-q35-no-vmdesc.sav.xz"


def stream_file(folder: Path, body: bytes) -> Path:
    path = folder / "dev.sav"
    path.write_bytes(build.stream(build.configuration("pc"), build.full(3, "dev", body=body)))
    return path


def test_a_dump_has_no_types_to_read_by(tmp_path: Path) -> None:
    dump = tmp_path / "dump.json"
    dump.write_bytes(schemas.dump(dev=schemas.dumped("dev", schemas.dumped_field("a"))))
    found = tool("inspect", stream_file(tmp_path, b"\1"), "--schema", dump)
    assert found.returncode == 2
    assert b"expected one read out of a QEMU binary" in found.stderr
    assert found.stdout == b""


def test_what_is_no_schema_and_what_is_not_there(tmp_path: Path) -> None:
    path = stream_file(tmp_path, b"\1")
    found = tool("inspect", path, "--schema", path)
    assert found.returncode == 2
    assert str(path).encode() in found.stderr
    found = tool("inspect", path, "--schema", tmp_path / "none")
    assert found.returncode == 2
    assert b"none" in found.stderr


def test_a_schema_reads_what_no_layout_is_built_in_for(tmp_path: Path) -> None:
    made = schemas.schema(schemas.description("dev", schemas.field("a")))
    with cprtools.open(stream_file(tmp_path, b"\0\0\0\5"), schema=made) as state:
        (section,) = state.stream.sections()
        tree, notices = state.stream.decode(section)
    assert tree["body.a"].value == 5
    assert notices == ()


def test_disagreements_are_notices_of_their_sections() -> None:
    path = fixture_path("migration/11.1-q35-base.sav.xz")
    found = tool("inspect", path, "--schema", "builtin:7.2", "--json", "--no-ram")
    items = json.loads(found.stdout)["layers"][-1]["items"]
    said = {item["name"]: item["notices"] for item in items if "notices" in item}
    assert set(said) == {"hpet", "0000:00:1f.2/ich9_ahci", "globalstate"}
    assert "schema has num_timers (uint8, 1 bytes)" in said["hpet"][0]


def test_its_own_schema_has_nothing_to_say() -> None:
    found = tool("inspect", fixture_path(NO_VMDESC), "--schema", "builtin:10.0")
    assert b"Warnings" not in found.stdout
    assert b"kept raw 0" in found.stdout
