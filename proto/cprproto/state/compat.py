"""Say before the pause whether another version can load a state.

Each version declares what it writes and reads: machine, devices, versions, fields, subsections.
The declarations are compared; no state is needed, and no guest stands still for it::

    refusals(V2, V1)    # ("serial: version 2, v1 reads 1 to 1", ...): refused in PREPARE
    refusals(V1, V2)    # (): an upgrade

What decides is what can be in the stream: a subsection that a state may have counts, whether this
guest's state has it or not. A captured stream can stand in for the writer's declaration: then
just what is in it counts.

Source of the rules: QEMU docs/devel/migration/main.rst, migration/vmstate.c, 10.0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from cprformats.errors import FormatError
from cprformats.migration import read_stream
from cprformats.migration.vmdesc import VmsdDesc
from cprformats.source import BytesSource
from cprproto.errors import StateError
from cprproto.state.schema import Plain, Schema, Struct, Vmsd

__all__ = ["Declaration", "Declared", "declare", "declared_by", "decode", "encode", "refusals"]

_FORMAT = 1
_MAX_BYTES = 1 << 20
_SINCE = " since "


@dataclass(frozen=True, slots=True)
class Declared:
    """One description of a declaration.

    Attributes:
        path: of names, from the section on: ``serial 4``, ``serial 4 / serial/fifo``.
        version: that is written.
        minimum: the oldest that is read.
        fields: one line for each, ``u8 level since 2``; none where they are not known.
        optional: a subsection.
    """

    path: str
    version: int
    minimum: int
    fields: tuple[str, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Declaration:
    """What one version writes and reads.

    Attributes:
        machine: name of the machine.
        parts: all descriptions, outer ones first.
    """

    machine: str
    parts: tuple[Declared, ...]


def declare(schema: Schema) -> Declaration:
    """Make the declaration of a schema."""
    parts = [
        part
        for section in schema.sections
        for part in _parts(f"{section.idstr} {section.instance}", section.vmsd)
    ]
    return Declaration(schema.machine, tuple(parts))


def _parts(path: str, vmsd: Vmsd, *, optional: bool = False) -> Iterator[Declared]:
    lines = tuple(line for field in vmsd.fields for line in _lines("", field))
    yield Declared(path, vmsd.version, vmsd.minimum, lines, optional)
    yield from _subsections(path, vmsd)


def _subsections(path: str, vmsd: Vmsd) -> Iterator[Declared]:
    """Those of a description and of the structs in it."""
    for field in vmsd.fields:
        if isinstance(field, Struct):
            yield from _subsections(f"{path} / {field.name}", field.vmsd)
    for sub in vmsd.subsections:
        yield from _parts(f"{path} / {sub.name}", sub, optional=True)


def _lines(lead: str, field: Plain | Struct) -> Iterator[str]:
    """A struct's fields stand in the stream as if they were the parent's own."""
    many = f"[{field.by or field.count}]" if field.count else ""
    tail = f"{_SINCE}{field.since}" if field.since > 1 else ""
    if isinstance(field, Plain):
        yield f"{lead}{field.name}{many} {field.type}{tail}"
        return
    for inner in field.vmsd.fields:
        for line in _lines(f"{lead}{field.name}{many}.", inner):
            yield line + tail


def declared_by(data: bytes) -> Declaration:
    """Make a declaration from a stream: what it has, without fields.

    Raises:
        StateError: it is no stream, or it ends early or without a description.
    """
    try:
        stream = read_stream(BytesSource(data))
    except FormatError as problem:
        raise StateError(str(problem)) from None
    if stream.error is not None or stream.vmdesc is None:
        raise StateError(str(stream.error or "the stream has no description"))
    parts: list[Declared] = []
    for section in stream.sections():
        if section.description is not None and section.description.vmsd is not None:
            path = f"{section.idstr} {section.instance_id}"
            parts += _described(path, section.description.vmsd)
    return Declaration(stream.machine, tuple(parts))


def _described(path: str, vmsd: VmsdDesc, *, optional: bool = False) -> Iterator[Declared]:
    yield Declared(path, vmsd.version, vmsd.version, (), optional)
    for sub in vmsd.subsections:
        yield from _described(f"{path} / {sub.vmsd_name}", sub, optional=True)


def encode(declaration: Declaration) -> bytes:
    """Write a declaration for the other side."""
    return json.dumps({"format": _FORMAT, **asdict(declaration)}).encode()


def decode(data: bytes) -> Declaration:
    """Read a declaration of the other side.

    Raises:
        StateError: it is not one, or of a later form.
    """
    if len(data) > _MAX_BYTES:
        raise StateError(f"a declaration of {len(data)} bytes: the most is {_MAX_BYTES}")
    try:
        words = json.loads(data)
        if words["format"] != _FORMAT:
            raise StateError(f"declaration: expected form {_FORMAT}, found {words['format']!r}")
        parts = tuple(_declared(part) for part in words["parts"])
        return Declaration(str(words["machine"]), parts)
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise StateError(f"no declaration: {type(problem).__name__}: {problem}") from None


def _declared(part: dict[str, object]) -> Declared:
    version, minimum, fields = part["version"], part["minimum"], part["fields"]
    if not isinstance(version, int) or not isinstance(minimum, int) or not isinstance(fields, list):
        raise TypeError(f"part {part!r:.80}")
    lines = tuple(map(str, fields))
    for since in (word for line in lines for word in line.split(_SINCE)[1:]):
        int(since)  # ValueError: no version
    return Declared(str(part["path"]), version, minimum, lines, bool(part["optional"]))


def refusals(writer: Schema | Declaration, loader: Schema | Declaration) -> tuple[str, ...]:
    """Say why a state of one version can't be loaded by another: one line a reason.

    Returns:
        Nothing when it can.
    """
    old = declare(writer) if isinstance(writer, Schema) else writer
    new = declare(loader) if isinstance(loader, Schema) else loader
    return tuple(_reasons(old, new))


def _reasons(writer: Declaration, loader: Declaration) -> Iterator[str]:
    if writer.machine != loader.machine:
        yield f"machine: {writer.machine!r} is written, {loader.machine!r} is read"
    known = {part.path: part for part in loader.parts}
    for part in writer.parts:
        reader = known.pop(part.path, None)
        if reader is None:
            what = "subsection" if part.optional else "device"
            yield f"{part.path}: the loader does not know this {what}"
        elif not reader.minimum <= part.version <= reader.version:
            reads = f"{reader.minimum} to {reader.version}"
            yield f"{part.path}: version {part.version} is written, {reads} are read"
        elif part.fields and reader.fields:
            yield from _field_reasons(part, reader)
    missing = [part.path for part in known.values() if not part.optional]
    for path in missing:
        yield f"{path}: the loader needs this device, and it is not written"


def _field_reasons(writer: Declared, reader: Declared) -> Iterator[str]:
    """Compare the fields that are in the stream at the writer's version."""
    written, read = _at(writer, writer.version), _at(reader, writer.version)
    if written == read:
        return
    for place, (one, other) in enumerate(zip(written, read, strict=False)):
        if one != other:
            yield f"{writer.path}: field {place} is written as {one!r}, and read as {other!r}"
            return
    yield f"{writer.path}: {len(written)} fields are written, {len(read)} are read"


def _at(part: Declared, version: int) -> list[str]:
    """The fields' lines without their versions, of those that are there at a version."""
    found: list[str] = []
    for line in part.fields:
        words, *sinces = line.split(_SINCE)
        if all(int(since) <= version for since in sinces):
            found.append(words)
    return found
