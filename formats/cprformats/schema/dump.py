"""What ``qemu-system-... -dump-vmstate FILE`` writes, as a schema.

::

    {"vmschkmachine": {"Name": machine},
     device type: {"Name", "version_id", "minimum_version_id", "Description": {
         "name", "version_id", "minimum_version_id",
         "Fields": [{"field", "version_id", "field_exists", "size", "num", "Description"}, ...],
         "Subsections": [description, ...]}}, ...}

Nested descriptions are written out wherever they are used; here equal ones become
one. There are no types in it, no offsets, no hooks, and no entries that are only
checks; numbers of elements ("num") since 8.0.

Source: QEMU migration/savevm.c (dump_vmstate_json_to_file and its helpers), 2.2 to 11.1.
"""

from __future__ import annotations

from typing import Any, Final

from cprformats.errors import Unsupported, WrongFormat
from cprformats.schema.jsontext import Path, flag, listed, load_object, number, object_, text
from cprformats.schema.keys import KeyMaker
from cprformats.schema.model import Description, FieldFormat, Schema

__all__ = ["MACHINE", "dump_of", "read_dump"]

#: The member that every dump begins with.
MACHINE: Final = "vmschkmachine"
_INT32: Final = (1 << 31) - 1
_UINT64: Final = (1 << 64) - 1
#: The deepest of real ones has 8.
_MAX_DEPTH: Final = 64
#: What printf makes of a name that is NULL: hw/acpi/acpi-cpu-hotplug-stub.c.
_NULL: Final = "(null)"


def read_dump(data: bytes) -> Schema:
    """Read the output of ``-dump-vmstate``.

    Raises:
        WrongFormat: it is no JSON, or no such output.
        Unsupported: it is larger, or nested deeper, than any QEMU's.
        Damaged: a member is missing or of another type.
    """
    return dump_of(load_object(data))


def dump_of(members: dict[str, Any]) -> Schema:
    """Read a dump from its members.

    Raises:
        FormatError: as `read_dump`.
    """
    if MACHINE not in members:
        raise WrongFormat(f'expected "{MACHINE}", found another object')
    machine = text(object_(members[MACHINE], (MACHINE,)).get("Name"), (MACHINE, "Name"))
    nodes = _Nodes()
    devices = {}
    for name, entry in members.items():
        if name != MACHINE:
            path = (name, "Description")
            found = object_(entry, (name,)).get("Description")
            devices[name] = nodes.key(found, path, 0)
    reason = "" if devices else "a dump without devices"
    return Schema(
        (), "", nodes.made, reason=reason, origin="dump", machine=machine, devices=devices
    )


class _Nodes:
    """The descriptions met so far, each once.

    Attributes:
        made: by key, nested ones before those that use them.
    """

    def __init__(self) -> None:
        self.made: dict[str, Description] = {}
        self._keys = KeyMaker()
        self._known: dict[object, str] = {}

    def key(self, value: object, path: Path, depth: int) -> str:
        """The key of a description; one that is new gets one."""
        if depth > _MAX_DEPTH:
            raise Unsupported(f"expected at most {_MAX_DEPTH} descriptions in one another")
        members = object_(value, path)
        name = text(members.get("name"), (*path, "name"))
        name = "" if name == _NULL else name
        version, minimum = (
            number(members.get(each), 0, _INT32, (*path, each))
            for each in ("version_id", "minimum_version_id")
        )
        fields = self._fields(members.get("Fields"), (*path, "Fields"), depth)
        subsections = self._subsections(members.get("Subsections"), (*path, "Subsections"), depth)
        content = (name, version, minimum, fields, subsections)
        key = self._known.get(content)
        if key is None:
            key = self._known[content] = self._keys.key(name)
            self.made[key] = Description(
                key, name, version, minimum, unmigratable=False, early_setup=False, priority=0,
                hooks=(), fields=fields, subsections=subsections, address=0, object="",
            )  # fmt: skip
        return key

    def _fields(self, value: object, path: Path, depth: int) -> tuple[FieldFormat, ...]:
        return tuple(
            self._field(one, (*path, f"[{at}]"), depth)
            for at, one in enumerate(listed(value, path))
        )

    def _subsections(self, value: object, path: Path, depth: int) -> tuple[str, ...]:
        return tuple(
            self.key(one, (*path, f"[{at}]"), depth + 1)
            for at, one in enumerate(listed(value, path))
        )

    def _field(self, value: object, path: Path, depth: int) -> FieldFormat:
        members = object_(value, path)
        get = members.get
        nested = get("Description")
        return FieldFormat(
            name=text(get("field"), (*path, "field")),
            offset=0,
            size=number(get("size"), 0, _UINT64, (*path, "size")),
            num=number(get("num", 0), 0, _INT32, (*path, "num")),
            count_from=None,
            size_from=None,
            start=0,
            flags=("ARRAY",) if "num" in members else (),
            info="",
            version_id=number(get("version_id"), 0, _INT32, (*path, "version_id")),
            struct_version_id=0,
            conditional=flag(get("field_exists"), (*path, "field_exists")),
            nested="" if nested is None else self.key(nested, (*path, "Description"), depth + 1),
        )
