"""How much of the captures is read by schema alone, against what their vmdesc says.

    python3 tests/oracle/byschema.py [VERSION]...      print the table

Each capture that has a vmdesc is read a second time without it, by the schema of
the QEMU that wrote it, and the leaves of each device section are compared: path,
offset, size, codec, type and value.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[2]
    sys.path[:0] = [
        str(ROOT / name)
        for name in (".", "formats", "proto", "fixtures/recipes", "tests", "tests/oracle")
    ]

import dumps

import cprtools
import qemus
from checks import entries, fixture_path
from cprformats.fields import Field, Kind
from cprformats.migration import MigrationStream, Section, read_stream
from cprformats.migration.wire import SectionType
from cprformats.schema.model import Schema

__all__ = ["CASES", "Figures", "captures", "measure", "opened"]

#: path, offset, size, codec, type, value
Leaf = tuple[str, int, int, str, str, str]


def _version(name: str) -> str:
    qemu = entries()[name].get("qemu", "")
    return next((version for version in qemus.VERSIONS if qemu.startswith(f"{version}.")), "")


def captures(version: str, target: str) -> list[str]:
    """Fixtures that a QEMU wrote whole; channels and descriptors apart."""
    return [
        name
        for name, entry in entries().items()
        if _version(name) == version
        and entry["target"] == target
        and entry["kind"] in ("migration", "xen", "qcow2", "libvirt")
        and "cut" not in entry["tags"]
        and ".mfd-" not in name
    ]


CASES = sorted({(_version(name), entries()[name]["target"]) for name in entries()} - {("", "")})
CASES = [case for case in CASES if case[0] and captures(*case)]


@dataclass
class Figures:
    """Counts over the captures of one QEMU.

    Attributes:
        captures: with a vmdesc.
        sections: of devices, described by the vmdesc.
        bytes: of their bodies.
        same: of these, read as by the vmdesc.
        renamed: of `same`, without the one field around all others, whose name is undecided.
        undecided: of these, said to be undecided.
        lost: of these, in sections that nothing was read of.
        wrong: of these, in leaves that differ.
    """

    captures: int = 0
    sections: int = 0
    bytes: int = 0
    same: int = 0
    renamed: int = 0
    undecided: int = 0
    lost: int = 0
    wrong: int = 0


def opened(name: str) -> Iterator[MigrationStream]:
    """The stream inside a fixture, if there is one."""
    with cprtools.open(fixture_path(name), keep_all=True) as state:
        content = state.layers[-1].content
        if isinstance(content, MigrationStream):
            yield content


def measure(version: str, target: str, complaints: list[str]) -> Figures:
    """Count over all captures of one QEMU; what is not the same is said in `complaints`."""
    figures = Figures()
    schema = dumps.found(version, target).schema
    for name in captures(version, target):
        for stream in opened(name):
            if stream.vmdesc is not None:
                figures.captures += 1
                _compare(stream, hidden(stream, schema), figures, name, complaints)
    return figures


def hidden(stream: MigrationStream, schema: Schema) -> MigrationStream:
    """The same stream up to its vmdesc, read by the schema.

    Where only the vmdesc tells the size of a page, RAM can't be read without it: then
    the places of the sections are kept, and their descriptions are not.
    """
    (end,) = (item.field.offset for item in stream.items if getattr(item, "name", "") == "vmdesc")
    bare = read_stream(stream.source, stream.offset, end, schema=schema)
    if bare.page_size == stream.page_size:
        return bare
    assert bare.resolver is not None
    bare.resolver.learn(stream.page_size, stream.configuration)
    items = [
        replace(item, description=None) if isinstance(item, Section) else item
        for item in stream.flat()
    ]
    return replace(stream, items=items, vmdesc=None, resolver=bare.resolver)


def _compare(
    stream: MigrationStream,
    bare: MigrationStream,
    figures: Figures,
    name: str,
    complaints: list[str],
) -> None:
    assert bare.error is None, f"{name}: {bare.error}"
    for ours, theirs in zip(bare.sections(), stream.sections(), strict=True):
        assert (ours.body_offset, ours.body_size) == (theirs.body_offset, theirs.body_size), name
        description = theirs.description
        if description is None or description.old_style or theirs.type is not SectionType.FULL:
            continue
        figures.sections += 1
        figures.bytes += theirs.body_size
        found = _section(stream, theirs, bare, ours, figures)
        complaints.extend(f"{name}: {theirs.name}: {complaint}" for complaint in found)


def _section(
    stream: MigrationStream,
    theirs: Section,
    bare: MigrationStream,
    ours: Section,
    figures: Figures,
) -> Iterator[str]:
    wanted = set(_leaves(stream.decode(theirs)[0]))
    tree, notices = bare.decode(ours)
    got = list(_leaves(tree))
    assert sum(leaf[2] for leaf in got) == theirs.body_size
    prefix = _missing_prefix(got, wanted)
    for path, *rest in got:
        offset, size, codec, *_ = rest
        if codec == "raw":
            known = "undecided" in path
            figures.undecided += size if known else 0
            figures.lost += 0 if known else size
            yield f"{path} {size} bytes {'undecided' if known else 'lost'}: {notices[0]}"
        elif (prefix + path, *rest) in wanted:
            figures.same += size
            figures.renamed += size if prefix else 0
        else:
            figures.wrong += size
            yield f"{path} at {offset:#x} is wrong: {rest}"


def _missing_prefix(got: list[Leaf], wanted: set[Leaf]) -> str:
    """Name of the one field around all others, where ours lacks it."""
    if not got or not wanted or got[0] in wanted:
        return ""
    path, *rest = got[0]
    found = [one[0] for one in wanted if list(one[1:]) == rest and one[0].endswith(f".{path}")]
    return (
        found[0].removesuffix(path) if found and "." not in found[0].removesuffix(path)[:-1] else ""
    )


def _leaves(tree: Field) -> Iterator[Leaf]:
    for child in tree.children:
        if child.name == "body":
            yield from _below(child, "")


def _below(field: Field, path: str) -> Iterator[Leaf]:
    for child in field.children:
        name = f"{path}.{child.name}" if path else child.name
        if child.codec:
            codec = "raw" if child.kind is Kind.RAW else child.codec
            yield name, child.offset, child.size, codec, child.type, repr(child.value)
        yield from _below(child, name)


def _print_table(cases: list[tuple[str, str]]) -> None:
    names = [field.name for field in fields(Figures)]
    print("version\ttarget\t" + "\t".join(names) + "\tsame %")
    for version, target in cases:
        complaints: list[str] = []
        figures = measure(version, target, complaints)
        counts = "\t".join(str(getattr(figures, name)) for name in names)
        print(
            f"{version}\t{target}\t{counts}\t{100 * figures.same / figures.bytes:.3f}", flush=True
        )
        for complaint in complaints:
            print(f"  {complaint}"[:200], file=sys.stderr)


if __name__ == "__main__":
    _print_table([case for case in CASES if not sys.argv[1:] or case[0] in sys.argv[1:]])
