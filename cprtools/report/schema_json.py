"""A schema as JSON: one description a line, so that two of them can be compared with diff."""

from __future__ import annotations

from collections.abc import Callable

from cprformats.schema.model import Schema
from cprformats.schema.publish import description_value, document_head
from cprtools.report.json_out import JsonEmitter

__all__ = ["write_schema_json"]


def write_schema_json(
    write: Callable[[str], object], schema: Schema, part: Schema | None = None
) -> None:
    """Write a schema file.

    Args:
        write: takes the text.
        schema: the whole, which tells what priorities mean.
        part: what of it to write; everything where it is missing.
    """
    emitter = JsonEmitter(write)
    emitter.object()
    part = schema if part is None else part
    head = document_head(part) | {"priorities": document_head(schema)["priorities"]}
    for name, value in head.items():
        emitter.put(value, name)
    emitter.array("descriptions")
    for one in part.descriptions.values():
        emitter.put(description_value(one))
    emitter.end(0)
