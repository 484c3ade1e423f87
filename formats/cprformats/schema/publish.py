"""A schema as our schema file, so that a host can publish what its QEMU loads.

One description a line, so that two files can be compared with diff; nothing in it
depends on when or where it was written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any, Final

from cprformats.schema.document import FORMAT, VERSION
from cprformats.schema.keys import MISSING
from cprformats.schema.model import CountFrom, Description, FieldFormat, Schema
from cprformats.schema.priorities import priority_names

__all__ = ["description_value", "document_head", "part_of", "write_document"]

#: Members of a field that are written whatever they are.
_ALWAYS: Final = frozenset({"name", "offset", "size", "flags", "version_id"})

Members = dict[str, Any]


def document_head(schema: Schema) -> Members:
    """All members but the descriptions, as JSON has them, in the order they are written."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "origin": schema.origin,
        "provenance": dict(schema.provenance),
        "machine": schema.machine,
        "binaries": [asdict(one) for one in schema.binaries],
        "left_out": dict(schema.left_out),
        "era": schema.era,
        "reason": schema.reason,
        "rejected": dict(schema.rejected),
        "missing": list(schema.missing),
        "priorities": {str(at): name for at, name in priority_names(schema).items()},
        "devices": dict(schema.devices),
        "unlinked": list(schema.unlinked),
    }


def description_value(one: Description) -> Members:
    """A description as JSON has it."""
    return {
        "key": one.key,
        "name": one.name,
        "version_id": one.version_id,
        "minimum_version_id": one.minimum_version_id,
        "unmigratable": one.unmigratable,
        "early_setup": one.early_setup,
        "priority": one.priority,
        "hooks": list(one.hooks),
        "fields": [_field_value(each) for each in one.fields],
        "subsections": list(one.subsections),
        "object": one.object,
        "address": one.address,
        "registered": one.registered,
    }


def _field_value(one: FieldFormat) -> Members:
    """A field without the members that say nothing."""
    made: Members = {
        "name": one.name,
        "offset": one.offset,
        "size": one.size,
        "num": one.num,
        "count_from": _count_value(one.count_from),
        "size_from": _count_value(one.size_from),
        "start": one.start,
        "flags": list(one.flags),
        "info": one.info,
        "version_id": one.version_id,
        "struct_version_id": one.struct_version_id,
        "conditional": one.conditional,
        "test": one.test,
        "nested": one.nested,
        "nested_key": one.nested_key,
        "err_hint": one.err_hint,
    }
    return {key: value for key, value in made.items() if value or key in _ALWAYS}


def _count_value(one: CountFrom | None) -> Members | None:
    return None if one is None else {"type": one.kind, "offset": one.offset, "times": one.times}


def write_document(schema: Schema) -> bytes:
    """The schema as a document of ASCII, one description a line; `read_document` gives it back."""
    dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    head = dumps(document_head(schema))[:-1]
    lines = ",\n".join(dumps(description_value(one)) for one in schema.descriptions.values())
    return f'{head},"descriptions":[\n{lines}\n]}}\n'.encode("ascii")


def part_of(schema: Schema, chosen: Iterable[Description]) -> Schema:
    """The schema of some descriptions and all that they use, in the order of the whole.

    What belongs to the others goes: their device types, symbols that only they miss.
    """
    keys = {used.key for one in chosen for used in schema.reachable(one.key)}
    kept = {key: one for key, one in schema.descriptions.items() if key in keys}
    lacking = {used for one in kept.values() for used in one.references()}
    missing = tuple(name for name in schema.missing if MISSING + name in lacking)
    devices = {name: key for name, key in schema.devices.items() if key in keys}
    return replace(schema, descriptions=kept, missing=missing, devices=devices)
