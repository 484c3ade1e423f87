"""The JSON description that QEMU appends to a stream (vmdesc), as a model.

::

    vmdesc   = { ["configuration": vmsd], "page_size": n, "devices": [device...] }
    device   = { "name", "instance_id", "vmsd_name", "version", "fields", "subsections"? }
             | { "name", "instance_id", "size", "fields": [one "data" buffer] }
    field    = { "name", "type", "size", "array_len"? | "index"?, "struct"?: vmsd }
             | { ..., "vmsd_name", "version", "fields" }        VMS_VSTRUCT and "tmp"
             | the same keys once per element                   qtailq, gtree, qlist

Source: QEMU migration/vmstate.c (vmsd_desc_field_start, vmstate_save_state_v),
savevm.c (vmstate_save), vmstate-types.c (put_qtailq, put_gtree, put_tmp).
`size` is of one element. Keys may repeat in one object, so the JSON is read
pair by pair and never as a dictionary.

An array comes as one entry (``array_len``), or as an entry per element or per
run of NULL and other pointers. Whether such entries carry ``index``, all but
the last or none, and what ``array_len`` says of a NULL, depends on the release;
that they stand side by side with the same name does not. So the model goes by
the names alone: see `_settle`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from cprformats.errors import Damaged, Unsupported

__all__ = ["MAX_VMDESC_BYTES", "DeviceDesc", "FieldDesc", "VmDesc", "VmsdDesc", "parse_vmdesc"]

#: Real descriptions nest about ten deep; the limit keeps hostile ones from the stack.
_MAX_DEPTH = 64
#: 256 CPUs and hundreds of devices make about 8 MB. Parsed JSON takes many times
#: its text in memory, the more so the smaller its parts: so their number is bounded too.
MAX_VMDESC_BYTES = 16 << 20
_MAX_CONTAINERS = 250_000
_MAX_VALUES = 600_000

#: 10.0 and 10.2; 11.1.
_MARKERS = ("nullptr", "ptr-marker")

Json = object
Pairs = list[tuple[str, Json]]


@dataclass(frozen=True, slots=True)
class FieldDesc:
    """One field, or an array of equal ones.

    Attributes:
        name: as in the VMStateField, with QEMU's ``[n]`` where names repeat.
        type: VMStateInfo name, or ``struct`` and the like.
        size: bytes of one element on the wire.
        array_len: elements in this entry; None where it is a single one.
        partial: whether the entries beside it belong to the same array.
        struct: the nested description of a VMS_STRUCT.
        inline: descriptions written straight into the field: one for a
            VMS_VSTRUCT or ``tmp``, one per element for lists and trees.
    """

    name: str
    type: str
    size: int
    array_len: int | None = None
    partial: bool = False
    struct: VmsdDesc | None = None
    inline: tuple[VmsdDesc, ...] = ()

    @property
    def count(self) -> int:
        """Elements in this entry."""
        return 1 if self.array_len is None else self.array_len

    @property
    def wire_size(self) -> int:
        """Bytes of all elements, if they are all as long as the first."""
        return self.size * self.count

    @property
    def is_marker(self) -> bool:
        """Say whether it is the byte that stands for a pointer (named since 10.0)."""
        return self.type in _MARKERS


@dataclass(frozen=True, slots=True)
class VmsdDesc:
    """A VMStateDescription as it was used for one object.

    Attributes:
        vmsd_name: its name.
        version: the version that was written; 0 where the JSON has none.
        fields: in wire order.
        subsections: those that were sent, in wire order.
    """

    vmsd_name: str
    version: int
    fields: tuple[FieldDesc, ...]
    subsections: tuple[VmsdDesc, ...] = ()

    @property
    def wire_size(self) -> int:
        """Bytes on the wire: fields, then each subsection with its head."""
        own = sum(field.wire_size for field in self.fields)
        return own + sum(sub.head_size + sub.wire_size for sub in self.subsections)

    @property
    def head_size(self) -> int:
        """Bytes of the head that it has as a subsection: type, length, name, version."""
        # "\\ud800" in JSON is no byte of the wire; any size does for such a name.
        return 6 + len(self.vmsd_name.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class DeviceDesc:
    """One entry of ``devices``.

    Attributes:
        name: the section's idstr.
        instance_id: the section's instance id.
        vmsd: its description; an old-style handler has an empty ``vmsd_name``
            and one ``data`` field.
    """

    name: str
    instance_id: int
    vmsd: VmsdDesc

    @property
    def old_style(self) -> bool:
        """Say whether the section was written by a hand-made function."""
        return not self.vmsd.vmsd_name


@dataclass(frozen=True, slots=True)
class VmDesc:
    """The whole description.

    Attributes:
        page_size: target page size in bytes; 0 if not given.
        configuration: description of the CONFIGURATION section (since 8.2).
        devices: in the order in which they were saved.
    """

    page_size: int
    configuration: VmsdDesc | None
    devices: tuple[DeviceDesc, ...]

    def device(self, idstr: str, instance_id: int) -> DeviceDesc | None:
        """Find the entry of a section."""
        for device in self.devices:
            if device.instance_id == instance_id and device.name == idstr:
                return device
        return None


class _Builder:
    """Turns JSON pairs into the model; every surprise is `Damaged` with a JSON path."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.path: list[str] = ["vmdesc"]

    def bad(self, what: str, expected: str, found: Json) -> Damaged:
        shown = type(found).__name__ if isinstance(found, list) else repr(found)[:40]
        return Damaged.mismatch(what, expected, shown, offset=self.offset, path=tuple(self.path))

    def pairs(self, value: Json, what: str) -> Pairs:
        if not isinstance(value, _Object):
            raise self.bad(what, "a JSON object", value)
        return value.pairs

    def items(self, value: Json, what: str) -> list[Json]:
        if not isinstance(value, list):
            raise self.bad(what, "a JSON array", value)
        return value

    def text(self, value: Json, what: str) -> str:
        if not isinstance(value, str):
            raise self.bad(what, "a string", value)
        return value

    def count(self, value: Json, what: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.bad(what, "a number of 0 or more", value)
        return value

    def vmsds(self, pairs: Pairs) -> Iterator[VmsdDesc]:
        """Give one description each time the key ``fields`` comes up."""
        name, version = "", 0
        current: VmsdDesc | None = None
        for key, value in pairs:
            if key == "vmsd_name":
                name = self.text(value, key)
            elif key == "version":
                version = self.count(value, key)
            elif key == "fields":
                if current is not None:
                    yield current
                current = VmsdDesc(name, version, self.fields(value))
            elif key == "subsections" and current is not None:
                subsections = self.subsections(value)
                current = VmsdDesc(current.vmsd_name, current.version, current.fields, subsections)
        if current is not None:
            yield current

    def vmsd(self, value: Json, what: str) -> VmsdDesc:
        pairs = self.pairs(value, what)
        for found in self.vmsds(pairs):
            return found
        # A description without fields is legal: an empty marker subsection.
        keys = dict(pairs)
        name = self.text(keys.get("vmsd_name", ""), "vmsd_name")
        subsections = self.subsections(keys.get("subsections", []))
        return VmsdDesc(name, self.count(keys.get("version", 0), "version"), (), subsections)

    def subsections(self, value: Json) -> tuple[VmsdDesc, ...]:
        return tuple(self.vmsd(item, "subsection") for item in self.items(value, "subsections"))

    def fields(self, value: Json) -> tuple[FieldDesc, ...]:
        if len(self.path) > _MAX_DEPTH:
            raise self.bad("nesting", f"at most {_MAX_DEPTH} levels", len(self.path))
        return _settled([self.field(item) for item in self.items(value, "fields")])

    def field(self, value: Json) -> FieldDesc:
        pairs = self.pairs(value, "field")
        keys = dict(pairs)
        self.path.append(str(keys.get("name", "?")))
        made = FieldDesc(
            self.text(keys.get("name"), "name"),
            self.text(keys.get("type", ""), "type"),
            self.count(keys.get("size"), "size"),
            self.count(keys["array_len"], "array_len") if "array_len" in keys else None,
            "index" in keys,
            self.vmsd(keys["struct"], "struct") if "struct" in keys else None,
            tuple(self.vmsds(pairs)),
        )
        self.path.pop()
        return made

    def device(self, value: Json) -> DeviceDesc:
        keys = dict(self.pairs(value, "device"))
        name = self.text(keys.get("name"), "name")
        self.path.append(name)
        instance = keys.get("instance_id")
        if isinstance(instance, int) and -(1 << 31) <= instance < 0:
            # QEMU prints the 32 bits of the wire as a signed number.
            instance += 1 << 32
        made = DeviceDesc(name, self.count(instance, "instance_id"), self.vmsd(value, "device"))
        self.path.pop()
        return made


def _settled(fields: list[FieldDesc]) -> tuple[FieldDesc, ...]:
    """Bring the ways of releases to describe an array into one form."""
    made: list[FieldDesc] = []
    for _, group in groupby(fields, key=lambda field: field.name):
        entries = list(group)
        made += entries if len(entries) == 1 else _settle(entries)
    return tuple(made)


def _settle(entries: list[FieldDesc]) -> list[FieldDesc]:
    """Settle the entries of one array.

    Plain values become one entry with ``array_len``; of the rest, each gets
    the number of elements that it really stands for.

    Source: QEMU migration/vmstate.c (vmstate_save_state_v), 5.2 to 11.1.
    """
    first = entries[0]
    if all(_same_plain(first, entry) for entry in entries):
        return [replace(first, array_len=len(entries), partial=False)]
    settled = [
        replace(
            entry, partial=True, array_len=None if _counts_one(entries, at) else entry.array_len
        )
        for at, entry in enumerate(entries)
    ]
    # The first run of an array of pointers is never cut at the first NULL.
    later = sum(entry.count for entry in settled[1:])
    if settled[0].count > later and not first.is_marker and settled[1].is_marker:
        settled[0] = replace(settled[0], array_len=settled[0].count - later)
    return settled


def _same_plain(first: FieldDesc, entry: FieldDesc) -> bool:
    plain = entry.array_len is None and entry.struct is None and not entry.inline
    same = entry.type == first.type and entry.size == first.size
    return plain and same and not entry.is_marker


def _counts_one(entries: list[FieldDesc], at: int) -> bool:
    """A NULL with a NULL beside it is one element, whatever ``array_len`` says (10.0)."""
    beside = (entries[i] for i in (at - 1, at + 1) if 0 <= i < len(entries))
    return entries[at].is_marker and any(entry.is_marker for entry in beside)


class _Object:
    """A JSON object with its pairs in order, repeated keys kept."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs


def parse_vmdesc(text: str, offset: int) -> VmDesc:
    """Parse the JSON that stands at `offset` in the stream.

    Raises:
        Damaged: it is no JSON, or not of the form above; the path leads to the
            entry in question.
        Unsupported: it has more parts than any real machine's.
    """
    containers = text.count("{") + text.count("[")
    if containers > _MAX_CONTAINERS or text.count(",") > _MAX_VALUES:
        raise Unsupported(
            f"vmdesc: expected at most {_MAX_CONTAINERS} objects and arrays and {_MAX_VALUES} "
            f"values, found {containers} and {text.count(',')}",
            offset=offset,
        )
    try:
        # 5.2 writes strings as they are: control characters are not escaped.
        top: Json = json.loads(text, object_pairs_hook=_Object, strict=False)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"no valid JSON: {error}", offset=offset, path=("vmdesc",)) from error
    build = _Builder(offset)
    keys = dict(build.pairs(top, "vmdesc"))
    configuration = keys.get("configuration")
    return VmDesc(
        build.count(keys.get("page_size", 0), "page_size"),
        None if configuration is None else build.vmsd(configuration, "configuration"),
        tuple(build.device(item) for item in build.items(keys.get("devices", []), "devices")),
    )
