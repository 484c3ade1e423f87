"""Our schema file: reads back what `cprformats.schema.publish` wrote, or somebody else.

::

    {"format": "cprtools-schema", "version": 1, "origin": ..., "binaries": [...], ...,
     "descriptions": [one object a line]}

Members that are unknown are passed over, a version that is unknown is refused.
docs/schema.schema.json says the same to programs.
"""

from __future__ import annotations

from typing import Any, Final

from cprformats.errors import Unsupported, WrongFormat
from cprformats.schema.jsontext import (
    MAX_TEXT,
    Path,
    flag,
    listed,
    load_object,
    number,
    object_,
    text,
    texts,
    wrong,
)
from cprformats.schema.keys import MISSING
from cprformats.schema.model import Binary, CountFrom, Description, FieldFormat, Schema

__all__ = ["FORMAT", "VERSION", "read_document", "schema_of"]

FORMAT: Final = "cprtools-schema"
#: Changes when a member changes its meaning or goes away.
VERSION: Final = 1
_INT32: Final = (1 << 31) - 1
_UINT64: Final = (1 << 64) - 1
_ORIGINS: Final = ("elf", "dump")

Members = dict[str, Any]


def read_document(data: bytes) -> Schema:
    """Read a schema file.

    Raises:
        WrongFormat: it is no JSON, or no schema file.
        Unsupported: its version is not read, or it is larger than any schema.
        Damaged: a member is missing, of another type, or names a description that is not there.
    """
    return schema_of(load_object(data))


def schema_of(members: Members) -> Schema:
    """Read a schema file from its members.

    Raises:
        FormatError: as `read_document`.
    """
    if members.get("format") != FORMAT:
        raise WrongFormat(f'expected "format": "{FORMAT}", found another object')
    if members.get("version") != VERSION or type(members["version"]) is not int:
        found = text(str(members.get("version")), ("version",))
        raise Unsupported(f"expected version {VERSION} of a schema file, found {found}")
    descriptions = _descriptions(members)
    schema = Schema(
        binaries=tuple(
            _binary(object_(one, ("binaries", f"[{at}]")), ("binaries", f"[{at}]"))
            for at, one in enumerate(listed(members.get("binaries"), ("binaries",)))
        ),
        era=text(members.get("era"), ("era",), ""),
        descriptions=descriptions,
        rejected=_numbers(members.get("rejected"), ("rejected",)),
        missing=texts(members.get("missing"), ("missing",)),
        reason=text(members.get("reason"), ("reason",), ""),
        origin=_origin(members),
        machine=text(members.get("machine"), ("machine",), ""),
        devices=_names(members.get("devices"), ("devices",)),
        unlinked=texts(members.get("unlinked"), ("unlinked",)),
        left_out=_names(members.get("left_out"), ("left_out",)),
        provenance=_names(members.get("provenance"), ("provenance",)),
    )
    _check_keys(schema)
    return schema


def _origin(members: Members) -> str:
    found = text(members.get("origin"), ("origin",), "elf")
    if found not in _ORIGINS:
        raise wrong(" or ".join(_ORIGINS), found, ("origin",))
    return found


def _names(value: object, path: Path) -> dict[str, str]:
    return {name: text(one, (*path, name)) for name, one in object_(value, path).items()}


def _numbers(value: object, path: Path) -> dict[str, int]:
    found = object_(value, path)
    return {name: number(one, 0, _UINT64, (*path, name)) for name, one in found.items()}


def _binary(members: Members, path: Path) -> Binary:
    name, arch, kind, build_id = (
        text(members.get(each), (*path, each)) for each in ("name", "arch", "kind", "build_id")
    )
    return Binary(name, arch, kind, build_id, flag(members.get("stripped"), (*path, "stripped")))


def _descriptions(members: Members) -> dict[str, Description]:
    result: dict[str, Description] = {}
    for at, one in enumerate(listed(members.get("descriptions"), ("descriptions",))):
        path = ("descriptions", f"[{at}]")
        made = _description(object_(one, path), path)
        if made.key in result or made.key.startswith(MISSING) or not made.key:
            raise wrong("a new key", made.key, (*path, "key"))
        result[made.key] = made
    return result


def _description(members: Members, path: Path) -> Description:
    get = members.get
    fields_path = (*path, "fields")
    fields = listed(get("fields"), fields_path)
    return Description(
        key=text(get("key"), (*path, "key")),
        name=text(get("name"), (*path, "name")),
        version_id=number(get("version_id"), 0, _INT32, (*path, "version_id")),
        minimum_version_id=number(
            get("minimum_version_id"), 0, _INT32, (*path, "minimum_version_id")
        ),
        unmigratable=flag(get("unmigratable"), (*path, "unmigratable")),
        early_setup=flag(get("early_setup"), (*path, "early_setup")),
        priority=number(get("priority", 0), 0, _INT32, (*path, "priority")),
        hooks=texts(get("hooks"), (*path, "hooks")),
        fields=tuple(_field(one, fields_path, at) for at, one in enumerate(fields)),
        subsections=texts(get("subsections"), (*path, "subsections")),
        address=number(get("address", 0), 0, _UINT64, (*path, "address")),
        object=text(get("object"), (*path, "object"), ""),
        registered=flag(get("registered", True), (*path, "registered")),
    )


def _field(value: object, fields_path: Path, at: int) -> FieldFormat:
    plain = _plain_field(value)
    return _checked_field(value, (*fields_path, f"[{at}]")) if plain is None else plain


def _plain_field(value: Any) -> FieldFormat | None:
    """A field whose members are all as they should be, else None; nine times as fast."""
    if type(value) is not dict:
        return None
    get = value.get
    name, size, version, flags = get("name"), get("size"), get("version_id"), get("flags")
    offset, num, start, test = (
        get("offset", 0), get("num", 0), get("start", 0), get("test", 0)
    )  # fmt: skip
    info, nested, conditional = get("info", ""), get("nested", ""), get("conditional", False)
    struct_version, tree, hint = (
        get("struct_version_id", 0), get("nested_key", ""), get("err_hint", "")
    )  # fmt: skip
    if not (
        type(size) is type(version) is type(offset) is type(num) is type(start) is int
        and type(test) is int
        and type(struct_version) is int
        and type(name) is type(info) is type(nested) is type(tree) is type(hint) is str
        and type(conditional) is bool
        and type(flags) is list
        and min(size, version, offset, num, start, test, struct_version) >= 0
        and max(size, offset, start, test) <= _UINT64
        and max(version, num, struct_version) <= _INT32
        and len(name) + len(info) + len(nested) + len(tree) + len(hint) <= MAX_TEXT
    ):
        return None
    count_from, size_from = get("count_from"), get("size_from")
    if count_from is not None or size_from is not None or not _all_text(flags):
        return None
    return FieldFormat(
        name, offset, size, num, None, None, start, tuple(flags), info,
        version, struct_version, conditional, nested, tree, hint, test,
    )  # fmt: skip


def _all_text(values: list[Any]) -> bool:
    return all(type(one) is str and len(one) <= MAX_TEXT for one in values)


def _checked_field(value: object, path: Path) -> FieldFormat:
    """A field, each member checked by itself so that an error can name it."""
    members = object_(value, path)
    get = members.get
    return FieldFormat(
        name=text(get("name"), (*path, "name")),
        offset=number(get("offset", 0), 0, _UINT64, (*path, "offset")),
        size=number(get("size"), 0, _UINT64, (*path, "size")),
        num=number(get("num", 0), 0, _INT32, (*path, "num")),
        count_from=_count(get("count_from"), (*path, "count_from")),
        size_from=_count(get("size_from"), (*path, "size_from")),
        start=number(get("start", 0), 0, _UINT64, (*path, "start")),
        flags=texts(get("flags"), (*path, "flags")),
        info=text(get("info"), (*path, "info"), ""),
        version_id=number(get("version_id"), 0, _INT32, (*path, "version_id")),
        struct_version_id=number(
            get("struct_version_id", 0), -_INT32 - 1, _INT32, (*path, "struct_version_id")
        ),
        conditional=flag(get("conditional"), (*path, "conditional")),
        nested=text(get("nested"), (*path, "nested"), ""),
        nested_key=text(get("nested_key"), (*path, "nested_key"), ""),
        err_hint=text(get("err_hint"), (*path, "err_hint"), ""),
        test=number(get("test", 0), -_UINT64, _UINT64, (*path, "test")),
    )


def _count(value: object, path: Path) -> CountFrom | None:
    if value is None:
        return None
    members = object_(value, path)
    return CountFrom(
        text(members.get("type"), (*path, "type")),
        number(members.get("offset"), 0, _UINT64, (*path, "offset")),
        number(members.get("times", 1), 0, _UINT64, (*path, "times")),
    )


def _check_keys(schema: Schema) -> None:
    """Every key that is used is there, or stands for a description that no file had."""
    for at, one in enumerate(schema.descriptions.values()):
        for key in one.references():
            if key not in schema.descriptions and not key.startswith(MISSING):
                raise wrong("keys of descriptions here", key, ("descriptions", f"[{at}]", one.key))
    for name, key in schema.devices.items():
        if key not in schema.descriptions:
            raise wrong("the key of a description here", key, ("devices", name))
