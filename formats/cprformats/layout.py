"""Read a fixed record that is declared with construct, field by field.

A record's layout is written once, as a `construct.Struct` of integers,
`Const`, `Bytes`, `PaddedString`, `Padding`, arrays of integers and nested
structs. construct itself gives an error without a place and bytes without
spans; so its declaration is walked by our own bounded reader, which gives
each field its offset and keeps it for writing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import construct

from cprformats.codecs import Value, codec
from cprformats.fields import Kind
from cprformats.reader import Reader

__all__ = ["read_record"]

_LETTERS = {"B": "u8", "H": "u16", "I": "u32", "L": "u32", "Q": "u64"}
_SIGNED = {"b": "i8", "h": "i16", "i": "i32", "l": "i32", "q": "i64"}


def _codec_name(fmt: str) -> str:
    """Turn construct's format string (``>L``) into the name of our codec (``u32be``)."""
    base = _LETTERS.get(fmt[1]) or _SIGNED[fmt[1]]
    return base if base.endswith("8") else base + ("le" if fmt[0] == "<" else "be")


def read_record(
    reader: Reader,
    name: str,
    layout: construct.Struct[Any, Any],
    *,
    meanings: Mapping[str, str] | None = None,
    kind: Kind | None = None,
) -> dict[str, Value]:
    """Read one record as a group and give its values by field name.

    Args:
        reader: stands at the record's first byte.
        name: the group's name.
        layout: the declaration.
        meanings: for some fields, the table that gives words for the value.
        kind: the kind of all the record's bytes.

    Raises:
        Truncated: the record is cut.
        Damaged: a `Const` has another value.
    """
    values: dict[str, Value] = {}
    with reader.group(name, layout.name or name, kind):
        for index, part in enumerate(layout.subcons):
            field_name = part.name or f"reserved_{index}"
            inner = part.subcon if isinstance(part, construct.Renamed) else part
            meaning = (meanings or {}).get(field_name, "")
            values[field_name] = _read_part(reader, field_name, inner, meaning)
    return values


def _read_part(reader: Reader, name: str, part: Any, meaning: str) -> Value:
    if isinstance(part, construct.Const):
        return _read_const(reader, name, part)
    if isinstance(part, construct.FormatField):
        return reader.take(name, _codec_name(part.fmtstr), meaning=meaning)
    if isinstance(part, construct.Array):
        item = _codec_name(part.subcon.fmtstr)
        return reader.take(name, f"{item}[{part.count}]", meaning=meaning)
    if isinstance(part, construct.Struct):
        read_record(reader, name, part)
        return None
    if isinstance(part, construct.StringEncoded):
        return reader.text(name, part.sizeof())
    return reader.blob(name, part.sizeof())


def _read_const(reader: Reader, name: str, part: Any) -> Value:
    value: Value = part.value
    if isinstance(value, bytes):
        found = reader.peek(len(value))
        if found != value:
            raise reader.mismatch(name, value.hex(" "), found.hex(" ") or "nothing")
        return reader.blob(name, len(value))
    how = _codec_name(part.subcon.fmtstr)
    found_value = codec(how).decode(reader.ahead(name, codec(how).size or 0))
    if found_value != value:
        raise reader.mismatch(name, value, found_value)
    return reader.take(name, how)
