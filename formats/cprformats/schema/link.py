"""Which description of a binary a device type of its dump uses: the equal one.

A binary has descriptions with types and no device types; a dump has device types
and no types of fields. What both know (names, versions, fields in order with
sizes, subsections, all the way down) tells which belong together.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cprformats.schema.model import Schema

__all__ = ["link_devices"]

_ABSENT: Final = -1
#: No dump is read that nests deeper.
_MAX_DEPTH: Final = 100


def link_devices(schema: Schema, dump: Schema) -> Schema:
    """Add the device types of a dump to the schema of the same QEMU's files.

    Args:
        schema: read from the files.
        dump: what the program printed of itself.

    Returns:
        The schema with `devices`, with `unlinked` for types whose description it
        lacks, and with the dump's `machine`.
    """
    numbers = any(
        "ARRAY" in field.flags for one in dump.descriptions.values() for field in one.fields
    )
    shapes: dict[object, int] = {}
    ours, theirs = _Shapes(schema, shapes, numbers), _Shapes(dump, shapes, numbers)
    by_shape: dict[int, str] = {}
    for key in schema.descriptions:
        by_shape.setdefault(ours.shape(key), key)
    found = {name: by_shape.get(theirs.shape(key)) for name, key in dump.devices.items()}
    return replace(
        schema,
        machine=dump.machine,
        devices={name: key for name, key in found.items() if key is not None},
        unlinked=tuple(name for name, key in found.items() if key is None),
    )


class _Shapes:
    """Numbers for what descriptions look like; equal ones have the same number.

    Args:
        schema: whose descriptions.
        shapes: the numbers given so far, shared by all that are compared.
        numbers: the dump has numbers of elements.
    """

    def __init__(self, schema: Schema, shapes: dict[object, int], numbers: bool) -> None:
        self._schema = schema
        self._shapes = shapes
        self._numbers = numbers
        self._known: dict[str, int] = {}

    def shape(self, key: str, depth: int = 0) -> int:
        """The number of a description; cycles and depths that no dump has get one of none."""
        known = self._known.get(key)
        if known is None:
            self._known[key] = _ABSENT
            if depth < _MAX_DEPTH:
                known = self._known[key] = self._number(self._content(key, depth + 1))
        return _ABSENT if known is None else known

    def _number(self, content: object) -> int:
        return self._shapes.setdefault(content, len(self._shapes))

    def _content(self, key: str, depth: int) -> object:
        one = self._schema.descriptions.get(key)
        if one is None:
            return key
        fields = tuple(
            (
                field.name,
                field.version_id,
                field.conditional,
                field.size,
                field.num if self._numbers and "ARRAY" in field.flags else None,
                self.shape(field.nested, depth) if field.nested else None,
            )
            for field in one.fields
            if field.on_wire
        )
        subsections = tuple(self.shape(each, depth) for each in one.subsections)
        return (one.name, one.version_id, one.minimum_version_id, fields, subsections)
