"""What QEMU prints of its descriptions, and what was read, brought into one form.

`-dump-vmstate` prints the description of each device class, nested ones written
out (QEMU migration/savevm.c, dump_vmstate_json_to_file).
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import qemus
import qemus_foreign
from cprformats.schema.model import Schema
from cprformats.schema.walk import read_schema
from cprformats.source import FileSource

#: Before 8.0 the dump doesn't print the number of elements (dump_vmstate_vmsf).
NO_NUMBERS = {"5.2", "7.2"}
#: Where there are packages of more programs than qemu-system-x86_64.
TARGETS = {"7.2": ("aarch64",), "10.0": ("aarch64", "ppc64", "riscv64", "s390x")}

Node = tuple[Any, ...]


@dataclass(frozen=True)
class Found:
    """The files of a version and their schema."""

    files: tuple[Path, ...]
    schema: Schema


def files_of(version: str, target: str = "x86_64") -> list[Path]:
    """The program of a target and the modules beside it."""
    wrapper = qemus.qemu_path(version, target).read_text()
    program = re.search(r"--library-path \S+ (\S+)", wrapper)
    modules = re.search(r"QEMU_MODULE_DIR=(\S+)", wrapper)
    assert program
    return [Path(program[1]), *(sorted(Path(modules[1]).glob("*.so")) if modules else [])]


@cache
def found(version: str, target: str = "x86_64") -> Found:
    return _read(files_of(version, target))


@cache
def found_foreign(version: str, target: str) -> Found:
    """The same for a host that is not this one."""
    return _read(qemus_foreign.foreign_files(version, target))


def _read(files: Sequence[Path]) -> Found:
    opened = [(path.name, path.open("rb")) for path in files]
    try:
        schema = read_schema([(name, FileSource(file)) for name, file in opened])
    finally:
        for _, file in opened:
            file.close()
    return Found(tuple(files), schema)


# -- dumps ----------------------------------------------------------------------------


def machines(version: str, target: str) -> list[str]:
    """All machine types of a program, in the order of its help."""
    program = qemus.qemu_path(version, target)
    lines = subprocess.run([program, "-M", "help"], capture_output=True, check=True, text=True)
    return [line.split()[0] for line in lines.stdout.splitlines()[1:]]


def few(names: Sequence[str], most: int = 12) -> list[str]:
    """Some machine types, from the first to the last."""
    return [names[at * len(names) // most] for at in range(most)] if len(names) > most else [*names]


def dumped(version: str, target: str, machine: str, folder: Path) -> dict[str, Any]:
    """What -dump-vmstate writes; `vmschkmachine` tells the machine."""
    file = folder / "dump.json"
    program = qemus.qemu_path(version, target)
    line = [program, "-machine", machine, "-display", "none", "-dump-vmstate", file]
    subprocess.run(line, check=True, capture_output=True, timeout=60)
    made = json.loads(file.read_text())
    assert isinstance(made, dict)
    return made


def devices(dump: dict[str, Any]) -> list[dict[str, Any]]:
    """The descriptions of the device classes that have one."""
    return [entry["Description"] for entry in dump.values() if "Description" in entry]


def wanted_nodes(dump: dict[str, Any]) -> set[Node]:
    """All descriptions that a dump prints, nested or not."""
    return {node for device in devices(dump) for node in nodes(printed(device))}


def have_nodes(schema: Schema, version: str) -> dict[Node, str]:
    """All descriptions of a schema, with their keys."""
    numbers = version not in NO_NUMBERS
    return {read(schema, key, numbers=numbers): key for key in schema.descriptions}


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
