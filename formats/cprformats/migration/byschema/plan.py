"""What is known of a description before a byte is read: names, sizes, bounds.

A `Plan` is a description at one version. Fields that this version does not
have are left out; each other one is a `Step` with the name that a vmdesc
gives it, the least and most bytes it takes, and those of all that follows it.
A description whose bytes never vary in number is `Fixed`: an array of a
thousand such elements is one step.

Source: QEMU migration/vmstate.c (vmstate_field_exists, vmstate_n_elems,
vmstate_size, vmfield_name_num, vmfield_get_type_name), 5.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cprformats.migration.vmdesc import FieldDesc, VmsdDesc
from cprformats.schema.model import Description, FieldFormat

__all__ = ["ANY", "Bounds", "Fixed", "Plan", "Run", "Step", "describe", "plus"]

#: Least and most bytes, None where there is no most; then the most without subsections.
Bounds = tuple[int, int | None, int | None]

ANY: Final[Bounds] = (0, None, None)


def plus(first: Bounds, second: Bounds, times: int = 1) -> Bounds:
    """The bounds of both, the second so many times."""
    if not times:
        return first
    most = None if first[1] is None or second[1] is None else first[1] + times * second[1]
    bare = None if first[2] is None or second[2] is None else first[2] + times * second[2]
    return first[0] + times * second[0], most, bare


@dataclass(frozen=True, slots=True)
class Fixed:
    """A description that always takes the same number of bytes.

    Attributes:
        size: in bytes.
        vmsd: as a vmdesc has it.
        checks: offset, size and type of each value that some bytes can't be.
    """

    size: int
    vmsd: VmsdDesc
    checks: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True, slots=True)
class Step:
    """A field that may be there.

    Attributes:
        field: as the schema has it.
        name: as a vmdesc has it: with its number where the name repeats.
        type: as a vmdesc has it.
        size: bytes of one element on the wire; None where they vary.
        fixed: of a structure that takes the same bytes always.
        nested: description and version of a structure's elements; None for other types.
        element: bounds of one element, marker of a pointer included.
        after: bounds of all that follows in the description.
        repeats: the same test decides over a later field too.
        room: elements for which there is room in memory before another field; None
            where that is not known.
        decided_by: offset of the member that must not be 0; None where only a
            function of QEMU knows.
        usual: number of elements that QEMU has of an array whose count is not in
            the stream; None where that is not known.
    """

    field: FieldFormat
    name: str
    type: str
    size: int | None
    fixed: Fixed | None
    nested: tuple[str, int] | None
    element: Bounds
    after: Bounds = ANY
    repeats: bool = False
    room: int | None = None
    decided_by: int | None = None
    usual: int | None = None

    @property
    def of_pointers(self) -> bool:
        """Whether each element is a pointer, which can be NULL."""
        return "ARRAY_OF_POINTER" in self.field.flags

    @property
    def is_array(self) -> bool:
        """Whether the number of elements is not simply one."""
        return "ARRAY" in self.field.flags or self.field.count_from is not None

    @property
    def in_place(self) -> bool:
        """Whether it is a structure that lies in the object itself."""
        return not self.is_array and "POINTER" not in self.field.flags

    @property
    def count(self) -> int | None:
        """Elements; None where the object says."""
        if self.field.count_from is not None:
            return None
        return self.field.num if "ARRAY" in self.field.flags else 1


@dataclass(frozen=True, slots=True)
class Run:
    """Steps beside each other that are always there and take the same bytes: one step.

    Attributes:
        steps: what they are one by one.
        fixed: what they are together.
        after: bounds of all that follows in the description.
    """

    steps: tuple[Step, ...]
    fixed: Fixed
    after: Bounds


@dataclass(frozen=True, slots=True)
class Plan:
    """A description at one version.

    Attributes:
        description: as the schema has it.
        version: which fields are there goes by it.
        parts: its fields; those that stand beside each other and never vary, together.
        bounds: of fields and subsections.
        tail: of the subsections.
        wants: offsets in the object of what counts and sizes are taken from, and
            how many fields take theirs from each.
        fixed: if it takes the same bytes always.
        subsections: key of each by name.
    """

    description: Description
    version: int
    parts: tuple[Step | Run, ...]
    bounds: Bounds
    tail: Bounds
    wants: Mapping[int, int]
    fixed: Fixed | None
    subsections: dict[str, str]


def describe(step: Step, size: int, count: int, name: str = "") -> FieldDesc:
    """All elements of a step as one entry of a vmdesc; `name` is that of a single one."""
    length = count if count > 1 else None
    name = name or step.name
    if step.fixed is None:
        return FieldDesc(name, step.type, size, length)
    if step.type == "struct":
        return FieldDesc(name, step.type, size, length, struct=step.fixed.vmsd)
    return FieldDesc(name, step.type, size, length, inline=(step.fixed.vmsd,))
