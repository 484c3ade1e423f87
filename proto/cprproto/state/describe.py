"""The description at the end of a stream (vmdesc): JSON that tells tools what each field is.

Written as QEMU writes it: type names of its VMStateInfos, `size` of one element, `array_len` for
arrays, `struct` for structs, only those subsections that are in the stream.

Source: QEMU migration/vmstate.c (vmsd_desc_start, vmsd_desc_field_start), 10.0.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from cprproto.state.schema import LETTERS, Plain, Schema, Struct, Vmsd

__all__ = ["describe"]

_NAMES = {
    **{f"u{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"i{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    "bool": "bool",
    "buffer": "buffer",
}
Json = dict[str, Any]
_Bag = Mapping[str, Any]


def describe(schema: Schema, state: Mapping[tuple[str, int], _Bag], page_size: int) -> str:
    """Describe the values of all devices.

    Args:
        schema: what was written.
        state: the values: which subsections and how many elements there are.
        page_size: of the target, in bytes.
    """
    name = {"name": "name", "type": "buffer", "size": len(schema.machine.encode())}
    fields = [{"name": "len", "type": "uint32", "size": 4}, name]
    configuration = {"vmsd_name": "configuration", "version": 1, "fields": fields}
    devices = [
        {"name": x.idstr, "instance_id": x.instance, **_vmsd(x.vmsd, state[x.idstr, x.instance])}
        for x in schema.sections
    ]
    whole = {"configuration": configuration, "page_size": page_size, "devices": devices}
    return json.dumps(whole)


def _vmsd(vmsd: Vmsd, values: _Bag) -> Json:
    fields = [one for field in vmsd.fields for one in _field(field, values)]
    made: Json = {"vmsd_name": vmsd.name, "version": vmsd.version, "fields": fields}
    subs = [_vmsd(sub, values[sub.name]) for sub in vmsd.subsections if _is_sent(sub, values)]
    return {**made, "subsections": subs} if subs else made


def _is_sent(sub: Vmsd, values: _Bag) -> bool:
    return values.get(sub.name) is not None


def _field(field: Plain | Struct, values: _Bag) -> list[Json]:
    """One entry, or none for an array without elements."""
    count = int(values[field.by]) if field.by else field.count
    if field.by and not count:
        return []
    head: Json = {"name": field.name}
    if isinstance(field, Plain) and field.type == "buffer":
        return [{**head, "type": "buffer", "size": count}]
    if count:
        head["array_len"] = count
    if isinstance(field, Plain):
        size = struct.calcsize(">" + LETTERS[field.type])
        return [{**head, "type": _NAMES[field.type], "size": size}]
    first = values[field.name][0] if field.count else values[field.name]
    inner = _vmsd(field.vmsd, first)
    return [{**head, "type": "struct", "struct": inner, "size": _size(inner)}]


def _size(vmsd: Json) -> int:
    """Bytes that a described struct takes, subsections with their heads."""
    size = sum(field["size"] * field.get("array_len", 1) for field in vmsd["fields"])
    for sub in vmsd.get("subsections", ()):
        size += 6 + len(sub["vmsd_name"].encode()) + _size(sub)
    return int(size)
