"""A schema as JSON: one description a line, so that two of them can be compared with diff."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict

from cprformats.schema.model import CountFrom, Description, FieldFormat, Schema
from cprtools.report.json_out import JsonEmitter
from cprtools.report.values import Json

__all__ = ["write_schema_json"]

#: Changes when a member changes its meaning or goes away.
_VERSION = 1


def write_schema_json(
    write: Callable[[str], object], schema: Schema, chosen: Iterable[Description]
) -> None:
    """Write the schema with the descriptions that were chosen."""
    emitter = JsonEmitter(write)
    head: dict[str, Json] = {"format": "cprtools-schema", "version": _VERSION}
    emitter.object(head=head)
    emitter.put([asdict(one) for one in schema.binaries], "binaries")
    emitter.put(schema.era, "era")
    emitter.put(schema.reason, "reason")
    emitter.put(dict(schema.rejected), "rejected")
    emitter.put(list(schema.missing), "missing")
    emitter.array("descriptions")
    for one in chosen:
        emitter.put(_description(one))
    emitter.end(0)


def _description(one: Description) -> Json:
    return {
        "key": one.key,
        "name": one.name,
        "version_id": one.version_id,
        "minimum_version_id": one.minimum_version_id,
        "unmigratable": one.unmigratable,
        "early_setup": one.early_setup,
        "priority": one.priority,
        "hooks": list(one.hooks),
        "fields": [_field(each) for each in one.fields],
        "subsections": list(one.subsections),
        "object": one.object,
        "address": one.address,
    }


def _field(one: FieldFormat) -> Json:
    """A field without the members that say nothing."""
    made: dict[str, Json] = {
        "name": one.name,
        "offset": one.offset,
        "size": one.size,
        "num": one.num,
        "count_from": _count(one.count_from),
        "size_from": _count(one.size_from),
        "start": one.start,
        "flags": list(one.flags),
        "info": one.info,
        "version_id": one.version_id,
        "struct_version_id": one.struct_version_id,
        "conditional": one.conditional,
        "nested": one.nested,
        "nested_key": one.nested_key,
        "err_hint": one.err_hint,
    }
    always = ("name", "offset", "size", "flags", "version_id")
    return {key: value for key, value in made.items() if value or key in always}


def _count(one: CountFrom | None) -> Json:
    return None if one is None else {"type": one.kind, "offset": one.offset, "times": one.times}
