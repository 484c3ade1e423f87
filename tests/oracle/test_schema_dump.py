"""Schemas read out of the binaries against what the same QEMUs print of themselves.

`-dump-vmstate` prints the description of each device class, nested ones written
out (QEMU migration/savevm.c, dump_vmstate_json_to_file). Both sides are brought
into one form, and every description printed, nested or not, must have its equal
in the schema: names, versions, fields in order with sizes, subsections.
"""

from __future__ import annotations

import json
import lzma
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import qemus
from checks import fixture_names, fixture_path
from cprformats.migration import read_stream
from cprformats.migration.vmdesc import VmsdDesc
from cprformats.schema.model import Schema
from cprformats.schema.walk import read_schema
from cprformats.source import BytesSource, FileSource

pytestmark = pytest.mark.live

MACHINES = ("q35", "pc", "microvm", "none")
CASES = [
    *((version, "x86_64", machine) for version in qemus.VERSIONS for machine in MACHINES),
    *(("10.0", target, "none") for target in ("aarch64", "ppc64", "riscv64", "s390x")),
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

#: Names that a printed description shares with one that belongs to no device class.
SHARED_NAMES = {
    "": "the stub of zeros on Arm, and eepro100's",
    "amd-iommu": "11.1: of the PCI function, registered by the IOMMU itself",
    "timer": "of the CPU timers, and of two boards' timer devices",
}

#: Before 8.0 the dump doesn't print the number of elements (dump_vmstate_vmsf).
NO_NUMBERS = {"5.2", "7.2"}

Node = tuple[Any, ...]


@dataclass(frozen=True)
class Found:
    """The files of a version and their schema."""

    files: tuple[Path, ...]
    schema: Schema


@cache
def found(version: str, target: str = "x86_64") -> Found:
    wrapper = qemus.qemu_path(version, target).read_text()
    program = re.search(r"--library-path \S+ (\S+)", wrapper)
    modules = re.search(r"QEMU_MODULE_DIR=(\S+)", wrapper)
    assert program
    files = [Path(program[1])]
    files += sorted(Path(modules[1]).glob("*.so")) if modules else []
    opened = [(path.name, path.open("rb")) for path in files]
    try:
        schema = read_schema([(name, FileSource(file)) for name, file in opened])
    finally:
        for _, file in opened:
            file.close()
    return Found(tuple(files), schema)


def dumped(program: Path, machine: str, folder: Path) -> dict[str, Any]:
    file = folder / "dump.json"
    line = [program, "-machine", machine, "-display", "none", "-dump-vmstate", file]
    subprocess.run(line, check=True, capture_output=True, timeout=60)
    made = json.loads(file.read_text())
    assert isinstance(made, dict)
    return made


# -- the common form: (name, version, minimum, fields, subsections) -----------------


def printed(one: dict[str, Any]) -> Node:
    fields = tuple(
        (
            entry["field"],
            entry["version_id"],
            entry["field_exists"],
            entry["size"],
            entry.get("num"),
            printed(entry["Description"]) if "Description" in entry else None,
        )
        for entry in one.get("Fields", ())
    )
    subsections = tuple(map(printed, one.get("Subsections", ())))
    # acpi-cpu-hotplug-stub.c has a description of zeros; printf makes "(null)" of its name.
    name = "" if one["name"] == "(null)" else one["name"]
    return (name, one["version_id"], one["minimum_version_id"], fields, subsections)


def read(schema: Schema, key: str, *, numbers: bool, above: tuple[str, ...] = ()) -> Node:
    one = schema.descriptions.get(key)
    if one is None or key in above:
        return ("not here", key)
    path = (*above, key)

    def nested(key: str) -> Node:
        return read(schema, key, numbers=numbers, above=path)

    fields = tuple(
        (
            entry.name,
            entry.version_id,
            entry.conditional,
            entry.size,
            entry.num if numbers and "ARRAY" in entry.flags else None,
            nested(entry.nested) if entry.nested else None,
        )
        for entry in one.fields
        if entry.on_wire
    )
    subsections = tuple(map(nested, one.subsections))
    return (one.name, one.version_id, one.minimum_version_id, fields, subsections)


def nodes(one: Node) -> Iterator[Node]:
    yield one
    for entry in one[3]:
        if entry[5] is not None:
            yield from nodes(entry[5])
    for subsection in one[4]:
        yield from nodes(subsection)


@pytest.mark.parametrize(("version", "target", "machine"), CASES)
def test_all_that_is_printed_is_found(
    version: str, target: str, machine: str, tmp_path: Path
) -> None:
    schema = found(version, target).schema
    dump = dumped(qemus.qemu_path(version, target), machine, tmp_path)
    devices = [entry["Description"] for entry in dump.values() if "Description" in entry]
    wanted = {node for device in devices for node in nodes(printed(device))}
    numbers = version not in NO_NUMBERS
    have = {read(schema, key, numbers=numbers): key for key in schema.descriptions}

    missing = sorted({node[0] for node in wanted - have.keys()})
    names = {node[0] for node in wanted}
    named = [node for node in have if node[0] in names]
    right = sum(node in wanted for node in named)
    print(
        f"{version} {target} {machine}: printed {len(devices)} devices, "
        f"{len(wanted)} descriptions; "
        f"recall {len(wanted & have.keys())}/{len(wanted)}, "
        f"precision among names printed {right}/{len(named)}, "
        f"found besides {len(have) - len(named)}, in all {len(schema.descriptions)}"
    )
    assert missing == []
    assert len(devices) > 80
    assert {node[0] for node in named if node not in wanted} <= SHARED_NAMES.keys()


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
