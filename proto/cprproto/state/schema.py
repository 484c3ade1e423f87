"""Declare what a device's state is made of: fields, structs, arrays, subsections, versions.

::

    FIFO = Vmsd("serial/fifo", (Plain("fifo", "buffer", 16), Plain("level", "u8")))
    SERIAL = Vmsd("serial", (Plain("divider", "u16"), Plain("irq", "bool")), subsections=(FIFO,))
    schema = Schema("launch-1", (Section("serial", SERIAL, instance=4),))

The words and the rules are QEMU's (a VMStateDescription is a vmsd), so that QEMU's tools read the
result: a field with `since` is there from that version of its vmsd on; a subsection is sent or
not; a nested struct's version is nowhere in the stream, so it has to stay as it is.

Values are dicts by field name: integers, booleans, bytes for a buffer, tuples for arrays, dicts
for structs and for subsections (by the subsection's name; one that is absent is not sent).

Source: QEMU include/migration/vmstate.h, migration/vmstate.c; 10.0. Imported inside the pause.
"""

from __future__ import annotations

from cprproto.errors import StateError
from cprproto.fds.frozen import Frozen

__all__ = ["LETTERS", "Plain", "Schema", "Section", "Struct", "Vmsd"]

#: Plain types -> the letter that `struct` has for them.
LETTERS = {
    "u8": "B",
    "u16": "H",
    "u32": "I",
    "u64": "Q",
    "i8": "b",
    "i16": "h",
    "i32": "i",
    "i64": "q",
    "bool": "B",
    "buffer": "s",
}
_MOST = 1 << 20


class Plain(Frozen):
    """A field of plain values.

    Attributes:
        name: as it shall stand in the description.
        type: a key of `LETTERS`.
        count: elements of an array, bytes of a buffer; 0 for a single value.
        since: the first version of the vmsd that has it.
        by: name of an integer field in front that says how many elements there are;
            `count` is the most there can be.
    """

    __slots__ = ("by", "count", "name", "since", "type")
    name: str
    type: str
    count: int
    since: int
    by: str

    def __init__(self, name: str, type: str, count: int = 0, since: int = 1, by: str = "") -> None:
        if type not in LETTERS or (type == "bool" and count):
            raise StateError(f"{name}: there is no field of type {type!r}, {count} elements")
        _check_counts(name, count, needs_count=bool(by) or type == "buffer")
        self._fill(by, count, name, since, type)


class Struct(Frozen):
    """A field that is a struct, or an array of structs. Attributes as `Plain`.

    Attributes:
        vmsd: what the struct is made of.
    """

    __slots__ = ("by", "count", "name", "since", "vmsd")
    name: str
    vmsd: Vmsd
    count: int
    since: int
    by: str

    def __init__(self, name: str, vmsd: Vmsd, count: int = 0, since: int = 1, by: str = "") -> None:
        _check_counts(name, count, needs_count=bool(by))
        if (count or by) and vmsd.subsections:
            raise StateError(f"{name}: structs of an array can't have subsections")
        self._fill(by, count, name, since, vmsd)


def _check_counts(name: str, count: int, *, needs_count: bool) -> None:
    if not 0 <= count <= _MOST or (needs_count and not count):
        raise StateError(f"{name}: {count} elements")


class Vmsd(Frozen):
    """What a device's, a struct's or a subsection's state is made of.

    Attributes:
        name: a subsection's begins with that of its parent and a slash.
        fields: in the order in which they lie.
        version: that is written.
        minimum: the oldest version that is read.
        subsections: what may follow the fields.
    """

    __slots__ = ("fields", "minimum", "name", "subsections", "version")
    name: str
    fields: tuple[Plain | Struct, ...]
    version: int
    minimum: int
    subsections: tuple[Vmsd, ...]

    def __init__(
        self,
        name: str,
        fields: tuple[Plain | Struct, ...],
        version: int = 1,
        minimum: int = 1,
        subsections: tuple[Vmsd, ...] = (),
    ) -> None:
        if not 0 < len(name.encode()) < 256:
            raise StateError(f"{name!r} is no name of a description")
        if not 1 <= minimum <= version <= 255:  # a subsection's is read into one byte
            raise StateError(f"{name}: versions {minimum} to {version}")
        _check_fields(name, fields)
        for sub in subsections:
            if not sub.name.startswith(f"{name}/"):
                raise StateError(f"{sub.name!r}: a subsection of {name!r} is called {name}/...")
        self._fill(fields, minimum, name, subsections, version)


def _check_fields(name: str, fields: tuple[Plain | Struct, ...]) -> None:
    before: set[str] = set()
    for field in fields:
        if field.name in before:
            raise StateError(f"{name}: two fields are called {field.name!r}")
        if field.by and field.by not in before:
            raise StateError(f"{name}.{field.name}: {field.by!r} has to stand in front of it")
        before.add(field.name)


class Section(Frozen):
    """One device of the machine.

    Attributes:
        idstr: name of the section.
        vmsd: what its state is made of.
        instance: tells devices of one name apart.
    """

    __slots__ = ("idstr", "instance", "vmsd")
    idstr: str
    vmsd: Vmsd
    instance: int

    def __init__(self, idstr: str, vmsd: Vmsd, instance: int = 0) -> None:
        if not 0 < len(idstr.encode()) < 256 or not 0 <= instance < 1 << 32:
            raise StateError(f"{idstr!r} instance {instance} is no section")
        self._fill(idstr, instance, vmsd)


class Schema(Frozen):
    """All devices of a machine, in the order in which they are written.

    Attributes:
        machine: name of the machine, which the other side must have too.
        sections: the devices.
    """

    __slots__ = ("machine", "sections")
    machine: str
    sections: tuple[Section, ...]

    def __init__(self, machine: str, sections: tuple[Section, ...]) -> None:
        keys = [(section.idstr, section.instance) for section in sections]
        if len(set(keys)) != len(keys):
            raise StateError("two sections have one name and instance")
        self._fill(machine, sections)
