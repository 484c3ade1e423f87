"""A schema as text: a table of the descriptions, or some of them with their fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cprformats.schema.model import CountFrom, Description, FieldFormat, Schema
from cprformats.schema.priorities import priority_names
from cprtools.report.output import Column, Output, Part

__all__ = ["write_list", "write_schema"]

_TABLE = (
    Column("description", style="name"),
    Column("ver", right=True),
    Column("min", right=True),
    Column("fields", right=True),
    Column("subsections", right=True),
    Column("", style="dim", fold=True),
)
_LIST = (
    Column("name", style="name"),
    Column("descriptions", right=True),
    Column("modules", right=True),
    Column("package"),
    Column("from", style="dim", fold=True),
)
_FIELDS = (
    Column("offset", right=True, style="dim"),
    Column("size", right=True),
    Column("number", right=True),
    Column("since", right=True),
    Column("field", style="name"),
    Column("type"),
    Column("", style="dim", fold=True),
)


@dataclass(frozen=True, slots=True)
class _Words:
    """What is said of a description beside its numbers."""

    priorities: Mapping[int, str]
    devices: Mapping[str, list[str]]
    offsets: bool

    def notes(self, one: Description) -> str:
        notes = ["unmigratable"] if one.unmigratable else []
        notes += ["before RAM"] if one.early_setup else []
        if one.priority:
            notes.append(f"priority {self.priorities.get(one.priority, one.priority)}")
        return ", ".join(notes)

    def row(self, one: Description) -> tuple[str, ...]:
        numbers = (one.version_id, one.minimum_version_id, len(one.fields), len(one.subsections))
        devices = ", ".join(self.devices.get(one.key, ()))
        return (one.key, *map(str, numbers), "; ".join(filter(None, (self.notes(one), devices))))


def _words(schema: Schema) -> _Words:
    devices: dict[str, list[str]] = {}
    for name, key in sorted(schema.devices.items()):
        devices.setdefault(key, []).append(name)
    return _Words(priority_names(schema), devices, offsets=schema.origin != "dump")


def write_schema(
    out: Output, schema: Schema, chosen: Sequence[Description], *, fields: bool
) -> None:
    """Write the head, and the chosen descriptions as a table or with all fields."""
    words = _words(schema)
    out.lines(_head(schema))
    if fields:
        for one in chosen:
            _write_description(out, one, words)
    elif chosen:
        out.line()
        out.table(_TABLE, map(words.row, chosen))


def write_list(out: Output, schemas: Mapping[str, Schema]) -> None:
    """Write one line for each schema that comes with cprtools, by the name to call it by."""
    out.table(_LIST, (_listed(name, one) for name, one in schemas.items()))


def _listed(name: str, schema: Schema) -> tuple[str, ...]:
    numbers = (len(schema.descriptions), len(schema.binaries) - 1)
    known = schema.provenance
    return (name, *map(str, numbers), known.get("package", ""), known.get("source", ""))


def _head(schema: Schema) -> Iterator[list[Part]]:
    for one in schema.binaries[:1]:
        shape = "position-independent" if one.kind == "dyn" else "at fixed addresses"
        build = f", build id {one.build_id}" if one.build_id else ""
        yield [(one.name, "title"), f": ELF for {one.arch}, {shape}{build}"]
    if schema.origin == "dump":
        yield [("dump", "title"), f" of machine {schema.machine}: names and sizes, no types"]
    for name, reason in schema.left_out.items():
        yield [(name, "title"), (f": {reason}, left out", "warn")]
    yield []
    for name, text in schema.provenance.items():
        yield [(f"  {name:<12}  ", "dim"), text]
    if schema.binaries[1:]:
        yield [("  modules       ", "dim"), _modules(schema)]
    if schema.era:
        yield [("  layouts       ", "dim"), schema.era]
    if schema.descriptions:
        yield [("  descriptions  ", "dim"), _totals(schema)]
    if schema.devices:
        yield [("  device types  ", "dim"), str(len(schema.devices))]
    if schema.missing:
        yield [("  not here      ", "warn"), ", ".join(schema.missing)]
    if schema.unlinked:
        yield [("  not found     ", "warn"), "description of " + ", ".join(schema.unlinked)]


def _modules(schema: Schema) -> str:
    """How many, and which of them have descriptions."""
    used = {one.object for one in schema.descriptions.values()}
    named = [one.name for one in schema.binaries[1:] if one.name in used]
    return f"{len(schema.binaries) - 1}" + (f": {', '.join(named)}" if named else "")


def _totals(schema: Schema) -> str:
    every = schema.descriptions.values()
    fields = sum(len(one.fields) for one in every)
    return f"{len(schema.descriptions)}, {len(schema.roots())} of them top-level, {fields} fields"


def _write_description(out: Output, one: Description, words: _Words) -> None:
    out.line()
    versions = f" version {one.version_id}, loads {one.minimum_version_id} and later"
    notes = words.notes(one)
    out.line((one.key, "title"), versions, f", {notes}" if notes else "")
    if one.key in words.devices:
        out.line(("  device types ", "dim"), ", ".join(words.devices[one.key]))
    if one.hooks:
        out.line(("  functions    ", "dim"), ", ".join(one.hooks))
    if one.subsections:
        out.line(("  subsections  ", "dim"), ", ".join(one.subsections))
    if one.fields:
        out.table(_FIELDS, (_field(each, words.offsets) for each in one.fields))


def _field(one: FieldFormat, offsets: bool) -> tuple[str, ...]:
    size = _count(one.size_from) if one.size_from else str(one.size)
    number = _count(one.count_from) if one.count_from else (str(one.num) if one.num else "")
    since = str(one.version_id) if one.version_id else ""
    kind = one.info or (one.nested and "struct")
    notes = [one.nested, one.nested_key, "if a test says so" if one.conditional else ""]
    notes.append("" if one.on_wire else "only a check")
    return (
        *(f"{one.offset:#x}" if offsets else "", size, number, since, one.name, kind),
        ", ".join(filter(None, notes)),
    )


def _count(one: CountFrom) -> str:
    times = f" x {one.times}" if one.times != 1 else ""
    return f"{one.kind} at {one.offset:#x}{times}"
