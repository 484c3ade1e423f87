"""Schemas without what a dump lacks, so that one can be compared with a dump."""

from __future__ import annotations

from dataclasses import replace

from cprformats.schema.model import Description, FieldFormat, Schema
from cprformats.schema.wireform import UNKNOWN_COUNT

__all__ = ["has_numbers", "without_types"]


def without_types(schema: Schema, *, numbers: bool) -> Schema:
    """A schema as a dump has it (`cprformats.schema.model.Schema.origin`).

    Without numbers any field may be an array.
    """
    plain = {key: _plain(one, numbers) for key, one in schema.descriptions.items()}
    return replace(schema, descriptions=plain, origin="dump")


def has_numbers(schema: Schema) -> bool:
    """Whether arrays have their numbers: dumps do since 8.0 (dump_vmstate_vmsf)."""
    return any(field.num for one in schema.descriptions.values() for field in one.fields)


def _plain(one: Description, numbers: bool) -> Description:
    fields = tuple(_plain_field(field, numbers) for field in one.fields if field.on_wire)
    return replace(one, fields=fields, hooks=(), priority=0, unmigratable=False, early_setup=False)


def _plain_field(one: FieldFormat, numbers: bool) -> FieldFormat:
    return replace(
        one,
        flags=(),
        num=one.num if numbers and one.count_from is None else 0,
        info="",
        count_from=None if numbers else UNKNOWN_COUNT,
        size_from=None,
        nested_key="",
        start=0,
    )
