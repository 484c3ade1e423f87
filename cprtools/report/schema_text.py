"""A schema as text: a table of the descriptions, or some of them with their fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cprformats.schema.model import CountFrom, Description, FieldFormat, Schema
from cprtools.report.output import Column, Output, Part

__all__ = ["write_schema"]

_TABLE = (
    Column("description", style="name"),
    Column("ver", right=True),
    Column("min", right=True),
    Column("fields", right=True),
    Column("subsections", right=True),
    Column("", style="dim", fold=True),
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


def write_schema(
    out: Output, schema: Schema, chosen: Sequence[Description], *, fields: bool
) -> None:
    """Write the head, and the chosen descriptions as a table or with all fields."""
    out.lines(_head(schema))
    if fields:
        for one in chosen:
            _write_description(out, one)
    elif chosen:
        out.line()
        out.table(_TABLE, map(_row, chosen))


def _head(schema: Schema) -> Iterator[list[Part]]:
    for one in schema.binaries:
        shape = "position-independent" if one.kind == "dyn" else "at fixed addresses"
        build = f", build id {one.build_id}" if one.build_id else ""
        yield [(one.name, "title"), f": ELF for {one.arch}, {shape}{build}"]
    if schema.era:
        yield []
        yield [("  layouts       ", "dim"), schema.era]
        yield [("  descriptions  ", "dim"), _totals(schema)]
    if schema.missing:
        yield [("  not here      ", "warn"), ", ".join(schema.missing)]


def _totals(schema: Schema) -> str:
    every = schema.descriptions.values()
    fields = sum(len(one.fields) for one in every)
    return f"{len(schema.descriptions)}, {len(schema.roots())} of them top-level, {fields} fields"


def _row(one: Description) -> tuple[str, ...]:
    numbers = (one.version_id, one.minimum_version_id, len(one.fields), len(one.subsections))
    return (one.key, *map(str, numbers), _notes(one))


def _notes(one: Description) -> str:
    notes = ["unmigratable"] if one.unmigratable else []
    notes += ["before RAM"] if one.early_setup else []
    notes += [f"priority {one.priority}"] if one.priority else []
    return ", ".join(notes)


def _write_description(out: Output, one: Description) -> None:
    out.line()
    versions = f" version {one.version_id}, loads {one.minimum_version_id} and later"
    notes = _notes(one)
    out.line((one.key, "title"), versions, f", {notes}" if notes else "")
    if one.hooks:
        out.line(("  functions    ", "dim"), ", ".join(one.hooks))
    if one.subsections:
        out.line(("  subsections  ", "dim"), ", ".join(one.subsections))
    if one.fields:
        out.table(_FIELDS, map(_field, one.fields))


def _field(one: FieldFormat) -> tuple[str, ...]:
    size = _count(one.size_from) if one.size_from else str(one.size)
    number = _count(one.count_from) if one.count_from else (str(one.num) if one.num else "")
    since = str(one.version_id) if one.version_id else ""
    kind = one.info or (one.nested and "struct")
    notes = [one.nested, one.nested_key, "if a test says so" if one.conditional else ""]
    notes.append("" if one.on_wire else "only a check")
    return (
        *(f"{one.offset:#x}", size, number, since, one.name, kind),
        ", ".join(filter(None, notes)),
    )


def _count(one: CountFrom) -> str:
    times = f" x {one.times}" if one.times != 1 else ""
    return f"{one.kind} at {one.offset:#x}{times}"
