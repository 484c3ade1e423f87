"""What a field is on the wire: so many bytes of this kind, or something of unknown length.

The place in memory plays no part, nor do names and nesting: a structure that is
there once is the same bytes as its members. Sizes in memory count only where the
format takes them from there (buffers).

Source: QEMU migration/vmstate-types.c (the get and put functions),
migration/vmstate.c (vmstate_n_elems, vmstate_size), releases 5.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from cprformats.schema.model import CountFrom, Description, FieldFormat, Schema

__all__ = [
    "LISTS",
    "NUMBERS",
    "UNKNOWN_COUNT",
    "Flattener",
    "Kind",
    "Leaf",
    "describe",
    "elements",
    "is_structure",
    "leaf_of",
    "marks",
    "present",
    "received_version",
    "sent_version",
]

#: VMStateInfo by name -> bytes on the wire. A timer is its deadline, an int64.
NUMBERS: Final = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "uint8 equal": 1,
    "int16": 2,
    "uint16": 2,
    "uint16 equal": 2,
    "int32": 4,
    "int32 equal": 4,
    "int32 le": 4,
    "uint32": 4,
    "uint32 equal": 4,
    "int64": 8,
    "uint64": 8,
    "int64 equal": 8,
    "timer": 8,
}
_BYTES: Final = {"buffer", "unused_buffer"}
#: Each element follows a mark of its own; how many there are is not in the schema.
LISTS: Final = frozenset({"qtailq", "qlist", "gtree"})
#: A structure that exists only while it is sent: on the wire like any other.
_TEMPORARY: Final = "tmp"
_POINTERS: Final = "ARRAY_OF_POINTER"
_AUTO: Final = "ARRAY_OF_POINTER_AUTO_ALLOC"
#: Of a field of a dump without numbers.
UNKNOWN_COUNT: Final = CountFrom("", 0)
_MOST_LEAVES: Final = 1 << 13
_MOST_LEAVES_IN_ALL: Final = 1 << 18
#: The deepest of real ones has 8.
_DEEPEST: Final = 16


class Kind(StrEnum):
    """What sort of bytes."""

    NUMBER = "number"
    BYTES = "bytes"
    #: Zeros that are skipped.
    UNUSED = "unused"
    #: A size and no type: from a dump.
    UNTYPED = "untyped"
    #: Of a length that the schema doesn't tell.
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Leaf:
    """Bytes on the wire.

    Attributes:
        name: of the field.
        kind: what sort.
        width: bytes of an element, 0 where the length is open.
        count: elements, 0 where the length is open.
        ident: what must be equal where the length is open.
        gates: names of the fields, outermost first, whose tests decide whether it is there.
        compared: must have the value that the reader has.
    """

    name: str
    kind: Kind
    width: int
    count: int
    ident: tuple[object, ...] = ()
    gates: tuple[str, ...] = ()
    compared: bool = False

    @property
    def conditional(self) -> bool:
        """Whether it may be missing."""
        return bool(self.gates)

    @property
    def size(self) -> int:
        """Bytes, 0 where the length is open."""
        return self.width * self.count


def leaf_of(field: FieldFormat) -> Leaf:
    """The wire form of a field that is no structure."""
    kind, width = _sort(field)
    gates = _gates(field)
    fixed = field.count_from is None and field.size_from is None
    if kind is Kind.OPEN or not fixed or field.nested:
        ident = (field.info, width, bool(field.nested), field.flags if field.nested else ())
        return Leaf(field.name, Kind.OPEN, 0, 0, ident, gates)
    compared = field.info.endswith((" equal", " le"))
    return Leaf(field.name, kind, width, elements(field), (), gates, compared)


def _gates(field: FieldFormat) -> tuple[str, ...]:
    return (field.name,) if field.conditional else ()


def elements(field: FieldFormat) -> int:
    """How many, where that is fixed; a field that is no array is one."""
    return max(field.num, 1)


def _sort(field: FieldFormat) -> tuple[Kind, int]:
    if field.info in NUMBERS:
        return Kind.NUMBER, NUMBERS[field.info]
    if field.info in _BYTES:
        return (Kind.UNUSED if field.info == "unused_buffer" else Kind.BYTES), field.size
    if not field.info and not field.nested and field.size:
        return (Kind.UNUSED if field.name == "unused" else Kind.UNTYPED), field.size
    return Kind.OPEN, 0 if field.info in {*LISTS, _TEMPORARY} else field.size


def is_structure(field: FieldFormat) -> bool:
    """Whether its elements are just the members of a description."""
    plain = field.info in {"", _TEMPORARY} and _POINTERS not in field.flags
    return bool(field.nested) and plain


def marks(field: FieldFormat) -> str:
    """Which marks for NULL stand among the elements: none, for NULL only, or always."""
    if _AUTO in field.flags:
        return "always"
    return "null" if _POINTERS in field.flags else ""


def sent_version(field: FieldFormat, nested: Description) -> int:
    """The version that a nested description is written in (put_tmp, vmstate_save_state)."""
    return field.struct_version_id if "VSTRUCT" in field.flags else nested.version_id


def received_version(field: FieldFormat, nested: Description) -> int:
    """The version that it is read in: lists and the like take the field's (get_qtailq)."""
    if field.info in {*LISTS, _TEMPORARY}:
        return field.version_id
    return sent_version(field, nested)


def describe(field: FieldFormat) -> str:
    """A field's type in words, as "uint32[4]"."""
    kind = field.info or (f"structure {field.nested}" if field.nested else "")
    if field.info in _BYTES and field.size_from is None:
        kind += f" of {field.size} bytes"
    elif field.info and field.nested:
        kind += f" of {field.nested}"
    kind = kind or f"{field.size} bytes"
    if field.count_from is not None:
        return kind if field.count_from == UNKNOWN_COUNT else f"{kind}[]"
    return f"{kind}[{field.num}]" if field.num else kind


class _TooMuchError(Exception):
    pass


class Flattener:
    """Gives the bytes of fields of one side, structures resolved.

    Args:
        schema: the side's.
        sending: whether it writes or reads, which decides the versions.
    """

    def __init__(self, schema: Schema, *, sending: bool) -> None:
        self.schema = schema
        self._version = sent_version if sending else received_version
        self._left = 0
        self._in_all = _MOST_LEAVES_IN_ALL

    def leaves(self, fields: Iterable[FieldFormat]) -> list[Leaf] | None:
        """The wire form of fields; None where that would be too much to look at."""
        if self._in_all <= 0:
            return None
        self._left = _MOST_LEAVES
        try:
            return list(self._fields(fields, 0))
        except _TooMuchError:
            return None
        finally:
            self._in_all -= _MOST_LEAVES - self._left

    def _fields(self, fields: Iterable[FieldFormat], depth: int) -> Iterator[Leaf]:
        for field in fields:
            self._spend()
            nested = self.schema.descriptions.get(field.nested)
            if nested is None or not is_structure(field) or field.count_from is not None:
                leaf = leaf_of(field)
                if field.nested:
                    # What is in a list can't be laid side by side: never the same as another's.
                    leaf = replace(leaf, ident=(*leaf.ident, self))
                yield leaf
                continue
            for _ in range(elements(field)):
                self._spend()
                yield from self._structure(field, nested, depth)

    def _spend(self) -> None:
        """Structures without members, many times over, give no leaf and still cost time."""
        self._left -= 1
        if self._left < 0:
            raise _TooMuchError

    def _structure(self, field: FieldFormat, one: Description, depth: int) -> Iterator[Leaf]:
        if depth > _DEEPEST:
            raise _TooMuchError
        inner, gates = present(one, self._version(field, one)), _gates(field)
        for leaf in self._fields(inner, depth + 1):
            yield replace(leaf, gates=(*gates, *leaf.gates)) if gates else leaf
        if one.subsections:
            yield Leaf(field.name, Kind.OPEN, 0, 0, (self,), (*gates, "subsections"))


def present(one: Description, version: int) -> list[FieldFormat]:
    """The fields that are on the wire in a version (vmstate_field_exists)."""
    return [
        field
        for field in one.fields
        if field.on_wire and (field.conditional or field.version_id <= version)
    ]
