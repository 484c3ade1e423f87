"""Schemas for tests: a model with a bit of everything, and dumps as QEMU prints them."""

from __future__ import annotations

import json
from typing import Any

from cprformats.schema.model import Binary, CountFrom, Description, FieldFormat, Schema


def field(name: str, **more: Any) -> FieldFormat:
    """A plain field of four bytes, or whatever `more` makes of it."""
    plain: dict[str, Any] = {
        "offset": 0,
        "size": 4,
        "num": 0,
        "count_from": None,
        "size_from": None,
        "start": 0,
        "flags": ("SINGLE",),
        "info": "uint32",
        "version_id": 0,
        "struct_version_id": 0,
        "conditional": False,
    }
    return FieldFormat(name=name, **(plain | more))


def description(key: str, *fields: FieldFormat, **more: Any) -> Description:
    """A description without any hook, or whatever `more` makes of it."""
    plain: dict[str, Any] = {
        "name": key.partition("#")[0],
        "version_id": 1,
        "minimum_version_id": 1,
        "unmigratable": False,
        "early_setup": False,
        "priority": 0,
        "hooks": (),
        "subsections": (),
        "address": 0x1000,
        "object": "qemu",
    }
    return Description(key=key, fields=fields, **(plain | more))


def schema(*descriptions: Description, **more: Any) -> Schema:
    return Schema((), "an era", {one.key: one for one in descriptions}, **more)


def rich() -> Schema:
    """Every member of the model has a value that is not its default."""
    late = description("timer/late", field("late"), hooks=("needed",), address=(1 << 64) - 1)
    timer = description(
        "timer",
        field("ticks", offset=8, version_id=2, conditional=True, test=1 << 40, err_hint="x"),
        field("n", num=3, flags=("ARRAY",), size=(1 << 64) - 1),
        field("v", count_from=CountFrom("uint16", 24, 2), flags=("POINTER", "VARRAY_UINT16")),
        field("b", size_from=CountFrom("uint32", 32), size=0, flags=("VBUFFER", "0x40000")),
        field("tree", info="gtree", nested="timer/late", nested_key="timer", start=8),
        field("self", info="", nested="timer", flags=("VSTRUCT",), struct_version_id=-1),
        field("far", info="", nested="symbol:vmstate_far", flags=("STRUCT",)),
        version_id=3,
        minimum_version_id=2,
        unmigratable=True,
        early_setup=True,
        priority=2,
        hooks=("pre_load", "post_save"),
        subsections=("timer/late",),
        registered=False,
    )
    unnamed = description("(unnamed)", name="")
    program = Binary("qemu", "x86_64", "dyn", "ab01", stripped=True)
    module = Binary("hw.so", "x86_64", "exec", "", stripped=False)
    return Schema(
        (program, module),
        "an era",
        {one.key: one for one in (late, timer, unnamed)},
        {"flags of a field": 3},
        ("vmstate_far",),
        reason="only a test",
        origin="dump",
        machine="none",
        devices={"timer-device": "timer"},
        unlinked=("lost",),
        left_out={"hw-old.so": "of another build"},
        provenance={"package": "a package"},
    )


# -- dumps ------------------------------------------------------------------------


def dumped(
    name: str, *fields: dict[str, Any], subsections: Any = (), **more: Any
) -> dict[str, Any]:
    """A description as `-dump-vmstate` prints it."""
    made: dict[str, Any] = {"name": name, "version_id": 1, "minimum_version_id": 1}
    if fields:
        made["Fields"] = list(fields)
    if subsections:
        made["Subsections"] = list(subsections)
    return made | more


def dumped_field(name: str, **more: Any) -> dict[str, Any]:
    return {"field": name, "version_id": 0, "field_exists": False, "size": 4, **more}


def dump(machine: str = "none", /, **devices: Any) -> bytes:
    """A dump; underscores in names of device types stand for a minus."""
    made: dict[str, Any] = {"vmschkmachine": {"Name": machine}}
    for name, one in devices.items():
        type_ = name.replace("_", "-")
        made[type_] = {"Name": type_, "version_id": 1, "minimum_version_id": 1, "Description": one}
    return json.dumps(made).encode()
