"""What changed between two schemas, as JSON: one difference a line. See docs/schema-diff.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Final

from cprformats.schema.difference import Difference, Meaning, SchemaDiff
from cprformats.schema.model import Schema
from cprtools.report.json_out import JsonEmitter
from cprtools.report.values import Json

__all__ = ["write_schema_diff_json"]

#: Changes when a member changes its meaning or goes away.
_VERSION: Final = 1


def write_schema_diff_json(
    write: Callable[[str], object],
    names: tuple[str, str],
    schemas: tuple[Schema, Schema],
    diff: SchemaDiff,
) -> None:
    """Write the differences; `names` and `schemas` are the old one and the new one."""
    emitter = JsonEmitter(write)
    emitter.object(head={"format": "cprtools-schema-diff", "version": _VERSION})
    for word, name, schema in zip(("old", "new"), names, schemas, strict=True):
        emitter.put(_side(name, schema), word)
    emitter.put(diff.compared, "compared")
    emitter.put(list(diff.devices_removed), "devices_removed")
    emitter.put(list(diff.devices_added), "devices_added")
    moved: list[Json] = [
        {"device": device, "before": before, "after": after}
        for device, before, after in diff.devices_changed
    ]
    emitter.put(moved, "devices_changed")
    emitter.array("differences")
    for one in diff.differences:
        emitter.put(_difference(one))
    emitter.end(0)


def _side(name: str, schema: Schema) -> Json:
    return {
        "name": name,
        "origin": schema.origin,
        "binaries": [asdict(one) for one in schema.binaries],
        "descriptions": len(schema.descriptions),
    }


def _difference(one: Difference) -> Json:
    changes: list[Json] = [
        {"kind": each.kind.value, "name": each.name, "before": each.before, "after": each.after}
        for each in one.changes
    ]
    return {
        "kind": one.kind.value,
        "name": one.name,
        "before": one.before,
        "after": one.after,
        "role": one.role.value,
        "users": list(one.users),
        "changes": changes,
        "old_in_new": _meaning(one.old_in_new),
        "new_in_old": _meaning(one.new_in_old),
    }


def _meaning(one: Meaning) -> Json:
    reasons: list[Json] = [
        {
            "verdict": each.verdict.value,
            "rule": each.rule.name.lower(),
            "what": each.what,
            "text": each.text,
        }
        for each in one.reasons
    ]
    return {"verdict": one.verdict.value, "reasons": reasons}
