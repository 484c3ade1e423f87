"""What changed between two schemas, as text: a table by device, or all about some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from cprformats.schema.difference import Difference, DifferenceKind, Meaning, SchemaDiff, Verdict
from cprformats.schema.model import Schema
from cprtools.report.output import Column, Output, Part
from cprtools.report.schema_diff_words import (
    brief,
    change_words,
    is_part,
    owner,
    sorted_for_reading,
)
from cprtools.report.words import count

__all__ = ["write_schema_diff"]

_TABLE: Final = (
    Column("device", style="name"),
    Column("description"),
    Column(""),
    Column("old in new"),
    Column("new in old"),
    Column("changes", style="dim", fold=True),
)
_TOTALS: Final = (
    Column("descriptions"),
    Column("number", right=True),
    *(Column(f"old in new: {one}", right=True) for one in Verdict),
    *(Column(f"new in old: {one}", right=True) for one in Verdict),
)
_STYLES: Final = {Verdict.LOADS: "words", Verdict.DEPENDS: "warn", Verdict.FAILS: "bad"}
_MOST_CHANGES: Final = 4


def write_schema_diff(
    out: Output,
    names: tuple[str, str],
    schemas: tuple[Schema, Schema],
    diff: SchemaDiff,
    *,
    details: bool,
) -> None:
    """Write the totals and the differences.

    Args:
        out: where to.
        names: of the old and of the new schema.
        schemas: the old one and the new one.
        diff: what to write.
        details: all changes and reasons of each difference, not a table.
    """
    out.lines(_head(names, schemas, diff))
    if not diff.differences:
        out.line()
        out.line(("no difference", "head"))
        return
    if details:
        for one in sorted_for_reading(diff.differences):
            _write_details(out, one)
        return
    out.line()
    out.table(_TOTALS, _totals(diff))
    _write_table(out, diff)


def _head(
    names: tuple[str, str], schemas: tuple[Schema, Schema], diff: SchemaDiff
) -> Iterator[Sequence[Part]]:
    for word, name, schema in zip(("old", "new"), names, schemas, strict=True):
        yield (f"{word}  ", "dim"), (name, "title"), f": {len(schema.descriptions)} descriptions"
    yield ("both ", "dim"), f"{diff.compared} descriptions compared"
    if "dump" in {schema.origin for schema in schemas}:
        yield (("a dump has no types and functions: these are not compared", "warn"),)
    for word, types in (("only old", diff.devices_removed), ("only new", diff.devices_added)):
        if types:
            yield (f"device types {word}  ", "dim"), ", ".join(types)
    for device, before, after in diff.devices_changed:
        yield ("device type ", "dim"), device, f": section {before} is now {after}"


def _totals(diff: SchemaDiff) -> Iterator[tuple[str, ...]]:
    for kind in DifferenceKind:
        found = diff.of_kind(kind)
        if found:
            forward = Counter(one.old_in_new.verdict for one in found)
            backward = Counter(one.new_in_old.verdict for one in found)
            numbers = [len(found), *(way[one] for way in (forward, backward) for one in Verdict)]
            yield (kind.value, *map(str, numbers))


def _write_table(out: Output, diff: SchemaDiff) -> None:
    shown = [one for one in sorted_for_reading(diff.differences) if not is_part(one)]
    out.line()
    out.table(_TABLE, map(_row, shown))
    parts = len(diff.differences) - len(shown)
    if parts:
        words = count(parts, "structure or subsection", "structures and subsections")
        out.line((f"  and {words} that came or went with them: see --json, or --name", "dim"))


def _row(one: Difference) -> tuple[str, ...]:
    verdicts = (one.old_in_new.verdict.value, one.new_in_old.verdict.value)
    description = one.name if one.users else ""
    return (owner(one), description, one.kind.value, *verdicts, brief(one.changes, _MOST_CHANGES))


def _write_details(out: Output, one: Difference) -> None:
    out.line()
    key = one.after or one.before
    out.line((key, "title"), f"  {one.kind.value}, {one.role.value}")
    if one.users:
        out.line(("  used by      ", "dim"), ", ".join(one.users))
    for change in one.changes:
        out.line("  ", change_words(change))
    _write_meaning(out, "old in new", one.old_in_new)
    _write_meaning(out, "new in old", one.new_in_old)


def _write_meaning(out: Output, words: str, meaning: Meaning) -> None:
    out.line((f"  {words}   ", "dim"), (meaning.verdict.value, _STYLES[meaning.verdict]))
    for reason in meaning.reasons:
        out.line("    ", (f"{reason.verdict.value:8}", _STYLES[reason.verdict]), reason.text)
