"""Captures read by the schema of the QEMU that wrote them, their vmdesc hidden."""

from __future__ import annotations

import pytest
from byschema import CASES, captures, hidden, measure, opened
from dumps import found

import cprtools
from checks import fixture_path
from cprformats.fields import Kind, leaves
from cprformats.migration import Located, MigrationStream
from cprformats.migration.byschema.disagree import disagreements

pytestmark = pytest.mark.live

LEAST_SAME = 0.98
#: Small captures, of which a tenth is arrays without a value that would tell where one
#: ends: sifive_plic has five of them, and no count in the stream.
LESS_SAME = {"riscv32": 0.92}
#: Captures of machine types older than 2.4, whose streams have no footers.
WITHOUT_FOOTERS = ("5.2-pc-1.0-named", "5.2-pc-i440fx-2.3-named", "7.2-pc-i440fx-1.7-named")


@pytest.mark.slow
@pytest.mark.parametrize(("version", "target"), CASES)
def test_schema_alone_gives_what_the_vmdesc_gives(version: str, target: str) -> None:
    complaints: list[str] = []
    figures = measure(version, target, complaints)
    assert figures.wrong == 0, complaints
    assert figures.sections > 0
    assert figures.same >= LESS_SAME.get(target, LEAST_SAME) * figures.bytes, complaints
    assert figures.same + figures.undecided + figures.lost == figures.bytes


@pytest.mark.parametrize(("version", "target"), CASES)
def test_captures_without_vmdesc_have_no_raw_section(version: str, target: str) -> None:
    schema = found(version, target).schema
    for name in captures(version, target):
        if all(stream.vmdesc is not None for stream in opened(name)):
            continue
        with cprtools.open(fixture_path(name), keep_all=True, schema=schema) as state:
            stream = state.stream
            for section in stream.sections():
                if section.body_size and not section.holds_ram:
                    tree, notices = stream.decode(section)
                    body = next(child for child in tree.children if child.name == "body")
                    kinds = {leaf.kind for leaf in leaves(body)}
                    assert kinds - {Kind.RAW, Kind.UNKNOWN}, (name, section.name, notices)


@pytest.mark.parametrize("version", ["5.2", "7.2", "8.2", "10.0", "11.1"])
def test_a_schema_agrees_with_what_its_own_qemu_wrote(version: str) -> None:
    schema = found(version).schema
    for name in captures(version, "x86_64"):
        if "-named" in name or not name.startswith("migration/"):
            continue
        for stream in opened(name):
            assert disagreements(stream, schema) == (), name
            return


@pytest.mark.parametrize("name", WITHOUT_FOOTERS)
def test_streams_without_footers_are_framed_by_the_schema(name: str) -> None:
    for stream in opened(f"migration/{name}.sav.xz"):
        schema = found(name.partition("-")[0]).schema
        bare = hidden(stream, schema)
        assert (bare.error, bare.warnings) == (None, ())
        assert _places(bare) == _places(stream)
        located = {section.located for section in bare.sections()}
        assert located == {Located.SCHEMA, Located.ITSELF}


def _places(stream: MigrationStream) -> list[tuple[str, int, int]]:
    return [(x.idstr, x.body_offset, x.body_size) for x in stream.sections()]


def test_another_version_disagrees_where_a_field_was_renamed() -> None:
    for stream in opened("migration/11.1-q35-base.sav.xz"):
        told = {one.section: one for one in disagreements(stream, found("7.2").schema)}
        assert told["hpet"].expected.startswith("num_timers (")
        assert told["hpet"].found.startswith("num_timers_save (")
        assert told["hpet"].kind == "field"
