"""The layouts that VMStateDescription and VMStateField have had in memory.

Both structures changed between releases, and distributions backport, so a
version string proves nothing: `cprformats.schema.choose` tries the layouts on
the binary itself.

Source: QEMU include/migration/vmstate.h, releases 2.5 to 11.1 and git after it.
Two pairs of eras read alike and are one layout here: VMStateField of 2.10 and of
3.0 (struct_version_id took a place that was padding) and VMStateDescription of
7.0 and of 8.0 (early_setup took one). All for 64-bit little-endian hosts.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = [
    "DESCRIPTIONS",
    "ENDS",
    "FIELDS",
    "HOOKS",
    "DescriptionLayout",
    "Era",
    "FieldLayout",
    "flag_names",
    "packed",
]

#: Function pointers of a description, by the names that they have or had.
HOOKS: Final = (
    "load_state_old",
    "pre_load",
    "pre_load_errp",
    "post_load",
    "post_load_errp",
    "pre_save",
    "pre_save_errp",
    "post_save",
    "needed",
    "dev_unplug_pending",
)

#: What .flags of the entry behind the last field can be.
ENDS: Final = (0, 0x10000, 0x20000)

_FLAGS: Final = {
    0x1: "SINGLE",
    0x2: "POINTER",
    0x4: "ARRAY",
    0x8: "STRUCT",
    0x10: "VARRAY_INT32",
    0x20: "BUFFER",
    0x40: "ARRAY_OF_POINTER",
    0x80: "VARRAY_UINT16",
    0x100: "VBUFFER",
    0x200: "MULTIPLY",
    0x400: "VARRAY_UINT8",
    0x800: "VARRAY_UINT32",
    0x1000: "MUST_EXIST",
    0x2000: "ALLOC",
    0x4000: "MULTIPLY_ELEMENTS",
    0x8000: "VSTRUCT",
}


#: Name, offset and format character (of `struct`) of a member.
Member = tuple[str, int, str]

#: How each VMStateDescription since 2.5 begins.
_HEAD: Final[tuple[Member, ...]] = (
    ("name", 0, "Q"),
    ("unmigratable", 8, "B"),
    ("early_setup", 9, "B"),
    ("version_id", 12, "i"),
    ("minimum_version_id", 16, "i"),
)


def packed(members: Iterable[Member], size: int = 0) -> tuple[struct.Struct, tuple[str, ...]]:
    """How to unpack members in one go, and their names in that order.

    Args:
        members: in any order.
        size: of the whole, in bytes; 0: up to the last member's end.

    Raises:
        ValueError: members overlap, or do not fit.
    """
    layout, names, end = "<", [], 0
    for name, offset, code in sorted(members, key=lambda member: member[1]):
        if offset < end:
            raise ValueError(f"member {name} overlaps another")
        layout += f"{offset - end}x{code}"
        names.append(name)
        end = offset + struct.calcsize(f"<{code}")
    if size and size < end:
        raise ValueError(f"{size} bytes are too few for member {names[-1]}")
    return struct.Struct(f"{layout}{max(size - end, 0)}x"), tuple(names)


@dataclass(frozen=True, slots=True)
class DescriptionLayout:
    """Where the members of a VMStateDescription lie.

    Attributes:
        releases: the QEMU releases that have it, in words.
        size: sizeof, in bytes.
        priority: offset of the priority; None before there was one.
        hooks: offset of each function pointer, by name.
        fields: offset of the pointer to the fields.
        subsections: offset of that to the list of subsections; 0: it follows.
        head: the members that tell a description from other data.
    """

    releases: str
    size: int
    priority: int | None
    hooks: Mapping[str, int]
    fields: int
    subsections: int = 0
    head: tuple[Member, ...] = _HEAD

    @property
    def name(self) -> int:
        """Offset of the pointer to the name."""
        return next(offset for member, offset, _ in self.head if member == "name")

    @property
    def pointers(self) -> tuple[Member, Member]:
        """The pointers to fields and subsections."""
        behind = self.subsections or self.fields + 8
        return ("fields", self.fields, "Q"), ("subsections", behind, "Q")


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """How to unpack a VMStateField, in one go.

    Attributes:
        releases: the QEMU releases that have it, in words.
        layout: the structure; its members have the order of `members`.
        members: their names.
        indirect: numbers and sizes come with their width (seen in 11.1.3).
    """

    releases: str
    layout: struct.Struct
    members: tuple[str, ...]
    indirect: bool = False

    @property
    def size(self) -> int:
        """Sizeof, in bytes."""
        return self.layout.size


@dataclass(frozen=True, slots=True)
class Era:
    """The layouts of one binary.

    Attributes:
        description: of its descriptions.
        field: of their fields.
        end: flags of the entry behind the last field.
        flags: VMS_* names by bit, where the binary itself tells them; else empty.
    """

    description: DescriptionLayout
    field: FieldLayout
    end: int
    flags: Mapping[int, str] = dataclasses.field(default_factory=dict)

    @property
    def label(self) -> str:
        """The era in words."""
        end = f"{self.end:#x}" if self.end else "none"
        if self.description.releases == self.field.releases:
            return f"as its {self.field.releases} says, end mark {end}"
        return (
            f"descriptions of {self.description.releases}, fields of {self.field.releases}, "
            f"end mark {end}"
        )


def flag_names(flags: int, era: Era) -> tuple[str, ...]:
    """VMS_* names of the bits of a field's flags, low bits first.

    Source: QEMU include/migration/vmstate.h (enum VMStateFlags). Bit 0x10000 was the
    end mark (8.0 to 10.2) before it became ARRAY_OF_POINTER_AUTO_ALLOC (11.1).
    """
    names = dict(era.flags or _FLAGS)
    if not era.flags and era.end == 0x20000:
        names[0x10000] = "ARRAY_OF_POINTER_AUTO_ALLOC"
    bits = (1 << at for at in range(flags.bit_length()) if flags >> at & 1)
    return tuple(names.get(bit, f"{bit:#x}") for bit in bits)


def _hooks(first: int, *names: str) -> dict[str, int]:
    return {name: first + 8 * at for at, name in enumerate(names)}


_OLD: Final = ("load_state_old", "pre_load", "post_load", "pre_save")
_NEW: Final = ("pre_load", "post_load", "pre_save", "post_save", "needed", "dev_unplug_pending")

DESCRIPTIONS: Final = (
    DescriptionLayout("2.5 to 2.8", 80, None, _hooks(24, *_OLD, "needed"), 64),
    DescriptionLayout("2.9 to 3.1", 88, 24, _hooks(32, *_OLD, "needed"), 72),
    DescriptionLayout("4.0 to 4.1", 96, 24, _hooks(32, *_OLD, "post_save", "needed"), 80),
    DescriptionLayout("4.2 to 6.2", 104, 24, _hooks(32, "load_state_old", *_NEW), 88),
    DescriptionLayout("7.0 to 10.1", 88, 20, _hooks(24, *_NEW), 72),
    DescriptionLayout("10.2 to 11.1", 112, 20, _hooks(24, *HOOKS[1:]), 96),
)

_TAIL: Final = ("info", "flags", "vmsd", "version_id", "struct_version_id", "field_exists")

FIELDS: Final = (
    FieldLayout(
        "2.5 to 2.9",
        struct.Struct("<QQQQi4xQQQI4xQiiQ"),
        ("name", "offset", "size", "start", "num", "num_offset", "size_offset", *_TAIL),
    ),
    FieldLayout(
        "2.10 to 10.2",
        struct.Struct("<QQQQQi4xQQQI4xQiiQ"),
        ("name", "err_hint", "offset", "size", "start", "num", "num_offset", "size_offset", *_TAIL),
    ),
    FieldLayout(
        "11.1.0 and 11.1.1",
        struct.Struct("<QQQQQi4xQQI4xQiiQ"),
        ("name", "offset", "size", "size_offset", "start", "num", "num_offset", *_TAIL),
    ),
    FieldLayout(
        "11.1.3 and later",
        struct.Struct("<QQQIB3xIB3xQi4xQI4xQiiQ"),
        (
            *("name", "offset", "size", "size_offset", "size_width", "num_offset", "num_width"),
            *("start", "num", *_TAIL),
        ),
        indirect=True,
    ),
)
