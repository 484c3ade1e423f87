"""Schemas read out of the binaries against what the same QEMUs print of themselves.

`-dump-vmstate` prints the description of each device class, nested ones written
out (QEMU migration/savevm.c, dump_vmstate_json_to_file). Both sides are brought
into one form, and every description printed, nested or not, must have its equal
in the schema: names, versions, fields in order with sizes, subsections.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import dumps
import pytest
import sources
from dumps import Node, found

import qemus
from checks import fixture_names, fixture_path
from cprformats.migration import read_stream
from cprformats.migration.vmdesc import VmsdDesc
from cprformats.schema.model import Schema
from cprformats.source import BytesSource

pytestmark = pytest.mark.live

CASES = [
    *((version, "x86_64") for version in qemus.VERSIONS),
    *((version, target) for version, targets in dumps.TARGETS.items() for target in targets),
]

#: Names of descriptions that are found and not printed: they belong to no device class,
#: but are registered by hand or used by hand-written code -> one of each kind.
NOT_DEVICES = {
    "configuration": "the CONFIGURATION section",
    "globalstate": "registered by migration itself",
    "timer": "registered by the CPU timers",
    "cpu_common": "registered by cpu_exec_realizefn",
    "PCIBUS": "registered by each bus",
    "virtio": "used by virtio_save, a hand-written function",
}

#: eepro100.c copies a description without a name and calls it after the card's model.
NAMED_AT_RUN_TIME = re.compile("i825..|i828..")

#: Machines that can only be started where Xen runs; no dump has more than others have.
XEN = re.compile("xen")


@cache
def everything_printed(version: str, target: str, folder: Path) -> frozenset[Node]:
    return frozenset(dumps.wanted_nodes(dumps.dumped(version, target, "none", folder)))


@pytest.mark.parametrize(("version", "target"), CASES)
def test_all_that_is_printed_is_found(
    version: str, target: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    schema = found(version, target).schema
    wanted = everything_printed(version, target, tmp_path_factory.getbasetemp())
    have = dumps.have_nodes(schema, version)
    assert sorted({node[0] for node in wanted - have.keys()}) == []
    assert len(wanted) > 100


@pytest.mark.parametrize(("version", "target"), CASES)
def test_the_dump_is_the_same_for_all_machines(version: str, target: str, tmp_path: Path) -> None:
    """So one machine's dump is enough; tests/oracle/accuracy.py asks all of them."""
    first = dumps.dumped(version, target, "none", tmp_path)
    del first["vmschkmachine"]
    names = [name for name in dumps.machines(version, target) if not XEN.match(name)]
    for name in dumps.few(names):
        dump = dumps.dumped(version, target, name, tmp_path)
        assert dump.pop("vmschkmachine")
        assert dump == first, name
    assert len(names) > 5


@pytest.mark.parametrize(("version", "target"), CASES)
def test_no_description_is_false(
    version: str, target: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What is not printed has its name in QEMU's source."""
    schema = found(version, target).schema
    wanted = everything_printed(version, target, tmp_path_factory.getbasetemp())
    keys = [key for node, key in dumps.have_nodes(schema, version).items() if node not in wanted]
    assert sources.unconfirmed(schema, keys, version) == []
    assert len(keys) > 50


@pytest.mark.parametrize("version", qemus.VERSIONS)
def test_what_no_device_class_has_is_found_too(version: str) -> None:
    schema = found(version).schema
    assert [name for name in NOT_DEVICES if not schema.named(name)] == []
    assert schema.missing == ()
    assert len(schema.named("")) == 1


# -- and against descriptions that came with streams ----------------------------------


def streams(version: str) -> list[str]:
    names = (name for name in fixture_names("migration") if name.endswith(".sav.xz"))
    return [name for name in names if re.match(rf"migration/{version}-(q35|pc)-", name)]


def plain(name: str) -> str:
    return re.sub(r"\[\d+\]$", "", name)


def misfits(schema: Schema, sent: VmsdDesc) -> Iterator[str]:
    """Say what of a description that was sent no description of that name has."""
    late = NAMED_AT_RUN_TIME.fullmatch(sent.vmsd_name)
    candidates = schema.named("" if late else sent.vmsd_name)
    if not candidates:
        yield f"{sent.vmsd_name}: no such description"
    elif not any(_covers([f.name for f in one.fields], sent) for one in candidates):
        yield f"{sent.vmsd_name}: other fields"
    known = {(plain(f.name), f.info) for one in candidates for f in one.fields}
    for field in sent.fields:
        # Before 10.0 a NULL in an array of pointers calls itself a uint64 of one byte.
        null = field.is_marker or (field.type == "uint64" and field.size == 1)
        info = "" if field.type in ("struct", "vstruct") else field.type
        if not null and (plain(field.name), info) not in known:
            yield f"{sent.vmsd_name}: {field.name} is not of type {field.type}"
    for field in sent.fields:
        for inner in (*([field.struct] if field.struct else ()), *field.inline):
            yield from misfits(schema, inner)
    for subsection in sent.subsections:
        yield from misfits(schema, subsection)


def _covers(names: list[str], sent: VmsdDesc) -> bool:
    """Whether the fields sent are among those of the schema, in the same order."""
    rest = iter(map(plain, names))
    last = ""
    for field in sent.fields:
        if plain(field.name) != last and plain(field.name) not in rest:
            return False
        last = plain(field.name)
    return True


@pytest.mark.parametrize("version", qemus.VERSIONS)
def test_what_streams_hold_is_found(version: str) -> None:
    schema = found(version).schema
    names = streams(version)
    assert names
    seen: set[str] = set()
    wrong: set[str] = set()
    for name in names:
        stream = read_stream(BytesSource(lzma.decompress(fixture_path(name).read_bytes())))
        devices = stream.vmdesc.devices if stream.vmdesc else ()
        for device in devices:
            if not device.old_style:
                seen.add(device.vmsd.vmsd_name)
                wrong.update(misfits(schema, device.vmsd))
    print(f"{version}: {len(names)} streams, {len(seen)} kinds of device, {len(wrong)} misfits")
    assert sorted(wrong) == []
